"""A first pass over all real windows: what there is, which are kept, and how firm their labels are."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset_builder.configuration import DatasetSettings
from dataset_builder.cutting import BATCH
from dataset_builder.splits import TRAIN
from eisv_lumen.layouts import SPLITS
from eisv_lumen.shapes import classify
from eisv_lumen.vocabulary import N_SHAPES, SHAPES, STATE_MAX
from eisv_lumen.windows import Windows, concatenate

RESOLUTION = 1e-3
"""Noise at the level of the sensors' resolution, put on every state to see whether labels stand."""
_SAMPLE = 10_000
"""Windows whose labels are tried under noise."""
_PRUNE = 4


class Kind(NamedTuple):
    """Where windows come from and go to."""

    split: int
    source: str
    scale: str


class Lowest:
    """The `room` lowest of any number of values, in bounded memory."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._parts: list[np.ndarray] = []
        self._held = 0

    def add(self, values: np.ndarray) -> None:
        """More values."""
        self._parts.append(values)
        self._held += len(values)
        if self._held > _PRUNE * self.room + 1024:
            self._parts = [self.values()]
            self._held = len(self._parts[0])

    def values(self) -> np.ndarray:
        """At most `room` values, ascending."""
        return np.sort(np.concatenate([*self._parts, np.zeros(0)]))[: self.room]


class Priorities:
    """A random number per window, the same in every pass; windows at which something was said come first."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng([seed, 101])

    def draw(self, said: np.ndarray) -> np.ndarray:
        """`[N]` priorities of windows with, or without, an observed expression; the lower the sooner kept."""
        return self._generator.random(len(said)) - said


class Labels:
    """Robust labels of all windows on disk, batch by batch: a second pass need not work them out again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: list[int] = []

    def append(self, shapes: np.ndarray) -> None:
        """`[N]` labels of the next batch."""
        with self._path.open("ab") as file:
            file.write(shapes.astype(np.int8).data)
        self._counts.append(len(shapes))

    def all(self) -> Iterator[np.ndarray]:
        """The labels of every batch in turn."""
        with self._path.open("rb") as file:
            for count in self._counts:
                yield np.frombuffer(file.read(count), np.int8)


class Survey:
    """Counts the windows and chooses those that the splits have room for.

    Held-out splits keep a plain random sample, so that they stay what was met. The train split keeps rare
    kinds first: every source, scale and shape gets the same room as far as it can fill it.
    """

    def __init__(self, settings: DatasetSettings, windows: int) -> None:
        total = settings.train.windows
        self._rooms = (
            None if total is None else round(total * settings.train.real_share),
            settings.validation.real,
            settings.test.real,
        )
        self.windows = np.zeros(len(SPLITS), np.int64)
        self._counts: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(N_SHAPES, np.int64))
        self._lowest: dict[tuple[Kind, int], Lowest] = {}
        self._limits: dict[tuple[Kind, int], float] = {}
        self._noise = np.random.default_rng(0)
        self._share = min(1.0, _SAMPLE / max(windows, 1))
        # Classified many at once, which takes hardly longer than the few windows of one stretch.
        self._waiting = defaultdict[str, list[tuple[Windows, np.ndarray, np.ndarray]]](list)
        self._stood: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))

    def add(self, kind: Kind, windows: Windows, shapes: np.ndarray, priority: np.ndarray) -> None:
        """Windows of one kind, with their robust labels and priorities."""
        self.windows[kind.split] += len(windows)
        self._counts[kind.source, kind.scale] += np.bincount(shapes, minlength=N_SHAPES)
        room = self._rooms[kind.split]
        if room is not None:
            for key, values in _keyed(kind, shapes, priority):
                if key not in self._lowest:
                    self._lowest[key] = Lowest(room)
                self._lowest[key].add(values)
        self._try(windows, shapes, kind.source)

    def choose(self) -> np.ndarray:
        """Fix what is kept; returns `[3]` the number of windows kept per split."""
        kept = self.windows.copy()
        for split, room in enumerate(self._rooms):
            if room is None:
                continue
            lowest = {key: found.values() for key, found in self._lowest.items() if key[0].split == split}
            kept[split] = min(room, self.windows[split])
            # Turn by turn: the first of every kind, then the second of every kind, …
            turns = np.concatenate([*(np.arange(len(v)) for v in lowest.values()), np.zeros(0, np.int64)])
            values = np.concatenate([*lowest.values(), np.zeros(0)])
            kinds = np.repeat(np.arange(len(lowest)), [len(v) for v in lowest.values()])
            taken = np.bincount(kinds[np.lexsort((values, turns))[:room]], minlength=len(lowest))
            for (key, found), count in zip(lowest.items(), taken.tolist(), strict=True):
                self._limits[key] = found[count - 1] if count else -np.inf
        return kept

    def kept(self, kind: Kind, shapes: np.ndarray, priority: np.ndarray) -> np.ndarray:
        """`[N]` bool: the windows that are in the dataset."""
        if self._rooms[kind.split] is None:
            return np.ones(len(shapes), bool)
        if kind.split != TRAIN:
            return priority <= self._limits[_all_of(kind.split)]
        limits = np.array([self._limits.get((kind, shape), -np.inf) for shape in range(N_SHAPES)])
        return priority <= limits[shapes]

    def cut(self) -> dict[str, dict[str, dict[str, int]]]:
        """Windows cut, by source, scale and shape."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (source, scale), counts in self._counts.items():
            found.setdefault(source, {})[scale] = {
                name: count for name, count in zip(SHAPES, counts.tolist(), strict=True) if count
            }
        return found

    def stood(self) -> dict[str, tuple[int, int, int]]:
        """By source: robust and published labels that stood under noise of the sensors' resolution, of n."""
        for source in list(self._waiting):
            self._classify_tried(source)
        return {source: tuple(counts.tolist()) for source, counts in self._stood.items()}

    def _try(self, windows: Windows, shapes: np.ndarray, source: str) -> None:
        rows = np.flatnonzero(self._noise.random(len(windows)) < self._share)
        if len(rows):
            tried = windows[rows]
            noise = self._noise.uniform(-RESOLUTION / 2, RESOLUTION / 2, tried.states.shape)
            self._waiting[source].append((tried, noise, shapes[rows]))
            if sum(len(labels) for *_, labels in self._waiting[source]) >= BATCH:
                self._classify_tried(source)

    def _classify_tried(self, source: str) -> None:
        tried, noise, shapes = zip(*self._waiting.pop(source), strict=True)
        clean = concatenate(list(tried))
        noisy = Windows.of(np.clip(clean.states + np.concatenate(noise), 0.0, STATE_MAX), clean.times)
        published = classify(clean, rules="published") == classify(noisy, rules="published")
        robust = np.concatenate(shapes) == classify(noisy)
        self._stood[source] += [robust.sum(), published.sum(), len(noisy)]


def _keyed(kind: Kind, shapes: np.ndarray, priority: np.ndarray) -> list[tuple[tuple[Kind, int], np.ndarray]]:
    """The priorities, apart by what shares a room: in train the kind and shape, elsewhere the split."""
    if kind.split != TRAIN:
        return [(_all_of(kind.split), priority)]
    present = np.flatnonzero(np.bincount(shapes, minlength=N_SHAPES)).tolist()
    return [((kind, shape), priority[shapes == shape]) for shape in present]


def _all_of(split: int) -> tuple[Kind, int]:
    return Kind(split, "", ""), 0
