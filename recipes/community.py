"""What community users do: load the published repositories with the ordinary libraries, at the release's tag.

    python -m recipes.community --hub URL --release release.json --dataset DIR ... --out community.json

Each check compares what came from the Hub with the files that were pushed, and fails when they differ.
HF_ENDPOINT must name the Hub and HF_HOME an empty folder before Python starts: clients read them on import.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from eisv_lumen.artifact import sha256_file, write_json
from eisv_lumen.errors import HubError, VerificationError, exit_with_reason
from eisv_lumen.layouts import ALL_SPLITS, DATASET, STUDENT
from recipes.configuration import REPOSITORIES, Recipe

_Place = tuple[str, str | None]
"""A folder or repository, and its revision (None: of a folder, or the default branch)."""


def main() -> None:
    """Load dataset, teacher and student from the Hub and compare them with what was pushed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    for name in REPOSITORIES:
        parser.add_argument(f"--{name}", type=Path, required=name != "base")
    arguments = parser.parse_args()
    release = sha256_file(arguments.release)
    if arguments.out.exists() and json.loads(arguments.out.read_text())["release_sha256"] == release:
        return
    recipe = Recipe.read(arguments.recipe)
    tag = "v" + json.loads(arguments.release.read_text())["version"]
    repo = recipe.release.repo_id
    given = {name: folder for name in REPOSITORIES if (folder := getattr(arguments, name)) is not None}
    own_base = repo("base") if "base" in given else None
    _expect(os.environ.get("HF_ENDPOINT") == arguments.hub, "another HF_ENDPOINT", arguments.hub)
    found = {
        "release_sha256": release,
        "dataset": check_dataset(repo("dataset"), tag, arguments.dataset),
        "teacher": check_teacher(own_base, repo("teacher"), tag, given),
        "student": check_student(repo("student"), tag, arguments.student),
    }
    write_json(arguments.out, found)


def check_dataset(repo_id: str, tag: str, folder: Path) -> dict[str, Any]:
    """`datasets.load_dataset` of every configuration: the rows that were pushed, value for value."""
    import datasets
    from pyarrow import parquet

    rows: dict[str, dict[str, int]] = {}
    for configuration in ("windows", "expressions", "legacy"):
        loaded = datasets.load_dataset(repo_id, configuration, revision=tag)
        rows[configuration] = {}
        for split in loaded:
            path = DATASET.legacy if configuration == "legacy" else getattr(DATASET, configuration)(split)
            pushed = parquet.read_table(folder / path)
            same = loaded[split].with_format("arrow")[:].cast(pushed.schema).equals(pushed)
            _expect(
                same, f"{configuration}/{split} of {repo_id} differs from {path}", "the rows that were pushed"
            )
            rows[configuration][str(split)] = pushed.num_rows
    pushed_rows = {
        split: parquet.read_metadata(folder / DATASET.windows(split)).num_rows for split in ALL_SPLITS
    }
    wanted = {split for split, count in pushed_rows.items() if count}
    _expect(set(rows["windows"]) == wanted, f"splits {sorted(rows['windows'])}", f"{sorted(wanted)}")
    print(f"datasets: {repo_id}@{tag}: {rows['windows']}", flush=True)
    return {"rows": rows}


def check_teacher(own_base: str | None, repo_id: str, tag: str, folders: dict[str, Path]) -> dict[str, Any]:
    """peft + transformers: the adapter names its base, loads on it, and answers as the pushed folders do.

    Args:
        own_base: Repository of the base in `folders`; None where the adapter names somebody else's.
        repo_id: Repository of the teacher.
        tag: The release's.
        folders: What was pushed, by role.

    Raises:
        HubError: The base is not on the Hub in use.
        VerificationError: What was published differs from what was pushed.
    """
    from peft import PeftConfig
    from pyarrow import parquet

    config, pushed_teacher = PeftConfig.from_pretrained(repo_id, revision=tag), str(folders["teacher"])
    named = config.base_model_name_or_path
    wanted = own_base or PeftConfig.from_pretrained(pushed_teacher).base_model_name_or_path
    _expect(named == wanted, f"base {named}", wanted)
    base = pushed_base = (named, config.revision)
    if own_base:
        base, pushed_base = (own_base, tag), (str(folders["base"]), None)
    prompt = parquet.read_table(folders["dataset"] / DATASET.expressions("test"))["prompt"][0].as_py()
    answer = _answer(base, (repo_id, tag), prompt)
    pushed = _answer(pushed_base, (pushed_teacher, None), prompt)
    _expect(answer == pushed, f"answer {answer!r}", f"{pushed!r}, as the pushed folders give")
    print(f"peft: {repo_id}@{tag} on {named}: {answer.splitlines()[0]}", flush=True)
    return {"answer": answer}


def _answer(base: _Place, adapter: _Place, prompt: list[dict[str, str]]) -> str:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder_or_repo, revision = adapter
    tokenizer = AutoTokenizer.from_pretrained(folder_or_repo, revision=revision)
    try:
        language_model = AutoModelForCausalLM.from_pretrained(base[0], revision=base[1])
    except OSError as error:
        raise HubError(
            found=f"{base[0]} at {base[1] or 'main'}: {str(error).splitlines()[0]}",
            expected="the base model that the adapter names, on the Hub in use",
            next="publish where the base is (HUB=https://huggingface.co), or put it on this Hub",
        ) from error
    model = PeftModel.from_pretrained(language_model, folder_or_repo, revision=revision)
    inputs = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        output = model.eval().generate(**inputs, max_new_tokens=64, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def check_student(repo_id: str, tag: str, folder: Path) -> dict[str, Any]:
    """Plain onnxruntime: the INT8 graph is the file pushed and reproduces the golden outputs."""
    import numpy as np
    import onnxruntime
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(repo_id, STUDENT.int8, revision=tag))
    _expect(
        sha256_file(path) == sha256_file(folder / STUDENT.int8), f"{path.name} differs", "the graph pushed"
    )
    golden = json.loads(Path(hf_hub_download(repo_id, STUDENT.golden, revision=tag)).read_text())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for window in golden["windows"]:
        states = np.array([window["states"]], np.float32)
        feed = {
            "states": states,
            "times": np.array([window["times"]], np.float32),
            "mask": np.array([window["mask"]], bool),
            "noise": np.zeros((1, 3, 17), np.float32),
        }
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(None, feed), strict=True))
        expected = np.array(window["int8"]["shape_probs"])
        worst = max(worst, float(np.abs(outputs["shape_probs"][0] - expected).max()))
        same = outputs["token_ids"][0].tolist() == window["int8"]["token_ids"]
        _expect(
            same, f"tokens {outputs['token_ids'][0].tolist()}", f"{window['int8']['token_ids']} as recorded"
        )
    _expect(
        worst <= golden["tolerance"], f"shape probabilities off by {worst}", f"within {golden['tolerance']}"
    )
    print(f"onnxruntime: {repo_id}@{tag}: {len(golden['windows'])} golden windows reproduced", flush=True)
    return {"golden_windows": len(golden["windows"]), "largest_difference": worst}


def _expect(condition: bool, found: str, expected: str) -> None:
    if not condition:
        raise VerificationError(found=found, expected=expected, next="publish the release again and compare")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_with_reason(main)
