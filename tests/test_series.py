"""Cutting series: segments and windows."""

import gzip

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen.series import median_step, repeated, segments, sliding, window_starts


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


def test_real_clock_step_and_fault(shared_data):

    with gzip.open(shared_data / "piweather_sensehat.raw_order.csv.gz", "rt") as file:
        names = [line.split(",")[0][:-1] for line in file][1:]
    times = np.array(names, "datetime64[ms]").astype(np.int64) / 1000.0
    parts = segments(times)
    back = int(np.flatnonzero(np.diff(times) < 0)[0]) + 1
    assert back in [part.start for part in parts]
