"""Processes forked from a warm parent, so that nothing is imported again, and killed like any other."""

import ctypes
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eisv_lumen.errors import LumenError

_HUNG_SECONDS = 180.0
_WRITES = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"})
_ACTS = _WRITES | {"socket.connect", "subprocess.Popen", "os.fork", "shutil.rmtree"}
_SHORT_SLEEP = 0.01
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1


@dataclass(frozen=True)
class Kill:
    """When a process is killed with SIGKILL: at the first of these.

    Attributes:
        after: Seconds after its start.
        act: Number of the file operation or connection, from 0, before which it dies.
        state: Named state at which it dies.
    """

    after: float | None = None
    act: int | None = None
    state: str | None = None

    def __str__(self) -> str:
        """For reports, such as "act 17"."""
        if self.state is not None:
            return f"state {self.state}"
        return f"act {self.act}" if self.act is not None else f"{self.after:.3f} s"


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        how: `done`, `refused` (a typed error), `crashed` (any other exception), `killed` or `hung`.
        value: What it returned, or what it said of its error.
        acts: Changes of files, connections and processes that it began; 0 where it did not live to tell.
        seconds: How long it lived.
    """

    how: str
    value: Any
    acts: int
    seconds: float


class At:
    """Passed to the updater and publisher as `at`: tells the states that were reached, and dies at one.

    Args:
        state: The state to die at.
    """

    def __init__(self, state: str | None = None) -> None:
        self.state = state
        self.seen: list[str] = []

    def __call__(self, state: str) -> None:
        """A state was reached."""
        self.seen.append(state)
        if state == self.state:
            os.kill(os.getpid(), signal.SIGKILL)


def die_with(parent: int) -> None:
    """Let this process be killed with the one that made it, so that nothing of a killed run goes on.

    Args:
        parent: The process by which it was forked, in that one's main thread.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone before it could be told
        os._exit(1)


def forked(work: Callable[[At], Any], kill: Kill | None = None, *, patient: bool = True) -> Ended:
    """Run something in a process of its own to its end, or to its death.

    Args:
        work: What to do; its result must be JSON.
        kill: When to kill it.
        patient: False shortens every wait to 10 ms and puts the clock forward by the rest.
    """
    started = time.perf_counter()
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent)
            os.close(reading)
            _child(work, kill, writing, patient)
        finally:  # whatever happened, this copy of the parent must not go on with the parent's work
            os._exit(1)
    os.close(writing)
    killed = False
    if kill is not None and kill.after is not None:
        killed = not select.select([reading], [], [], kill.after)[0]
        if killed:
            os.kill(pid, signal.SIGKILL)
    hung = not select.select([reading], [], [], _HUNG_SECONDS)[0]
    if hung:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read() if not hung else b""
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - started
    if hung:
        return Ended("hung", None, 0, seconds)
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
        return Ended("killed", None, 0, seconds)
    if not told:
        return Ended("crashed", "it ended without a word", 0, seconds)
    how, value, acts = json.loads(told)
    return Ended(how, value, acts, seconds)


def _child(work: Callable[[At], Any], kill: Kill | None, writing: int, patient: bool) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    if not patient:
        _shorten_waits()
    acts = _watch_acts(kill.act if kill else None)
    try:
        how, value = "done", work(At(kill.state if kill else None))
    except LumenError as error:
        how, value = "refused", f"{type(error).__name__}: {error.found}"
    except BaseException:
        how, value = "crashed", traceback.format_exc()[-3000:]
    os.write(writing, json.dumps([how, value, acts[0]]).encode())
    os._exit(0)


def _watch_acts(dies_before: int | None) -> list[int]:
    count = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _ACTS or (event == "open" and not _opens_for_writing(arguments)):
            return
        if count[0] == dies_before:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1

    sys.addaudithook(hook)
    return count


def _opens_for_writing(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _shorten_waits() -> None:
    """Waits between tries are nothing to learn from; clocks go on as if they had been sat out."""
    really, monotonic, ahead = time.sleep, time.monotonic, 0.0

    def sleep(seconds: float) -> None:
        nonlocal ahead
        ahead += max(0.0, seconds - _SHORT_SLEEP)
        really(min(seconds, _SHORT_SLEEP))

    time.sleep = sleep  # type: ignore[assignment]
    time.monotonic = lambda: monotonic() + ahead


def random_kill(generator: random.Random, seconds: float, acts: int) -> Kill:
    """At a random time, or before a random act.

    Args:
        generator: Source of chance.
        seconds: How long an undisturbed process lives.
        acts: How much it does.
    """
    if generator.random() < 0.5:
        return Kill(after=generator.random() * seconds)
    return Kill(act=generator.randrange(acts))
