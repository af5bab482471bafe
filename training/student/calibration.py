"""Temperatures: of the shape posterior, so that it means what it says, and of the voice."""

import numpy as np
import torch

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.metrics import js_divergence, token_entropy
from eisv_lumen.windows import MIN_STATES, WINDOW_LENGTH, Windows, concatenate
from training.student.batches import inputs_of
from training.student.modeling_eisv_lumen import TrajectoryTransformer

_LOWEST, _HIGHEST = 0.2, 5.0
_ROUNDS = 60
_KEPT_ENTROPY, _MOST_DIVERGENCE = 0.96, 0.015
"""A voice keeps so much of the teacher's entropy and stays so near to it, in bits (targets: 0.95, 0.02)."""
_COLDEST, _STEP = 0.7, 0.01


def shape_logits(model: TrajectoryTransformer, windows: Windows, *, at_once: int = 256) -> np.ndarray:
    """`[N, 9]` uncalibrated logits."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model.encode(**inputs_of(windows[start : start + at_once])).shape_logits.numpy()
            for start in range(0, len(windows), at_once)
        ]
    return np.concatenate(parts).astype(np.float64)


def complete_and_cut(windows: Windows, shapes: np.ndarray, seed: int) -> tuple[Windows, np.ndarray]:
    """The windows, and each of them cut short after 4 to 19 states, with the shapes of all.

    A device hears both. Where complete windows are nearly always heard right, they alone would call for a
    posterior so sharp that it is sure of windows that have hardly begun.
    """
    lengths = np.random.default_rng(seed).integers(MIN_STATES, WINDOW_LENGTH, len(windows))
    present = np.cumsum(windows.mask, axis=1) <= lengths[:, None]
    short = Windows(windows.states, windows.times, windows.mask & present, windows.ethical_drift)
    return concatenate([windows, short]), np.concatenate([shapes, shapes])


def fit_temperature(logits: np.ndarray, shapes: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood (Guo et al. 2017, section 4.2).

    The likelihood has one maximum over the inverse temperature, which is found by ternary search.

    Args:
        logits: `[N, 9]` on windows that the model was not trained on.
        shapes: `[N]` their true shapes.
    """
    low, high = 1.0 / _HIGHEST, 1.0 / _LOWEST
    for _ in range(_ROUNDS):
        third = (high - low) / 3
        if negative_log_likelihood(logits * (low + third), shapes) < negative_log_likelihood(
            logits * (high - third), shapes
        ):
            high -= third
        else:
            low += third
    return 2.0 / (low + high)


def negative_log_likelihood(logits: np.ndarray, shapes: np.ndarray) -> float:
    """Mean over windows, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_probs[np.arange(len(shapes)), shapes].mean())


def fit_voice(student: ExpressionDistribution, teacher: ExpressionDistribution) -> float:
    """The lowest temperature at which the student's voice is still as varied as the teacher's.

    A small network leaves a little probability on everything; a lower temperature takes it away from what is
    unlikely first, which is what is incoherent. At most 1.

    Args:
        student: `[N]` distributions at temperature 1, on windows that it was not trained on.
        teacher: `[N]` distributions of the same windows.
    """
    wanted, lowest = token_entropy(teacher.tokens()).mean(), 1.0
    for temperature in np.arange(1.0 - _STEP, _COLDEST - _STEP / 2, -_STEP):
        voice = tempered(student, float(temperature))
        divergence = max(
            js_divergence(voice.tokens(), teacher.tokens()).mean(),
            js_divergence(voice.patterns(), teacher.patterns()).mean(),
        )
        if token_entropy(voice.tokens()).mean() < _KEPT_ENTROPY * wanted or divergence > _MOST_DIVERGENCE:
            break
        lowest = float(temperature)
    return lowest


def tempered(distribution: ExpressionDistribution, temperature: float) -> ExpressionDistribution:
    """What a voice says whose logits are divided by a temperature."""
    parts = (distribution.first, distribution.second, distribution.third)
    return ExpressionDistribution(*(_tempered(part.astype(np.float64), temperature) for part in parts))


def _tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    powers = probabilities ** (1.0 / temperature)
    return powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def set_voice(model: TrajectoryTransformer, temperature: float) -> None:
    """Divide the logits of the ids by a temperature, once and for all."""
    with torch.no_grad():
        for parameter in model.token_head.parameters():
            parameter.div_(temperature)
