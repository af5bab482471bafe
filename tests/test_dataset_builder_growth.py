"""Growing a dataset: what it held stays row for row, and what is new never leaks across its splits."""

import hashlib
import json
import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest

from dataset_builder.build import build
from dataset_builder.configuration import DatasetSettings, TrainSettings
from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, SourceError
from eisv_lumen.layouts import ALL_SPLITS, DATASET, HELD_OUT_SYNTHETIC, SPLITS

from .test_dataset_builder import SMOKE, START, swinging, write_database

FULL = DatasetSettings(**{**vars(SMOKE), "train": TrainSettings(windows=None)})
FILES = [
    *(DATASET.windows(split) for split in ALL_SPLITS),
    *(DATASET.expressions(split) for split in ALL_SPLITS),
    DATASET.legacy,
]


def write_log(path, start, stop):
    states = swinging(4000, seed=7)
    lines = ["timestamp,cpu_temp_c,ambient_temp_c,humidity_pct,memory_pct"]
    for i in range(start, stop):
        w, c, s, _ = states[i]
        moment = START + 10.0 * i + i % 7 / 10
        lines.append(f"{moment},{40 + 40 * w:.2f},{15 + 20 * w:.2f},{45 + 40 * s:.1f},{100 * c:.1f}")
    path.write_text("\n".join(lines) + "\n")
    return f"desk={path}"


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A dataset of 2,500 readings and a database, and the one it grew into with 1,500 readings more."""
    place = tmp_path_factory.mktemp("growth")
    database = f"lumen={write_database(place / 'anima.db')}"
    build(place / "old", [write_log(place / "a.csv", 0, 2500), database], FULL)
    build(place / "new", [write_log(place / "b.csv", 0, 4000), database], FULL, grow=place / "old")
    return place


@pytest.mark.parametrize("name", FILES)
def test_old_rows_stay_in_front_as_they_were(grown, name):
    old, new = pq.read_table(grown / "old" / name), pq.read_table(grown / "new" / name)
    assert new.slice(0, len(old)).equals(old)
    assert new.schema.equals(old.schema, check_metadata=True)
    if "train" in name:
        assert len(new) > len(old)


def test_what_was_added_is_said(grown):
    manifest, metrics = artifact.verify(grown / "new"), artifact.read_metrics(grown / "new")
    growth, before = metrics["growth"], artifact.read_metrics(grown / "old")
    assert artifact.read_metrics(grown / "old")["growth"] is None
    assert (manifest.generation, manifest.parent) == (1, artifact.input_hash(grown / "old"))
    assert manifest.data_delta_sha256 == growth["data_delta_sha256"]
    assert growth["kept"] == before["counts"]
    for split in SPLITS:
        files = [DATASET.windows(name) for name in (split, HELD_OUT_SYNTHETIC.get(split)) if name]
        old, new = (sum(len(pq.read_table(grown / d / name)) for name in files) for d in ("old", "new"))
        assert sum(growth["added"][split].values()) == new - old
    assert growth["added"]["train"]["real"] > 50
    assert growth["added"]["train"]["synthetic"] == growth["added"]["train"]["real"]
    assert growth["added"]["test"]["synthetic"] == 0
    assert metrics["dropped"]["state held by the dataset that is grown"] > 3600
    assert metrics["feedback"]["n_observed"] == before["feedback"]["n_observed"]
    total = sum(sum(shapes.values()) for scales in metrics["shapes"].values() for shapes in scales.values())
    assert total == sum(sum(counts.values()) for counts in metrics["counts"].values())


def test_nothing_leaks_between_old_and_new(grown):
    def moments(split):
        frame = pq.read_table(grown / "new" / DATASET.windows(split)).to_pandas()
        frame = frame[(frame.provenance == "real") & (frame.scale == "native")]
        return {(r.device, round(r.t_start + t, 2)) for r in frame.itertuples() for t in r.times.tolist()}

    found = {split: moments(split) for split in SPLITS}
    assert all(found.values())
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not found[one] & found[other]
    ids = [
        name
        for split in ALL_SPLITS
        for name in pq.read_table(grown / "new" / DATASET.windows(split))["window_id"].to_pylist()
    ]
    assert len(ids) == len(set(ids))


def test_growing_is_deterministic_and_skipped_when_done(grown, tmp_path):
    arguments = [f"desk={grown / 'b.csv'}", f"lumen={grown / 'anima.db'}"]
    assert build(tmp_path / "again", arguments, FULL, grow=grown / "old")
    assert not build(tmp_path / "again", arguments, FULL, grow=grown / "old")
    for path in (grown / "new").rglob("*.*"):
        same = tmp_path / "again" / path.relative_to(grown / "new")
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(same.read_bytes()).digest()


def test_the_new_part_of_a_log_is_enough(grown, tmp_path):
    build(tmp_path / "new", [write_log(tmp_path / "c.csv", 2400, 4000)], FULL, grow=grown / "old")
    growth = artifact.read_metrics(tmp_path / "new")["growth"]
    assert growth["added"]["train"]["real"] > 50
    held = artifact.read_metrics(tmp_path / "new")["dropped"]["state held by the dataset that is grown"]
    assert 100 <= held <= 125
    build(tmp_path / "third", [write_log(tmp_path / "d.csv", 0, 4000)], FULL, grow=tmp_path / "new")
    third = artifact.read_metrics(tmp_path / "third")["growth"]
    assert third["generation"] == 2 and third["added"]["train"]["real"] == 0


def test_new_expressions_teach_the_old_weights(tmp_path):
    build(tmp_path / "old", [f"lumen={write_database(tmp_path / 'anima.db')}"], FULL)
    with sqlite3.connect(tmp_path / "anima.db") as connection:
        rows = [(f"2023-11-15 {i // 1800:02d}:{i // 30 % 60:02d}:{i % 30 * 2:02d}", 0.5) for i in range(1800)]
        connection.executemany(
            "INSERT INTO state_history (timestamp, warmth, clarity, stability, presence) "
            "VALUES (?, 0.5 + 0.0001 * random() / 9.3e18, ?, 0.5, 0.5)",
            rows,
        )
        connection.executemany(
            "INSERT INTO primitive_history (timestamp, tokens, category_pattern, score) "
            "VALUES (?, ?, 'SINGLE', 1)",
            [(rows[i][0], "~releasing~") for i in range(30, 1800, 10)],
        )
    build(tmp_path / "new", [f"lumen={tmp_path / 'anima.db'}"], FULL, grow=tmp_path / "old")
    old, new = (json.loads((tmp_path / d / DATASET.weights).read_text()) for d in ("old", "new"))
    assert new["weights"]["settled_presence"]["releasing"] > old["weights"]["settled_presence"]["releasing"]
    assert sum(new["updates"].values()) > sum(old["updates"].values())
    feedback = artifact.read_metrics(tmp_path / "new")["feedback"]
    assert feedback["n_observed_learned"] > 50


def test_what_cannot_be_grown_is_refused(grown, tmp_path):
    log = write_log(tmp_path / "b.csv", 0, 3000)
    broken = tmp_path / "broken"
    build(broken, [write_log(tmp_path / "a.csv", 0, 2500)], SMOKE)
    (broken / DATASET.weights).write_text("{}")
    with pytest.raises(ArtifactError, match="altered"):
        build(tmp_path / "out", [log], FULL, grow=broken)
    with pytest.raises(ArtifactError):
        build(tmp_path / "out", [log], FULL, grow=tmp_path / "absent")
    with pytest.raises(SourceError):
        build(tmp_path / "out", [f"desk={tmp_path / 'none.csv'}"], FULL, grow=grown / "old")
    assert not (tmp_path / "out").exists()
    assert not np.any([path.name.startswith(".out") for path in tmp_path.iterdir()])
