"""Cutting long series of states into segments, time scales and windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from eisv_lumen.windows import GAP_FACTOR, STRIDE, WINDOW_LENGTH, Windows

SHUFFLED_SHARE = 0.05
"""More backward steps than this share of all steps are no reboots: the rows were not in order."""


@dataclass(frozen=True)
class Series:
    """The states of one device, repeated times dropped, and where they may not be joined.

    Attributes:
        times: `[N]` float64 seconds since the epoch, ascending within a segment.
        states: `[N, 4]` E, I, S, V.
        segments: Slices without a gap or a step of the clock backwards.
        step: Median step in seconds; NaN where there are fewer than two states.
    """

    times: np.ndarray
    states: np.ndarray
    segments: tuple[slice, ...]
    step: float

    @classmethod
    def of(cls, times: np.ndarray, states: np.ndarray, *, factor: float = GAP_FACTOR) -> Self:
        """A series from states in the order recorded, without repeated times."""
        step = median_step(times)
        return cls(times, states, tuple(segments(times, factor, step)), step)

    def __len__(self) -> int:
        """Number of states, N."""
        return len(self.times)


def recorded_order(times: np.ndarray) -> np.ndarray | None:
    """`[N]` row numbers that sort the times of a shuffled or newest-first log; None where it is in order.

    A few backward steps are reboots and stay.
    """
    backward = int((np.diff(times) < 0).sum())
    return np.argsort(times, kind="stable") if backward > SHUFFLED_SHARE * max(len(times) - 1, 1) else None


def median_step(times: np.ndarray) -> float:
    """Median of the forward steps in seconds; NaN where there is none."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else float("nan")


def repeated(times: np.ndarray) -> np.ndarray:
    """`[N]` bool: rows that repeat the time of the row before them."""
    return np.diff(times, prepend=np.nan) == 0


def segments(times: np.ndarray, factor: float = GAP_FACTOR, step: float | None = None) -> list[slice]:
    """The stretches without a gap and without a step of the clock backwards.

    Args:
        times: `[N]` seconds in the order recorded.
        factor: A gap is longer than this many median steps.
        step: The median step, where it is known from a longer series.

    Returns:
        Slices that follow each other and cover all rows.
    """
    if len(times) == 0:
        return []
    steps = np.diff(times)
    typical = median_step(times) if step is None else step
    limit = factor * typical if np.isfinite(typical) else np.inf
    borders = np.flatnonzero((steps < 0) | (steps > limit)) + 1
    edges = [0, *borders.tolist(), len(times)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def window_starts(rows: int, length: int = WINDOW_LENGTH, stride: int = STRIDE) -> np.ndarray:
    """First row of each complete window in a segment of so many rows."""
    return np.arange(0, max(rows - length + 1, 0), stride)


def sliding(
    states: np.ndarray,
    times: np.ndarray,
    length: int = WINDOW_LENGTH,
    stride: int = STRIDE,
    *,
    within: Sequence[slice] | None = None,
) -> Windows:
    """Overlapping windows of `length` consecutive states, none across the border of a segment.

    Args:
        states: `[N, 4]` E, I, S, V.
        times: `[N]` seconds in the order recorded.
        length: States per window.
        stride: States between the beginnings of two windows.
        within: The segments; found from the times where not given.

    Returns:
        Windows `[M, length]`; M is 0 where no segment is long enough.
    """
    parts = segments(times) if within is None else within
    starts = [part.start + window_starts(part.stop - part.start, length, stride) for part in parts]
    first = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    rows = first[:, None].astype(np.int64) + np.arange(length)
    return Windows.of(states[rows].reshape(-1, length, 4), times[rows].reshape(-1, length))
