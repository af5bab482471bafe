"""Where things lie inside an artifact folder; writers and readers share these names."""

from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
HELD_OUT_SYNTHETIC = {"validation": "validation_synthetic", "test": "test_synthetic"}
"""Splits of their own for synthetic windows that are held out: `validation` and `test` are purely real."""
ALL_SPLITS = (*SPLITS, *HELD_OUT_SYNTHETIC.values())


@dataclass(frozen=True)
class RecordingLayout:
    """Paths inside a recording folder."""

    readings: str = "readings.csv.gz"


@dataclass(frozen=True)
class DatasetLayout:
    """Paths inside a dataset folder."""

    weights: str = "weights.json"
    plan: str = "plan.json"
    legacy: str = "data/legacy/train.parquet"

    def windows(self, split: str) -> str:
        """Parquet file of the `windows` configuration."""
        return f"data/windows/{split}.parquet"

    def expressions(self, split: str) -> str:
        """Parquet file of the `expressions` configuration (prompt/completion pairs)."""
        return f"data/expressions/{split}.parquet"


@dataclass(frozen=True)
class LabelsLayout:
    """Paths inside a folder of teacher labels."""

    tensors: str = "labels.safetensors"
    window_ids: str = "window_ids.json"


@dataclass(frozen=True)
class StudentLayout:
    """Paths inside a student folder and in the student's repository."""

    config: str = "config.json"
    fp32: str = "onnx/model.onnx"
    int8: str = "onnx/model_int8.onnx"
    golden: str = "golden.json"
    release: str = "release.json"
    signature: str = "release.json.sig"


RECORDING = RecordingLayout()
DATASET = DatasetLayout()
LABELS = LabelsLayout()
STUDENT = StudentLayout()
