"""Lumen's own database: smoothed states and observed expressions, read-only, also while Lumen writes it."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from urllib.parse import quote

import numpy as np

from eisv_lumen.errors import LumenError, SourceError
from eisv_lumen.expression import from_published
from eisv_lumen.logs import LogReport, parse_times
from eisv_lumen.sensors import ANIMA, to_eisv
from eisv_lumen.series import Series, recorded_order, repeated
from eisv_lumen.vocabulary import MAX_TOKENS, PATTERNS, WORD_ID

STATES, EXPRESSIONS = "state_history", "primitive_history"
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Observed:
    """Expressions that were really said.

    Attributes:
        times: `[M]` seconds since the epoch.
        ids: `[M, 3]` expression ids.
        scores: `[M]` feedback in [0, 1], NaN where none was given.
    """

    times: np.ndarray
    ids: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        """Number of expressions, M."""
        return len(self.times)


def read_database(path: Path, zone: tzinfo, report: LogReport) -> tuple[Series, Observed]:
    """States and observed expressions of an `anima.db`.

    Args:
        path: The database.
        zone: Time zone of its naive times.
        report: Receives what was dropped.

    Raises:
        SourceError: It cannot be opened, or has no usable `state_history`.
    """
    try:
        with contextlib.closing(_connect(path)) as connection:
            connection.execute("BEGIN")  # one snapshot for all tables
            return _states(path, connection, zone, report), _observed(connection, zone, report)
    except sqlite3.Error as error:
        raise _refused(path, str(error), "a SQLite database that can be read") from error


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    if _write_ahead(path) and not path.with_name(path.name + "-wal").exists():
        # Nobody is writing; opened in the usual way, SQLite would leave two files beside the database.
        return sqlite3.connect(f"{address}&immutable=1", uri=True)
    return sqlite3.connect(address, uri=True, timeout=10.0)


def _write_ahead(path: Path) -> bool:
    """Does the file's header name the write-ahead format?"""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _states(path: Path, connection: sqlite3.Connection, zone: tzinfo, report: LogReport) -> Series:
    columns = _columns(connection, STATES)
    lacking = [name for name in ("timestamp", *ANIMA) if name not in columns]
    if lacking:
        raise _refused(
            path,
            f"table {STATES} without {', '.join(lacking)}" if columns else f"no {STATES}",
            f"a table {STATES} with timestamp, " + ", ".join(ANIMA),
        )
    report.mapped = {name: name for name in ("timestamp", *ANIMA)}
    parts = list(_state_chunks(connection, zone, report))
    times = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
    anima = np.concatenate([part[1] for part in parts]) if parts else np.zeros((0, 4))
    order = recorded_order(times)
    if order is not None:
        times, anima = times[order], anima[order]
        report.notes.append("the rows were not in order of time and were sorted")
    again = repeated(times)
    report.drop("repeated time", int(again.sum()))
    return Series.of(times[~again], to_eisv(anima[~again]))


def _state_chunks(
    connection: sqlite3.Connection, zone: tzinfo, report: LogReport
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    cursor = connection.execute(f"SELECT timestamp, {', '.join(ANIMA)} FROM {STATES} ORDER BY rowid")
    while rows := cursor.fetchmany(_CHUNK):
        report.rows += len(rows)
        columns = list(zip(*rows, strict=True))
        times = parse_times([str(text) for text in columns[0]], zone)
        anima = np.stack([_reals(column) for column in columns[1:]], axis=1)
        timed, given = ~np.isnan(times), ~np.isnan(anima).any(axis=1)
        with np.errstate(invalid="ignore"):
            possible = ((anima >= 0) & (anima <= 1)).all(axis=1)
        report.drop("unreadable time", int((~timed).sum()))
        report.drop("no value", int((timed & ~given).sum()))
        report.drop("impossible state", int((timed & given & ~possible).sum()))
        usable = timed & given & possible
        yield times[usable], anima[usable]


def _observed(connection: sqlite3.Connection, zone: tzinfo, report: LogReport) -> Observed:
    columns = _columns(connection, EXPRESSIONS)
    if not {"timestamp", "tokens"} <= columns:
        return Observed(np.zeros(0), np.zeros((0, MAX_TOKENS), np.int64), np.zeros(0))
    optional = [name if name in columns else "NULL" for name in ("category_pattern", "score")]
    rows = connection.execute(
        f"SELECT timestamp, tokens, {', '.join(optional)} FROM {EXPRESSIONS} ORDER BY rowid"
    ).fetchall()
    times = parse_times([str(row[0]) for row in rows], zone)
    ids, scores, kept = [], [], []
    for (_, tokens, pattern, score), time in zip(rows, times.tolist(), strict=True):
        expression = None if np.isnan(time) else _expression(tokens, pattern, report)
        if expression is not None:
            ids.append(expression)
            scores.append(score if isinstance(score, int | float) and 0 <= score <= 1 else np.nan)
            kept.append(time)
    shaped = np.array(ids, np.int64).reshape(-1, MAX_TOKENS)
    return Observed(np.array(kept, np.float64), shaped, np.array(scores, np.float64))


def _expression(tokens: object, pattern: object, report: LogReport) -> np.ndarray | None:
    """`[3]` ids of tokens joined by spaces or commas; None, and counted, where they form no expression."""
    names = [name.strip("~") for name in re.split(r"[\s,]+", str(tokens or "").strip()) if name]
    written = str(pattern).upper() if str(pattern).upper() in PATTERNS else None
    try:
        return from_published(names, written).ids
    except LumenError:
        words = bool(names) and all(name in WORD_ID for name in names)
        report.drop("observed expression in Lumen's words" if words else "observed expression unreadable")
        return None


def _reals(column: tuple[object, ...]) -> np.ndarray:
    try:
        return np.array(column, np.float64)
    except (TypeError, ValueError):
        return np.array([_real(value) for value in column], np.float64)


def _real(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _refused(path: Path, found: str, expected: str) -> SourceError:
    return SourceError(
        found=f"{path.name}: {found}",
        expected=expected,
        next="pass Lumen's anima.db, or a CSV log",
    )
