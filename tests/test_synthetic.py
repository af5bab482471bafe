"""Synthetic windows: the shape asked for, at any cadence, from a seed."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen import series, shapes, synthetic
from eisv_lumen.errors import InputError
from eisv_lumen.vocabulary import N_SHAPES, SHAPE_ID, SHAPES, STATE_MAX
from eisv_lumen.windows import GAP_FACTOR, Windows

DRIFT = SHAPE_ID["drift_dissonance"]
CADENCES = [0.1, 1.0, 2.0, 10.0, 30.0, 60.0, 300.0]


@pytest.fixture(scope="module")
def many():
    """2,700 windows, all shapes in turn, at all cadences; and their ids."""
    ids = np.arange(2700) % N_SHAPES
    cadences = np.repeat(np.resize(CADENCES, 300), N_SHAPES)
    return synthetic.generate(ids, np.random.default_rng(5), cadence=cadences), ids, cadences


def test_each_window_has_the_shape_asked_for(many):
    windows, ids, _ = many
    np.testing.assert_array_equal(shapes.robust(windows), ids)


def test_the_label_survives_the_sensors_quantisation(many):
    windows, ids, _ = many
    rounded = Windows.of(windows.states.round(3), windows.times, ethical_drift=windows.ethical_drift)
    np.testing.assert_array_equal(shapes.robust(rounded), ids)


def test_windows_are_valid_and_void_stays_in_its_range(many):
    windows, _, _ = many
    windows.validate(min_states=20)
    assert windows.states.min() >= 0
    assert (windows.states.max(axis=(0, 1)) <= [1, 1, 1, 0.3]).all()


def test_the_cadence_is_the_median_step(many):
    windows, _, cadences = many
    median = np.median(np.diff(windows.times, axis=1), axis=1)
    assert (np.abs(median / cadences - 1) < 0.2).all()
    assert (np.diff(windows.times, axis=1) > 0).all()


def relative_steps(windows):
    """Steps of every window in its own median steps."""
    steps = np.diff(windows.times, axis=1)
    return steps / np.median(steps, axis=1, keepdims=True)


def test_steps_are_uneven_with_pauses_and_hasty_ones_at_every_cadence(many):
    windows, _, cadences = many
    for cadence in CADENCES:
        steps = relative_steps(windows[cadences == cadence])
        even = (np.abs(steps - 1) < 1e-6).all(axis=1)
        assert 0.2 < even.mean() < 0.4
        assert 0.06 < (steps > 1.4).any(axis=1).mean() < 0.2
        assert 0.02 < (steps < 0.6).any(axis=1).mean() < 0.15


def test_pauses_come_close_to_a_gap_and_none_is_one(many):
    windows, *_ = many
    longest = relative_steps(windows).max(axis=1)
    assert (longest > 8).mean() > 0.01
    assert longest.max() < GAP_FACTOR
    assert all(len(series.segments(times)) == 1 for times in windows.times)


def on_grid(windows, resolution):
    """`[N]` bool: all states are multiples of a share of their range."""
    multiples = windows.states / (resolution * STATE_MAX)
    return (np.abs(multiples - multiples.round()) < 1e-6).all(axis=(1, 2))


def test_some_windows_are_rounded_to_each_resolution_at_every_cadence(many):
    windows, _, cadences = many
    for cadence in CADENCES:
        here = windows[cadences == cadence]
        written, digits, tenths, twentieths = (on_grid(here, step) for step in synthetic.RESOLUTIONS)
        for rounded in (twentieths, tenths, digits & ~tenths & ~twentieths, written & ~digits):
            assert 0.04 < rounded.mean() < 0.17
        assert 0.5 < 1 - (written | digits | tenths | twentieths).mean() < 0.7


def test_every_shape_meets_every_disturbance(many):
    windows, ids, _ = many
    steps = relative_steps(windows)
    disturbed = [on_grid(windows, step) for step in synthetic.RESOLUTIONS]
    disturbed += [(steps > 1.4).any(axis=1), (steps < 0.6).any(axis=1)]
    for rows in disturbed:
        assert (np.bincount(ids[rows], minlength=N_SHAPES) >= 3).all()


def test_integrity_is_the_noisiest_dimension_and_no_window_is_without_noise(many):
    windows, *_ = many
    bends = np.abs(np.diff(windows.states, 2, axis=1))
    rough = np.median(bends, axis=1)
    assert (np.median(rough, axis=0)[1] > 3 * np.median(rough, axis=0)[[0, 2, 3]]).all()
    bare = synthetic.generate(np.arange(270) % N_SHAPES, np.random.default_rng(0), cadence=2.0, noise="none")
    assert (rough.max(axis=1) > 0).mean() > 0.98
    assert not on_grid(bare, 1e-4).any()


def test_many_windows_are_made_in_a_moment():
    start = time.process_time()
    synthetic.generate(np.arange(18_000) % N_SHAPES, np.random.default_rng(0), cadence=30.0)
    assert time.process_time() - start < 1.0


def test_only_drift_dissonance_carries_ethical_drift(many):
    windows, ids, _ = many
    highest = windows.ethical_drift.max(axis=1)
    assert (highest[ids == DRIFT] > shapes.DRIFT_LIMIT).all()
    assert (highest[ids != DRIFT] <= shapes.DRIFT_LIMIT).all()


def test_drift_dissonance_can_be_told_from_the_states_alone(many):
    windows, ids, _ = many
    blind = Windows.of(windows.states, windows.times)
    np.testing.assert_array_equal(synthetic.swings_against(blind), ids == DRIFT)


def test_windows_are_varied(many):
    windows, ids, _ = many
    base = windows.states.mean(axis=1)
    for shape in range(N_SHAPES):
        spread = base[ids == shape].std(axis=0)
        assert (spread > [0.1, 0.08, 0.05, 0.03]).all(), SHAPES[shape]
        # Every window's own course, not one course shifted and scaled: many directions are needed.
        courses = windows.states[ids == shape][:, :, [0, 2, 3]] / shapes.MOVED[[0, 2, 3]]
        courses = (courses - courses.mean(axis=1, keepdims=True)).reshape(-1, 60)
        courses /= np.linalg.norm(courses, axis=1, keepdims=True)
        share = np.linalg.svd(courses, compute_uv=False) ** 2 / len(courses)
        assert share[0] < 0.9, SHAPES[shape]


@pytest.mark.parametrize("noise", synthetic.NOISES)
def test_the_same_seed_gives_the_same_windows(noise):
    ids = np.arange(45) % N_SHAPES
    one, same, other = (
        synthetic.generate(ids, np.random.default_rng(seed), cadence=2.0, noise=noise) for seed in (3, 3, 4)
    )
    for name in ("states", "times", "ethical_drift"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert (one.states != other.states).any(axis=(1, 2)).all()


def test_without_noise_steps_are_even_and_courses_smooth():
    ids = np.full(200, SHAPE_ID["rising_entropy"])
    bare = synthetic.generate(ids, np.random.default_rng(0), cadence=5.0, noise="none")
    noisy = synthetic.generate(ids, np.random.default_rng(0), cadence=5.0)
    np.testing.assert_allclose(np.diff(bare.times, axis=1), 5.0)
    assert np.ptp(np.diff(noisy.times, axis=1)) > 1.0
    turns = [(np.diff(np.sign(np.diff(w.states[..., 2], axis=1)), axis=1) != 0).mean() for w in (bare, noisy)]
    assert turns[0] < 0.1 < turns[1]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cadence=st.floats(1e-2, 1e4),
    length=st.integers(8, 40),
    n=st.integers(0, 12),
)
def test_any_cadence_and_length(seed, cadence, length, n):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, N_SHAPES, n)
    windows = synthetic.generate(ids, generator, cadence=cadence, length=length)
    assert windows.states.shape == (n, length, 4)
    np.testing.assert_array_equal(shapes.robust(windows), ids)


@pytest.mark.parametrize("rules", shapes.RULE_SETS)
def test_both_rule_sets_agree_on_the_canonical_windows(rules):
    labels = shapes.classify(synthetic.canonical_windows(), rules)
    assert [SHAPES[label] for label in labels] == list(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_canonical_windows_are_valid_clear_and_always_the_same(shape):
    window = synthetic.canonical(shape).validate()
    assert len(window) == 1
    assert shapes.margin(window)[0] > 0.004
    np.testing.assert_array_equal(window.states, synthetic.canonical(shape).states)
    assert (window.ethical_drift.max() > shapes.DRIFT_LIMIT) == (shape == "drift_dissonance")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"shape_ids": np.array([9])}, "shape ids"),
        ({"shape_ids": np.array([[0]])}, "shape ids"),
        ({"cadence": 0.0}, "a cadence"),
        ({"cadence": np.nan}, "a cadence"),
        ({"length": 7}, "windows of 7 states"),
        ({"noise": "pink"}, "noise 'pink'"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, found):
    usual = {"shape_ids": np.array([0]), "generator": np.random.default_rng(0), "cadence": 2.0}
    with pytest.raises(InputError, match=f"found: {found}"):
        synthetic.generate(**usual | arguments)


def test_an_unknown_canonical_shape_is_refused():
    with pytest.raises(InputError, match="found: shape 'spiral'"):
        synthetic.canonical("spiral")
