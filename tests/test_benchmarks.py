"""The baseline, the simulated databases and the harness that the builder's figures come from."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import building, databases, plain_builder, processes
from eisv_lumen import synthetic
from eisv_lumen.errors import InputError, ResourceError
from eisv_lumen.layouts import DATASET
from eisv_lumen.shapes import classify
from eisv_lumen.vocabulary import DIMENSIONS, N_SHAPES, SHAPES, TOKENS
from eisv_lumen.windows import Windows, concatenate

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "dataset_builder/configs/smoke.yaml"
STATES = 4000
PUBLISHED_TYPES = {
    "shape": pa.string(),
    "eisv_states": pa.string(),
    "derivatives": pa.string(),
    "t_start": pa.float64(),
    "t_end": pa.float64(),
    "provenance": pa.string(),
    "tokens": pa.string(),
    "n_expressions": pa.int64(),
}
HALF_MILLISECOND, HALF_STATE = 0.00051, 0.000051
"""Half of the last digit to which the kit writes times (3 decimals) and states (4 decimals)."""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A small simulated database in which one time is repeated and one expression is joined by commas."""
    path = tmp_path_factory.mktemp("database") / "anima.db"
    databases.make(path, STATES, seed=1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE state_history SET timestamp = (SELECT timestamp FROM state_history WHERE id = 500) "
            "WHERE id = 501"
        )
        connection.execute("UPDATE primitive_history SET tokens = '~ripple~,~return~' WHERE id = 3")
        connection.commit()
    return path


@pytest.fixture(scope="module")
def plain(database, tmp_path_factory):
    """The baseline's file."""
    out = tmp_path_factory.mktemp("plain") / "rows.parquet"
    command("benchmarks.plain_builder", database, out)
    return out


@pytest.fixture(scope="module")
def kit(database, tmp_path_factory):
    """The kit's legacy file."""
    out = tmp_path_factory.mktemp("kit") / "dataset"
    command("dataset_builder.build", "--source", database, "--config", SMOKE, "--out", out)
    return out / DATASET.legacy


