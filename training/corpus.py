"""The text that a tiny base model is pre-trained on: words of the domain, and prompts of every kind."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eisv_lumen import prompts
from eisv_lumen.vocabulary import (
    LUMEN_WORDS,
    PATTERNS,
    SHAPE_DESCRIPTIONS,
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

KINDS = ("phrases", "short", "card", "design")
"""Kinds of documents: a shape's phrasebook, the shape alone as prompt, and both full prompts."""

PHRASES = 4
"""Answers in a phrasebook."""


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


def prompt_text(kind: str, shape: str, generator: np.random.Generator) -> str:
    """What comes before the answer in a document, with special tokens written out."""
    if kind == "phrases":
        return f"SHAPE: {shape}\n"
    if kind == "card":
        return prompts.card_prompt(shape, random_summary(generator))
    if kind == "short":
        messages = [{"role": "user", "content": f"SHAPE: {shape}"}]
    else:
        messages = prompts.design_messages(shape, random_summary(generator))
    return chat_text(messages) + f"{START}assistant\n"


def vocabulary_text() -> Iterator[str]:
    """Every word of the domain in a sentence or two, for the tokenizer to learn whole words from."""
    for shape, description in SHAPE_DESCRIPTIONS.items():
        yield f"SHAPE: {shape}\n{shape}: {description}.\nTrajectory shape: {shape}"
    for token, words in TRANSLATION.items():
        yield f"~{token}~ ~{token}~? ~{token}~ is {words[0]} or {words[1]}.\n ~{token}~\n ~{token}~?"
        yield f"EISV_TOKENS: ~{token}~\nLUMEN_TOKENS: {' '.join(words)}\n"
    for pattern in PATTERNS:
        yield f"PATTERN: {pattern}"
    yield " ".join(LUMEN_WORDS)
    for number in range(100):
        yield f"{number:02d} {number:02d}s E=0.{number:02d}"
