"""This machine's own telemetry as readings, from /proc and /sys (Linux); nothing else is needed.

Every figure is counted as psutil counts it, because the recordings that the student learned from were made
with psutil: all network interfaces, and every block device as a whole.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eisv_lumen.errors import SourceError
from eisv_lumen.sensors import Readings

_CPU_ZONES = ("cpu", "soc", "x86_pkg", "k10temp", "coretemp")
_IDLE = (3, 4)
"""Columns of /proc/stat that are idle time: idle and iowait."""
_GUEST = (8, 9)
"""Columns that are contained in others already: guest and guest_nice."""


@dataclass(frozen=True)
class _Counters:
    """Totals since the machine started; rates are differences of two of them."""

    moment: float
    cpu_total: float
    cpu_busy: float
    context_switches: float
    interrupts: float
    disk_busy_ms: float
    network_bytes: float


class LiveTelemetry:
    """Reads the machine it runs on.

    Args:
        root: Folder that holds `proc` and `sys`.
        disk: Any path on the disk whose filling is reported.

    Raises:
        SourceError: There is no /proc/stat, as on other systems than Linux.
    """

    def __init__(self, root: Path = Path("/"), disk: Path = Path("/")) -> None:
        self._proc, self._sys, self._disk = root / "proc", root / "sys", disk
        self._last = self._counters()

    def read(self) -> Readings:
        """One reading now; rates are means since the reading before (or since construction)."""
        now, before = self._counters(), self._last
        self._last = now
        seconds = now.moment - before.moment
        ticks = now.cpu_total - before.cpu_total
        channels = {
            "cpu_temp_c": self._temperature(),
            "cpu_pct": 100.0 * (now.cpu_busy - before.cpu_busy) / ticks if ticks > 0 else None,
            "memory_pct": self._memory(),
            "disk_pct": self._disk_usage(),
        }
        if seconds > 0:
            channels["context_switches_per_s"] = (now.context_switches - before.context_switches) / seconds
            channels["interrupts_per_s"] = (now.interrupts - before.interrupts) / seconds
            channels["disk_busy_ms_per_s"] = (now.disk_busy_ms - before.disk_busy_ms) / seconds
            channels["network_bytes_per_s"] = (now.network_bytes - before.network_bytes) / seconds
        present = {name: [value] for name, value in channels.items() if value is not None}
        return Readings.of([time.time()], present)

    def stream(self, every: float) -> Iterator[Readings]:
        """A reading every so many seconds, on a fixed beat; endless."""
        beat = time.monotonic()
        while True:
            beat = max(beat + every, time.monotonic())
            time.sleep(max(0.0, beat - time.monotonic()))
            yield self.read()

    def _counters(self) -> _Counters:
        try:
            stat = (self._proc / "stat").read_text("ascii", "replace").splitlines()
        except OSError as error:
            raise SourceError(
                found=f"{self._proc / 'stat'}: {error.strerror}",
                expected="Linux, whose kernel reports its load there",
                next="hear a log instead: eisv-lumen express --log FILE",
            ) from None
        fields = {line.split()[0]: line.split()[1:] for line in stat if line.strip()}
        cpu = [float(ticks) for ticks in fields.get("cpu", [])]
        idle = sum(cpu[i] for i in _IDLE if i < len(cpu))
        total = sum(cpu) - sum(cpu[i] for i in _GUEST if i < len(cpu))
        return _Counters(
            moment=time.monotonic(),
            cpu_total=total,
            cpu_busy=total - idle,
            context_switches=float(fields.get("ctxt", ["0"])[0]),
            interrupts=float(fields.get("intr", ["0"])[0]),
            disk_busy_ms=self._disk_busy(),
            network_bytes=self._network(),
        )

    def _memory(self) -> float | None:
        sizes = {}
        for line in _lines(self._proc / "meminfo"):
            name, _, rest = line.partition(":")
            if rest.split():
                sizes[name] = float(rest.split()[0])
        total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
        return 100.0 * (total - available) / total if total and available is not None else None

    def _disk_usage(self) -> float | None:
        """Filling as `df` shows it: of what an ordinary user may use."""
        try:
            place = os.statvfs(self._disk)
        except OSError:
            return None
        used = place.f_blocks - place.f_bfree
        usable = used + place.f_bavail
        return 100.0 * used / usable if usable else None

    def _disk_busy(self) -> float:
        """Milliseconds that block devices were busy; partitions are contained in their disk's."""
        busy = 0.0
        for line in _lines(self._proc / "diskstats"):
            fields = line.split()
            if len(fields) > 12 and (self._sys / "block" / fields[2].replace("/", "!")).exists():
                busy += float(fields[12])
        return busy

    def _network(self) -> float:
        """Bytes received and sent over all interfaces."""
        total = 0.0
        for line in _lines(self._proc / "net" / "dev"):
            fields = line.partition(":")[2].split()
            if len(fields) >= 9:
                total += float(fields[0]) + float(fields[8])
        return total

    def _temperature(self) -> float | None:
        """The processor's temperature in °C; of the first zone where none is named after it."""
        zones = []
        for zone in sorted(self._sys.glob("class/thermal/thermal_zone*")):
            kind = " ".join(_lines(zone / "type")).lower()
            degrees = _millidegrees(zone / "temp")
            if degrees is not None:
                zones.append((not any(name in kind for name in _CPU_ZONES), degrees))
        return min(zones, key=lambda zone: zone[0])[1] if zones else None


def _millidegrees(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii").strip()) / 1000.0
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
