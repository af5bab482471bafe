"""Lumen's own database: smoothed states and observed expressions, read-only, also while Lumen writes it.

Databases of every age are read: columns that came later may be missing. Where a column of the anima state
itself is missing, that dimension is computed anew from the sensors recorded beside it.
"""

import bisect
import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from eisv_lumen.errors import LumenError, SourceError
from eisv_lumen.expression import from_published
from eisv_lumen.logs import SYNONYMS, LogReport
from eisv_lumen.sensors import ANIMA, CHANNELS, STANDARD_PRESSURE, AnimaFilter, Readings
from eisv_lumen.timestamps import parse_times
from eisv_lumen.vocabulary import MAX_TOKENS, PATTERNS, SHAPE_ID, WORD_ID

STATES, EXPRESSIONS, EVENTS = "state_history", "primitive_history", "trajectory_events"
SAME_UTTERANCE_S = 2.0
"""The same tokens in two tables at most so many seconds apart were said once."""
_CHUNK, _FETCHED = 1 << 13, 1 << 9
_IN_HISTORY = ("timestamp", "tokens", "category_pattern", "score", "feedback_signals", "shape")
_IN_EVENTS = (
    "timestamp",
    "expression_tokens",
    "category_pattern",
    "coherence_score",
    "feedback_signals",
    "shape",
)
_Names = tuple[str, ...]
_CHANNEL_OF = {name: channel for channel in CHANNELS for name in (channel, *SYNONYMS[channel].split())}


@dataclass(frozen=True)
class Observed:
    """Expressions that were really said, in order of time.

    Attributes:
        times: `[M]` seconds since the epoch.
        ids: `[M, 3]` expression ids.
        scores: `[M]` feedback in [0, 1], NaN where none was given.
        shapes: `[M]` shape ids that were recorded with them, -1 where none was.
        feedback: M tuples of the names of the feedback signals that followed.
    """

    times: np.ndarray
    ids: np.ndarray
    scores: np.ndarray
    shapes: np.ndarray
    feedback: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, utterances: Sequence["Utterance"]) -> Self:
        """From single utterances in any order."""
        ordered = sorted(utterances, key=lambda said: said.time)
        return cls(
            np.array([said.time for said in ordered], np.float64),
            np.array([said.ids for said in ordered], np.int64).reshape(-1, MAX_TOKENS),
            np.array([said.score for said in ordered], np.float64),
            np.array([said.shape for said in ordered], np.int64),
            tuple(said.feedback for said in ordered),
        )

    def __len__(self) -> int:
        """Number of expressions, M."""
        return len(self.times)


@dataclass(frozen=True)
class Utterance:
    """One expression that was really said; as in `Observed`."""

    time: float
    ids: tuple[int, ...]
    score: float = math.nan
    shape: int = -1
    feedback: tuple[str, ...] = ()


@dataclass(frozen=True)
class StateRows:
    """N rows of states, as they are stored.

    Attributes:
        times: N texts, a NUL between two.
        anima: `[N, 4]`, NaN where there is no number.
        sensors: N texts where a dimension is lacking, else none.
        lacking: Anima dimensions that the database does not hold.
    """

    times: bytes
    anima: np.ndarray
    sensors: Sequence[object]
    lacking: tuple[str, ...]


class StateReader:
    """Makes states of what is stored; rows have to come in their order.

    Args:
        zone: Time zone of times that name none.
        report: Receives what was dropped.
        site_pressure: Usual pressure of the place in hPa, for a stability computed from sensors.
    """

    def __init__(self, zone: tzinfo, report: LogReport, *, site_pressure: float = STANDARD_PRESSURE) -> None:
        self._zone, self._report = zone, report
        self._body = _FromSensors(site_pressure, report)

    def read(self, rows: StateRows) -> tuple[np.ndarray, np.ndarray]:
        """Times `[n]` in seconds and anima states `[n, 4]` in [0, 1].

        Rows without a readable time or a possible state are left out and counted.
        """
        times, anima = parse_times(rows.times.decode("utf-8", "replace").split("\0"), self._zone), rows.anima
        if rows.lacking:
            anima = self._body.completed(times, anima, rows.sensors, rows.lacking)
        usable = self._usable(times, anima)
        return times[usable], anima[usable]

    def _usable(self, times: np.ndarray, anima: np.ndarray) -> np.ndarray:
        """`[n]` bool: rows with a time and a possible state; the others are counted."""
        timed, given = ~np.isnan(times), ~np.isnan(anima).any(axis=1)
        with np.errstate(invalid="ignore"):
            possible = ((anima >= 0) & (anima <= 1)).all(axis=1)
        self._report.drop("unreadable time", int((~timed).sum()))
        self._report.drop("no value", int((timed & ~given).sum()))
        self._report.drop("impossible state", int((timed & given & ~possible).sum()))
        return timed & given & possible


