"""Prompts and answers as a tokenizer's ids, in both forms a teacher understands."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eisv_lumen import prompts
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.expression import Expression, all_sequences, render_answer
from eisv_lumen.vocabulary import SHAPES
from eisv_lumen.windows import Summaries

Form = Literal["design", "card"]
FORMS: tuple[Form, ...] = ("design", "card")


@dataclass(frozen=True)
class Row:
    """One window's summaries, as `prompts.WindowSummary` wants them."""

    n_states: int
    duration: float
    mean: np.ndarray
    first: np.ndarray
    second: np.ndarray


def prompt_ids(tokenizer: Any, form: Form, shapes: np.ndarray, summaries: Summaries) -> list[list[int]]:
    """Token ids of N prompts.

    Args:
        tokenizer: A transformers tokenizer; the design's form needs its chat template.
        form: "design" for the conversation, "card" for the published card's plain text.
        shapes: `[N]` shape ids.
        summaries: Summaries of the N windows.

    Raises:
        ConfigurationError: The tokenizer has no chat template.
    """
    rows = [
        Row(int(count), float(duration), mean, first, second)
        for count, duration, mean, first, second in zip(
            summaries.n_states,
            summaries.duration,
            summaries.mean,
            summaries.first,
            summaries.second,
            strict=True,
        )
    ]
    names = [SHAPES[shape] for shape in shapes]
    if not names:
        return []
    if form == "card":
        texts = [prompts.card_prompt(name, row) for name, row in zip(names, rows, strict=True)]
        return tokenizer(texts)["input_ids"]
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError(
            found=f"tokenizer {tokenizer.name_or_path} without a chat template",
            expected="an instruction-tuned base model, whose tokenizer knows how a conversation is written",
            next="choose such a base (e.g. Qwen/Qwen3-4B), or add chat_template.jinja to its folder",
        )
    conversations = [prompts.design_messages(name, row) for name, row in zip(names, rows, strict=True)]
    # Qwen3 opens a train of thought unless told not to; Llama 3 writes today's date unless given one.
    texts = tokenizer.apply_chat_template(
        conversations,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
        date_string="26 Jul 2024",
    )
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def expression_text(form: Form, expression: Expression) -> str:
    """The part of an answer that says the expression, up to where it is known to have ended."""
    return f"EISV_TOKENS: {expression}\n" if form == "design" else f" {expression}"


def answer_text(form: Form, expression: Expression) -> str:
    """The complete answer, without the end token."""
    return render_answer(expression) if form == "design" else f" {expression}"


def answer_ids(tokenizer: Any, form: Form) -> list[list[int]]:
    """Token ids, end token included, of the answer to each of `all_sequences()`."""
    texts = [answer_text(form, Expression.from_ids(ids)) for ids in all_sequences()]
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
