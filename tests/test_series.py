"""Cutting series: segments, bins and windows."""

import gzip

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen.series import bin_means, median_step, repeated, segments, sliding, window_starts


def series(times):
    times = np.asarray(times, float)
    return times, np.linspace(0, 0.3, len(times))[:, None] * np.ones(4)


def test_gaps_and_backward_steps_begin_segments():
    times = np.array([0, 2, 4, 6, 26, 28, 49, 51, 10, 12.0])
    assert median_step(times) == 2.0
    assert segments(times) == [slice(0, 6), slice(6, 8), slice(8, 10)]
    assert segments(times, factor=5) == [slice(0, 4), slice(4, 6), slice(6, 8), slice(8, 10)]
    assert segments(np.zeros(0)) == []
    assert segments(np.array([5.0])) == [slice(0, 1)]


def test_repeated_times_are_found():
    assert repeated(np.array([1, 1, 2, 2, 2, 3.0])).tolist() == [False, True, False, True, True, False]
    assert np.isnan(median_step(np.array([1.0, 1.0])))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.5, 2.0, 2.0, 2.0, 2.1, 30.0, -500.0]), min_size=1, max_size=200),
    stride=st.integers(1, 12),
)
def test_no_window_crosses_a_border(steps, stride):
    times, states = series(np.concatenate([[0.0], np.cumsum(steps)]))
    windows = sliding(states, times, length=8, stride=stride)
    limit = 10 * median_step(times) if (np.array(steps) > 0).any() else np.inf
    within = np.diff(windows.times, axis=1)
    assert (within >= 0).all() and (within <= limit).all()
    parts = segments(times)
    assert len(windows) == sum(len(window_starts(p.stop - p.start, 8, stride)) for p in parts)


def test_windows_are_consecutive_states():
    times, states = series(np.arange(45) * 2)
    windows = sliding(states, times)
    assert windows.states.shape == (3, 20, 4)
    assert windows.times[:, 0].tolist() == [0, 20, 40]
    assert np.array_equal(windows.states[1], states[10:30])
    assert len(sliding(states[:19], times[:19])) == 0


def test_bins_hold_means_and_stay_when_a_log_grows():
    times, states = series(1.7e9 + np.arange(1000) * 2.0)
    binned_times, binned = bin_means(times, states, 30.0)
    inside = (times >= 30 * (1.7e9 // 30 + 3)) & (times < 30 * (1.7e9 // 30 + 4))
    row = np.flatnonzero(np.abs(binned_times - times[inside].mean()) < 0.1)
    assert len(row) == 1
    np.testing.assert_allclose(binned[row[0]], states[inside].mean(axis=0))
    shorter_times, shorter = bin_means(times[:700], states[:700], 30.0)
    np.testing.assert_allclose(shorter_times[:-1], binned_times[: len(shorter_times) - 1])
    np.testing.assert_allclose(shorter[:-1], binned[: len(shorter) - 1])


def test_a_bin_with_few_states_is_left_out():
    times, states = series(np.arange(58, 200, 2))
    binned_times, _ = bin_means(times, states, 30.0)
    assert binned_times[0] >= 60
    assert [len(part) for part in bin_means(times[:0], states[:0], 30.0)] == [0, 0]


def test_real_clock_step_and_fault(shared_data):

    with gzip.open(shared_data / "piweather_sensehat.raw_order.csv.gz", "rt") as file:
        names = [line.split(",")[0][:-1] for line in file][1:]
    times = np.array(names, "datetime64[ms]").astype(np.int64) / 1000.0
    parts = segments(times)
    back = int(np.flatnonzero(np.diff(times) < 0)[0]) + 1
    assert back in [part.start for part in parts]