class AnimaDatabase:
    """An `anima.db`, one read-only snapshot of it for as long as the context lasts.

    Args:
        path: The database.
        zone: Time zone of the naive times of its expressions; its event times are UTC.
        report: Receives what was read and what was dropped.

    Raises:
        SourceError: On entering, while reading or on leaving: it is no SQLite database, is damaged, has no
            usable `state_history`, or was changed while it was read.
    """

    def __init__(self, path: Path, zone: tzinfo, report: LogReport) -> None:
        self._path, self._zone, self._report = Path(path), zone, report
        self._unwatched: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        with self._readable(), contextlib.ExitStack() as closing:
            self._connection = closing.enter_context(contextlib.closing(self._connect()))
            self._connection.text_factory = bytes  # a text that is not UTF-8 must not end the reading
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot is now
            self._lacking = self._lacking_dimensions()
            closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if kind is None and self._unwatched is not None and self._unwatched != _stamp(self._path):
            raise SourceError(
                found=f"{self._path.name}: changed while it was read",
                expected="a database that is either open in Lumen or left alone",
                next="run the same command again",
            )

    def rows(self) -> Iterator[StateRows]:
        """The recorded states as they are stored, chunk by chunk in rowid order."""
        columns = ["NULL" if name in self._lacking else name for name in ANIMA]
        columns += ["sensors"] * bool(self._lacking)
        with self._readable():
            cursor = self._connection.execute(
                f"SELECT timestamp, {', '.join(columns)} FROM {STATES} ORDER BY rowid"
            )
            for times, anima, sensors in _chunks(cursor):
                self._report.rows += len(anima)
                yield StateRows(times, anima, sensors, self._lacking)

    def observed(self) -> Observed:
        """Expressions of the history, and those that only the trajectory events hold, in order of time."""
        with self._readable():
            said = self._utterances(EXPRESSIONS, _IN_HISTORY, self._zone)
            events = _not_held(self._utterances(EVENTS, _IN_EVENTS, UTC), said)
        if events:
            self._report.notes.append(f"{len(events)} observed expressions come from {EVENTS}")
        return Observed.of([utterance for _, utterance in (*said, *events)])

    def _connect(self) -> sqlite3.Connection:
        address = f"file:{quote(str(self._path.resolve()))}?mode=ro"
        if _write_ahead(self._path) and not self._path.with_name(self._path.name + "-wal").exists():
            # Nobody is writing; opened in the usual way, SQLite would leave two files beside the database.
            self._unwatched = _stamp(self._path)
            address += "&immutable=1"
        return sqlite3.connect(address, uri=True, timeout=10.0)

    def _lacking_dimensions(self) -> tuple[str, ...]:
        """Anima columns that an older file lacks; the sensors recorded beside them make up for it."""
        columns = self._columns(STATES)
        lacking = tuple(name for name in ("timestamp", *ANIMA) if name not in columns)
        if "timestamp" in lacking or (lacking and "sensors" not in columns):
            raise _refused(
                self._path,
                f"table {STATES} without {', '.join(lacking)}" if columns else f"no {STATES}",
                f"a table {STATES} with timestamp and {', '.join(ANIMA)}, or with sensors in their place",
            )
        self._report.mapped = {name: name for name in ("timestamp", *ANIMA) if name not in lacking}
        if lacking:
            self._report.notes.append(f"no {', '.join(lacking)} in {STATES}: computed from the sensors")
        return lacking

    def _utterances(
        self, table: str, columns: tuple[str, ...], zone: tzinfo
    ) -> list[tuple[_Names, Utterance]]:
        """Token names and expression of every row that says one; the others are counted."""
        present = self._columns(table)
        if not set(columns[:2]) <= present:
            if present:
                self._report.notes.append(
                    f"{table} without {' and '.join(columns[:2])}: nothing read from it"
                )
            return []
        chosen = ", ".join(name if name in present else "NULL" for name in columns)
        rows = self._connection.execute(f"SELECT {chosen} FROM {table} ORDER BY rowid").fetchall()
        times = parse_times([_text(row[0]) for row in rows], zone)
        found = []
        for time, (_, tokens, pattern, score, signals, shape) in zip(times.tolist(), rows, strict=True):
            names, asked = read_tokens(tokens)
            if not names and table == EVENTS:
                continue  # most events are no utterances
            ids = expression_ids(names, "QUESTION" if asked else _text(pattern).upper(), self._report)
            if ids is None:
                continue
            if math.isnan(time):
                self._report.drop("observed expression without a time")
                continue
            shape_id = SHAPE_ID.get(_text(shape).strip().lower(), -1)
            given = _score(score, self._report)
            found.append((names, Utterance(time, ids, given, shape_id, read_feedback(signals))))
        return found

    def _columns(self, table: str) -> set[str]:
        return {_text(row[1]).lower() for row in self._connection.execute(f"PRAGMA table_info({table})")}

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _refused(self._path, str(error), "a SQLite database that can be read") from error
        except OSError as error:
            raise _refused(self._path, error.strerror or str(error), "a file that can be read") from error


