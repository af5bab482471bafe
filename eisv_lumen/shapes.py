"""The shape of a window: two rule sets over the same nine names.

`published` reproduces the labels of the dataset on the Hub, flaws included (slopes per second).
`robust` is the default label: it looks at change over the window, so it is free of time scale.
Both are given in DOMAIN.md, section 2.
"""

from collections.abc import Callable, Iterator, Sequence
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
"""Rise of S above its start that is a spike, if it is recovered."""

RECOVERED = 0.5
"""Share of the rise of S that must be taken back by the end."""

ROUGHNESS = 0.5
"""How much of what I travelled beyond its range is taken off its movement; noise goes to and fro."""

DIRECTED = 0.6
"""Share of a movement's range that its net change must make up for it to have a direction."""

ONGOING = 0.15
"""Share of the net change that must come in the last third for a movement to be still going on."""

DIRECTED_DIMENSIONS = [0, 2, 3]
DIRECTIONS = np.array([[-1.0], [1.0], [1.0]])
"""E falling, S rising, V rising: the directions that have a name of their own."""

_CHUNK = 1024


def classify(windows: Windows, rules: str = "robust") -> np.ndarray:
    """Shape id of every window, `[N]` int64, ids into `vocabulary.SHAPES`.

    Args:
        windows: Windows of one or more states each, checked by `Windows.validate`: where states are NaN,
            no test holds and the answer is settled_presence.
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

    Each dimension is reduced to `LEVELS` levels (see `levels`), and the first that holds is the shape:

    1. basin_transition_down, basin_transition_up: E changed by `BASIN` from first to last level;
    2. entropy_spike_recovery: S rose by `SPIKE` above its first level, and took `RECOVERED` of it back;
    3. drift_dissonance: ethical drift above `DRIFT_LIMIT`, as in `published`;
    4. void_rising, rising_entropy, falling_energy: the largest of the movements of E, S and V (in units
       of `MOVED`) is that one; it has moved, in one direction, and is still going on;
    5. convergence: something moved, but none of these goes on: it died down, turned back, or is on its
       way to the low entropy, low void and higher energy of a settled state;
    6. settled_presence: nothing moved.
    """
    return _in_chunks(_robust, windows)


def margin(windows: Windows) -> np.ndarray:
    """How far each window is from another `robust` label, `[N]` in units of the states.

    No perturbation that changes every state by less than this changes the label; it is a lower bound,
    so the label may well survive a larger one.
    """
    return _in_chunks(_margin, windows)


