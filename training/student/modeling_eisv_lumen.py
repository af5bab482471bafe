"""The TrajectoryTransformer: a raw window of states in; shape, expression and confidence out.

Shipped beside the weights (`AutoModel.from_pretrained(..., trust_remote_code=True)`), so it needs only torch
and transformers. The grammar and the affinity table are buffers in the weights.

A device hears one small window at a time, and there the number of operations costs more than their size.
Hence windows are filled up to N = `window_length` states, so that an exported graph knows all shapes but the
batch's; what follows from the number of states alone is looked up; and what is linear is one product.
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
_SIZES, _EXTENT, _TRAVELLED, _NET, _LATE, _UP, _FALL = 15, 6, 7, 9, 10, 11, 13
"""How many sizes of the movement there are, and where among them the rules' tests find theirs."""
_TESTS = 9
_SMALLEST_SIZE, _USUAL_SIZE = 1e-3, 0.02
_SMALLEST_RANGE = 3e-3
_SMALLEST_STEP, _FOREVER = 1e-6, 1e9
"""Seconds."""


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
    contexts: tuple[Tensor, ...]
    memory: list[tuple[Tensor, Tensor]]
    absent: Tensor


class _ByCount(NamedTuple):
    """What depends on nothing but the number of states, an entry for each from 0 to N, or for B windows.

    Attributes:
        of_states: `[N + 1, N, 3 + levels]` weights of the states in the first, the last and the mean state,
            and in each level.
        present: `[N + 1, N, 2]` share of the window that is filled, and 1 for a state; 0 where there is none.
        place: `[N + 1, N, 1]` order of a state from 0 to N - 1 as if the window were full; far from these
            where there is none.
        scale: `[N + 1, N, 4]` factors that bring a state to [0, 1]; 0 where there is none.
        share: `[N + 1, N, 1]` 1 / number of states; 0 where there is none.
        steps: `[N + 1, N, 1]` number of steps; 0 where there is no state.
        beyond: `[N + 1, N, 1 + tails]` 0 for the states of the window and of each tail, elsewhere more than
            two states can lie apart.
    """

    of_states: Tensor
    present: Tensor
    place: Tensor
    scale: Tensor
    share: Tensor
    steps: Tensor
    beyond: Tensor

    def look_up(self, count: Tensor) -> "_ByCount":
        """The entries for windows of `count` `[B]` states, all from one table."""
        found = torch.cat(self, dim=-1)[count]
        return _ByCount(*found.split([int(part.shape[-1]) for part in self], dim=-1))


class _Seen(NamedTuple):
    """Windows as the network first sees them.

    Attributes:
        x: `[B, N, 4]` states scaled to [0, 1], 0 where there is none.
        differences: `[B, N, 16]` from the first, last, mean and previous state, 0 where there is none.
        levels: `[B, 3 + levels, 4]` the first, last and mean state, then the levels.
        by_count: What follows from the number of states.
    """

    x: Tensor
    differences: Tensor
    levels: Tensor
    by_count: _ByCount


def _split(x: Tensor, heads: int) -> Tensor:
    """`[B, L, W]` to `[B, heads, L, W / heads]`."""
    length, size = int(x.shape[1]), int(x.shape[2]) // heads
    if length == 1:  # as in every decoding step, where an operation costs more than what it moves
        return x.reshape(-1, heads, 1, size)
    return x.reshape(-1, length, heads, size).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, absent: Tensor) -> Tensor:
    """Attention of `[B, heads, L, D]` queries; returns `[B, L, W]`. `absent` is added to the scores."""
    heads, length, size = (int(number) for number in query.shape[1:])
    scores = query @ key.transpose(-1, -2) / math.sqrt(size)
    mixed = (scores + absent).softmax(dim=-1) @ value
    if length > 1:
        mixed = mixed.transpose(1, 2)
    return mixed.reshape(-1, length, heads * size)


