"""Splitting a device's time into train, validation and test, so that no state is seen on both sides.

Time itself is divided, in blocks; windows are cut afterwards, from states of one split. So no window of any
scale can hold a state of another split, and where two splits meet, some time is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from eisv_lumen.layouts import SPLITS
from eisv_lumen.windows import WINDOW_LENGTH

TRAIN, VALIDATION, TEST = range(len(SPLITS))
PURGED = -1

MOST_BLOCKS, FEWEST_BLOCKS = 50, 10
_TRIES = 64
_PER_BORDER = 0.2


@dataclass(frozen=True)
class Plan:
    """Which split each moment of a device's time belongs to.

    Attributes:
        edges: `[K]` ascending moments, seconds since the epoch.
        splits: `[K + 1]` index into `SPLITS`, or `PURGED`, before, between and after the edges.
    """

    edges: np.ndarray
    splits: np.ndarray

    def of(self, times: np.ndarray) -> np.ndarray:
        """`[N]` split of each moment."""
        return self.splits[np.searchsorted(self.edges, times, side="right")]

    def of_bins(self, times: np.ndarray, cadence: float) -> np.ndarray:
        """`[N]` split of the whole bin that each moment lies in; `PURGED` where an edge runs through it."""
        start = np.floor(times / cadence) * cadence
        first = np.searchsorted(self.edges, start, side="right")
        last = np.searchsorted(self.edges, start + cadence, side="left")
        return np.where(first == last, self.splits[first], PURGED)

    def overlaid(self, piece: "Piece", purge: float) -> "Plan":
        """This plan, but within a piece of time the piece's; `purge` seconds around it are left out."""
        start, end = piece.start, piece.end
        inner = piece.plan.edges[(piece.plan.edges > start) & (piece.plan.edges < end)]
        outer = self.edges[(self.edges < start) | (self.edges > end)]
        edges = np.unique(np.concatenate([outer, inner, [start - purge, start, end, end + purge]]))
        # Between two edges every plan is constant, so that its middle stands for all of it.
        middles = np.concatenate([edges[:1] - 1, (edges[1:] + edges[:-1]) / 2, edges[-1:] + 1])
        inside = (middles > start) & (middles < end)
        around = (middles > start - purge) & (middles < end + purge)
        return Plan(
            edges, np.where(inside, piece.plan.of(middles), np.where(around, PURGED, self.of(middles)))
        )


@dataclass(frozen=True)
class Piece:
    """A span of time, from the first to the last state, and how it is divided."""

    start: float
    end: float
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        edges, splits = self.plan.edges.tolist(), self.plan.splits.tolist()
        return {"start": self.start, "end": self.end, "edges": edges, "splits": splits}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A piece as `to_dict` wrote it."""
        plan = Plan(np.array(data["edges"], np.float64), np.array(data["splits"], np.int64))
        return cls(float(data["start"]), float(data["end"]), plan)


def block_borders(sample: np.ndarray, n: int, purge: int, longest: float) -> np.ndarray:
    """`[blocks - 1]` moments between blocks of about equally many states; none where there is no room.

    Args:
        sample: Sorted times, evenly taken from the states.
        n: Number of states.
        purge: States left out where two splits meet.
        longest: Seconds that the longest window of interest covers; blocks are made twice as long where
            there is time enough.
    """
    seconds = float(np.ptp(sample)) if len(sample) else 0.0
    by_time = seconds / (2 * longest) if longest > 0 else MOST_BLOCKS
    by_states = n // (2 * WINDOW_LENGTH + purge)
    blocks = min(int(np.clip(by_time, FEWEST_BLOCKS, MOST_BLOCKS)), by_states)
    if blocks < FEWEST_BLOCKS:
        return np.zeros(0)
    return np.unique(sample[np.round(np.linspace(0, len(sample), blocks + 1)).astype(int)[1:-1]])


def plan_few(times: np.ndarray, *, shares: tuple[float, float], purge: int) -> Plan:
    """A plan for a series too short for blocks: its end is held out, validation and then test.

    Args:
        times: `[N]` sorted times of all states.
        shares: Of validation and test.
        purge: States left out between two splits; fewer in very short series.
    """
    n, start = len(times), len(times)
    edges, splits = list[float](), [TRAIN]
    for which, share in ((TEST, shares[1]), (VALIDATION, shares[0])):
        size = max(WINDOW_LENGTH, round(share * n))
        gap = max(1, min(purge, size // 5))
        if share and start - size - gap >= max(WINDOW_LENGTH, n // 3):
            edges = [float(times[start - size - gap]), float(times[start - size]), *edges]
            splits = [TRAIN, PURGED, which, *splits[1:]]
            start -= size + gap
    return Plan(np.array(edges), np.array(splits, np.int64))


def choose_blocks(
    shares: tuple[float, float], generator: np.random.Generator, counts: np.ndarray
) -> np.ndarray:
    """`[blocks]` splits: of several random choices the one whose kinds of windows are spread best.

    Args:
        shares: Of validation and test.
        generator: Makes the choices.
        counts: `[blocks, kinds]` windows of each kind in each block.
    """
    blocks = len(counts)
    held = [max(1, round(share * blocks)) if share else 0 for share in shares]
    total = counts.sum(axis=0)
    best, chosen = np.inf, np.zeros(blocks, np.int64)
    for _ in range(_TRIES):
        order = generator.permutation(blocks)
        splits = np.full(blocks, TRAIN)
        splits[order[: held[0]]] = VALIDATION
        splits[order[held[0] : sum(held)]] = TEST
        # Fewer borders leave longer stretches, in which windows of coarse scales fit.
        uneven = _PER_BORDER * np.count_nonzero(np.diff(splits))
        for which, share in ((VALIDATION, shares[0]), (TEST, shares[1])):
            expected = share * total
            away = np.abs(counts[splits == which].sum(axis=0) - expected)
            # Relative to what chance would do, so that rare shapes count as much as common ones.
            uneven += float((away / np.sqrt(expected + 1)).sum())
        if uneven < best:
            best, chosen = uneven, splits
    return chosen


def purged(borders: np.ndarray, splits: np.ndarray, purge: float) -> Plan:
    """Leave out time where two splits meet, on the side of train, or else of validation.

    Args:
        borders: `[blocks - 1]` moments between the blocks.
        splits: `[blocks]` index into `SPLITS`.
        purge: Seconds.
    """
    edges, values = list[float](), [int(splits[0])]
    for border, before, after in zip(borders.tolist(), splits[:-1], splits[1:], strict=True):
        if before == after:
            continue
        ahead = before == TRAIN or (before == VALIDATION and after == TEST)
        edges += [border - purge, border] if ahead else [border, border + purge]
        values += [PURGED, int(after)]
    # Where a block is shorter than the purge, edges would cross: the later ones give way.
    return Plan(np.maximum.accumulate(np.array(edges, np.float64)), np.array(values, np.int64))
