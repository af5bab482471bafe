"""Recording this machine: real telemetry, kept through kills and power cuts; I2C sensors, simulated."""

import gzip
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from dataset_builder import i2c
from dataset_builder import record as recorder
from dataset_builder.append_log import SYNC_SECONDS, TIME, Log, mend
from dataset_builder.record import record, record_log
from dataset_builder.telemetry import Telemetry
from eisv_lumen import artifact
from eisv_lumen.errors import (
    ConfigurationError,
    InputError,
    MissingDependencyError,
    ResourceError,
    SourceError,
)
from eisv_lumen.layouts import RECORDING
from eisv_lumen.logs import read_log, read_states
from eisv_lumen.sensors import PLAUSIBLE

ROOT = Path(__file__).resolve().parents[1]
RECORD = [sys.executable, "-m", "dataset_builder.record"]
CHANNELS = ["cpu_pct", "memory_pct", "disk_pct"]


def start(path, *options):
    """A real recorder process that appends to a log."""
    arguments = [*RECORD, "--log", str(path), "--hz", "20", *options]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(path, number, process):
    deadline = time.monotonic() + 60
    while not path.is_file() or path.read_bytes().count(b"\n") < number:
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def whole_lines(path):
    """The lines after the header, each checked to be whole."""
    text = path.read_bytes()
    assert text.endswith(b"\n") and b"\0" not in text
    header, *lines = text.decode().splitlines()
    assert header.startswith(TIME) and header not in lines
    for line in lines:
        moment, *values = line.split(",")
        assert datetime.fromisoformat(moment).tzinfo and len(moment) == 24
        assert len(values) == header.count(",") and all(float(value or 0) >= 0 for value in values)
    return lines


def seconds_of(line):
    return datetime.fromisoformat(line.partition(",")[0]).timestamp()


