"""The TrajectoryTransformer: a raw window of states in; shape, expression and confidence out.

Shipped beside the weights (`AutoModel.from_pretrained(..., trust_remote_code=True)`), so it needs only torch
and transformers. The grammar and the affinity table are buffers in the weights. Attention is written out,
which keeps the window's length dynamic when the model is exported.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_eisv_lumen import TrajectoryConfig

_FORBIDDEN = -1e9
_STEP_FEATURES = 3
_TAILS = (0.5, 0.75)
_SUMMARIES = 13 + len(_TAILS)
_SMALLEST_SIZE, _USUAL_SIZE = 1e-3, 0.02
_SMALLEST_RANGE = 3e-3


@dataclass
class TrajectoryOutput(ModelOutput):
    """What is encoded in B windows and said about them.

    Attributes:
        shape_probs: `[B, 9]` calibrated probability of each shape.
        pattern_probs: `[B, 5]` probability of each pattern, before a token is chosen.
        token_ids: `[B, 3]` int64 ids of the expression.
        token_probs: `[B, 3, 17]` distribution that each id was chosen from.
        lumen_ids: `[B, 3]` int64 ids of the Lumen words, -1 where there is none.
        confidence: `[B]` expected coherence of the expression under `shape_probs`.
        embedding: `[B, 128]` the window as a vector.
    """

    shape_probs: Tensor | None = None
    pattern_probs: Tensor | None = None
    token_ids: Tensor | None = None
    token_probs: Tensor | None = None
    lumen_ids: Tensor | None = None
    confidence: Tensor | None = None
    embedding: Tensor | None = None


class Encoded(NamedTuple):
    """The encoder's answer, which every decoding step reads."""

    shape_logits: Tensor
    pattern_logits: Tensor
    embedding: Tensor
    context: Tensor
    memory: list[tuple[Tensor, Tensor]]
    absent: Tensor


class _Seen(NamedTuple):
    """Windows as the network first sees them.

    Attributes:
        x: `[B, T, 4]` states scaled to [0, 1], 0 where there is none.
        differences: `[B, T, 4, 4]` each from the first, last, mean and previous state.
        present: `[B, T]` 1 where there is a state.
        order: `[B, T]` 0 for the first state, 1 for the last.
        size: `[B, 1]` number of states.
    """

    x: Tensor
    differences: Tensor
    present: Tensor
    order: Tensor
    size: Tensor


def _split(x: Tensor, heads: int) -> Tensor:
    """`[B, L, W]` to `[B, heads, L, W / heads]`."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, absent: Tensor | None) -> Tensor:
    """Attention of `[B, heads, L, D]` queries; returns `[B, L, W]`. `absent` is added to the scores."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if absent is not None:
        scores = scores + absent
    mixed = scores.softmax(dim=-1) @ value
    return mixed.transpose(1, 2).reshape(mixed.shape[0], mixed.shape[2], -1)


