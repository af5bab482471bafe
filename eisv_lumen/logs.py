"""Sensor logs as CSV: which column is which channel, what each line says, and what had to be left out.

Columns are found by name. Units are those in the channel's name; a value outside of what a sensor can report
in that unit is missing, and counted. Times are ISO 8601 or seconds (milliseconds) since the epoch; a time
without a zone is read in the zone the user names, UTC by default.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, tzinfo
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from eisv_lumen.errors import ConfigurationError, SourceError
from eisv_lumen.sensors import CHANNELS, STANDARD_PRESSURE, AnimaFilter, Readings, to_eisv
from eisv_lumen.series import Series, recorded_order, repeated
from eisv_lumen.windows import WINDOW_LENGTH

SYNONYMS: dict[str, str] = {
    "cpu_temp_c": "cpu_temp temp_cpu cpu_temperature temperature_cpu cpu_temperature_c cpu_temp_celsius "
    "soc_temp core_temp",
    "ambient_temp_c": "ambient_temp temp_ambient ambient_temperature temperature temp temp_c temperature_c "
    "air_temp air_temperature temp_celsius ambient_temp_celsius "
    "ambient_temperature_c air_temp_c room_temp temp_h temp_p",
    "humidity_pct": "humidity hum rh relative_humidity humidity_percent humidity_rh",
    "pressure_hpa": "pressure press barometric_pressure air_pressure pressure_mbar pressure_mb baro hpa",
    "light_lux": "light lux illuminance light_level light_lx illuminance_lx illuminance_lux lx ambient_light",
    "cpu_pct": "cpu cpu_percent cpu_usage cpu_load cpu_usage_percent",
    "memory_pct": "memory mem memory_percent mem_pct mem_percent ram ram_pct ram_percent memory_usage",
    "disk_pct": "disk disk_percent disk_usage disk_usage_percent",
    "context_switches_per_s": "context_switches_per_second ctx_switches_per_s ctxt_per_s",
    "interrupts_per_s": "interrupts_per_second irq_per_s",
    "disk_busy_ms_per_s": "disk_busy_per_s disk_busy",
    "network_bytes_per_s": "network_bytes_per_second net_bytes_per_s",
    "beta": "beta_power eeg_beta eeg_beta_power neural_beta",
    "alpha": "alpha_power eeg_alpha eeg_alpha_power neural_alpha",
    "gamma": "gamma_power eeg_gamma eeg_gamma_power neural_gamma",
    "theta": "theta_power eeg_theta eeg_theta_power neural_theta",
    "delta": "delta_power eeg_delta eeg_delta_power neural_delta",
}
TIME_COLUMNS = (
    "timestamp",
    "time",
    "datetime",
    "date_time",
    "time_stamp",
    "recorded_at",
    "created_at",
    "ts",
    "t",
    "epoch",
    "unix_time",
)
DEVICE_COLUMNS = ("device", "device_id", "device_name", "host", "hostname", "node", "sensor_id")


NO_VALUE = frozenset({"", "nan", "null", "none", "na", "n/a", "-", "nil"})
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:|$)")
_CHUNK = 1 << 16
_MILLISECONDS = 1e11
"""A number of seconds beyond the year 5000 is a number of milliseconds."""


@dataclass
class LogReport:
    """What reading a log found.

    Attributes:
        rows: Lines after the header.
        mapped: Column in the file -> channel.
        ignored: Columns that are no channel, or a second one of the same channel.
        missing: Channels that the log does not have.
        dropped: Lines left out, by reason.
        values: Single values taken as missing, by reason.
        notes: Anything else a reader should know, in words.
    """

    rows: int = 0
    mapped: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count lines left out."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(count)

    def void(self, reason: str, count: int = 1) -> None:
        """Count values taken as missing."""
        if count:
            self.values[reason] = self.values.get(reason, 0) + int(count)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass
class Log:
    """A log that was read: the readings of each device in the order recorded, and the report."""

    name: str
    devices: dict[str, Readings]
    report: LogReport

    def series(self, *, site_pressure: float = STANDARD_PRESSURE, smooth: bool = True) -> dict[str, Series]:
        """EISV series per device; the report gains what was dropped on the way."""
        return {
            device: readings_to_series(readings, self.report, site_pressure=site_pressure, smooth=smooth)
            for device, readings in self.devices.items()
        }


@dataclass(frozen=True)
class _Columns:
    """Where in a line time, device and channels stand."""

    names: tuple[str, ...]
    time: int
    date: int | None
    device: int | None
    channels: dict[str, int]
    decimal_comma: bool


def time_zone(name: str) -> tzinfo:
    """The time zone of a name such as `UTC` or `Europe/Berlin`.

    Raises:
        ConfigurationError: No such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            found=f"time zone {name!r}",
            expected="a name such as UTC or Europe/Berlin",
            next="correct the time zone (on a bare system, install tzdata)",
        ) from error


