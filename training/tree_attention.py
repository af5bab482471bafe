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
class Tree:
    """C tokens that continue a prompt, some of them each other.

    Attributes:
        tokens: `[C]` token ids.
        depths: `[C]` how many tokens after the prompt's end each stands; the first at 1.
        shared: `[I]` the tokens that others continue; each other one is seen by itself alone.
        sees: `[C, I]` bool, which of the shared ones lie before each token.
    """

    tokens: np.ndarray
    depths: np.ndarray
    shared: np.ndarray
    sees: np.ndarray

    @classmethod
    def of(cls, tokens: np.ndarray, depths: np.ndarray, parent: np.ndarray) -> "Tree":
        """The tree in which `parent` `[C]` is the token before each, `NOWHERE` at the prompt's end.

        Parents come first.
        """
        before = np.zeros((len(parent), len(parent)), bool)
        for index, above in enumerate(parent):
            if above != NOWHERE:
                before[index] = before[above]
                before[index, above] = True
        shared = np.flatnonzero(before.any(axis=0))
        return cls(tokens, depths, shared, before[:, shared])


class PlainReader:
    """Reads batches of prompts, and after each prompt the tree, by any model's own forward pass.

    Args:
        model: A causal language model, unwrapped; must not change while this reader is in use.
        tree: What may follow a prompt.
        prefix: Token ids that all prompts begin with; they are read here, once.
    """

    def __init__(self, model: Any, tree: Tree, prefix: list[int]) -> None:
        import torch

        self._model, self._tree, self._start = model, tree, len(prefix)
        self._prefix = None
        if prefix:
            ids = torch.tensor([prefix], device=model.device)
            self._prefix = model.get_decoder()(input_ids=ids, use_cache=True).past_key_values

    def read(self, prompts: Any) -> tuple[Any, Any]:
        """`[B, H]` states after B prompts and `[B, C, H]` after the tree's tokens behind each.

        Args:
            prompts: `[B, T]` token ids beyond the prefix.

        Raises:
            ConfigurationError: The model's attention cannot be chosen.
        """
        import torch

        batch, count = prompts.shape
        positions = torch.arange(self._start, self._start + count, device=prompts.device)
        decoder = self._model.get_decoder()
        read = decoder(
            input_ids=prompts,
            position_ids=positions[None].expand(batch, -1),
            past_key_values=_repeated(self._prefix, batch) if self._prefix is not None else None,
            use_cache=True,
        )
        return read.last_hidden_state[:, -1], self._read_tree(read.past_key_values, self._start + count)

    def _read_tree(self, cache: Any, end: int) -> Any:
        import torch

        tree, first = self._tree, cache.layers[0].keys
        batch, device = len(first), first.device
        unseen = torch.zeros(len(tree.tokens), end + len(tree.shared) + 1, device=device, dtype=first.dtype)
        unseen[:, end:-1].masked_fill_(torch.from_numpy(~tree.sees).to(device), float("-inf"))
        read = ReadPrompts(
            layers=[(layer.keys, layer.values) for layer in cache.layers],
            shared=torch.from_numpy(tree.shared).to(device),
            unseen=unseen,
        )
        positions = end - 1 + torch.from_numpy(tree.depths).to(device)
        with tree_attention(self._model):
            return self._model.get_decoder()(
                input_ids=torch.from_numpy(tree.tokens).to(device)[None].expand(batch, -1),
                position_ids=positions[None].expand(batch, -1),
                use_cache=False,
                read=read,
            ).last_hidden_state


@dataclass(frozen=True)
class ReadPrompts:
    """What a model has read of B prompts, and which of it each of the C continuing tokens sees.

    Attributes:
        layers: Per layer the keys and values `[B, G, P, D]` of G key-value heads.
        shared: `[I]` the continuing tokens that others continue.
        unseen: `[C, P + I + 1]` added to the scores of prompts and `shared`: 0, or minus infinity for other
            paths. The last column, 0, is each token's place for itself.
    """

    layers: list[tuple[Any, Any]]
    shared: Any
    unseen: Any


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
    scores += read.unseen
    scores[..., -1] = (query.view(*grouped, size) * key[:, :, None]).sum(dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    taken = (weights.view(batch, groups, -1, weights.shape[-1]) @ values).view(*grouped, size)
    taken += weights[..., -1:] * value[:, :, None]
    return taken.reshape(batch, heads, count, size).transpose(1, 2), None


def _repeated(cache: Any, count: int) -> Any:
    """The cache of one sequence as the cache of `count` equal ones."""
    from transformers import DynamicCache

    copy = DynamicCache()
    for index, layer in enumerate(cache.layers):
        copy.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), index)
    return copy
