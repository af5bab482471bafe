"""The student's network against plainer forms of it: features one by one, attention over whole sequences.

The network computes them for all windows at once, in another order and with its weights rearranged. The
weights of published students mean what is written out here.
"""

import copy

import numpy as np
import pytest
import torch

from eisv_lumen import shapes, synthetic
from eisv_lumen.shapes import levels as levels_of
from eisv_lumen.vocabulary import SHAPE_ID, STATE_MAX
from eisv_lumen.windows import Windows, concatenate
from tests.student_folders import synthetic_windows, untrained
from training.student.augmentation import cut, drop
from training.student.batches import inputs_of
from training.student.modeling_eisv_lumen import put_back

TAILS = (0.5, 0.75)


@pytest.fixture(scope="module")
def model():
    model = untrained()
    torch.nn.init.normal_(model.features.by_dimension.bias)
    torch.nn.init.normal_(model.features.summary.bias)
    return model


def by_gain(values, gains):
    return np.tanh(values[..., None] * gains)


def numbers(module):
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def tokens_of(x, times, learned):
    """`[T, W]` from states `[T, 4]` and seconds before the last `[T]`."""
    count, order = len(x), np.arange(len(x)) / (len(x) - 1)
    place = 1 - times / max(times[0], 1e-6)
    pace = np.clip(np.diff(place, prepend=0.0) * (count - 1), 0, 4)
    place = np.clip(place, 0, 1)
    steps = np.diff(x, axis=0, prepend=x[:1])
    differences = np.stack([x - x[0], x - x[-1], x - x.mean(axis=0), steps], axis=-1)
    visible = by_gain(differences, learned["gains"]).reshape(count, 4, -1)
    common = np.stack([place, pace, np.full(count, count / 20)], axis=-1)
    common = np.repeat(common[:, None], 4, axis=1)
    features = np.concatenate([x[..., None], visible, common], axis=-1).reshape(count, -1)
    hats = np.maximum(0, 1 - np.abs(order[:, None] * 19 - np.arange(20)))
    weight = learned["by_dimension.weight"] * learned["own"]
    return features @ weight.T + learned["by_dimension.bias"] + hats @ learned["positions"]


