"""Synthetic windows of every shape, at any cadence, and one canonical window per shape.

Real logs are flat most of the time and never carry ethical drift, so rare shapes are made here: a main
movement gives the window its shape, lesser ones accompany it, and each window is kept only if the rules
(`shapes.robust`) give it the label that was asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eisv_lumen.errors import InputError
from eisv_lumen.shapes import DRIFT_LIMIT, LEVELS, MOVED, levels, robust_with_margin
from eisv_lumen.vocabulary import N_SHAPES, SHAPE_ID, SHAPES, STATE_MAX
from eisv_lumen.windows import WINDOW_LENGTH, Windows, concatenate

NOISES = ("realistic", "none")

ROUNDING = 1e-3
"""Step of the sensors' quantisation; no window is kept whose label would not survive it."""

RESOLUTIONS = (1e-4, 1e-3, 2e-3, 5e-3)
"""Resolutions, as shares of a dimension's range, to which some windows are rounded: states written with four
and with three digits, and a tenth of a degree on the scale of 20 degrees, with and without other inputs."""

ROUNDED = 0.4
"""Share of windows that are rounded, to each resolution as often."""

PAUSE = (1.5, 9.5)
"""Shortest and longest pause within a window, in median steps; from ten on it would be a gap."""

SHORT = (0.05, 0.4)
"""Shortest and longest of the hasty steps, in median steps."""

_E, _I, _S, _V = range(4)
_BASE_LOW = np.array([0.12, 0.40, 0.0, 0.0])
_BASE_HIGH = np.array([0.90, 0.95, 0.45, 0.25])
_LESSER_MOST = np.array([0.2, 0.3, 0.2, 0.08])
"""Largest range of a movement that accompanies the main one."""
_LEAST_SWING = np.array([[0.06], [0.05], [0.015]])
"""Least range of the swings of E, I and V in drift_dissonance."""
_NOISE_LOW = np.array([1e-4, 1e-3, 1e-4, 5e-5])
_NOISE_HIGH = np.array([4e-3, 5e-2, 3e-3, 1.5e-3])
"""Noise of each dimension; I is the roughest by far, since it follows the accuracy of predictions."""
_AT_ONCE = 1024
"""Windows made at once: what is worked on stays within a processor's cache."""


