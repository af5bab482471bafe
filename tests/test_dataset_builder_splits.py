"""Splits: by time, with nothing of one split in a window of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builder.splits import PURGED, TEST, TRAIN, VALIDATION, assign, runs
from eisv_lumen.series import Series


def series(n, step=2.0, reboots=0, gaps=0, seed=0):
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.8, 1.2, n) * step
    for at in rng.integers(0, max(n, 1), gaps)[:n]:
        steps[at] += 5000.0
    for at in rng.integers(0, max(n, 1), reboots)[:n]:
        steps[at] = -rng.uniform(10, 500)
    return Series.of(1.7e9 + np.cumsum(steps), np.zeros((n, 4)))


def split_of(s, purge=20, longest=40.0, seed=0, marks=None):
    generator = np.random.default_rng(seed)
    return assign(s, shares=(0.1, 0.1), purge=purge, longest=longest, generator=generator, marks=marks)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 1500),
    reboots=st.integers(0, 3),
    gaps=st.integers(0, 5),
    seed=st.integers(0, 1000),
    longest=st.sampled_from([40.0, 600.0, 6000.0]),
)
def test_runs_are_pure_and_cover_all_that_is_not_purged(n, reboots, gaps, seed, longest):
    s = series(n, reboots=reboots, gaps=gaps, seed=seed)
    split = split_of(s, longest=longest, seed=seed)
    covered = np.zeros(n, int)
    for which in (TRAIN, VALIDATION, TEST):
        for run in runs(s, split, which):
            assert (split[run] == which).all()
            assert any(part.start <= run.start and run.stop <= part.stop for part in s.segments)
            covered[run] += 1
    assert (covered == (split != PURGED)).all()
    # In order of the clock, two splits never touch.
    ordered = split[np.argsort(s.times, kind="stable")]
    borders = np.flatnonzero(np.diff(ordered))
    assert all(PURGED in (ordered[b], ordered[b + 1]) for b in borders)


@pytest.mark.parametrize("n", [400, 5000, 40_000])
def test_shares_are_about_a_tenth(n):
    split = split_of(series(n))
    for which in (VALIDATION, TEST):
        assert 0.07 < (split == which).mean() < 0.13
    assert (split == TRAIN).mean() > 0.6


def test_short_series_hold_out_what_fits():
    def sizes(n):
        split = split_of(series(n))
        return [(split == which).sum() for which in (TRAIN, VALIDATION, TEST)]

    train, validation, test = sizes(120)
    assert validation >= 20 and test >= 20 and train >= 60
    train, validation, test = sizes(50)
    assert (validation, test) == (0, 20) and train >= 20
    assert sizes(30) == [30, 0, 0]


def test_shapes_are_spread_over_the_splits():
    s = series(20_000)
    shapes = np.zeros(2000, int)
    shapes[::100] = 1
    marks = (s.times[::10], shapes)
    missed = 0
    for seed in range(20):
        split = split_of(s, seed=seed, marks=marks)[::10]
        missed += not ((shapes == 1) & (split == TEST)).any()
    assert missed == 0


def test_the_choice_is_the_seeds():
    s = series(5000)
    assert np.array_equal(split_of(s, seed=3), split_of(s, seed=3))
    assert not np.array_equal(split_of(s, seed=3), split_of(s, seed=4))
