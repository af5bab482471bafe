"""What a dataset holds, as numbers: its metrics file."""

from collections import Counter
from typing import Any

import numpy as np

from dataset_builder.rows import Dataset
from dataset_builder.sources import Content
from dataset_builder.table import REAL, SYNTHETIC, Table
from eisv_lumen.layouts import SPLITS
from eisv_lumen.shapes import classify
from eisv_lumen.vocabulary import SHAPES, STATE_MAX
from eisv_lumen.windows import Windows

RESOLUTION = 1e-3
"""Noise at the level of the sensors' resolution, put on every state to see whether labels stand."""


def measure(
    dataset: Dataset,
    contents: list[Content],
    *,
    real: Table,
    real_shapes: np.ndarray,
    kept: np.ndarray,
    feedback: dict[str, Any],
) -> dict[str, Any]:
    """The dataset's metrics as plain JSON.

    Args:
        dataset: What is written.
        contents: What was read.
        real: All real windows that were cut.
        real_shapes: Their robust shape ids.
        kept: `[len(real)]` bool, which of them are in the dataset.
        feedback: What the labelling rules learned from.
    """
    table = dataset.table
    dropped: Counter[str] = Counter()
    for content in contents:
        dropped.update(content.report.dropped)
        dropped.update(content.report.values)
    dropped["window beyond the split's size"] += int((~kept).sum())
    return {
        "counts": _counts(table),
        "shapes": _by_source(table, dataset.robust),
        "shapes_published": _by_source(table, dataset.published),
        "shapes_by_split": _by_split(table, dataset.robust),
        "cut": _by_source(real, real_shapes),
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "sources": [_source(content) for content in contents],
        "feedback": feedback,
        "labels_agree": _mean(dataset.robust == dataset.published),
        "label_stability": _stability(real),
    }


def _counts(table: Table) -> dict[str, dict[str, int]]:
    return {
        split: {
            kind: int(((table.split == number) & (table.provenance == kind)).sum())
            for kind in (REAL, SYNTHETIC)
        }
        for number, split in enumerate(SPLITS)
    }


def _by_source(table: Table, shapes: np.ndarray) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for source in dict.fromkeys(table.source):
        for scale in dict.fromkeys(table.scale[table.source == source]):
            rows = (table.source == source) & (table.scale == scale)
            counts.setdefault(source, {})[scale] = _shape_counts(shapes[rows])
    return counts


def _by_split(table: Table, shapes: np.ndarray) -> dict[str, dict[str, dict[str, int]]]:
    return {
        split: {
            kind: _shape_counts(shapes[(table.split == number) & (table.provenance == kind)])
            for kind in (REAL, SYNTHETIC)
        }
        for number, split in enumerate(SPLITS)
    }


def _shape_counts(shapes: np.ndarray) -> dict[str, int]:
    counts = np.bincount(shapes, minlength=len(SHAPES)).tolist()
    return {name: count for name, count in zip(SHAPES, counts, strict=True) if count}


def _source(content: Content) -> dict[str, Any]:
    return {
        "name": content.source.name,
        "kind": content.kind,
        "states": content.states,
        "devices": {
            device: {
                "states": len(series),
                "segments": len(series.segments),
                "median_step_s": None if np.isnan(series.step) else round(series.step, 3),
                "t_start": round(float(series.times.min()), 3) if len(series) else None,
                "t_end": round(float(series.times.max()), 3) if len(series) else None,
            }
            for device, series in content.devices.items()
        },
        "observed": 0 if content.observed is None else len(content.observed),
        **content.report.to_dict(),
    }


def _stability(real: Table) -> dict[str, Any]:
    """Share of real windows whose label stands under noise of the sensors' resolution."""
    windows = real.windows()
    noise = np.random.default_rng(0).uniform(-RESOLUTION / 2, RESOLUTION / 2, windows.states.shape)
    noisy = Windows.of(np.clip(windows.states + noise, 0.0, STATE_MAX), windows.times)
    return {
        rules: _mean(classify(windows, rules=rules) == classify(noisy, rules=rules))
        for rules in ("robust", "published")
    } | {"noise": RESOLUTION, "n": len(real)}


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)
