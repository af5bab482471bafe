"""The shape of a window: two rule sets over the same nine names.

`published` reproduces the labels of the dataset on the Hub, flaws included (slopes per second).
`robust` is the default label: it looks at change over the window, so it is free of time scale.
Both are given in DOMAIN.md, section 2.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from eisv_lumen.errors import InputError
from eisv_lumen.vocabulary import SHAPE_ID
from eisv_lumen.windows import Windows, derivatives

DRIFT_LIMIT = 0.3
"""Ethical drift above which a window is drift_dissonance, in both rule sets."""

PUBLISHED_RANGE = 0.2
PUBLISHED_SLOPE = 0.05
PUBLISHED_STILL = 1e-9

LEVELS = 9
"""Levels per dimension that `robust` sees: means over fifths of the window, each half over the next."""

MOVED = np.array([0.02, 0.25, 0.02, 0.01])
"""Movement of E, I, S, V from which a window has moved: several times the noise of the sensors' resolution.

I follows the accuracy of predictions, which is noise wherever little happens, hence its larger bound.
"""

BASIN = 0.15
"""Net change of E, first to last fifth, that is a change of basin whatever its course."""

SPIKE = 0.06
"""Rise of S above its start that is a spike, if at least half of it is recovered."""

DIRECTED = 0.6
"""Share of a movement's range that its net change must make up for it to have a direction."""

ONGOING = 0.15
"""Share of the net change that must come in the last third for a movement to be still going on."""

_CHUNK = 2048


def classify(windows: Windows, rules: str = "robust") -> np.ndarray:
    """Shape id of every window, `[N]` int64, ids into `vocabulary.SHAPES`.

    Args:
        windows: Windows of one or more states each; more than four for the answer to mean much.
        rules: A name in `RULE_SETS`.

    Raises:
        InputError: When there is no rule set of that name.
    """
    if rules not in RULE_SETS:
        raise InputError(
            found=f"rule set {rules!r}",
            expected=f"one of {', '.join(RULE_SETS)}",
            next="pass rules='robust' or rules='published'",
        )
    return RULE_SETS[rules](windows)


def published(windows: Windows) -> np.ndarray:
    """Labels by the rules behind the published dataset, `[N]` int64; slopes are per second."""
    return _in_chunks(_published, windows)


def robust(windows: Windows) -> np.ndarray:
    """Labels by change over the window, `[N]` int64; free of time scale.

    A window is reduced to `KNOTS` levels per dimension (see `levels`). Its shape is that of its largest
    movement, E, S and V being compared in units of `MOVED`:
    a change of E by `BASIN` is a basin transition; a peak of S that is at least half recovered is a spike;
    a directed movement that is still going on is falling_energy, rising_entropy, void_rising or (E upwards)
    basin_transition_up; any other movement is convergence; none is settled_presence.
    Ethical drift above `DRIFT_LIMIT` is drift_dissonance unless E changed its basin or S spiked.
    """
    return _in_chunks(_robust, windows)


RULE_SETS: dict[str, Callable[[Windows], np.ndarray]] = {"robust": robust, "published": published}


def _in_chunks(rules: Callable[[Windows], np.ndarray], windows: Windows) -> np.ndarray:
    """Apply rules to parts that fit into a processor's cache."""
    if len(windows) <= _CHUNK:
        return rules(windows)
    parts = range(0, len(windows), _CHUNK)
    return np.concatenate([rules(windows[start : start + _CHUNK]) for start in parts])


def _published(windows: Windows) -> np.ndarray:
    windows = windows.packed()
    rates = derivatives(windows)
    n_usable = np.maximum(rates.usable.sum(axis=1), 1)
    d_energy, d_entropy, d_void = (rates.first[..., k].sum(axis=1) / n_usable for k in (0, 2, 3))
    steepest = np.abs(rates.first).max(axis=(1, 2), initial=0.0)
    sharpest = np.abs(rates.second).max(axis=(1, 2), initial=0.0)

    energy, entropy = windows.states[..., 0], windows.states[..., 2]
    last = np.maximum(windows.counts - 1, 0)
    first_energy, last_energy = energy[:, 0], energy[:, -1]
    energy_moved = np.ptp(energy, axis=1) >= PUBLISHED_RANGE
    peak = entropy.argmax(axis=1)
    interior = (peak > 0) & (peak < last)

    tests = (
        ("basin_transition_down", energy_moved & (d_energy < 0) & (first_energy > last_energy)),
        ("basin_transition_up", energy_moved & (d_energy > 0) & (last_energy > first_energy)),
        ("entropy_spike_recovery", (np.ptp(entropy, axis=1) >= PUBLISHED_RANGE) & interior),
        ("drift_dissonance", _drifted(windows)),
        ("void_rising", d_void > PUBLISHED_SLOPE),
        ("rising_entropy", d_entropy > PUBLISHED_SLOPE),
        ("falling_energy", d_energy < -PUBLISHED_SLOPE),
        (
            "convergence",
            (steepest < PUBLISHED_SLOPE) & (sharpest < PUBLISHED_SLOPE) & (steepest > PUBLISHED_STILL),
        ),
    )
    return _first_match(tests, len(windows))


