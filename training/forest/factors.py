"""An expression's distribution in 51 numbers, and a window's label in 60.

The rules choose a pattern first and then draw tokens without replacement, and the teacher learned from them.
So a distribution over 3,000 expressions is, up to what the teacher adds of its own, one over six forms and
one over the tokens for each of the three positions, from which the tokens said already are left out. Means of
such numbers are such numbers again, which is what lets the leaves of a tree hold them.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.vocabulary import EOS, MAX_TOKENS, N_CLASSES, N_SHAPES, N_TOKENS, PAD, PATTERNS

FORMS = ("SINGLE", "PAIR", "TRIPLE", "TWICE", "THRICE", "QUESTION")
"""The patterns, with REPETITION by the number of times that the token is said."""
N_FORMS = len(FORMS)
N_FACTORS = N_SHAPES + N_FORMS + MAX_TOKENS * N_TOKENS

PATTERN_OF_FORM = np.array(
    [[p == ("REPETITION" if f in ("TWICE", "THRICE") else f) for p in PATTERNS] for f in FORMS], np.float64
)
"""`[6, 5]` which pattern each form is of."""

_WIDTHS = (N_SHAPES, N_FORMS, *(N_TOKENS,) * MAX_TOKENS)
_BLOCK = np.repeat(np.arange(len(_WIDTHS)), _WIDTHS)
BLOCKS = (_BLOCK[:, None] == _BLOCK).astype(np.float64)
"""`[60, 60]` which factors belong to one distribution: `factors @ BLOCKS` are the sums to divide by."""

SMALLEST = 1e-4
"""Share of the uniform distribution mixed into each label: nothing is impossible, nothing divides by 0."""

_AT_ONCE = 256


@dataclass(frozen=True)
class Factors:
    """What N windows are, and are answered with.

    Attributes:
        shapes: `[N, 9]` probability of each shape.
        forms: `[N, 6]` probability of each of `FORMS`.
        tokens: `[N, 3, 15]` per position the probability of each token, before those said are left out.
    """

    shapes: np.ndarray
    forms: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of_labels(cls, shapes: np.ndarray, distribution: ExpressionDistribution) -> Self:
        """The labels of N windows: their shapes `[N]`, and the teacher's distributions."""
        parts = [
            _forms_and_tokens(distribution[start : start + _AT_ONCE])
            for start in range(0, len(shapes), _AT_ONCE)
        ]
        forms, tokens = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(np.eye(N_SHAPES)[shapes], forms, tokens)

    @classmethod
    def of_array(cls, array: np.ndarray) -> Self:
        """From `[N, 60]`, the inverse of `to_array`."""
        shapes, forms, tokens = np.split(array, [N_SHAPES, N_SHAPES + N_FORMS], axis=1)
        return cls(shapes, forms, tokens.reshape(-1, MAX_TOKENS, N_TOKENS))

    def to_array(self) -> np.ndarray:
        """`[N, 60]` shapes, forms, tokens."""
        return np.concatenate([self.shapes, self.forms, self.tokens.reshape(len(self.tokens), -1)], axis=1)

    @property
    def patterns(self) -> np.ndarray:
        """`[N, 5]` probability of each pattern."""
        return self.forms @ PATTERN_OF_FORM

    def distribution(self) -> ExpressionDistribution:
        """The distribution over expressions that they stand for."""
        single, pair, triple, twice, thrice, question = self.forms.T
        first, second, third = self.tokens.transpose(1, 0, 2)
        same, count = np.arange(N_TOKENS), len(first)
        ones = np.zeros((count, N_CLASSES))
        ones[:, :N_TOKENS] = first
        twos = np.zeros((count, N_TOKENS, N_CLASSES))
        twos[..., :N_TOKENS] = (
            _others(second[:, None] * (1 - np.eye(N_TOKENS))) * (pair + triple)[:, None, None]
        )
        twos[:, same, same] = (twice + thrice)[:, None]
        twos[..., EOS], twos[..., PAD] = single[:, None], question[:, None]
        threes = np.zeros((count, N_TOKENS, N_TOKENS, N_CLASSES))
        more = (triple / (pair + triple))[:, None, None, None]
        threes[..., :N_TOKENS] = more * _others(third[:, None, None] * _different())
        threes[..., EOS] = 1 - more[..., 0]
        threes[:, same, same] = 0.0
        threes[:, same, same, same] = (thrice / (twice + thrice))[:, None]
        threes[:, same, same, EOS] = (twice / (twice + thrice))[:, None]
        return ExpressionDistribution(ones, twos, threes)


def _forms_and_tokens(distribution: ExpressionDistribution) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 6]` and `[N, 3, 15]` of exact distributions, smoothed."""
    two, three = distribution.joint_two(), distribution.joint()
    same = np.arange(N_TOKENS)
    twice, thrice = three[:, same, same, EOS].sum(axis=1), three[:, same, same, same].sum(axis=1)
    pair = three[..., EOS].sum(axis=(1, 2)) - twice
    triple = three[..., :N_TOKENS].sum(axis=(1, 2, 3)) - thrice
    single, question = two[..., EOS].sum(axis=1), two[..., PAD].sum(axis=1)
    first = distribution.first[:, :N_TOKENS].astype(np.float64)
    second = _second(first, distribution.second[..., :N_TOKENS])
    apart = two[..., :N_TOKENS] * (1 - np.eye(N_TOKENS))
    third = _third(second, apart, distribution.third[..., :N_TOKENS])
    forms = np.stack([single, pair, triple, twice, thrice, question], axis=1)
    return _smoothed(forms), _smoothed(np.stack([first, second, third], axis=1))


def _second(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`[N, 15]` weights that give the second token when the first is left out.

    Drawn without replacement, b follows a with probability w(b) / (1 − w(a)): each context says what w(b)
    is, and counts as often as it occurs.
    """
    shares = _others(second * (1 - np.eye(N_TOKENS)))
    left = (1 - first)[:, :, None]
    return (first[:, :, None] * left * shares).sum(axis=1) / np.maximum(1 - first, SMALLEST)


def _third(second: np.ndarray, apart: np.ndarray, third: np.ndarray) -> np.ndarray:
    """`[N, 15]` the same for the third token, whose contexts are two different tokens `[N, 15, 15]`."""
    shares = _others(third * _different())
    left = 1 - second[:, :, None] - second[:, None, :]
    total = np.einsum("nab,nab,nabc->nc", apart, left, shares)
    without = apart.sum(axis=(1, 2))[:, None] - apart.sum(axis=2) - apart.sum(axis=1)
    return total / np.maximum(without, SMALLEST**2)


def _different() -> np.ndarray:
    """`[15, 15, 15]` 1 where a third token differs from both before it."""
    apart = 1 - np.eye(N_TOKENS)
    return apart[:, None, :] * apart[None, :, :]


def _others(weights: np.ndarray) -> np.ndarray:
    """Weights over the last axis that sum to 1; all 0 where they were."""
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-12)


def _smoothed(weights: np.ndarray) -> np.ndarray:
    weights = np.maximum(weights, 0.0)
    return (1 - SMALLEST) * _others(weights) + SMALLEST / weights.shape[-1]
