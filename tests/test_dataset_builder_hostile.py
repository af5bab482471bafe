"""What a careless or unlucky user does to the builder: nothing leaks, doubles, or ends in a traceback."""

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest

from dataset_builder.build import build
from dataset_builder.configuration import DatasetSettings, HeldOutSettings, TrainSettings
from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.layouts import ALL_SPLITS, DATASET, SPLITS
from model_cards.cards import dataset_configs

from .test_dataset_builder import ROOT, SMOKE, START, swinging, write_database, write_log

# What a build leaves on the disk, in its order: where it is killed.
KILL_AT = (
    ".out.work-*",
    ".out.work-*/scratch/states/1",
    ".out.work-*/folder/data/legacy/*",
    ".out.work-*/scratch/shapes",
    ".out.work-*/folder/data/windows/*",
    ".out.work-*/folder/plan.json",
    ".out.work-*/folder/metrics.json",
)

FULL = DatasetSettings(**{**vars(SMOKE), "train": TrainSettings(windows=None)})


def real(folder, split):
    frame = pq.read_table(folder / DATASET.windows(split)).to_pandas()
    return frame[frame.provenance == "real"]


def assert_apart(folder, decimals=3):
    """No moment, and no value of a state, is on both sides of a split, whatever source it is from."""
    moments, values = {}, {}
    for split in SPLITS:
        frame = real(folder, split)
        frame = frame[frame.scale == "native"]
        moments[split] = {round(r.t_start + t, 1) for r in frame.itertuples() for t in r.times.tolist()}
        values[split] = {tuple(np.round(s, decimals).tolist()) for w in frame.states for s in w}
    assert moments["train"] and moments["test"]
    for one, other in combinations(SPLITS, 2):
        assert not moments[one] & moments[other]
        assert len(values[one] & values[other]) <= 0.002 * len(values[other])


def appeared(folder, pattern, since):
    """Whether a path of this pattern is there that changed after ``since`` [ns]."""
    with contextlib.suppress(FileNotFoundError):  # renamed while it is looked at
        return any(path.stat().st_ctime_ns > since for path in folder.glob(pattern))
    return False


def assert_nothing_twice(folder):
    names = [
        n
        for split in ALL_SPLITS
        for n in pq.read_table(folder / DATASET.windows(split))["window_id"].to_pylist()
    ]
    assert len(names) == len(set(names))
    legacy = pq.read_table(folder / DATASET.legacy).to_pandas()
    legacy = legacy[legacy.provenance == "lumen_real"]
    starts = legacy.t_start.round(2)
    assert starts.nunique() >= len(starts) - 2


@pytest.fixture(scope="module")
def lumen(tmp_path_factory):
    """A database, its published rows, and a later copy of it under another name."""
    place = tmp_path_factory.mktemp("lumen")
    write_database(place / "anima.db", n=3000)
    build(place / "dataset", [f"lumen={place / 'anima.db'}"], FULL)
    shutil.copy(place / "dataset" / DATASET.legacy, place / "rows.parquet")
    write_database(place / "later.db", n=4500)
    return place


@pytest.mark.parametrize("order", [("rows.parquet", "later.db"), ("later.db", "rows.parquet")])
def test_published_rows_beside_the_database_they_came_from(lumen, tmp_path, order):
    build(tmp_path / "out", [str(lumen / name) for name in order], FULL)
    assert_apart(tmp_path / "out")
    assert_nothing_twice(tmp_path / "out")


def test_growing_under_another_name_does_not_leak(lumen, tmp_path):
    build(tmp_path / "out", [str(lumen / "later.db")], FULL, grow=lumen / "dataset")
    assert_apart(tmp_path / "out")


def test_growing_with_published_rows_again_adds_none(lumen, tmp_path):
    source = [f"lumen={lumen / 'rows.parquet'}"]
    build(tmp_path / "one", source, FULL)
    build(tmp_path / "two", source, FULL, grow=tmp_path / "one")
    assert len(pq.read_table(tmp_path / "two" / DATASET.legacy)) == len(
        pq.read_table(tmp_path / "one" / DATASET.legacy)
    )
    assert_nothing_twice(tmp_path / "two")
    added = artifact.read_metrics(tmp_path / "two")["growth"]["added"]
    assert added["train"] == {"real": 0, "synthetic": 0}


def test_a_thinned_or_rounded_copy_of_a_log_does_not_leak(tmp_path):
    lines = write_log(tmp_path / "desk.csv", reboot=False).read_text().splitlines()
    (tmp_path / "thin.csv").write_text("\n".join([lines[0], *lines[1::2]]))
    rounded = [f"{float(t):.2f},{rest}" for t, rest in (line.split(",", 1) for line in lines[1:])]
    (tmp_path / "rounded.csv").write_text("\n".join([lines[0], *rounded]))
    build(tmp_path / "out", [str(tmp_path / name) for name in ("desk.csv", "thin.csv", "rounded.csv")], FULL)
    moments = {}
    for split in SPLITS:
        frame = real(tmp_path / "out", split)
        moments[split] = {
            round(r.t_start + t) for r in frame[frame.scale == "native"].itertuples() for t in r.times
        }
    for one, other in combinations(SPLITS, 2):
        assert not moments[one] & moments[other]


