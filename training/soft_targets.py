"""Targets at the tokens of an answer: the token itself, or the probabilities of all that may stand there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.expression import all_sequences, patterns_of
from eisv_lumen.vocabulary import PATTERN_ID
from training.grammar import NO_CHILD, AnswerGrammar, leaf_probabilities

NOT_LEARNED = -100
"""Label of a token that no loss is taken of."""

_PADDING, _PROMPT = -2, -1


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


def collate(rows: Sequence[Sequence[Example]], pad: int) -> dict[str, Any]:
    """A batch: prompts padded on the left, then the answers to each side by side, padded on the right.

    Every answer begins in the same column for all prompts, and reads the prompt and itself: each stands
    where it would stand alone.

    Args:
        rows: Per prompt, the examples that share it.
        pad: Token to fill up with.

    Returns:
        Tensors `input_ids`, `position_ids`, `labels` `[B, P + N·A]` of N answers of A columns; `target_ids`,
        `target_probabilities` `[B, N·A, K]` of the answers' columns; `attention_mask` `[B, P + N·A]`. Where
        a prompt has more than one answer, the mask is `[B, P + N·A, P + N·A]` (bool, who reads whom), and
        `predecessors` `[B, N·A]` says for each column of an answer where its predecessor stands, 0 for the
        prompt's last token and k + 1 for column k of the answers.
    """
    import torch

    before = max(len(row[0].prompt) for row in rows)
    beside, after = max(map(len, rows)), max(len(one.answer) for row in rows for one in row)
    ids = np.full((len(rows), before + beside * after), pad)
    labels = np.full(ids.shape, NOT_LEARNED)
    positions = np.zeros(ids.shape, np.int64)
    block = np.full(ids.shape, _PADDING)
    width = max(one.tokens.shape[1] for row in rows for one in row)
    target_ids = np.zeros((len(rows), beside * after, width), np.int64)
    probabilities = np.zeros(target_ids.shape, np.float32)
    for index, row in enumerate(rows):
        prompt = row[0].prompt
        begin, length = before - len(prompt), len(prompt)
        ids[index, begin:before], block[index, begin:before] = prompt, _PROMPT
        positions[index, begin:before] = np.arange(length)
        for number, one in enumerate(row):
            start, size = number * after, len(one.answer)
            at = slice(before + start, before + start + size)
            ids[index, at] = labels[index, at] = one.answer
            positions[index, at], block[index, at] = length + np.arange(size), number
            kinds = one.tokens.shape[1]
            target_ids[index, start : start + size, :kinds] = np.maximum(one.tokens, 0)
            probabilities[index, start : start + size, :kinds] = one.probabilities * one.weight
    columns = np.arange(beside * after)
    sharing = (
        {}
        if beside == 1
        else {
            "attention_mask": torch.from_numpy(_who_reads_whom(block)),
            "predecessors": torch.from_numpy(np.tile(columns * (columns % after > 0), (len(rows), 1))),
        }
    )
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy((block != _PADDING).astype(np.int64)),
        "position_ids": torch.from_numpy(positions),
        "labels": torch.from_numpy(labels),
        "target_ids": torch.from_numpy(target_ids),
        "target_probabilities": torch.from_numpy(probabilities),
        **sharing,
    }


def _who_reads_whom(block: np.ndarray) -> np.ndarray:
    """`[B, L, L]` bool: each token reads what stands before it in the prompt and in its own answer."""
    reads = (block[:, None] == _PROMPT) | (block[:, None] == block[:, :, None])
    reads &= (block != _PADDING)[:, None] & np.tri(block.shape[1], dtype=bool)
    # Padding reads itself: attention over nothing is not a number.
    return reads | np.eye(block.shape[1], dtype=bool)


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


def draw(cumulative: np.ndarray, first: float, count: int) -> list[int]:
    """`count` draws from `[3000]` cumulative probabilities, spread evenly over them.

    Each alone is an exact draw; together they repeat each other less than independent ones.

    Args:
        cumulative: A row of `contexts`.
        first: Uniform in [0, 1).
        count: Number of draws.
    """
    uniform = (first + np.arange(count) / count) % 1
    found = np.searchsorted(cumulative, uniform * cumulative[-1])
    return np.minimum(found, len(cumulative) - 1).tolist()