@pytest.fixture
def simulated_clock(monkeypatch):
    """Lets readings come without waiting, at the times given or every two seconds."""

    def run(moments=None):
        begin = datetime(2026, 3, 1, tzinfo=UTC)
        times = iter(moments or (begin + timedelta(seconds=2 * n) for n in count()))
        monkeypatch.setattr(
            recorder, "_now", lambda: next(times).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
        monkeypatch.setattr(recorder, "_beat", lambda step, stop: count())

    return run


def test_telemetry_is_plausible_and_invents_nothing():
    telemetry = Telemetry()
    values = telemetry.read()
    assert set(values) == set(telemetry.channels)
    assert {"cpu_pct", "memory_pct", "disk_pct", "context_switches_per_s"} <= set(values)
    assert all(PLAUSIBLE[name][0] <= value <= PLAUSIBLE[name][1] for name, value in values.items())


def test_a_recording_is_an_artifact_that_can_be_heard(tmp_path):
    assert record(tmp_path / "out", seconds=1.5, hz=20, quiet=True)
    artifact.verify(tmp_path / "out", kind="recording")
    series, report = read_states(tmp_path / "out" / RECORDING.readings)
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
    (readings,) = read_log(tmp_path / "out" / RECORDING.readings).devices.values()
    assert len(readings) == 60
    lines = gzip.decompress((tmp_path / "out" / RECORDING.readings).read_bytes()).splitlines()
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


def test_a_log_survives_kills_at_random_moments(tmp_path):
    """Killed for good at any moment, and a cut-off line besides: all that was there stays, and whole."""
    path, chance = tmp_path / "anima.csv", random.Random(5)
    kept, lines = b"", 0
    for run in range(12):
        process = start(path)
        wait_for_lines(path, lines + 3, process)
        time.sleep(chance.uniform(0.0, 0.3))
        seen = path.read_bytes()
        process.kill()
        killed = time.time()
        process.communicate()
        text = path.read_bytes()
        assert text.startswith(kept) and text.startswith(seen[: seen.rfind(b"\n") + 1])
        found = whole_lines(path)
        assert killed - seconds_of(found[-1]) < SYNC_SECONDS
        kept, lines = text, len(found) + 1
        if run % 2:  # what a power cut can leave, simulated
            torn = found[-1].encode()[: chance.randrange(1, len(found[-1]))]
            path.write_bytes(text + (torn if run % 4 == 1 else torn + bytes(5000)))
    assert record_log(path, hz=20, seconds=0.1, quiet=True) == 2
    assert len(whole_lines(path)) == lines + 1 and path.read_bytes().startswith(kept)
    assert not (tmp_path / "anima-2.csv").exists()


def test_a_power_cut_takes_no_line_older_than_the_sync_interval(tmp_path, monkeypatch):
    """Simulated: what was not synced is lost, in part or as zeros, at every moment of a real recording."""
    path, sync, events, folders = tmp_path / "anima.csv", 0.3, [], []
    write, fsync = os.write, os.fsync

    def spied_write(file, data):
        events.append(("write", time.monotonic(), os.fstat(file).st_size + len(data)))
        return write(file, data)

    def spied_fsync(file):
        fsync(file)
        if stat.S_ISREG(os.fstat(file).st_mode):
            events.append(("sync", time.monotonic(), os.fstat(file).st_size))
        else:
            folders.append(len(events))

    monkeypatch.setattr(os, "write", spied_write)
    monkeypatch.setattr(os, "fsync", spied_fsync)
    record_log(path, hz=20, seconds=2.0, sensors=(), sync=sync, quiet=True)
    monkeypatch.undo()
    assert folders == [2]  # the header was synced, and then its file's name
    text, cut, chance = path.read_bytes(), tmp_path / "cut.csv", random.Random(1)
    durable, checked = 0, 0
    written = []
    for kind, moment, size in [*events, ("write", events[-1][1], len(text))]:
        if kind == "write" and written:
            due = [end for at, end in written if at <= written[-1][0] - sync]
            assert durable >= max(due, default=0)
            checked += bool(due)
            there = written[-1][1]
            for rest in (text[durable : chance.randint(durable, there)], bytes(there - durable)):
                cut.write_bytes(text[:durable] + rest)
                assert mend(cut)
                assert cut.read_bytes().startswith(text[:durable]) and text.startswith(cut.read_bytes())
        if kind == "sync":
            durable = size
        else:
            written.append((moment, size))
    assert checked > 20 and durable == len(text)


def test_a_line_cut_off_anywhere_is_removed_and_the_log_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    with Log(path, CHANNELS) as log:
        for number in range(4):
            log.append(f"2026-03-01T00:00:0{number}.000Z", {"cpu_pct": number, "disk_pct": 12.5})
    text = path.read_bytes()
    assert text.splitlines()[1] == b"2026-03-01T00:00:00.000Z,0,,12.5"
    new = b"2026-03-01T00:01:00.000Z,50,60,\n"
    starts = [0, *(at + 1 for at, byte in enumerate(text) if byte == 10)]
    for end in [
        *range(starts[1]),
        *range(starts[-3], len(text) + 1),
    ]:  # in the header, and the last two lines
        path.write_bytes(text[:end])
        with Log(path, CHANNELS) as log:
            log.append("2026-03-01T00:01:00.000Z", {"cpu_pct": 50.0, "memory_pct": 60.0})
        whole = max(text[: max(start for start in starts if start <= end)], text[: starts[1]], key=len)
        assert path.read_bytes() == whole + new, end


def test_zeros_and_scraps_after_a_power_cut_are_removed(tmp_path):
    path = tmp_path / "log.csv"
    Log(path, CHANNELS).close()
    header = path.read_bytes()
    line = b"2026-03-01T00:00:00.000Z,1,2,3\n"
    for tail in (bytes(200_000), b"1,2\n", bytes(9) + line, b"\n", b",,\n2026\n\0"):
        path.write_bytes(header + line + tail)
        assert mend(path) == [TIME, *CHANNELS]
        assert path.read_bytes() == header + line
    path.write_bytes(bytes(100))
    assert mend(path) == [] and not path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"time,temperature\n1,2\n",
        b"timestamp,cpu_pct,mood\n1,2,3",
        b"timestamp\n1",
        b"a letter\n",
        b"a letter",
        b"\xff\xfe",
        bytes(5000) + b"data",
        b"timestamp,cpu_pct\r\n1,2\r\n1,",
    ],
)
def test_a_file_that_is_no_such_log_is_left_alone(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="log of this recorder"):
        record_log(path, hz=20, seconds=0.1, sensors=(), quiet=True)
    assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_log_stops_cleanly_and_goes_on(tmp_path, number):
    path, lines = tmp_path / "anima.csv", 0
    for _ in range(2):
        process = start(path)
        wait_for_lines(path, lines + 4, process)
        process.send_signal(number)
        said, complaints = process.communicate(timeout=30)
        assert process.returncode == 0, complaints
        recorded = len(whole_lines(path)) - lines
        assert f"recorded {recorded} readings" in said and recorded >= 3
        lines += recorded
    assert [p.name for p in tmp_path.iterdir()] == ["anima.csv"]
    times = [seconds_of(line) for line in whole_lines(path)]
    assert times == sorted(times)