def read_log(path: Path, *, timezone: str = "UTC", mapping: Mapping[str, str] | None = None) -> Log:
    """Read a CSV log, plain or gzipped.

    Args:
        path: The file.
        timezone: Zone of times that name none.
        mapping: Column -> channel, before the synonyms; `time` and `device` may be mapped as well.

    Raises:
        SourceError: The file is missing or unreadable, has no time or no channel column, or no line can be
            used.
        ConfigurationError: An unknown time zone or channel in the mapping.
    """
    path, report = Path(path), LogReport()
    zone = time_zone(timezone)
    parts: dict[str, list[Readings]] = {}
    for device, readings in _read(path, zone, mapping or {}, report):
        parts.setdefault(device, []).append(readings)
    if not parts:
        raise SourceError(
            found=f"{path.name}: {report.rows} lines, none usable ({_counts(report.dropped)})",
            expected="lines with a time and at least one channel value",
            next="check the file's times and columns",
        )
    return Log(path.name, {device: _join(chunks) for device, chunks in parts.items()}, report)


def read_states(
    path: Path,
    *,
    timezone: str = "UTC",
    mapping: Mapping[str, str] | None = None,
    site_pressure: float = STANDARD_PRESSURE,
) -> tuple[Series, LogReport]:
    """The EISV states of a log; of the device with the most readings where it holds several.

    Raises:
        SourceError: As for `read_log`, or fewer than 20 usable states.
    """
    log = read_log(path, timezone=timezone, mapping=mapping)
    device = max(log.devices, key=lambda name: len(log.devices[name]))
    if len(log.devices) > 1:
        log.report.notes.append(f"{len(log.devices)} devices in the file; heard {device!r}")
    series = readings_to_series(log.devices[device], log.report, site_pressure=site_pressure)
    require_states(log.name, len(series))
    return series, log.report


def require_states(name: str, count: int) -> None:
    """Refuse a source too short for a single window.

    Raises:
        SourceError: Fewer than 20 states.
    """
    if count < WINDOW_LENGTH:
        raise SourceError(
            found=f"{name}: {count} usable states",
            expected=f"at least {WINDOW_LENGTH}, the length of one window",
            next="record for longer, or pass another log",
        )


def readings_to_series(
    readings: Readings,
    report: LogReport,
    *,
    site_pressure: float = STANDARD_PRESSURE,
    smooth: bool = True,
) -> Series:
    """EISV series of one device's readings; counts in the report what is dropped on the way."""
    order = recorded_order(readings.times)
    if order is not None:
        readings = readings[order]
        report.notes.append("the lines were not in order of time and were sorted")
    again = repeated(readings.times)
    report.drop("repeated time", int(again.sum()))
    readings = readings[~again]
    readings, impossible = readings.plausible()
    for channel, count in impossible.items():
        report.void(f"impossible {channel}", count)
    valued = readings.present()
    report.drop("no possible value", int((~valued).sum()))
    readings = readings[valued]
    states = to_eisv(AnimaFilter(site_pressure=site_pressure, smooth=smooth).update(readings))
    return Series.of(readings.times, states)


def parse_times(texts: Sequence[str], zone: tzinfo) -> np.ndarray:
    """`[N]` seconds since the epoch of ISO 8601 texts or numbers; NaN where a text is neither."""
    try:
        seconds = np.array(texts, dtype="U").astype(np.float64)
    except ValueError:
        seconds = np.array([_time(text, zone) for text in texts], np.float64)
    seconds = np.where(np.isfinite(seconds), seconds, np.nan)
    return np.where(np.abs(seconds) > _MILLISECONDS, seconds / 1000.0, seconds)


def _read(
    path: Path, zone: tzinfo, mapping: Mapping[str, str], report: LogReport
) -> Iterator[tuple[str, Readings]]:
    """The readings, per chunk of lines and device."""
    with _opened(path) as file:
        header = _first_line(path, file)
        delimiter = max(",;\t|", key=header.count)
        names = next(csv.reader([header], delimiter=delimiter), [])
        columns = _map_columns(path, names, mapping, report, decimal_comma=delimiter == ";")
        lines = _lines(csv.reader(file, delimiter=delimiter), report)
        while rows := list(islice(lines, _CHUNK)):
            report.rows += len(rows)
            yield from _chunk(rows, columns, zone, report)


def _chunk(
    rows: list[list[str]], columns: _Columns, zone: tzinfo, report: LogReport
) -> Iterator[tuple[str, Readings]]:
    whole = [row for row in rows if len(row) == len(columns.names)]
    report.drop("wrong number of fields", len(rows) - len(whole))
    if not whole:
        return
    fields = list(zip(*whole, strict=True))
    texts: Sequence[str] = fields[columns.time]
    if columns.date is not None and _TIME_OF_DAY.match(texts[0].strip()):
        texts = [
            f"{date.strip()} {time.strip()}" for date, time in zip(fields[columns.date], texts, strict=True)
        ]
    times = parse_times(texts, zone)
    channels = {
        name: _numbers(fields[at], report, columns.decimal_comma) for name, at in columns.channels.items()
    }
    readings = Readings(times, channels)
    timed, valued = ~np.isnan(times), readings.present()
    report.drop("unreadable time", int((~timed).sum()))
    report.drop("no value", int((timed & ~valued).sum()))
    usable = timed & valued
    if columns.device is None:
        if usable.any():
            yield "", readings[usable]
        return
    devices = np.array(fields[columns.device])
    for device in dict.fromkeys(devices[usable].tolist()):
        yield device.strip(), readings[usable & (devices == device)]


