"""Recording this machine: real telemetry, kept through a kill."""

import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_builder.record import READINGS, record
from dataset_builder.telemetry import Telemetry
from eisv_lumen import artifact
from eisv_lumen.errors import InputError, ResourceError
from eisv_lumen.logs import read_log, read_states
from eisv_lumen.sensors import PLAUSIBLE

ROOT = Path(__file__).resolve().parents[1]


def test_telemetry_is_plausible_and_invents_nothing():
    telemetry = Telemetry()
    values = telemetry.read()
    assert set(values) == set(telemetry.channels)
    assert {"cpu_pct", "memory_pct", "disk_pct", "context_switches_per_s"} <= set(values)
    assert all(PLAUSIBLE[name][0] <= value <= PLAUSIBLE[name][1] for name, value in values.items())


def test_a_recording_is_an_artifact_that_can_be_heard(tmp_path):
    assert record(tmp_path / "out", seconds=1.5, hz=20, quiet=True)
    artifact.verify(tmp_path / "out", kind="recording")
    series, report = read_states(tmp_path / "out" / READINGS)
    assert len(series) == 30 == artifact.read_metrics(tmp_path / "out")["n"]
    assert not report.dropped and not report.ignored
    assert not record(tmp_path / "out", seconds=1.5, hz=20)


def test_a_killed_recording_goes_on_where_it_was(tmp_path):
    arguments = [sys.executable, "-m", "dataset_builder.record", "--seconds", "5", "--hz", "12"]
    arguments += ["--out", str(tmp_path / "out")]
    first = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        partial = list(tmp_path.glob(".out.work-*/scratch/readings.csv"))
        if partial and len(partial[0].read_bytes().splitlines()) > 15:
            break
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "out").exists()
    kept = partial[0].read_bytes().splitlines()[1:-1]
    with partial[0].open("ab") as file:
        file.write(b"2030-01-01T00:00:00Z,1")  # a line that the kill cut off
    second = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert second.returncode == 0, second.stderr
    assert "goes on after" in second.stderr
    (readings,) = read_log(tmp_path / "out" / READINGS).devices.values()
    assert len(readings) == 60
    lines = gzip.decompress((tmp_path / "out" / READINGS).read_bytes()).splitlines()
    assert lines[1 : 1 + len(kept)] == kept
    assert not list(tmp_path.glob(".out.work-*"))


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="5 s at 1 Hz"):
        record(tmp_path / "out", seconds=5, hz=1)
    with pytest.raises(InputError):
        record(tmp_path / "out", seconds=5, hz=0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError):
        record(tmp_path / "file" / "out", seconds=2, hz=20, quiet=True)
