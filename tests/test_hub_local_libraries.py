"""The libraries that people use, unmodified, in a process that knows the Hub by HF_ENDPOINT."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.local import LocalHub, start


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with start(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def environment(hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }


# One process for all: most of the time is spent importing torch.
DATASETS = """
    import datasets
    rows = datasets.Dataset.from_dict({"states": [[0.5, 0.25]] * 50, "shape": ["settled"] * 50})
    parts = rows.train_test_split(0.2, seed=0)
    parts.push_to_hub("hikewa/windows")
    parts.push_to_hub("hikewa/windows", "second", private=True)
    loaded = datasets.load_dataset("hikewa/windows")
    assert {name: part.num_rows for name, part in loaded.items()} == {"train": 40, "test": 10}
    assert loaded["train"].to_dict() == parts["train"].to_dict()
    stream = datasets.load_dataset("hikewa/windows", "second", split="test", streaming=True)
    assert [row["shape"] for row in stream] == ["settled"] * 10
    assert datasets.get_dataset_config_names("hikewa/windows") == ["default", "second"]
    print("datasets")
"""
TRANSFORMERS_AND_PEFT = """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
    config = Qwen3Config(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    Qwen3ForCausalLM(config).push_to_hub("hikewa/base")
    base = AutoModelForCausalLM.from_pretrained("hikewa/base", revision="main")
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.push_to_hub("hikewa/adapter")
    ids = torch.tensor([[1, 2, 3]])
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("hikewa/base"), "hikewa/adapter")
    assert torch.equal(again.eval()(ids).logits, tuned.eval()(ids).logits)
    print("transformers and peft")
"""
# `evaluate` runs code that it downloads; no part of this project does, but the Hub must serve it.
EVALUATE = """
    import evaluate
    from huggingface_hub import HfApi
    lines = [
        "import datasets",
        "import evaluate",
        "class Agreement(evaluate.Metric):",
        "    def _info(self):",
        "        features = {name: datasets.Value('int32') for name in ('predictions', 'references')}",
        "        features = datasets.Features(features)",
        "        empty = dict.fromkeys(('description', 'citation', 'inputs_description'), '')",
        "        return evaluate.MetricInfo(features=features, **empty)",
        "    def _compute(self, predictions, references):",
        "        return {'agreement': (predictions == references) + 0.5}",
    ]
    HfApi().create_repo("hikewa/agreement", repo_type="space", space_sdk="gradio")
    script = "\\n".join(lines).encode()
    HfApi().upload_file(
        path_or_fileobj=script, path_in_repo="agreement.py", repo_id="hikewa/agreement", repo_type="space"
    )
    metric = evaluate.load("hikewa/agreement")
    assert metric.compute(predictions=[1, 2], references=[1, 3]) == {"agreement": 0.5}
    print("evaluate")
"""


def test_libraries_push_and_load(environment: dict[str, str]) -> None:
    code = "".join(map(textwrap.dedent, (DATASETS, TRANSFORMERS_AND_PEFT, EVALUATE)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout.splitlines()[-3:] == ["datasets", "transformers and peft", "evaluate"], done.stderr[
        -4000:
    ]


def test_the_hf_command(environment: dict[str, str], tmp_path: Path) -> None:
    def hf(*arguments: object) -> str:
        command = [str(Path(sys.executable).with_name("hf")), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "d" / "b.bin").write_bytes(b"b" * 5000)
    assert "hikewa" in hf("auth", "whoami")
    hf("repo", "create", "hikewa/command", "--repo-type", "dataset")
    hf("upload", "hikewa/command", folder, ".", "--repo-type", "dataset")
    hf("repo", "tag", "create", "hikewa/command", "v1", "--repo-type", "dataset")
    assert "v1" in hf("repo", "tag", "list", "hikewa/command", "--repo-type", "dataset")
    hf("repo-files", "delete", "hikewa/command", "d/*", "--repo-type", "dataset")
    hf(
        "download",
        "hikewa/command",
        "--repo-type",
        "dataset",
        "--revision",
        "v1",
        "--local-dir",
        tmp_path / "down",
    )
    assert (tmp_path / "down" / "d" / "b.bin").read_bytes() == b"b" * 5000
