"""Live telemetry from /proc and /sys: of a made-up machine, whose numbers are known, and of this one."""

import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest

from eisv_lumen.device import live, memory
from eisv_lumen.device.live import LiveTelemetry
from eisv_lumen.errors import SourceError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a Linux kernel's /proc")


class Machine:
    """A /proc and /sys with numbers of the test's choice."""

    def __init__(self, root: Path) -> None:
        self.root, self.seconds = root, 0.0
        for folder in ("proc/net", "sys/block/mmcblk0", "sys/class/thermal"):
            (root / folder).mkdir(parents=True)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def load(self, busy: int, idle: int, switches: int = 0, interrupts: int = 0) -> None:
        # user nice system idle iowait irq softirq steal guest guest_nice; a guest's time is in user already
        cpu = f"cpu  {busy} 0 0 {idle} 0 0 0 0 {busy // 10} 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        self.write("proc/stat", f"{cpu}intr {interrupts} 1 2 3\nctxt {switches}\nbtime 1\n")

    def disks(self, busy_ms: int) -> None:
        def line(name: str, busy: int) -> str:
            return f"179 0 {name} 1 2 3 4 5 6 7 8 9 {busy} 11\n"

        text = line("mmcblk0", busy_ms) + line("mmcblk0p1", 10**9)
        self.write("proc/diskstats", text)

    def network(self, received: int, sent: int) -> None:
        head = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n"
        wlan = f" wlan0:{received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n"
        self.write("proc/net/dev", f"{head}    lo: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n{wlan}")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    machine.load(1000, 9000)
    machine.disks(500)
    machine.network(1000, 2000)
    clock = SimpleClock(machine)
    monkeypatch.setattr(live, "time", clock)
    return machine


class SimpleClock:
    def __init__(self, machine: Machine) -> None:
        self.monotonic = lambda: machine.seconds
        self.time = lambda: 1e9 + machine.seconds


def test_rates_are_means_since_the_reading_before(machine):
    telemetry = LiveTelemetry(machine.root, disk=machine.root)
    machine.seconds = 2.0
    machine.load(1050, 9150, switches=8000, interrupts=3000)
    machine.disks(900)
    machine.network(2000, 5000)
    machine.write("proc/meminfo", "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 6000 kB\n")
    reading = telemetry.read()
    found = {name: values[0] for name, values in reading.channels.items()}
    assert reading.times[0] == 1e9 + 2
    assert found.pop("disk_pct") == pytest.approx(100 * _used(machine.root), abs=2)
    assert found == pytest.approx(
        {
            "cpu_pct": 25.0,
            "memory_pct": 25.0,
            "context_switches_per_s": 4000.0,
            "interrupts_per_s": 1500.0,
            "disk_busy_ms_per_s": 200.0,
            "network_bytes_per_s": 2000.0,
        }
    )


def _used(path: Path) -> float:
    import shutil

    usage = shutil.disk_usage(path)
    return usage.used / (usage.used + usage.free)


def test_the_processors_zone_is_preferred(machine):
    for number, (kind, degrees) in enumerate([("acpitz", 20000), ("cpu-thermal", 51500)]):
        machine.write(f"sys/class/thermal/thermal_zone{number}/type", f"{kind}\n")
        machine.write(f"sys/class/thermal/thermal_zone{number}/temp", f"{degrees}\n")
    assert LiveTelemetry(machine.root).read().channels["cpu_temp_c"][0] == 51.5
    (machine.root / "sys/class/thermal/thermal_zone1/temp").write_text("unreadable")
    assert LiveTelemetry(machine.root).read().channels["cpu_temp_c"][0] == 20.0


def test_what_is_missing_is_missing(machine):
    reading = LiveTelemetry(machine.root).read()
    assert "cpu_temp_c" not in reading.channels and "memory_pct" not in reading.channels
    assert "cpu_pct" not in reading.channels  # no time has passed
    assert reading.present().all()


def test_other_systems_are_told_what_to_do(tmp_path):
    with pytest.raises(SourceError, match="express --log"):
        LiveTelemetry(tmp_path)


@linux
def test_this_machine():
    telemetry = LiveTelemetry()
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        pass
    plausible, dropped = telemetry.read().plausible()
    assert not dropped
    assert 0 < plausible.channels["cpu_pct"][0] <= 100
    assert 0 < plausible.channels["memory_pct"][0] < 100
    assert plausible.channels["context_switches_per_s"][0] > 0


@linux
def test_it_counts_as_the_recorder_does():
    telemetry = LiveTelemetry()
    counters = telemetry._counters()
    assert telemetry.read().channels["memory_pct"][0] == pytest.approx(psutil.virtual_memory().percent, abs=1)
    assert telemetry.read().channels["disk_pct"][0] == pytest.approx(psutil.disk_usage("/").percent, abs=0.5)
    network, disks = psutil.net_io_counters(), psutil.disk_io_counters()
    assert counters.network_bytes == pytest.approx(network.bytes_sent + network.bytes_recv, rel=0.01)
    assert counters.context_switches == pytest.approx(psutil.cpu_stats().ctx_switches, rel=0.01)
    assert counters.interrupts == pytest.approx(psutil.cpu_stats().interrupts, rel=0.01)
    if disks is not None:
        assert counters.disk_busy_ms == pytest.approx(disks.busy_time, rel=0.01)


@linux
def test_the_stream_keeps_its_beat():
    started = time.monotonic()
    times = [float(reading.times[0]) for reading in islice(LiveTelemetry().stream(0.05), 6)]
    assert time.monotonic() - started >= 0.3
    assert np.all(np.diff(times) > 0.02)


@linux
def test_memory_is_this_processs_own():
    resident, peak = memory.resident_mb(), memory.peak_mb()
    assert resident and peak and 5 < resident <= peak + 1
