"""States of one device on disk, so that a log of any length is worked on in bounded memory.

A spool is two plain files, times and states, that only grow while it is written. What is kept in memory is
one time of every thousand rows, the borders of the segments, and a sample of the steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from eisv_lumen.series import SHUFFLED_SHARE
from eisv_lumen.windows import GAP_FACTOR

CHUNK = 1 << 16
"""Rows read at once."""
STEP_EDGES = np.concatenate([[0.0], np.geomspace(1e-3, 1e6, 37)])
"""Borders of the histograms of steps, in seconds."""

_SAMPLE = 1 << 18
_INDEX = 1 << 10


@dataclass(frozen=True)
class Spooled:
    """N states in the order recorded.

    Attributes:
        folder: Where `times` (float64) and `states` (float32, four a row) lie.
        n: Number of states.
        step: Median forward step in seconds; NaN where there is none.
        segments: `[K + 1]` row numbers: no gap and no step of the clock backwards between two of them.
        index: Time of every 1024th row.
        span: First and last moment, NaN where there are no states.
        steps: `[len(STEP_EDGES) - 1]` forward steps by length.
    """

    folder: Path
    n: int
    step: float
    segments: np.ndarray
    index: np.ndarray
    span: tuple[float, float]
    steps: np.ndarray = field(default_factory=lambda: np.zeros(len(STEP_EDGES) - 1, np.int64))

    def __len__(self) -> int:
        """Number of states, N."""
        return self.n

    def parts(self) -> Iterator[tuple[int, int]]:
        """First row and end of each segment."""
        yield from zip(self.segments[:-1].tolist(), self.segments[1:].tolist(), strict=True)

    @cached_property
    def bounds(self) -> list[tuple[float, float]]:
        """First and last moment of each segment."""
        rows = ((start, stop - 1) for start, stop in self.parts())
        return [(self._time(first), self._time(last)) for first, last in rows]

    def read_times(self, start: int, stop: int) -> np.ndarray:
        """`[stop - start]` seconds since the epoch."""
        return np.fromfile(self.folder / "times", np.float64, count=stop - start, offset=8 * start)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """`[n]` times and `[n, 4]` float32 states of the rows from start to stop."""
        states = np.fromfile(self.folder / "states", np.float32, count=4 * (stop - start), offset=16 * start)
        return self.read_times(start, stop), states.reshape(-1, 4)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows, or those from start to stop, a chunk at a time."""
        stop = self.n if stop is None else stop
        for first in range(start, stop, CHUNK):
            yield self.read(first, min(first + CHUNK, stop))

    def sample_times(self) -> np.ndarray:
        """Sorted times of at most 262,144 rows, evenly taken; of all rows where there are no more."""
        if self.n <= _SAMPLE:
            return np.sort(self.read_times(0, self.n), kind="stable")  # at once, where they are sorted
        every = -(-self.n // _SAMPLE)
        taken = [times[-first % every :: every].copy() for first, times in self._numbered_times()]
        return np.sort(np.concatenate(taken))

    def gaps(self) -> np.ndarray:
        """`[len(STEP_EDGES) - 1]` gaps by length: forward steps between two segments."""
        steps = [after - before for (_, before), (after, _) in pairwise(self.bounds)]
        return np.histogram([step for step in steps if step > 0], STEP_EDGES)[0]

    def within(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Times and states between two moments, ascending; of repeated times any."""
        times, states = [np.zeros(0)], [np.zeros((0, 4), np.float32)]
        for first, last in self.parts():
            low, high = self._rows(first, last, start, end)
            if low < high:
                t, s = self.read(low, high)
                inside = (t >= start) & (t <= end)
                times.append(t[inside])
                states.append(s[inside])
        order = np.argsort(np.concatenate(times), kind="stable")
        return np.concatenate(times)[order], np.concatenate(states)[order]

    def _rows(self, first: int, last: int, start: float, end: float) -> tuple[int, int]:
        """Rows of a segment among which all states between two moments are; a few more at both ends."""
        low, high = -(-first // _INDEX), -(-last // _INDEX)
        inside = self.index[low:high]
        before = int(np.searchsorted(inside, start, side="left"))
        after = int(np.searchsorted(inside, end, side="right"))
        return (
            first if before == 0 else (low + before - 1) * _INDEX,
            last if low + after >= high else (low + after) * _INDEX,
        )

    def _time(self, row: int) -> float:
        return float(self.read_times(row, row + 1)[0])

    def _numbered_times(self) -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, self.n, CHUNK):
            yield first, self.read_times(first, min(first + CHUNK, self.n))


class SpoolWriter:
    """Writes states as they come; rows that repeat the time of the row before are the caller's to drop."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.n = 0
        self.backward = 0
        self._times = (folder / "times").open("wb")
        self._states = (folder / "states").open("wb")
        self._last = np.nan
        self._steps = np.zeros(len(STEP_EDGES) - 1, np.int64)
        self._sample: list[np.ndarray] = []
        self._sampled, self._every = 0, 1
        self._index: list[np.ndarray] = []
        self._low, self._high = np.inf, -np.inf

    def append(self, times: np.ndarray, states: np.ndarray) -> None:
        """Rows `[n]` and `[n, 4]` that follow those before."""
        if not len(times):
            return
        self._times.write(np.ascontiguousarray(times, np.float64).data)
        self._states.write(np.ascontiguousarray(states, np.float32).data)
        steps = np.diff(times, prepend=self._last)
        forward = steps[steps > 0]
        self.backward += int((steps < 0).sum())
        self._steps += np.histogram(forward, STEP_EDGES)[0]
        self._take(forward)
        # A copy: a view would keep the whole chunk alive.
        self._index.append(times[-self.n % _INDEX :: _INDEX].copy())
        self._low, self._high = min(self._low, float(times.min())), max(self._high, float(times.max()))
        self._last = times[-1]
        self.n += len(times)

    @property
    def shuffled(self) -> bool:
        """More backward steps than reboots explain: the rows were not in order of time."""
        return self.backward > SHUFFLED_SHARE * max(self.n - 1, 1)

    def finish(self, borders: list[int] | None = None) -> Spooled:
        """What was written.

        Args:
            borders: Row numbers at which segments begin, besides the first; found from the times where
                not given.
        """
        self._times.close()
        self._states.close()
        sample = np.concatenate([*self._sample, np.zeros(0)])
        spooled = Spooled(
            folder=self.folder,
            n=self.n,
            step=float(np.median(sample)) if len(sample) else float("nan"),
            segments=np.array([0, self.n]),
            index=np.concatenate([*self._index, np.zeros(0)]),
            span=(self._low, self._high) if self.n else (np.nan, np.nan),
            steps=self._steps,
        )
        found = _borders(spooled) if borders is None else borders
        edges = [0, *found, self.n] if self.n else [0]
        return replace(spooled, segments=np.array(edges, np.int64))

    def _take(self, steps: np.ndarray) -> None:
        """Keep an even sample of the steps; of a short log all of them, so that its median is exact."""
        self._sample.append(steps[:: self._every].copy())
        self._sampled += len(self._sample[-1])
        if self._sampled > 2 * _SAMPLE:
            self._sample = [np.concatenate(self._sample)[::2]]
            self._sampled, self._every = len(self._sample[0]), self._every * 2


def _borders(spooled: Spooled) -> list[int]:
    """Rows at which a segment begins: after a gap or a step of the clock backwards."""
    limit = GAP_FACTOR * spooled.step if np.isfinite(spooled.step) else np.inf
    found, last = [np.zeros(0, np.int64)], np.nan
    for first, times in spooled._numbered_times():
        steps = np.diff(times, prepend=last)
        found.append(np.flatnonzero((steps < 0) | (steps > limit)) + first)
        last = times[-1]
    return np.concatenate(found).tolist()
