"""Which real windows are kept, and which synthetic ones fill up."""

import numpy as np

from dataset_builder.configuration import DatasetSettings
from dataset_builder.table import SYNTHETIC, Table
from eisv_lumen.shapes import classify
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES

_LEAST_PER_SHAPE = 10
"""Synthetic training windows of each shape, however many real ones there are."""


def keep_real(table: Table, shapes: np.ndarray, settings: DatasetSettings) -> np.ndarray:
    """`[N]` bool: the real windows that the splits have room for.

    Held-out splits keep a plain random sample, so that they stay what was met. The train split keeps rare
    kinds first: every source, scale and shape gets the same room as far as it can fill it.
    """
    generator = np.random.default_rng([settings.seed, 101])
    total = settings.train.windows
    rooms = (
        None if total is None else round(total * settings.train.real_share),
        settings.validation.real,
        settings.test.real,
    )
    kept = np.zeros(len(table), bool)
    for split, room in enumerate(rooms):
        rows = np.flatnonzero(table.split == split)
        if room is None or len(rows) <= room:
            kept[rows] = True
            continue
        rows = generator.permutation(rows)
        if split == 0:
            rows = rows[np.argsort(_turn(table, shapes, rows), kind="stable")]
        kept[rows[:room]] = True
    return kept


def synthetic_counts(n_real: int, settings: DatasetSettings) -> tuple[int, int, int]:
    """Synthetic windows per split, given how many real windows train has."""
    total, share = settings.train.windows, settings.train.real_share
    fill = round(n_real * (1 - share) / share) if total is None else total - n_real
    return (
        max(fill, _LEAST_PER_SHAPE * N_SHAPES),
        settings.validation.synthetic,
        settings.test.synthetic,
    )


def make_synthetic(counts: tuple[int, int, int], settings: DatasetSettings) -> Table:
    """Synthetic windows: as many of each shape, each its own trajectory, at each cadence in turn."""
    tables = []
    for split, count in enumerate(counts):
        number = np.arange(count)
        cadences = np.array(settings.synthetic.cadences)[
            (number // N_SHAPES) % len(settings.synthetic.cadences)
        ]
        windows = generate(
            number % N_SHAPES,
            np.random.default_rng([settings.seed, 202, split]),
            cadence=cadences,
            length=settings.length,
        )
        tables.append(
            Table.of(
                windows,
                source=SYNTHETIC,
                device=SYNTHETIC,
                provenance=SYNTHETIC,
                scale=np.array([f"{cadence:g}s" for cadence in cadences], object),
                cadence=cadences,
                split=split,
            )
        )
    return Table.join(tables)


def labels(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """`[N]` robust and `[N]` published shape ids."""
    windows = table.windows()
    return classify(windows, rules="robust"), classify(windows, rules="published")


def _turn(table: Table, shapes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[len(rows)]` how many windows of the same source, scale and shape come before each."""
    kinds = list(zip(table.source[rows], table.scale[rows], shapes[rows].tolist(), strict=True))
    seen: dict[tuple[str, str, int], int] = {}
    turns = np.empty(len(rows), np.int64)
    for at, kind in enumerate(kinds):
        turns[at] = seen.get(kind, 0)
        seen[kind] = turns[at] + 1
    return turns
