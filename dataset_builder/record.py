"""Record this machine's telemetry as a recording folder.

python -m dataset_builder.record --seconds 60 --hz 2 --out artifacts/demo/recording

The readings are appended to a log that is synced every few seconds, so an interrupted recording keeps what it
has and goes on where it was.
"""

import argparse
import csv
import gzip
import os
import sys
import time
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from dataset_builder.telemetry import Telemetry
from eisv_lumen import artifact
from eisv_lumen.errors import InputError, exit_with_reason
from eisv_lumen.logs import LogReport, read_log
from eisv_lumen.windows import WINDOW_LENGTH

KIND = "recording"
READINGS = "readings.csv.gz"
SYNC_SECONDS = 3.0
MAX_HZ = 20.0


def record(out: Path, *, seconds: float, hz: float, quiet: bool = False) -> bool:
    """Record into an artifact folder; returns False where it stands already.

    Raises:
        InputError: Too short for one window, or a rate that cannot be kept.
        ResourceError: The place is not writable.
    """
    count = round(seconds * hz) if hz > 0 and seconds > 0 else 0
    if count < WINDOW_LENGTH or hz > MAX_HZ:
        raise InputError(
            found=f"{seconds:g} s at {hz:g} Hz",
            expected=f"at least {WINDOW_LENGTH} readings, at most {MAX_HZ:g} Hz",
            next="python -m dataset_builder.record --seconds 60 --hz 2 --out DIR",
        )
    configuration = {"seconds": seconds, "hz": hz}
    with artifact.build(out, kind=KIND, configuration=configuration) as work:
        if work is None:
            return False
        partial = work.scratch / "readings.csv"
        _sample(partial, count, 1.0 / hz, quiet)
        _pack(partial, work.folder / READINGS)
        work.metrics = _measured(work.folder / READINGS)
    return True


def _sample(path: Path, count: int, step: float, quiet: bool) -> None:
    """Append readings until the log holds `count`."""
    telemetry = Telemetry()
    columns, done = _mend(path)
    columns = columns or ["timestamp", *telemetry.channels]
    if done and not quiet:
        print(f"recording: goes on after {done} of {count} readings", file=sys.stderr)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        due, synced = time.monotonic(), time.monotonic()
        for number in range(done, count):
            due += step
            time.sleep(max(0.0, due - time.monotonic()))
            writer.writerow({"timestamp": _now(), **{k: f"{v:.6g}" for k, v in telemetry.read().items()}})
            if time.monotonic() - synced > SYNC_SECONDS or number == count - 1:
                _sync(file)
                synced = time.monotonic()
            if not quiet:
                _show(number + 1, count, step)


def _mend(path: Path) -> tuple[list[str], int]:
    """Columns and complete lines of a log left behind; a line cut off by a kill is removed."""
    if not path.is_file():
        return [], 0
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        os.truncate(path, len(whole))
    lines = whole.decode("utf-8").splitlines()
    return (lines[0].split(","), len(lines) - 1) if lines else ([], 0)


def _pack(path: Path, packed: Path) -> None:
    """Compress without a time or name inside, so that the same readings give the same bytes."""
    with packed.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as file:
        file.write(path.read_bytes())


def _measured(path: Path) -> dict[str, Any]:
    log = read_log(path)
    (readings,) = log.devices.values()
    report: LogReport = log.report
    return {
        "n": len(readings),
        "seconds": round(float(readings.times[-1] - readings.times[0]), 3),
        "channels": list(report.mapped.values()),
        "dropped": report.dropped,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sync(file: TextIOWrapper) -> None:
    file.flush()
    os.fsync(file.fileno())


def _show(done: int, count: int, step: float) -> None:
    terminal = sys.stderr.isatty()
    if terminal or done % max(count // 10, 1) == 0:
        line = f"recording: {done}/{count} readings, {(count - done) * step:.0f} s left"
        print(line, end="\r" if terminal and done < count else "\n", file=sys.stderr, flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the recording")
    parser.add_argument("--hz", type=float, default=2.0, help="readings per second")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    made = record(arguments.out, seconds=arguments.seconds, hz=arguments.hz)
    found = artifact.read_metrics(arguments.out)
    state = "recorded" if made else "stands already:"
    print(f"{arguments.out}: {state} {found['n']} readings over {found['seconds']:g} s")
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
