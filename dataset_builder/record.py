"""Record this machine's telemetry, and the sensors on its I2C bus.

python -m dataset_builder.record --seconds 60 --hz 2 --out artifacts/demo/recording
python -m dataset_builder.record --log anima.csv --hz 0.5

The first makes a recording folder; interrupted, it keeps what it has and goes on where it was. The second
appends to a plain log until it is stopped, for as many months as the disk has room for, and goes on after a
power cut. Every line is whole, and is on the disk a few seconds after it was read.
"""

import argparse
import gzip
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from dataset_builder import i2c
from dataset_builder.append_log import SYNC_SECONDS, Log, alone, place
from dataset_builder.i2c import say
from dataset_builder.telemetry import Telemetry
from eisv_lumen import artifact
from eisv_lumen.errors import InputError, exit_with_reason
from eisv_lumen.layouts import RECORDING
from eisv_lumen.logs import LogReport, read_log
from eisv_lumen.windows import WINDOW_LENGTH

KIND = "recording"
MAX_HZ = 20.0


def record(
    out: Path, *, seconds: float, hz: float, sensors: Sequence[str] | None = None, quiet: bool = False
) -> bool:
    """Record into an artifact folder; returns False where it stands already.

    Args:
        out: The folder to make.
        seconds: Length of the recording.
        hz: Readings per second.
        sensors: I2C sensors that must answer; None for those that do.
        quiet: Show no progress.

    Raises:
        InputError: Too short for one window, or a rate that cannot be kept.
        ResourceError: The place is not writable, the disk is full, or a sensor does not answer.
        MissingDependencyError: The library of a sensor is not installed.
    """
    count = round(seconds * hz) if hz > 0 and seconds > 0 and math.isfinite(seconds * hz) else 0
    if count < WINDOW_LENGTH or hz > MAX_HZ:
        raise InputError(
            found=f"{seconds:g} s at {hz:g} Hz",
            expected=f"at least {WINDOW_LENGTH} readings, at most {MAX_HZ:g} Hz",
            next="python -m dataset_builder.record --seconds 60 --hz 2 --out DIR",
        )
    configuration: dict[str, Any] = {"seconds": seconds, "hz": hz}
    if sensors is not None:
        configuration["sensors"] = list(sensors)
    if artifact.is_current(out, artifact.identity_of(KIND, configuration, {}, None)):
        return False
    telemetry = _telemetry(sensors, hz, quiet)
    with artifact.build(out, kind=KIND, configuration=configuration) as work:
        if work is None:
            return False
        partial = work.scratch / "readings.csv"
        _sample(partial, telemetry, count, 1.0 / hz, quiet)
        _pack(partial, work.folder / RECORDING.readings)
        work.metrics = _measured(work.folder / RECORDING.readings) | {"sensors": telemetry.sensors.describe()}
    return True


def record_log(
    path: Path,
    *,
    hz: float,
    seconds: float | None = None,
    sensors: Sequence[str] | None = None,
    daily: bool = False,
    sync: float = SYNC_SECONDS,
    quiet: bool = False,
    stop: Event | None = None,
) -> int:
    """Append readings to a plain CSV log until `stop` is set; returns how many.

    A log that stands there is gone on with. Where there is a channel now that it has no column for, a log
    beside it is begun or gone on with: NAME-2.csv, NAME-3.csv, and so on.

    Args:
        path: The log; its folder must be there.
        hz: Readings per second.
        seconds: Stop after so long; None for never.
        sensors: As for `record`.
        daily: A log per day (UTC): NAME-2026-01-31.csv.
        sync: Seconds that a power cut may take.
        quiet: Say nothing.
        stop: Set it to stop after the reading at hand.

    Raises:
        InputError: A rate that cannot be kept, a file that is no `.csv`, or one that is not such a log.
        ResourceError: Another process records there, the place is not writable, the disk is full, or a sensor
            does not answer; what was recorded is kept.
        MissingDependencyError: The library of a sensor is not installed.
    """
    path = Path(path).absolute()
    timed = seconds is None or 0 < seconds < math.inf
    if not (0 < hz <= MAX_HZ and timed and 0 <= sync < math.inf and path.suffix == ".csv"):
        length = "" if seconds is None else f" for {seconds:g} s"
        raise InputError(
            found=f"{path.name} at {hz:g} Hz{length}, synced every {sync:g} s",
            expected=f"a file NAME.csv, at most {MAX_HZ:g} Hz",
            next="python -m dataset_builder.record --log anima.csv --hz 0.5",
        )
    count = math.inf if seconds is None else max(1, round(seconds * hz))
    with alone(path):
        telemetry = _telemetry(sensors, hz, quiet)
        return _append(path, telemetry, count, 1.0 / hz, daily, sync, quiet, stop or Event())


