"""Synthetic windows of every shape, at any cadence, and one canonical window per shape.

Real logs are flat most of the time and never carry ethical drift, so rare shapes are made here: a main
movement gives the window its shape, lesser ones accompany it, and each window is kept only if the rules
(`shapes.robust`) give it the label that was asked for.
"""

from dataclasses import dataclass

import numpy as np

from eisv_lumen.errors import InputError
from eisv_lumen.shapes import DRIFT_LIMIT, LEVELS, MOVED, levels, margin, robust
from eisv_lumen.vocabulary import N_SHAPES, SHAPE_ID, SHAPES, STATE_MAX
from eisv_lumen.windows import WINDOW_LENGTH, Windows, concatenate

NOISES = ("realistic", "none")

ROUNDING = 1e-3
"""Step of the sensors' quantisation; no window is kept whose label would not survive it."""

COURSES = ("ramp", "sigmoid", "approach", "bump", "swing", "wander")
"""Courses a movement can take over the window: three lead from 0 to about 1, one there and back, one
to and fro, mostly dying down, and one at random, as real logs do."""

_E, _I, _S, _V = range(4)
_BASE_LOW = np.array([0.12, 0.40, 0.0, 0.0])
_BASE_HIGH = np.array([0.90, 0.95, 0.45, 0.25])
_LESSER_MOST = np.array([0.2, 0.3, 0.2, 0.08])
"""Largest range of a movement that accompanies the main one."""
_SWING = np.array([0.06, 0.05, 0.015])
"""Least range of the swings of E, I and V in drift_dissonance."""
_NOISE_LOW = np.array([1e-4, 1e-3, 1e-4, 5e-5])
_NOISE_HIGH = np.array([4e-3, 5e-2, 3e-3, 1.5e-3])
"""Noise of each dimension; I is the roughest by far, since it follows the accuracy of predictions."""


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
        noise: "realistic" adds sensor noise, steps of uneven length and, to some windows, rounding to
            1e-3; "none" leaves the bare trajectories at even steps.

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
        proposed = _propose(shape_ids[open_], cadences[open_], length, noise == "realistic", generator)
        dissonant = shape_ids[open_] == SHAPE_ID["drift_dissonance"]
        fits = (robust(proposed) == shape_ids[open_]) & (swings_against(proposed) == dissonant)
        fits &= margin(proposed) > ROUNDING / 2
        done = open_[fits]
        states[done], times[done] = proposed.states[fits], proposed.times[fits]
        assert proposed.ethical_drift is not None
        drift[done] = proposed.ethical_drift[fits]
        open_ = open_[~fits]
    return Windows.of(states, times, ethical_drift=drift)


def swings_against(windows: Windows) -> np.ndarray:
    """`[N]` bool: E swings to and fro against both I and V, the visible side of drift_dissonance.

    Of the windows made here exactly those of drift_dissonance do so, which lets a listener tell them from
    the states alone. Sensors do not show it: load on a machine moves E against I, but V along with E.
    """
    moving = levels(windows)[..., [_E, _I, _V]]
    position = np.linspace(-1, 1, LEVELS)
    slope = np.einsum("nld,l->nd", moving, position) / (position**2).sum()
    swing = moving - moving.mean(axis=1, keepdims=True) - slope[:, None] * position[:, None]
    large = (np.ptp(swing, axis=1) >= _SWING).all(axis=1)
    turns = (np.diff(np.sign(swing[..., 0]), axis=1) != 0).sum(axis=1)
    # Correlation of E with I and with V.
    product = (swing[..., :1] * swing[..., 1:]).sum(axis=1)
    power = (swing**2).sum(axis=1)
    opposed = (product <= -0.75 * np.sqrt(power[:, :1] * power[:, 1:])).all(axis=1)
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
    ranges, courses = _movements(shape_ids, generator)
    moves = ranges[:, None] * _courses(courses, u, generator)
    dissonant = shape_ids == SHAPE_ID["drift_dissonance"]
    _swing(moves, dissonant, u, generator)
    base = generator.uniform(_BASE_LOW, _BASE_HIGH, (len(shape_ids), 4))
    low = -moves.min(axis=1)
    base = np.clip(base, low, np.maximum(STATE_MAX - moves.max(axis=1), low))
    states = base[:, None] + moves
    if noisy:
        states += _noise(states.shape, generator)
        rounded = generator.random(len(states)) < 0.3
        states[rounded] = (states[rounded] / ROUNDING).round() * ROUNDING
    drift = _drift(dissonant, u, generator)
    return Windows.of(np.clip(states, 0.0, STATE_MAX), times, ethical_drift=drift)


