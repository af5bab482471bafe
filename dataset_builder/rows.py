"""Rows of the configurations `windows` and `expressions`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_builder import parquet
from dataset_builder.labelling import Heard, join_heard
from dataset_builder.table import Table
from eisv_lumen.expression import Expression, decode, render_answers
from eisv_lumen.prompts import SYSTEM, design_prompts
from eisv_lumen.vocabulary import N_CLASSES, SHAPES
from eisv_lumen.windows import summaries


@dataclass(frozen=True)
class Rows:
    """N windows with labels and expressions.

    Attributes:
        table: The windows.
        robust: `[N]` shape ids of the default labels.
        published: `[N]` shape ids of the published rules.
        ids: `[N, 3]` expressions said by the rules with feedback.
        heard: Expressions that were really said.
    """

    table: Table
    robust: np.ndarray
    published: np.ndarray
    ids: np.ndarray
    heard: Heard

    @classmethod
    def join(cls, parts: "list[Rows]") -> "Rows":
        """One after the other; at least one."""
        return cls(
            table=Table.join([part.table for part in parts]),
            robust=np.concatenate([part.robust for part in parts]),
            published=np.concatenate([part.published for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            heard=join_heard([part.heard for part in parts]),
        )

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.table)

    def __getitem__(self, rows: np.ndarray) -> "Rows":
        """The chosen windows."""
        return Rows(
            self.table[rows], self.robust[rows], self.published[rows], self.ids[rows], self.heard[rows]
        )


class Written:
    """Expressions `[N, 3]`, each different one rendered once."""

    def __init__(self, ids: np.ndarray) -> None:
        codes = (ids[:, 0] * N_CLASSES + ids[:, 1]) * N_CLASSES + ids[:, 2]
        _, first, self.which = np.unique(codes, return_index=True, return_inverse=True)
        self.expressions: list[Expression] = decode(ids[first])

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """An attribute of every expression."""
        values = [getattr(expression, name) for expression in self.expressions]
        return parquet.repeated(values, self.which, kind)


def window_columns(rows: Rows, names: list[str]) -> dict[str, Any]:
    """Columns of the `windows` configuration."""
    table, said = rows.table, Written(rows.ids)
    return {
        "window_id": names,
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
        "shape": _shape_names(rows.robust),
        "shape_published": _shape_names(rows.published),
        "tokens": said.column("tokens", pa.list_(pa.string())),
        "pattern": said.column("pattern", pa.string()),
        "expression": parquet.repeated([str(e) for e in said.expressions], said.which, pa.string()),
        "lumen_words": said.column("lumen_words", pa.list_(pa.string())),
        **_heard_columns(rows.heard),
    }


def expression_columns(rows: Rows, names: list[str]) -> dict[str, Any]:
    """Columns of the `expressions` configuration: prompt and completion as conversations."""
    prompts = design_prompts(rows.robust, summaries(rows.table.windows()))
    return {
        "window_id": names,
        "provenance": rows.table.provenance,
        "shape": _shape_names(rows.robust),
        "prompt": parquet.messages(("system", SYSTEM), ("user", prompts)),
        "completion": parquet.messages(("assistant", render_answers(rows.ids))),
        "pattern": Written(rows.ids).column("pattern", pa.string()),
    }


def _shape_names(ids: np.ndarray) -> pa.Array:
    return parquet.repeated(SHAPES, ids, pa.string())


def _heard_columns(heard: Heard) -> dict[str, Any]:
    tokens, patterns = list[Any]([None] * len(heard.ids)), list[str | None]([None] * len(heard.ids))
    for row in np.flatnonzero(heard.any).tolist():
        expression = Expression.from_ids(heard.ids[row])
        tokens[row], patterns[row] = list(expression.tokens), expression.pattern
    return {
        "observed_tokens": tokens,
        "observed_pattern": patterns,
        "observed_score": pa.array(heard.scores, pa.float32(), mask=np.isnan(heard.scores)),
        "observed_feedback": heard.feedback,
    }
