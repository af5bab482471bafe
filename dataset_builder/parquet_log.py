"""Sensor logs as Parquet: the same columns, mapping and report as for CSV, read batch by batch."""

import re
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eisv_lumen.delimited import numbers_of
from eisv_lumen.errors import SourceError
from eisv_lumen.log_columns import LogMapping, LogReport, map_columns
from eisv_lumen.logs import Intake
from eisv_lumen.sensors import Readings
from eisv_lumen.timestamps import epoch_seconds, parse_times, time_zone
from eisv_lumen.units import TIME_UNITS

_INDEX = "__index_level_0__"
"""Name that pandas gives an index without one; of a log, that is its time."""
_ROWS = 1 << 15
_SECOND, _DAY = 1_000_000, 86_400_000_000
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:|$| ?[AaPp])")
_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}


def stream_readings(
    path: Path, *, timezone: str = "UTC", mapping: LogMapping | None = None, report: LogReport
) -> Iterator[tuple[str, Readings]]:
    """The readings of a Parquet log, in memory bounded by a few pages per column.

    Args:
        path: The file.
        timezone: Zone of times that name none, unless the mapping names another.
        mapping: What the user declares about the columns.
        report: Receives what was mapped, ignored and dropped; complete when the iterator ends.

    Yields:
        Device (empty where the file names none) and some of its readings, in the order recorded; rows
        without a time or without any value are left out.

    Raises:
        SourceError: The file is missing or damaged, has no time or no channel column, or no row can be used.
        ConfigurationError: An unknown time zone, or a mapping that does not fit the file.
    """
    path, mapping = Path(path), mapping or LogMapping()
    zone = time_zone(mapping.timezone or timezone)
    with _opened(path) as parquet:
        schema = parquet.schema_arrow
        columns = map_columns(path.name, _names(schema), mapping, report)
        intake = Intake(columns, report)
        wanted = {at: schema.names[at] for at in columns.wanted}
        for batch in _batches(path, parquet, list(wanted.values())):
            report.rows += batch.num_rows
            arrays = {at: _plain(batch.column(batch.schema.names.index(name))) for at, name in wanted.items()}
            yield from _readings(arrays, intake, zone)
    intake.finish(path.name)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        # Without buffering ahead, a row group is read in pieces and not as a whole.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _batches(path: Path, parquet: pq.ParquetFile, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from parquet.iter_batches(_ROWS, columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _names(schema: pa.Schema) -> list[str]:
    """The columns; pandas' index without a name is the time, if it holds times."""
    return [
        "timestamp" if name == _INDEX and pa.types.is_timestamp(kind) else name
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]


def _readings(arrays: dict[int, pa.Array], intake: Intake, zone: tzinfo) -> Iterator[tuple[str, Readings]]:
    """The usable readings of a batch, given as position -> column."""
    columns, channels = intake.columns, {}
    for name, at in columns.channels.items():
        channels[name], unreadable = _values(arrays[at])
        intake.report.void("not a number", unreadable)
    date = None if columns.date is None else arrays[columns.date]
    times = _times(arrays[columns.time], date, columns.units.get("time"), zone, intake)
    devices = None if columns.device is None else _devices(arrays[columns.device])
    yield from intake.take(times, channels, devices)


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _values(array: pa.Array) -> tuple[np.ndarray, int]:
    """`[N]` float64, NaN where null, and how many values were no number."""
    kind = array.type
    if _is_text(kind):
        distinct = array.dictionary_encode()
        read = numbers_of([text or "" for text in distinct.dictionary.to_pylist()])
        values = np.append(read, np.nan)[_codes(distinct)]
        unreadable = np.isneginf(values)
        return np.where(unreadable, np.nan, values), int(unreadable.sum())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _floats(array), 0
    return np.full(len(array), np.nan), len(array) - array.null_count


def _floats(array: pa.Array) -> np.ndarray:
    return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)


