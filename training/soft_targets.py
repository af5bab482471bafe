"""Targets at the tokens of an answer: the token itself, or the probabilities of all that may stand there."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.expression import all_sequences, patterns_of
from eisv_lumen.vocabulary import PATTERN_ID
from training.grammar import NO_CHILD, AnswerGrammar, leaf_probabilities

NOT_LEARNED = -100
"""Label of a token that no loss is taken of."""


@dataclass(frozen=True)
class SoftTargets:
    """Next-token probabilities along the grammar, per shape.

    Attributes:
        tokens: `[M, K]` tokens that may follow each node of the trie, -1 where there are fewer.
        probabilities: `[9, M, K]` how likely each is under the target, per shape.
    """

    tokens: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, grammar: AnswerGrammar, target: ExpressionDistribution) -> "SoftTargets":
        """The targets of a distribution with one row per shape."""
        trie = grammar.trie
        mass = trie.masses(leaf_probabilities(target))
        there = trie.children != NO_CHILD
        below = np.where(there, mass[:, trie.children], 0.0)
        total = below.sum(axis=2, keepdims=True)
        return cls(
            np.where(there, trie.token[trie.children], NO_CHILD),
            np.divide(below, total, out=np.zeros_like(below), where=total > 0),
        )


@dataclass(frozen=True)
class Example:
    """One prompt and its answer, with the target at each token of the answer.

    Attributes:
        prompt: Token ids of the prompt.
        answer: `[A]` token ids of the answer, end token included.
        tokens: `[A, K]` tokens that the target gives probability to, -1 where there are fewer.
        probabilities: `[A, K]` their probabilities.
        weight: How much the example counts.
    """

    prompt: list[int]
    answer: list[int]
    tokens: np.ndarray
    probabilities: np.ndarray
    weight: float = 1.0

    @classmethod
    def of(
        cls,
        prompt: list[int],
        grammar: AnswerGrammar,
        drawn: int,
        soft: SoftTargets | None = None,
        shape: int = 0,
        weight: float = 1.0,
    ) -> "Example":
        """An example whose answer is number `drawn` of `all_sequences()`.

        Args:
            prompt: Token ids of the prompt.
            grammar: The grammar of the prompt's form.
            drawn: Index of the expression.
            soft: Probabilities for the tokens of the expression; None for the answer alone.
            shape: Row of `soft`.
            weight: How much the example counts.
        """
        answer = grammar.answers[drawn]
        tokens = np.full((len(answer), 1 if soft is None else soft.tokens.shape[1]), NO_CHILD)
        probabilities = np.zeros(tokens.shape)
        tokens[:, 0], probabilities[:, 0] = answer, 1.0
        if soft is not None:
            path = grammar.trie.path(int(grammar.trie.leaf[drawn]))
            before = [0, *path[:-1]]
            tokens[: len(path)] = soft.tokens[before]
            probabilities[: len(path)] = soft.probabilities[shape, before]
        return cls(prompt, answer, tokens, probabilities, weight)


def collate(rows: list[Example], pad: int) -> dict[str, Any]:
    """A batch: prompts padded on the left and answers on the right, so that answers begin in one column.

    Returns:
        Tensors `input_ids`, `attention_mask`, `position_ids`, `labels` `[B, P + A]`, and `target_ids`,
        `target_probabilities` `[B, A, K]` of the answers' columns.
    """
    import torch

    before, after = max(len(row.prompt) for row in rows), max(len(row.answer) for row in rows)
    ids = np.full((len(rows), before + after), pad)
    labels = np.full(ids.shape, NOT_LEARNED)
    mask = np.zeros(ids.shape, np.int64)
    width = max(row.tokens.shape[1] for row in rows)
    target_ids = np.zeros((len(rows), after, width), np.int64)
    probabilities = np.zeros(target_ids.shape, np.float32)
    for index, row in enumerate(rows):
        begin, end = before - len(row.prompt), before + len(row.answer)
        ids[index, begin:end] = row.prompt + row.answer
        labels[index, before:end] = row.answer
        mask[index, begin:end] = 1
        target_ids[index, : len(row.answer), : row.tokens.shape[1]] = np.maximum(row.tokens, 0)
        probabilities[index, : len(row.answer), : row.tokens.shape[1]] = row.probabilities * row.weight
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "position_ids": torch.from_numpy(np.maximum(mask.cumsum(axis=1) - 1, 0)),
        "labels": torch.from_numpy(labels),
        "target_ids": torch.from_numpy(target_ids),
        "target_probabilities": torch.from_numpy(probabilities),
    }


def contexts(target: ExpressionDistribution, long_share: float) -> np.ndarray:
    """`[S, 3000]` cumulative probabilities to draw the answers of soft targets from.

    Soft targets are exact whichever answer is drawn: it only chooses the contexts in which they are taught.
    What comes after two tokens is seldom met and hardest to keep legal, so a share of the answers is drawn
    from the target's TRIPLE and REPETITION alone.

    Args:
        target: One row per shape.
        long_share: That share.
    """
    probabilities = leaf_probabilities(target)
    patterns = patterns_of(all_sequences())
    long = np.isin(patterns, [PATTERN_ID["TRIPLE"], PATTERN_ID["REPETITION"]])
    among_long = probabilities * long / (probabilities * long).sum(axis=1, keepdims=True)
    return ((1 - long_share) * probabilities + long_share * among_long).cumsum(axis=1)
