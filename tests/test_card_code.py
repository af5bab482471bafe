"""The Python code in the cards runs as it stands, against a Hub that holds what the cards describe."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eisv_lumen import artifact
from hub.local import start
from model_cards.cards import Folders
from model_cards.names import ReleaseNames
from model_cards.render import render, write
from tests.random_models import random_base_and_teacher, random_student

ROOT = Path(__file__).resolve().parents[1]
NAMES = ReleaseNames(namespace="someone")
KINDS = ("dataset", "base", "teacher", "student")
PUSH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
for kind, repo, folder in zip(*[iter(sys.argv[1:])] * 3):
    repo_type = "dataset" if kind == "dataset" else "model"
    api.create_repo(repo, repo_type=repo_type)
    api.upload_folder(repo_id=repo, folder_path=folder, repo_type=repo_type)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    root = tmp_path_factory.mktemp("published")
    paths = {kind: root / kind for kind in (*KINDS, "evaluation")}
    command = [sys.executable, "-m", "dataset_builder.build", "--out", str(paths["dataset"])]
    command += ["--source", "dataset_builder/recordings", "--config", "dataset_builder/configs/smoke.yaml"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    gate = {"passed": True, "n": 1}
    random_base_and_teacher(paths["base"], paths["teacher"], NAMES.repo("base"), gate)
    random_student(paths["student"], {"gate_2": gate})
    cell = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    with artifact.build(paths["evaluation"], kind="evaluation", configuration={}) as work:
        work.metrics = {"table": {"real": {"Teacher": {"coherence": cell}, "Student": {"coherence": cell}}}}
    folders = Folders(**paths)
    for path, text in render(folders, NAMES).items():
        write(path, text)
    return folders


def code_of(folder: Path) -> str:
    return "".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S))


@pytest.mark.slow
def test_code_in_the_cards_runs(folders, tmp_path):
    published = {kind: getattr(folders, kind) for kind in KINDS}
    arguments = [part for kind in KINDS for part in (kind, NAMES.repo(kind), str(published[kind]))]
    # One process for all cards: most of the time is spent importing torch.
    code = "".join(f"print('card: {kind}')\n{code_of(folder)}" for kind, folder in published.items())
    with start(tmp_path / "hub") as hub:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
        }
        push = [sys.executable, "-c", PUSH, *arguments]
        subprocess.run(push, env={**environment, "HF_TOKEN": hub.token}, check=True, capture_output=True)
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
    assert result.returncode == 0, result.stderr
    said = dict(zip(KINDS, re.split(r"card: \w+\n", result.stdout)[1:], strict=True))
    assert re.search(r"~\w+~", said["dataset"]) and "EISV_TOKENS:" in said["dataset"]
    assert re.match(r"\d+ \d+", said["base"])
    assert re.search(r"~\w+~.* 0\.\d\d", said["student"]) and "shape_probs" in said["student"]