@pytest.mark.parametrize("scales", [("300s", "native"), ("30s",)])
def test_any_order_and_choice_of_scales(tmp_path, scales):
    settings = DatasetSettings(**{**vars(FULL), "scales": scales})
    log = f"desk={write_log(tmp_path / 'desk.csv')}"
    build(tmp_path / "out", [log], settings)
    assert set(real(tmp_path / "out", "train").scale) <= set(scales)
    assert len(pq.read_table(tmp_path / "out" / DATASET.legacy)) > 250
    build(tmp_path / "again", [log], settings, grow=tmp_path / "out")
    assert artifact.read_metrics(tmp_path / "again")["growth"]["added"]["train"]["real"] == 0
    assert (
        json.loads((tmp_path / "again" / DATASET.plan).read_text())["held"]
        == json.loads((tmp_path / "out" / DATASET.plan).read_text())["held"]
    )


def test_splits_without_rows_do_not_keep_the_others_from_loading(tmp_path):
    import datasets

    settings = DatasetSettings(**{**vars(SMOKE), "validation": HeldOutSettings(0, 0)})
    build(tmp_path / "out", [str(write_log(tmp_path / "desk.csv"))], settings)
    manifest, counts = (
        artifact.Manifest.read(tmp_path / "out"),
        artifact.read_metrics(tmp_path / "out")["counts"],
    )
    for configuration in dataset_configs(manifest, counts)[:2]:
        files = {
            entry["split"]: str(tmp_path / "out" / entry["path"]) for entry in configuration["data_files"]
        }
        assert set(files) == {"train", "test", "test_synthetic"}
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
        assert all(len(rows) for rows in loaded.values())


def test_unnamed_lines_beside_a_device_of_the_sources_name(tmp_path):
    lines = ["timestamp,device,cpu_temp_c,memory_pct"]
    for i, (w, c, *_) in enumerate(swinging(900)):
        lines.append(f"{START + 2 * i},{['', 'desk', 'other'][i % 3]},{40 + 40 * w:.2f},{100 * c:.1f}")
    (tmp_path / "desk.csv").write_text("\n".join(lines))
    build(tmp_path / "out", [str(tmp_path / "desk.csv")], FULL)
    (source,) = artifact.read_metrics(tmp_path / "out")["sources"]
    assert {name: found["states"] for name, found in source["devices"].items()} == {
        "desk": 300,
        "other": 300,
        "desk-unnamed": 300,
    }


def test_growing_keeps_the_make_of_the_windows(lumen, tmp_path):
    other = DatasetSettings(**{**vars(FULL), "length": 10})
    with pytest.raises(ConfigurationError, match="length 10"):
        build(tmp_path / "out", [str(lumen / "later.db")], other, grow=lumen / "dataset")


def test_settings_that_cannot_be_are_refused(tmp_path):
    for text in (
        "seed: -1",
        "splits: {validation: .nan}",
        "splits: {purge_states: 1000000000}",
        "site_pressure: .inf",
        "synthetic: {cadences: [.inf]}",
        "scales: [native, 030s, 30s]",
        'scales: ["²s"]',
        "test: {real: -5}",
        "validation: {synthetic: -1}",
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigurationError):
            DatasetSettings.read(tmp_path / "bad.yaml")


def test_a_build_killed_anywhere_leaves_the_old_dataset_and_goes_through_when_run_again(lumen, tmp_path):
    log = write_log(tmp_path / "desk.csv", n=6000)
    smoke = ROOT / "dataset_builder/configs/smoke.yaml"
    build(tmp_path / "out", [str(log)], SMOKE)
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    command = [sys.executable, "-m", "dataset_builder.build", "--source", str(lumen / "later.db")]
    command += ["--source", str(log), "--config", str(smoke), "--out", str(tmp_path / "out")]
    killed = 0
    for mark in KILL_AT:  # by what is on the disk, so that any machine is hit at the same places
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = time.time_ns()
        while process.poll() is None and not appeared(tmp_path, mark, begun):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        artifact.verify(tmp_path / "out", kind="dataset")
        if (tmp_path / "out" / "manifest.json").read_bytes() != before:
            break
    assert killed >= 3
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(artifact.read_metrics(tmp_path / "out")["sources"]) == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_two_builds_of_one_folder_at_once(tmp_path):
    log = write_log(tmp_path / "ein Log – größer.csv", n=2000)
    packed = tmp_path / "gepackt.csv.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    smoke = ROOT / "dataset_builder/configs/smoke.yaml"
    command = [
        sys.executable,
        "-m",
        "dataset_builder.build",
        "--config",
        str(smoke),
        "--out",
        str(tmp_path / "o u t"),
    ]
    sources = (log, packed)
    both = [
        subprocess.Popen(
            [*command, "--source", str(source)], cwd=ROOT, env=os.environ, stderr=subprocess.PIPE
        )
        for source in sources
    ]
    for process in both:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told.decode()
    artifact.verify(tmp_path / "o u t", kind="dataset")
