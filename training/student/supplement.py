"""More training windows than a log has: synthetic ones, those of simulated devices, and movements amplified.

Real logs are mostly flat, and few. Simulated devices show what other sensors, rooms and loads would give.
Scaling the deviations of windows, and adding those of two windows, gives movements of every size with the
texture of sensors. The rules say what shape each window has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eisv_lumen import synthetic
from eisv_lumen.shapes import robust
from eisv_lumen.vocabulary import N_SHAPES, SHAPE_ID, STATE_MAX
from eisv_lumen.windows import Windows
from training.student.simulated_logs import WINDOWS_PER_DEVICE, simulated

_SLOWEST = 60.0
_GAIN_LOW, _GAIN_HIGH = 0.3, 30.0
_LARGEST = 0.6
"""Range of a dimension, as a share of what it can have, that amplification does not go beyond."""


_VARIATION = 0.7
"""Most that the ranges of a window are stretched or shrunk when it is varied, as a logarithm."""
_AT_A_LIMIT = 0.2
"""Share of movements that may pass the limit of a dimension and are cut off there, as in cold rooms."""


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
    """About `count` windows: half synthetic of all shapes alike, a third simulated, a sixth amplified.

    Args:
        windows: The dataset's training windows.
        shapes: `[N]` their shapes.
        count: How many; windows without a lender, or that swing like drift_dissonance without being
            labelled so, are left out.
        generator: Source of all randomness.
    """
    present = np.unique(shapes)
    wanted = present[np.arange(count // 2) % len(present)]
    cadence = np.exp(generator.uniform(0.0, np.log(_SLOWEST), len(wanted)))
    made = synthetic.generate(wanted, generator, cadence=cadence)
    devices = simulated(max(count // 3 // WINDOWS_PER_DEVICE, 1), generator)
    grown = amplified(joined([windows, devices]), count // 6, generator)
    textured = joined([devices, grown])
    textured_shapes = robust(textured)
    fits = np.isin(textured_shapes, present) & ~synthetic.swings_against(textured)
    all_shapes = np.concatenate([wanted, textured_shapes[fits]])
    return Supplement(joined([made, textured[fits]]), all_shapes, lenders(all_shapes, shapes, generator))


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
    beyond = generator.uniform(-high, STATE_MAX - low)
    base = np.where(generator.random((count, 4)) < _AT_A_LIMIT, beyond, base)
    states = np.clip(base[:, None] + deviation, 0.0, STATE_MAX)
    return Windows(states, one.times, both)


def varied(
    windows: Windows, shapes: np.ndarray, share: float, among: np.ndarray, generator: np.random.Generator
) -> tuple[Windows, np.ndarray]:
    """A share of the windows with other ranges and levels, and the shapes that this gives them.

    A window of drift_dissonance keeps its ranges, because nothing in its states says that it drifts.

    Args:
        windows: `[N]` windows; complete, not cut yet.
        shapes: `[N]` their shapes.
        share: Share of the windows that are varied.
        among: `[K]` shapes that a window may become; one that would become another stays as it is.
        generator: Source of all randomness.

    Returns:
        The windows, packed and without ethical drift, and `[N]` shapes by the robust rules.
    """
    windows = windows.packed()
    rows = np.flatnonzero(generator.random(len(windows)) < share)
    changed, found = _changed(windows[rows], shapes[rows], generator)
    drifting = shapes[rows] == SHAPE_ID["drift_dissonance"]
    kept = np.isin(found, among) & (drifting | ~synthetic.swings_against(changed))
    states, shapes = windows.states.copy(), shapes.copy()
    states[rows[kept]], shapes[rows[kept]] = changed.states[kept], found[kept]
    return Windows(states, windows.times, windows.mask), shapes


def _changed(
    windows: Windows, shapes: np.ndarray, generator: np.random.Generator
) -> tuple[Windows, np.ndarray]:
    """All windows with other ranges and levels, and the shapes that this gives them."""
    count, drifting = len(windows), shapes == SHAPE_ID["drift_dissonance"]
    low, high = windows.states.min(axis=1), windows.states.max(axis=1)
    gain = np.exp(
        generator.uniform(-_VARIATION, _VARIATION, (count, 1)) + generator.normal(0, 0.2, (count, 4))
    )
    gain = np.where(drifting[:, None], 1.0, np.minimum(gain, STATE_MAX / np.maximum(high - low, 1e-9)))
    extent = gain * (high - low)
    base = generator.uniform(0.0, 1.0, (count, 4)) * np.maximum(STATE_MAX - extent, 0.0)
    beyond = ~drifting[:, None] & (generator.random((count, 4)) < _AT_A_LIMIT)
    base = np.where(beyond, generator.uniform(-extent, STATE_MAX), base)
    states = np.clip(base[:, None] + gain[:, None] * (windows.states - low[:, None]), 0.0, STATE_MAX)
    changed = Windows(states, windows.times, windows.mask)
    return changed, np.where(drifting, shapes, robust(changed))


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


def joined(parts: Sequence[Windows]) -> Windows:
    """Packed windows one after the other, padded to one length; without ethical drift."""
    length = max(part.mask.shape[1] for part in parts)

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, 0), (0, length - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])

    packed = [part.packed() for part in parts]
    return Windows(
        *(
            np.concatenate([padded(getattr(part, name)) for part in packed])
            for name in ("states", "times", "mask")
        )
    )