def levels(windows: Windows) -> np.ndarray:
    """`[N, LEVELS, 4]` levels: means over fifths of the straight lines between the states, in order.

    Positions are counted in states, not in seconds, so they depend neither on cadence nor on jitter;
    a state repeated at the same time counts once. Windows of any number of states give the same number
    of levels.
    """
    windows = _without_repeats(windows)
    if windows.mask.all():
        return np.matmul(_level_weights(windows.states.shape[1]), windows.states)
    counts = windows.counts
    result = np.zeros((len(windows), LEVELS, 4))
    for count in np.unique(counts[counts > 0]):
        rows = counts == count
        result[rows] = np.matmul(_level_weights(int(count)), windows.states[rows, :count])
    return result


@lru_cache(maxsize=64)
def _level_weights(count: int) -> np.ndarray:
    """`[LEVELS, count]`: area under each state's hat function within each part, over the part's length."""
    if count == 1:
        return np.ones((LEVELS, 1))
    edges = np.linspace(0, count - 1, LEVELS + 2)[:, None]
    ahead = np.clip(edges - np.arange(count) + 1, 0, 1)
    behind = np.clip(edges - np.arange(count), 0, 1)
    areas = ahead**2 / 2 + behind - behind**2 / 2
    return (areas[2:] - areas[:-2]) * ((LEVELS + 1) / 2 / (count - 1))


def _without_repeats(windows: Windows) -> Windows:
    """Packed windows in which of several states of one time the last is kept."""
    windows = windows.packed()
    repeats = (windows.times[:, 1:] <= windows.times[:, :-1]) & windows.mask[:, 1:]
    if not repeats.any():
        return windows
    mask = windows.mask.copy()
    mask[:, :-1] &= ~repeats
    return Windows(windows.states, windows.times, mask, windows.ethical_drift).packed()


def _robust(windows: Windows) -> np.ndarray:
    heard = levels(windows)
    fifths = heard[:, ::2]
    extent = np.ptp(fifths, axis=1)
    net = heard[:, -1] - heard[:, 0]
    late = heard[:, -1] - heard[:, 5]

    relative = extent / MOVED
    relative[:, 1] = 0.0
    main = relative.argmax(axis=1)
    moved = relative.max(axis=1) >= 1
    extent_, net_, late_ = (values[np.arange(len(main)), main] for values in (extent, net, late))
    directed = np.abs(net_) >= DIRECTED * extent_
    ongoing = moved & directed & (late_ * np.sign(net_) >= ONGOING * np.abs(net_))
    upwards = net_ > 0

    peak = heard[..., 2].max(axis=1)
    rise = peak - heard[:, 0, 2]
    recovered = peak - heard[:, -1, 2] >= 0.5 * rise
    clarity = fifths[..., 1]
    travelled = np.abs(np.diff(clarity, axis=1)).sum(axis=1)
    clarity_moved = 1.5 * extent[:, 1] - 0.5 * travelled >= MOVED[1]

    tests = (
        ("basin_transition_down", net[:, 0] <= -BASIN),
        ("basin_transition_up", net[:, 0] >= BASIN),
        ("entropy_spike_recovery", (rise >= SPIKE) & recovered),
        ("drift_dissonance", _drifted(windows)),
        ("void_rising", ongoing & upwards & (main == 3)),
        ("rising_entropy", ongoing & upwards & (main == 2)),
        ("falling_energy", ongoing & ~upwards & (main == 0)),
        ("convergence", moved | clarity_moved),
    )
    return _first_match(tests, len(windows))


def _drifted(windows: Windows) -> np.ndarray:
    if windows.ethical_drift is None:
        return np.zeros(len(windows), bool)
    return np.where(windows.mask, windows.ethical_drift, 0.0).max(axis=1, initial=0.0) > DRIFT_LIMIT


def _first_match(tests: tuple[tuple[str, np.ndarray], ...], n_windows: int) -> np.ndarray:
    """Ids by the first test that holds; settled_presence where none does."""
    labels = np.full(n_windows, SHAPE_ID["settled_presence"], np.int64)
    for shape, holds in reversed(tests):
        labels[holds] = SHAPE_ID[shape]
    return labels
