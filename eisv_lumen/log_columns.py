"""What the columns of a log are: found by name, or declared in a mapping; and the report of reading it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import tzinfo
from typing import Any, Self

import numpy as np

from eisv_lumen.errors import ConfigurationError, SourceError
from eisv_lumen.sensors import CHANNELS
from eisv_lumen.timestamps import check_form, epoch_seconds, parse_times, parse_written, time_zone
from eisv_lumen.units import TIME_UNITS, UNITS, own_unit, unit_of

SYNONYMS: dict[str, str] = {
    "cpu_temp_c": "cpu_temp temp_cpu cpu_temperature temperature_cpu cpu_temperature_c cpu_temp_celsius "
    "soc_temp core_temp",
    "ambient_temp_c": "ambient_temp temp_ambient ambient_temperature temperature temp temp_c temperature_c "
    "air_temp air_temperature temp_celsius ambient_temp_celsius "
    "ambient_temperature_c air_temp_c room_temp temp_h temp_p",
    "humidity_pct": "humidity hum rh relative_humidity humidity_percent humidity_rh",
    "pressure_hpa": "pressure press barometric_pressure air_pressure pressure_mbar pressure_mb baro hpa",
    "light_lux": "light lux illuminance light_level light_lx illuminance_lx illuminance_lux lx ambient_light",
    "cpu_pct": "cpu cpu_percent cpu_usage cpu_load cpu_usage_percent cpu_utilization cpu_utilisation",
    "memory_pct": "memory mem memory_percent mem_pct mem_percent ram ram_pct ram_percent memory_usage "
    "mem_usage ram_usage",
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
    "measured_at",
    "logged_at",
    "noted_date",
    "reading_time",
    "sample_time",
    "log_time",
    "local_time",
    "last_changed",
    "last_updated",
    "ts",
    "t",
    "epoch",
    "unix_time",
    "unix_timestamp",
)
DEVICE_COLUMNS = ("device", "device_id", "device_name", "host", "hostname", "node", "sensor_id")
ROLES = ("time", "date", "device", "ignore")
"""What a column can be besides a channel; `date` is the day of a column that holds times of day."""
_TEXTS = ("timezone", "time_format")

_KNOWN = (
    {"date": "date"}
    | dict.fromkeys(TIME_COLUMNS, "time")
    | dict.fromkeys(DEVICE_COLUMNS, "device")
    | {name: channel for channel in CHANNELS for name in (channel, *SYNONYMS[channel].split())}
)
_BASES = sorted(
    ((name, role) for name, role in _KNOWN.items() if role in CHANNELS or role == "time"),
    key=lambda pair: -len(pair[0]),
)
_NO_UNIT = re.compile(r"\d+|m?s")
"""Ends of a name that count sensors or say something else, though a unit is written the same."""


@dataclass
class LogReport:
    """What reading a log found.

    Attributes:
        rows: Lines after the header.
        mapped: Column in the file -> channel.
        converted: Column in the file -> its unit, where that is not the channel's own.
        ignored: Columns that are no channel, or a second one of the same channel.
        missing: Channels that the log does not have.
        dropped: Lines left out, by reason.
        values: Single values taken as missing, by reason.
        notes: Anything else a reader should know, in words.
    """

    rows: int = 0
    mapped: dict[str, str] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)
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

    def note(self, text: str) -> None:
        """Add a note, unless it stands there."""
        if text not in self.notes:
            self.notes.append(text)

    def add(self, other: "LogReport") -> None:
        """Count what another report counted, and note what it notes."""
        for reason, count in other.dropped.items():
            self.drop(reason, count)
        for reason, count in other.values.items():
            self.void(reason, count)
        self.notes += other.notes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LogMapping:
    """What a user declares about a log.

    Attributes:
        columns: Column -> channel, or `time`, `date`, `device`, `ignore`; goes before the synonyms.
        units: Column -> unit, such as `°F`, `Pa`, `fraction`, or `ms` for a time since the epoch.
        timezone: Zone of times that name none; goes before the zone of the call.
        time_format: Form of the times, in the directives of `datetime.strptime`, such as `%d.%m.%Y %H:%M`; of
            date and time with a space between them, where a column holds the dates.

    Raises:
        ConfigurationError: An unknown channel, unit or time zone, or a form that gives no moment.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None
    time_format: str | None = None

    def __post_init__(self) -> None:
        for column, channel in self.columns.items():
            if channel not in (*CHANNELS, *ROLES):
                raise ConfigurationError(
                    found=f"column {column!r} mapped to {channel!r}",
                    expected=f"{', '.join(ROLES)}, or one of {' '.join(CHANNELS)}",
                    next="correct the mapping",
                )
        for column, unit in self.units.items():
            if not any(unit_of(unit, channel) for channel in (*UNITS, "time")):
                known = dict.fromkeys([name for units in UNITS.values() for name in units] + list(TIME_UNITS))
                raise ConfigurationError(
                    found=f"column {column!r} in the unit {unit!r}",
                    expected="one of " + ", ".join(known),
                    next="correct the mapping",
                )
        if self.timezone is not None:
            time_zone(self.timezone)
        if self.time_format is not None:
            check_form(self.time_format)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From plain data with the keys `columns`, `units`, `timezone` and `time_format`, each optional.

        Raises:
            ConfigurationError: Another key, something that is no table of texts, an unknown channel, unit or
                time zone, or a form that gives no moment.
        """
        if not isinstance(data, Mapping) or not set(data) <= {"columns", "units", *_TEXTS}:
            keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise _malformed(f"a mapping with {keys}")
        tables = {key: data.get(key) or {} for key in ("columns", "units")}
        for key, table in tables.items():
            if not isinstance(table, Mapping) or not all(
                isinstance(text, str) for pair in table.items() for text in pair
            ):
                raise _malformed(f"{key}: {table!r}")
        texts = {key: data.get(key) for key in _TEXTS}
        for key, text in texts.items():
            if text is not None and not isinstance(text, str):
                raise _malformed(f"{key}: {text!r}")
        return cls(dict(tables["columns"]), dict(tables["units"]), **texts)

    @classmethod
    def of(cls, mapping: "LogMapping | Mapping[str, str] | None") -> "LogMapping":
        """The mapping itself, or one that declares columns alone."""
        return mapping if isinstance(mapping, LogMapping) else cls(columns=dict(mapping or {}))


@dataclass(frozen=True)
class Columns:
    """Where in a line time, device and channels stand, and in which unit.

    Attributes:
        names: Every column of the file, in order.
        time: Position of the times.
        date: Position of the dates, where the times are times of day.
        device: Position of the device's name.
        channels: Channel -> position, in the order of `CHANNELS`.
        units: Channel (or `time`) -> unit, where the mapping declares one, or a time's name states it.
        time_format: Form of the times, where the mapping declares one.
    """

    names: tuple[str, ...]
    time: int
    date: int | None
    device: int | None
    channels: dict[str, int]
    units: dict[str, str]
    time_format: str | None = None

    @property
    def wanted(self) -> tuple[int, ...]:
        """Positions that are read, ascending, each once."""
        other = [at for at in (self.date, self.device) if at is not None]
        return tuple(sorted({self.time, *other, *self.channels.values()}))

    def seconds(self, texts: Sequence[str], zone: tzinfo) -> np.ndarray:
        """`[N]` seconds since the epoch of times as texts, NaN where one is unreadable."""
        if self.time_format is not None:
            return parse_written(texts, self.time_format, zone)
        return epoch_seconds(parse_times(texts, zone))


def find_roles(header: Sequence[str], mapping: LogMapping) -> dict[str, int]:
    """Channel or role -> position of its column, as far as the names tell."""
    declared = _declared(header, mapping)
    found: dict[str, int] = {}
    # Declared columns come first, then exact channel names, whatever the order of the columns.
    for at in sorted(range(len(header)), key=lambda i: (i not in declared, header[i] not in CHANNELS)):
        role = declared.get(at) or _role(header[at], at, header, mapping)
        if role is not None and role != "ignore":
            found.setdefault(role, at)
    if "time" not in found and "date" in found:
        found["time"] = found.pop("date")
    return found


def is_header(header: Sequence[str], mapping: LogMapping) -> bool:
    """Do these names hold a time and a channel?"""
    found = find_roles(header, mapping)
    return "time" in found and any(name in found for name in CHANNELS)


def map_columns(name: str, header: Sequence[str], mapping: LogMapping, report: LogReport) -> Columns:
    """What the columns of a file are; the report gains what was mapped, ignored, and is missing.

    Args:
        name: Name of the file, for errors.
        header: Its columns.
        mapping: What the user declares.
        report: Receives what was found.

    Raises:
        SourceError: No time or no channel column.
        ConfigurationError: The mapping names a column that is not there, a unit that the column's channel
            cannot have, or a channel for a column whose name states another unit.
    """
    header = [text.strip() for text in header]
    _require_columns(name, header, mapping)
    found = find_roles(header, mapping)
    channels = {channel: found[channel] for channel in CHANNELS if channel in found}
    if "time" not in found or not channels:
        lacking = "time" if "time" not in found else "channel"
        hints = "; ".join(_unit_notes(header, channels, mapping))
        raise SourceError(
            found=f"{name}: no {lacking} column among {', '.join(header[:20]) or 'nothing'}",
            expected="a header line with timestamp and at least one of " + ", ".join(CHANNELS[:12]),
            next=hints or "name the columns so in the file's first line, or declare them in a mapping file",
        )
    units = _units(header, found, mapping)
    _, stated = _recognised(header[found["time"]]) or (None, None)
    if stated is not None and "time" not in units and mapping.time_format is None:
        units["time"] = stated
        report.note(f"times are read in {stated}, as the column's name {header[found['time']]!r} says")
    used = {found.get(role) for role in (*ROLES, *CHANNELS)}
    report.mapped = {header[at]: channel for channel, at in channels.items()}
    report.converted = {
        header[at]: units[channel]
        for channel, at in channels.items()
        if units.get(channel, own_unit(channel)) != own_unit(channel)
    }
    report.ignored = [text for at, text in enumerate(header) if at not in used]
    report.missing = [channel for channel in CHANNELS if channel not in channels]
    for note in _unit_notes(header, channels, mapping):
        report.note(note)
    return Columns(
        tuple(header),
        found["time"],
        found.get("date"),
        found.get("device"),
        channels,
        units,
        mapping.time_format,
    )


def unit_line(column: str, unit: str) -> str:
    """The line of a mapping file (YAML) that declares a column's unit."""
    return f"units: {{{json.dumps(column, ensure_ascii=False)}: {json.dumps(unit, ensure_ascii=False)}}}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("%", " pct ").replace("°", " ")).strip("_")