def _opened(path: Path) -> io.TextIOWrapper:
    try:
        raw = path.open("rb")
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
    except OSError as error:
        raise _unreadable(path, error) from error
    binary = gzip.GzipFile(fileobj=raw) if packed else raw
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")  # type: ignore[arg-type]


def _first_line(path: Path, file: io.TextIOWrapper) -> str:
    try:
        return next((line for line in file if line.strip()), "")
    except (EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _lines(reader: Iterator[list[str]], report: LogReport) -> Iterator[list[str]]:
    """Lines that are not blank; one that cannot be read is counted, and a file cut off ends where it does."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            report.rows += 1
            report.drop("unreadable line")
            continue
        except (EOFError, OSError, zlib.error):
            report.notes.append("the file is cut off; everything before that point was read")
            return
        if row and any(cell.strip() for cell in row):
            yield row


def _map_columns(
    path: Path, header: list[str], mapping: Mapping[str, str], report: LogReport, *, decimal_comma: bool
) -> _Columns:
    names = tuple(name.strip() for name in header)
    known = _known_names(mapping)
    found: dict[str, int] = {}
    # Exact channel names come first, whatever the order of the columns.
    for at in sorted(range(len(names)), key=lambda i: names[i] not in CHANNELS and names[i] not in mapping):
        channel = known.get(_plain(names[at]))
        if channel is not None and channel not in found:
            found[channel] = at
    date = found.pop("date", None)
    if "time" not in found and date is not None:
        found["time"], date = date, None
    channels = {name: found[name] for name in CHANNELS if name in found}
    if "time" not in found or not channels:
        lacking = "time" if "time" not in found else "channel"
        raise SourceError(
            found=f"{path.name}: no {lacking} column among {', '.join(names[:20]) or 'nothing'}",
            expected="a header line with timestamp and at least one of " + ", ".join(CHANNELS[:12]),
            next="name the columns so in the file's first line",
        )
    used = {*found.values(), date}
    report.mapped = {names[at]: name for name, at in channels.items()}
    report.ignored = [name for at, name in enumerate(names) if at not in used]
    report.missing = [name for name in CHANNELS if name not in channels]
    return _Columns(names, found["time"], date, found.get("device"), channels, decimal_comma)


def _known_names(mapping: Mapping[str, str]) -> dict[str, str]:
    known = {"date": "date"} | dict.fromkeys(TIME_COLUMNS, "time") | dict.fromkeys(DEVICE_COLUMNS, "device")
    for channel in CHANNELS:
        known |= dict.fromkeys([channel, *SYNONYMS[channel].split()], channel)
    for column, channel in mapping.items():
        if channel not in (*CHANNELS, "time", "device"):
            raise ConfigurationError(
                found=f"column {column!r} mapped to {channel!r}",
                expected="time, device, or one of " + " ".join(CHANNELS),
                next="correct the mapping",
            )
        known[_plain(column)] = channel
    return known


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("%", " pct ").replace("°", " ")).strip("_")


def _numbers(texts: Sequence[str], report: LogReport, decimal_comma: bool) -> np.ndarray:
    if decimal_comma:
        texts = [text.replace(",", ".") for text in texts]
    try:
        return np.array(texts, dtype="U").astype(np.float64)
    except ValueError:
        values = np.array([_number(text) for text in texts], np.float64)
    unreadable = np.isneginf(values)
    report.void("not a number", int(unreadable.sum()))
    return np.where(unreadable, np.nan, values)


def _number(text: str) -> float:
    """The number, NaN where none is given, minus infinity where the text is no number."""
    text = text.strip()
    if text.lower() in NO_VALUE:
        return np.nan
    try:
        return float(text)
    except ValueError:
        return -np.inf


def _time(text: str, zone: tzinfo) -> float:
    text = text.strip()
    try:
        return float(text)  # first, because some numbers read as ISO 8601 basic dates too
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        return np.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def _join(chunks: list[Readings]) -> Readings:
    if len(chunks) == 1:
        return chunks[0]
    return Readings(
        np.concatenate([chunk.times for chunk in chunks]),
        {name: np.concatenate([chunk.channels[name] for chunk in chunks]) for name in chunks[0].channels},
    )


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(
        found=f"{path.name}: {getattr(error, 'strerror', None) or type(error).__name__}",
        expected="a readable CSV file (.csv or .csv.gz)",
        next="check the path and the permissions of the file",
    )


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the file ends there"