def _ramp(u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    since, onset = _since_onset(u, generator)
    duration = np.where(_chance(0.6, u, generator), 1 - onset, _uniform(0.3, 1.0, u, generator))
    return np.clip(since / duration, 0, 1) ** np.exp(_uniform(-0.7, 0.9, u, generator))


def _sigmoid(u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    centre, width = _uniform(0.2, 0.8, u, generator), np.exp(_uniform(-4.0, -1.6, u, generator))
    return 1 / (1 + np.exp(-(u - centre) / width))


def _approach(u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    since, _ = _since_onset(u, generator)
    return 1 - np.exp(-since / np.exp(_uniform(-3.0, -0.7, u, generator)))


def _bump(u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    before, after = (np.exp(_uniform(-3.2, -1.4, u, generator)) for _ in range(2))
    away = u - _uniform(0.2, 0.8, u, generator)
    return np.exp(-(np.abs(away / np.where(away < 0, before, after)) ** _uniform(1, 2, u, generator)))


def _swing(u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    turns = _uniform(0.7, 3.0, u, generator) * u + _uniform(0.0, 1.0, u, generator)
    return np.cos(2 * np.pi * turns) * np.exp(-u / np.exp(_uniform(-2.3, 0.7, u, generator)))


def _wander(u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    walk = np.cumsum(generator.standard_normal(u.shape), axis=1)
    walk[:, 1:] = (walk[:, 1:] + walk[:, :-1]) / 2
    walk -= walk[:, :1]
    return walk / np.ptp(walk, axis=1, keepdims=True)


def _since_onset(u: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    onset = _uniform(0.0, 0.5, u, generator) * _chance(0.5, u, generator)
    return np.maximum(u - onset, 0.0), onset


def _uniform(low: float, high: float, u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.uniform(low, high, (len(u), 1))


def _chance(share: float, u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.random((len(u), 1)) < share


_COURSES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "ramp": _ramp,
    "sigmoid": _sigmoid,
    "approach": _approach,
    "bump": _bump,
    "swing": _swing,
    "wander": _wander,
}
COURSES = tuple(_COURSES)
"""Courses a movement can take over the window: three lead from 0 to about 1, one there and back, one
to and fro, mostly dying down, and one at random, as real logs do. Each is a function of positions `[M, T]`
in [0, 1] that draws its own parameters."""


@dataclass(frozen=True)
class _Movement:
    """A main movement: its dimension, direction (0: either), range and possible courses."""

    dimension: int
    direction: int
    smallest: float
    largest: float
    courses: tuple[str, ...]


_ONE_WAY = ("ramp", "sigmoid", "approach", "wander")
_TO_AND_FRO = ("bump", "swing", "wander")
_MOVEMENTS: dict[str, tuple[_Movement, ...]] = {
    "settled_presence": tuple(
        _Movement(dimension, 0, 0.01 * MOVED[dimension], 0.95 * MOVED[dimension], COURSES)
        for dimension in (_E, _S, _V)
    ),
    "convergence": (
        _Movement(_E, 0, 0.022, 0.25, ("approach", "sigmoid", "swing", "bump")),
        _Movement(_E, 0, 0.05, 0.8, _TO_AND_FRO),
        _Movement(_E, 1, 0.022, 0.18, _ONE_WAY),
        _Movement(_S, 0, 0.022, 0.3, ("approach", "sigmoid", "swing")),
        _Movement(_S, -1, 0.022, 0.3, (*_ONE_WAY, *_TO_AND_FRO)),
        _Movement(_V, 0, 0.011, 0.15, ("approach", "sigmoid", *_TO_AND_FRO)),
        _Movement(_V, -1, 0.011, 0.2, _ONE_WAY),
        _Movement(_I, 0, 0.27, 0.5, _ONE_WAY),
    ),
    "rising_entropy": (_Movement(_S, 1, 0.022, 0.5, _ONE_WAY),),
    "falling_energy": (_Movement(_E, -1, 0.022, 0.19, _ONE_WAY),),
    "basin_transition_down": (_Movement(_E, -1, 0.16, 0.6, _ONE_WAY),),
    "basin_transition_up": (_Movement(_E, 1, 0.16, 0.6, _ONE_WAY),),
    "entropy_spike_recovery": (_Movement(_S, 1, 0.08, 0.5, ("bump", "bump", "swing", "wander")),),
    "drift_dissonance": (_Movement(_S, 1, 0.001, 0.05, _ONE_WAY),),
    "void_rising": (_Movement(_V, 1, 0.011, 0.25, _ONE_WAY),),
}


def generate(
    shape_ids: np.ndarray,
    generator: np.random.Generator,
    *,
    cadence: float | np.ndarray,
    length: int = WINDOW_LENGTH,
    noise: str = "realistic",
) -> Windows:
    """One window of each shape asked for.

    Args:
        shape_ids: `[N]` ids into `vocabulary.SHAPES`.
        generator: Source of all randomness; the same state gives the same windows.
        cadence: Median step in seconds, one for all or `[N]`.
        length: States per window.
        noise: "realistic" adds sensor noise, steps of uneven length and, to some windows, pauses, hasty
            steps, and rounding to one of `RESOLUTIONS`; "none" leaves the bare trajectories at even steps.

    Returns:
        Windows `[N, length]` whose `robust` label is the one asked for. `ethical_drift` exceeds
        `shapes.DRIFT_LIMIT` somewhere in those of drift_dissonance, and nowhere else.

    Raises:
        InputError: When an id, the cadence, the length or the kind of noise cannot be used.
    """
    shape_ids = np.asarray(shape_ids, dtype=np.int64)
    cadences = np.broadcast_to(np.asarray(cadence, np.float64), shape_ids.shape)
    _check(shape_ids, cadences, length, noise)
    states = np.zeros((len(shape_ids), length, 4))
    times, drift = np.zeros((2, len(shape_ids), length))
    open_ = np.arange(len(shape_ids))
    while len(open_):
        # The last few are proposed several times at once.
        tries = np.repeat(open_, min(max(_AT_ONCE // (4 * len(open_)), 1), 8))
        made = np.zeros(len(shape_ids), bool)
        for start in range(0, len(tries), _AT_ONCE):
            rows = tries[start : start + _AT_ONCE]
            proposed = _propose(shape_ids[rows], cadences[rows], length, noise == "realistic", generator)
            fits = np.flatnonzero(_fits(proposed, shape_ids[rows]))
            states[rows[fits]], times[rows[fits]] = proposed.states[fits], proposed.times[fits]
            assert proposed.ethical_drift is not None
            drift[rows[fits]] = proposed.ethical_drift[fits]
            made[rows[fits]] = True
        open_ = open_[~made[open_]]
    return Windows.of(states, times, ethical_drift=drift)


def _fits(proposed: Windows, shape_ids: np.ndarray) -> np.ndarray:
    """`[N]` bool: the window has the shape asked for and keeps it when rounded."""
    labels, margins = robust_with_margin(proposed)
    fits = (labels == shape_ids) & (margins > ROUNDING / 2)
    fits[fits] = swings_against(proposed[fits]) == (shape_ids[fits] == SHAPE_ID["drift_dissonance"])
    return fits


def swings_against(windows: Windows) -> np.ndarray:
    """`[N]` bool: E swings to and fro against both I and V, the visible side of drift_dissonance.

    Of the windows made here exactly those of drift_dissonance do so, which lets a listener tell them from
    the states alone. Sensors do not show it: load on a machine moves E against I, but V along with E.
    """
    moving = levels(windows).transpose(1, 2, 0)[:, [_E, _I, _V]]
    position = np.linspace(-1, 1, LEVELS)
    slope = np.tensordot(position, moving, 1) / (position**2).sum()
    swing = moving - moving.mean(axis=0) - slope * position[:, None, None]
    large = (np.ptp(swing, axis=0) >= _LEAST_SWING).all(axis=0)
    turns = (np.diff(np.sign(swing[:, 0]), axis=0) != 0).sum(axis=0)
    # Correlation of E with I and with V.
    product = (swing[:, :1] * swing[:, 1:]).sum(axis=0)
    power = (swing**2).sum(axis=0)
    opposed = (product <= -0.75 * np.sqrt(power[:1] * power[1:])).all(axis=0)
    return large & (turns >= 3) & opposed


def canonical(shape: str) -> Windows:
    """The seed trajectory of a shape (N = 1), without noise; both rule sets give it that shape.

    `published` measures slopes per second: its rising_entropy, falling_energy and void_rising need
    steps of a fraction of a second.

    Raises:
        InputError: When there is no such shape.
    """
    if shape not in SHAPE_ID:
        raise InputError(
            found=f"shape {shape!r}", expected=f"one of {', '.join(SHAPES)}", next="pass one of these names"
        )
    u = np.linspace(0, 1, WINDOW_LENGTH)
    states = np.tile([0.6, 0.75, 0.2, 0.06], (WINDOW_LENGTH, 1))
    drift = np.zeros(WINDOW_LENGTH)
    step = 2.0
    if shape == "convergence":
        states += np.exp(-u / 0.15)[:, None] * [-0.1, 0.04, 0.06, 0.02]
    elif shape in ("rising_entropy", "falling_energy", "void_rising"):
        step = 0.1
        states += (
            u[:, None]
            * {
                "rising_entropy": [0.0, -0.03, 0.3, 0.0],
                "falling_energy": [-0.16, 0.0, 0.0, 0.0],
                "void_rising": [0.0, -0.03, 0.03, 0.2],
            }[shape]
        )
    elif shape.startswith("basin_transition"):
        up = 0.3 / (1 + np.exp(-(u - 0.5) / 0.08))
        states[:, _E] = 0.35 + up if shape.endswith("up") else 0.65 - up
    elif shape == "entropy_spike_recovery":
        states[:, _S] += 0.4 * np.exp(-(((u - 0.45) / 0.12) ** 2))
    elif shape == "drift_dissonance":
        swing = np.sin(2 * np.pi * 2 * u)
        states[:, _E] += 0.08 * swing
        states[:, _I] -= 0.09 * swing
        states[:, _V] -= 0.03 * swing
        states[:, _S] += 0.03 * u
        drift = 0.1 + 0.4 * np.exp(-(((u - 0.6) / 0.2) ** 2))
    times = np.arange(WINDOW_LENGTH) * step
    return Windows.of(states[None], times[None], ethical_drift=drift[None])


def canonical_windows() -> Windows:
    """The canonical window of every shape, in the order of `vocabulary.SHAPES`."""
    return concatenate([canonical(shape) for shape in SHAPES])


def _propose(
    shape_ids: np.ndarray, cadences: np.ndarray, length: int, noisy: bool, generator: np.random.Generator
) -> Windows:
    """Windows that mostly, but not always, have the shape asked for."""
    times = _times(cadences, length, noisy, generator)
    u = times / times[:, -1:]
    moves = _moves(*_movements(shape_ids, generator), u, generator)
    dissonant = shape_ids == SHAPE_ID["drift_dissonance"]
    moves[dissonant] = _dissonance(moves[dissonant], u[dissonant], generator)
    base = generator.uniform(_BASE_LOW, _BASE_HIGH, (len(shape_ids), 4))
    low = -moves.min(axis=2)
    base = np.clip(base, low, np.maximum(STATE_MAX - moves.max(axis=2), low))
    states = base[..., None] + moves
    if noisy:
        states += _noise(states.shape, generator)
        _round(states, generator)
    drift = _drift(dissonant, u, generator)
    states = np.clip(states, 0.0, STATE_MAX[:, None])
    return Windows.of(np.ascontiguousarray(states.transpose(0, 2, 1)), times, ethical_drift=drift)


def _times(cadences: np.ndarray, length: int, noisy: bool, generator: np.random.Generator) -> np.ndarray:
    """`[N, T]` seconds from 0: even steps, or for most windows uneven ones, some with pauses."""
    steps = np.ones((len(cadences), length - 1))
    if noisy:
        kind = generator.random(len(cadences))
        for above, share, (low, high) in ((0.3, 1.0, (0.85, 1.15)), (0.85, 0.08, PAUSE), (0.92, 0.08, SHORT)):
            rows = kind > above
            some = steps[rows]
            drawn = generator.uniform(low, high, some.shape)
            steps[rows] = np.where(generator.random(some.shape) < share, drawn, some)
    times = np.zeros((len(cadences), length))
    np.cumsum(steps * cadences[:, None], axis=1, out=times[:, 1:])
    return times


def _movements(shape_ids: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Signed range and course `[N, 4]` of every dimension's movement."""
    n_windows = len(shape_ids)
    courses = generator.integers(0, len(COURSES), (n_windows, 4))
    signs = generator.choice([-1.0, 1.0], (n_windows, 4))
    main = np.zeros(n_windows, np.int64)
    size = np.zeros(n_windows)
    for shape in range(N_SHAPES):
        options = _MOVEMENTS[SHAPES[shape]]
        chosen = generator.integers(0, len(options), n_windows)
        for number, option in enumerate(options):
            rows = np.flatnonzero((shape_ids == shape) & (chosen == number))
            main[rows] = option.dimension
            size[rows] = np.exp(generator.uniform(np.log(option.smallest), np.log(option.largest), len(rows)))
            possible = [COURSES.index(course) for course in option.courses]
            courses[rows, option.dimension] = generator.choice(possible, len(rows))
            if option.direction:
                signs[rows, option.dimension] = option.direction
    every = np.arange(n_windows)
    # What moves beside the main movement is smaller in units of MOVED, and often nothing does.
    lesser = np.minimum((size / MOVED[main])[:, None] * MOVED, _LESSER_MOST)
    lesser = lesser * generator.uniform(0.0, 0.9, (n_windows, 4)) * (generator.random((n_windows, 4)) < 0.6)
    lesser[every, main] = size
    return lesser * signs, courses


def _moves(
    ranges: np.ndarray, courses: np.ndarray, u: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """`[N, 4, T]` movement of each dimension: its range times its course at the positions u `[N, T]`."""
    moves = np.zeros((*ranges.shape, u.shape[1]))
    for number, course in enumerate(_COURSES.values()):
        rows, dimensions = np.nonzero((courses == number) & (ranges != 0))
        moves[rows, dimensions] = ranges[rows, dimensions, None] * course(u[rows], generator)
    return moves


def _dissonance(moves: np.ndarray, u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Movements `[N, 4, T]` with those of E, I and V replaced by swings of E against the others."""
    count = (len(u), 1)
    phase = generator.uniform(1.5, 2.6, count) * u + generator.random(count)
    energy = generator.uniform(0.05, 0.14, count)
    moves[:, _E] = energy * np.sin(2 * np.pi * phase)
    for dimension, low, high in ((_I, 0.6, 1.5), (_V, 0.2, 0.5)):
        size = energy * generator.uniform(low, high, count)
        lag = generator.uniform(-0.04, 0.04, count)
        moves[:, dimension] = -size * np.sin(2 * np.pi * (phase + lag))
    return moves


def _noise(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Noise `[N, 4, T]` with some memory, and in a few dimensions none (nothing there is measured)."""
    width = np.exp(generator.uniform(np.log(_NOISE_LOW), np.log(_NOISE_HIGH), shape[:2]))
    width *= generator.random(width.shape) > 0.1
    noise = generator.standard_normal(shape) * width[..., None]
    memory = generator.uniform(0.0, 0.8, (shape[0], 1))
    fresh = np.sqrt(1 - memory**2)
    for step in range(1, shape[2]):
        noise[..., step] = memory * noise[..., step - 1] + fresh * noise[..., step]
    return noise


def _round(states: np.ndarray, generator: np.random.Generator) -> None:
    """Round some of the states `[N, 4, T]` to a sensor's resolution, in place."""
    chosen = generator.random(len(states)) / ROUNDED * len(RESOLUTIONS)
    for number, resolution in enumerate(RESOLUTIONS):
        rows = chosen.astype(np.int64) == number
        step = resolution * STATE_MAX[:, None]
        states[rows] = (states[rows] / step).round() * step


def _drift(dissonant: np.ndarray, u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ethical drift `[N, T]`: low everywhere, above the limit for a while where dissonant."""
    count = (len(u), 1)
    drift = generator.uniform(0.0, 0.5 * DRIFT_LIMIT, count) * generator.uniform(0.7, 1.3, u.shape)
    u = u[dissonant]
    count = (len(u), 1)
    # The peak lies on a state, so that the limit is passed whatever the steps.
    centre = np.take_along_axis(u, generator.integers(0, u.shape[1], count), axis=1)
    width = generator.uniform(0.1, 0.4, count)
    peak = generator.uniform(DRIFT_LIMIT + 0.02, 0.9, count)
    drift[dissonant] = np.maximum(drift[dissonant], peak * np.exp(-(((u - centre) / width) ** 2)))
    return drift


def _check(shape_ids: np.ndarray, cadences: np.ndarray, length: int, noise: str) -> None:
    if shape_ids.ndim != 1 or (shape_ids < 0).any() or (shape_ids >= N_SHAPES).any():
        raise InputError(
            found=f"shape ids of shape {shape_ids.shape}",
            expected=f"one dimension of ids from 0 to {N_SHAPES - 1}",
            next="pass ids into vocabulary.SHAPES",
        )
    if not (np.isfinite(cadences).all() and (cadences > 0).all()):
        raise InputError(found="a cadence that is not positive", expected="seconds per step", next="pass 2.0")
    if length < 8:
        raise InputError(
            found=f"windows of {length} states",
            expected="8 or more, to hold every shape",
            next="make windows of 20 states and cut prefixes from them",
        )
    if noise not in NOISES:
        raise InputError(found=f"noise {noise!r}", expected=f"one of {', '.join(NOISES)}", next="pass one")
