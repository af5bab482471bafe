"""Expressions for windows: what was really said there, and what the rules with feedback say."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dataset_builder.configuration import NATIVE, DatasetSettings
from dataset_builder.sources import Content
from dataset_builder.splits import TRAIN
from dataset_builder.table import Table
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import MAX_TOKENS

LATEST = 1.5
"""An expression belongs to the last window that ended before it, at most this many strides ago."""


@dataclass(frozen=True)
class Spoken:
    """Expressions of N windows.

    Attributes:
        ids: `[N, 3]` said by the rules with feedback.
        observed: `[N, 3]` really said, -1 where nothing was.
        scores: `[N]` feedback on what was really said, NaN where there is none.
    """

    ids: np.ndarray
    observed: np.ndarray
    scores: np.ndarray


def speak(
    table: Table, shapes: np.ndarray, contents: list[Content], settings: DatasetSettings
) -> tuple[Spoken, Rules, dict[str, Any]]:
    """Label every window with an expression.

    The rules learn from their own coherence until every shape has converged. Where expressions were
    observed with a score, the weights then learn from those that belong to windows of the train split.

    Returns:
        The expressions, the rules that made them, and what they learned from, as plain JSON.
    """
    observed, scores, unplaced = _aligned(table, contents, settings)
    weights, updates = _converged(settings.seed)
    rules = Rules(weights, updates)
    learned = np.flatnonzero((table.split == TRAIN) & ~np.isnan(scores))
    learned = learned[np.argsort(table.end[learned], kind="stable")]
    if len(learned):
        rules.feedback(shapes[learned], observed[learned], scores[learned])
    ids = rules.sample(shapes, np.random.default_rng([settings.seed, 303]))
    feedback = {
        "kind": "self-scored and observed" if len(learned) else "self-scored",
        "n_updates": int(updates.sum()) + len(learned),
        "n_observed": int((observed[:, 0] >= 0).sum()),
        "n_observed_learned": len(learned),
        "n_observed_unplaced": unplaced,
    }
    return Spoken(ids, observed, scores), rules, feedback


@lru_cache(maxsize=4)
def _converged(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and updates of self-scored rules; the same for every dataset of a seed."""
    rules, updates = Rules.converged(seed)
    return rules.weights, updates


def _aligned(
    table: Table, contents: list[Content], settings: DatasetSettings
) -> tuple[np.ndarray, np.ndarray, int]:
    """Observed expression and score per window, and how many observations no window ends before."""
    observed = np.full((len(table), MAX_TOKENS), -1, np.int64)
    scores, unplaced = np.full(len(table), np.nan), 0
    ends = table.end
    for content in contents:
        if content.observed is None or not len(content.observed):
            continue
        rows = np.flatnonzero((table.source == content.source.name) & (table.scale == NATIVE))
        rows = rows[np.argsort(ends[rows], kind="stable")]
        at = np.searchsorted(ends[rows], content.observed.times, side="right") - 1
        window = rows[np.maximum(at, 0)] if len(rows) else np.zeros(len(at), np.int64)
        reach = LATEST * settings.stride * table.cadence[window] if len(rows) else 0.0
        fits = (at >= 0) & (content.observed.times - ends[window] <= reach) if len(rows) else at >= 0
        unplaced += int((~fits).sum())
        # Of several expressions at one window the latest stands.
        observed[window[fits]] = content.observed.ids[fits]
        scores[window[fits]] = content.observed.scores[fits]
    return observed, scores, unplaced