def _spellings(name: str) -> Iterable[str]:
    """The name in plain letters, as written and with the words of `camelCase` apart."""
    return dict.fromkeys([_plain(name), _plain(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))])


def _recognised(name: str) -> tuple[str, str | None] | None:
    """Channel or role of a name, and the unit that it states where that is not the channel's own."""
    for plain in _spellings(name):
        if plain in _KNOWN:
            return _KNOWN[plain], None
        for base, channel in _BASES:
            if not plain.startswith(base + "_"):
                continue
            word = plain[len(base) + 1 :]
            unit = unit_of(word, channel) or unit_of(word.removeprefix("in_"), channel)
            if unit is not None and (channel == "time" or not _NO_UNIT.fullmatch(word)):
                return channel, None if unit == own_unit(channel) else unit
    return None


def _declared(header: Sequence[str], mapping: LogMapping) -> dict[int, str]:
    """Position -> what the mapping says it is."""
    at = {_position(header, column): role for column, role in mapping.columns.items()}
    return {position: role for position, role in at.items() if position is not None}


def _position(header: Sequence[str], column: str) -> int | None:
    """Where a column that the mapping names stands: written the same, or the same in plain letters."""
    if column.strip() in header:
        return list(header).index(column.strip())
    plain = [_plain(name) for name in header]
    return plain.index(_plain(column)) if _plain(column) in plain else None


