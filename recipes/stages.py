"""Running stages: commands one after the other (or two at a time), timed, stopped at the first that fails."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from eisv_lumen.artifact import MANIFEST, write_json
from eisv_lumen.errors import LumenError

_SECONDS_TO_STOP = 5
# Waiting threads must not spin: on a machine that does anything else, two of them cost torch a factor of ten.
_CALM_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


class StageError(LumenError):
    """A stage's command failed; it has printed its own reason already."""

    def __init__(self, stage: str, code: int) -> None:
        super().__init__(
            found=f"stage {stage} ended with exit code {code}",
            expected="exit code 0",
            next="mend what the lines above name, then run the same command again: finished stages are kept",
        )
        self.exit_code = code if 0 < code < 128 else 2


@dataclass(frozen=True)
class Stage:
    """One command of the recipe.

    Attributes:
        name: What the summary calls it.
        why: What it does and why, in one line.
        command: Arguments behind the Python interpreter.
        result: The folder or file it makes; unchanged afterwards means that there was nothing to do.
        environment: Variables beside this process's own.
        quiet: Show the command's output only when it fails.
    """

    name: str
    why: str
    command: Sequence[str | Path]
    result: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    quiet: bool = False


class Stages:
    """Runs stages and keeps the seconds each took when it last had work to do."""

    def __init__(self, record: Path) -> None:
        """Times are kept in the file `record`, across interruptions."""
        self.record = record
        kept = json.loads(record.read_text()) if record.exists() else {}
        self.seconds: dict[str, float] = kept.get("seconds", {})
        self.wall: float = kept.get("wall", 0.0)
        self._complete: bool = kept.get("complete", False)
        self.worked: list[str] = []

    def run(self, stage: Stage, number: str, beside: Stage | None = None) -> None:
        """Announce a stage, run it in this terminal, time it.

        Args:
            stage: What to run.
            number: Its place in the recipe, for the reader.
            beside: A quiet stage that waits more than it works, run at the same time.

        Raises:
            StageError: When a command fails.
        """
        group = [stage] if beside is None else [beside, stage]
        for member in group:
            meanwhile = " (meanwhile the next stage runs)" if member is beside else ""
            print(f"\n[{number}] {member.name}: {member.why}{meanwhile}", flush=True)
        before = {member.name: fingerprint(member.result) for member in group}
        started = time.monotonic()
        try:
            ended = _run(group)
        except BaseException:
            self._spent(time.monotonic() - started)
            raise
        for member in group:
            if before[member.name] is not None and fingerprint(member.result) == before[member.name]:
                print(f"      {member.name}: stands already, unchanged", flush=True)
                continue
            self.worked.append(member.name)
            self.seconds[member.name] = round(ended[member.name] - started, 1)
            print(f"      {member.name}: {self.seconds[member.name]:.0f} s", flush=True)
        if before != {member.name: fingerprint(member.result) for member in group}:
            self._spent(time.monotonic() - started)

    def finish(self) -> None:
        """The recipe is done: work from now on is another run's."""
        self._complete = True
        self._write()

    def _spent(self, seconds: float) -> None:
        """Count work of this run, over all its interruptions."""
        self.wall = round((0.0 if self._complete else self.wall) + seconds, 3)
        self._complete = False
        self._write()

    def _write(self) -> None:
        if (
            self.record.parent.is_dir()
        ):  # a stage that was refused has written nothing, and so does its timing
            write_json(self.record, {"seconds": self.seconds, "wall": self.wall, "complete": self._complete})


def leave_on_kill() -> None:
    """Leave like Ctrl-C on a plain kill, so that what this process started is stopped too."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def fingerprint(result: Path) -> str | None:
    """A hash that changes when a stage's result does; None when there is none."""
    file = result / MANIFEST if result.is_dir() else result
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def peak_memory_mb() -> float:
    """Largest resident memory of any stage's process so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000, 0)


def _run(group: Sequence[Stage]) -> dict[str, float]:
    """Run stages at the same time; when each had ended."""
    processes = [_start(stage) for stage in group]
    ended = {}
    try:
        for stage, process in zip(group, processes, strict=True):
            output, _ = process.communicate()
            ended[stage.name] = time.monotonic()
            if process.returncode:
                sys.stderr.write((output or b"").decode(errors="replace"))
                raise StageError(stage.name, process.returncode)
    finally:
        _stop(processes)
    return ended


def _start(stage: Stage) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *(str(part) for part in stage.command)],
        env={**_CALM_THREADS, **os.environ, "PYTHONUNBUFFERED": "1", **stage.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stage.quiet else None,
        stderr=subprocess.STDOUT if stage.quiet else None,
    )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs. Ctrl-C reached it too and lets it finish a write; a plain kill did not."""
    for process in processes:
        try:
            process.wait(timeout=_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
