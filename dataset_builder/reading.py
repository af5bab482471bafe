"""Reading sources: whatever they are, their states end up in spools, one per device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataset_builder import parquet_log
from dataset_builder.anima_db import AnimaDatabase, Observed, StateReader, StateRows
from dataset_builder.beside import ahead
from dataset_builder.legacy_rows import LegacyRows
from dataset_builder.sources import DATABASE, PARQUET_LOG, PUBLISHED, RECORDING, Source
from dataset_builder.spool import CHUNK, Spooled, SpoolWriter
from eisv_lumen import artifact
from eisv_lumen.logs import LogMapping, LogReport, StateFilter, require_states, stream_readings
from eisv_lumen.sensors import Readings, to_eisv
from eisv_lumen.timestamps import time_zone
from eisv_lumen.windows import Windows

_SAME_STATE, _SAME_TIME = 1e-3, 2e-3
"""Copies of a state may have been rounded by so much; times in seconds."""
_EQUAL_STATE = 1e-5
"""States that were read twice from one log, once in another time zone, differ by no more."""
_ZONE_STEP_S, _FARTHEST_ZONES_S = 900.0, 26 * 3600.0
"""Time zones are whole quarter hours apart, and no more than this."""

Chunks = Iterator[tuple[str, Readings]]
States = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass
class Content:
    """What was read from a source.

    Attributes:
        source: Where from.
        devices: Spooled EISV states by device name.
        report: What was mapped and dropped.
        observed: Expressions that were really said, where the source has any.
        synthetic: Windows that the source itself calls synthetic, where it has any.
        legacy: The source's own rows of the published schema, where it has them.
    """

    source: Source
    devices: dict[str, Spooled]
    report: LogReport
    observed: Observed | None = None
    synthetic: Windows | None = None
    legacy: Callable[[], Iterator[pa.RecordBatch]] | None = None

    @property
    def states(self) -> int:
        """Number of usable states."""
        return sum(len(series) for series in self.devices.values())

    def dropped(self, reason: str, count: int) -> None:
        """Count states that another source, or an earlier dataset, holds.

        Published rows are then no longer whole: what is left is cut anew, and their synthetic ones are held.
        """
        self.report.drop(reason, count)
        if count:
            self.legacy = self.synthetic = None


def read_source(
    source: Source,
    folder: Path,
    *,
    timezone: str,
    site_pressure: float,
    mapping: LogMapping | None = None,
) -> Content:
    """The EISV states of a source, spooled below a folder.

    Raises:
        SourceError: It cannot be read, or holds fewer than 20 usable states.
        ArtifactError: A recording or dataset folder is damaged.
        HubError: A repository cannot be read.
    """
    folder.mkdir(parents=True)
    if source.kind == PUBLISHED:
        content = _read_published(source, folder)
    elif source.kind == DATABASE:
        content = _read_database(source, folder, timezone, site_pressure)
    else:
        content = _read_log(source, folder, timezone, site_pressure, mapping)
    require_states(source.name, content.states)
    return content


def _read_published(source: Source, folder: Path) -> Content:
    report = LogReport()
    if isinstance(source.place, Path) and (source.place / artifact.MANIFEST).is_file():
        artifact.verify(source.place, kind="dataset")
    with LegacyRows(source.place, report, scratch=folder) as rows:
        series = _spool_states(rows.states(), folder / "0", report)
        observed, synthetic = rows.observed(), rows.synthetic()
    return Content(source, {source.name: series}, report, observed, synthetic, legacy=rows.batches)


def _read_database(source: Source, folder: Path, timezone: str, site_pressure: float) -> Content:
    zone = time_zone(timezone)

    def stored() -> Iterator[StateRows | tuple[Observed, LogReport]]:
        report = LogReport()
        with AnimaDatabase(source.path, zone, report) as database:
            yield from database.rows()
            yield database.observed(), report

    report, found = LogReport(), list[tuple[Observed, LogReport]]()
    reader = StateReader(zone, report, site_pressure=site_pressure)

    def states() -> States:
        for part in ahead(stored):
            if isinstance(part, StateRows):
                times, anima = reader.read(part)
                yield times, to_eisv(anima)
            else:
                found.append(part)

    series = _spool_states(states(), folder / "0", report)
    observed, whole = found.pop()
    whole.add(report)
    return Content(source, {source.name: series}, whole, observed)


def _read_log(
    source: Source, folder: Path, timezone: str, site_pressure: float, mapping: LogMapping | None
) -> Content:
    if source.kind == RECORDING:
        artifact.verify(source.path, kind=RECORDING)
    reader = parquet_log.stream_readings if source.kind == PARQUET_LOG else stream_readings

    def chunks(report: LogReport) -> Chunks:
        return reader(source.log, timezone=timezone, mapping=mapping, report=report)

    report = LogReport()
    writers = _spool_readings(chunks(report), folder / "0", site_pressure, report)
    shuffled = {name for name, writer in writers.items() if writer.shuffled}
    if shuffled:
        report = LogReport()
        ordered = _sorted(chunks(report), shuffled)
        writers = _spool_readings(ordered, folder / "1", site_pressure, report)
        report.notes.append("the lines were not in order of time and were sorted")
    unnamed = source.name if source.name not in writers else f"{source.name}-unnamed"
    series = {name or unnamed: writer.finish() for name, writer in writers.items()}
    return Content(source, series, report)


def _spool_readings(
    chunks: Chunks, folder: Path, site_pressure: float, report: LogReport
) -> dict[str, SpoolWriter]:
    writers: dict[str, SpoolWriter] = {}
    filters: dict[str, StateFilter] = {}
    for name, readings in chunks:
        if name not in writers:
            writers[name] = SpoolWriter(folder / str(len(writers)))
            filters[name] = StateFilter(report, site_pressure=site_pressure)
        writers[name].append(*filters[name].update(readings))
    return writers


def _spool_states(states: States, folder: Path, report: LogReport) -> Spooled:
    writer, last = SpoolWriter(folder), np.nan
    for times, values in states:
        again = np.diff(times, prepend=last) == 0
        report.drop("repeated time", int(again.sum()))
        writer.append(times[~again], values[~again])
        last = times[-1] if len(times) else last
    series = writer.finish()
    if not writer.shuffled:
        return series
    report.notes.append("the rows were not in order of time and were sorted")
    times, values = series.read(0, len(series))
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    again = np.diff(times, prepend=np.nan) == 0
    report.drop("repeated time", int(again.sum()))
    writer = SpoolWriter(folder.with_name(folder.name + "-sorted"))
    writer.append(times[~again], values[~again])
    return writer.finish()


def _sorted(chunks: Chunks, shuffled: set[str]) -> Chunks:
    """The readings; those of shuffled or newest-first devices are held in memory and put in order of time."""
    parts: dict[str, list[Readings]] = {}
    for name, readings in chunks:
        if name in shuffled:
            parts.setdefault(name, []).append(readings)
        else:
            yield name, readings
    for name, found in parts.items():
        whole = Readings.join(found)
        whole = whole[np.argsort(whole.times, kind="stable")]
        for first in range(0, len(whole), CHUNK):
            yield name, whole[first : first + CHUNK]


def drop_repeated_states(contents: Sequence[Content]) -> None:
    """Leave out states that an earlier source holds as well.

    Such as those of an older copy of a database, or of the same log that was read in another time zone: its
    states would be in other splits, hours away.
    """
    earlier: list[Spooled] = []
    for content in contents:
        for device, series in content.devices.items():
            held = [
                (other, 0.0) for other in earlier if _overlap(series, other) and _mostly_same(series, other)
            ]
            zoned = [(other, apart) for other in earlier if (apart := _zones_apart(series, other))]
            for reason, others in (
                ("state held by an earlier source", held),
                ("state held by an earlier source in another time zone", zoned),
            ):
                if others and len(series):
                    kept = rewritten(series, partial(_not_in, others))
                    content.dropped(reason, len(series) - len(kept))
                    content.devices[device] = series = kept
            earlier.append(series)


def drop_held_states(
    contents: Sequence[Content], spans: Callable[[str, str], Sequence[tuple[float, float]]]
) -> None:
    """Leave out states from times of which the dataset that is grown holds the same device's states.

    Args:
        contents: What was read.
        spans: Spans of time that are held, given a source and a device.
    """
    for content in contents:
        for device, series in content.devices.items():
            held = spans(content.source.name, device)
            if not held or not len(series):
                continue
            content.devices[device] = kept = rewritten(series, partial(_outside, held))
            content.dropped("state held by the dataset that is grown", len(series) - len(kept))


def rewritten(series: Spooled, keep: Callable[[np.ndarray], np.ndarray]) -> Spooled:
    """The states for which `keep` of times `[n]` holds, in a spool of their own."""
    folder = series.folder.with_name(series.folder.name + "-kept")
    while folder.exists():
        folder = folder.with_name(folder.name + "-kept")
    writer = SpoolWriter(folder)
    for times, states in series.chunks():
        kept = keep(times)
        writer.append(times[kept], states[kept])
    return writer.finish()


def _outside(spans: Sequence[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    return np.all([(times < start) | (times > end) for start, end in spans], axis=0)


def _overlap(one: Spooled, other: Spooled) -> bool:
    return one.span[0] <= other.span[1] and other.span[0] <= one.span[1]


def _zones_apart(series: Spooled, other: Spooled) -> float:
    """Seconds between two readings of one log in different time zones; 0 where they are no such."""
    if not len(series) or not len(other):
        return 0.0
    between = series.span[0] - other.span[0]
    apart = round(between / _ZONE_STEP_S) * _ZONE_STEP_S
    if abs(between - apart) > _SAME_TIME or not 0 < abs(apart) <= _FARTHEST_ZONES_S:
        return 0.0
    return apart if _mostly_same(series, other, apart, _EQUAL_STATE) else 0.0


def _mostly_same(series: Spooled, other: Spooled, apart: float = 0.0, tolerance: float = _SAME_STATE) -> bool:
    """Do two series that share moments, so many seconds apart, mostly share the states there, too?"""
    shared = same = 0
    for times, states in series.chunks():
        theirs, at, found = _shared(times - apart, other)
        shared += len(found)
        same += int((np.abs(theirs[at] - states[found]) < tolerance).all(axis=1).sum())
    return same > 0.5 * shared


def _not_in(series: Iterable[tuple[Spooled, float]], times: np.ndarray) -> np.ndarray:
    new = np.ones(len(times), bool)
    for other, apart in series:
        new[_shared(times - apart, other)[2]] = False
    return new


def _shared(times: np.ndarray, other: Spooled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States of the other series around `times`; rows of these, and of `times`, of the moments in both."""
    there, states = other.within(float(times.min()) - _SAME_TIME, float(times.max()) + _SAME_TIME)
    return states, *_found(times, there)


def _found(times: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the sorted `there`, and rows of `times`, of the moments that are in both."""
    if not len(there):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    after = np.minimum(np.searchsorted(there, times), len(there) - 1)
    before = np.maximum(after - 1, 0)
    at = np.where(np.abs(there[before] - times) < np.abs(there[after] - times), before, after)
    rows = np.flatnonzero(np.abs(there[at] - times) <= _SAME_TIME)
    return at[rows], rows
