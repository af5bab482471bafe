"""Telemetry of the machine this runs on, as channels of a reading; what it does not have is left out."""

import time
from dataclasses import dataclass

import psutil

from dataset_builder.i2c import Sensors

CPU_SENSORS = ("cpu_thermal", "cpu-thermal", "coretemp", "k10temp", "zenpower", "soc_thermal", "soc-thermal")
"""Names under which Linux reports the temperature of the processor."""

_KELVIN_FREE = (-40.0, 125.0)


@dataclass(frozen=True)
class _Counters:
    moment: float
    context_switches: int
    interrupts: int
    disk_busy_ms: int | None
    network_bytes: int | None


class Telemetry:
    """Reads the machine, and the sensors on its I2C bus; rates are over the time since the reading before.

    Attributes:
        channels: What it can read; at a reading any of them may be missing.
    """

    def __init__(self, sensors: Sensors | None = None) -> None:
        self.sensors = sensors or Sensors()
        psutil.cpu_percent(None)
        self._before = _counters()
        machine = self._read(self._before, self._before, elapsed=1.0)
        self.channels = (*machine, *self.sensors.channels)

    def read(self) -> dict[str, float]:
        """`{channel: value}` now, with rates since the last call."""
        now = _counters()
        values = self._read(self._before, now, elapsed=max(now.moment - self._before.moment, 1e-3))
        self._before = now
        return values | self.sensors.read()

    def _read(self, before: _Counters, now: _Counters, elapsed: float) -> dict[str, float]:
        values: dict[str, float] = {}
        temperature = _cpu_temperature()
        if temperature is not None:
            values["cpu_temp_c"] = temperature
        values["cpu_pct"] = psutil.cpu_percent(None)
        values["memory_pct"] = psutil.virtual_memory().percent
        values["disk_pct"] = psutil.disk_usage("/").percent
        values["context_switches_per_s"] = (now.context_switches - before.context_switches) / elapsed
        values["interrupts_per_s"] = (now.interrupts - before.interrupts) / elapsed
        if now.disk_busy_ms is not None and before.disk_busy_ms is not None:
            values["disk_busy_ms_per_s"] = (now.disk_busy_ms - before.disk_busy_ms) / elapsed
        if now.network_bytes is not None and before.network_bytes is not None:
            values["network_bytes_per_s"] = (now.network_bytes - before.network_bytes) / elapsed
        return {name: max(value, 0.0) if name.endswith("_per_s") else value for name, value in values.items()}


def _counters() -> _Counters:
    stats = psutil.cpu_stats()
    return _Counters(
        time.monotonic(), stats.ctx_switches, stats.interrupts, _disk_busy_ms(), _network_bytes()
    )


def _disk_busy_ms() -> int | None:
    """Milliseconds the disks were busy; only Linux and FreeBSD count them."""
    try:
        counters = psutil.disk_io_counters()
    except (OSError, RuntimeError):
        return None
    return getattr(counters, "busy_time", None)


def _network_bytes() -> int | None:
    try:
        counters = psutil.net_io_counters()
    except (OSError, RuntimeError):
        return None
    return None if counters is None else counters.bytes_sent + counters.bytes_recv


def _cpu_temperature() -> float | None:
    """The processor's temperature in °C where the machine reports one."""
    try:
        sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    except OSError:
        return None
    for name in CPU_SENSORS:
        for entry in sensors.get(name, []):
            if entry.current is not None and _KELVIN_FREE[0] < entry.current < _KELVIN_FREE[1]:
                return float(entry.current)
    return None
