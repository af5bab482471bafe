"""Asking a teacher: generation, constrained or not, and reading its answers back."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.errors import ExpressionError
from eisv_lumen.expression import parse_answer
from eisv_lumen.vocabulary import EOS, MAX_TOKENS, PAD, WORD_ID
from training.grammar import AnswerGrammar


@dataclass(frozen=True)
class Answers:
    """N answers read back.

    Attributes:
        texts: What was written.
        valid: `[N]` bool, whether it parsed.
        ids: `[N, 3]` the expressions; a placeholder where invalid.
        lumen_ids: `[N, 3]` Lumen words said beside them, -1 where there is none.
    """

    texts: list[str]
    valid: np.ndarray
    ids: np.ndarray
    lumen_ids: np.ndarray


def ask(
    model: Any,
    tokenizer: Any,
    grammar: AnswerGrammar,
    prompts: list[list[int]],
    *,
    constrained: bool,
    greedy: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 128,
) -> Answers:
    """Generate one answer per prompt by drawing, or by the likeliest token at each step.

    Draws are the model's own: what its folder says of sampling (temperature, top-k, penalties) is left out.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, padding on the left.
        grammar: The grammar of the prompts' form.
        prompts: Token ids of N prompts.
        constrained: Whether only tokens of a legal answer may be chosen.
        greedy: Whether to take the likeliest token instead of drawing.
        temperature: Of the draws.
        seed: Seed of the draws.
        batch_size: Prompts at a time.
    """
    import torch
    from transformers import GenerationConfig

    plan = GenerationConfig(
        max_new_tokens=max(map(len, grammar.answers)) + 8,
        do_sample=not greedy,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=grammar.end,
        **({} if greedy else {"temperature": temperature, "top_k": 0, "top_p": 1.0}),
    )
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    texts = [""] * len(prompts)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = _padded_left([prompts[i] for i in chosen], tokenizer.pad_token_id).to(model.device)
            width = batch.shape[1]
            said = model.generate(
                input_ids=batch,
                attention_mask=_attention([len(prompts[i]) for i in chosen], width).to(model.device),
                generation_config=plan,
                use_model_defaults=False,
                prefix_allowed_tokens_fn=grammar.constraint(width) if constrained else None,
            )[:, width:]
            for index, text in zip(
                chosen, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True
            ):
                texts[index] = text
    return read_answers(texts)


def read_answers(texts: list[str]) -> Answers:
    """Parse answers; those that do not parse are marked invalid."""
    valid = np.zeros(len(texts), bool)
    ids = np.tile([0, EOS, PAD], (len(texts), 1))
    words = np.full((len(texts), MAX_TOKENS), -1)
    for index, text in enumerate(texts):
        try:
            answer = parse_answer(text)
        except ExpressionError:
            continue
        said = answer.lumen_words[:MAX_TOKENS]
        valid[index], ids[index] = True, answer.expression.ids
        words[index, : len(said)] = [WORD_ID[word] for word in said]
    return Answers(texts, valid, ids, words)


def _padded_left(prompts: list[list[int]], pad: int) -> Any:
    import torch

    width = max(map(len, prompts))
    return torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])


def _attention(lengths: list[int], width: int) -> Any:
    import torch

    return (torch.arange(width)[None] >= width - torch.tensor(lengths)[:, None]).long()
