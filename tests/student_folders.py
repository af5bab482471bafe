"""Small student folders and the dataset, labels and teacher folders that the student's tests stand on."""

import functools
import json
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file

from eisv_lumen import artifact
from eisv_lumen.expression import decode
from eisv_lumen.layouts import DATASET, LABELS, SPLITS, STUDENT
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import published
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import SHAPE_ID, SHAPES
from eisv_lumen.windows import Windows
from training.student import export, golden
from training.student.tables import new_model

SIZES = {"width": 32, "encoder_layers": 2, "decoder_layers": 1, "feed_forward": 64, "embedding_size": 32}


def synthetic_windows(count: int, seed: int = 0) -> tuple[Windows, np.ndarray]:
    """Windows of every shape in turn, and their shapes."""
    shapes = np.arange(count) % len(SHAPES)
    return generate(shapes, np.random.default_rng(seed), cadence=10.0), shapes


def untrained(seed: int = 0, **sizes):
    """A model with random weights, large enough to make its distributions uneven."""
    torch.manual_seed(seed)
    model = new_model(**(sizes or SIZES)).eval()
    model.token_head.weight.data *= 4
    model.shape_head.weight.data *= 4
    model.temperature.fill_(1.3)
    return model


@functools.cache
def student_folder() -> Path:
    """One student folder for all tests that do not change it."""
    folder = Path(tempfile.mkdtemp(prefix="student-"))
    weakref.finalize(student_folder, shutil.rmtree, folder, ignore_errors=True)
    write_student(folder / "student")
    return folder / "student"


def write_student(out: Path, seed: int = 0, **sizes):
    """A student folder of an untrained model; returns the model."""
    model = untrained(seed, **sizes)
    windows, shapes = synthetic_windows(90)
    with artifact.build(out, kind="student", configuration={"untrained": True, **sizes}, seed=seed) as work:
        model.save_pretrained(work.folder)
        export.export_fp32(model, work.folder / STUDENT.fp32)
        export.quantise(
            work.folder / STUDENT.fp32, work.folder / STUDENT.int8, keep=("features",), per_channel=False
        )
        config = json.loads((work.folder / STUDENT.config).read_text("utf-8"))
        models = {
            name: TrajectoryModel(work.folder / path, config, version="0", precision=name)
            for name, path in (("int8", STUDENT.int8), ("fp32", STUDENT.fp32))
        }
        artifact.write_json(work.folder / STUDENT.golden, golden.record(models, windows, shapes, 0))
        work.metrics = {"gate_2": {"passed": True}}
    return model


def write_inputs(folder: Path, counts: dict[str, int]) -> tuple[Path, Path, Path]:
    """Folders of a synthetic dataset, of labels by the rules in the teacher's place, and of a teacher."""
    rules, _ = Rules.converged(0)
    distribution, names, shapes = rules.distribution(), [], []
    dataset, labels, teacher = (folder / name for name in ("dataset", "labels", "teacher"))
    with artifact.build(dataset, kind="dataset", configuration=counts, seed=0) as work:
        (work.folder / DATASET.windows("train")).parent.mkdir(parents=True)
        for number, split in enumerate(SPLITS):
            rows = _rows(split, counts[split], rules, number)
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), work.folder / DATASET.windows(split))
            names += [row["window_id"] for row in rows]
            shapes += [SHAPE_ID[row["shape"]] for row in rows]
        artifact.write_json(work.folder / DATASET.weights, rules.to_dict())
        work.metrics = {}
    with artifact.build(
        labels, kind="labels", configuration=counts, inputs={"dataset": dataset}, seed=0
    ) as work:
        parts = {name: getattr(distribution, name)[shapes] for name in ("first", "second", "third")}
        parts["hidden"] = np.eye(len(SHAPES))[shapes]
        save_file({k: v.astype(np.float16) for k, v in parts.items()}, work.folder / LABELS.tensors)
        artifact.write_json(work.folder / LABELS.window_ids, names)
        work.metrics = {}
    with artifact.build(teacher, kind="teacher", configuration={}, seed=0) as work:
        work.metrics = {"gate_1": {"passed": True, "coherence": 0.96, "n": 100}}
    return dataset, labels, teacher


def _rows(split: str, count: int, rules: Rules, seed: int) -> list[dict]:
    windows, shapes = synthetic_windows(count, seed)
    expressions = decode(rules.sample(shapes, np.random.default_rng(seed)))
    by_published = published(windows)
    return [
        {
            "window_id": f"{split}-{index}",
            "source": "synthetic" if index % 2 else "log.csv",
            "device": "test",
            "provenance": "synthetic" if index % 2 else "real",
            "scale": "native",
            "cadence_s": 10.0,
            "t_start": float(index),
            "t_end": float(index + 1),
            "times": windows.times[index].tolist(),
            "states": windows.states[index].tolist(),
            "ethical_drift": windows.ethical_drift[index].tolist(),
            "shape": SHAPES[shapes[index]],
            "shape_published": SHAPES[by_published[index]],
            "tokens": list(expression.tokens),
            "pattern": expression.pattern,
            "observed_tokens": None,
            "observed_pattern": None,
            "observed_score": None,
        }
        for index, expression in enumerate(expressions)
    ]


_TEXT, _FLOATS = pa.string(), pa.list_(pa.float32())
_SCHEMA = pa.schema(
    [(name, _TEXT) for name in ("window_id", "source", "device", "provenance", "scale")]
    + [("cadence_s", pa.float32()), ("t_start", pa.float64()), ("t_end", pa.float64()), ("times", _FLOATS)]
    + [
        ("states", pa.list_(_FLOATS)),
        ("ethical_drift", _FLOATS),
        ("shape", _TEXT),
        ("shape_published", _TEXT),
    ]
    + [("tokens", pa.list_(_TEXT)), ("pattern", _TEXT), ("observed_tokens", pa.list_(_TEXT))]
    + [("observed_pattern", _TEXT), ("observed_score", pa.float32())]
)
