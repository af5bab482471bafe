"""Real windows: the states of a device at several time scales, divided by its plan, cut batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataset_builder.binning import binned
from dataset_builder.configuration import NATIVE, DatasetSettings, scale_cadence
from dataset_builder.splits import PURGED, Plan
from dataset_builder.spool import Spooled
from eisv_lumen.shapes import classify
from eisv_lumen.windows import Windows

Item = TypeVar("Item")
Origin = TypeVar("Origin")

BATCH = 4096
"""Windows worked on at once."""
LATEST = 1.5
"""An expression belongs to the last window that ended before it, at most this many strides ago."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of one segment and one split.

    Attributes:
        split: Index into `SPLITS`.
        start: First row.
        stop: Row after the last.
        again: How often the clock had stepped back, where it thereby repeats an earlier time; else 0.
    """

    split: int
    start: int
    stop: int
    again: int


@dataclass(frozen=True)
class Scale:
    """A device's states at one time scale.

    Attributes:
        name: `native`, `30s`, …
        cadence: Seconds between states.
        series: The states.
    """

    name: str
    cadence: float
    series: Spooled


@dataclass(frozen=True)
class Batch:
    """N windows of one stretch.

    Attributes:
        row_times: `[M]` seconds since the epoch of the states they are cut from.
        row_states: `[M, 4]` float32.
        at: `[N, T]` rows of the states of each window.
        until: `[N]` moment up to which an expression belongs to the window.
        stretch: Where they were cut from.
    """

    row_times: np.ndarray
    row_states: np.ndarray
    at: np.ndarray
    until: np.ndarray
    stretch: Stretch

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.at)

    def __getitem__(self, rows: np.ndarray) -> "Batch":
        """The chosen windows."""
        return replace(self, at=self.at[rows], until=self.until[rows])

    def windows(self) -> Windows:
        """The windows as every other part of the project takes them, in seconds since each began."""
        return Windows.of(self.states, self.elapsed)

    @property
    def elapsed(self) -> np.ndarray:
        """`[N, T]` seconds since each window began."""
        return self.times - self.times[:, :1]

    @cached_property
    def times(self) -> np.ndarray:
        """`[N, T]` seconds since the epoch."""
        return self.row_times[self.at]

    @cached_property
    def states(self) -> np.ndarray:
        """`[N, T, 4]` float32."""
        return self.row_states[self.at]


def scales_of(series: Spooled, settings: DatasetSettings, folder: Path) -> list[Scale]:
    """The time scales that a device's log is fine enough for; binned states are spooled below `folder`."""
    found = []
    for name in settings.scales:
        cadence = scale_cadence(name)
        if cadence is None:
            found.append(Scale(NATIVE, series.step, series))
        elif (coarse := binned(series, cadence, folder / name)) is not None:
            found.append(Scale(name, cadence, coarse))
    return found


def whole(series: Spooled) -> list[Stretch]:
    """Every segment as one stretch, whatever the plan."""
    return [Stretch(0, start, stop, again) for start, stop, again in _segments(series)]


def stretches(scale: Scale, plan: Plan) -> Iterator[Stretch]:
    """The stretches of a scale within one segment and one split each, in the order of the rows."""
    for start, stop, again in _segments(scale.series):
        split, first = PURGED, start
        for at in range(start, stop, 1 << 16):
            times = scale.series.read_times(at, min(at + (1 << 16), stop))
            found = plan.of(times) if scale.name == NATIVE else plan.of_bins(times, scale.cadence)
            changes = np.flatnonzero(np.diff(found, prepend=split))
            for row in changes.tolist():
                if split != PURGED:
                    yield Stretch(split, first, at + row, again)
                split, first = int(found[row]), at + row
        if split != PURGED:
            yield Stretch(split, first, stop, again)


def window_count(stretch: Stretch, settings: DatasetSettings) -> int:
    """Number of windows in a stretch."""
    return max(stretch.stop - stretch.start - settings.length, -settings.stride) // settings.stride + 1


def batches(scale: Scale, within: Sequence[Stretch], settings: DatasetSettings) -> Iterator[Batch]:
    """The windows of stretches, at most `BATCH` at a time."""
    length, stride = settings.length, settings.stride
    offsets = np.arange(length)
    for stretch in within:
        count = window_count(stretch, settings)
        for number in range(0, count, BATCH):
            here = min(BATCH, count - number)
            first = stretch.start + number * stride
            # One stride more where there is one: until when does the last window listen?
            rows = min(first + here * stride + length, stretch.stop)
            times, states = scale.series.read(first, rows)
            at = (np.arange(here) * stride)[:, None] + offsets
            ends = times[at[:, -1]]
            following = at[:, -1] + stride
            listens = ends + LATEST * stride * scale.cadence
            known = following < len(times)
            following_end = times[np.minimum(following, len(times) - 1)]
            until = np.where(known, np.minimum(listens, following_end), listens)
            yield Batch(times, states, at, until, stretch)


def with_shapes(found: Iterable[tuple[Origin, Batch]]) -> Iterator[tuple[Origin, Batch, Windows, np.ndarray]]:
    """Every batch, what comes with it, its windows, and their `[N]` robust labels.

    Short stretches make short batches: many are classified together, which takes as long as one of them.
    """
    for several in grouped(found, lambda one: len(one[1])):
        states = np.concatenate([batch.states for _, batch in several], dtype=np.float64)
        times = np.concatenate([batch.elapsed for _, batch in several])
        windows, start = Windows.of(states, times), 0
        shapes = classify(windows)
        for origin, batch in several:
            rows = slice(start, start + len(batch))
            yield origin, batch, windows[rows], shapes[rows]
            start += len(batch)


def grouped(items: Iterable[Item], windows: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in their order, as many together as hold `BATCH` windows."""
    waiting, count = list[Item](), 0
    for item in items:
        waiting.append(item)
        count += windows(item)
        if count >= BATCH:
            yield waiting
            waiting, count = [], 0
    if waiting:
        yield waiting


def _segments(series: Spooled) -> Iterator[tuple[int, int, int]]:
    """First row and end of each segment, and its number of steps back where it repeats an earlier time."""
    before, latest, steps_back = -np.inf, -np.inf, 0
    for (start, stop), (begins, ends) in zip(series.parts(), series.bounds, strict=True):
        steps_back += begins < before
        yield start, stop, steps_back if begins <= latest else 0
        before, latest = ends, max(latest, ends)
