"""Exact distributions over expressions, as next-id conditionals along the grammar.

Rules, teacher and student all answer in this form, so that they can be compared, sampled and distilled
without drawing a single sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from eisv_lumen.vocabulary import EOS, N_CLASSES, N_PATTERNS, N_TOKENS, PAD, PATTERN_ID


def legal_masks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which next ids the grammar allows: first `[17]`, second `[15, 17]`, third `[15, 15, 17]` (bool).

    The third step follows a second id that is a token; after EOS or PAD only PAD follows.
    """
    first = np.arange(N_CLASSES) < N_TOKENS
    second = np.ones((N_TOKENS, N_CLASSES), bool)
    third = np.ones((N_TOKENS, N_TOKENS, N_CLASSES), bool)
    third[:, :, PAD] = False
    tokens = np.arange(N_TOKENS)
    third[tokens, :, tokens] = False
    third[:, tokens, tokens] = False
    third[tokens, tokens] = False
    third[tokens, tokens, tokens] = True
    third[tokens, tokens, EOS] = True
    return first, second, third


LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD = legal_masks()


@dataclass(frozen=True)
class ExpressionDistribution:
    """Distributions of N windows (or shapes) over the 3,000 legal expressions.

    Attributes:
        first: `[N, 17]` probability of the first id.
        second: `[N, 15, 17]` of the second id, given the first token.
        third: `[N, 15, 15, 17]` of the third id, given the first two tokens.

    Each row sums to 1 over the legal ids (see `legal_masks`) and is 0 elsewhere.
    """

    first: np.ndarray
    second: np.ndarray
    third: np.ndarray

    def __len__(self) -> int:
        """Number of distributions, N."""
        return len(self.first)

    def __getitem__(self, index: np.ndarray | slice) -> Self:
        """The chosen distributions."""
        return type(self)(self.first[index], self.second[index], self.third[index])

    def joint_two(self) -> np.ndarray:
        """`[N, 15, 17]` joint probability of the first two ids."""
        return self.first[:, :N_TOKENS, None] * self.second

    def joint(self) -> np.ndarray:
        """`[N, 15, 15, 17]` joint probability of all three ids where the second is a token."""
        return self.joint_two()[:, :, :N_TOKENS, None] * self.third

    def patterns(self) -> np.ndarray:
        """`[N, 5]` probability of each pattern."""
        two, three = self.joint_two(), self.joint()
        same = np.arange(N_TOKENS)
        out = np.zeros((len(self), N_PATTERNS))
        out[:, PATTERN_ID["SINGLE"]] = two[..., EOS].sum(axis=1)
        out[:, PATTERN_ID["QUESTION"]] = two[..., PAD].sum(axis=1)
        out[:, PATTERN_ID["REPETITION"]] = two[:, same, same].sum(axis=1)
        out[:, PATTERN_ID["PAIR"]] = three[..., EOS].sum(axis=(1, 2)) - three[:, same, same, EOS].sum(axis=1)
        out[:, PATTERN_ID["TRIPLE"]] = three[..., :N_TOKENS].sum(axis=(1, 2, 3)) - three[
            :, same, same, same
        ].sum(axis=1)
        return out

    def token_counts(self) -> np.ndarray:
        """`[N, 15]` expected number of times that each token is said."""
        two, three = self.joint_two()[..., :N_TOKENS], self.joint()[..., :N_TOKENS]
        return self.first[:, :N_TOKENS] + two.sum(axis=1) + three.sum(axis=(1, 2))

    def tokens(self) -> np.ndarray:
        """`[N, 15]` expected share of each token among the tokens said."""
        counts = self.token_counts()
        return counts / counts.sum(axis=1, keepdims=True)

    def coherence(self, affine: np.ndarray) -> np.ndarray:
        """`[N]` expected coherence: mean share of an expression's tokens that are affine.

        Args:
            affine: `[N, 15]` bool, or `[N, 15]` probability that a token is affine.
        """
        affine = np.asarray(affine, np.float64)
        two, three = self.joint_two(), self.joint()
        one = affine[:, :, None]
        pair = (one + affine[:, None, :]) / 2
        triple = (one[..., None] + affine[:, None, :, None] + affine[:, None, None, :]) / 3
        return (
            (two[..., [PAD, EOS]] * one).sum(axis=(1, 2))
            + (three[..., EOS] * pair).sum(axis=(1, 2))
            + (three[..., :N_TOKENS] * triple).sum(axis=(1, 2, 3))
        )

    def sample(self, generator: np.random.Generator) -> np.ndarray:
        """`[N, 3]` ids, one draw per distribution."""

        def one_draw(p: np.ndarray) -> np.ndarray:
            cumulative = p.cumsum(axis=1, dtype=np.float64)
            return cumulative > generator.random((len(p), 1)) * cumulative[:, -1:]

        return self._decode(one_draw)

    def greedy(self) -> np.ndarray:
        """`[N, 3]` ids, the likeliest next id at each step."""
        return self._decode(lambda p: p)

    def probability(self, ids: np.ndarray) -> np.ndarray:
        """`[N]` probability of the id sequences `[N, 3]`, whose first id is a token; 0 for illegal ones."""
        rows = np.arange(len(ids))
        one, two, three = ids.T
        ended = two >= N_TOKENS
        last = self.third[rows, one, np.where(ended, 0, two), three]
        return self.first[rows, one] * self.second[rows, one, two] * np.where(ended, three == PAD, last)

    def _decode(self, scores: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        rows = np.arange(len(self))
        one = scores(self.first).argmax(axis=1)
        two = scores(self.second[rows, one]).argmax(axis=1)
        ended = two >= N_TOKENS
        three = scores(self.third[rows, one, np.where(ended, 0, two)]).argmax(axis=1)
        return np.stack([one, two, np.where(ended, PAD, three)], axis=1)
