"""Synthetic windows: how many there are, and what they are made of."""

from collections.abc import Iterator

import numpy as np

from dataset_builder.configuration import DatasetSettings
from dataset_builder.table import SYNTHETIC, Table
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES

_LEAST_PER_SHAPE = 10
"""Synthetic training windows of each shape, however many real ones there are."""
_AT_ONCE = 9 * 512


def synthetic_counts(
    n_real: int, settings: DatasetSettings, *, given: int = 0, grown: bool = False
) -> tuple[int, int, int]:
    """Synthetic windows to make per split.

    A dataset that is grown gets as many for train as its new real windows need, and keeps its held-out ones.

    Args:
        n_real: Real windows in train.
        settings: The sizes, and the share of real windows.
        given: Synthetic windows that the sources themselves hold.
        grown: Is an earlier dataset grown?
    """
    total, share = settings.train.windows, settings.train.real_share
    if grown:
        return max(round(n_real * (1 - share) / share) - given, 0), 0, 0
    fill = round(n_real * (1 - share) / share) if total is None else total - n_real
    return (
        max(fill - given, _LEAST_PER_SHAPE * N_SHAPES),
        settings.validation.synthetic,
        settings.test.synthetic,
    )


def make_synthetic(
    split: int, count: int, settings: DatasetSettings, *, first: int = 0, salt: tuple[int, ...] = ()
) -> Iterator[Table]:
    """Synthetic windows: as many of each shape, each its own trajectory, at each cadence in turn.

    Args:
        split: Index into `SPLITS`.
        count: How many.
        settings: The cadences and the seed.
        first: How many the split has already.
        salt: Of the seed: each generation of a dataset gets trajectories of its own.
    """
    generator = np.random.default_rng([settings.seed, 202, split, *salt])
    choices = np.array(settings.synthetic.cadences)
    for start in range(0, count, _AT_ONCE):
        number = np.arange(start, min(start + _AT_ONCE, count))
        cadences = choices[(number // N_SHAPES) % len(choices)]
        yield Table.synthetic(
            generate(number % N_SHAPES, generator, cadence=cadences, length=settings.length),
            source=SYNTHETIC,
            split=split,
            first=first + start,
            cadence=cadences,
            scale=np.array([f"{cadence:g}s" for cadence in cadences], object),
        )
