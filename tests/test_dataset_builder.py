"""The dataset folder: built from real files, read back the way its users read it."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import build as command
from dataset_builder.build import build
from dataset_builder.configuration import DatasetSettings
from dataset_builder.sources import find_sources
from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError, SourceError, exit_with_reason
from eisv_lumen.expression import parse_answer
from eisv_lumen.layouts import ALL_SPLITS, DATASET, HELD_OUT_SYNTHETIC, SPLITS
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import classify
from eisv_lumen.vocabulary import AFFINITY, SHAPE_ID, SHAPES, TOKEN_ID
from eisv_lumen.windows import Windows

ROOT = Path(__file__).resolve().parents[1]
SMOKE = DatasetSettings.read(ROOT / "dataset_builder/configs/smoke.yaml")
START = 1.7e9


def swinging(n, seed=0):
    """Slow swings with noise, as anima states in [0, 1]."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    waves = [
        0.5 + 0.3 * np.sin(t / period + phase) for period, phase in ((90, 0), (40, 1), (150, 2), (200, 3))
    ]
    return np.clip(np.stack(waves, axis=1) + rng.normal(0, 0.003, (n, 4)), 0, 1)


def write_log(path, n=3000, step=10.0, reboot=True, seed=0):
    """A desk's worth of readings: swinging temperature and load, one gap, one reboot."""
    states = swinging(n, seed)
    steps = np.full(n, step) + np.random.default_rng(seed).normal(0, 0.2, n)
    steps[n // 3] = 3600.0
    if reboot:
        steps[2 * n // 3] = -500.0
    times = START + np.cumsum(steps)
    lines = ["timestamp,cpu_temp_c,ambient_temp_c,humidity_pct,memory_pct"]
    for t, (w, c, s, _) in zip(times.tolist(), states.tolist(), strict=True):
        lines.append(f"{t:.3f},{40 + 40 * w:.2f},{15 + 20 * w:.2f},{45 + 40 * s:.1f},{100 * c:.1f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_database(path, n=1200, zone=UTC, observed=True, score=1.0, old=False):
    """An anima.db of naive local times; `old` lacks the columns that came later."""
    moments = [datetime.fromtimestamp(START + 2.0 * i, zone) for i in range(n)]
    times = [moment.replace(tzinfo=None).isoformat(sep=" ") for moment in moments]
    connection = sqlite3.connect(path)
    sensors = "" if old else ", sensors TEXT"
    connection.execute(
        "CREATE TABLE state_history (id INTEGER PRIMARY KEY, timestamp TEXT, warmth REAL, clarity REAL, "
        f"stability REAL, presence REAL{sensors})"
    )
    connection.executemany(
        "INSERT INTO state_history (timestamp, warmth, clarity, stability, presence) VALUES (?, ?, ?, ?, ?)",
        zip(times, *swinging(n, seed=1).T.tolist(), strict=True),
    )
    if observed:
        columns = "tokens TEXT" if old else "tokens TEXT, category_pattern TEXT, score REAL"
        connection.execute(
            f"CREATE TABLE primitive_history (id INTEGER PRIMARY KEY, timestamp TEXT, {columns})"
        )
        for i in range(25, n, 40):
            tokens = ("~ripple~ ~return~", "~ripple~,~return~", "warm feel")[i // 40 % 3]
            values = (times[i], tokens) if old else (times[i], tokens, "PAIR", score)
            marks = ", ".join("?" * len(values))
            names = "timestamp, tokens" if old else "timestamp, tokens, category_pattern, score"
            connection.execute(f"INSERT INTO primitive_history ({names}) VALUES ({marks})", values)
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_log(folder / "desk.csv")
    write_database(folder / "anima.db")
    return folder


@pytest.fixture(scope="module")
def folder(sources):
    out = sources / "dataset"
    full = DatasetSettings.read(ROOT / "dataset_builder/configs/smoke.yaml")
    full = DatasetSettings(**{**vars(full), "train": type(full.train)(windows=None)})
    assert build(out, [str(sources / "desk.csv"), f"lumen={sources / 'anima.db'}"], full)
    return out


def table(folder, split, configuration="windows"):
    """A split with the synthetic windows that are held out beside it."""
    paths = [
        folder / getattr(DATASET, configuration)(name)
        for name in (split, HELD_OUT_SYNTHETIC.get(split))
        if name
    ]
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pandas()


def as_windows(frame):
    drift = None
    if frame.ethical_drift.notna().any():
        zero = np.zeros(20)
        drift = np.stack([zero if d is None else d for d in frame.ethical_drift])
    states = np.stack([np.stack(list(rows)) for rows in frame.states])
    return Windows.of(states, np.stack(list(frame.times)), ethical_drift=drift)


def test_the_folder_is_a_complete_artifact(folder):
    manifest = artifact.verify(folder, kind="dataset")
    assert set(manifest.files) == {
        *(DATASET.windows(split) for split in ALL_SPLITS),
        *(DATASET.expressions(split) for split in ALL_SPLITS),
        DATASET.legacy,
        DATASET.weights,
        DATASET.plan,
        "metrics.json",
    }
    assert set(manifest.inputs) == {"desk", "lumen"}
    assert manifest.configuration["timezone"] == "UTC"
    assert manifest.facts["feedback"]["n_updates"] > 1000
    assert manifest.facts["dropped"]["observed expression in Lumen's words"] == 10
    assert str(folder.parent) not in (folder / "manifest.json").read_text()


def test_no_state_of_a_held_out_window_is_in_a_train_window(folder):
    frames = {split: table(folder, split) for split in SPLITS}
    for split in SPLITS:
        frames[split] = frames[split][frames[split].provenance == "real"]
    assert all(len(frame) > 10 for frame in frames.values())
    # Every scale has its share, so that the test below means something.
    assert set(frames["train"].scale) == {"native", "30s", "300s"}
    spans = {split: list(zip(f.device, f.t_start, f.t_end, strict=True)) for split, f in frames.items()}
    moments = {
        split: {
            (row.device, round(row.t_start + float(t), 2))
            for row in frame[frame.scale == "native"].itertuples()
            for t in row.times
        }
        for split, frame in frames.items()
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not moments[one] & moments[other]
        touching = [
            (a, b) for a in spans[one] for b in spans[other] if a[0] == b[0] and a[1] <= b[2] and b[1] <= a[2]
        ]
        assert not touching, f"{one} and {other} windows share time: {touching[:3]}"


def test_held_out_splits_are_purely_real_and_synthetic_ones_stand_beside_them(folder):
    for split, made in HELD_OUT_SYNTHETIC.items():
        real, synthetic = (pq.read_table(folder / DATASET.windows(name)) for name in (split, made))
        assert len(real) > 10 and set(real["provenance"].to_pylist()) == {"real"}
        assert len(synthetic) == 45 and set(synthetic["provenance"].to_pylist()) == {"synthetic"}


def test_no_window_crosses_a_gap_or_a_reboot(folder):
    for split in SPLITS:
        frame = table(folder, split)
        native = frame[frame.scale == "native"]
        steps = np.diff(np.stack(list(native.times)), axis=1)
        assert (steps > 0).all()
        assert (steps.max(axis=1) <= 10 * native.cadence_s.to_numpy() + 1e-3).all()


def test_labels_are_those_of_the_states_in_the_file(folder):
    for split in SPLITS:
        frame = table(folder, split)
        windows = as_windows(frame).validate()
        assert [SHAPES[i] for i in classify(windows)] == frame["shape"].tolist()
        assert [SHAPES[i] for i in classify(windows, rules="published")] == frame["shape_published"].tolist()


def test_every_shape_is_in_every_split_and_names_are_unique(folder):
    names = []
    for split in SPLITS:
        frame = table(folder, split)
        synthetic = frame[frame.provenance == "synthetic"]
        assert set(synthetic["shape"]) == set(SHAPES)
        assert set(frame.provenance) == {"real", "synthetic"}
        assert (frame[frame.provenance == "real"].ethical_drift.isna()).all()
        names += frame.window_id.tolist()
    assert len(set(names)) == len(names)


def test_metrics_count_what_is_in_the_files(folder):
    metrics = artifact.read_metrics(folder)
    for split in SPLITS:
        frame = table(folder, split)
        assert metrics["counts"][split] == frame.provenance.value_counts().to_dict()
        for kind, shapes in metrics["shapes_by_split"][split].items():
            assert shapes == frame[frame.provenance == kind]["shape"].value_counts().to_dict()
    whole = [table(folder, split) for split in SPLITS]
    total = sum(sum(s.values()) for scales in metrics["shapes"].values() for s in scales.values())
    assert total == sum(map(len, whole))
    assert metrics["sources"][0]["mapped"]["cpu_temp_c"] == "cpu_temp_c"
    assert metrics["label_stability"]["robust"] > 0.95


def test_train_is_half_synthetic_where_there_is_enough_that_is_real(sources, tmp_path):
    build(tmp_path / "out", [str(sources / "desk.csv")], SMOKE)
    counts = artifact.read_metrics(tmp_path / "out")["counts"]
    assert counts["train"] == {"real": 180, "synthetic": 180}
    assert counts["test"]["synthetic"] == counts["validation"]["synthetic"] == 45
    kept = table(tmp_path / "out", "train")
    assert len(set(kept[kept.provenance == "real"]["shape"])) >= 3


def test_two_builds_are_the_same_bytes(sources, folder, tmp_path):
    def digests(out):
        files = [path for path in out.rglob("*") if path.is_file()]
        return {path.relative_to(out): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    arguments = [str(sources / "desk.csv"), f"lumen={sources / 'anima.db'}"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert build(first, arguments, SMOKE)
    assert build(second, arguments, SMOKE)
    assert digests(first) == digests(second)
    before = (first / "manifest.json").stat().st_mtime_ns
    assert not build(first, arguments, SMOKE)
    assert (first / "manifest.json").stat().st_mtime_ns == before


def test_types_are_the_same_everywhere_and_datasets_shows_them(folder, tmp_path):
    import datasets

    for configuration in ("windows", "expressions"):
        paths = {split: str(folder / getattr(DATASET, configuration)(split)) for split in ALL_SPLITS}
        schemas = {split: pq.read_schema(path) for split, path in paths.items()}
        assert schemas["train"].equals(schemas["test"], check_metadata=True)
        assert schemas["train"].equals(schemas["validation"], check_metadata=True)
        loaded = datasets.load_dataset("parquet", data_files=paths, cache_dir=str(tmp_path))
        plain = datasets.Features.from_arrow_schema(schemas["train"].remove_metadata())
        assert loaded["train"].features == plain
        assert {split: len(rows) for split, rows in loaded.items()} == {
            split: pq.read_metadata(path).num_rows for split, path in paths.items()
        }
    row = loaded["train"][0]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["completion"][0]["role"] == "assistant"


def test_expressions_are_the_windows_expressions(folder):
    windows = table(folder, "train").set_index("window_id")
    for row in table(folder, "train", "expressions").itertuples():
        window = windows.loc[row.window_id]
        answer = parse_answer(row.completion[0]["content"])
        assert str(answer.expression) == window.expression
        assert answer.expression.pattern == window.pattern == row.pattern
        assert list(answer.expression.tokens) == list(window.tokens)
        assert list(answer.lumen_words) == list(window.lumen_words)
        assert f"SHAPE: {window['shape']}" in row.prompt[1]["content"]


def test_labels_carry_what_feedback_learned(tmp_path):
    write_log(tmp_path / "desk.csv")
    build(tmp_path / "out", [str(tmp_path / "desk.csv")], SMOKE)
    rules = Rules.from_dict(json.loads((tmp_path / "out" / DATASET.weights).read_text()))
    assert (rules.distribution().coherence(AFFINITY) > 0.93).all()
    frame = table(tmp_path / "out", "train")
    shares = [
        np.mean([AFFINITY[SHAPE_ID[row["shape"]], TOKEN_ID[token]] for token in row.tokens])
        for _, row in frame.iterrows()
    ]
    assert np.mean(shares) > 0.92
    assert artifact.read_metrics(tmp_path / "out")["feedback"]["kind"] == "self-scored"


def test_legacy_is_the_published_schema(folder):
    legacy = pq.read_table(folder / DATASET.legacy)
    assert [(f.name, str(f.type)) for f in legacy.schema] == [
        ("shape", "string"),
        ("eisv_states", "string"),
        ("derivatives", "string"),
        ("t_start", "double"),
        ("t_end", "double"),
        ("provenance", "string"),
        ("tokens", "string"),
        ("n_expressions", "int64"),
    ]
    rows = legacy.to_pylist()
    real = [row for row in rows if row["provenance"] == "lumen_real"]
    # Every stretch of the logs is cut whole, whatever the splits.
    assert len(real) == sum((n - 20) // 10 + 1 for n in (1000, 1000, 1000, 1200))
    assert len(rows) - len(real) == 180
    assert {row["shape"] for row in rows if row["provenance"] == "synthetic"} >= {"drift_dissonance"}
    for row in rows[:: len(rows) // 80]:
        states, rates = json.loads(row["eisv_states"]), json.loads(row["derivatives"])
        assert set(states[0]) == {"t", "E", "I", "S", "V"} and len(states) == 20 == len(rates) + 1
        assert set(rates[0]) == {"t", "dE", "dI", "dS", "dV"}
        assert states[0]["t"] == pytest.approx(row["t_start"], abs=1e-3)
        assert states[-1]["t"] == pytest.approx(row["t_end"], abs=1e-3)
        for before, after, rate in zip(states, states[1:], rates, strict=False):
            seconds = after["t"] - before["t"]
            assert rate["t"] == after["t"]
            for name in "EISV":
                # States are rounded to 1e-4, times to 1e-3 s.
                slack = 1.1e-4 / seconds + abs(rate[f"d{name}"]) * 1.1e-3 / seconds + 1e-4
                assert abs(rate[f"d{name}"] - (after[name] - before[name]) / seconds) <= slack
        said = json.loads(row["tokens"])
        assert len(said) == row["n_expressions"] >= (row["provenance"] == "synthetic")
        assert all(token.startswith("~") and token.endswith("~") for tokens in said for token in tokens)


def test_legacy_rows_hold_what_was_said_within_them(folder):
    rows = pq.read_table(folder / DATASET.legacy).to_pylist()
    # Every third of Lumen's 30 expressions is in its own words, and no desk says anything.
    moments = [START + 2.0 * i for i in range(25, 1200, 40) if i // 40 % 3 != 2]
    for row in rows:
        if row["provenance"] == "lumen_real":
            lumen = row["t_end"] - row["t_start"] < 39
            expected = sum(row["t_start"] <= moment <= row["t_end"] for moment in moments) if lumen else 0
            assert json.loads(row["tokens"]) == [["~ripple~", "~return~"]] * expected
            assert row["n_expressions"] == expected
    assert sum(row["n_expressions"] for row in rows if row["provenance"] == "lumen_real") >= 30


def test_published_labels_are_those_of_the_legacy_states(folder):
    rows = pq.read_table(folder / DATASET.legacy).to_pylist()
    agree = []
    for row in rows:
        points = json.loads(row["eisv_states"])
        states = np.array([[point[name] for name in "EISV"] for point in points])
        windows = Windows.of(states, np.array([point["t"] for point in points]))
        agree.append(SHAPES[classify(windows, rules="published")[0]] == row["shape"])
    drifting = [row["shape"] == "drift_dissonance" for row in rows]
    assert np.mean(np.array(agree) | drifting) > 0.99


def test_observed_expressions_are_read_placed_and_learned_from(sources, folder):
    metrics = artifact.read_metrics(folder)
    assert metrics["dropped"]["observed expression in Lumen's words"] == 10
    assert metrics["feedback"]["kind"] == "self-scored and observed"
    frames = {split: table(folder, split) for split in SPLITS}
    heard = {split: f[f.observed_tokens.notna()] for split, f in frames.items()}
    assert sum(map(len, heard.values())) == metrics["feedback"]["n_observed"] > 10
    assert metrics["feedback"]["n_observed_learned"] == len(heard["train"])
    assert (heard["train"].source == "lumen").all() and (heard["train"].scale == "native").all()
    for row in heard["train"].itertuples():
        assert list(row.observed_tokens) == ["ripple", "return"]
        assert row.observed_pattern == "PAIR" and row.observed_score == 1.0
        # Said at rows 25, 65, …: at most one and a half strides after the window ended.
        said = [START + 2.0 * i for i in range(25, 1200, 40)]
        assert any(0 <= moment - row.t_end <= 30.1 for moment in said)


def test_praise_and_blame_move_the_weights(tmp_path):
    weights = {}
    for score in (0.0, 1.0):
        place = tmp_path / str(score)
        place.mkdir()
        write_database(place / "anima.db", score=score)
        build(place / "out", [str(place / "anima.db")], SMOKE)
        weights[score] = json.loads((place / "out" / DATASET.weights).read_text())["weights"]
    ripple = {score: sum(row["ripple"] for row in rows.values()) for score, rows in weights.items()}
    assert ripple[1.0] > ripple[0.0]


def test_naive_times_are_read_in_the_zone_that_is_named(tmp_path):
    write_database(tmp_path / "anima.db", zone=ZoneInfo("America/Denver"), old=True)
    build(tmp_path / "out", [str(tmp_path / "anima.db")], SMOKE, timezone="America/Denver")
    frames = [table(tmp_path / "out", split) for split in SPLITS]
    assert min(frame[frame.scale == "native"].t_start.min() for frame in frames) == START
    assert artifact.Manifest.read(tmp_path / "out").configuration["timezone"] == "America/Denver"
    heard = frames[0][frames[0].observed_tokens.notna()]
    assert len(heard) and heard.observed_score.isna().all()


def test_states_of_a_database_are_not_smoothed_again(tmp_path):
    write_database(tmp_path / "anima.db", observed=False)
    build(tmp_path / "out", [str(tmp_path / "anima.db")], SMOKE)
    expected = swinging(1200, seed=1)
    frame = table(tmp_path / "out", "train")
    native = frame[(frame.provenance == "real") & (frame.scale == "native")]
    for row in native.itertuples():
        at = round((row.t_start - START) / 2)
        states = np.stack(list(row.states))
        np.testing.assert_allclose(states[:, 0], expected[at : at + 20, 0], atol=1e-6)
        np.testing.assert_allclose(states[:, 3], 0.3 * (1 - expected[at : at + 20, 3]), atol=1e-6)


def test_a_database_that_is_being_written(tmp_path):
    path = write_database(tmp_path / "anima.db")
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute(
        "INSERT INTO state_history (timestamp, warmth, clarity, stability, presence) "
        "VALUES ('2030-01-01', 0.5, 0.5, 0.5, 0.5)"
    )
    writer.commit()
    writer.execute("BEGIN IMMEDIATE")
    try:
        build(tmp_path / "out", [str(path)], SMOKE)
    finally:
        writer.rollback()
        writer.close()
    (found,) = artifact.read_metrics(tmp_path / "out")["sources"]
    assert found["states"] == 1201
    assert "anima-wal" in artifact.Manifest.read(tmp_path / "out").inputs


def test_reading_a_database_leaves_nothing_beside_it(tmp_path):
    path = write_database(tmp_path / "anima.db")
    with sqlite3.connect(path) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
    writer.close()
    assert build(tmp_path / "out", [str(path)], SMOKE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["anima.db", "out"]
    assert not build(tmp_path / "out", [str(path)], SMOKE)


def test_a_minute_is_enough(tmp_path):
    write_log(tmp_path / "minute.csv", n=120, step=0.5, reboot=False)
    lines = (tmp_path / "minute.csv").read_text().splitlines()
    times = START + 0.5 * np.arange(120)
    fixed = [lines[0]] + [
        f"{t},{line.split(',', 1)[1]}" for t, line in zip(times.tolist(), lines[1:], strict=True)
    ]
    (tmp_path / "minute.csv").write_text("\n".join(fixed))
    build(tmp_path / "out", [str(tmp_path / "minute.csv")], SMOKE)
    counts = artifact.read_metrics(tmp_path / "out")["counts"]
    assert counts["train"]["real"] >= 4 and counts["test"]["real"] >= 1 and counts["validation"]["real"] >= 1
    assert counts["train"]["real"] + counts["train"]["synthetic"] == 360


def test_a_log_given_twice_counts_once(tmp_path):
    path = write_log(tmp_path / "desk.csv")
    lines = path.read_text().splitlines(keepends=True)
    (tmp_path / "copy.csv").write_text("".join(lines))
    (tmp_path / "older.csv").write_text("".join(lines[:2000]))
    build(tmp_path / "out", [str(tmp_path)], SMOKE)
    metrics = artifact.read_metrics(tmp_path / "out")
    assert [source["name"] for source in metrics["sources"]] == ["copy", "older"]
    assert metrics["dropped"]["state held by an earlier source"] == 1999
    assert set(metrics["cut"]) == {"copy"}


@pytest.mark.parametrize(
    ("hours", "seed", "dropped"),
    [
        (5.5, 0, 800),  # a log from India, taken for one in UTC
        (-9.25, 0, 800),
        (5.51, 0, 0),  # no two zones are so far apart
        (48.0, 0, 0),
        (5.5, 1, 0),  # another log
    ],
)
def test_a_log_read_in_two_time_zones_counts_once(hours, seed, dropped, tmp_path):
    for name, start, states in (
        ("here", START, swinging(900)),
        ("there", START + 3600 * hours, swinging(800, seed)),
    ):
        lines = ["timestamp,cpu_temp_c,humidity_pct"]
        lines += [
            f"{start + 10 * i:.3f},{50 + 20 * w:.2f},{50 + 20 * s:.2f}"
            for i, (w, _, s, _) in enumerate(states.tolist())
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    build(tmp_path / "out", [str(tmp_path / "here.csv"), str(tmp_path / "there.csv")], SMOKE)
    found = artifact.read_metrics(tmp_path / "out")["dropped"]
    reason = "state held by an earlier source in another time zone"
    assert found.get(reason, 0) == dropped
    assert not found.get("state held by an earlier source")


def test_real_logs(shared_data, tmp_path):
    names = ("astropi_ground_2015", "astropi_iss_mk2_ir", "piweather_sensehat.raw_order")
    build(tmp_path / "out", [str(shared_data / f"{name}.csv.gz") for name in names], SMOKE)
    metrics = artifact.read_metrics(tmp_path / "out")
    assert metrics["dropped"]["impossible pressure_hpa"] == 1
    moving = metrics["cut"]["piweather_sensehat.raw_order"]["native"]
    assert len(moving) >= 5
    assert metrics["label_stability"]["robust"] >= 0.98
    assert metrics["counts"]["test"]["real"] == 60


BAD = {
    "missing": (lambda p: None, "No such file"),
    "a folder without logs": (lambda p: p.mkdir(), "a folder without logs"),
    "no usable columns": (lambda p: p.write_text("when,mood\n1,blue\n"), "no time column"),
    "binary": (lambda p: p.write_bytes(bytes(range(256)) * 10), "no time column"),
    "empty": (lambda p: p.write_bytes(b""), "no time column"),
    "too few states": (lambda p: p.write_text("timestamp,cpu_pct\n" + "1,2\n" * 50), "1 usable states"),
    "nothing but NaN": (
        lambda p: p.write_text("timestamp,cpu_pct\n" + "".join(f"{i},nan\n" for i in range(50))),
        "none usable",
    ),
    "gaps everywhere": (
        lambda p: p.write_text(
            "timestamp,cpu_pct\n" + "".join(f"{i // 3 * 1000 + i % 3},5\n" for i in range(99))
        ),
        "at most 3 states without a gap",
    ),
    "a database without the tables": (
        lambda p: sqlite3.connect(p).execute("CREATE TABLE t (x)").connection.commit(),
        "no state_history",
    ),
    "a database with other columns": (
        lambda p: sqlite3.connect(p).execute("CREATE TABLE state_history (timestamp)").connection.commit(),
        "without warmth, clarity, stability, presence",
    ),
    "a damaged database": (
        lambda p: p.write_bytes(b"SQLite format 3\0" + b"\1" * 5000),
        "expected: a SQLite",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_is_written(case, tmp_path, monkeypatch, capsys):
    make, reason = BAD[case]
    make(tmp_path / "source")
    before = sorted(tmp_path.iterdir())
    arguments = ["build", "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as left:
        exit_with_reason(command.main)
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert reason in told and "expected: " in told and "next: " in told
    assert sorted(tmp_path.iterdir()) == before


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dataset_builder.build", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_line(tmp_path):
    write_log(tmp_path / "desk.csv", n=900)
    smoke = ROOT / "dataset_builder/configs/smoke.yaml"
    given = ("--source", f"pi={tmp_path / 'desk.csv'}", "--config", smoke, "--out", tmp_path / "out")
    done = run(*given)
    assert done.returncode == 0, done.stderr
    assert "built: train" in done.stdout
    assert "stands already" in run(*given).stdout
    refused = run(
        "--source", tmp_path / "desk.csv", "--config", smoke, "--out", tmp_path / "desk.csv" / "out"
    )
    assert refused.returncode == 2
    assert "ResourceError" in refused.stderr and "Traceback" not in refused.stderr


def test_configuration_and_arguments_are_checked(tmp_path):
    desk = str(write_log(tmp_path / "desk.csv", n=100))
    with pytest.raises(ConfigurationError, match="no source"):
        build(tmp_path / "out", [], SMOKE)
    with pytest.raises(ConfigurationError, match="Mars"):
        build(tmp_path / "out", [desk], SMOKE, timezone="Mars/Olympus")
    (tmp_path / "other.csv").write_text("timestamp,cpu_pct\n1,2\n")
    with pytest.raises(ConfigurationError, match="two sources named 'pi'"):
        build(tmp_path / "out", [f"pi={desk}", f"pi={tmp_path / 'other.csv'}"], SMOKE)
    (tmp_path / "else").mkdir()
    write_log(tmp_path / "else" / "desk.csv", n=100, seed=5)
    assert [s.name for s in find_sources([desk, str(tmp_path / "else" / "desk.csv")])] == ["desk", "desk-2"]
    with pytest.raises(SourceError, match="No such file"):
        build(tmp_path / "out", [f"pi={tmp_path / 'absent.csv'}"], SMOKE)
    for text, reason in [
        ("seed: many", "seed"),
        ("colour: blue", "unknown setting 'colour'"),
        ("scales: [fast]", "scale 'fast'"),
        ("train: {windows: 0}", "positive number"),
        ("splits: {test: 0.9}", "at most half"),
        ("synthetic: {cadences: []}", "positive numbers"),
        ("- a list", "a mapping"),
        ("{", "readable YAML"),
    ]:
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigurationError, match=reason):
            DatasetSettings.read(tmp_path / "bad.yaml")
    default = DatasetSettings.read(ROOT / "dataset_builder/configs/default.yaml")
    assert default == DatasetSettings()
