"""Splits: by time, with nothing of one split in a window of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builder.configuration import DatasetSettings, SplitSettings
from dataset_builder.cutting import Scale, batches, stretches, whole, with_shapes
from dataset_builder.planning import Recorded, plan_together, together
from dataset_builder.splits import PURGED, TEST, TRAIN, VALIDATION, Piece, Plan, choose_blocks, purged
from dataset_builder.spool import SpoolWriter
from eisv_lumen.shapes import classify


def times_of(n, step=2.0, reboots=0, gaps=0, seed=0):
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.8, 1.2, n) * step
    for at in rng.integers(0, max(n, 1), gaps)[:n]:
        steps[at] += 5000.0
    for at in rng.integers(0, max(n, 1), reboots)[:n]:
        steps[at] = -rng.uniform(10, 500)
    return 1.7e9 + np.cumsum(steps)


def scale_of(folder, times, purge=20):
    writer = SpoolWriter(folder / "states")
    writer.append(times, np.zeros((len(times), 4)))
    series = writer.finish()
    made = DatasetSettings(scales=("native",), splits=SplitSettings(purge_states=purge))
    return Scale("native", series.step, series), made


def planned(folder, times, seed=0, purge=20):
    scale, made = scale_of(folder, times, purge)
    (plan,) = plan_together([Recorded(scale.series, [scale])], made, np.random.default_rng(seed))
    return plan, scale


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 4000), reboots=st.integers(0, 3), gaps=st.integers(0, 5), seed=st.integers(0, 1000))
def test_stretches_are_pure_and_cover_all_that_is_not_purged(tmp_path_factory, n, reboots, gaps, seed):
    times = times_of(n, reboots=reboots, gaps=gaps, seed=seed)
    plan, scale = planned(tmp_path_factory.mktemp("plan"), times, seed)
    split = plan.of(times)
    covered = np.zeros(n, int)
    for stretch in stretches(scale, plan):
        assert (split[stretch.start : stretch.stop] == stretch.split).all()
        parts = list(scale.series.parts())
        assert any(first <= stretch.start and stretch.stop <= last for first, last in parts)
        covered[stretch.start : stretch.stop] += 1
    assert (covered == (split != PURGED)).all()
    # In order of the clock, what lies between two splits is left out: some states of a short log, of a longer
    # one twenty steps. Where the recording itself paused for longer, no state need be lost.
    order = np.argsort(times, kind="stable")
    ordered, pauses = split[order], np.diff(times[order])
    changes = np.flatnonzero(np.diff(ordered))
    assert all(PURGED in ordered[at : at + 2] or pauses[at] > 15 * scale.series.step for at in changes)
    if n >= 700:
        kept = np.sort(times[split != PURGED])
        changes = np.flatnonzero(np.diff(plan.of(kept)))
        assert (kept[changes + 1] - kept[changes] > 15 * scale.series.step).all()


def test_batches_classified_together_keep_their_labels(tmp_path):
    times = times_of(12000, gaps=60, seed=4)
    writer = SpoolWriter(tmp_path / "states")
    writer.append(times, np.random.default_rng(4).uniform(0, 0.3, (len(times), 4)).cumsum(axis=0) % 0.3)
    series, made = writer.finish(), DatasetSettings(scales=("native",), stride=1)
    cut = list(enumerate(batches(Scale("native", series.step, series), whole(series), made)))
    assert len(cut) > 40 and sum(len(batch) for _, batch in cut) > 2 * 4096
    found = list(with_shapes(iter(cut)))
    assert [(number, batch) for number, batch, *_ in found] == cut
    for _, batch, windows, shapes in found:
        own = batch.windows()
        np.testing.assert_array_equal(windows.states, own.states)
        np.testing.assert_array_equal(windows.times, own.times)
        np.testing.assert_array_equal(shapes, classify(own))
    assert len(np.unique(np.concatenate([shapes for *_, shapes in found]))) > 2
    assert list(with_shapes(iter([]))) == []


def test_a_clock_set_back_puts_the_same_time_into_the_same_split(tmp_path):
    times = times_of(9000)
    twice = np.concatenate([times[:6000], times[4000:]])
    plan, scale = planned(tmp_path, twice)
    assert np.array_equal(plan.of(twice[4000:6000]), plan.of(twice[6000:8000]))
    again = {stretch.again for stretch in stretches(scale, plan)}
    assert again == {0, 1}


@pytest.mark.parametrize("n", [700, 5000, 40_000])
def test_shares_are_about_a_tenth(tmp_path, n):
    times = times_of(n)
    split = planned(tmp_path, times)[0].of(times)
    for which in (VALIDATION, TEST):
        assert 0.07 < (split == which).mean() < 0.13
    assert (split == TRAIN).mean() > 0.6


def test_short_series_hold_out_what_fits(tmp_path):
    def sizes(n):
        times = times_of(n)
        split = planned(tmp_path / str(n), times)[0].of(times)
        return [(split == which).sum() for which in (TRAIN, VALIDATION, TEST)]

    train, validation, test = sizes(120)
    assert validation >= 20 and test >= 20 and train >= 60
    train, validation, test = sizes(50)
    assert (validation, test) == (0, 20) and train >= 20
    assert sizes(30) == [30, 0, 0]


def test_shapes_are_spread_over_the_splits():
    counts = np.zeros((50, 9))
    counts[:, 0] = 40
    counts[::2, 1] = 1
    borders = np.arange(49.0) * 1000
    for seed in range(20):
        generator = np.random.default_rng(seed)
        plan = purged(borders, choose_blocks((0.1, 0.1), generator, counts), 40.0)
        split = plan.of(np.arange(50) * 1000.0 - 500)
        assert counts[split == TEST, 1].sum() >= 1 and counts[split == VALIDATION, 1].sum() >= 1


def test_a_bin_belongs_to_a_split_only_as_a_whole():
    plan = Plan(np.array([100.0, 130.0]), np.array([TRAIN, PURGED, TEST]))
    assert plan.of(np.array([99.9, 100.0, 129.0, 130.0])).tolist() == [TRAIN, PURGED, PURGED, TEST]
    # Bins of 30 s: 60-90, 90-120 and 120-150 (an edge inside each), 150-180.
    assert plan.of_bins(np.array([75.0, 95.0, 145.0, 165.0]), 30.0).tolist() == [TRAIN, PURGED, PURGED, TEST]
    piece = Piece(50.0, 200.0, plan)
    assert Piece.from_dict(piece.to_dict()).plan.edges.tolist() == [100.0, 130.0]


def test_devices_of_the_same_time_share_its_division(tmp_path):
    times = times_of(9000)
    every = {"all": times, "third": times[1000::3] + 0.4, "later": times + 1e6}
    recorded = [
        Recorded(scale.series, [scale]) for scale, _ in (scale_of(tmp_path / n, t) for n, t in every.items())
    ]
    assert together(recorded) == [[0, 1], [2]]
    made = DatasetSettings(scales=("native",))
    one, other = plan_together(recorded[:2], made, np.random.default_rng(0))
    moments = np.linspace(times[0], times[-1], 50_000)
    a, b = one.of(moments), other.of(moments)
    assert ((a == b) | (a == PURGED) | (b == PURGED)).all()
    assert {TRAIN, VALIDATION, TEST} <= set(a) and (a != b).any()


def test_what_is_divided_already_stays_so(tmp_path):
    times = times_of(9000)
    scale, made = scale_of(tmp_path, times)
    recorded = [Recorded(scale.series, [scale])]
    held = Piece(times[0], times[4000], Plan(times[[1000, 1100]], np.array([TRAIN, PURGED, TEST])))
    (plan,) = plan_together(recorded, made, np.random.default_rng(0), [held])
    inside = times[1:4000]
    assert np.array_equal(plan.of(inside), held.plan.of(inside))
    purge = 20 * scale.series.step
    around = (times > times[4000]) & (times < times[4000] + purge)
    assert (plan.of(times[around]) == PURGED).all()
    rest = plan.of(times[times > times[4000] + purge])
    assert {TRAIN, VALIDATION, TEST} <= set(rest.tolist())


def test_the_choice_is_the_seeds(tmp_path):
    times = times_of(5000)
    one, other, third = (planned(tmp_path / str(i), times, seed=s)[0] for i, s in enumerate((3, 3, 4)))
    assert np.array_equal(one.of(times), other.of(times))
    assert not np.array_equal(one.of(times), third.of(times))
