"""Rows of the three configurations: `windows`, `expressions`, and the schema that is published already."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dataset_builder import parquet
from dataset_builder.labelling import Spoken
from dataset_builder.table import REAL, Table
from eisv_lumen.expression import Expression, decode, render_answer, to_published
from eisv_lumen.layouts import DATASET, SPLITS
from eisv_lumen.prompts import design_messages
from eisv_lumen.vocabulary import DIMENSIONS, SHAPES
from eisv_lumen.windows import derivatives, summaries

_ROWS_AT_ONCE = 8192
"""Rows per row group; bounds the memory that writing takes."""


@dataclass(frozen=True)
class Dataset:
    """Everything that is written: windows, labels and expressions, row by row.

    Attributes:
        table: The windows.
        names: `[N]` window ids.
        robust: `[N]` shape ids of the default labels.
        published: `[N]` shape ids of the published rules.
        spoken: The expressions.
    """

    table: Table
    names: np.ndarray
    robust: np.ndarray
    published: np.ndarray
    spoken: Spoken

    def __getitem__(self, rows: np.ndarray) -> "Dataset":
        """The chosen rows."""
        spoken = Spoken(self.spoken.ids[rows], self.spoken.observed[rows], self.spoken.scores[rows])
        return Dataset(self.table[rows], self.names[rows], self.robust[rows], self.published[rows], spoken)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.table)


def write_dataset(folder: Path, dataset: Dataset) -> None:
    """Write all configurations of a dataset below a folder."""
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(dataset.table.split == number)
        for name, schema, columns in (
            (DATASET.windows(split), parquet.WINDOWS, window_columns),
            (DATASET.expressions(split), parquet.EXPRESSIONS, expression_columns),
        ):
            parquet.write(folder / name, schema, map(columns, _parts(dataset, rows)))
    everything = np.arange(len(dataset))
    parquet.write(folder / DATASET.legacy, parquet.LEGACY, map(legacy_columns, _parts(dataset, everything)))


def _parts(dataset: Dataset, rows: np.ndarray) -> Iterator[Dataset]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield dataset[rows[start : start + _ROWS_AT_ONCE]]


def window_columns(part: Dataset) -> dict[str, Any]:
    """Columns of the `windows` configuration."""
    table, said = part.table, _said(part.spoken.ids)
    heard = _observed(part.spoken)
    return {
        "window_id": part.names,
        "source": table.source,
        "device": table.device,
        "provenance": table.provenance,
        "scale": table.scale,
        "cadence_s": table.cadence,
        "t_start": table.start,
        "t_end": table.end,
        "times": parquet.number_lists(table.times),
        "states": parquet.number_lists(table.states),
        "ethical_drift": parquet.number_lists(table.drift, ~np.isnan(table.drift).all(axis=1)),
        "shape": [SHAPES[shape] for shape in part.robust],
        "shape_published": [SHAPES[shape] for shape in part.published],
        "tokens": [list(expression.tokens) for expression in said],
        "pattern": [expression.pattern for expression in said],
        "expression": [str(expression) for expression in said],
        "lumen_words": [list(expression.lumen_words) for expression in said],
        "observed_tokens": [None if e is None else list(e.tokens) for e in heard],
        "observed_pattern": [None if e is None else e.pattern for e in heard],
        "observed_score": [None if np.isnan(s) else s for s in part.spoken.scores.tolist()],
    }


def expression_columns(part: Dataset) -> dict[str, Any]:
    """Columns of the `expressions` configuration: prompt and completion as conversations."""
    summary = summaries(part.table.windows())
    said = _said(part.spoken.ids)
    prompts = [
        design_messages(
            SHAPES[part.robust[row]],
            SimpleNamespace(**{name: values[row] for name, values in vars(summary).items()}),
        )
        for row in range(len(part))
    ]
    answers = [[{"role": "assistant", "content": render_answer(expression)}] for expression in said]
    return {
        "window_id": part.names,
        "provenance": part.table.provenance,
        "shape": [SHAPES[shape] for shape in part.robust],
        "prompt": parquet.messages(prompts),
        "completion": parquet.messages(answers),
        "pattern": [expression.pattern for expression in said],
    }


def legacy_columns(dataset: Dataset) -> dict[str, Any]:
    """Columns exactly as published so far: JSON texts, the published labels, one split of all rows.

    Where an expression was observed it is given, elsewhere the one the rules with feedback say.
    """
    table = dataset.table
    windows = table.windows()
    times = table.start[:, None] + table.times.astype(np.float64)
    rates = derivatives(windows)
    said = _said(dataset.spoken.ids)
    tokens = [
        json.dumps([to_published(expression if observed is None else observed)])
        for expression, observed in zip(said, _observed(dataset.spoken), strict=True)
    ]
    return {
        "shape": [SHAPES[shape] for shape in dataset.published],
        "eisv_states": _json_points(times, table.states.astype(np.float64), DIMENSIONS, None),
        "derivatives": _json_points(
            times[:, 1:], rates.first, tuple(f"d{name}" for name in DIMENSIONS), rates.usable
        ),
        "t_start": table.start,
        "t_end": table.end,
        "provenance": ["lumen_real" if kind == REAL else "synthetic" for kind in table.provenance],
        "tokens": tokens,
        "n_expressions": np.ones(len(table), np.int64),
    }


def _json_points(
    times: np.ndarray, values: np.ndarray, names: tuple[str, ...], usable: np.ndarray | None
) -> list[str]:
    """Per row a JSON list of `{t, name: value, …}`, leaving out points that are not usable."""
    point = '{"t": %.3f, ' + ", ".join(f'"{name}": %.6g' for name in names) + "}"
    # Adding zero turns -0.0 into 0.0.
    points = np.concatenate([times[..., None], values + 0.0], axis=2)
    kept: np.ndarray = np.ones(times.shape, bool) if usable is None else usable
    whole: list[bool] = np.all(kept, axis=1).tolist()
    line = "[" + ", ".join([point] * points.shape[1]) + "]"
    texts = []
    for row, here, complete in zip(points, kept, whole, strict=True):
        if complete:
            texts.append(line % tuple(row.ravel().tolist()))
        else:
            texts.append("[" + ", ".join(point % tuple(p) for p in row[here].tolist()) + "]")
    return texts


def _said(ids: np.ndarray) -> list[Expression]:
    """The expressions of ids `[N, 3]`, each different one decoded once."""
    different, which = np.unique(ids, axis=0, return_inverse=True)
    expressions = decode(different)
    return [expressions[number] for number in which.ravel().tolist()]


def _observed(spoken: Spoken) -> list[Expression | None]:
    return [None if ids[0] < 0 else Expression.from_ids(ids) for ids in spoken.observed]
