"""Attention over a tree of continuations: each token sees its prompt and its own path, and nothing beside it.

Registered with transformers' own attention interface, so that any model written for it can be used. A dense
mask over prompt and tree would cost a tree's size squared; a path is a few tokens long.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.errors import ConfigurationError

NAME = "eisv_lumen_tree"
NOWHERE = -1


@dataclass(frozen=True)
class ReadPrompts:
    """What a model has read of B prompts, and which of it each of the C continuing tokens sees.

    Attributes:
        layers: Per layer the keys and values `[B, G, P, D]` of G key-value heads.
        shared: `[I]` the continuing tokens that others continue; each other one is seen by itself alone.
        unseen: `[B, C, P + I + 1]` added to the scores of prompts and `shared`: 0, or minus infinity for
            padding and for other paths. The last column, 0, is each token's place for itself.
    """

    layers: list[tuple[Any, Any]]
    shared: Any
    unseen: Any


def tree_of(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a tree others continue, and who sees them.

    Args:
        parent: `[C]` the token before each, `NOWHERE` at the end of the prompt; parents first.

    Returns:
        `[I]` the tokens that others continue, and `[C, I]` bool which of them lie before each token.
    """
    before = np.zeros((len(parent), len(parent)), bool)
    for index, above in enumerate(parent):
        if above != NOWHERE:
            before[index] = before[above]
            before[index, above] = True
    shared = np.flatnonzero(before.any(axis=0))
    return shared, before[:, shared]


@contextmanager
def tree_attention(model: Any) -> Iterator[None]:
    """Let `model` attend along `read`, the `ReadPrompts` given to its forward pass, while in this context.

    Raises:
        ConfigurationError: The model's code does not use transformers' attention interface.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ConfigurationError(
            found=f"{type(model).__name__}, whose attention cannot be chosen",
            expected="an architecture that uses transformers' attention interface, as Qwen3 and Llama do",
            next="choose another base model",
        )
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float,
    read: ReadPrompts,
    **_: Any,
) -> tuple[Any, None]:
    """`[B, C, H, D]` what C tokens with queries `[B, H, C, D]`, keys and values `[B, G, C, D]` take in."""
    import torch

    batch, heads, count, size = query.shape
    groups = key.shape[1]
    grouped = (batch, groups, heads // groups, count)
    keys, values = (
        torch.cat([above, own[:, :, read.shared], torch.zeros_like(own[:, :, :1])], dim=2)
        for above, own in zip(read.layers[module.layer_idx], (key, value), strict=True)
    )
    query = query.reshape(batch, groups, -1, size) * scaling
    scores = (query @ keys.mT).view(*grouped, -1)
    scores += read.unseen[:, None, None]
    scores[..., -1] = (query.view(*grouped, size) * key[:, :, None]).sum(dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    taken = (weights.view(batch, groups, -1, weights.shape[-1]) @ values).view(*grouped, size)
    taken += weights[..., -1:] * value[:, :, None]
    return taken.reshape(batch, heads, count, size).transpose(1, 2), None
