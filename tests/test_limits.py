"""The strong listeners that the student is compared with, at toy size."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import limits
from benchmarks.limits import Held, conditions, frozen_away, limit
from benchmarks.listener import Effort, evenly, features, heard, heard_by_others, trained
from eisv_lumen import synthetic
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import SHAPE_ID
from eisv_lumen.windows import Windows, concatenate
from tests.student_folders import student_folder, synthetic_windows, write_inputs
from training.data import read_splits

TWO = np.array([SHAPE_ID["basin_transition_down"], SHAPE_ID["basin_transition_up"]])


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr("benchmarks.listener.TREES", 10)
    monkeypatch.setattr("benchmarks.listener.BLOCKS", 4)


def two_shapes(count, generator):
    shapes = generator.choice(TWO, count)
    return synthetic.generate(shapes, generator, cadence=10.0), shapes


def test_a_listener_learns_what_can_be_heard():
    network = trained(two_shapes, Effort(windows=2000, passes=15, width=64), np.random.default_rng(0))
    windows, shapes = two_shapes(200, np.random.default_rng(1))
    assert (heard(network, windows) == shapes).mean() > 0.9


def test_a_listener_does_not_hear_what_is_not_there():
    def flat(count, generator):
        return Windows.of(
            np.full((count, 20, 4), 0.2), np.tile(np.arange(20.0), (count, 1))
        ), generator.choice(TWO, count)

    network = trained(flat, Effort(windows=400, passes=4, width=32), np.random.default_rng(0))
    windows, shapes = flat(1000, np.random.default_rng(1))
    assert (heard(network, windows) == shapes).mean() < 0.6


@pytest.mark.parametrize("name", conditions())
def test_features_tell_no_more_than_is_left_of_a_window(name):
    """What a condition took away changes no feature, whatever it was."""
    windows, _ = synthetic_windows(9)
    rough = conditions()[name](windows, np.random.default_rng(0))
    hidden = replace(rough, states=np.where(rough.mask[..., None], rough.states, 0.123))
    assert np.isfinite(features(rough)).all()
    np.testing.assert_allclose(features(hidden), features(rough), atol=1e-6)


def test_evenly_undoes_uneven_steps():
    clock = np.array([0.0, 1.0, 2.0, 5.0, 6.0, 7.0])
    line = Windows.of(0.1 + clock[:, None] * (0.01, 0.02, 0.03, 0.01), clock)
    found = evenly(line)
    np.testing.assert_allclose(found.times[0], np.linspace(0.0, 7.0, 6))
    np.testing.assert_allclose(found.states[0, :, 1], 0.1 + 0.02 * np.linspace(0.0, 7.0, 6))


def test_forests_learn_from_nothing_that_overlaps_what_they_hear(monkeypatch):
    spans = np.stack([np.arange(60.0) * 10, np.arange(60.0) * 10 + 19], axis=1)
    windows, shapes = two_shapes(60, np.random.default_rng(0))
    windows.states[:, 0, 1] = np.arange(60) / 100  # a name by which a window is known again
    learnt, asked = [], []

    class Forest:
        def __init__(self, *arguments, **settings):
            pass

        def fit(self, seen, shapes):
            learnt.append(seen)
            return self

        def predict(self, seen):
            asked.append(seen)
            return np.zeros(len(seen), int)

    monkeypatch.setattr("benchmarks.listener.ExtraTreesClassifier", Forest)
    monkeypatch.setattr(
        "benchmarks.listener.features", lambda windows: np.rint(windows.states[:, 0, 1] * 100)
    )
    heard_by_others(windows, shapes, spans, seed=0)
    assert sorted(np.concatenate(asked)) == list(range(60))
    for known, new in zip(learnt, asked, strict=True):
        gaps = np.abs(known[:, None] - new[None])
        assert len(known) >= 60 - len(new) - 2 and gaps.min() >= 2


def test_forests_hear_what_others_teach_them():
    windows, shapes = two_shapes(80, np.random.default_rng(0))
    spans = np.stack([np.arange(80.0) * 100, np.arange(80.0) * 100 + 20], axis=1)
    assert (heard_by_others(windows, shapes, spans, seed=0) == shapes).mean() > 0.9


def test_what_is_asked_is_half_of_the_rules_error_or_drop():
    windows, shapes = synthetic_windows(90)
    group, student = Held("synthetic", windows, shapes), TrajectoryModel.from_pretrained(student_folder())
    found = {}
    for name in ("first 8", "missing"):
        rough = conditions()[name](group.bare(), np.random.default_rng(0))
        found[name] = limit(group, name, rough, shapes, student)
    whole = limit(group, "first 20", group.bare(), shapes, student)
    assert found["first 8"].asked == found["first 8"].rules / 2 > 0
    drop = found["missing"].rules - whole.rules
    assert found["missing"].asked == pytest.approx(whole.student + drop / 2)
    assert found["missing"].listener == 0 and found["missing"].n == 90
    assert limit(group, "missing", rough, shapes, None).student is None


def test_a_frozen_dimension_takes_away_what_it_decides():
    """E alone moves: the other dimensions decide nothing, and without E all windows look the same."""
    steps = np.linspace(-0.15, 0.15, 20)
    states = np.full((2, 20, 4), 0.2)
    states[0, :, 0], states[1, :, 0] = 0.5 + steps, 0.5 - steps
    both = Windows.of(states, np.tile(np.arange(20.0), (2, 1)))
    found = frozen_away(Held("", concatenate([both, both]), TWO[[1, 0, 1, 0]]))
    assert found["E"] == {"decides": 1.0, "guessed": 0.5, "n": 4}
    for dimension in "ISV":
        assert found[dimension] == {"decides": 0.0, "guessed": 0.0, "n": 4}
    assert found["all"] == {"decides": 0.25, "guessed": 0.125, "n": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"), {"train": 90, "validation": 45, "test": 45})[0]


def test_the_command_writes_every_condition(dataset, tmp_path, monkeypatch, capsys):
    out = tmp_path / "limits.json"
    arguments = ["--dataset", dataset, "--student", student_folder(), "--out", out]
    arguments += ["--windows", "60", "--passes", "1", "--fresh", "45"]
    monkeypatch.setattr(sys, "argv", ["limits", *map(str, arguments)])
    monkeypatch.setattr(limits, "PREFIXES", (8, 20))
    limits.main()
    measured = json.loads(out.read_text("utf-8"))
    rows = {(row["part"], row["condition"]): row for row in measured["limits"]}
    parts = {"synthetic", "synthetic, fresh"}
    if read_splits(dataset)["test"].real.any():
        parts |= {"real", "real, all"}
    assert set(rows) == {
        (part, name) for part in parts for name in ("first 8", "missing", "frozen", "jitter")
    }
    assert all(0 <= row[who] <= 1 for row in rows.values() for who in ("listener", "rules"))
    assert rows["synthetic, fresh", "first 8"]["n"] == 45
    assert measured["inputs"].keys() == {"dataset", "student"}
    assert "| synthetic, fresh | 45 | frozen |" in capsys.readouterr().out
