"""Expressions: one to three tokens in one of five patterns, as objects, text, and ids.

As ids `[3]` an expression carries its pattern, so that a decoder which emits three ids says all there is:

    SINGLE      [a, EOS, PAD]      PAIR        [a, b, EOS]     with b != a
    QUESTION    [a, PAD, PAD]      TRIPLE      [a, b, c]       all different
    REPETITION  [a, a, EOS] or [a, a, a]
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from eisv_lumen.errors import ExpressionError
from eisv_lumen.vocabulary import (
    EOS,
    LUMEN_WORDS,
    MAX_TOKENS,
    N_CLASSES,
    N_TOKENS,
    PAD,
    PATTERN_ID,
    PATTERNS,
    TOKEN_ID,
    TOKENS,
    TRANSLATION,
    WORD_ID,
)

_WRITTEN = re.compile(r"~([a-z_]+)~(\?)?")
_QUESTION_MARKERS = ("questioning", "curiosity")
_Written = TypeVar("_Written")


@dataclass(frozen=True)
class Expression:
    """What Lumen says: tokens and their pattern, checked against each other on construction.

    Attributes:
        tokens: One to three names from `TOKENS`, without tildes.
        pattern: One of `PATTERNS`.
    """

    tokens: tuple[str, ...]
    pattern: str

    def __post_init__(self) -> None:
        """Refuse tokens that are unknown or do not form the pattern."""
        unknown = [token for token in self.tokens if token not in TOKEN_ID]
        if unknown:
            raise _no_expression(f"unknown token {unknown[0]!r}", "one of " + " ".join(TOKENS))
        if self.pattern not in PATTERN_ID:
            raise _no_expression(f"unknown pattern {self.pattern!r}", "one of " + " ".join(PATTERNS))
        if not _fits(self.tokens, self.pattern):
            raise _no_expression(
                f"{self.pattern} of {' '.join(self.tokens) or 'no tokens'}",
                "SINGLE and QUESTION of one token, PAIR of two and TRIPLE of three different ones, "
                "REPETITION of one token two or three times",
            )

    def __str__(self) -> str:
        """The canonical text, e.g. `~stillness~ ~holding~` or `~threshold~?`."""
        return " ".join(f"~{token}~" for token in self.tokens) + ("?" if self.pattern == "QUESTION" else "")

    @property
    def lumen_words(self) -> tuple[str, ...]:
        """The expression in Lumen's own words: per token the first of its two not used yet."""
        words: list[str] = []
        for token in self.tokens:
            words += [word for word in TRANSLATION[token] if word not in words][:1]
        return tuple(words)

    @property
    def ids(self) -> np.ndarray:
        """`[3]` int64 ids as described at the top of this module."""
        return np.array(_id_list(self), dtype=np.int64)

    @classmethod
    def from_ids(cls, ids: Sequence[int] | np.ndarray) -> "Expression":
        """The expression of an id sequence `[3]`.

        Raises:
            ExpressionError: When the ids break the grammar.
        """
        sequence = [int(i) for i in ids]
        if len(sequence) != MAX_TOKENS or not all(0 <= i < N_CLASSES for i in sequence):
            raise _no_expression(f"ids {sequence}", f"three ids in 0..{N_CLASSES - 1}")
        expression = cls(tuple(TOKENS[i] for i in sequence if i < N_TOKENS), _pattern_said(*sequence))
        if _id_list(expression) != sequence:
            raise _no_expression(f"ids {sequence}", f"{_id_list(expression)} for {expression}")
        return expression


def encode(expressions: Sequence[Expression]) -> np.ndarray:
    """`[N, 3]` int64 ids of N expressions."""
    return np.stack([e.ids for e in expressions]) if expressions else np.zeros((0, MAX_TOKENS), np.int64)


def decode(ids: np.ndarray) -> list[Expression]:
    """The expressions of ids `[N, 3]`; equal ids give the same object.

    Raises:
        ExpressionError: When a row of ids breaks the grammar.
    """
    return written(ids, lambda expression: expression)


