"""What a window may go through between the sensors and the student, for training and for tests of roughness.

Every function takes and returns `Windows`; the label stays that of the complete, clean window, because the
shape rules are free of time scale and the student is to hear a shape early and through noise.
"""

from dataclasses import dataclass

import numpy as np

from eisv_lumen.vocabulary import STATE_MAX
from eisv_lumen.windows import MIN_STATES, Windows
from training.configuration import require


@dataclass(frozen=True)
class AugmentationSettings:
    """How often, and how strongly, training windows are changed.

    Attributes:
        vary: Share of windows whose ranges and levels are changed before all else, and with them their
            shape; see `training.student.supplement.varied`.
        clean: Share of windows that only change their cadence; the other shares are of the rest.
        cut: Share of windows cut to a prefix or suffix; one in four of them to a suffix.
        drop: Share of windows that lose states; each loses up to `dropped` of them.
        dropped: Largest share of a window's states that is dropped.
        freeze: Share of windows in which one dimension stands still.
        jitter: Share of windows with jittered clocks; each time moves by up to half a step.
        quantise: Share of windows rounded to a sensor resolution of 1e-3 to 3e-3.
        noise: Share of windows with Gaussian sensor noise.
        noise_scale: Largest standard deviation of that noise, as a share of a dimension's range.
        rescale: Share of windows whose clock runs at another cadence of 1 to 60 s.
    """

    vary: float = 0.3
    clean: float = 0.4
    cut: float = 0.6
    drop: float = 0.3
    dropped: float = 0.4
    freeze: float = 0.05
    jitter: float = 0.3
    quantise: float = 0.2
    noise: float = 0.3
    noise_scale: float = 0.003
    rescale: float = 0.5

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1]."""
        for name, value in vars(self).items():
            require(0.0 <= value <= 1.0, f"augmentation: {name}", value, "a share in [0, 1]")


def augment(windows: Windows, settings: AugmentationSettings, generator: np.random.Generator) -> Windows:
    """One random variant of each window, packed, of 4 states or more."""
    count = len(windows)
    changed = generator.random(count) >= settings.clean

    def chosen(share: float) -> np.ndarray:
        return changed & (generator.random(count) < share)

    windows = windows.packed()
    rescaled = generator.random(count) < settings.rescale
    windows = rescale(windows, np.where(rescaled, _paces(windows, generator), 1.0))
    windows = jitter(windows, 0.5 * chosen(settings.jitter), generator)
    scale = settings.noise_scale * generator.random(count) * chosen(settings.noise)
    windows = add_noise(windows, scale, generator)
    windows = freeze(windows, chosen(settings.freeze), generator)
    windows = quantise(windows, 10 ** generator.uniform(-3, -2.5, count) * chosen(settings.quantise))
    windows = _cut_anywhere(windows, chosen(settings.cut), generator)
    return drop(windows, settings.dropped * generator.random(count) * chosen(settings.drop), generator)


def cut(windows: Windows, start: int, length: int) -> Windows:
    """States `start` to `start + length` of each window, as far as there are any."""
    packed = windows.packed()
    stop = start + length
    return Windows(packed.states[:, start:stop], packed.times[:, start:stop], packed.mask[:, start:stop])


def drop(windows: Windows, share: np.ndarray, generator: np.random.Generator) -> Windows:
    """Lose about a share `[N]` of each window's states, never the last four."""
    packed = windows.packed()
    priority = np.where(packed.mask, generator.random(packed.mask.shape), 2.0)
    rank = np.argsort(np.argsort(priority, axis=1), axis=1)
    lost = np.minimum(np.rint(share * packed.counts), np.maximum(packed.counts - MIN_STATES, 0))
    kept = packed.mask & (rank >= lost[:, None])
    return Windows(packed.states, packed.times, kept).packed()


def jitter(windows: Windows, steps: np.ndarray, generator: np.random.Generator) -> Windows:
    """Move each time by up to `steps` `[N]` of the median step; times stay in order."""
    there = windows.mask[:, 1:]
    intervals = np.sort(np.where(there, np.diff(windows.times, axis=1), np.inf), axis=1)
    middle = np.maximum(there.sum(axis=1) - 1, 0) // 2
    step = intervals[np.arange(len(windows)), middle] if intervals.shape[1] else np.zeros(len(windows))
    step = np.where(np.isfinite(step), step, 0.0)
    return jitter_seconds(windows, steps * step, generator)


def jitter_seconds(windows: Windows, seconds: np.ndarray, generator: np.random.Generator) -> Windows:
    """Move each time by up to `seconds` `[N]`; times stay in order."""
    moved = windows.times + generator.uniform(-1, 1, windows.times.shape) * seconds[:, None]
    return Windows(windows.states, np.maximum.accumulate(moved, axis=1), windows.mask)


def freeze(windows: Windows, chosen: np.ndarray, generator: np.random.Generator) -> Windows:
    """Hold one random dimension of the chosen windows (`[N]` bool) at its first state."""
    packed = windows.packed()
    stuck = chosen[:, None] & (generator.integers(0, 4, (len(packed), 1)) == np.arange(4))
    return Windows(np.where(stuck[:, None], packed.states[:, :1], packed.states), packed.times, packed.mask)


def rescale(windows: Windows, factor: np.ndarray) -> Windows:
    """Stretch each window's clock by a factor `[N]`."""
    start = windows.times[:, :1]
    return Windows(windows.states, (windows.times - start) * factor[:, None], windows.mask)


def quantise(windows: Windows, resolution: np.ndarray) -> Windows:
    """Round the states to a resolution `[N]`, a share of each dimension's range; 0 leaves them."""
    unit = np.where(resolution > 0, resolution, 1.0)[:, None, None] * STATE_MAX
    rounded = np.clip(np.rint(windows.states / unit) * unit, 0.0, STATE_MAX)
    return Windows(
        np.where((resolution > 0)[:, None, None], rounded, windows.states), windows.times, windows.mask
    )


def add_noise(windows: Windows, deviation: np.ndarray, generator: np.random.Generator) -> Windows:
    """Gaussian noise of a standard deviation `[N]`, a share of each dimension's range."""
    noise = generator.normal(size=windows.states.shape) * deviation[:, None, None] * STATE_MAX
    return Windows(np.clip(windows.states + noise, 0.0, STATE_MAX), windows.times, windows.mask)


def _cut_anywhere(windows: Windows, chosen: np.ndarray, generator: np.random.Generator) -> Windows:
    """Cut the chosen windows to a prefix of random length of 4 states or more, one in four to a suffix."""
    counts = windows.counts
    shortest = np.minimum(MIN_STATES, counts)
    lengths = np.where(chosen, generator.integers(shortest, counts + 1), counts)
    starts = np.where(generator.random(len(windows)) < 0.25, counts - lengths, 0)
    place = np.arange(windows.mask.shape[1])[None]
    kept = windows.mask & (place >= starts[:, None]) & (place < (starts + lengths)[:, None])
    return Windows(windows.states, windows.times, kept).packed()


def _paces(windows: Windows, generator: np.random.Generator) -> np.ndarray:
    """`[N]` factors that bring each window's mean step to 1 to 60 s, evenly on a logarithmic scale."""
    last = np.maximum(windows.counts - 1, 1)
    span = np.maximum(windows.times[:, -1] - windows.times[:, 0], 1e-3)
    return np.exp(generator.uniform(0.0, np.log(60.0), len(windows))) / (span / last)