def _devices(array: pa.Array) -> tuple[list[str], np.ndarray]:
    """Distinct names in the order in which they appear, and which of them each row holds."""
    distinct = array.cast(pa.string()).fill_null("").dictionary_encode()
    return distinct.dictionary.to_pylist(), distinct.indices.to_numpy().astype(np.int64)


def _times(
    array: pa.Array, date: pa.Array | None, unit: str | None, zone: tzinfo, intake: Intake
) -> np.ndarray:
    """`[N]` seconds since the epoch, NaN where a time is missing or unreadable."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _instants(_microseconds(array), None if kind.tz else zone)
    if pa.types.is_date(kind):
        return _instants(_microseconds(array.cast(pa.timestamp("us"))), zone)
    if pa.types.is_time(kind):
        return _instants(_days(date, len(array)) + _microseconds(array), zone)
    if _is_text(kind) and unit is None:
        return _text_times(array, date, zone, intake)
    numbers = _values(array)[0]
    if unit is not None:
        return np.where(np.isfinite(numbers), numbers / TIME_UNITS[unit], np.nan)
    return epoch_seconds(numbers)


def _text_times(array: pa.Array, date: pa.Array | None, zone: tzinfo, intake: Intake) -> np.ndarray:
    texts = [(text or "").strip() for text in array.to_pylist()]
    if date is not None:
        days = [str(day or "").strip()[:10] for day in date.to_pylist()]
        texts = [
            f"{day} {text}" if _TIME_OF_DAY.match(text) else text
            for day, text in zip(days, texts, strict=True)
        ]
    times = intake.columns.seconds(texts, zone)
    for row in np.flatnonzero(np.isnan(times)).tolist():
        if texts[row]:
            intake.unreadable_time(texts[row])
            break
    return times


def _days(date: pa.Array | None, rows: int) -> np.ndarray:
    """`[N]` midnights in microseconds, NaN where there is no date."""
    if date is None:
        return np.full(rows, np.nan)
    if _is_text(date.type):
        read = parse_times([(text or "").strip() for text in date.to_pylist()], time_zone("UTC"))
        return np.floor(read * _SECOND / _DAY) * _DAY
    if pa.types.is_date(date.type) or pa.types.is_timestamp(date.type):
        return np.floor(_microseconds(date.cast(pa.timestamp("us"), safe=False)) / _DAY) * _DAY
    return np.full(rows, np.nan)


def _microseconds(array: pa.Array) -> np.ndarray:
    """`[N]` whole microseconds, exact until the year 2255, NaN where null; finer digits are cut off."""
    whole = array.cast(pa.int64() if array.type.bit_width == 64 else pa.int32())
    present = array.is_valid().to_numpy(zero_copy_only=False)
    counts = whole.fill_null(0).to_numpy().astype(np.int64)
    scaled = counts // 1000 if array.type.unit == "ns" else counts * _PER_UNIT[array.type.unit]
    return np.where(present, scaled.astype(np.float64), np.nan)


def _instants(microseconds: np.ndarray, zone: tzinfo | None) -> np.ndarray:
    """`[N]` seconds since the epoch of moments, or of wall-clock times in a zone."""
    known = np.isfinite(microseconds)
    if zone is None or zone == time_zone("UTC") or not known.any():
        return microseconds / _SECOND
    wall = microseconds[known].astype(np.int64).astype("datetime64[us]")
    seconds = np.full(len(microseconds), np.nan)
    seconds[known] = parse_times(np.datetime_as_string(wall).tolist(), zone)
    return seconds


def _codes(encoded: pa.DictionaryArray) -> np.ndarray:
    """`[N]` positions in the dictionary, -1 where null."""
    return encoded.indices.fill_null(-1).to_numpy().astype(np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(
        found=f"{path.name}: {getattr(error, 'strerror', None) or ' '.join(str(error).split())[:200]}",
        expected="a readable Parquet file",
        next="check the path, or write the file again",
    )
