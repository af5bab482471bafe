"""Sources of every kind, through the whole builder: what comes out is the same whatever it came in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dataset_builder.build import build
from dataset_builder.configuration import DatasetSettings, TrainSettings
from dataset_builder.sources import find_sources
from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.layouts import DATASET, SPLITS
from hub.local import start

from .test_dataset_builder import ROOT, SMOKE, START, swinging, write_database, write_log

FULL = DatasetSettings(**{**vars(SMOKE), "train": TrainSettings(windows=None)})


def real(folder, split="train"):
    frame = pq.read_table(folder / DATASET.windows(split)).to_pandas()
    return frame[frame.provenance == "real"].reset_index(drop=True)


def states_of(folder):
    return {split: np.array([np.stack(list(w)) for w in real(folder, split).states]) for split in SPLITS}


def test_a_parquet_log_is_read_as_its_csv_is(tmp_path):
    csv = write_log(tmp_path / "desk.csv")
    table = pa.csv.read_csv(csv)
    stamps = pa.array([round(t * 1e6) for t in table["timestamp"].to_pylist()], pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(0, "timestamp", stamps), tmp_path / "desk.parquet", row_group_size=700)
    build(tmp_path / "a", [f"desk={csv}"], FULL)
    build(tmp_path / "b", [f"desk={tmp_path / 'desk.parquet'}"], FULL)
    assert artifact.read_metrics(tmp_path / "b")["sources"][0]["kind"] == "Parquet log"
    for split in SPLITS:
        assert (
            real(tmp_path / "a", split).window_id.tolist() == real(tmp_path / "b", split).window_id.tolist()
        )
    for one, other in zip(
        states_of(tmp_path / "a").values(), states_of(tmp_path / "b").values(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_declared_units_and_names_are_converted_and_undeclared_ones_are_not(tmp_path):
    csv = write_log(tmp_path / "desk.csv")
    lines = csv.read_text().splitlines()
    odd = ["when,cpu,room_temp_f,rh,memory_pct"]
    for line in lines[1:]:
        t, cpu, ambient, humidity, memory = line.split(",")
        fahrenheit, share = float(ambient) * 1.8 + 32, float(humidity) / 100
        odd.append(f"{t},{float(cpu) * 1000:.0f},{fahrenheit:.4f},{share:.5f},{memory}")
    (tmp_path / "odd.csv").write_text("\n".join(odd))
    (tmp_path / "mapping.yaml").write_text(
        "columns: {when: time, cpu: cpu_temp_c, room_temp_f: ambient_temp_c, rh: humidity_pct}\n"
        'units: {cpu: "m°C", room_temp_f: "°F", rh: fraction}\n'
    )
    build(tmp_path / "a", [f"desk={csv}"], FULL)
    build(
        tmp_path / "b", [f"desk={tmp_path / 'odd.csv'}"], FULL, mappings={"desk": tmp_path / "mapping.yaml"}
    )
    for one, other in zip(
        states_of(tmp_path / "a").values(), states_of(tmp_path / "b").values(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-3)
    with pytest.raises(ConfigurationError, match="no source"):
        build(tmp_path / "c", [str(csv)], FULL, mappings={"other": tmp_path / "mapping.yaml"})
    # Without the declaration °F is not taken for °C, and the report says what to add.
    (tmp_path / "part.yaml").write_text("columns: {when: time, cpu: ignore}\n")
    build(tmp_path / "d", [f"desk={tmp_path / 'odd.csv'}"], FULL, mappings={"": tmp_path / "part.yaml"})
    (source,) = artifact.read_metrics(tmp_path / "d")["sources"]
    assert "ambient_temp_c" in source["missing"] and any("room_temp_f" in note for note in source["notes"])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A dataset of a database, and the one rebuilt from its published rows."""
    place = tmp_path_factory.mktemp("published")
    build(place / "first", [f"lumen={write_database(place / 'anima.db')}"], FULL)
    shutil.copy(place / "first" / DATASET.legacy, place / "rows.parquet")
    build(place / "second", [f"lumen={place / 'rows.parquet'}"], FULL)
    return place


def test_published_rows_are_rebuilt_and_kept_row_for_row(published):
    first, second = (pq.read_table(published / d / DATASET.legacy) for d in ("first", "second"))
    assert second.slice(0, len(first)).equals(first)
    metrics = artifact.read_metrics(published / "second")
    assert metrics["sources"][0]["kind"] == "published rows"
    # 1,200 states in windows of 20 every 10 leave none over; published times are in whole milliseconds.
    assert metrics["sources"][0]["states"] == 1200
    one, other = states_of(published / "first"), states_of(published / "second")
    for split in SPLITS:
        assert (
            real(published / "first", split).window_id.tolist()
            == real(published / "second", split).window_id.tolist()
        )
        np.testing.assert_allclose(one[split], other[split], atol=6e-5)
    frame = pq.read_table(published / "second" / DATASET.windows("train")).to_pandas()
    given = frame[(frame.provenance == "synthetic") & (frame.source == "lumen")]
    rows = first["provenance"].to_pylist()
    # Published rows hold no ethical drift, so that shape cannot be told from the states.
    assert len(given) == rows.count("synthetic") > 90 and len(set(given["shape"])) == 8
    assert artifact.read_metrics(published / "second")["counts"]["train"]["synthetic"] == len(given) + 90
    assert metrics["feedback"]["n_observed"] > 10