class _FromSensors:
    """The anima state as Lumen's body computes it, for databases that lack some of its dimensions."""

    def __init__(self, site_pressure: float, report: LogReport) -> None:
        self._filter, self._report = AnimaFilter(site_pressure=site_pressure), report

    def completed(
        self, times: np.ndarray, anima: np.ndarray, sensors: Sequence[object], lacking: tuple[str, ...]
    ) -> np.ndarray:
        """`[n, 4]` anima states with the lacking dimensions computed; NaN where no sensor said anything."""
        readings, impossible = Readings(times, self._channels(sensors)).plausible()
        for channel, count in impossible.items():
            self._report.void(f"impossible {channel}", count)
        known = ~np.isnan(times) & readings.present()
        felt = np.full(anima.shape, np.nan)
        felt[known] = self._filter.update(readings[known])
        return np.where([name in lacking for name in ANIMA], felt, anima)

    def _channels(self, sensors: Sequence[object]) -> dict[str, np.ndarray]:
        columns = {name: np.full(len(sensors), np.nan) for name in CHANNELS}
        for row, text in enumerate(sensors):
            if text is None:
                continue
            found = _json(text)
            if not isinstance(found, dict):
                self._report.void("unreadable sensors")
                continue
            for key, value in found.items():
                channel = _CHANNEL_OF.get(key.strip().lower())
                # A channel's own name stands before a synonym, whatever their order.
                if channel is not None and (key == channel or np.isnan(columns[channel][row])):
                    columns[channel][row] = _real(value)
        return columns


def read_tokens(value: object) -> tuple[_Names, bool]:
    """Token names without tildes, and whether a question mark follows the only one.

    Args:
        value: Tokens joined by spaces or commas, with or without tildes, or a JSON list of them.
    """
    text = _text(value).strip()
    listed = _json(text) if text.startswith("[") else None
    parts = list(map(str, listed)) if isinstance(listed, list) else re.split(r"[\s,]+", text)
    names = tuple(name for part in parts if (name := part.strip(" ~?\"'")))
    return names, len(names) == 1 and text.rstrip("]\"' ").endswith("?")


