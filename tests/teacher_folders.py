"""Small dataset, base and teacher folders that the teacher's tests stand on, made by the real stages."""

import functools
import shutil
import tempfile
from pathlib import Path

from dataset_builder import build as dataset_build
from dataset_builder.configuration import DatasetSettings
from training import pretrain_base, train_teacher

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "training" / "configs"
BASE_CONFIG, TEACHER_CONFIG = CONFIGS / "base-smoke.yaml", CONFIGS / "teacher-smoke.yaml"


@functools.cache
def _root() -> Path:
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="teacher-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
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
