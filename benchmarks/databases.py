"""An `anima.db` of any length, as Lumen writes it: simulated readings, put through the kit's own filter.

python -m benchmarks.databases anima.db 214503

States lie about 2 s apart with millisecond jitter, a few of them in quick succession; there are gaps of
hours, reboots after which the clock is behind, and some hundred expressions. The same length and seed give
the same rows, and any length is written in chunks, in the same memory.
"""

import argparse
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from eisv_lumen.errors import InputError, exit_with_reason
from eisv_lumen.expression import decode, to_published
from eisv_lumen.recurrence import MovingAverage
from eisv_lumen.rules import Rules
from eisv_lumen.sensors import AnimaFilter, Readings
from eisv_lumen.vocabulary import N_SHAPES

FORMAT = 1
"""Number of what is simulated, kept in the database: a database of another one is not current."""
SHORTEST = 100
EXPRESSIONS = 300
STATES_PER_GAP, STATES_PER_REBOOT = 20_000, 100_000
QUICK_SHARE = 0.08
"""Share of the states that follow the one before within a second."""

_CHUNK = 1 << 16
_START = 1_767_600_000_000_000
"""Microseconds since the epoch of the first state: 2026-01-05 08:00 UTC."""
_STEP = 2.0
_DAY = 86_400.0
_SENSORS = (
    '{"cpu_temp_c": %.1f, "ambient_temp_c": %.1f, "humidity_pct": %.1f, "pressure_hpa": %.1f, '
    '"light_lux": %.1f, "cpu_pct": %.1f, "memory_pct": %.1f, "disk_pct": %.1f}'
)
_CHANNELS = tuple(json.loads(_SENSORS.replace("%.1f", "0")))
_TABLES = """
CREATE TABLE state_history (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL, warmth REAL,
    clarity REAL, stability REAL, presence REAL, sensors TEXT);
CREATE TABLE primitive_history (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL, tokens TEXT,
    category_pattern TEXT, warmth REAL, brightness REAL, stability REAL, presence REAL, score REAL,
    feedback_signals TEXT, got_response BOOL);
"""


@dataclass(frozen=True)
class Chunk:
    """The next n states.

    Attributes:
        row: Number of the first one.
        times: `[n]` int64 microseconds since the epoch.
        anima: `[n, 4]` warmth, clarity, stability, presence.
        readings: `[n, 8]` what the sensors reported, to a tenth.
    """

    row: int
    times: np.ndarray
    anima: np.ndarray
    readings: np.ndarray


def make(path: Path, states: int, *, seed: int = 0, sensors: bool = True) -> None:
    """Write a database of so many states.

    Args:
        path: The file to make; it appears when it is complete.
        states: Rows of `state_history`.
        seed: Seed of everything simulated.
        sensors: Write each state's readings beside it, as Lumen does; about 160 bytes per row.

    Raises:
        InputError: Fewer than `SHORTEST` states.
    """
    if states < SHORTEST:
        raise InputError(
            found=f"{states} states", expected=f"at least {SHORTEST}", next="ask for a longer database"
        )
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(partial)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
        for chunk in simulate(states, seed):
            _write_states(connection, chunk, sensors)
            _write_expressions(connection, chunk, states, seed)
            connection.commit()
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    partial.replace(path)


def is_current(path: Path, states: int) -> bool:
    """Is a database of so many states there, made by this simulation?"""
    if not path.is_file():
        return False
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (made_by,) = connection.execute("PRAGMA user_version").fetchone()
        (last,) = connection.execute("SELECT max(id) FROM state_history").fetchone()
    return bool(made_by == FORMAT and last == states)


def simulate(states: int, seed: int = 0) -> Iterator[Chunk]:
    """The states in chunks; what is carried from one to the next is a few numbers."""
    breaks = _Breaks.of(states, seed)
    room, body = _Room(), AnimaFilter()
    recorded, felt = _START, _START / 1e6
    for row in range(0, states, _CHUNK):
        n = min(_CHUNK, states - row)
        generator = np.random.default_rng([seed, 1, row])
        steps, momentum = _steps(breaks.within(row, n), n, generator)
        times, felt_times = recorded + np.cumsum(steps), felt + np.cumsum(momentum)
        recorded, felt = int(times[-1]), float(felt_times[-1])
        readings = room.readings(times / 1e6, generator)
        anima = body.update(Readings(felt_times, dict(zip(_CHANNELS, readings.T, strict=True))))
        yield Chunk(row, times, anima, readings)


