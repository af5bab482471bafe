"""Small dataset, base and teacher folders that the teacher's tests stand on, made by the real stages."""

import functools
import os
from pathlib import Path

from dataset_builder import build as dataset_build
from dataset_builder.configuration import DatasetSettings
from training import pretrain_base, train_teacher

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "training" / "configs"
BASE_CONFIG, TEACHER_CONFIG = CONFIGS / "base-smoke.yaml", CONFIGS / "teacher-smoke.yaml"


def _root() -> Path:
    """One for all processes of a run: the stages themselves see to it that the second waits for the first."""
    folder = Path(os.environ["FOLDER_OF_ALL_TEST_PROCESSES"]) / "teacher"
    folder.mkdir(exist_ok=True)
    return folder


@functools.cache
def dataset_folder() -> Path:
    """A dataset of a few hundred windows, from the recordings in the repository."""
    settings = DatasetSettings.read(ROOT / "dataset_builder" / "configs" / "smoke.yaml")
    dataset_build.build(_root() / "dataset", [str(ROOT / "dataset_builder" / "recordings")], settings)
    return _root() / "dataset"


@functools.cache
def base_folder() -> Path:
    """A base model trained for some seconds."""
    assert pretrain_base.main(["--config", str(BASE_CONFIG), "--out", str(_root() / "base")]) == 0
    return _root() / "base"


@functools.cache
def teacher_folder() -> Path:
    """A teacher trained for some seconds."""
    assert train_teacher.main(teacher_arguments(_root() / "teacher")) == 0
    return _root() / "teacher"


def teacher_arguments(out: Path, config: Path = TEACHER_CONFIG, base: Path | None = None) -> list[str]:
    """The command line of the teacher's stage."""
    return [
        *("--config", str(config), "--dataset", str(dataset_folder())),
        *("--base", str(base or base_folder()), "--out", str(out)),
    ]
