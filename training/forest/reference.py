"""A fitted forest in scikit-learn and numpy, called as the torch model is: what its graph is held to."""

import numpy as np
import torch
from torch import Tensor

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.expression import lumen_ids
from eisv_lumen.vocabulary import AFFINITY, N_CLASSES, N_TOKENS, PAD
from eisv_lumen.windows import Windows
from training.forest.decoding import pieces
from training.forest.fitting import Forest, features


class Reference:
    """Answers with tensors as `TrajectoryTransformer` does, so that the same measures read both."""

    def __init__(self, forest: Forest) -> None:
        self.forest = forest

    def __call__(self, states: Tensor, times: Tensor, mask: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The graph's outputs for its inputs; see `TrajectoryOutput` for what they are."""
        windows = _windows(states, times, mask)
        factors = self.forest.factors(windows)
        ids, probs = decode(factors.distribution(), noise.numpy())
        affine = np.pad(AFFINITY, [(0, 0), (0, N_CLASSES - N_TOKENS)])
        above, below = pieces()
        labels = self.forest.labels(features(windows))
        fitting = np.take_along_axis(factors.shapes @ affine, ids, axis=1).sum(axis=1)
        answer = {
            "shape_probs": factors.shapes,
            "pattern_probs": factors.patterns,
            "token_ids": ids,
            "token_probs": probs,
            "lumen_ids": lumen_ids(ids),
            "confidence": fitting / (ids < N_TOKENS).sum(axis=1),
            "embedding": (labels @ above) / (labels @ below),
        }
        return {name: torch.from_numpy(_as_graph(values)) for name, values in answer.items()}

    def conditionals(self, states: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First `[B, 17]`, second `[B, 15, 17]` and third `[B, 15, 15, 17]` ids' exact distributions."""
        found = self.forest.factors(_windows(states, times, mask)).distribution()
        first, second, third = (_as_graph(part) for part in (found.first, found.second, found.third))
        return torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(third)


def decode(distribution: ExpressionDistribution, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids `[N, 3]` of the largest sums of log-probability and noise, and the probabilities `[N, 3, 17]`.

    Args:
        distribution: N exact distributions.
        noise: `[N, 3, 17]`.
    """
    rows = np.arange(len(distribution))
    with np.errstate(divide="ignore"):
        one = (np.log(distribution.first) + noise[:, 0]).argmax(axis=1)
        second = distribution.second[rows, one]
        two = (np.log(second) + noise[:, 1]).argmax(axis=1)
        over = two >= N_TOKENS
        third = distribution.third[rows, one, np.where(over, 0, two)]
        third = np.where(over[:, None], np.eye(N_CLASSES)[PAD], third)
        three = (np.log(third) + noise[:, 2]).argmax(axis=1)
    return np.stack([one, two, three], axis=1), np.stack([distribution.first, second, third], axis=1)


def _windows(states: Tensor, times: Tensor, mask: Tensor) -> Windows:
    return Windows(states.double().numpy(), -times.double().numpy(), mask.numpy())


def _as_graph(values: np.ndarray) -> np.ndarray:
    return values if np.issubdtype(values.dtype, np.integer) else values.astype(np.float32)