def written(ids: np.ndarray, write: Callable[[Expression], _Written]) -> list[_Written]:
    """What `write` makes of the expression of each of the ids `[N, 3]`, called once per different one.

    There are but 3,000 expressions, so many rows cost hardly more than the different ones among them.
    Equal ids share what was written: it is not to be changed in place.

    Raises:
        ExpressionError: When a row of ids breaks the grammar.
    """
    rows = np.asarray(ids)
    if not len(rows):
        return []
    if rows.shape[1:] != (MAX_TOKENS,):
        raise _no_expression(f"ids of shape {rows.shape}", f"ids [N, {MAX_TOKENS}]")
    odd = ~((rows >= 0) & (rows < N_CLASSES)).all(axis=1)
    if odd.any():
        raise _no_expression(f"ids {rows[odd.argmax()].tolist()}", f"three ids in 0..{N_CLASSES - 1}")
    codes = rows.astype(np.int64) @ [N_CLASSES**2, N_CLASSES, 1]
    different, which = np.unique(codes, return_inverse=True)
    texts = [write(_expression_of(code)) for code in different.tolist()]
    return [texts[number] for number in which.tolist()]


@lru_cache(maxsize=N_CLASSES**MAX_TOKENS)
def _expression_of(code: int) -> Expression:
    """The expression of three ids written as one number, in base `N_CLASSES`."""
    first, rest = divmod(code, N_CLASSES**2)
    return Expression.from_ids([first, *divmod(rest, N_CLASSES)])


def patterns_of(ids: np.ndarray) -> np.ndarray:
    """`[N]` pattern ids of legal id sequences `[N, 3]`."""
    first, second, third = ids[:, 0], ids[:, 1], ids[:, 2]
    return np.select(
        [second == EOS, second == PAD, second == first, third == EOS],
        [PATTERN_ID[p] for p in ("SINGLE", "QUESTION", "REPETITION", "PAIR")],
        default=PATTERN_ID["TRIPLE"],
    )


def is_legal(ids: np.ndarray) -> np.ndarray:
    """`[N]` bool: does each id sequence `[N, 3]` say an expression."""
    known = np.all((ids >= 0) & (ids < N_CLASSES), axis=1)
    return known & (lumen_ids(np.where(known[:, None], ids, PAD))[:, 0] >= 0)


def lumen_ids(ids: np.ndarray) -> np.ndarray:
    """`[N, 3]` ids into `LUMEN_WORDS` of the translated id sequences `[N, 3]`, -1 where there is no word."""
    table = _translation_table()
    return table[ids[:, 0], ids[:, 1], ids[:, 2]]


def parse(text: str) -> Expression:
    """Read an expression: the canonical form, or the published one.

    Published rows write QUESTION as a token followed by `~questioning~` or `~curiosity~`; as plain text
    that is indistinguishable from a PAIR and read as one. Use `from_published` where the pattern is known.

    Raises:
        ExpressionError: When the text is not one to three written tokens.
    """
    found = _WRITTEN.findall(text)
    rest = _WRITTEN.sub("", text).replace(",", "").strip()
    if not found or rest:
        raise _no_expression(
            f"{text!r}", "one to three tokens written like ~stillness~ ~holding~ or ~threshold~?"
        )
    tokens = tuple(token for token, _ in found)
    marks = [bool(mark) for _, mark in found]
    if any(marks[:-1]) or (marks[-1] and len(tokens) > 1):
        raise _no_expression(f"{text!r}", "a question mark after a single token")
    return Expression(tokens, "QUESTION" if marks[-1] else pattern_of(tokens))


def from_published(tokens: Sequence[str], pattern: str | None = None) -> Expression:
    """Read tokens as the published rows and databases hold them, into the canonical form.

    Args:
        tokens: Names with or without tildes.
        pattern: The recorded pattern, or None where none was recorded: then two tokens that end in
            `questioning` or `curiosity` are a QUESTION, which is likelier than that PAIR for every shape.
    """
    names = tuple(token.strip().strip("~") for token in tokens)
    marked = (
        pattern not in PATTERN_ID and len(set(names)) == len(names) == 2 and names[1] in _QUESTION_MARKERS
    )
    if pattern == "QUESTION" or marked:
        return Expression(names[:1], "QUESTION")
    return Expression(names, pattern_of(names))


def to_published(expression: Expression, marker: str = _QUESTION_MARKERS[0]) -> list[str]:
    """Write an expression as published rows do: QUESTION as a pair with `marker`, REPETITION twice."""
    tokens = list(expression.tokens)
    if expression.pattern == "QUESTION":
        marker = marker if marker != tokens[0] else _QUESTION_MARKERS[tokens[0] == _QUESTION_MARKERS[0]]
        tokens = [tokens[0], marker]
    elif expression.pattern == "REPETITION":
        tokens = tokens[:2]
    return [f"~{token}~" for token in tokens]