@dataclass(frozen=True)
class _Breaks:
    """Rows before which hours pass, or before which the clock is set back by a reboot, and the seconds."""

    rows: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, states: int, seed: int) -> Self:
        generator = np.random.default_rng([seed, 0])
        gaps, reboots = max(1, states // STATES_PER_GAP), max(1, states // STATES_PER_REBOOT)
        rows = 1 + generator.choice(states - 1, gaps + reboots, replace=False)
        seconds = [generator.uniform(3600, 8 * 3600, gaps), -generator.uniform(60, 900, reboots)]
        order = np.argsort(rows)
        return cls(rows[order], np.concatenate(seconds)[order])

    def within(self, row: int, n: int) -> Self:
        """Those of n rows from `row` on, counted from there."""
        first, last = np.searchsorted(self.rows, [row, row + n])
        return type(self)(self.rows[first:last] - row, self.seconds[first:last])


def _steps(breaks: _Breaks, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds before each of n states, and the seconds by which its momentum decays.

    Lumen smooths once per state, however soon it follows the one before: quick states change quickly.
    """
    seconds = _STEP + generator.normal(0, 0.004, n)
    momentum = seconds.copy()
    quick = generator.random(n) < QUICK_SHARE
    seconds[quick] = generator.uniform(0.02, 0.5, int(quick.sum()))
    seconds[breaks.rows] = momentum[breaks.rows] = breaks.seconds
    return np.round(seconds * 1e6).astype(np.int64), momentum


class _Room:
    """A desk with a Pi on it: days, weather, lamps and bursts of load."""

    def __init__(self) -> None:
        self._slow = MovingAverage(5, 0.0005)
        self._bursts = MovingAverage(1, 0.05)
        self._heat = MovingAverage(1, 0.1)
        for average in (self._slow, self._bursts, self._heat):
            average.run(np.zeros((1, average.count.size)))  # begin in the middle, not with the first noise

    def readings(self, times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """`[n, 8]` readings of `_CHANNELS` at `times` in seconds, to a tenth."""
        n = len(times)
        noise = generator.normal(0, 1, (n, 8))
        ambient, humidity, pressure, memory, disk = (_drift(self._slow, generator, n, 5) * 2.0).T
        day = np.sin(2 * np.pi * times / _DAY)
        burst = np.clip(4.0 * _drift(self._bursts, generator, n, 1)[:, 0] - 5.0, 0.0, 1.0)
        load = np.clip(9.0 + 85.0 * burst + 2.5 * noise[:, 0], 1.0, 100.0)
        heat = self._heat.run(load[:, None])[0][:, 0]
        ambient = 22.0 + 2.0 * day + ambient
        lamp = 1.0 + 119.0 * (day > -0.3) + 60.0 * (burst > 0.5)
        columns = [
            36.0 + 0.35 * heat + 0.5 * ambient + 0.15 * noise[:, 1],
            ambient + 0.05 * noise[:, 2],
            45.0 - 4.0 * day + 3.0 * humidity + 0.15 * noise[:, 3],
            1013.0 + 4.0 * pressure + 0.1 * noise[:, 4],
            lamp * np.exp(0.02 * noise[:, 5]),
            load,
            34.0 + 2.0 * memory + 55.0 * burst + 0.2 * noise[:, 6],
            31.0 + 0.2 * disk,
        ]
        return np.round(np.stack(columns, axis=1), 1)


def _drift(average: MovingAverage, generator: np.random.Generator, n: int, columns: int) -> np.ndarray:
    """`[n, columns]` smoothed noise, scaled to a spread of about 1."""
    smooth, _, _ = average.run(generator.normal(0, 1, (n, columns)))
    return smooth * np.sqrt((2 - average.alpha) / average.alpha)


def _write_states(connection: sqlite3.Connection, chunk: Chunk, sensors: bool) -> None:
    texts = (
        [_SENSORS % tuple(row) for row in chunk.readings.tolist()] if sensors else [None] * len(chunk.times)
    )
    connection.executemany(
        "INSERT INTO state_history (timestamp, warmth, clarity, stability, presence, sensors) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        zip(_timestamps(chunk.times), *chunk.anima.T.tolist(), texts, strict=True),
    )


def _write_expressions(connection: sqlite3.Connection, chunk: Chunk, states: int, seed: int) -> None:
    """What was said half a second after certain states, at even distances over the whole database."""
    apart = max(states // EXPRESSIONS, SHORTEST // 4)
    at = np.arange(-chunk.row % apart, len(chunk.times), apart)
    generator = np.random.default_rng([seed, 2, chunk.row])
    said = decode(Rules().sample(generator.integers(0, N_SHAPES, len(at)), generator))
    scores = np.round(generator.random(len(at)), 3).tolist()
    connection.executemany(
        "INSERT INTO primitive_history (timestamp, tokens, category_pattern, warmth, brightness, stability, "
        "presence, score, feedback_signals, got_response) VALUES (?, ?, ?, ?, 0.5, ?, ?, ?, ?, ?)",
        [
            (
                time,
                " ".join(to_published(expression)),
                expression.pattern,
                *anima,
                score,
                signals,
                score > 0.7,
            )
            for time, expression, anima, score in zip(
                _timestamps(chunk.times[at] + 500_000),
                said,
                chunk.anima[at][:, [0, 2, 3]].tolist(),
                scores,
                strict=True,
            )
            for signals in [json.dumps(["response"] if score > 0.7 else [])]
        ],
    )


def _timestamps(times: np.ndarray) -> list[str]:
    """Naive ISO texts to the microsecond, as `datetime.isoformat` writes them."""
    return np.datetime_as_string(times.astype("datetime64[us]")).tolist()


def main() -> None:
    """Make one database."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("states", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--without-sensors", action="store_true", help="leave the readings out (a third the size)"
    )
    parser.add_argument("--standing", action="store_true", help="leave a current database as it is")
    arguments = parser.parse_args()
    if not (arguments.standing and is_current(arguments.out, arguments.states)):
        make(arguments.out, arguments.states, seed=arguments.seed, sensors=not arguments.without_sensors)


if __name__ == "__main__":
    exit_with_reason(main)