def test_a_dataset_folder_and_a_folder_of_rows_are_sources(published, tmp_path):
    (tmp_path / "rows").mkdir()
    shutil.copy(published / "rows.parquet", tmp_path / "rows" / "part.parquet")
    kinds = [source.kind for source in find_sources([str(published / "first"), str(tmp_path / "rows")])]
    assert kinds == ["published rows", "published rows"]
    assert build(tmp_path / "out", [str(tmp_path / "rows")], SMOKE)
    assert not build(tmp_path / "out", [str(tmp_path / "rows")], SMOKE)


@pytest.mark.slow
def test_rows_on_a_hub_are_a_source_and_the_dataset_streams_from_there(published, tmp_path):
    code = (
        "import sys, datasets\n"
        "from dataset_builder import build\n"
        "from huggingface_hub import HfApi\n"
        "rows, out = sys.argv[1:]\n"
        "datasets.Dataset.from_parquet(rows).push_to_hub('hikewa/rows')\n"
        "sys.argv = ['build', '--source', 'lumen=hub:hikewa/rows', '--out', out]\n"
        "build.main()\n"
        "api = HfApi()\n"
        "api.create_repo('hikewa/new', repo_type='dataset')\n"
        "api.upload_folder(repo_id='hikewa/new', repo_type='dataset', folder_path=out)\n"
        "files = {'train': 'data/windows/train.parquet', 'test': 'data/windows/test.parquet'}\n"
        "streamed = datasets.load_dataset('hikewa/new', data_files=files, streaming=True)\n"
        "row = next(iter(streamed['test']))\n"
        "assert len(row['states']) == 20 and len(row['states'][0]) == 4, row\n"
        "print(row['shape'], sum(1 for _ in streamed['train']))\n"
    )
    with start(tmp_path / "hub") as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code, published / "rows.parquet", tmp_path / "out"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == len(pq.read_table(tmp_path / "out" / DATASET.windows("train")))
    manifest = artifact.verify(tmp_path / "out")
    assert manifest.configuration["hub"]["lumen"].startswith("hub:hikewa/rows@")
    assert hub.token not in done.stdout + done.stderr + json.dumps(manifest.configuration)


def test_mixed_devices_reboots_and_faults_never_meet_in_a_window(tmp_path):
    """One file of three devices, with everything a real log does to a reader."""
    rng, states = np.random.default_rng(3), swinging(2400, seed=2)
    lines, clock = ["time,device,cpu_temp,humidity,pressure,light"], {"a": START, "b": START + 7, "c": START}
    faults = {"wrong number of fields": 0, "unreadable time": 0, "repeated time": 0}
    for i in range(2400):
        device = "abc"[int(rng.integers(3))]
        clock[device] += 30_000.0 if i in (700, 1500) else -400.0 if i == 1100 else float(rng.uniform(8, 12))
        w, c, s, _ = states[i]
        pressure = 0.0 if i % 97 == 0 else 1000 + 20 * c
        temperature = 394.0 if i % 89 == 0 else 40 + 40 * w
        light = "" if i > 1200 else f"{100 * s:.1f}"
        line = f"{clock[device]:.3f},{device},{temperature:.2f},{45 + 40 * s:.1f},{pressure:.1f},{light}"
        lines.append(line)
        if i % 61 == 0:
            faults["wrong number of fields"] += 1
            lines.append(line.rsplit(",", 2)[0])
        if i % 83 == 0:
            faults["unreadable time"] += 1
            lines.append("yesterday" + line[line.index(",") :])
        if i % 101 == 0:
            faults["repeated time"] += 1
            lines.append(line)
    (tmp_path / "mixed.csv").write_text("\n".join(lines))
    build(tmp_path / "out", [str(tmp_path / "mixed.csv")], FULL)
    metrics = artifact.read_metrics(tmp_path / "out")
    for reason, count in faults.items():
        assert metrics["dropped"][reason] == count
    assert (
        metrics["dropped"]["impossible pressure_hpa"] == 25
        and metrics["dropped"]["impossible cpu_temp_c"] == 27
    )
    moments = {device: set() for device in "abc"}
    for line in lines[1:]:
        if line.count(",") == 5 and not line.startswith("yesterday"):
            moments[line.split(",")[1]].add(float(line.split(",")[0]))
    seen = {split: set() for split in SPLITS}
    for split in SPLITS:
        frame = real(tmp_path / "out", split)
        for row in frame[frame.scale == "native"].itertuples():
            times = row.t_start + row.times.astype(float)
            assert all(min(abs(t - m) for m in moments[row.device]) < 1e-2 for t in times[::6])
            assert np.diff(times).min() > 0 and np.diff(times).max() < 10 * row.cadence_s
            seen[split] |= {tuple(np.round(state, 6)) for state in row.states}
    assert set(real(tmp_path / "out").device) == set("abc")
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]


def test_real_states_are_on_one_side_of_the_splits_only(shared_data, tmp_path):
    """By time and value: on real logs no state of a held-out window occurs in a train window."""
    names = ("astropi_ground_2015", "astropi_iss_mk2_ir", "piweather_sensehat.raw_order")
    full = DatasetSettings.read(Path(ROOT / "dataset_builder/configs/full.yaml"))
    build(tmp_path / "out", [str(shared_data / f"{name}.csv.gz") for name in names], full)
    found = {}
    for split in SPLITS:
        frame = real(tmp_path / "out", split)
        rows = zip(frame.source, frame.scale, frame.t_start, frame.times, frame.states, strict=True)
        found[split] = {
            (source, scale, round(t_start + t, 1), *state.tolist())
            for source, scale, t_start, times, states in rows
            for t, state in zip(times.tolist(), states, strict=True)
        }
    assert len(found["train"]) > 20_000 and len(found["test"]) > 2_000
    assert not found["train"] & found["test"] and not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]
