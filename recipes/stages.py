"""Running stages: one command after the other, timed, stopped at the first that fails."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
        self.seconds: dict[str, float] = json.loads(record.read_text()) if record.exists() else {}
        self.worked: list[str] = []

    def run(self, stage: Stage, number: str) -> None:
        """Announce a stage, run it in this terminal, time it.

        Raises:
            StageError: When its command fails.
        """
        print(f"\n[{number}] {stage.name}: {stage.why}", flush=True)
        before, started = fingerprint(stage.result), time.monotonic()
        _run(stage)
        seconds = time.monotonic() - started
        if before is not None and fingerprint(stage.result) == before:
            print(f"      {stage.name}: stands already, unchanged", flush=True)
            return
        self.worked.append(stage.name)
        self.seconds[stage.name] = round(seconds, 1)
        write_json(self.record, self.seconds)
        print(f"      {stage.name}: {seconds:.0f} s", flush=True)


def fingerprint(result: Path) -> str | None:
    """A hash that changes when a stage's result does; None when there is none."""
    file = result / MANIFEST if result.is_dir() else result
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def peak_memory_mb() -> float:
    """Largest resident memory of any stage's process so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000, 0)


def _run(stage: Stage) -> None:
    process = subprocess.Popen(
        [sys.executable, *(str(part) for part in stage.command)],
        env={**_CALM_THREADS, **os.environ, "PYTHONUNBUFFERED": "1", **stage.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stage.quiet else None,
        stderr=subprocess.STDOUT if stage.quiet else None,
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        # Ctrl-C reached the stage too and lets it finish a write; a plain kill reached only this process.
        try:
            process.wait(timeout=_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise
    if process.returncode:
        if output:
            sys.stderr.write(output.decode(errors="replace"))
        raise StageError(stage.name, process.returncode)