def sizes_of(x, levels):
    """`[15, 4]` what is said of each dimension in absolute terms."""
    order, steps, parts = np.arange(len(x)) / (len(x) - 1), np.diff(x, axis=0), levels[::2]
    first, last, high, low = levels[0], levels[-1], levels.max(axis=0), levels.min(axis=0)
    found = [np.ptp(x[order >= start], axis=0) for start in (0.0, *TAILS)]
    found += [np.sqrt(x.var(axis=0) + 1e-12), np.abs(steps).sum(axis=0) / len(x), np.abs(steps).max(axis=0)]
    found += [np.ptp(parts, axis=0), np.abs(np.diff(parts, axis=0)).sum(axis=0), x[-1] - x[0]]
    found += [last - first, last - levels[len(levels) // 2 + 1]]
    return np.stack([*found, high - first, first - low, high - last, last - low])


def margins_of(levels):
    """`[2, 4]` by how much the rules' tests are passed, in tenths of the movement that counts as one."""
    net, late, extent = levels[-1] - levels[0], levels[-1] - levels[5], np.ptp(levels[::2], axis=0)
    most = extent / shapes.MOVED * (1, 0, 1, 1)
    going = []
    for d, way in enumerate((-1, 0, 1, 1)):
        tests = [extent[d] - shapes.MOVED[d], way * net[d] - shapes.DIRECTED * extent[d]]
        tests.append(way * late[d] - shapes.ONGOING * way * net[d])
        lead = most[d] - max(most[other] for other in (0, 2, 3) if other != d)
        going.append(min(*(test / shapes.MOVED[d] for test in tests), lead))
    rough = np.abs(np.diff(levels[::2, 1])).sum() - extent[1]
    moved = (extent - (0, shapes.ROUGHNESS * rough, 0, 0)) / shapes.MOVED - 1
    rise, fall = levels[:, 2].max() - levels[0, 2], levels[:, 2].max() - levels[-1, 2]
    spike = min(rise - shapes.SPIKE, fall - shapes.RECOVERED * rise) / shapes.MOVED[2]
    basins = [(way * net[0] - shapes.BASIN) / shapes.MOVED[0] for way in (-1, 1)]
    return np.array([going, [*basins, spike, moved.max()]]) / 10


def summary_of(x, levels, learned):
    """`[W]` from states `[T, 4]` and levels `[9, 4]`, both scaled."""
    sizes, course = sizes_of(x, levels), levels[1:] - levels[0]
    margins = margins_of(levels / learned["scale"])
    visible = by_gain(np.concatenate([sizes, course, margins]), learned["gains"])
    logs = np.log(np.abs(sizes) + 1e-3) - np.log(0.02)
    ends = np.stack([levels.max(axis=0) - levels[0], levels.min(axis=0) - levels[0]])
    relative = np.clip(np.concatenate([course, ends]) / (np.ptp(levels[::2], axis=0) + 3e-3), -2, 2)
    parts = [visible.ravel(), logs.ravel(), relative.ravel(), levels.mean(axis=0), [len(x) / 20]]
    hidden = learned["summary.weight"] @ np.concatenate(parts) + learned["summary.bias"]
    body = learned["summary_body.weight"] @ np.maximum(hidden, 0) + learned["summary_body.bias"]
    return np.maximum(body, 0)


@pytest.mark.parametrize("length", [4, 11, 20])
def test_the_margins_hold_where_the_rules_tests_do(model, length):
    """The first test that is passed names the shape, as in the rules."""
    made = synthetic.generate(np.arange(2000) % 9, np.random.default_rng(3), cadence=10.0)
    walks = np.random.default_rng(4).normal(0, 0.01, (2000, 20, 4)).cumsum(axis=1) * (1, 4, 1, 0.5)
    walks = Windows.of(np.clip(walks + (0.5, 0.5, 0.5, 0.15), 0, STATE_MAX), made.times)
    windows = cut(concatenate([made, walks]), 0, length)
    inputs = inputs_of(windows)
    with torch.inference_mode():
        going, rest = model.features.margins(inputs["states"], inputs["mask"].sum(dim=1)).unbind(dim=1)
    down, up, spike, moved = rest.unbind(dim=1)
    tests = torch.stack([down, up, spike, going[:, 3], going[:, 2], going[:, 0], moved], dim=1)
    names = ("basin_transition_down", "basin_transition_up", "entropy_spike_recovery", "void_rising")
    names += ("rising_entropy", "falling_energy", "convergence", "settled_presence")
    passed = torch.cat([tests >= 0, torch.ones(len(tests), 1, dtype=torch.bool)], dim=1)
    found = np.array([SHAPE_ID[name] for name in names])[passed.int().argmax(dim=1)]
    label, margin = shapes.robust_with_margin(windows)
    sure = margin > 1e-6
    assert sure.mean() > 0.99 and len(np.unique(label[sure])) >= 7
    np.testing.assert_array_equal(found[sure], label[sure])


@pytest.mark.parametrize("length", [4, 5, 13, 20])
def test_features_are_what_is_written_out_here(model, length):
    windows = cut(synthetic_windows(9)[0], 0, length)
    inputs, learned = inputs_of(windows), numbers(model.features)
    with torch.inference_mode():
        tokens, summary = model.features(inputs["states"], inputs["times"], inputs["mask"].sum(dim=1))
    levels = levels_of(windows) * learned["scale"]
    for number, (states, times) in enumerate(zip(inputs["states"], inputs["times"], strict=True)):
        x = states.double().numpy() * learned["scale"]
        expected = tokens_of(x, times.double().numpy(), learned)
        np.testing.assert_allclose(tokens[number, :length], expected, atol=2e-5)
        assert (tokens[number, length:] == 0).all()
        expected = summary_of(x, levels[number], learned)
        np.testing.assert_allclose(summary[number], expected, atol=2e-4, rtol=1e-4)


def test_lengths_in_one_batch_do_not_mix(model):
    windows = synthetic_windows(9)[0]
    inputs = inputs_of(windows)
    count = torch.tensor([4, 20, 7, 11, 5, 19, 20, 13, 6])
    with torch.inference_mode():
        together = model.features(inputs["states"], inputs["times"], count)
        for number, length in enumerate(count.tolist()):
            states = inputs["states"][number : number + 1, :length]
            times = inputs["times"][number : number + 1, :length]
            alone = model.features(states, times, count[number : number + 1])
            for one, other in zip(together, alone, strict=True):
                np.testing.assert_allclose(one[number], other[0], atol=1e-5)


def test_the_room_behind_a_window_is_not_attended_to(model):
    inputs = inputs_of(cut(synthetic_windows(9)[0], 0, 11))
    noise = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))

    def fill(module, arguments, shown):
        tokens, summary = shown
        return tokens + (torch.arange(20) >= 11)[:, None] * noise, summary

    with torch.inference_mode():
        expected = model(**inputs)
        hook = model.features.register_forward_hook(fill)
        found = model(**inputs)
        hook.remove()
    for name in ("shape_probs", "token_probs", "embedding"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def restored(windows):
    """What the network makes of windows, as arrays: states, times, count."""
    inputs = inputs_of(windows)
    return [
        part.numpy() for part in put_back(inputs["states"], inputs["times"], inputs["mask"].sum(dim=1), 20)
    ]


def without(windows, lost):
    mask = np.ones(windows.mask.shape, bool)
    mask[:, lost] = False
    return Windows(windows.states, windows.times, mask)


def straight(clock):
    """Windows that go straight on in the order of their states, whatever the clock `[T]` says."""
    line = np.linspace(0.0, 1.0, len(clock))[:, None]
    return Windows.of(0.2 + line * (0.1, 0.2, -0.05, 0.02), clock)


@pytest.mark.parametrize("lost", [[5], [3, 4, 5], [1, 7, 8, 18]])
def test_lost_states_stand_again_on_the_line_between_their_neighbours(lost):
    clock = np.arange(20.0) * 30 + np.random.default_rng(0).uniform(-5, 5, 20)
    windows = straight(clock)
    states, times, count = restored(without(windows, lost))
    assert count == 20
    np.testing.assert_allclose(states, windows.states, atol=1e-6)
    kept = np.setdiff1d(np.arange(20), lost)
    np.testing.assert_allclose(times[0, kept], (clock[-1] - clock)[kept], atol=1e-3)


def test_a_window_without_losses_stays_as_it_is():
    paused = np.cumsum(np.r_[0.0, np.ones(9), 8.0, np.ones(9)])
    jittered = np.arange(20.0) + np.random.default_rng(1).uniform(-0.2, 0.2, 20)
    for windows in (straight(paused), straight(jittered), cut(straight(jittered), 0, 7)):
        states, times, count = restored(windows)
        length = windows.mask.shape[1]
        assert count == length
        np.testing.assert_allclose(states[:, :length], windows.states, atol=1e-6)
        np.testing.assert_allclose(times[:, :length], windows.seconds_before_last(), atol=1e-5)


def test_no_more_states_stand_again_than_a_window_has_room_for():
    clock = np.cumsum(np.r_[0.0, np.ones(9), 9.0, np.ones(5), 9.0, 1.0])
    states, times, count = restored(straight(clock))
    assert count == 20 and times[0, 0] == clock[-1] and times[0, -1] == 0
    assert (np.diff(states[0, :, 0]) > 0).all()


def test_losses_in_one_batch_do_not_mix():
    windows = synthetic_windows(18)[0]
    rough = drop(windows, np.linspace(0, 0.5, 18), np.random.default_rng(0))
    together = restored(rough)
    for number in range(18):
        for one, other in zip(together, restored(rough[number]), strict=True):
            np.testing.assert_allclose(one[number], other[0], atol=1e-6)


def test_states_at_one_time_are_no_loss():
    clock = np.repeat(np.arange(6.0), 3)
    states, _, count = restored(straight(clock))
    assert count == 18
    assert np.isfinite(states).all()


def test_a_window_is_heard_alike_whether_states_on_a_line_are_there_or_lost(model):
    windows = synthetic_windows(9)[0]
    states = windows.states.copy()
    states[:, 6] = (states[:, 5] + states[:, 7]) / 2
    whole = Windows.of(states, np.tile(np.arange(20.0), (9, 1)))
    with torch.inference_mode():
        expected, found = model(**inputs_of(whole)), model(**inputs_of(without(whole, [6])))
    for name in ("shape_probs", "token_probs", "embedding"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_runs_in_other_precisions(model, dtype):
    inputs = inputs_of(synthetic_windows(9)[0])
    expected = model(**inputs).shape_probs
    other = copy.deepcopy(model).to(dtype)
    inputs |= {name: inputs[name].to(dtype) for name in ("states", "times")}
    with torch.inference_mode():
        found = other(**inputs).shape_probs
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < (0.5 if dtype == torch.bfloat16 else 1e-4)


def by_head(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def test_each_decoder_layer_remembers_its_own_keys_and_values():
    model = untrained(width=32, encoder_layers=1, decoder_layers=2, feed_forward=64)
    seen = []
    hook = model.after_encoder.register_forward_hook(lambda module, arguments, x: seen.append(x))
    with torch.inference_mode():
        encoded = model.encode(**inputs_of(synthetic_windows(9)[0]))
        hook.remove()
        for layer, found in zip(model.decoder, encoded.memory, strict=True):
            for part, expected in zip(found, layer.key_value(seen[0]).chunk(2, dim=-1), strict=True):
                np.testing.assert_allclose(part, by_head(expected, layer.heads), atol=1e-5)


def test_decoding_step_by_step_is_causal_attention(model):
    """A layer that keeps keys and values, against torch's attention over whole sequences."""
    layer, attend = model.decoder[0], torch.nn.functional.scaled_dot_product_attention
    generator = torch.Generator().manual_seed(0)
    x, encoded = (torch.randn(5, length, 32, generator=generator) for length in (3, 21))
    absent = torch.zeros(5, 1, 1, 21)
    absent[2, ..., 9:] = -1e9
    with torch.inference_mode():
        memory = tuple(by_head(part, layer.heads) for part in layer.key_value(encoded).chunk(2, dim=-1))
        parts = (by_head(part, layer.heads) for part in layer.qkv(layer.before_self(x)).chunk(3, dim=-1))
        back = x + layer.self_out(attend(*parts, is_causal=True).transpose(1, 2).flatten(2))
        query = by_head(layer.query(layer.before_cross(back)), layer.heads)
        across = attend(query, *memory, attn_mask=absent).transpose(1, 2).flatten(2)
        expected = back + layer.cross_out(across)
        expected = expected + layer.feed_forward(layer.before_rise(expected))
        past = None
        for position in range(3):
            found, past = layer(x[:, position : position + 1], memory, absent, past)
            np.testing.assert_allclose(found[:, 0], expected[:, position], atol=1e-5)


def test_steps_at_once_are_steps_one_by_one(model):
    inputs = inputs_of(synthetic_windows(9)[0])
    said = torch.tensor([[3, 4], [0, 14], [7, 7]])
    with torch.inference_mode():
        encoded = model.encode(**inputs)
        together, past = model.step(encoded, said[:, 0].expand(9, 3), 1, start_of(model, encoded, 3))
        later, _ = model.step(encoded, said[:, 1].expand(9, 3), 2, past)
        for number, (first, second) in enumerate(said.tolist()):
            alone, past = model.step(encoded, torch.full((9, 1), first), 1, start_of(model, encoded, 1))
            np.testing.assert_allclose(together[:, number], alone[:, 0], atol=1e-5)
            alone, _ = model.step(encoded, torch.full((9, 1), second), 2, past)
            np.testing.assert_allclose(later[:, number], alone[:, 0], atol=1e-5)


def start_of(model, encoded, sequences):
    _, past = model.step(encoded, model.beginning(1, 1), 0, None)
    return [tuple(part.expand(-1, sequences, -1, -1, -1) for part in pair) for pair in past]
