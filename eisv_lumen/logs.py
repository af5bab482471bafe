"""Sensor logs as CSV: which column is which channel, what each line says, and what had to be left out.

Columns are found by name, or declared in a `LogMapping`. Units are those in the channel's name unless the
mapping declares another; a value outside of what a sensor can report is missing, and counted. Times are ISO
8601 or seconds (milliseconds, …) since the epoch; a time without a zone is read in the zone the user names,
UTC by default.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from pathlib import Path

import numpy as np

from eisv_lumen.delimited import NO_VALUE, Fields, LineBlocks, LineForm
from eisv_lumen.errors import SourceError
from eisv_lumen.log_columns import (
    SYNONYMS,
    Columns,
    LogMapping,
    LogReport,
    is_header,
    map_columns,
    unit_line,
)
from eisv_lumen.sensors import STANDARD_PRESSURE, AnimaFilter, Readings, to_eisv
from eisv_lumen.series import Series, recorded_order
from eisv_lumen.timestamps import parse_times, time_zone
from eisv_lumen.units import TIME_UNITS, UnitWatch, convert
from eisv_lumen.windows import WINDOW_LENGTH

__all__ = [
    "SYNONYMS",
    "Intake",
    "Log",
    "LogMapping",
    "LogReport",
    "StateFilter",
    "parse_times",
    "read_log",
    "read_states",
    "readings_to_series",
    "require_states",
    "stream_readings",
    "time_zone",
]

CHUNK = 1 << 16
"""Readings handed on at once, at most."""
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:|$| ?[AaPp])")
_PREAMBLE = 50
"""Lines among which the header is looked for."""
_LOOKED_AT = 8
"""Lines behind it that tell whether a name is missing."""


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


def read_log(
    path: Path, *, timezone: str = "UTC", mapping: LogMapping | Mapping[str, str] | None = None
) -> Log:
    """Read a CSV log, plain or gzipped.

    Args:
        path: The file.
        timezone: Zone of times that name none.
        mapping: What the user declares about the columns; plain `{column: channel}` will do.

    Raises:
        SourceError: The file is missing or unreadable, has no time or no channel column, or no line can be
            used.
        ConfigurationError: An unknown time zone, or a mapping that does not fit the file.
    """
    path, report = Path(path), LogReport()
    parts: dict[str, list[Readings]] = {}
    for device, readings in stream_readings(
        path, timezone=timezone, mapping=LogMapping.of(mapping), report=report
    ):
        parts.setdefault(device, []).append(readings)
    return Log(path.name, {device: Readings.join(chunks) for device, chunks in parts.items()}, report)


def stream_readings(
    path: Path, *, timezone: str = "UTC", mapping: LogMapping | None = None, report: LogReport
) -> Iterator[tuple[str, Readings]]:
    """The readings of a CSV log, plain or gzipped, in bounded memory whatever its length.

    Args:
        path: The file.
        timezone: Zone of times that name none, unless the mapping names another.
        mapping: What the user declares about the columns.
        report: Receives what was mapped, ignored and dropped; complete when the iterator ends.

    Yields:
        Device (empty where the file names none) and up to 65,536 of its readings, in the order recorded;
        lines without a time or without any value are left out.

    Raises:
        SourceError: The file is missing or unreadable, has no time or no channel column, or no line can be
            used.
        ConfigurationError: An unknown time zone, or a mapping that does not fit the file.
    """
    path, mapping = Path(path), mapping or LogMapping()
    zone = time_zone(mapping.timezone or timezone)
    lines = LineBlocks(path)
    blocks = iter(lines)
    block = next(blocks, b"")
    header, names, delimiter, before = _find_header(block, mapping)
    columns = map_columns(path.name, names, mapping, report)
    form = LineForm(header, delimiter, len(names), columns.wanted)
    intake = Intake(columns, report)
    report.rows += before
    report.drop("before the header", before)
    block = block[block.index(header) + len(header) :].lstrip(b" \t\r\v\f")
    while block:
        split = form.split(block)
        report.rows += split.lines
        for reason, count in split.dropped.items():
            report.drop(reason, count)
        if len(split.fields):
            yield from _readings(split.fields, form, intake, zone)
        block = next(blocks, b"")
    _count_damage(lines, report)
    intake.finish(path.name)


def read_states(
    path: Path,
    *,
    timezone: str = "UTC",
    mapping: LogMapping | Mapping[str, str] | None = None,
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
        report.note("the lines were not in order of time and were sorted")
    states = StateFilter(report, site_pressure=site_pressure, smooth=smooth)
    return Series.of(*states.update(readings))


class StateFilter:
    """Readings of one device in, EISV states out, chunk by chunk; counts in a report what is dropped.

    A reading is dropped if it repeats the time of the one before it, or if no value is left once impossible
    ones and those of frozen sensors are missing. How the readings are cut into chunks changes no result.

    Args:
        report: Receives the counts.
        site_pressure: Usual pressure of the place in hPa.
        smooth: Give the states their momentum.
    """

    def __init__(
        self, report: LogReport, *, site_pressure: float = STANDARD_PRESSURE, smooth: bool = True
    ) -> None:
        self._report = report
        self._anima = AnimaFilter(site_pressure=site_pressure, smooth=smooth)
        self._last_time = np.nan

    def update(self, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
        """The next readings, in the order recorded, all with a time.

        Returns:
            Times `[M]` and states `[M, 4]` of the readings that are kept.
        """
        if len(readings):
            again = np.diff(readings.times, prepend=self._last_time) == 0
            self._last_time = readings.times[-1]
            self._report.drop("repeated time", int(again.sum()))
            readings = readings[~again]
        readings, impossible, frozen = self._anima.cleaned(readings)
        for reason, counts in (("impossible", impossible), ("frozen", frozen)):
            for channel, count in counts.items():
                self._report.void(f"{reason} {channel}", count)
        valued = readings.present()
        self._report.drop("no possible value", int((~valued).sum()))
        readings = readings[valued]
        return readings.times, to_eisv(self._anima.follow(readings))


class Intake:
    """Columns of a log in, usable readings per device out; shared by every file format.

    Args:
        columns: What the columns are.
        report: Receives what was dropped.
    """

    def __init__(self, columns: Columns, report: LogReport) -> None:
        self.columns, self.report = columns, report
        self._watched = {name: UnitWatch(name) for name in columns.channels if name not in columns.units}
        self._unreadable = ""
        self._no_numbers: dict[str, str] = {}
        self._usable = 0

    def take(
        self,
        times: np.ndarray,
        channels: Mapping[str, np.ndarray],
        devices: tuple[Sequence[str], np.ndarray] | None = None,
    ) -> Iterator[tuple[str, Readings]]:
        """The next lines.

        Args:
            times: `[N]` seconds since the epoch, NaN where unreadable.
            channels: `[N]` values per channel in the unit of the file, NaN where missing.
            devices: Distinct names, and which of them `[N]` each line holds.

        Yields:
            Device and its usable readings.
        """
        units = self.columns.units
        converted = {name: convert(values, name, units.get(name)) for name, values in channels.items()}
        readings = Readings(times, converted)
        for name, watch in self._watched.items():
            watch.update(converted[name])
        timed, valued = ~np.isnan(times), readings.present()
        self.report.drop("unreadable time", int((~timed).sum()))
        self.report.drop("no value", int((timed & ~valued).sum()))
        usable = timed & valued
        self._usable += int(usable.sum())
        for device, rows in _by_device(usable, devices):
            for start in range(0, len(rows), CHUNK):
                yield device, readings[rows[start : start + CHUNK]]

    def unreadable_time(self, text: str) -> None:
        """Remember the first time that could not be read, for the report."""
        self._unreadable = self._unreadable or text[:40]

    def unreadable_value(self, channel: str, texts: Callable[[], Sequence[str]], values: np.ndarray) -> None:
        """Remember a channel's first text that is no number, for the report.

        Args:
            channel: Its channel.
            texts: Gives `[N]` texts; asked once per channel.
            values: `[N]` what was read in them, NaN where nothing.
        """
        if channel in self._no_numbers:
            return
        missing = zip(texts(), np.isnan(values).tolist(), strict=True)
        odd = (text.strip() for text, nan in missing if nan)
        example = next((text for text in odd if text.lower() not in NO_VALUE), "")
        self._no_numbers[channel] = example[:40]

    def finish(self, name: str) -> None:
        """The file has ended: the report gains what only all of it shows.

        Raises:
            SourceError: No line could be used.
        """
        if self._unreadable:
            self.report.note(f"a time that could not be read: {self._unreadable!r}")
        for channel, text in self._no_numbers.items():
            self.report.note(f"a value of {channel} that is no number: {text!r}")
        for channel, watch in self._watched.items():
            if (found := watch.suspicion()) is not None:
                column = self.columns.names[self.columns.channels[channel]]
                self.report.note(
                    f"column {column!r} may be in {found[0]}, not in the unit of {channel}: {found[1]}; "
                    f"if so, add to the mapping file: {unit_line(column, found[0])}"
                )
        if not self._usable:
            dropped = ", ".join(f"{count} {reason}" for reason, count in self.report.dropped.items())
            texts = [text for text in (self._unreadable, *self._no_numbers.values()) if text]
            example = f"; such as {texts[0]!r}" if texts else ""
            raise SourceError(
                found=f"{name}: {self.report.rows} lines, none usable "
                f"({dropped or 'the file ends there'}{example})",
                expected="lines with a time (ISO 8601, or seconds since the epoch) and a channel value",
                next='say in the mapping file how times are written, as in time_format: "%d.%m.%Y %H:%M:%S"'
                if self._unreadable
                else "check the file's times and columns",
            )


def _find_header(block: bytes, mapping: LogMapping) -> tuple[bytes, list[str], str, int]:
    """The header line, its names, the delimiter, and how many lines stand before it.

    It is the first line that names a time and a channel; where none does, the first line, to be refused.
    """
    stripped = (line.strip() for line in block.split(b"\n", 4 * _PREAMBLE)[: 4 * _PREAMBLE])
    lines = [line for line in stripped if line][:_PREAMBLE]
    for number, line in enumerate(lines):
        names, delimiter = _names(line)
        if is_header(names, mapping):
            return line, _completed(names, delimiter, lines[number + 1 :]), delimiter, number
    line = lines[0] if lines else b""
    return line, *_names(line), 0


def _names(line: bytes) -> tuple[list[str], str]:
    text = line.decode("utf-8", "replace").lstrip("# ")
    delimiter = max(",;\t|", key=text.count)
    return [name.strip() for name in _cells(text, delimiter)], delimiter


def _cells(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


def _completed(names: list[str], delimiter: str, lines: Sequence[bytes]) -> list[str]:
    """The names, with one more where all lines have one field more: row names, as R writes, or nothing."""
    rows = [_cells(line.decode("utf-8", "replace"), delimiter) for line in lines[:_LOOKED_AT]]
    if not rows or any(len(row) != len(names) + 1 for row in rows):
        return names
    return ["row name", *names] if any(row[-1].strip() for row in rows) else [*names, "nothing"]


def _readings(fields: Fields, form: LineForm, intake: Intake, zone: tzinfo) -> Iterator[tuple[str, Readings]]:
    """The usable readings of a block of records."""
    columns, at = intake.columns, form.wanted.index
    comma = form.delimiter == ";"
    channels = {}
    for name, position in columns.channels.items():
        channels[name], unreadable = fields.numbers(at(position), decimal_comma=comma)
        intake.report.void("not a number", unreadable)
        if unreadable:
            intake.unreadable_value(name, partial(fields.texts, at(position)), channels[name])
    times = _times(fields, form, intake, zone)
    devices = None if columns.device is None else fields.names(at(columns.device))
    yield from intake.take(times, channels, devices)


def _times(fields: Fields, form: LineForm, intake: Intake, zone: tzinfo) -> np.ndarray:
    columns, at = intake.columns, form.wanted.index
    if "time" in columns.units:
        numbers, _ = fields.numbers(at(columns.time))
        return np.where(np.isfinite(numbers), numbers / TIME_UNITS[columns.units["time"]], np.nan)
    texts = fields.texts(at(columns.time))
    if columns.date is not None:
        dates = fields.texts(at(columns.date))
        texts = [
            f"{date} {text}" if _TIME_OF_DAY.match(text) else text
            for date, text in zip(dates, texts, strict=True)
        ]
    times = columns.seconds(texts, zone)
    unreadable = np.isnan(times)
    if unreadable.any():
        intake.unreadable_time(next((texts[row] for row in np.flatnonzero(unreadable) if texts[row]), ""))
    return times


def _by_device(
    usable: np.ndarray, devices: tuple[Sequence[str], np.ndarray] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Rows that can be used, per device, in the order in which the devices first appear."""
    rows = np.flatnonzero(usable)
    if not len(rows):
        return
    if devices is None or len(devices[0]) == 1:
        yield (devices[0][0].strip() if devices else ""), rows
        return
    names, which = devices
    order = np.argsort(which[rows], kind="stable")
    edges = np.searchsorted(which[rows][order], np.arange(len(names) + 1))
    for number, name in enumerate(names):
        if edges[number] < edges[number + 1]:
            yield name.strip(), rows[order[edges[number] : edges[number + 1]]]


def _count_damage(lines: LineBlocks, report: LogReport) -> None:
    report.rows += lines.unfinished + lines.overlong
    report.drop("line cut off", lines.unfinished)
    report.drop("line too long", lines.overlong)
    if lines.cut_off:
        report.note("the file is cut off; everything before that point was read")
