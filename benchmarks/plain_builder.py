"""The baseline: an `anima.db` into the published rows by plain loops over dicts, everything in memory.

python -m benchmarks.plain_builder anima.db out.parquet

This is how such a dataset is built without arrays, and the steps are those of the builder behind the
published dataset: every row becomes a dict with its sensors parsed; windows of 20 states every 10 get first
and second derivatives, kept with the window; expressions are looked for in each window; columns of JSON texts
go through the `datasets` library into one Parquet file. It draws no expressions of its own, only those that
were really said are in its rows. `benchmarks.building` measures the kit against it.
"""

import argparse
import contextlib
import itertools
import json
import sqlite3
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets

Row = dict[str, Any]
State = dict[str, float]
DIMENSIONS = ("E", "I", "S", "V")
LENGTH, STRIDE = 20, 10
GAP_FACTOR = 10.0


def build(database: Path, out: Path) -> int:
    """Write the rows of a database; returns their number."""
    with contextlib.closing(
        sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    ) as connection:
        connection.row_factory = sqlite3.Row
        history = read(connection, "SELECT * FROM state_history ORDER BY id")
        spoken = read(connection, "SELECT * FROM primitive_history ORDER BY timestamp")
    records = [
        {**row, "sensors": json.loads(row.get("sensors") or "{}"), "eisv": state_of(row)} for row in history
    ]
    states = [record["eisv"] for record in records]
    expressions = [
        {"t": seconds_of(row["timestamp"]), "tokens": row["tokens"].replace(",", " ").split()}
        for row in spoken
    ]
    found = [window for stretch in stretches(states) for window in windows(stretch)]
    labelled = [trajectory(window) for window in found]
    for record in labelled:
        record["expressions"] = said_within(record["states"], expressions)
    rows = [row_of(record) for record in labelled]
    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    datasets.Dataset.from_dict(columns).to_parquet(str(out))
    return len(rows)


def read(connection: sqlite3.Connection, query: str) -> list[Row]:
    """All rows of a query as dicts."""
    return [dict(row) for row in connection.execute(query)]


def state_of(row: Row) -> State:
    """Seconds since the epoch and E, I, S, V of an anima state."""
    return {
        "t": seconds_of(row["timestamp"]),
        "E": row["warmth"],
        "I": row["clarity"],
        "S": 1 - row["stability"],
        "V": (1 - row["presence"]) * 0.3,
    }


def said_within(window: list[State], expressions: list[Row]) -> list[list[str]]:
    """The expressions said from a window's first to its last state."""
    start, end = window[0]["t"], window[-1]["t"]
    return [said["tokens"] for said in expressions if start <= said["t"] <= end]


def seconds_of(timestamp: str) -> float:
    """Seconds since the epoch of an ISO text, UTC where it names no zone."""
    moment = datetime.fromisoformat(timestamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def stretches(states: list[State]) -> list[list[State]]:
    """The states between two gaps (ten times the median step) or steps of the clock backwards.

    Of states at the same time the first counts.
    """
    steps = [after["t"] - before["t"] for before, after in itertools.pairwise(states)]
    forward = [step for step in steps if step > 0]
    longest = GAP_FACTOR * statistics.median(forward) if forward else 0.0
    found: list[list[State]] = []
    for state in states:
        step = state["t"] - found[-1][-1]["t"] if found else -1.0
        if not 0 <= step <= longest:
            found.append([])
        if step != 0:
            found[-1].append(state)
    return found


def windows(states: list[State], length: int = LENGTH, stride: int = STRIDE) -> Iterator[list[State]]:
    """Windows of consecutive states."""
    for start in range(0, len(states) - length + 1, stride):
        yield states[start : start + length]


def trajectory(window: list[State]) -> Row:
    """A window with its derivatives and its label."""
    first = derivatives(window)
    second = derivatives(first)
    return {
        "states": window,
        "derivatives": first,
        "second": second,
        "shape": classify(window, first, second),
    }


def row_of(record: Row) -> Row:
    """A window as a row of the published schema."""
    states = record["states"]
    return {
        "shape": record["shape"],
        "eisv_states": json.dumps(states),
        "derivatives": json.dumps(
            [{"t": r["t"], **{f"d{name}": r[name] for name in DIMENSIONS}} for r in record["derivatives"]]
        ),
        "t_start": states[0]["t"],
        "t_end": states[-1]["t"],
        "provenance": "lumen_real",
        "tokens": json.dumps(record["expressions"]),
        "n_expressions": len(record["expressions"]),
    }


def derivatives(states: list[State]) -> list[State]:
    """Change per second between consecutive states; pairs at the same time are skipped."""
    rates = []
    for before, after in itertools.pairwise(states):
        seconds = after["t"] - before["t"]
        if seconds == 0:
            continue
        rate = {"t": after["t"]}
        for name in DIMENSIONS:
            rate[name] = (after[name] - before[name]) / seconds
        rates.append(rate)
    return rates


def classify(states: list[State], first: list[State] | None = None, second: list[State] | None = None) -> str:
    """The published rules on one window, first match wins; with its derivatives where they are known."""
    if first is None:
        first = derivatives(states)
    if second is None:
        second = derivatives(first)
    energy = [state["E"] for state in states]
    entropy = [state["S"] for state in states]
    mean = {name: sum(rate[name] for rate in first) / len(first) if first else 0.0 for name in DIMENSIONS}
    if max(energy) - min(energy) >= 0.2 and mean["E"] < 0 and energy[0] > energy[-1]:
        return "basin_transition_down"
    if max(energy) - min(energy) >= 0.2 and mean["E"] > 0 and energy[-1] > energy[0]:
        return "basin_transition_up"
    if max(entropy) - min(entropy) >= 0.2 and 0 < entropy.index(max(entropy)) < len(entropy) - 1:
        return "entropy_spike_recovery"
    if max(state.get("ethical_drift", 0.0) for state in states) > 0.3:
        return "drift_dissonance"
    if mean["V"] > 0.05:
        return "void_rising"
    if mean["S"] > 0.05:
        return "rising_entropy"
    if mean["E"] < -0.05:
        return "falling_energy"
    rates = [abs(rate[name]) for rate in first for name in DIMENSIONS]
    bends = [abs(rate[name]) for rate in second for name in DIMENSIONS]
    if max(rates, default=0) < 0.05 and max(bends, default=0) < 0.05 and max(rates, default=0) > 1e-9:
        return "convergence"
    return "settled_presence"


def labelled(states: list[State], length: int = LENGTH, stride: int = STRIDE) -> list[str]:
    """The published label of every window of a log without gaps."""
    return [classify(window) for window in windows(states, length, stride)]


def main() -> None:
    """Build one Parquet file from one database."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    print(f"{arguments.out}: {build(arguments.database, arguments.out)} windows")


if __name__ == "__main__":
    main()
