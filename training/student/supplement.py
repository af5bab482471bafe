"""More training windows than a log has: synthetic ones, and recorded movements amplified and combined.

Real logs are mostly flat. Scaling the deviations of recorded windows, and adding those of two windows, gives
movements of every size with the texture of real sensors; the rules say what shape each has become.
"""

from dataclasses import dataclass

import numpy as np

from eisv_lumen import synthetic
from eisv_lumen.shapes import robust
from eisv_lumen.vocabulary import N_SHAPES, STATE_MAX
from eisv_lumen.windows import Windows

_SLOWEST = 60.0
_GAIN_LOW, _GAIN_HIGH = 0.3, 30.0
_LARGEST = 0.6
"""Range of a dimension, as a share of what it can have, that amplification does not go beyond."""


@dataclass(frozen=True)
class Supplement:
    """M more windows.

    Attributes:
        windows: `[M, T]`.
        shapes: `[M]` their shapes by the robust rules.
        lenders: `[M]` per window the number of a window of the dataset with the same shape, whose teacher
            labels it borrows.
    """

    windows: Windows
    shapes: np.ndarray
    lenders: np.ndarray


def supplement(
    windows: Windows, shapes: np.ndarray, count: int, generator: np.random.Generator
) -> Supplement:
    """About `count` windows: half synthetic, evenly over the shapes, half amplified from the dataset's.

    Args:
        windows: The dataset's training windows.
        shapes: `[N]` their shapes.
        count: How many; amplified windows without a lender, or that swing like drift_dissonance without
            being labelled so, are left out.
        generator: Source of all randomness.
    """
    present = np.unique(shapes)
    wanted = present[np.arange(count // 2) % len(present)]
    cadence = np.exp(generator.uniform(0.0, np.log(_SLOWEST), len(wanted)))
    made = synthetic.generate(wanted, generator, cadence=cadence)
    grown = amplified(windows, count - len(wanted), generator)
    grown_shapes = robust(grown)
    fits = np.isin(grown_shapes, present) & ~synthetic.swings_against(grown)
    length = max(made.states.shape[1], grown.states.shape[1])
    parts = [_bare(made, length), _bare(grown[fits], length)]
    all_shapes = np.concatenate([wanted, grown_shapes[fits]])
    return Supplement(
        Windows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))),
        all_shapes,
        lenders(all_shapes, shapes, generator),
    )


def amplified(windows: Windows, count: int, generator: np.random.Generator) -> Windows:
    """`count` windows made of the deviations of two windows each, scaled, around a random mean."""
    windows = windows.packed()
    one = windows[generator.integers(0, len(windows), count)]
    other = windows[generator.integers(0, len(windows), count)]
    both = one.mask & other.mask
    deviation = _scaled_deviation(one, generator)
    deviation += (generator.random((count, 1, 1)) < 0.5) * _scaled_deviation(other, generator)
    low, high = deviation.min(axis=1), deviation.max(axis=1)
    base = generator.uniform(0.0, 1.0, (count, 4)) * np.maximum(STATE_MAX - high + low, 0.0) - low
    states = np.clip(base[:, None] + deviation, 0.0, STATE_MAX)
    return Windows(states, one.times, both)


def lenders(wanted: np.ndarray, shapes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """`[M]` per wanted shape the number of a random window of that shape."""
    found = np.zeros(len(wanted), np.int64)
    for shape in range(N_SHAPES):
        rows = wanted == shape
        if rows.any():
            found[rows] = generator.choice(np.flatnonzero(shapes == shape), int(rows.sum()))
    return found


def _scaled_deviation(windows: Windows, generator: np.random.Generator) -> np.ndarray:
    """Deviations from each window's mean, times one gain per window and a little more per dimension."""
    there = windows.mask[..., None]
    mean = np.where(there, windows.states, 0).sum(axis=1, keepdims=True) / windows.counts[:, None, None]
    deviation = np.where(there, windows.states - mean, 0.0)
    gain = np.exp(generator.uniform(np.log(_GAIN_LOW), np.log(_GAIN_HIGH), (len(windows), 1)))
    gain = gain * np.exp(generator.normal(0.0, 0.7, (len(windows), 4)))
    gain *= generator.choice([-1.0, 1.0], gain.shape)
    extent = np.ptp(deviation, axis=1)
    most = _LARGEST * generator.random(gain.shape) * STATE_MAX / np.maximum(extent, 1e-9)
    return deviation * np.clip(gain, -most, most)[:, None]


def _bare(windows: Windows, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    missing = length - windows.states.shape[1]
    return (
        np.pad(windows.states, ((0, 0), (0, missing), (0, 0))),
        np.pad(windows.times, ((0, 0), (0, missing))),
        np.pad(windows.mask, ((0, 0), (0, missing))),
    )