def test_a_second_recorder_is_refused(tmp_path):
    path = tmp_path / "anima.csv"
    first = start(path)
    wait_for_lines(path, 2, first)
    second = subprocess.run(first.args, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "another process records to anima.csv" in second.stderr
    first.kill()
    first.communicate()
    before = len(whole_lines(path))
    assert record_log(path, hz=20, seconds=0.2, sensors=(), quiet=True) == 4
    assert len(whole_lines(path)) == before + 4
    assert [p.name for p in tmp_path.iterdir()] == ["anima.csv"]


def limited(size):
    """A full disk, simulated: no file may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_an_error_that_keeps_what_was_recorded(tmp_path):
    path = tmp_path / "anima.csv"
    arguments = [*RECORD, "--log", str(path), "--hz", "20", "--seconds", "5", "--sensors", "none"]
    run = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=limited(1000)
    )
    assert run.returncode == 2 and "ResourceError" in run.stderr and "Traceback" not in run.stderr
    assert "what was recorded before is kept" in run.stderr
    kept = whole_lines(path)
    assert len(kept) > 5 and 1000 - 100 < path.stat().st_size <= 1000
    record_log(path, hz=20, seconds=0.2, sensors=(), quiet=True)
    assert whole_lines(path)[: len(kept)] == kept and len(whole_lines(path)) == len(kept) + 4


def test_a_recording_folder_goes_on_after_a_full_disk(tmp_path):
    arguments = [*RECORD, "--out", str(tmp_path / "out"), "--hz", "20", "--seconds", "1.5"]
    full = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=limited(1000)
    )
    assert full.returncode == 2 and "ResourceError" in full.stderr and not (tmp_path / "out").exists()
    (partial,) = tmp_path.glob(".out.work-*/scratch/readings.csv")
    kept = whole_lines(partial)
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and f"goes on after {len(kept)} of 30" in again.stderr
    lines = gzip.decompress((tmp_path / "out" / RECORDING.readings).read_bytes()).decode().splitlines()
    assert lines[1 : 1 + len(kept)] == kept and len(lines) == 31


def test_a_new_channel_begins_a_log_beside_and_a_lost_one_does_not(tmp_path, monkeypatch):
    """Sensors simulated."""
    path, second = tmp_path / "anima.csv", tmp_path / "anima-2.csv"

    def run(values):
        sensors = SimpleNamespace(channels=tuple(values), read=lambda: values)
        monkeypatch.setattr(i2c, "probe", lambda wanted: sensors)
        assert record_log(path, hz=20, seconds=0.1, quiet=True) == 2

    run({})
    begun = path.read_bytes()
    run({"light_lux": 3.0})
    assert path.read_bytes() == begun
    assert [line.rpartition(",")[2] for line in whole_lines(second)] == ["3", "3"]
    run({})
    assert [line.rpartition(",")[2] for line in whole_lines(second)] == ["3", "3", "", ""]
    run({"light_lux": 4.0})
    assert len(whole_lines(second)) == 6
    run({"light_lux": 4.0, "pressure_hpa": 1000.0})
    assert len(whole_lines(tmp_path / "anima-3.csv")) == 2
    assert path.read_bytes() == begun and len(list(tmp_path.iterdir())) == 3


def test_a_clock_that_steps_back_is_recorded_as_it_comes(tmp_path, simulated_clock):
    begin = datetime(2026, 3, 1, 12, tzinfo=UTC)
    offsets = [0, 0, 2, 4, -86_000, -85_998, 6, 6, 8, 10]
    simulated_clock([begin + timedelta(seconds=offset) for offset in offsets])
    record_log(tmp_path / "a.csv", hz=20, seconds=0.45, sensors=(), quiet=True)
    times = [seconds_of(line) - begin.timestamp() for line in whole_lines(tmp_path / "a.csv")]
    assert times == offsets[1:]


def test_a_log_per_day(tmp_path, simulated_clock):
    begin = datetime(2026, 2, 28, 23, 59, 55, tzinfo=UTC)
    simulated_clock([begin + timedelta(seconds=offset) for offset in (0, 0, 3, 6, 9, -2, 12, 86_400)])
    assert record_log(tmp_path / "a.csv", hz=20, seconds=0.35, sensors=(), daily=True, quiet=True) == 7
    found = {path.name: len(whole_lines(path)) for path in sorted(tmp_path.iterdir())}
    assert found == {"a-2026-02-28.csv": 3, "a-2026-03-01.csv": 4}


def test_a_log_that_is_moved_away_begins_anew(tmp_path, monkeypatch):
    path, moved = tmp_path / "a.csv", tmp_path / "kept" / "a.csv"
    moved.parent.mkdir()
    read, readings = Telemetry.read, count(1)

    def read_and_move(telemetry):
        if next(readings) == 4:
            path.rename(moved)
        return read(telemetry)

    monkeypatch.setattr(Telemetry, "read", read_and_move)
    record_log(path, hz=20, seconds=0.5, sensors=(), quiet=True)
    assert len(whole_lines(moved)) == 3 and len(whole_lines(path)) == 7


def test_a_log_is_a_source_of_a_dataset(tmp_path, simulated_clock):
    """Real readings at simulated times."""
    simulated_clock()
    record_log(tmp_path / "anima.csv", hz=20, seconds=30, sensors=(), quiet=True)
    (tmp_path / "anima.csv").open("ab").write(b"2026-03-01T00:20:02.000Z,1")
    series, report = read_states(tmp_path / "anima.csv")
    assert len(series) == 600 and report.dropped == {"wrong number of fields": 1}
    np.testing.assert_allclose(np.diff(series.times), 2.0)
    arguments = ["--source", str(tmp_path / "anima.csv"), "--out", str(tmp_path / "dataset")]
    build = [sys.executable, "-m", "dataset_builder.build", *arguments]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert artifact.verify(tmp_path / "dataset", kind="dataset").inputs.keys() == {"anima"}


def test_refusals_of_a_log(tmp_path):
    for options in (
        {"hz": 0},
        {"hz": 21},
        {"hz": float("nan")},
        {"hz": 2, "seconds": 0},
        {"hz": 2, "seconds": float("inf")},
        {"hz": 2, "sync": float("nan")},
        {"hz": 2, "sync": -1},
        {"hz": 2.5, "sensors": ["bme280"]},
    ):
        with pytest.raises(InputError):
            record_log(tmp_path / "a.csv", **options)
    with pytest.raises(InputError, match=r"NAME\.csv"):
        record_log(tmp_path / "a.csv.gz", hz=2)
    with pytest.raises(ResourceError, match="No such file"):
        record_log(tmp_path / "nowhere" / "a.csv", hz=2, seconds=1, quiet=True)
    with pytest.raises(InputError):
        record(tmp_path / "out", seconds=float("inf"), hz=2)
    with pytest.raises(ConfigurationError, match="bme820"):
        record(tmp_path / "out", seconds=20, hz=2, sensors=["bme820"])
    assert not list(tmp_path.iterdir())


class Bus:
    """A simulated I2C bus: what answers at which address, and what its driver reads."""

    def __init__(self) -> None:
        self.chips: dict[int, str] = {}
        self.values = {
            "aht20": {"temperature": 21.5, "relative_humidity": 41.0},
            "bme280": {"temperature": 23.0, "relative_humidity": 39.0, "pressure": 1002.5},
            "bmp280": {"temperature": 24.0, "pressure": 1003.5},
            "veml7700": {"lux": 120.0},
        }
        self.started: list[str] = []

    def driver(self, name):
        """A class like Adafruit's: made from the bus and an address, read through its attributes."""

        class Driver:
            def __init__(self, bus, address):
                if address not in bus.chips:
                    raise ValueError(f"No I2C device at address: 0x{address:x}")
                if bus.chips[address] != name:
                    raise RuntimeError(f"Failed to find {name}! Chip ID 0x42")
                self._bus, self._address = bus, address
                bus.started.append(name)

            def __getattr__(self, attribute):
                if self._address not in self._bus.chips:
                    raise OSError(121, "Remote I/O error")
                value = self._bus.values[name][attribute]
                if isinstance(value, Exception):
                    raise value
                return value() if callable(value) else value

        return Driver


@pytest.fixture
def bus(monkeypatch):
    """The modules of Blinka and of Adafruit's drivers, simulated."""
    bus = Bus()
    board = ModuleType("board")
    board.I2C = lambda: bus
    monkeypatch.setitem(sys.modules, "board", board)
    monkeypatch.setitem(sys.modules, "adafruit_bme280", ModuleType("adafruit_bme280"))
    for kind in i2c.KINDS:
        module = ModuleType(kind.module)
        setattr(module, kind.driver, bus.driver(kind.name))
        monkeypatch.setitem(sys.modules, kind.module, module)
    monkeypatch.setattr(i2c, "TRY_PAUSE", 0.0)
    monkeypatch.setattr(i2c, "KINDS", [replace(kind, settle=0.0) for kind in i2c.KINDS])
    return bus


def test_simulated_sensors_add_their_channels(bus):
    bus.chips = {0x76: "bme280", 0x10: "veml7700"}
    sensors = i2c.probe()
    assert sensors.channels == ("ambient_temp_c", "humidity_pct", "pressure_hpa", "light_lux")
    expected = {"ambient_temp_c": 23.0, "humidity_pct": 39.0, "pressure_hpa": 1002.5, "light_lux": 120.0}
    assert sensors.read() == expected
    telemetry = Telemetry(sensors)
    assert telemetry.channels[-4:] == sensors.channels
    values = telemetry.read()
    assert values.keys() >= {"cpu_pct", "memory_pct"} and expected.items() <= values.items()


def test_two_simulated_sensors_of_one_channel_have_a_fixed_precedence(bus):
    bus.chips = {0x77: "bmp280", 0x76: "bme280", 0x38: "aht20"}
    sensors = i2c.probe()
    assert sensors.read() == {"ambient_temp_c": 21.5, "humidity_pct": 41.0, "pressure_hpa": 1002.5}
    assert [(s["name"], s["address"], s["channels"]) for s in sensors.describe()] == [
        ("aht20", "0x38", ["ambient_temp_c", "humidity_pct"]),
        ("bme280", "0x76", ["pressure_hpa"]),
        ("bmp280", "0x77", []),
    ]
    assert "pressure_hpa (ambient_temp_c, humidity_pct left to another)" in str(sensors)
    del bus.chips[0x38]  # a channel whose sensor is gone is missing, and nobody else's
    assert sensors.read() == {"pressure_hpa": 1002.5}


def test_a_simulated_sensor_that_fails_is_missing_and_tried_again_with_growing_pauses(bus, monkeypatch):
    now, told = [1000.0], []
    monkeypatch.setattr(i2c.time, "monotonic", lambda: now[0])
    bus.chips = {0x77: "bme280", 0x10: "veml7700"}
    bme280, veml7700 = (sensor for sensor in i2c.probe()._sensors)
    assert bme280.read(told.append) and not told
    for error in (OSError(5, "Input/output error"), RuntimeError("odd"), ArithmeticError(), TypeError()):
        bus.values["bme280"]["pressure"] = error
        assert bme280.read(told.append) == {}
        assert veml7700.read(told.append) == {"light_lux": 120.0}
        now[0] += 100.0
    assert len(told) == 1 and "bme280 at 0x77 fails" in told[0] and "pressure_hpa" in told[0]
    del bus.chips[0x77]
    tries = []
    for _ in range(400):
        before = bme280._failures
        assert bme280.read(told.append) == {}
        tries += [now[0]] * (bme280._failures - before)
        now[0] += 0.5
    pauses = np.diff(tries)
    assert (np.diff(pauses) >= 0).all() and pauses.max() <= 60.5 and len(tries) < 12
    bus.chips[0x77], bus.values["bme280"]["pressure"] = "bme280", 990.0
    started = len(bus.started)
    now[0] += 61.0
    assert bme280.read(told.append)["pressure_hpa"] == 990.0
    assert len(bus.started) == started + 1  # its settings may be gone
    assert len(told) == 2 and "answers again" in told[1]


def test_an_impossible_value_of_a_simulated_sensor_is_missing(bus):
    bus.chips = {0x77: "bme280"}
    sensors = i2c.probe()
    bus.values["bme280"] |= {"temperature": 394.0, "relative_humidity": None, "pressure": 1000.0}
    assert sensors.read() == {"pressure_hpa": 1000.0}
    bus.values["bme280"] |= {"pressure": 0.0}
    assert sensors.read() == {} == sensors.read()


def test_a_simulated_sensor_that_was_just_started_settles_first(bus, monkeypatch):
    monkeypatch.setattr(i2c, "KINDS", [replace(kind, settle=5.0) for kind in i2c.KINDS])
    now = [0.0]
    monkeypatch.setattr(i2c.time, "monotonic", lambda: now[0])
    bus.chips = {0x10: "veml7700"}
    (sensor,) = i2c.probe()._sensors
    assert sensor.read() == {}
    now[0] = 5.0
    assert sensor.read() == {"light_lux": 120.0}


def test_a_simulated_bus_that_hangs_does_not_hold_up_the_recording(bus, monkeypatch):
    free, told = Event(), []
    monkeypatch.setattr(i2c, "PATIENCE", 0.1)
    bus.chips = {0x38: "aht20", 0x10: "veml7700"}
    sensors = i2c.probe(tell=told.append)
    bus.values["veml7700"]["lux"] = lambda: free.wait() and 5.0
    begin = time.monotonic()
    assert sensors.read() == {"ambient_temp_c": 21.5, "humidity_pct": 41.0}
    assert [sensors.read() for _ in range(50)] == [{}] * 50
    assert time.monotonic() - begin < 50 * i2c.PATIENCE / 2  # waited for once, not at each reading
    assert len(told) == 1 and "hangs" in told[0]
    free.set()
    sensors._reader.join(10)
    assert sensors.read()["light_lux"] == 5.0


def test_simulated_sensors_that_are_asked_for_must_answer(bus, monkeypatch, tmp_path):
    bus.chips = {0x77: "bmp280", 0x10: "veml7700"}
    assert i2c.probe(["bmp280"]).channels == ("ambient_temp_c", "pressure_hpa")
    assert i2c.probe([]).channels == ()
    with pytest.raises(ResourceError) as caught:
        i2c.probe(["veml7700", "bme280"])
    assert "no bme280" in caught.value.found and caught.value.expected == "an answer at 0x77 or 0x76"
    monkeypatch.setitem(sys.modules, "board", ModuleType("board"))
    assert i2c.probe().channels == ()
    with pytest.raises(ResourceError, match="no I2C bus"):
        record(tmp_path / "out", seconds=20, hz=2, sensors=["veml7700"])
    assert not list(tmp_path.iterdir())


def test_without_the_libraries_there_are_no_sensors(monkeypatch, tmp_path):
    for kind in i2c.KINDS:
        monkeypatch.setitem(sys.modules, kind.module, None)
    assert i2c.probe().channels == () and i2c.probe().read() == {}
    for kind in i2c.KINDS:
        with pytest.raises(MissingDependencyError, match=f"pip install {kind.package}"):
            record_log(tmp_path / "a.csv", hz=2, sensors=[kind.name])
    assert not list(tmp_path.iterdir())


def test_a_recorder_process_with_simulated_sensors(tmp_path):
    """The modules are simulated; the process, its command line, and the recording are real."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "board.py").write_text("def I2C():\n    return 'bus'\n")
    (modules / "adafruit_veml7700.py").write_text(
        "class VEML7700:\n"
        "    def __init__(self, bus, address):\n"
        "        assert (bus, address) == ('bus', 0x10)\n"
        "    lux = 88.5\n"
    )
    options = ["--sensors", "veml7700", "--hz", "2", "--seconds", "10", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    run = subprocess.run(
        [*RECORD, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0 and "veml7700 at 0x10: light_lux" in run.stderr, run.stderr
    metrics = artifact.read_metrics(tmp_path / "out")
    assert metrics["n"] == 20 and metrics["sensors"][0]["name"] == "veml7700"
    (readings,) = read_log(tmp_path / "out" / RECORDING.readings).devices.values()
    assert (readings.channels["light_lux"] == 88.5).all()
    assert artifact.Manifest.read(tmp_path / "out").configuration["sensors"] == ["veml7700"]