def pattern_of(tokens: Sequence[str]) -> str:
    """The pattern that tokens without a question mark form."""
    if len(tokens) > 1 and len(set(tokens)) == 1:
        return "REPETITION"
    return {1: "SINGLE", 2: "PAIR"}.get(len(tokens), "TRIPLE")


def render_answer(expression: Expression) -> str:
    """The three-line answer that a teacher is trained to give."""
    return (
        f"EISV_TOKENS: {expression}\n"
        f"LUMEN_TOKENS: {' '.join(expression.lumen_words)}\n"
        f"PATTERN: {expression.pattern}"
    )


def render_answers(ids: np.ndarray) -> list[str]:
    """The three-line answers of ids `[N, 3]`, each different one rendered once.

    Raises:
        ExpressionError: When a row of ids breaks the grammar.
    """
    return written(ids, render_answer)


@dataclass(frozen=True)
class Answer:
    """A parsed teacher answer: the expression, and the Lumen words given beside it."""

    expression: Expression
    lumen_words: tuple[str, ...]


def parse_answer(text: str) -> Answer:
    """Read the three-line answer back; the short prompt's answer is a bare expression.

    Raises:
        ExpressionError: When a line is missing, a word is unknown, or pattern and tokens disagree.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if len(lines) == 1 and lines[0].startswith("~"):
        expression = parse(lines[0])
        return Answer(expression, expression.lumen_words)
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    if len(lines) != 3 or list(fields) != ["EISV_TOKENS", "LUMEN_TOKENS", "PATTERN"]:
        raise _no_expression(f"{text!r}", "the three lines EISV_TOKENS, LUMEN_TOKENS and PATTERN")
    expression = parse(fields["EISV_TOKENS"])
    words = tuple(fields["LUMEN_TOKENS"].split())
    if len(words) > MAX_TOKENS or any(word not in WORD_ID for word in words):
        raise _no_expression(
            f"Lumen words {' '.join(words)!r}", "at most three words from " + " ".join(LUMEN_WORDS)
        )
    if fields["PATTERN"] != expression.pattern:
        raise _no_expression(f"pattern {fields['PATTERN']} for {expression}", expression.pattern)
    return Answer(expression, words)


def _fits(tokens: tuple[str, ...], pattern: str) -> bool:
    if pattern == "QUESTION":
        return len(tokens) == 1
    if not 1 <= len(tokens) <= MAX_TOKENS:
        return False
    return pattern_of(tokens) == pattern and len(set(tokens)) in (1, len(tokens))


def _id_list(expression: Expression) -> list[int]:
    """Three ids as described at the top of this module."""
    ids = [TOKEN_ID[token] for token in expression.tokens]
    if expression.pattern != "QUESTION" and len(ids) < MAX_TOKENS:
        ids.append(EOS)
    return ids + [PAD] * (MAX_TOKENS - len(ids))


def _pattern_said(first: int, second: int, third: int) -> str:
    """What `patterns_of` says of one sequence; a call of it on one row takes longer than all the rest."""
    if second in (EOS, PAD):
        return "SINGLE" if second == EOS else "QUESTION"
    if second == first:
        return "REPETITION"
    return "PAIR" if third == EOS else "TRIPLE"


def _translation_table() -> np.ndarray:
    """`[17, 17, 17, 3]` Lumen word ids of every legal id sequence; built once."""
    global _TABLE
    if _TABLE is None:
        table = np.full((N_CLASSES,) * 3 + (MAX_TOKENS,), -1, np.int64)
        for ids in all_sequences():
            words = Expression.from_ids(ids).lumen_words
            table[tuple(ids)][: len(words)] = [WORD_ID[word] for word in words]
        _TABLE = table
    return _TABLE


_TABLE: np.ndarray | None = None


def all_sequences() -> np.ndarray:
    """`[M, 3]` every legal id sequence."""
    ids: list[list[int]] = []
    for a in range(N_TOKENS):
        ids += [[a, EOS, PAD], [a, PAD, PAD], [a, a, EOS], [a, a, a]]
        for b in set(range(N_TOKENS)) - {a}:
            ids.append([a, b, EOS])
            ids += [[a, b, c] for c in range(N_TOKENS) if c not in (a, b)]
    return np.array(ids, np.int64)


def _no_expression(found: str, expected: str) -> ExpressionError:
    return ExpressionError(found=found, expected=expected, next="correct the expression")
