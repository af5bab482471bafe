"""The temperature that makes the shape posterior mean what it says."""

import numpy as np
import torch

from eisv_lumen.windows import Windows
from training.student.batches import inputs_of
from training.student.modeling_eisv_lumen import TrajectoryTransformer

_LOWEST, _HIGHEST = 0.2, 5.0
_ROUNDS = 60


def shape_logits(model: TrajectoryTransformer, windows: Windows, *, at_once: int = 256) -> np.ndarray:
    """`[N, 9]` uncalibrated logits."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model.encode(**inputs_of(windows[start : start + at_once])).shape_logits.numpy()
            for start in range(0, len(windows), at_once)
        ]
    return np.concatenate(parts).astype(np.float64)


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
