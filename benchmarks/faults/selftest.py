"""The self-test in a process forked from a warm one: a pull's time is mostly the start of a Python for it."""

import json
import os
import select
import signal
from pathlib import Path

from benchmarks.faults.processes import die_with
from eisv_lumen.device.selftest import SelfTest, run_selftest
from eisv_lumen.errors import VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.student import TrajectoryModel

_DESCRIPTORS = 256
_SECONDS = 20.0


def forked_selftest(folder: Path) -> SelfTest:
    """Stands for `run_selftest`: the same windows through the same graph, without its limits.

    A fork of a process with a thread may stop for ever; then the real one takes its place.

    Raises:
        VerificationError: The outputs differ, or the graph cannot be opened.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent)
            # Neither the updater's lock nor its pipe to the harness may live on here; a program started anew
            # has not got them.
            os.dup2(writing, 3)
            os.closerange(4, _DESCRIPTORS)
            os.write(3, json.dumps(_replayed(folder)).encode())
        finally:  # an updater that was killed reads no answer, and nothing of its work may go on here
            os._exit(0)
    os.close(writing)
    answered = select.select([reading], [], [], _SECONDS)[0]
    if not answered:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    if not told:
        return run_selftest(folder)
    difference, problem, windows = json.loads(told)
    if problem is not None:
        raise VerificationError(found=problem, expected="the recorded outputs", next="ask the publisher")
    return SelfTest(windows, difference, 1.0, None)


def _replayed(folder: Path) -> tuple[float, str | None, int]:
    """Largest difference, what was wrong, and how many windows."""
    try:
        golden = json.loads((folder / STUDENT.golden).read_text("utf-8"))
        difference = TrajectoryModel.from_pretrained(folder).check_golden(golden)
    except Exception as error:
        return 0.0, f"{type(error).__name__}: {error}"[:500], 0
    return difference, None, len(golden["windows"])