def command(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def real_rows(path):
    """Real rows of a legacy file in order of time, their JSON texts read."""
    rows = [row for row in pq.read_table(path).to_pylist() if row["provenance"] == "lumen_real"]
    for row in rows:
        for name in ("eisv_states", "derivatives", "tokens"):
            row[name] = json.loads(row[name])
    return sorted(rows, key=lambda row: row["t_start"])


def points(row, name):
    """`[n, 5]` numbers of a JSON column: t, and one per dimension."""
    return np.array([list(point.values()) for point in row[name]], np.float64)


def recorded(path):
    """`[N]` seconds and `[N, 4]` anima states in the order recorded."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT timestamp, warmth, clarity, stability, presence FROM state_history ORDER BY id"
        ).fetchall()
    times = [datetime.fromisoformat(row[0] + "+00:00").timestamp() for row in rows]
    return np.array(times), np.array([row[1:] for row in rows], np.float64)


# --- the two builders do the same job ---


@pytest.mark.parametrize("builder", ["plain", "kit"])
def test_rows_are_as_the_published_reader_expects(builder, request):
    table = pq.read_table(request.getfixturevalue(builder))
    assert {field.name: field.type for field in table.schema} == PUBLISHED_TYPES
    for row in table.to_pylist():
        states, rates = json.loads(row["eisv_states"]), json.loads(row["derivatives"])
        assert row["shape"] in SHAPES and row["provenance"] in ("lumen_real", "synthetic")
        assert len(states) == 20 and len(rates) == 19
        assert all(list(state) == ["t", *DIMENSIONS] for state in states)
        assert all(list(rate) == ["t", *(f"d{name}" for name in DIMENSIONS)] for rate in rates)
        assert abs(row["t_start"] - states[0]["t"]) < HALF_MILLISECOND
        assert abs(row["t_end"] - states[-1]["t"]) < HALF_MILLISECOND
        said = json.loads(row["tokens"])
        assert row["n_expressions"] == len(said)
        assert all(
            token.strip("~") in TOKENS and token == f"~{token.strip('~')}~" for e in said for token in e
        )


def test_both_have_every_window_of_each_uninterrupted_stretch(database, plain, kit):
    times, _ = recorded(database)
    times = times[np.diff(times, prepend=np.nan) != 0]
    longest = 10 * np.median([step for step in np.diff(times) if step > 0])
    borders = [i + 1 for i, step in enumerate(np.diff(times)) if not 0 < step <= longest]
    assert len(borders) == 2, "the simulation has one gap and one reboot"
    expected = sorted(
        times[start]
        for first, stop in pairwise([0, *borders, len(times)])
        for start in range(first, stop - 19, 10)
    )
    for path in (plain, kit):
        found = [row["t_start"] for row in real_rows(path)]
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=HALF_MILLISECOND)


def test_both_give_the_same_labels(plain, kit):
    ours, theirs = real_rows(kit), real_rows(plain)
    assert [row["shape"] for row in ours] == [row["shape"] for row in theirs]
    assert len({row["shape"] for row in theirs}) > 2


def test_both_hold_the_same_states_and_derivatives_but_for_rounding(plain, kit):
    for ours, theirs in zip(real_rows(kit), real_rows(plain), strict=True):
        our_states, their_states = points(ours, "eisv_states"), points(theirs, "eisv_states")
        np.testing.assert_allclose(our_states[:, 0], their_states[:, 0], rtol=0, atol=HALF_MILLISECOND)
        np.testing.assert_allclose(our_states[:, 1:], their_states[:, 1:], rtol=0, atol=HALF_STATE)
        our_rates, their_rates = points(ours, "derivatives"), points(theirs, "derivatives")
        np.testing.assert_allclose(our_rates[:, 0], their_rates[:, 0], rtol=0, atol=HALF_MILLISECOND)
        # Two rounded states over the step between two rounded times, and the derivative's own five digits.
        step = np.diff(their_states[:, 0])[:, None]
        rate = their_rates[:, 1:]
        allowed = (2 * HALF_STATE + np.abs(rate) * 2 * HALF_MILLISECOND) / step + 1e-5 * (1 + np.abs(rate))
        assert (np.abs(our_rates[:, 1:] - rate) <= allowed).all()


# --- the baseline ---


def test_the_baseline_labels_as_the_kit_does():
    generator = np.random.default_rng(0)
    cadence = generator.choice([0.05, 0.3, 2.0, 30.0], 900)
    made = synthetic.generate(np.arange(900) % N_SHAPES, generator, cadence=cadence)
    size = np.exp(generator.uniform(np.log(1e-3), 0.0, (900, 1, 4)))
    rough = generator.random(made.states.shape) * size * [1, 1, 1, 0.3]
    windows = concatenate([made, Windows.of(rough, made.times, ethical_drift=made.ethical_drift)])
    drift = np.zeros(windows.times.shape) if windows.ethical_drift is None else windows.ethical_drift
    found = [
        plain_builder.classify(
            [
                {"t": t, **dict(zip(DIMENSIONS, state, strict=True)), "ethical_drift": d}
                for t, state, d in zip(times, states, drifts, strict=True)
            ]
        )
        for times, states, drifts in zip(
            windows.times.tolist(), windows.states.tolist(), drift.tolist(), strict=True
        )
    ]
    assert found == [SHAPES[shape] for shape in classify(windows, "published")]
    assert set(found) == set(SHAPES)


def test_the_baseline_aligns_what_was_said_by_time(database, plain):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (text,) = connection.execute("SELECT timestamp FROM primitive_history WHERE id = 3").fetchone()
    said_at = datetime.fromisoformat(text + "+00:00").timestamp()
    rows = real_rows(plain)
    around = [row for row in rows if row["t_start"] <= said_at <= row["t_end"]]
    assert 1 <= len(around) <= 2
    assert all(["~ripple~", "~return~"] in row["tokens"] for row in around)
    elsewhere = [row for row in rows if not row["t_start"] <= said_at <= row["t_end"]]
    assert any(row["tokens"] == [] for row in elsewhere)


# --- simulated databases ---


def rows_of(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("state_history", "primitive_history")
        ]


def test_a_database_is_determined_by_its_length_and_seed(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        databases.make(tmp_path / name, 500, seed=seed)
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "same")
    assert rows_of(tmp_path / "one")[0] != rows_of(tmp_path / "other")[0]


def test_a_database_is_like_a_real_one_also_over_the_border_of_its_chunks(tmp_path):
    n = databases._CHUNK + 5000
    databases.make(tmp_path / "anima.db", n)
    states, expressions = rows_of(tmp_path / "anima.db")
    times, anima = recorded(tmp_path / "anima.db")
    steps = np.diff(times)
    assert len(times) == n and 200 < len(expressions) < 400
    assert 1.99 < np.median(steps) < 2.01 and len(np.unique(steps.round(6))) > 10_000
    assert (steps > 3600).sum() == n // databases.STATES_PER_GAP and (steps < 0).sum() == 1
    assert 0.05 < ((steps > 0) & (steps < 1)).mean() < 0.11
    assert anima.min() >= 0 and anima.max() <= 1
    # Smoothed: between states two seconds apart warmth, stability and presence go a small way only.
    usual = (steps > 1.9) & (steps < 2.1)
    assert np.abs(np.diff(anima, axis=0))[usual].max(axis=0)[[0, 2, 3]].max() < 0.2
    assert np.ptp(anima, axis=0).min() > 0.2
    border = databases._CHUNK
    assert 0 < times[border] - times[border - 1] < 3
    assert np.abs(anima[border] - anima[border - 1]).max() < 0.05
    sensors = json.loads(states[border][6])
    assert 15 < sensors["ambient_temp_c"] < 35 and 900 < sensors["pressure_hpa"] < 1100


def test_a_longer_database_takes_no_more_memory(tmp_path):
    module = [sys.executable, "-m", "benchmarks.databases"]
    peaks = [processes.run([*module, str(tmp_path / str(n)), str(n)]).peak_rss_mb for n in (200_000, 600_000)]
    assert peaks[1] < peaks[0] + 30


def test_a_database_that_is_current_is_left_alone(tmp_path):
    path = tmp_path / "anima.db"
    command("benchmarks.databases", path, 300)
    before = path.stat().st_mtime_ns
    command("benchmarks.databases", path, 300, "--standing")
    assert path.stat().st_mtime_ns == before
    command("benchmarks.databases", path, 400, "--standing")
    assert len(recorded(path)[0]) == 400


def test_a_database_too_short_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least 100"):
        databases.make(tmp_path / "anima.db", 99)
    assert not list(tmp_path.iterdir())


# --- the harness ---

HOLD = "import time; held = b'x' * {size}; time.sleep({seconds})"


def test_the_peak_of_a_process_is_its_own():
    held = b"x" * 400_000_000  # in this process, and no business of the one measured
    small = processes.run([sys.executable, "-c", "pass"])
    large = processes.run([sys.executable, "-c", HOLD.format(size=200_000_000, seconds=0.2)])
    del held
    assert small.peak_rss_mb < 60
    assert 200 < large.peak_rss_mb < 260
    assert large.seconds > 0.2 and 0 < small.cpu_seconds < small.seconds + 0.05


def test_the_memory_of_children_counts():
    child = HOLD.format(size=150_000_000, seconds=1)
    parent = "import subprocess, sys; held = b'x' * 150_000_000; subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-c", parent, sys.executable, "-c", child]
    assert processes.run(command).peak_rss_mb > 300


def test_a_process_that_fails_is_no_measurement():
    with pytest.raises(ResourceError, match="exit code 3[\\s\\S]*out of luck"):
        processes.run(
            [sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"]
        )


def run_of(seconds, peak, size):
    return building.Run(processes.Cost(seconds, seconds, peak), {"legacy": size, "all": size})


def test_medians_and_ratios():
    baseline = building.summary([run_of(s, 100.0, 50) for s in (9.0, 3.0, 4.0)])
    entry = building.summary([run_of(s, 25.0, 10) for s in (0.5, 9.0, 0.4)])
    assert (baseline["seconds"], baseline["n"], entry["seconds"]) == (4.0, 3, 0.5)
    times = building.ratio(baseline, entry)
    assert (times["seconds"], times["peak_rss_mb"], times["legacy_bytes"]) == (8.0, 4.0, 5.0)


def test_sizes_add_up(kit):
    folder = kit.parents[2]
    found = building.sizes(folder)
    assert found["all"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert found["all"] == sum(size for name, size in found.items() if name != "all")
    assert found["legacy"] == kit.stat().st_size and min(found.values()) > 0


@pytest.mark.slow
def test_the_figures_name_their_n(tmp_path, monkeypatch):
    out = tmp_path / "measured" / "building.json"
    arguments = ["--databases", tmp_path / "databases", "--out", out, "--states", 1000, "--repeats", 1]
    told = command("benchmarks.building", *arguments, "--curve", 1000, 2000)
    figures = json.loads(out.read_text())
    builders = figures["side_by_side"]["builders"]
    assert {"plain", "default"} <= set(builders) and all(entry["n"] == 1 for entry in builders.values())
    assert "times less" in told and figures["side_by_side"]["states"] == 1000
    assert {entry["states"] for entry in figures["curve"]} == {1000, 2000}
    assert all(entry["n"] == 1 and entry["peak_rss_mb"] > 0 for entry in figures["curve"])
    assert all(figure["n"] == 100_000 for figure in figures["classification"])
    assert [path.name for path in (tmp_path / "databases").iterdir() if path.is_dir()] == []
    monkeypatch.setattr(building, "side_by_side", lambda *_: {"states": 0})
    monkeypatch.setattr(building, "on_one_core", list)
    monkeypatch.setattr(sys, "argv", ["building", *map(str, arguments)])
    building.main()
    later = json.loads(out.read_text())
    assert later["side_by_side"] == {"states": 0}
    assert later["curve"] == figures["curve"], "the same source: the curve still holds"
