"""Windows: the container, derivatives and summaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen.errors import WindowError
from eisv_lumen.windows import Windows, concatenate, derivatives, summaries


def random_windows(seed, n=3, length=12, holes=0.3, repeats=0.3):
    """Windows with states missing and with times that stand still."""
    rng = np.random.default_rng(seed)
    states = rng.random((n, length, 4)) * [1, 1, 1, 0.3]
    steps = rng.uniform(0.1, 5.0, (n, length)) * (rng.random((n, length)) > repeats)
    mask = rng.random((n, length)) > holes
    return Windows.of(states, np.cumsum(steps, axis=1), mask, rng.random((n, length)))


def derivatives_of_one(states, times):
    """The definition, state by state: intervals without time are skipped."""
    first, second, previous = [], [], None
    for k in range(len(times) - 1):
        step = times[k + 1] - times[k]
        if step == 0:
            continue
        slope = (states[k + 1] - states[k]) / step
        if previous is not None:
            second.append((slope - previous) / step)
        first.append(slope)
        previous = slope
    return np.array(first).reshape(-1, 4), np.array(second).reshape(-1, 4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_derivatives_and_summaries_follow_their_definition(seed):
    windows = random_windows(seed)
    rates, summary = derivatives(windows), summaries(windows)
    for n in range(len(windows)):
        here = windows.mask[n]
        states, times = windows.states[n, here], windows.times[n, here]
        first, second = derivatives_of_one(states, times)
        np.testing.assert_allclose(rates.first[n][rates.usable[n]], first)
        np.testing.assert_allclose(rates.second[n][rates.usable_second[n]], second)
        assert not rates.first[n][~rates.usable[n]].any()
        assert not rates.second[n][~rates.usable_second[n]].any()
        assert summary.n_states[n] == len(times)
        assert summary.duration[n] == pytest.approx(np.ptp(times) if len(times) else 0.0)
        np.testing.assert_allclose(summary.mean[n], states.mean(axis=0) if len(states) else 0.0)
        np.testing.assert_allclose(summary.first[n], first.mean(axis=0) if len(first) else 0.0, atol=1e-12)
        np.testing.assert_allclose(summary.second[n], second.mean(axis=0) if len(second) else 0.0, atol=1e-9)


def test_a_known_window():
    states = np.zeros((4, 4))
    states[:, 0] = [0.0, 0.2, 0.2, 0.6]
    summary = summaries(Windows.of(states, [0.0, 1.0, 3.0, 5.0]))
    assert summary.first[0, 0] == pytest.approx((0.2 + 0.0 + 0.2) / 3)
    assert summary.second[0, 0] == pytest.approx((-0.1 + 0.1) / 2)
    assert summary.duration[0] == 5.0


def test_values_behind_the_mask_do_not_matter():
    windows = random_windows(4, holes=0.4)
    spoilt = windows.states.copy()
    spoilt[~windows.mask] = np.nan
    ours, theirs = summaries(windows), summaries(Windows.of(spoilt, windows.times, windows.mask))
    for name in ("n_states", "duration", "mean", "first", "second"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("length", [1, 2])
def test_too_few_states_for_a_derivative_give_zero(length):
    summary = summaries(Windows.of(np.full((2, length, 4), 0.2), np.zeros((2, length))))
    assert not summary.first.any()
    assert not summary.second.any()


def test_no_windows_give_no_summaries():
    assert summaries(Windows.of(np.zeros((0, 20, 4)), np.zeros((0, 20)))).first.shape == (0, 4)


def test_one_window_may_be_given_without_its_axis():
    window = Windows.of(np.zeros((5, 4)), np.arange(5.0), np.ones(5, bool), np.zeros(5))
    assert len(window) == 1
    assert window.ethical_drift.shape == (1, 5)


@pytest.mark.parametrize(
    ("states", "times"), [((3, 5, 3), (3, 5)), ((5, 4), (4,)), ((3, 5, 4), (3, 6)), ((4,), (4,))]
)
def test_arrays_that_do_not_fit_are_refused(states, times):
    with pytest.raises(WindowError, match="found: states of shape"):
        Windows.of(np.zeros(states), np.zeros(times))


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(WindowError, match="mask"):
        Windows.of(np.zeros((2, 5, 4)), np.zeros((2, 5)), np.ones((2, 4), bool))


@pytest.mark.parametrize(
    ("index", "length"),
    [(0, 1), (-1, 1), (np.int64(2), 1), (slice(1, 3), 2), (np.array([True, False, True]), 2)],
)
def test_choosing_windows_keeps_all_their_arrays(index, length):
    chosen = random_windows(1)[index]
    assert len(chosen) == len(chosen.times) == len(chosen.mask) == len(chosen.ethical_drift) == length


def test_the_last_window_is_the_last():
    windows = random_windows(2)
    np.testing.assert_array_equal(windows[-1].states[0], windows.states[2])


def test_packing_keeps_the_states_present_in_order():
    windows = random_windows(7, n=20, holes=0.5)
    packed = windows.packed()
    for n in range(len(windows)):
        np.testing.assert_array_equal(packed.states[n][packed.mask[n]], windows.states[n][windows.mask[n]])
        np.testing.assert_array_equal(
            packed.ethical_drift[n][packed.mask[n]], windows.ethical_drift[n][windows.mask[n]]
        )
        assert packed.mask[n, : windows.counts[n]].all()
        assert not packed.mask[n, windows.counts[n] :].any()


def test_seconds_before_last():
    windows = Windows.of(np.zeros((1, 4, 4)), [[10.0, 12.0, 15.0, 99.0]], [[True, True, True, False]])
    np.testing.assert_array_equal(windows.seconds_before_last(), [[5.0, 3.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda states, times, mask: states.__setitem__((0, 3, 1), np.nan), "NaN"),
        (lambda states, times, mask: times.__setitem__((0, 3), np.inf), "NaN or infinite"),
        (lambda states, times, mask: states.__setitem__((0, 3, 3), 0.4), "states between"),
        (lambda states, times, mask: states.__setitem__((0, 3, 0), -0.1), "states between"),
        (lambda states, times, mask: times.__setitem__((0, 3), 0.5), "times that decrease"),
        (lambda states, times, mask: mask.__setitem__((0, slice(3, None)), False), "a window of 3 states"),
    ],
)
def test_validation_says_what_is_wrong(change, found):
    states, times, mask = np.full((2, 6, 4), 0.2), np.tile(np.arange(6.0), (2, 1)), np.ones((2, 6), bool)
    assert len(Windows.of(states, times, mask).validate()) == 2
    change(states, times, mask)
    with pytest.raises(WindowError, match=f"found: {found}"):
        Windows.of(states, times, mask).validate()


def test_validation_ignores_what_is_masked_out():
    states, times, mask = np.full((1, 6, 4), 0.2), np.arange(6.0)[None].copy(), np.ones((1, 6), bool)
    states[0, 2], times[0, 2], mask[0, 2] = np.nan, -5.0, False
    Windows.of(states, times, mask).validate()


def test_concatenation_keeps_drift_where_any_part_has_it():
    one, other = random_windows(1), random_windows(2)
    without = Windows.of(other.states, other.times, other.mask)
    both = concatenate([one, without])
    assert len(both) == 6
    np.testing.assert_array_equal(both.ethical_drift[:3], one.ethical_drift)
    assert not both.ethical_drift[3:].any()
    assert concatenate([without, without]).ethical_drift is None
