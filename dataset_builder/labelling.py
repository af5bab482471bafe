"""Expressions for windows: what was really said there, and what the rules with feedback say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builder.anima_db import Observed
from dataset_builder.cutting import Batch
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import MAX_TOKENS


@dataclass(frozen=True)
class Heard:
    """What was really said at N windows.

    Attributes:
        ids: `[N, 3]` expression ids, -1 where nothing was said.
        scores: `[N]` feedback in [0, 1], NaN where there is none.
        feedback: Per window the names of the signals it is from, None where nothing was said.
    """

    ids: np.ndarray
    scores: np.ndarray
    feedback: list[tuple[str, ...] | None]

    @classmethod
    def nothing(cls, n: int) -> "Heard":
        """N windows at which nothing was said."""
        return cls(np.full((n, MAX_TOKENS), -1, np.int64), np.full(n, np.nan), [None] * n)

    @property
    def any(self) -> np.ndarray:
        """`[N]` bool: was anything said."""
        return self.ids[:, 0] >= 0

    def __getitem__(self, rows: np.ndarray) -> "Heard":
        """The chosen windows."""
        return Heard(self.ids[rows], self.scores[rows], [self.feedback[row] for row in rows.tolist()])


def join_heard(parts: list[Heard]) -> Heard:
    """One after the other."""
    return Heard(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
        [signals for part in parts for signals in part.feedback],
    )


class Listener:
    """Places what was said at the windows that had just ended.

    Attributes:
        placed: `[M]` bool, the expressions that belong to a window so far.
    """

    def __init__(self, observed: Observed) -> None:
        order = np.argsort(observed.times, kind="stable")
        self._times, self._ids, self._scores = (
            observed.times[order],
            observed.ids[order],
            observed.scores[order],
        )
        self._feedback = [observed.feedback[row] for row in order.tolist()]
        self.placed = np.zeros(len(order), bool)

    def spans(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """`[N]` first, and `[N]` end, of each window's expressions among all in order of time."""
        first = np.searchsorted(self._times, batch.times[:, -1], side="left")
        end = np.maximum(np.searchsorted(self._times, batch.until, side="left"), first)
        return first, end

    def heard(self, batch: Batch) -> Heard:
        """The latest expression of each window."""
        first, end = self.spans(batch)
        result = Heard.nothing(len(batch))
        rows = np.flatnonzero(end > first)
        result.ids[rows], result.scores[rows] = self._ids[end[rows] - 1], self._scores[end[rows] - 1]
        for row in rows.tolist():
            result.feedback[row] = self._feedback[end[row] - 1]
            self.placed[first[row] : end[row]] = True
        return result

    def unplaced(self, held: Sequence[tuple[float, float]]) -> int:
        """How many belong to no window, besides those from spans of time that an earlier dataset holds."""
        before = np.any([(self._times >= a) & (self._times <= b) for a, b in held], axis=0) if held else False
        return int((~self.placed & ~np.asarray(before)).sum())

    def within(self, batch: Batch) -> dict[int, np.ndarray]:
        """All expressions `[K, 3]` said from a window's first state to its last, by row; as published."""
        first = np.searchsorted(self._times, batch.times[:, 0], side="left")
        end = np.searchsorted(self._times, batch.times[:, -1], side="right")
        return {row: self._ids[first[row] : end[row]] for row in np.flatnonzero(end > first).tolist()}


def taught(
    rules: Rules,
    learned: list[tuple[float, int, np.ndarray, float]],
    *,
    unplaced: int,
    earlier: Mapping[str, Any] | None = None,
) -> tuple[Rules, dict[str, Any]]:
    """The rules that label the windows, and what they learned from, as plain JSON.

    Where expressions were observed with a score, the weights learn from those in the train split.

    Args:
        rules: The rules that labelled the dataset that is grown; else those that have learned from their own
            coherence until every shape has converged.
        learned: Moment, shape id, expression and score of what was observed in the train split.
        unplaced: Expressions that belong to no window.
        earlier: What the earlier rules had learned from.
    """
    if learned:
        learned = sorted(learned, key=lambda one: one[0])
        rules.feedback(
            np.array([shape for _, shape, _, _ in learned]),
            np.stack([ids for _, _, ids, _ in learned]),
            np.array([score for *_, score in learned]),
        )
    earlier = earlier or {}
    n_learned = len(learned) + earlier.get("n_observed_learned", 0)
    return rules, {
        "kind": "self-scored and observed" if n_learned else "self-scored",
        "n_updates": int(rules.updates.sum()),
        "n_observed_learned": n_learned,
        "n_observed_unplaced": unplaced + earlier.get("n_observed_unplaced", 0),
    }
