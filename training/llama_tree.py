"""Reading prompts and a tree of continuations with a decoder of Llama's build, nothing of it twice.

Transformers' own forward pass computes what this one leaves out: the last layer's states of a prompt, of
which only the end is asked for; and, in the first layer, queries, keys, values and attention to the prompt
of a token that stands at many places of one depth of the tree, where they are the same.
"""

from typing import Any

import numpy as np

from training.tree_attention import Tree

Layer = tuple[Any, Any]
"""Keys and values `[B, G, P, D]` of what was read before."""


def reads(decoder: Any) -> bool:
    """Is this a decoder that `LlamaReader` computes exactly as transformers does?"""
    from transformers import LlamaModel, Qwen2Model, Qwen3Model

    config = decoder.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        type(decoder) in (LlamaModel, Qwen2Model, Qwen3Model)
        and kinds == {"full_attention"}
        and len(decoder.layers) == config.num_hidden_layers
    )


class LlamaReader:
    """Reads batches of prompts with one decoder, and after each prompt the tree.

    Linear maps and embeddings are called as the decoder's modules, so adapters on them take part.

    Args:
        decoder: A decoder for which `reads` holds; must not change while this reader is in use.
        tree: What may follow a prompt.
        prefix: Token ids that all prompts begin with; they are read here, once.
    """

    def __init__(self, decoder: Any, tree: Tree, prefix: list[int]) -> None:
        import torch

        self._decoder = decoder
        self._device = decoder.norm.weight.device
        pairs, of_pair = np.unique(np.stack([tree.tokens, tree.depths]), axis=1, return_inverse=True)
        self._tokens, self._depths, self._pairs, self._of_pair, self._shared = (
            torch.from_numpy(array).to(self._device)
            for array in (tree.tokens, tree.depths, pairs, of_pair.reshape(-1), tree.shared)
        )
        hidden = torch.from_numpy(~tree.sees).to(self._device)
        self._unseen = torch.zeros(hidden.shape, device=self._device).masked_fill_(hidden, -torch.inf)
        self._start, self._before = len(prefix), [None] * len(decoder.layers)
        if prefix:
            self._start = 0
            self._before, _ = self._read_prompts(torch.tensor([prefix], device=self._device))
            self._start = len(prefix)

    def read(self, prompts: Any) -> tuple[Any, Any]:
        """`[B, H]` states after B prompts and `[B, C, H]` after the tree's tokens behind each.

        Args:
            prompts: `[B, T]` token ids beyond the prefix.
        """
        layers, ends = self._read_prompts(prompts)
        return ends, self._read_tree(layers, self._start + prompts.shape[1])

    def _read_prompts(self, ids: Any) -> tuple[list[Any], Any]:
        """Per layer the keys and values of prefix and prompts, and `[B, H]` the states after their ends."""
        import torch

        batch, count = ids.shape
        states = self._decoder.embed_tokens(ids)
        angles = self._angles(torch.arange(self._start, self._start + count, device=self._device))
        seen = torch.ones(count, self._start + count, dtype=torch.bool, device=self._device)
        layers = []
        for layer, before in zip(self._decoder.layers, self._before, strict=True):
            attention, normed = layer.self_attn, _normed(states, layer.input_layernorm)
            key, value = _key_and_value(attention, normed, angles)
            if before is not None:
                key, value = (
                    torch.cat([old.expand(batch, -1, -1, -1), new], dim=2)
                    for old, new in zip(before, (key, value), strict=True)
                )
            layers.append((key, value))
            # Of the last layer only the state after the prompt is asked for.
            rows = slice(-1, None) if len(layers) == len(self._before) else slice(None)
            taken = torch.nn.functional.scaled_dot_product_attention(
                _query(attention, normed[:, rows], tuple(angle[rows] for angle in angles)),
                key,
                value,
                attn_mask=seen.tril(self._start)[rows],
                scale=attention.scaling,
                enable_gqa=True,
            )
            states = _after_attention(layer, states[:, rows], taken)
        return layers, _normed(states, self._decoder.norm)[:, 0]

    def _read_tree(self, layers: list[Layer], end: int) -> Any:
        """`[B, C, H]` states after the tree's tokens, behind prompts of `end` tokens."""
        batch = len(layers[0][0])
        states = self._decoder.embed_tokens(self._tokens)[None].expand(batch, -1, -1)
        angles = self._angles(end - 1 + self._depths)
        for index, (layer, before) in enumerate(zip(self._decoder.layers, layers, strict=True)):
            if index:
                attention, normed = layer.self_attn, _normed(states, layer.input_layernorm)
                query = _query(attention, normed, angles) * attention.scaling
                taken = self._attend(query, *_key_and_value(attention, normed, angles), *before)
            else:
                taken = self._attend_first(layer, *before, end)
            states = _after_attention(layer, states, taken)
        return _normed(states, self._decoder.norm)

    def _attend(self, query: Any, key: Any, value: Any, above: Any, held: Any) -> Any:
        """`[B, H, C, D]` what the tree's tokens take in: of prompts, of their own path, and of themselves.

        Args:
            query: `[B, H, C, D]`, scaled.
            key: `[B, G, C, D]`.
            value: `[B, G, C, D]`.
            above: `[B, G, P, D]` keys of the prompts.
            held: `[B, G, P, D]` values of the prompts.
        """
        import torch

        (batch, heads, count, size), groups, length = query.shape, key.shape[1], above.shape[2]
        grouped = (heads // groups, count)
        nothing = torch.zeros_like(key[:, :, :1])
        keys = torch.cat([above, key[:, :, self._shared], nothing], dim=2)
        values = torch.cat([held, value[:, :, self._shared], nothing], dim=2)
        query = query.reshape(batch, groups, -1, size)
        scores = query @ keys.mT
        by_head = scores.unflatten(2, grouped)
        by_head[..., length:-1] += self._unseen
        by_head[..., -1] = (query.unflatten(2, grouped) * key[:, :, None]).sum(dim=-1)
        weights = _wide(scores).softmax(dim=-1).to(value.dtype)
        taken, weights = ((weights @ values).unflatten(2, grouped), weights.unflatten(2, grouped))
        taken.addcmul_(weights[..., -1:], value[:, :, None])
        return taken.view(batch, heads, count, size)

    def _attend_first(self, layer: Any, above: Any, held: Any, end: int) -> Any:
        """The same for the first layer, where a token's state depends on nothing but itself.

        Queries, keys and values are those of the U pairs of token and depth, whatever the prompt; attention
        to a prompt is theirs too, and is one more entry beside those of a token's path: its weight is that
        of all the prompt's tokens together.
        """
        import torch

        attention = layer.self_attn
        angles = self._angles(end - 1 + self._pairs[1])
        normed = _normed(self._decoder.embed_tokens(self._pairs[0])[None], layer.input_layernorm)
        query = _query(attention, normed, angles) * attention.scaling
        key, value = _key_and_value(attention, normed, angles)
        (batch, groups, _, size), (heads, pairs), of_pair = above.shape, query.shape[1:3], self._of_pair
        grouped, on_path = (heads // groups, pairs), of_pair[self._shared]
        query = query.reshape(1, groups, -1, size)
        scores = _wide(query @ above.mT)
        together = scores.logsumexp(dim=-1, keepdim=True)
        read = ((scores - together).exp_().to(held.dtype) @ held).unflatten(2, grouped)[:, :, :, of_pair]
        path = (query @ key[:, :, on_path].mT).unflatten(2, grouped)[:, :, :, of_pair]
        itself = (query.unflatten(2, grouped) * key[:, :, None]).sum(dim=-1, keepdim=True)[:, :, :, of_pair]
        alike = torch.cat([_wide(path) + self._unseen, _wide(itself)], dim=-1)
        together = together.unflatten(2, grouped)[:, :, :, of_pair]
        weights = torch.cat([together, alike.expand(batch, -1, -1, -1, -1)], dim=-1).softmax(dim=-1)
        weights = weights.to(value.dtype)
        taken = weights[..., 1:-1] @ value[:, :, None, on_path]
        taken.addcmul_(weights[..., :1], read)
        taken.addcmul_(weights[..., -1:], value[:, :, None, of_pair])
        return taken.view(batch, heads, -1, size)

    def _angles(self, positions: Any) -> tuple[Any, Any]:
        """`[T, D]` cosines and sines of T positions; the sines' first half is negated for `_turned`."""
        import torch

        cosine, sine = self._decoder.rotary_emb(self._decoder.norm.weight, positions[None])
        half = sine.shape[-1] // 2
        return cosine[0], torch.cat([-sine[0, :, :half], sine[0, :, half:]], dim=-1)


def _query(attention: Any, normed: Any, angles: tuple[Any, Any]) -> Any:
    """`[B, H, T, D]` queries of normed states `[B, T, H * D]`."""
    return _turned(attention, attention.q_proj(normed), "q_norm", angles)


def _key_and_value(attention: Any, normed: Any, angles: tuple[Any, Any]) -> Layer:
    """`[B, G, T, D]` keys and values."""
    value = attention.v_proj(normed)
    value = value.view(*value.shape[:2], -1, attention.head_dim).transpose(1, 2)
    return _turned(attention, attention.k_proj(normed), "k_norm", angles), value


def _turned(attention: Any, flat: Any, norm: str, angles: tuple[Any, Any]) -> Any:
    """Rotary positions on queries or keys `[B, T, heads * D]`, which some models norm first."""
    import torch

    heads = flat.view(*flat.shape[:2], -1, attention.head_dim)
    if hasattr(attention, norm):
        heads = _normed(heads, getattr(attention, norm))
    heads = heads.transpose(1, 2).contiguous()
    swapped = torch.cat(heads.chunk(2, dim=-1)[::-1], dim=-1)
    cosine, sine = angles
    return heads.mul_(cosine).addcmul_(swapped, sine)


def _normed(states: Any, norm: Any) -> Any:
    """What a module of transformers' RMSNorm returns, in half as many passes over the states."""
    import torch

    squares = torch.linalg.vector_norm(_wide(states), dim=-1, keepdim=True).square_()
    scale = squares.div_(states.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    return (states * scale).to(states.dtype).mul_(norm.weight)


def _wide(values: Any) -> Any:
    """Values in float32 at least, where sums and exponentials are taken."""
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


def _after_attention(layer: Any, states: Any, taken: Any) -> Any:
    """`[B, T, H]` a layer's outcome from its input and what `[B, heads, T, D]` its attention took in."""
    states = layer.self_attn.o_proj(taken.transpose(1, 2).flatten(2)).add_(states)
    return layer.mlp(_normed(states, layer.post_attention_layernorm)).add_(states)
