"""Splitting a device's time into train, validation and test, so that no state is seen on both sides.

The states themselves are divided, by blocks of time; windows are cut afterwards, within the states of one
split. So no window of any scale can hold a state of another split, and where two splits meet, states are left
out.
"""

import numpy as np

from eisv_lumen.layouts import SPLITS
from eisv_lumen.series import Series
from eisv_lumen.windows import WINDOW_LENGTH

TRAIN, VALIDATION, TEST = range(len(SPLITS))
PURGED = -1

MOST_BLOCKS, FEWEST_BLOCKS = 50, 10
_TRIES = 64
_PER_BORDER = 0.2


def assign(
    series: Series,
    *,
    shares: tuple[float, float],
    purge: int,
    longest: float,
    generator: np.random.Generator,
    marks: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """The split of each state.

    Args:
        series: One device's states.
        shares: Of validation and test.
        purge: States left out where two splits meet; fewer in short series.
        longest: Seconds that the longest window of interest covers; blocks are made twice as long where
            there is time enough.
        generator: Chooses the blocks.
        marks: Times `[M]` and shapes `[M]` of windows, to spread the shapes over the splits.

    Returns:
        `[N]` index into `SPLITS`, or `PURGED`.
    """
    n = len(series)
    order = np.argsort(series.times, kind="stable")
    blocks = _block_count(n, purge, float(np.ptp(series.times)) if n else 0.0, longest)
    if blocks < FEWEST_BLOCKS:
        by_rank = _few(n, shares, purge)
    else:
        edges = np.round(np.linspace(0, n, blocks + 1)).astype(int)
        borders = series.times[order[edges[1:-1]]]
        splits = _chosen(blocks, shares, generator, _counts(blocks, borders, marks))
        by_rank = _purged(np.repeat(splits, np.diff(edges)), purge)
    split = np.empty(n, np.int64)
    split[order] = by_rank
    return split


def runs(series: Series, split: np.ndarray, which: int) -> list[slice]:
    """Stretches of one segment whose states all belong to one split."""
    found = []
    for segment in series.segments:
        inside = np.concatenate([[False], split[segment] == which, [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + segment.start
        found += [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return found


def _block_count(n: int, purge: int, seconds: float, longest: float) -> int:
    by_time = seconds / (2 * longest) if longest > 0 else MOST_BLOCKS
    by_states = n // (2 * WINDOW_LENGTH + purge)
    return min(int(np.clip(by_time, FEWEST_BLOCKS, MOST_BLOCKS)), by_states)


def _few(n: int, shares: tuple[float, float], purge: int) -> np.ndarray:
    """Too short for blocks: the end is held out, validation and then test, as far as windows fit."""
    split = np.full(n, TRAIN)
    start = n
    for which, share in ((TEST, shares[1]), (VALIDATION, shares[0])):
        size = max(WINDOW_LENGTH, round(share * n))
        gap = max(1, min(purge, size // 5))
        if share and start - size - gap >= max(WINDOW_LENGTH, n // 3):
            split[start - size : start] = which
            split[start - size - gap : start - size] = PURGED
            start -= size + gap
    return split


def _chosen(
    blocks: int, shares: tuple[float, float], generator: np.random.Generator, counts: np.ndarray
) -> np.ndarray:
    """`[blocks]` splits: of several random choices the one whose shapes are spread best."""
    held = [max(1, round(share * blocks)) if share else 0 for share in shares]
    total = counts.sum(axis=0)
    best, chosen = np.inf, np.zeros(blocks, np.int64)
    for _ in range(_TRIES):
        order = generator.permutation(blocks)
        splits = np.zeros(blocks, np.int64)
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


def _counts(blocks: int, borders: np.ndarray, marks: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """`[blocks, shapes]` windows per block and shape."""
    if marks is None or not len(marks[0]):
        return np.zeros((blocks, 1))
    times, shapes = marks
    counts = np.zeros((blocks, int(shapes.max()) + 1))
    np.add.at(counts, (np.searchsorted(borders, times, side="right"), shapes), 1)
    return counts


def _purged(split: np.ndarray, purge: int) -> np.ndarray:
    """Leave out states where two splits meet, on the side of train, or else of validation."""
    out = split.copy()
    for border in np.flatnonzero(np.diff(split)) + 1:
        before, after = split[border - 1], split[border]
        if before == TRAIN or (before == VALIDATION and after == TEST):
            out[max(border - purge, 0) : border] = PURGED
        else:
            out[border : border + purge] = PURGED
    return out
