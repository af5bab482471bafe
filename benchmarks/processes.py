"""What a whole process costs, from its start to its end."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Self

import psutil

from eisv_lumen.errors import ResourceError

_EVERY = 0.05
"""Seconds between two looks at a process's children."""

# A process's peak begins with that of the process which started it, so a small one stands in between.
_STARTER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - started
code = os.waitstatus_to_exitcode(status)
print(json.dumps([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, code]))
"""


@dataclass(frozen=True)
class Cost:
    """What one run of a process took.

    Attributes:
        seconds: Wall-clock time.
        cpu_seconds: Time of all cores, in the program and in the kernel.
        peak_rss_mb: Most memory resident at once, in MB of 10^6 bytes. For a process alone it is the kernel's
            own figure; where it has children, theirs is added, looked at every 50 ms.
    """

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, its output thrown away.

    Args:
        command: Program and arguments.
        environment: Variables to add to the present ones.

    Raises:
        ResourceError: It failed; the end of what it said is in the message.
    """
    with tempfile.TemporaryFile() as told:
        starter = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _STARTER, *command],
            stdout=subprocess.PIPE,
            stderr=told,
            env={**os.environ, **(environment or {})},
        )
        with _Family(starter.pid) as family:
            answer, _ = starter.communicate()
        seconds, cpu_seconds, alone, code = json.loads(answer) if answer else (0, 0, 0, starter.returncode)
        if code:
            raise _failed(command, code, told)
    # Linux counts in kibibytes, macOS in bytes.
    peak = max(alone * (1 if sys.platform == "darwin" else 1024), family.peak)
    return Cost(seconds, cpu_seconds, round(peak / 1e6, 1))


class _Family:
    """Watches a started process that has children: the most that all of them held together, in bytes."""

    def __init__(self, starter: int) -> None:
        self.peak = 0
        self._starter = starter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            starter = psutil.Process(self._starter)
            while not self._over.wait(_EVERY):
                family = starter.children(recursive=True)
                if len(family) > 1:
                    self.peak = max(self.peak, sum(map(_resident, family)))
        except psutil.NoSuchProcess:
            return


def _resident(member: psutil.Process) -> int:
    try:
        return int(member.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _failed(command: Sequence[str], code: int, told: IO[bytes]) -> ResourceError:
    told.seek(0)
    end = told.read().decode("utf-8", "replace").strip().splitlines()[-8:]
    return ResourceError(
        found=f"exit code {code} of {' '.join(command)}\n" + "\n".join(end),
        expected="a run that ends well, or there is nothing to measure",
        next="run that command alone; a process killed by the system (-9) ran out of memory",
    )