def robust_with_margin(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """`robust` labels and `margin`, `[N]` each, for the price of one."""
    both = [(_label(slacks), _least(slacks)) for slacks in map(_slacks, _chunks(windows))]
    return np.concatenate([labels for labels, _ in both]), np.concatenate([least for _, least in both])


RULE_SETS: dict[str, Callable[[Windows], np.ndarray]] = {"robust": robust, "published": published}


def _in_chunks(rules: Callable[[Windows], np.ndarray], windows: Windows) -> np.ndarray:
    return np.concatenate([rules(part) for part in _chunks(windows)])


def _chunks(windows: Windows) -> Iterator[Windows]:
    """Parts that fit into a processor's cache; at least one."""
    for start in range(0, max(len(windows), 1), _CHUNK):
        yield windows[start : start + _CHUNK]


def _published(windows: Windows) -> np.ndarray:
    windows = windows.packed()
    first, second, n_usable = _rates(windows)
    d_energy, _, d_entropy, d_void = first.sum(axis=0) / n_usable
    steepest, sharpest = _largest(first), _largest(second)

    energy, entropy = windows.states[..., 0], windows.states[..., 2]
    first_energy, last_energy = energy[:, 0], energy[:, -1]
    energy_moved = _range(energy) >= PUBLISHED_RANGE
    spike = _range(entropy) >= PUBLISHED_RANGE
    spike[spike] = _peak_is_interior(entropy[spike], windows.counts[spike])

    tests = (
        ("basin_transition_down", energy_moved & (d_energy < 0) & (first_energy > last_energy)),
        ("basin_transition_up", energy_moved & (d_energy > 0) & (last_energy > first_energy)),
        ("entropy_spike_recovery", spike),
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


def _rates(windows: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second derivatives `[K, 4, N]` of packed windows, and `[N]` usable intervals, at least 1."""
    steps = np.diff(windows.times, axis=1)
    if not (windows.mask.all() and (steps > 0).all()):
        rates = derivatives(windows)
        n_usable = np.maximum(rates.usable.sum(axis=1), 1)
        return _windows_last(rates.first), _windows_last(rates.second), n_usable
    per_second = (1.0 / steps).T[:, None]
    first = np.diff(_windows_last(windows.states), axis=0)
    first *= per_second
    second = np.diff(first, axis=0)
    second *= per_second[1:]
    return first, second, np.full(len(windows), max(steps.shape[1], 1))


def _windows_last(values: np.ndarray) -> np.ndarray:
    """`[N, K, 4]` as `[K, 4, N]`, in which one operation runs over many windows at once."""
    flat = values.reshape(len(values), values.shape[1] * values.shape[2])
    return np.ascontiguousarray(flat.T).reshape(*values.shape[1:], len(values))


def _largest(rates: np.ndarray) -> np.ndarray:
    """`[N]` largest absolute value of rates `[K, 4, N]`; 0 where there is none."""
    flat = rates.reshape(rates.shape[0] * rates.shape[1], rates.shape[2])
    return np.maximum(flat.max(axis=0, initial=0.0), -flat.min(axis=0, initial=0.0))


def _range(values: np.ndarray) -> np.ndarray:
    """`[N]` range of values `[N, T]`."""
    turned = np.ascontiguousarray(values.T)
    return turned.max(axis=0) - turned.min(axis=0)


def _peak_is_interior(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`[N]` bool: the first maximum of values `[N, T]` is neither the first nor the last state present."""
    peak = values.argmax(axis=1)
    return (peak > 0) & (peak < counts - 1)


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
    return _label(_slacks(windows))


def _margin(windows: Windows) -> np.ndarray:
    return _least(_slacks(windows))


def _label(slacks: list[tuple[str, np.ndarray]]) -> np.ndarray:
    return _first_match([(shape, slack >= 0) for shape, slack in slacks], len(slacks[0][1]))


def _least(slacks: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """`[N]` smallest distance from the edge of any test that was made before the label was found."""
    n_windows = len(slacks[0][1])
    result, open_ = np.full(n_windows, np.inf), np.ones(n_windows, bool)
    for _, slack in slacks:
        result = np.where(open_, np.minimum(result, np.abs(slack)), result)
        open_ &= slack < 0
    return result


def _slacks(windows: Windows) -> list[tuple[str, np.ndarray]]:
    """Shapes in the order tested, each with `[N]` slack: it holds where the slack is not negative.

    A slack changes by at most as much as the level that changes most, so each term is divided by what
    it can change when every level changes by 1.
    """
    heard = _windows_last(levels(windows))
    first, last = heard[0], heard[-1]
    # Every other level: fifths that do not overlap.
    fifths = heard[::2]
    extent = fifths.max(axis=0) - fifths.min(axis=0)
    net, late = last - first, last - heard[5]

    moved = (extent - MOVED[:, None]) / 2
    peak, start, end = heard[:, 2].max(axis=0), first[2], last[2]
    rise = (peak - start - SPIKE) / 2
    recovered = ((peak - end) - RECOVERED * (peak - start)) / 2
    travelled = np.abs(np.diff(fifths[:, 1], axis=0)).sum(axis=0)
    clarity_moved = (extent[1] - ROUGHNESS * (travelled - extent[1]) - MOVED[1]) / (2 + 10 * ROUGHNESS)

    # From here on E, S and V alone, each in the direction that has a name.
    extent, moved = extent[DIRECTED_DIMENSIONS], moved[DIRECTED_DIMENSIONS]
    ahead = net[DIRECTED_DIMENSIONS] * DIRECTIONS
    still = late[DIRECTED_DIMENSIONS] * DIRECTIONS - ONGOING * ahead
    directed = (ahead - DIRECTED * extent) / (2 + 2 * DIRECTED)
    going = np.minimum(np.minimum(moved, directed), still / (2 + 2 * ONGOING))
    going = np.minimum(going, _largest_by(extent))
    return [
        ("basin_transition_down", (-BASIN - net[0]) / 2),
        ("basin_transition_up", (net[0] - BASIN) / 2),
        ("entropy_spike_recovery", np.minimum(rise, recovered)),
        ("drift_dissonance", np.where(_drifted(windows), np.inf, -np.inf)),
        ("void_rising", going[2]),
        ("rising_entropy", going[1]),
        ("falling_energy", going[0]),
        ("convergence", np.maximum(moved.max(axis=0), clarity_moved)),
    ]


def _largest_by(extent: np.ndarray) -> np.ndarray:
    """`[3, N]` slack by which each of E, S, V moved more than both others, in units of `MOVED`."""
    unit = MOVED[DIRECTED_DIMENSIONS]
    relative = extent / unit[:, None]
    slack = np.full(extent.shape, np.inf)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        lead = (relative[one] - relative[other]) / (2 / unit[one] + 2 / unit[other])
        slack[one] = np.minimum(slack[one], lead)
        slack[other] = np.minimum(slack[other], -lead)
    return slack


def _drifted(windows: Windows) -> np.ndarray:
    if windows.ethical_drift is None:
        return np.zeros(len(windows), bool)
    return np.where(windows.mask, windows.ethical_drift, 0.0).max(axis=1, initial=0.0) > DRIFT_LIMIT


def _first_match(tests: Sequence[tuple[str, np.ndarray]], n_windows: int) -> np.ndarray:
    """Ids by the first test that holds; settled_presence where none does."""
    labels = np.full(n_windows, SHAPE_ID["settled_presence"], np.int64)
    for shape, holds in reversed(tests):
        labels[holds] = SHAPE_ID[shape]
    return labels