class FeedForward(nn.Module):
    """The position-wise part of a layer."""

    def __init__(self, config: TrajectoryConfig) -> None:
        super().__init__()
        self.rise = nn.Linear(config.width, config.feed_forward)
        self.fall = nn.Linear(config.feed_forward, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., W]` to `[..., W]`."""
        return self.fall(torch.relu(self.rise(x)))


class WindowFeatures(nn.Module):
    """States and times as features without a time scale, one token per state and one for the whole window.

    A state is shown as its value and its differences from the first, last, mean and previous state; the
    window as its ranges, changes and spread, and as levels (local means in the order of the states). Time
    enters as the position between first and last state, and as the pace relative to the mean step.
    """

    scale: Tensor
    gains: Tensor
    own: Tensor

    def __init__(self, config: TrajectoryConfig) -> None:
        super().__init__()
        self.n_positions, self.n_levels = config.window_length, config.levels
        dimensions, gains = len(config.dimensions), len(config.gains)
        self.register_buffer("scale", torch.tensor(config.state_scale))
        self.register_buffer("gains", torch.tensor(config.gains))
        per_dimension = 1 + 4 * gains + _STEP_FEATURES
        self.by_dimension = nn.Linear(dimensions * per_dimension, config.width)
        own = torch.eye(dimensions).repeat_interleave(config.width // dimensions, dim=0)
        self.register_buffer("own", own.repeat_interleave(per_dimension, dim=1))
        self.positions = nn.Parameter(torch.randn(config.window_length, config.width) * 0.1)
        visible = dimensions * (_SUMMARIES + config.levels - 1) * gains
        rest = dimensions * (_SUMMARIES + config.levels + 2) + 1
        self.summary = nn.Linear(visible + rest, config.width)
        self.summary_body = nn.Linear(config.width, config.width)

    def forward(self, states: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`states [B, T, 4]`, `times [B, T]`, bool `mask [B, T]` to tokens `[B, T, W]`, summary `[B, W]`."""
        seen = self._see(states, mask)
        tokens = self._state_tokens(seen, self._clock(times, seen.present, seen.size))
        return tokens * seen.present.unsqueeze(-1), self._summary(seen)

    def summarise(self, states: Tensor, mask: Tensor) -> Tensor:
        """The summary `[B, W]` alone."""
        return self._summary(self._see(states, mask))

    def _see(self, states: Tensor, mask: Tensor) -> _Seen:
        present = mask.to(states.dtype)
        x = states * self.scale * present.unsqueeze(-1)
        count = present.sum(dim=1, keepdim=True).clamp(min=1.0)
        order = (present.cumsum(dim=1) - 1.0) / (count - 1.0).clamp(min=1.0) * present
        last_one = present - torch.cat([present[:, 1:], torch.zeros_like(present[:, :1])], dim=1)
        first, last = x[:, :1], (x * last_one.unsqueeze(-1)).sum(dim=1, keepdim=True)
        mean = x.sum(dim=1, keepdim=True) / count.unsqueeze(-1)
        steps = torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], dim=1)
        differences = torch.stack([x - first, x - last, x - mean, steps], dim=-1) * present[..., None, None]
        return _Seen(x, differences, present, order, count)

    def _visible(self, x: Tensor) -> Tensor:
        """`[..., F]` differences to `[..., F * gains]` in [-1, 1]."""
        return torch.tanh(x.unsqueeze(-1) * self.gains).flatten(-2)

    def _clock(self, times: Tensor, present: Tensor, count: Tensor) -> Tensor:
        """`[B, T, 2]` position between first and last state, and step relative to the mean step."""
        place = ((1.0 - times / times[:, :1].clamp(min=1e-6)) * present).clamp(0.0, 1.0)
        before = torch.cat([torch.zeros_like(place[:, :1]), place[:, :-1]], dim=1)
        return torch.stack([place, ((place - before) * (count - 1.0)).clamp(0.0, 4.0)], dim=-1)

    def _nearness(self, order: Tensor, knots: int) -> Tensor:
        """`[B, T, knots]` hat functions of the order of a state, 0 for the first and 1 for the last."""
        places = torch.arange(knots, device=order.device, dtype=order.dtype)
        return torch.relu(1.0 - (order.unsqueeze(-1) * (knots - 1) - places).abs())

    def _state_tokens(self, seen: _Seen, clock: Tensor) -> Tensor:
        size = (seen.size / self.n_positions).expand_as(seen.order).unsqueeze(-1)
        common = torch.cat([clock, size], dim=-1).unsqueeze(2).expand(-1, -1, seen.x.shape[2], -1)
        features = torch.cat([seen.x.unsqueeze(-1), self._visible(seen.differences), common], dim=-1)
        weight = self.by_dimension.weight * self.own
        tokens = nn.functional.linear(features.flatten(2), weight, self.by_dimension.bias)
        return tokens + self._nearness(seen.order, self.n_positions) @ self.positions

    def _summary(self, seen: _Seen) -> Tensor:
        x, differences, present, order, count = seen
        there = present.unsqueeze(-1)
        from_first, from_last, from_mean, steps = differences.unbind(dim=-1)
        away = (1.0 - there) * 2.0
        found = [(from_first - away).amax(dim=1) - (from_first + away).amin(dim=1), -from_last[:, 0]]
        found.append((from_mean.square().sum(dim=1) / count + 1e-12).sqrt())
        found += [steps.abs().sum(dim=1) / count, steps.abs().amax(dim=1)]
        for start in _TAILS:
            beyond = 2.0 * (1.0 - there * (order.unsqueeze(-1) >= start).to(x.dtype))
            found.append((from_last - beyond).amax(dim=1) - (from_last + beyond).amin(dim=1))
        levels = self._levels(x, present, count)
        of_levels, course = self._course(levels)
        found += of_levels
        sizes = torch.log(torch.stack(found, dim=-1).abs() + _SMALLEST_SIZE) - math.log(_USUAL_SIZE)
        found += (levels[:, 1:] - levels[:, :1]).unbind(dim=1)
        visible = self._visible(torch.stack(found, dim=-1)).flatten(1)
        rest = [sizes.flatten(1), course.flatten(1), levels.mean(dim=1), count / self.n_positions]
        return torch.relu(self.summary_body(torch.relu(self.summary(torch.cat([visible, *rest], dim=1)))))

    def _course(self, levels: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the levels `[B, levels, 4]` say of the movement as a whole.

        Returns:
            Sizes `[B, 4]` each: range and way travelled over parts that do not overlap, net change, its
            last part, how far the highest and the lowest level lie from the first and from the last one.
            And the course without a scale, `[B, levels + 1, 4]`: the levels after the first, the highest
            and the lowest, as shares of the range from the first level. No other number is divided by: what
            is nearly 0 there would make rounding visible.
        """
        first, last, parts = levels[:, 0], levels[:, -1], levels[:, ::2]
        high, low = levels.amax(dim=1), levels.amin(dim=1)
        extent = parts.amax(dim=1) - parts.amin(dim=1)
        travelled = (parts[:, 1:] - parts[:, :-1]).abs().sum(dim=1)
        net, late = last - first, last - levels[:, self.n_levels // 2 + 1]
        up, down, fall, rise = high - first, first - low, high - last, last - low
        course = torch.cat([levels[:, 1:] - levels[:, :1], up.unsqueeze(1), -down.unsqueeze(1)], dim=1)
        relative = (course / (extent + _SMALLEST_RANGE).unsqueeze(1)).clamp(-2.0, 2.0)
        return [extent, travelled, net, late, up, fall, down, rise], relative

    def _levels(self, x: Tensor, present: Tensor, count: Tensor) -> Tensor:
        """`[B, levels, 4]` means of the straight lines between the states over parts that half overlap."""
        knots = torch.arange(self.n_levels + 2, device=x.device, dtype=x.dtype) / (self.n_levels + 1)
        edges = (knots * (count - 1.0).clamp(min=1.0)).unsqueeze(-1)
        beyond = edges - (present.cumsum(dim=1) - 1.0).unsqueeze(1)
        ahead, behind = (beyond + 1.0).clamp(0.0, 1.0), beyond.clamp(0.0, 1.0)
        area = (ahead.square() / 2 + behind - behind.square() / 2) * present.unsqueeze(1)
        weight = area[:, 2:] - area[:, :-2]
        return (weight @ x) / weight.sum(dim=-1, keepdim=True).clamp(min=1e-6)


class EncoderLayer(nn.Module):
    """Self-attention over the states, within each dimension or across them, and a feed-forward part."""

    own: Tensor

    def __init__(self, config: TrajectoryConfig, within: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.before_attention, self.before_rise = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)
        self.within = within
        if within:
            group = torch.arange(config.width) * len(config.dimensions) // config.width
            own = (group[:, None] == group[None]).to(torch.float32)
            self.register_buffer("own", torch.cat([own, own, own]))

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        """`x [B, L, W]`; `absent [B, 1, 1, L]` is 0 for present tokens and very negative elsewhere."""
        weight = self.qkv.weight * self.own if self.within else self.qkv.weight
        normed = self.before_attention(x)
        query, key, value = nn.functional.linear(normed, weight, self.qkv.bias).chunk(3, dim=-1)
        query, key, value = (_split(part, self.heads) for part in (query, key, value))
        x = x + self.dropout(self.out(_attend(query, key, value, absent)))
        return x + self.dropout(self.feed_forward(self.before_rise(x)))


class DecoderLayer(nn.Module):
    """One decoding step: attention to the ids so far, to the window, and a feed-forward part."""

    def __init__(self, config: TrajectoryConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.before_self, self.before_cross, self.before_rise = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.feed_forward = FeedForward(config)

    def remember(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the window, made once for all steps."""
        key, value = self.key_value(encoded).chunk(2, dim=-1)
        return _split(key, self.heads), _split(value, self.heads)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], absent: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One position of S sequences per window.

        Args:
            x: `[B, S, W]`.
            memory: See `remember`.
            absent: `[B, 1, 1, L]` as in the encoder.
            past: Keys and values `[B, S, steps, W]` of earlier positions, or None.
        """
        query, key, value = self.qkv(self.before_self(x)).unsqueeze(2).chunk(3, dim=-1)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        x = x + self.self_out(self._look_back(query, key, value))
        query = _split(self.query(self.before_cross(x)), self.heads)
        x = x + self.cross_out(_attend(query, *memory, absent))
        return x + self.feed_forward(self.before_rise(x)), (key, value)

    def _look_back(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the newest position `[B, S, 1, W]` over itself and the earlier ones."""
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in (query, key, value))
        scores = (query * key).sum(dim=-1, keepdim=True) / math.sqrt(query.shape[-1])
        return (scores.softmax(dim=2) * value).sum(dim=2).flatten(2)


class TrajectoryTransformer(PreTrainedModel):
    """Encoder over a window of states, shape and pattern heads, and an autoregressive expression decoder.

    Inputs are packed: the states present come first (`eisv_lumen.windows.Windows.packed`), times are seconds
    before the last state. Every sequence it says is legal, because the grammar is a mask on the logits.
    """

    config_class = TrajectoryConfig  # type: ignore[assignment]
    main_input_name = "states"
    temperature: Tensor
    affinity: Tensor
    legal_first: Tensor
    legal_second: Tensor
    legal_third: Tensor

    def __init__(self, config: TrajectoryConfig) -> None:
        super().__init__(config)
        width, classes, tokens = config.width, config.n_classes, len(config.tokens)
        self.features = WindowFeatures(config)
        self.encoder = nn.ModuleList(
            EncoderLayer(config, within=index < config.within_layers)
            for index in range(config.encoder_layers)
        )
        self.skip = nn.Linear(width, config.embedding_size)
        self.pool = nn.Linear(width, config.embedding_size)
        self.after_pool = nn.LayerNorm(config.embedding_size)
        self.shape_head = nn.Linear(config.embedding_size, len(config.shapes))
        self.pattern_head = nn.Linear(config.embedding_size, len(config.patterns))
        self.shape_embedding = nn.Linear(len(config.shapes), width, bias=False)
        self.context = nn.Linear(config.embedding_size, width)
        self.token_embedding = nn.Embedding(classes + 1, width)
        self.step_embedding = nn.Parameter(torch.zeros(config.decoding_steps + 1, width))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.after_encoder, self.after_decoder = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_head = nn.Linear(width, classes)
        self.lumen_head = nn.Linear(width, len(config.lumen_words) + 1)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("affinity", torch.zeros(len(config.shapes), tokens))
        self.register_buffer("legal_first", torch.ones(classes, dtype=torch.bool))
        self.register_buffer("legal_second", torch.ones(tokens, classes, dtype=torch.bool))
        self.register_buffer("legal_third", torch.ones(tokens, tokens, classes, dtype=torch.bool))
        self.post_init()
        # At first the embedding is that of the summary alone; the encoder adds what it learns to see besides.
        nn.init.zeros_(self.pool.weight)

    def shape_from_summary(self, states: Tensor, mask: Tensor) -> Tensor:
        """`[B, 9]` shape logits from the summary alone, without the encoder: what training begins with."""
        return self.shape_head(self.after_pool(self.skip(self.features.summarise(states, mask))))

    def _init_weights(self, module: nn.Module) -> None:
        """Small normal weights for linear maps and embeddings."""
        if isinstance(module, nn.Linear | nn.Embedding):
            linear = isinstance(module, nn.Linear)
            module.weight.data.normal_(0.0, 0.7 / math.sqrt(module.weight.shape[-1]) if linear else 0.3)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.data.zero_()

    def encode(self, states: Tensor, times: Tensor, mask: Tensor) -> Encoded:
        """Encode windows; see `forward` for the inputs."""
        tokens, summary = self.features(states, times, mask)
        x = torch.cat([summary.unsqueeze(1), tokens], dim=1)
        present = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        absent = ((1.0 - present.to(x.dtype)) * _FORBIDDEN)[:, None, None]
        for layer in self.encoder:
            x = layer(x, absent)
        x = self.after_encoder(x)
        embedding = self.after_pool(self.pool(x[:, 0]) + self.skip(summary))
        shape_logits = self.shape_head(embedding)
        context = self.context(embedding) + self.shape_embedding(shape_logits.softmax(dim=-1))
        memory = [layer.remember(x) for layer in self.decoder]
        return Encoded(shape_logits, self.pattern_head(embedding), embedding, context, memory, absent)

    def step(
        self, encoded: Encoded, ids: Tensor, position: int, past: list[tuple[Tensor, Tensor]] | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One decoding position of S sequences per window.

        Args:
            encoded: The encoded windows.
            ids: `[B, S]` the ids said last; at position 0 the beginning (`n_classes`).
            position: 0 to 3.
            past: What the step before returned.

        Returns:
            Hidden states `[B, S, W]`, and what the next step needs.
        """
        x = self.token_embedding(ids) + self.step_embedding[position] + encoded.context.unsqueeze(1)
        memory = []
        for index, layer in enumerate(self.decoder):
            x, kept = layer(x, encoded.memory[index], encoded.absent, None if past is None else past[index])
            memory.append(kept)
        return self.after_decoder(x), memory

    def logits(self, hidden: Tensor, so_far: list[Tensor]) -> Tensor:
        """`[..., 17]` logits of the next id, the illegal ones very negative.

        Args:
            hidden: `[..., W]` from `step`.
            so_far: The ids already said, each `[...]`.
        """
        return self.token_head(hidden).masked_fill(~self._legal(so_far), _FORBIDDEN)

    def _legal(self, so_far: list[Tensor]) -> Tensor:
        if not so_far:
            return self.legal_first
        tokens = len(self.config.tokens)
        if len(so_far) == 1:
            return self.legal_second[so_far[0]]
        second = so_far[1].clamp(max=tokens - 1)
        open_ended = self.legal_third.flatten(0, 1)[so_far[0] * tokens + second]
        only_pad = torch.arange(self.config.n_classes, device=second.device) == self.config.pad_id
        ended = (so_far[1] >= tokens).unsqueeze(-1)
        return (open_ended & ~ended) | (only_pad & ended)

    def beginning(self, batch: int, sequences: int, device: torch.device | None = None) -> Tensor:
        """`[B, S]` ids to begin with."""
        return torch.full((batch, sequences), self.config.n_classes, dtype=torch.long, device=device)

    def forward(
        self,
        states: Tensor,
        times: Tensor,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> TrajectoryOutput:
        """Hear B windows and say an expression about each.

        Args:
            states: `[B, T, 4]` E, I, S, V, at most 20 states.
            times: `[B, T]` seconds before the last state.
            mask: `[B, T]` bool, True where a state is present; those come first. All present when None.
            noise: `[B, 3, 17]` added to the logits: zeros (or None) for the likeliest id at each step,
                Gumbel noise for an exact draw from the model's distribution.
        """
        if mask is None:
            mask = torch.ones_like(times, dtype=torch.bool)
        encoded = self.encode(states, times, mask)
        shape_probs = (encoded.shape_logits / self.temperature).softmax(dim=-1)
        token_ids, token_probs, lumen_ids = self._say(encoded, noise)
        return TrajectoryOutput(
            shape_probs=shape_probs,
            pattern_probs=encoded.pattern_logits.softmax(dim=-1),
            token_ids=token_ids,
            token_probs=token_probs,
            lumen_ids=lumen_ids,
            confidence=self._confidence(shape_probs, token_ids),
            embedding=encoded.embedding,
        )

    def _say(self, encoded: Encoded, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        tokens, no_word = len(self.config.tokens), len(self.config.lumen_words)
        last = torch.zeros_like(encoded.shape_logits[:, :1], dtype=torch.long) + self.config.n_classes
        ids: list[Tensor] = []
        probs, words = [], []
        past = None
        for position in range(self.config.decoding_steps + 1):
            hidden, past = self.step(encoded, last, position, past)
            if position:
                word = self.lumen_head(hidden).argmax(dim=-1)
                words.append(torch.where((last < tokens) & (word < no_word), word, torch.full_like(word, -1)))
            if position == self.config.decoding_steps:
                break
            logits = self.logits(hidden, ids)
            probs.append(logits.softmax(dim=-1))
            last = (logits if noise is None else logits + noise[:, position : position + 1]).argmax(dim=-1)
            ids.append(last)
        return torch.cat(ids, dim=1), torch.cat(probs, dim=1), torch.cat(words, dim=1)

    def _confidence(self, shape_probs: Tensor, ids: Tensor) -> Tensor:
        """Expected share of affine tokens among those said."""
        spoken = (ids < self.affinity.shape[1]).to(shape_probs.dtype)
        affine = self.affinity.t()[ids.clamp(max=self.affinity.shape[1] - 1)] * spoken.unsqueeze(-1)
        return (affine.sum(dim=1) / spoken.sum(dim=1, keepdim=True) * shape_probs).sum(dim=1)

    def conditionals(self, states: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exact distribution over all expressions: `[B, 17]`, `[B, 15, 17]` and `[B, 15, 15, 17]`.

        Rows are the probabilities of the next id after each prefix of tokens.
        """
        encoded, batch, n = self.encode(states, times, mask), len(states), len(self.config.tokens)
        every = torch.arange(n, device=states.device).expand(batch, n)
        hidden, past = self.step(encoded, self.beginning(batch, 1, states.device), 0, None)
        first = self.logits(hidden, [])[:, 0]
        past = [(k.expand(-1, n, -1, -1), v.expand(-1, n, -1, -1)) for k, v in past]
        hidden, past = self.step(encoded, every, 1, past)
        second = self.logits(hidden, [every])
        past = [(k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)) for k, v in past]
        pairs = [every.repeat_interleave(n, dim=1), every.repeat(1, n)]
        hidden, _ = self.step(encoded, pairs[1], 2, past)
        third = self.logits(hidden, pairs).reshape(batch, n, n, -1)
        return first.softmax(dim=-1), second.softmax(dim=-1), third.softmax(dim=-1)