def _role(name: str, at: int, header: Sequence[str], mapping: LogMapping) -> str | None:
    """What a column is by its name; no channel where that states a unit which is not declared."""
    channel, stated = _recognised(name) or (None, None)
    if channel == "time":
        return channel
    declared = any(_position(header, column) == at for column in mapping.units)
    return channel if stated is None or declared else None


def _require_columns(name: str, header: Sequence[str], mapping: LogMapping) -> None:
    for column in (*mapping.columns, *mapping.units):
        if _position(header, column) is None:
            raise ConfigurationError(
                found=f"{name}: no column {column!r}, which the mapping names",
                expected="one of " + ", ".join(header[:40]),
                next="correct the mapping",
            )


def _units(header: Sequence[str], found: Mapping[str, int], mapping: LogMapping) -> dict[str, str]:
    """Channel (or `time`) -> declared unit."""
    roles = {at: role for role, at in found.items()}
    units: dict[str, str] = {}
    for column, word in mapping.units.items():
        at = _position(header, column)
        role = roles.get(-1 if at is None else at)
        if role is None or role in ("date", "device"):
            raise ConfigurationError(
                found=f"a unit for the column {column!r}, which is {role or 'no channel'}",
                expected="a unit for a column that is read: " + ", ".join(header[i] for i in roles),
                next="say under columns which channel it is, or leave its unit out",
            )
        unit = unit_of(word, role)
        if unit is None:
            raise ConfigurationError(
                found=f"column {column!r}, {role}, in the unit {word!r}",
                expected="one of " + ", ".join(TIME_UNITS if role == "time" else UNITS[role]),
                next="correct the mapping",
            )
        units[role] = unit
    for column in mapping.columns:
        at = _position(header, column)
        role = roles.get(-1 if at is None else at)
        stated = (_recognised(column) or (None, None))[1]
        if role in UNITS and stated in UNITS[role] and role not in units:
            raise ConfigurationError(
                found=f"column {column!r} mapped to {role}, and its name says {stated}",
                expected="its unit, declared",
                next=f"add to the mapping file: {unit_line(column, stated)}",
            )
    return units


def _unit_notes(header: Sequence[str], channels: Mapping[str, int], mapping: LogMapping) -> list[str]:
    """A note for each column left out because its name states a unit that nobody declared."""
    declared = _declared(header, mapping)
    notes = []
    for at, name in enumerate(header):
        channel, stated = _recognised(name) or (None, None)
        if channel in CHANNELS and stated is not None and channel not in channels and at not in declared:
            notes.append(
                f"column {name!r} was left out: by its name it is {channel} in {stated}; "
                f"to have it converted, add to the mapping file: {unit_line(name, stated)}"
            )
    return notes


def _malformed(found: str) -> ConfigurationError:
    return ConfigurationError(
        found=found,
        expected="columns: {column: channel}, units: {column: unit}, timezone: a name, time_format: a form; "
        "all of them texts",
        next='correct the mapping; put names and units such as "%" in quotes',
    )
