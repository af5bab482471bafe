"""Golden windows: recorded outputs that a device replays before it trusts a downloaded model."""

from typing import Any

import numpy as np

from eisv_lumen.student import GOLDEN_TOLERANCE, BatchResult, TrajectoryModel
from eisv_lumen.vocabulary import N_SHAPES
from eisv_lumen.windows import MIN_STATES, Windows
from training.student.augmentation import cut

_LENGTHS = (20, 12, 16, 8)
_WANTED = 16
_CANDIDATES = 40
_DECIMALS = 6
_RECORDED = ("shape_probs", "pattern_probs", "token_ids", "token_probs", "lumen_ids", "confidence")


def record(
    models: dict[str, TrajectoryModel], windows: Windows, shapes: np.ndarray, seed: int
) -> dict[str, Any]:
    """The content of `golden.json`: about 16 windows of every shape present, at several lengths.

    Windows are recorded as the graph takes them (`times` in seconds before the last state) and without noise.

    Of the windows that would do, those are taken whose expression is decided by the widest margin, so that
    another processor's rounding does not change it.

    Args:
        models: By precision.
        windows: Windows to choose from, e.g. the test split.
        shapes: `[N]` their shapes.
        seed: Of the choice of candidates.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for number in range(_WANTED):
        of_shape = np.flatnonzero(shapes == number % N_SHAPES)
        if not len(of_shape):
            continue
        candidates = generator.choice(of_shape, min(_CANDIDATES, len(of_shape)), replace=False)
        length = _LENGTHS[(number // N_SHAPES + number) % len(_LENGTHS)]
        chosen.append(_most_decided(models["int8"], cut(windows[candidates], 0, max(length, MIN_STATES))))
    return {
        "schema_version": 1,
        "tolerance": GOLDEN_TOLERANCE,
        "windows": [_recorded(models, window) for window in chosen],
    }


def _most_decided(model: TrajectoryModel, windows: Windows) -> Windows:
    result = model.infer_batch(windows, batch_size=1)
    ordered = np.sort(result.token_probs, axis=2)
    margins = (ordered[..., -1] - ordered[..., -2]).min(axis=1)
    return windows[int(margins.argmax())]


def _recorded(models: dict[str, TrajectoryModel], window: Windows) -> dict[str, Any]:
    present = window.mask[0]
    # Rounded first: what is recorded is what the rounded numbers give.
    states = window.states[0][present].round(_DECIMALS)
    times = window.seconds_before_last()[0][present].round(3)
    results = {name: model.infer_batch(Windows.of(states, -times)) for name, model in models.items()}
    return {
        "states": states.tolist(),
        "times": times.tolist(),
        "mask": [True] * len(times),
        **{name: _plain(result) for name, result in results.items()},
    }


def _plain(result: BatchResult) -> dict[str, Any]:
    values = {name: getattr(result, name)[0] for name in _RECORDED}
    return {
        name: value.tolist()
        if np.issubdtype(value.dtype, np.integer)
        else np.round(value.astype(float), 6).tolist()
        for name, value in values.items()
    }