def _times(cadences: np.ndarray, length: int, noisy: bool, generator: np.random.Generator) -> np.ndarray:
    """`[N, T]` seconds from 0: even steps, or for most windows uneven ones, some with pauses."""
    steps = np.ones((len(cadences), length - 1))
    if noisy:
        kind = generator.random((len(cadences), 1))
        steps += (kind > 0.3) * generator.uniform(-0.15, 0.15, steps.shape)
        pause = (kind > 0.85) & (generator.random(steps.shape) < 0.08)
        steps = np.where(pause, generator.uniform(1.5, 6.0, steps.shape), steps)
        short = (kind > 0.92) & (generator.random(steps.shape) < 0.08)
        steps = np.where(short, generator.uniform(0.05, 0.4, steps.shape), steps)
    elapsed = np.cumsum(steps * cadences[:, None], axis=1)
    return np.concatenate([np.zeros((len(cadences), 1)), elapsed], axis=1)


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


def _courses(courses: np.ndarray, u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """`[N, T, 4]` course of each dimension at the positions u `[N, T]` in [0, 1]."""
    shape = (len(u), 1, 4)
    u = u[..., None]
    onset = generator.uniform(0.0, 0.5, shape) * (generator.random(shape) < 0.5)
    duration = np.where(generator.random(shape) < 0.6, 1 - onset, generator.uniform(0.3, 1.0, shape))
    curvature = np.exp(generator.uniform(-0.7, 0.9, shape))
    centre = generator.uniform(0.2, 0.8, shape)
    since = np.maximum(u - onset, 0.0)
    ramp = np.clip(since / duration, 0, 1) ** curvature
    sigmoid = 1 / (1 + np.exp(-(u - centre) / np.exp(generator.uniform(-4.0, -1.6, shape))))
    approach = 1 - np.exp(-since / np.exp(generator.uniform(-3.0, -0.7, shape)))
    before, after = np.exp(generator.uniform(-3.2, -1.4, (2, *shape)))
    bump = np.exp(
        -(np.abs((u - centre) / np.where(u < centre, before, after)) ** generator.uniform(1, 2, shape))
    )
    swing = np.cos(2 * np.pi * (generator.uniform(0.7, 3.0, shape) * u + generator.random(shape)))
    swing *= np.exp(-u / np.exp(generator.uniform(-2.3, 0.7, shape)))
    wander = np.cumsum(generator.normal(size=(*u.shape[:2], 4)), axis=1)
    wander[:, 1:] = (wander[:, 1:] + wander[:, :-1]) / 2
    wander -= wander[:, :1]
    wander /= np.ptp(wander, axis=1, keepdims=True)
    result = np.zeros(np.broadcast_shapes(u.shape, shape))
    for number, course in enumerate((ramp, sigmoid, approach, bump, swing, wander)):
        result = np.where(courses[:, None] == number, course, result)
    return result


def _swing(moves: np.ndarray, dissonant: np.ndarray, u: np.ndarray, generator: np.random.Generator) -> None:
    """Replace the movements of E, I and V where dissonant by swings of E against the others."""
    count = (int(dissonant.sum()), 1)
    phase = generator.uniform(1.5, 2.6, count) * u[dissonant] + generator.random(count)
    energy = generator.uniform(0.05, 0.14, count)
    moves[dissonant, :, _E] = energy * np.sin(2 * np.pi * phase)
    for dimension, low, high in ((_I, 0.6, 1.5), (_V, 0.2, 0.5)):
        size = energy * generator.uniform(low, high, count)
        lag = generator.uniform(-0.04, 0.04, count)
        moves[dissonant, :, dimension] = -size * np.sin(2 * np.pi * (phase + lag))


def _noise(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Noise `[N, T, 4]` with some memory, and in a few dimensions none (nothing there is measured)."""
    width = np.exp(generator.uniform(np.log(_NOISE_LOW), np.log(_NOISE_HIGH), (shape[0], 4)))
    width *= generator.random(width.shape) > 0.1
    white = generator.normal(size=shape) * width[:, None]
    memory = generator.uniform(0.0, 0.8, (shape[0], 1))
    noise = white.copy()
    for step in range(1, shape[1]):
        noise[:, step] = memory * noise[:, step - 1] + np.sqrt(1 - memory**2) * white[:, step]
    return noise


def _drift(dissonant: np.ndarray, u: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ethical drift `[N, T]`: low everywhere, above the limit for a while where dissonant."""
    count = (len(u), 1)
    low = generator.uniform(0.0, 0.5 * DRIFT_LIMIT, count) * generator.uniform(0.7, 1.3, u.shape)
    # The peak lies on a state, so that the limit is passed whatever the steps.
    centre = np.take_along_axis(u, generator.integers(0, u.shape[1], count), axis=1)
    width = generator.uniform(0.1, 0.4, count)
    peak = generator.uniform(DRIFT_LIMIT + 0.02, 0.9, count)
    return np.where(dissonant[:, None], np.maximum(low, peak * np.exp(-(((u - centre) / width) ** 2))), low)


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
