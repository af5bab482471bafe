"""Spooled states: the same however they arrive, and what is computed from them without loading them whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builder import spool
from dataset_builder.binning import binned
from dataset_builder.spool import SpoolWriter
from eisv_lumen.series import median_step, segments


def steps_of(n, seed, reboots=2, gaps=3):
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.5, 3.0, n)
    steps[rng.integers(0, n, gaps)] = rng.uniform(100, 9000, gaps)
    steps[rng.integers(0, n, reboots)] = -rng.uniform(10, 500, reboots)
    return 1.7e9 + np.cumsum(steps), rng.random((n, 4)).astype(np.float32)


def spooled(folder, times, states, pieces=1):
    writer = SpoolWriter(folder)
    for t, s in zip(np.array_split(times, pieces), np.array_split(states, pieces), strict=True):
        writer.append(t, s)
    return writer.finish()


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6000), seed=st.integers(0, 99), pieces=st.integers(1, 40))
def test_a_spool_is_the_same_however_its_states_arrive(tmp_path_factory, n, seed, pieces):
    folder = tmp_path_factory.mktemp("spool")
    times, states = steps_of(n, seed)
    found = spooled(folder / "a", times, states, pieces)
    assert len(found) == n
    read = found.read(0, n)
    assert np.array_equal(read[0], times) and np.array_equal(read[1], states)
    assert np.array_equal(found.index, times[::1024])
    step = median_step(times)
    assert found.step == step or (np.isnan(found.step) and np.isnan(step))
    assert list(found.parts()) == [(part.start, part.stop) for part in segments(times)]
    assert found.span == (times.min(), times.max())
    assert np.array_equal(found.sample_times(), np.sort(times))
    forward = np.diff(times)[np.diff(times) > 0]
    assert np.array_equal(found.steps, np.histogram(forward, spool.STEP_EDGES)[0])
    long = forward[forward > 10 * step] if n > 1 else forward
    assert found.gaps().sum() == len(long)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 6000), seed=st.integers(0, 99), low=st.floats(0, 1), high=st.floats(0, 1))
def test_states_between_two_moments(tmp_path_factory, n, seed, low, high):
    times, states = steps_of(n, seed)
    found = spooled(tmp_path_factory.mktemp("spool") / "a", times, states)
    start, end = times.min() + np.sort([low, high]) * np.ptp(times)
    order = np.argsort(times, kind="stable")
    inside = order[(times[order] >= start) & (times[order] <= end)]
    t, s = found.within(start, end)
    assert np.array_equal(t, times[inside]) and np.array_equal(s, states[inside])


def test_long_logs_are_sampled_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "_SAMPLE", 256)
    times = 1.7e9 + np.arange(10_000) * 2.0
    found = spooled(tmp_path / "a", times, np.zeros((10_000, 4)), 7)
    assert np.array_equal(found.sample_times(), times[::40])
    assert found.step == 2.0


@pytest.mark.parametrize("chunk", [7, 100, 1 << 16])
def test_bins_are_means_whatever_the_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(spool, "CHUNK", chunk)
    times, states = steps_of(3000, 5, reboots=1, gaps=2)
    found = spooled(tmp_path / "a", times, states)
    coarse = binned(found, 30.0, tmp_path / "b")
    expected = []
    for first, last in found.parts():
        t, s = times[first:last], states[first:last]
        number = np.floor(t / 30.0)
        for one in np.unique(number):
            inside = number == one
            if 2 * inside.sum() >= 30.0 / found.step:
                expected.append((t[inside].mean(), *s[inside].mean(axis=0)))
    t, s = coarse.read(0, len(coarse))
    np.testing.assert_allclose(t, [row[0] for row in expected], atol=1e-4, rtol=0)
    np.testing.assert_allclose(s, [row[1:] for row in expected], atol=1e-6)
    assert len(coarse.segments) == len(found.segments)
    assert binned(found, 1.2 * found.step, tmp_path / "c") is None


def test_bins_stay_where_they_are_when_a_log_grows(tmp_path):
    times = 1.7e9 + np.arange(1000) * 2.0
    states = np.random.default_rng(0).random((1000, 4))
    whole = binned(spooled(tmp_path / "a", times, states), 30.0, tmp_path / "b")
    part = binned(spooled(tmp_path / "c", times[:700], states[:700]), 30.0, tmp_path / "d")
    n = len(part) - 1
    assert n > 40
    assert np.array_equal(whole.read(0, n)[0], part.read(0, n)[0])
    assert np.array_equal(whole.read(0, n)[1], part.read(0, n)[1])
