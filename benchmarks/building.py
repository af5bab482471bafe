"""The dataset builder as whole processes, beside the plain one: seconds, memory, bytes on disk.

python -m benchmarks.building --curve

Three things are measured and written, each figure with the number of runs or windows that it rests on: both
builders on the same database, in turn; with `--curve` what the kit takes for ever longer databases; and
classification on one core.
A curve measured before stays in the file for as long as the builder's source is the same.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.classification import on_one_core
from benchmarks.processes import Cost
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.layouts import DATASET

ROOT = Path(__file__).resolve().parents[1]
STATES = 214_503
REPEATS = 3
CURVE = (100_000, 1_000_000, 10_000_000)
CONFIGURATIONS = {"default": None, "full": ROOT / "dataset_builder/configs/full.yaml"}
"""Configuration files of the kit by name; one that is not there is left out."""
SOURCES = ("eisv_lumen", "dataset_builder")
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": ""}
"""For both builders alike: modules are compiled once and kept, as they are where nothing forbids it."""
PLAIN = "plain"


@dataclass(frozen=True)
class Run:
    """One run of a builder: its cost, and the bytes that it left on disk by part."""

    cost: Cost
    sizes: dict[str, int]


Builder = Callable[[Path, Path], Run]
"""Takes a database and a place for what is built."""


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = _arguments()
    before = _earlier(arguments.out)
    figures: dict[str, Any] = {"machine": machine(), "source_sha256": source_hash()}
    figures["side_by_side"] = side_by_side(arguments.databases, arguments.states, arguments.repeats)
    if arguments.curve is not None:
        figures["curve"] = curve(arguments.databases, arguments.curve or CURVE)
    elif before.get("source_sha256") == figures["source_sha256"]:
        figures["curve"] = before.get("curve", [])
    figures["classification"] = [asdict(figure) for figure in on_one_core()]
    for figure in figures["classification"]:
        _say(f"{figure['name']:32} {figure['value']:12,.0f} {figure['unit']}, {figure['ratio']:.1f} times")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, figures)


def side_by_side(databases: Path, states: int, repeats: int) -> dict[str, Any]:
    """The plain builder and every configuration of the kit on one database, each in turn in every round.

    Returns:
        Per builder the medians and their n; per configuration how many times less it takes than the baseline.
    """
    database = _database(databases, states)
    _say(f"{states:,} states, {repeats} rounds")
    found: dict[str, list[Run]] = {name: [] for name in builders()}
    for number in range(repeats):
        for name, build in builders().items():
            found[name].append(_measured(build, database, databases))
            _say(f"round {number + 1}  {_line(name, summary(found[name][-1:]))}")
    summaries = {name: summary(runs) for name, runs in found.items()}
    ratios = {name: ratio(summaries[PLAIN], entry) for name, entry in summaries.items() if name != PLAIN}
    for name, entry in summaries.items():
        _say(f"median   {_line(name, entry)}")
    for name, times in ratios.items():
        _say(f"{name}: " + ", ".join(f"{what} {value:.1f} times less" for what, value in times.items()))
    size = round(database.stat().st_size / 1e6, 1)
    return {"states": states, "database_mb": size, "builders": summaries, "ratios": ratios}


def curve(databases: Path, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """What every configuration of the kit takes for databases of these lengths, one run each."""
    found = []
    for states in lengths:
        database = _database(databases, states)
        for name, build in builders().items():
            if name != PLAIN:
                entry = summary([_measured(build, database, databases)])
                _say(f"{states:12,} states  {_line(name, entry)}")
                found.append({"states": states, "configuration": name, **entry})
    return found


def builders() -> dict[str, Builder]:
    """The builders by name, the baseline first."""
    kit = {name: file for name, file in CONFIGURATIONS.items() if file is None or file.is_file()}
    return {PLAIN: build_plain, **{name: partial(build_kit, file) for name, file in kit.items()}}


def build_plain(database: Path, place: Path) -> Run:
    """Run the baseline."""
    out = place / "rows.parquet"
    command = [sys.executable, "-m", "benchmarks.plain_builder", str(database), str(out)]
    cost = processes.run(command, environment=ENVIRONMENT)
    return Run(cost, {"legacy": out.stat().st_size, "all": out.stat().st_size})


def build_kit(configuration: Path | None, database: Path, place: Path) -> Run:
    """Run the kit's command with a configuration file, or with its defaults."""
    out = place / "dataset"
    command = [sys.executable, "-m", "dataset_builder.build", "--source", str(database), "--out", str(out)]
    command += ["--config", str(configuration)] if configuration else []
    cost = processes.run(command, environment=ENVIRONMENT)
    return Run(cost, sizes(out))


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of a dataset folder: each configuration, what describes them, and all."""
    parts = {name: (folder / path).parent for name, path in _parts().items()}
    found = {name: _bytes(part) for name, part in parts.items()}
    everything = _bytes(folder)
    return found | {"other": everything - sum(found.values()), "all": everything}


def summary(runs: list[Run]) -> dict[str, Any]:
    """Medians over the runs of one builder; n is the number of runs."""
    costs = [run.cost for run in runs]
    return {
        "seconds": _median([cost.seconds for cost in costs]),
        "cpu_seconds": _median([cost.cpu_seconds for cost in costs]),
        "peak_rss_mb": _median([cost.peak_rss_mb for cost in costs]),
        "n": len(runs),
        "bytes": runs[-1].sizes,
    }


def ratio(baseline: dict[str, Any], entry: dict[str, Any]) -> dict[str, float]:
    """How many times less than the baseline."""
    times = {name: baseline[name] / entry[name] for name in ("seconds", "cpu_seconds", "peak_rss_mb")}
    times |= {f"{part}_bytes": baseline["bytes"][part] / entry["bytes"][part] for part in ("legacy", "all")}
    return {name: round(value, 2) for name, value in times.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def source_hash() -> str:
    """sha256 of the source that is measured."""
    files = sorted(path for name in SOURCES for path in (ROOT / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _parts() -> dict[str, str]:
    return {
        "windows": DATASET.windows("train"),
        "expressions": DATASET.expressions("train"),
        "legacy": DATASET.legacy,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _database(folder: Path, states: int) -> Path:
    """A database of so many states, made unless it stands there, and read once into the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"anima-{states}.db"
    processes.run([sys.executable, "-m", "benchmarks.databases", str(path), str(states), "--standing"])
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    return path


def _measured(build: Builder, database: Path, folder: Path) -> Run:
    with tempfile.TemporaryDirectory(dir=folder, prefix="built-") as place:
        return build(database, Path(place))


def _earlier(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _line(name: str, entry: dict[str, Any]) -> str:
    size = entry["bytes"]["all"] / 1e6
    return f"{name:8} {entry['seconds']:8.2f} s {entry['peak_rss_mb']:8.1f} MB RSS {size:8.2f} MB on disk"


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measured/building.json")
    parser.add_argument("--states", type=int, default=STATES)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds of the side by side")
    parser.add_argument(
        "--curve",
        type=int,
        nargs="*",
        metavar="STATES",
        help="measure longer databases too; " + ", ".join(f"{n:,}" for n in CURVE) + " where none is named",
    )
    parser.add_argument(
        "--databases",
        type=Path,
        default=ROOT / "artifacts/benchmarks",
        help="folder of the simulated databases, kept for the next run (10 million states: 2.4 GB)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
