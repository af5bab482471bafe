"""The journal: what was said, when, by whom and about which window, in a SQLite file."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from eisv_lumen.device.awareness import Spoken
from eisv_lumen.errors import ResourceError
from eisv_lumen.windows import Windows

KEEP = 100_000
"""Entries kept; the oldest make room."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spoken (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, expression TEXT NOT NULL, lumen_words TEXT NOT NULL,
    shape TEXT NOT NULL, source TEXT NOT NULL, reason TEXT, confidence REAL NOT NULL, model_confidence REAL,
    version TEXT, latency_ms REAL NOT NULL, window TEXT NOT NULL
)
"""
_COLUMNS = (
    "time",
    "expression",
    "lumen_words",
    "shape",
    "source",
    "reason",
    "confidence",
    "model_confidence",
    "version",
    "latency_ms",
    "window",
)


class Journal:
    """Appends what was said; each entry is on disk before `append` returns.

    Args:
        path: The database, created where it does not exist.
        keep: Entries kept.

    Raises:
        ResourceError: It cannot be opened or written.
    """

    def __init__(self, path: Path, keep: int = KEEP) -> None:
        self._path, self._keep = path, keep
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_SCHEMA)

    def append(self, spoken: Spoken, window: Windows) -> None:
        """Write one entry, with the window's times and states as JSON."""
        values = spoken.to_dict()
        values["lumen_words"] = " ".join(spoken.lumen_words)
        values["window"] = json.dumps(
            {"times": window.times[0].round(3).tolist(), "states": window.states[0].round(6).tolist()}
        )
        marks = ", ".join("?" * len(_COLUMNS))
        with self._connection() as connection:
            cursor = connection.execute(
                f"INSERT INTO spoken ({', '.join(_COLUMNS)}) VALUES ({marks})",
                [values[name] for name in _COLUMNS],
            )
            connection.execute("DELETE FROM spoken WHERE id <= ?", (int(cursor.lastrowid or 0) - self._keep,))

    def newest(self, count: int = 10) -> list[dict[str, Any]]:
        """The newest entries, newest first."""
        with self._connection() as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM spoken ORDER BY id DESC LIMIT ?", (count,)).fetchall()
        return [dict(row) for row in rows]

    def __len__(self) -> int:
        """Number of entries."""
        with self._connection() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM spoken").fetchone()[0])

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=10)) as connection, connection:
                connection.execute("PRAGMA synchronous=FULL")
                yield connection
        except sqlite3.Error as error:
            raise ResourceError(
                found=f"{self._path}: {error}",
                expected="a journal that can be written",
                next=f"free some space, or move {self._path} away: a new one is begun",
            ) from None