def put_back(states: Tensor, times: Tensor, count: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows in which states that were lost stand again, on straight lines between their neighbours.

    What a window says goes by the order of its states, and a lost state moves all later ones. A step of about
    k usual steps has lost k - 1 states. A window has at most `length` states: longer steps of a full one are
    pauses, and of what seems lost elsewhere only as much comes back as there is room for.

    Args:
        states: `[B, T, 4]`, those present first.
        times: `[B, T]` seconds before the last state.
        count: `[B]` states present.
        length: Most states in a window, N.

    Returns:
        States `[B, N, 4]`, times `[B, N]` and count `[B]`.
    """
    seen = torch.cat([states, -times.unsqueeze(-1)], dim=-1)
    seen = nn.functional.pad(seen, (0, 0, 0, length))[:, :length]
    present = count.unsqueeze(1).to(seen.dtype)
    number = torch.arange(length, device=seen.device, dtype=seen.dtype)
    steps = (seen[:, 1:] - seen[:, :-1]) * (number[1:] < present).to(seen.dtype).unsqueeze(-1)
    passed = steps[..., -1]
    longest_first = passed.topk(length - 1, dim=1).values
    going = (passed > 0).to(seen.dtype).sum(dim=1, keepdim=True)
    usual = (longest_first + (2 * number[:-1] > going).to(seen.dtype) * _FOREVER).amin(dim=1, keepdim=True)
    lost = ((passed / usual.clamp(min=_SMALLEST_STEP)).round() - 1.0).clamp(min=0.0, max=length)
    seems, room = lost.sum(dim=1, keepdim=True), length - present
    width = 1.0 + lost * (room / seems.clamp(min=1.0)).clamp(max=1.0)
    begin = width.cumsum(dim=1) - width
    share = ((number.unsqueeze(1) - begin.unsqueeze(1)) / width.unsqueeze(1)).clamp(min=0.0, max=1.0)
    seen = seen[:, :1] + share @ steps
    return seen[..., :-1], -seen[..., -1], (present + seems.minimum(room)).to(count.dtype).squeeze(1)


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
    window as its ranges, changes and spread, as levels (local means in the order of the states), and as the
    margins by which it passes the rules' tests. Time enters as the position between first and last state,
    and as the pace relative to the mean step.

    Attributes:
        tests: `[9, 6, 4]` the tests as sums of a dimension's range and way travelled over its levels, net
            change, last part, rise above the first and fall from the highest level: which dimension moved
            most, moved, in one direction, still going on; any movement; spike, recovered; change of basin
            down, up.
        bounds: `[9, 4]` what each test has to reach; out of reach for dimensions that it does not look at.
        others: `[4, 4]` 0 for the dimensions that one is compared with, very high elsewhere.
    """

    scale: Tensor
    gains: Tensor
    own: Tensor
    tests: Tensor
    bounds: Tensor
    others: Tensor

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
        self.register_buffer("tests", torch.zeros(_TESTS, 6, dimensions))
        self.register_buffer("bounds", torch.zeros(_TESTS, dimensions))
        self.register_buffer("others", torch.zeros(dimensions, dimensions))
        rows = (_SIZES + config.levels + 1) * gains + _SIZES + config.levels + 2
        self.summary = nn.Linear(dimensions * rows + 1, config.width)
        self.summary_body = nn.Linear(config.width, config.width)

    def forward(self, states: Tensor, times: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """`states [B, T, 4]`, `times [B, T]`, `count [B]` to tokens `[B, N, W]` and summary `[B, W]`."""
        seen = self._see(states, count)
        tokens = self._state_tokens(seen, self._filled(times.unsqueeze(-1)))
        return tokens, self.summarise(self._shown(seen))

    def shown(self, states: Tensor, count: Tensor) -> Tensor:
        """`[B, F]` what the summary is made of; nothing learned comes before it."""
        return self._shown(self._see(states, count))

    def summarise(self, shown: Tensor) -> Tensor:
        """The summary `[B, W]` of what is `shown` `[B, F]`."""
        return torch.relu(self.summary_body(torch.relu(self.summary(shown))))

    def levels(self, states: Tensor, count: Tensor) -> Tensor:
        """`[B, levels, 4]` means of the straight lines between the states over parts that half overlap."""
        return self._see(states, count).levels[:, 3:]

    def _filled(self, x: Tensor) -> Tensor:
        """`[B, T, D]` to `[B, N, D]`."""
        if int(x.shape[1]) == self.n_positions:
            return x
        return nn.functional.pad(x, (0, 0, 0, self.n_positions))[:, : self.n_positions]

    def _see(self, states: Tensor, count: Tensor) -> _Seen:
        by_count = self._by_count().look_up(count)
        x = self._filled(states) * by_count.scale
        levels = by_count.of_states.transpose(1, 2) @ x
        first_last_mean = levels[:, :3].reshape(-1, 1, 3 * len(self.scale))
        steps = self._from_previous(first_is_new=False) @ x
        differences = torch.cat([torch.cat([x, x, x], dim=-1) - first_last_mean, steps], dim=-1)
        return _Seen(x, differences * by_count.present[..., 1:], levels, by_count)

    def _by_count(self) -> _ByCount:
        n = self.n_positions
        number = torch.arange(n, device=self.scale.device, dtype=self.scale.dtype)
        counts = torch.arange(n + 1, device=self.scale.device, dtype=self.scale.dtype).unsqueeze(-1)
        present = (number < counts).to(self.scale.dtype)
        there, some, steps = present.unsqueeze(-1), counts.clamp(min=1.0), (counts - 1.0).clamp(min=1.0)
        order = number / steps * present
        ends = [(number == 0) * present, (number == counts - 1).to(self.scale.dtype), present / some]
        tails = torch.stack([present, *(present * (order >= start) for start in _TAILS)], dim=-1)
        return _ByCount(
            of_states=torch.stack([*ends, *self._parts(present, steps).unbind(dim=1)], dim=-1),
            present=torch.cat([counts.unsqueeze(-1) / n * there, there], dim=-1),
            place=(order * (n - 1) + (present - 1.0) * n).unsqueeze(-1),
            scale=self.scale * there,
            share=there / some.unsqueeze(-1),
            steps=(counts - 1.0).unsqueeze(-1) * there,
            beyond=2.0 * (1.0 - tails),
        )

    def _parts(self, present: Tensor, steps: Tensor) -> Tensor:
        """`[N + 1, levels, N]` weights of the states in the means over parts that half overlap."""
        number = torch.arange(self.n_positions, device=present.device, dtype=present.dtype)
        knots = torch.arange(self.n_levels + 2, device=present.device, dtype=present.dtype)
        beyond = (knots / (self.n_levels + 1) * steps).unsqueeze(-1) - number
        ahead, behind = (beyond + 1.0).clamp(0.0, 1.0), beyond.clamp(0.0, 1.0)
        area = (ahead.square() / 2 + behind - behind.square() / 2) * present.unsqueeze(1)
        weight = area[:, 2:] - area[:, :-2]
        return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-6)

    def _from_previous(self, *, first_is_new: bool) -> Tensor:
        """`[N, N]` product that takes from each row the previous one; the first row is kept or becomes 0."""
        eye = torch.eye(self.n_positions, device=self.scale.device, dtype=self.scale.dtype)
        kept = eye[:1] if first_is_new else torch.zeros_like(eye[:1])
        return torch.cat([kept, eye[1:] - eye[:-1]])

    def _clock(self, times: Tensor, by_count: _ByCount) -> list[Tensor]:
        """Position between first and last state, and step relative to the mean step, `[B, N, 1]` each."""
        present = by_count.present[..., 1:]
        place = ((1.0 - times / times[:, :1].clamp(min=1e-6)) * present).clamp(0.0, 1.0)
        pace = self._from_previous(first_is_new=True) @ place * by_count.steps
        return [place, pace.clamp(0.0, 4.0)]

    def _state_tokens(self, seen: _Seen, times: Tensor) -> Tensor:
        """One product. Its weights are kept by dimension: the value, four differences at each gain, time."""
        dimensions, gains = len(self.scale), len(self.gains)
        spread = torch.eye(4 * dimensions, device=times.device, dtype=times.dtype).unsqueeze(-1) * self.gains
        visible = torch.tanh(seen.differences @ spread.flatten(1))
        weight = (self.by_dimension.weight * self.own).unflatten(1, (dimensions, -1))
        value, differences, time = weight.split([1, 4 * gains, _STEP_FEATURES], dim=2)
        differences = differences.unflatten(2, (4, gains)).transpose(1, 2).flatten(1)
        rest = [time.sum(dim=1), self.by_dimension.bias.unsqueeze(1), self.positions.t()]
        weight = torch.cat([value.squeeze(2), differences, *rest], dim=1)
        number = torch.arange(self.n_positions, device=times.device, dtype=times.dtype)
        near = torch.relu(1.0 - (seen.by_count.place - number).abs())
        shown = [seen.x, visible, *self._clock(times, seen.by_count), seen.by_count.present, near]
        return torch.cat(shown, dim=-1) @ weight.t()

    def _shown(self, seen: _Seen) -> Tensor:
        sizes, course, relative, middle = self._movement(seen)
        visible = torch.cat([sizes, course, self._margins(sizes)], dim=1).unsqueeze(-1) * self.gains
        logs = torch.log(sizes.abs() + _SMALLEST_SIZE) - math.log(_USUAL_SIZE)
        rest = torch.cat([logs, relative, middle], dim=1)
        shown = [torch.tanh(visible), rest, seen.by_count.present[:, 0, :1]]
        flat = [part.reshape(-1, math.prod(int(number) for number in part.shape[1:])) for part in shown]
        return torch.cat(flat, dim=1)

    def margins(self, states: Tensor, count: Tensor) -> Tensor:
        """`[B, 2, 4]` by how much the window passes the rules' tests, below 0 where it fails; no fixed unit.

        First that a dimension moves most, in its direction, and goes on; then basin down, basin up, entropy
        spike and recovery, and any movement at all.
        """
        return self._margins(self._movement(self._see(states, count))[0])

    def _margins(self, sizes: Tensor) -> Tensor:
        looked_at = sizes[:, [_EXTENT, _TRAVELLED, _NET, _LATE, _UP, _FALL]].unsqueeze(1)
        tests = (looked_at * self.tests).sum(dim=2) - self.bounds
        moved_most, going, moved, rise, recovered, basins = tests.split([1, 3, 1, 1, 1, 2], dim=1)
        lead = moved_most - (moved_most - self.others).amax(dim=2).unsqueeze(1)
        going = torch.cat([going, lead], dim=1).amin(dim=1)
        rest = torch.cat([basins, torch.minimum(rise, recovered), moved], dim=1).amax(dim=2)
        return torch.stack([going, rest], dim=1)

    def _movement(self, seen: _Seen) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the window says of the movement as a whole.

        Returns:
            Sizes `[B, 15, 4]`, in this order: range of the window and of its tails; spread around the mean,
            mean and largest step; of the levels range and way travelled over parts that do not overlap; last
            state from the first, last level from the first, last part; highest and lowest level from the
            first and from the last one.
            Course `[B, levels - 1, 4]`: the levels from the first.
            The course without a scale, `[B, levels + 1, 4]`: levels, the highest and the lowest as shares of
            the range from the first level. No other number is divided by: what is nearly 0 there would make
            rounding visible.
            The middle `[B, 1, 4]`: mean of the levels.
        """
        views, dimensions = self._views(), len(self.scale)
        shown = (torch.cat(views) @ seen.levels).split([len(view) for view in views], dim=1)
        levels, parts, ends, moves, changes, course, middle = shown
        extent = self._highest_and_lowest(parts).sum(dim=1, keepdim=True)
        from_ends = ends.reshape(-1, 2, 2, dimensions) + self._highest_and_lowest(levels).unsqueeze(1)
        from_ends = from_ends.reshape(-1, 4, dimensions)
        _, from_mean, steps = seen.differences.split([2 * dimensions, dimensions, dimensions], dim=-1)
        spread = ((from_mean.square() * seen.by_count.share).sum(dim=1, keepdim=True) + 1e-12).sqrt()
        steps = steps.abs()
        step = (steps * seen.by_count.share).sum(dim=1, keepdim=True)
        sizes = [self._ranges(seen), spread, step, steps.amax(dim=1, keepdim=True), extent]
        sizes += [moves.abs().sum(dim=1, keepdim=True), changes, from_ends]
        up, down = from_ends[:, :1], from_ends[:, 1:2]
        relative = torch.cat([course, up, -down], dim=1) / (extent + _SMALLEST_RANGE)
        return torch.cat(sizes, dim=1), course, relative.clamp(-2.0, 2.0), middle

    def _ranges(self, seen: _Seen) -> Tensor:
        """`[B, 1 + tails, 4]` highest less lowest state."""
        x, beyond = seen.x.unsqueeze(2), seen.by_count.beyond.unsqueeze(-1)
        return (x - beyond).amax(dim=1) - (x + beyond).amin(dim=1)

    def _views(self) -> list[Tensor]:
        """Rows that show the levels `[3 + levels, 4]` in several ways; the parts of `_movement` in turn."""
        seen = torch.eye(3 + self.n_levels, device=self.scale.device, dtype=self.scale.dtype)
        first, last, level = seen[0], seen[1], seen[3:]
        parts = level[::2]
        return [
            torch.stack([level, -level], dim=1).flatten(0, 1),
            torch.stack([parts, -parts], dim=1).flatten(0, 1),
            torch.stack([-level[0], level[0], -level[-1], level[-1]]),
            parts[1:] - parts[:-1],
            torch.stack([last - first, level[-1] - level[0], level[-1] - level[self.n_levels // 2 + 1]]),
            level[1:] - level[:1],
            level.mean(dim=0, keepdim=True),
        ]

    def _highest_and_lowest(self, signed: Tensor) -> Tensor:
        """`[B, 2 L, 4]` levels, each with its negative after it, to `[B, 2, 4]`: highest, negative lowest."""
        return signed.reshape(-1, int(signed.shape[1]) // 2, 2, len(self.scale)).amax(dim=1)


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
        qkv = _split(nn.functional.linear(normed, weight, self.qkv.bias), 3 * self.heads)
        query, key, value = qkv.split(self.heads, dim=1)
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

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], absent: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One position of S sequences per window.

        Args:
            x: `[B, S, W]`.
            memory: Keys and values `[B, heads, L, D]` of the window.
            absent: `[B, 1, 1, L]` as in the encoder.
            past: Keys and values `[B, S, heads, steps, D]` of earlier positions, or None.
        """
        sequences, width = (int(number) for number in x.shape[1:])
        qkv = self.qkv(self.before_self(x)).reshape(-1, sequences, 3 * self.heads, 1, width // self.heads)
        query, key, value = qkv.split(self.heads, dim=2)
        seen = value
        if past is not None:
            key, value = torch.cat([past[0], key], dim=3), torch.cat([past[1], value], dim=3)
            scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)
            seen = scores.softmax(dim=-1) @ value
        x = x + self.self_out(seen.reshape(-1, sequences, width))
        query = _split(self.query(self.before_cross(x)), self.heads)
        x = x + self.cross_out(_attend(query, *memory, absent))
        return x + self.feed_forward(self.before_rise(x)), (key, value)


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

    def shown(self, states: Tensor, times: Tensor, mask: Tensor) -> Tensor:
        """`[B, F]` what windows show of themselves as a whole, before anything learned."""
        states, _, count = put_back(states, times, mask.sum(dim=1), self.config.window_length)
        return self.features.shown(states, count)

    def shape_from_summary(self, shown: Tensor) -> Tensor:
        """`[B, 9]` shape logits without the encoder, from what is `shown`: what training begins with."""
        return self.shape_head(self.after_pool(self.skip(self.features.summarise(shown))))

    def _init_weights(self, module: nn.Module) -> None:
        """Small normal weights for linear maps and embeddings."""
        if isinstance(module, nn.Linear | nn.Embedding):
            linear = isinstance(module, nn.Linear)
            module.weight.data.normal_(0.0, 0.7 / math.sqrt(module.weight.shape[-1]) if linear else 0.3)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.data.zero_()

    def encode(self, states: Tensor, times: Tensor, mask: Tensor) -> Encoded:
        """Encode windows; see `forward` for the inputs."""
        states, times, count = put_back(states, times, mask.sum(dim=1), self.config.window_length)
        tokens, summary = self.features(states, times, count)
        x = torch.cat([summary.unsqueeze(1), tokens], dim=1)
        absent = self._absent()[count]
        for layer in self.encoder:
            x = layer(x, absent)
        x = self.after_encoder(x)
        embedding = self.after_pool(self.pool(x[:, 0]) + self.skip(summary))
        shape_logits = self.shape_head(embedding)
        context = self.context(embedding) + self.shape_embedding(shape_logits.softmax(dim=-1))
        contexts = (context.unsqueeze(1) + self.step_embedding).split(1, dim=1)
        return Encoded(
            shape_logits, self.pattern_head(embedding), embedding, contexts, self._remember(x), absent
        )

    def _absent(self) -> Tensor:
        """`[N + 1, 1, 1, 1 + N]` by number of states: 0 for summary and states, very negative elsewhere."""
        number = torch.arange(self.config.window_length + 1, device=self.temperature.device)
        return ((number > number.unsqueeze(-1)).to(self.temperature.dtype) * _FORBIDDEN)[:, None, None]

    def _remember(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the window for each layer of the decoder, made once for all steps."""
        heads, parts = self.config.heads, [layer.key_value for layer in self.decoder]
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        every = _split(nn.functional.linear(x, weight, bias), 2 * heads * len(parts)).split(heads, dim=1)
        return list(zip(every[::2], every[1::2], strict=True))

    def step(
        self, encoded: Encoded, ids: Tensor, position: int, past: list[tuple[Tensor, Tensor]] | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One decoding position of S sequences per window.

        Args:
            encoded: The encoded windows.
            ids: `[B, S]` the ids said last; at position 0 the beginning, `[1, 1]` where it is all windows'.
            position: 0 to 3.
            past: What the step before returned.

        Returns:
            Hidden states `[B, S, W]`, and what the next step needs.
        """
        x = self.token_embedding(ids) + encoded.contexts[position]
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
        logits = self.token_head(hidden)
        return torch.where(self._legal(so_far), logits, torch.full_like(self.temperature, _FORBIDDEN))

    def _legal(self, so_far: list[Tensor]) -> Tensor:
        if not so_far:
            return self.legal_first
        tokens = len(self.config.tokens)
        if len(so_far) == 1:
            return self.legal_second[so_far[0]]
        only_pad = torch.arange(self.config.n_classes, device=self.legal_third.device) == self.config.pad_id
        ended = only_pad.expand(tokens, self.config.n_classes - tokens, -1)
        legal = torch.cat([self.legal_third, ended], dim=1).flatten(0, 1)
        return legal[so_far[0] * self.config.n_classes + so_far[1]]

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
        last, past = self.beginning(1, 1, encoded.embedding.device), None
        noises = None if noise is None else noise.split(1, dim=1)
        ids: list[Tensor] = []
        logits, spoken = [], []
        for position in range(self.config.decoding_steps):
            hidden, past = self.step(encoded, last, position, past)
            logits.append(self.logits(hidden, ids))
            last = (logits[-1] if noises is None else logits[-1] + noises[position]).argmax(dim=-1)
            ids.append(last)
            if position:
                spoken.append(hidden)
        spoken.append(self.step(encoded, last, self.config.decoding_steps, past)[0])
        said, words = torch.cat(ids, dim=1), self.lumen_head(torch.cat(spoken, dim=1)).argmax(dim=-1)
        has_word = (said < len(self.config.tokens)) & (words < len(self.config.lumen_words))
        words = torch.where(has_word, words, torch.tensor(-1))
        return said, torch.cat(logits, dim=1).softmax(dim=-1), words

    def _confidence(self, shape_probs: Tensor, ids: Tensor) -> Tensor:
        """Expected share of affine tokens among those said."""
        tokens = self.affinity.shape[1]
        table = torch.cat([self.affinity, torch.ones_like(self.affinity[:1])]).t()
        table = nn.functional.pad(table, (0, 0, 0, self.config.n_classes - tokens))
        affine, spoken = table[ids].sum(dim=1).split([len(self.affinity), 1], dim=1)
        return (affine / spoken * shape_probs).sum(dim=1)

    def conditionals(self, states: Tensor, times: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exact distribution over all expressions: `[B, 17]`, `[B, 15, 17]` and `[B, 15, 15, 17]`.

        Rows are the probabilities of the next id after each prefix of tokens.
        """
        encoded, batch, n = self.encode(states, times, mask), len(states), len(self.config.tokens)
        every = torch.arange(n, device=states.device).expand(batch, n)
        hidden, past = self.step(encoded, self.beginning(batch, 1, states.device), 0, None)
        first = self.logits(hidden, [])[:, 0]
        past = [(k.expand(-1, n, -1, -1, -1), v.expand(-1, n, -1, -1, -1)) for k, v in past]
        hidden, past = self.step(encoded, every, 1, past)
        second = self.logits(hidden, [every])
        past = [(k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)) for k, v in past]
        pairs = [every.repeat_interleave(n, dim=1), every.repeat(1, n)]
        hidden, _ = self.step(encoded, pairs[1], 2, past)
        third = self.logits(hidden, pairs).reshape(batch, n, n, -1)
        return first.softmax(dim=-1), second.softmax(dim=-1), third.softmax(dim=-1)