def expression_ids(names: _Names, pattern: str, report: LogReport) -> tuple[int, ...] | None:
    """The three ids of published tokens; None, and counted, where they form no expression.

    Args:
        names: Token names without tildes.
        pattern: The recorded pattern; anything that is none counts as not recorded.
        report: Receives the reason.
    """
    ids = _ids(names, pattern if pattern in PATTERNS else None)
    if ids is None:
        words = bool(names) and all(name in WORD_ID for name in names)
        report.drop("observed expression in Lumen's words" if words else "observed expression unreadable")
    return ids


def read_feedback(value: object) -> tuple[str, ...]:
    """Names of feedback signals: a JSON list, the truthy ones of a JSON object, or a comma list."""
    text = _text(value).strip()
    found = _json(text)
    if isinstance(found, dict):
        found = [name for name, given in found.items() if given]
    elif not isinstance(found, list):
        found = (found if isinstance(found, str) else text if found is None else "").split(",")
    names = (name.strip() for name in found if isinstance(name, str))
    return tuple(dict.fromkeys(name for name in names if name and name != "null"))


@lru_cache(maxsize=1 << 12)
def _ids(names: _Names, pattern: str | None) -> tuple[int, ...] | None:
    try:
        return tuple(from_published(names, pattern).ids.tolist())
    except LumenError:
        return None


def _not_held(
    events: list[tuple[_Names, Utterance]], said: list[tuple[_Names, Utterance]]
) -> list[tuple[_Names, Utterance]]:
    """Events whose tokens nobody said within two seconds of them, as far as is known already."""
    moments: dict[_Names, list[float]] = {}
    for names, utterance in said:
        moments.setdefault(names, []).append(utterance.time)
    for times in moments.values():
        times.sort()
    fresh = []
    for names, utterance in sorted(events, key=lambda event: event[1].time):
        times = moments.setdefault(names, [])
        at = bisect.bisect_left(times, utterance.time - SAME_UTTERANCE_S)
        if at == len(times) or times[at] > utterance.time + SAME_UTTERANCE_S:
            times.insert(bisect.bisect_left(times, utterance.time), utterance.time)
            fresh.append((names, utterance))
    return fresh


def _chunks(cursor: sqlite3.Cursor) -> Iterator[tuple[bytes, np.ndarray, list[Any]]]:
    """Times as texts, anima states `[n, 4]` and sensors, if selected, of the next rows.

    Rows are fetched and converted few at a time, while they are in the processor's cache.
    """
    times, anima, sensors = list[bytes](), list[np.ndarray](), list[Any]()
    while True:
        rows = cursor.fetchmany(_FETCHED)
        if rows:
            texts, *columns = zip(*rows, strict=True)
            times.append(_joined(texts))
            anima.append(np.stack([_reals(column) for column in columns[: len(ANIMA)]], axis=1))
            sensors += chain.from_iterable(columns[len(ANIMA) :])
        if times and (not rows or len(times) * _FETCHED >= _CHUNK):
            yield b"\0".join(times), np.concatenate(anima), sensors
            times, anima, sensors = [], [], []
        if not rows:
            return


def _score(value: object, report: LogReport) -> float:
    score = _real(value)
    if math.isnan(score) or 0.0 <= score <= 1.0:
        return score
    report.void("impossible score")
    return math.nan


def _reals(column: Sequence[object]) -> np.ndarray:
    try:
        return np.array(column, np.float64)
    except (TypeError, ValueError):
        return np.array([_real(value) for value in column], np.float64)


def _real(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _joined(column: Sequence[object]) -> bytes:
    """The values as texts, a NUL between two."""
    try:
        texts = b"\0".join(column)  # type: ignore[arg-type]
        if texts.count(b"\0") == len(column) - 1:
            return texts
    except TypeError:
        pass
    return b"\0".join(_text(value).replace("\0", " ").encode() for value in column)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _json(text: Any) -> Any:
    """What a JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _write_ahead(path: Path) -> bool:
    """Does the file's header name the write-ahead format?"""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _refused(path: Path, found: str, expected: str) -> SourceError:
    return SourceError(
        found=f"{path.name}: {found}", expected=expected, next="pass Lumen's anima.db, or a sensor log"
    )
