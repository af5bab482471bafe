"""The text a tiny base model grows up on: prompts of both forms, answered by the plain rules.

The plain rules are what Lumen says before any feedback, about half of it coherent, so that what an adapter
adds later is visible.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eisv_lumen import prompts
from eisv_lumen.expression import Expression, render_answer
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import (
    BASE_WEIGHTS,
    LUMEN_WORDS,
    N_SHAPES,
    SHAPE_DESCRIPTIONS,
    SHAPES,
    STATE_MAX,
    TRANSLATION,
)

START, END, BLANK = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Conversations as Qwen writes them."""

KINDS = ("design", "card", "short", "phrases", "answer")
"""Kinds of documents: both full prompts, the shape alone as prompt, a shape's phrasebook, an answer alone."""

PHRASES = 10


@dataclass(frozen=True)
class Summary:
    """A made-up window's summaries, as `prompts.WindowSummary` wants them."""

    n_states: int
    duration: float
    mean: np.ndarray
    first: np.ndarray
    second: np.ndarray


def chat_text(messages: list[dict[str, str]]) -> str:
    """What `CHAT_TEMPLATE` makes of a conversation."""
    return "".join(f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages)


def random_summary(generator: np.random.Generator) -> Summary:
    """Summaries of no window in particular, over the ranges and cadences that windows have."""
    count = 20 if generator.random() < 0.7 else int(generator.integers(4, 21))
    cadence = float(np.exp(generator.uniform(np.log(0.5), np.log(300))))
    moved = generator.normal(size=4) * STATE_MAX * np.exp(generator.uniform(np.log(1e-3), np.log(0.5)))
    duration = cadence * (count - 1)
    return Summary(
        n_states=count,
        duration=duration,
        mean=generator.random(4) * STATE_MAX,
        first=moved / duration,
        second=generator.normal(size=4) * np.abs(moved) / duration / cadence / 4,
    )


def documents(kind: str, count: int, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Documents of one kind: what is given, and what is to be learned from it.

    Special tokens are written out.
    """
    shapes = generator.integers(0, N_SHAPES, count)
    lines = PHRASES if kind == "phrases" else 1
    said = Rules(BASE_WEIGHTS).sample(np.repeat(shapes, lines), generator).reshape(count, lines, -1)
    for shape, ids in zip(shapes, said, strict=True):
        yield _document(kind, SHAPES[shape], [Expression.from_ids(row) for row in ids], generator)


def vocabulary_text() -> Iterator[str]:
    """Every word of the domain in a sentence or two, for the tokenizer to learn whole words from."""
    for shape, description in SHAPE_DESCRIPTIONS.items():
        yield f"SHAPE: {shape}\n{shape}: {description}.\nTrajectory shape: {shape}"
    for token, words in TRANSLATION.items():
        yield f"~{token}~ ~{token}~? ~{token}~ is {words[0]} or {words[1]}.\n ~{token}~\n ~{token}~?"
    yield " ".join(LUMEN_WORDS)
    for number in range(100):
        yield f"{number:02d} {number:02d}s E=0.{number:02d}"


def _document(
    kind: str, shape: str, said: list[Expression], generator: np.random.Generator
) -> tuple[str, str]:
    opening, answer = f"{START}assistant\n", f"{render_answer(said[0])}{END}"
    if kind == "design":
        return chat_text(prompts.design_messages(shape, random_summary(generator))) + opening, answer
    if kind == "card":
        return prompts.card_prompt(shape, random_summary(generator)), f" {said[0]}{END}"
    if kind == "short":
        return chat_text([{"role": "user", "content": f"SHAPE: {shape}"}]) + opening, answer
    if kind == "phrases":
        return f"SHAPE: {shape}\n", "".join(f"EISV_TOKENS: {one}\n" for one in said) + END
    return opening, answer