def _append(
    path: Path,
    telemetry: Telemetry,
    count: float,
    step: float,
    daily: bool,
    sync: float,
    quiet: bool,
    stop: Event,
) -> int:
    """Append up to `count` readings, each to the log that it belongs to at that moment."""

    def opened(moment: str) -> Log:
        named = path.with_stem(f"{path.stem}-{moment[:10]}") if daily else path
        log = Log(place(named, telemetry.channels), telemetry.channels, sync=sync)
        if not quiet:
            say(f"appends to {log.path.name}")
        return log

    moment, done = _now(), 0
    log, day = opened(moment), moment[:10]
    try:
        for _ in _beat(step, stop):
            moment = _now()
            values = telemetry.read()
            if (daily and moment[:10] != day) or not log.stands:
                log.close()
                log, day = opened(moment), moment[:10]
            log.append(moment, values)
            done += 1
            if not quiet and sys.stderr.isatty():
                print(f"recording: {done} readings", end="\r", file=sys.stderr, flush=True)
            if done >= count:
                break
    finally:
        log.close()
    return done


def _sample(path: Path, telemetry: Telemetry, count: int, step: float, quiet: bool) -> None:
    """Append readings until the log holds `count`."""
    with Log(path, telemetry.channels) as log:
        with path.open("rb") as file:
            done = sum(1 for _ in file) - 1
        if done and not quiet:
            say(f"goes on after {done} of {count} readings")
        new = [name for name in telemetry.channels if name not in log.columns]
        if new:
            say(f"leaves out {', '.join(new)}, which it began without")
        if done >= count:
            return
        for _ in _beat(step, Event()):
            log.append(_now(), telemetry.read())
            done += 1
            if not quiet:
                _show(done, count, step)
            if done >= count:
                return


def _telemetry(sensors: Sequence[str] | None, hz: float, quiet: bool) -> Telemetry:
    """The machine and its I2C sensors, which are not asked more often than they can answer."""
    if hz > i2c.MAX_HZ and sensors:
        raise InputError(
            found=f"I2C sensors at {hz:g} Hz",
            expected=f"at most {i2c.MAX_HZ:g} Hz",
            next=f"--hz {i2c.MAX_HZ:g}, or --sensors none",
        )
    if hz > i2c.MAX_HZ and sensors is None and i2c.installed():
        say(f"leaves the I2C sensors out: they cannot be read more than {i2c.MAX_HZ:g} times a second")
    telemetry = Telemetry(i2c.probe(() if hz > i2c.MAX_HZ else sensors))
    if telemetry.sensors.channels and not quiet:
        say(str(telemetry.sensors))
    return telemetry


def _beat(step: float, stop: Event) -> Iterator[None]:
    """Every `step` seconds until stopped; after a delay it goes on from there, and hurries nothing."""
    due = time.monotonic()
    while True:
        due = max(due + step, time.monotonic())
        if stop.wait(max(0.0, due - time.monotonic())):
            return
        yield


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


def _show(done: int, count: int, step: float) -> None:
    terminal = sys.stderr.isatty()
    if terminal or done % max(count // 10, 1) == 0:
        line = f"recording: {done}/{count} readings, {(count - done) * step:.0f} s left"
        print(line, end="\r" if terminal and done < count else "\n", file=sys.stderr, flush=True)


def _stopped_by_signals() -> Event:
    """Set when the process is told to end (SIGTERM, Ctrl-C), so that it ends after a whole reading."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="recording folder to make")
    where.add_argument("--log", type=Path, help="CSV file to append to until stopped (Ctrl-C, SIGTERM)")
    parser.add_argument("--seconds", type=float, help="length of the recording; 60, or endless for --log")
    parser.add_argument("--hz", type=float, default=2.0, help="readings per second")
    parser.add_argument(
        "--sensors",
        default="auto",
        help="I2C sensors: auto for those that answer, none, or those that must answer, such as "
        "bme280,veml7700 (" + ", ".join(kind.name for kind in i2c.KINDS) + ")",
    )
    parser.add_argument("--daily", action="store_true", help="with --log: a file per day (UTC)")
    parser.add_argument(
        "--sync", type=float, default=SYNC_SECONDS, help="with --log: seconds that a power cut may take"
    )
    arguments = parser.parse_args()
    if arguments.out and (arguments.daily or arguments.sync != SYNC_SECONDS):
        parser.error("--daily and --sync go with --log")
    return arguments


def _named(sensors: str) -> Sequence[str] | None:
    if sensors in ("auto", "none"):
        return None if sensors == "auto" else ()
    return [name.strip() for name in sensors.split(",")]


def main() -> int:
    """The command line."""
    arguments = _arguments()
    sensors = _named(arguments.sensors)
    if arguments.log:
        done = record_log(
            arguments.log,
            hz=arguments.hz,
            seconds=arguments.seconds,
            sensors=sensors,
            daily=arguments.daily,
            sync=arguments.sync,
            stop=_stopped_by_signals(),
        )
        print(f"{arguments.log}: recorded {done} readings")
        return 0
    seconds = 60.0 if arguments.seconds is None else arguments.seconds
    made = record(arguments.out, seconds=seconds, hz=arguments.hz, sensors=sensors)
    found = artifact.read_metrics(arguments.out)
    state = "recorded" if made else "stands already:"
    print(f"{arguments.out}: {state} {found['n']} readings over {found['seconds']:g} s")
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
