"""The device process that is killed again and again: it starts, serves windows, and pulls in between."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.faults.processes import At
from eisv_lumen.device import service
from eisv_lumen.device.awareness import Spoken, Voice
from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge
from eisv_lumen.device.probation import Probation
from eisv_lumen.device.service import Service
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import LumenError
from eisv_lumen.windows import WINDOW_LENGTH
from tests.release_artifacts import some_windows

STATES = ("started", "opened", "spoke", "switched over", "pulling", "pulled")
"""What a life tells of, beside the states of a pull."""

PULL_EVERY = 0.3
"""Seconds between two pulls."""

_STATE_EVERY = 0.02
"""Seconds between two states."""


class Diary:
    """What a process did, written so that it outlives the process.

    Args:
        descriptor: Of a file opened for appending.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def tell(self, what: str, **values: Any) -> None:
        """Write one entry, in one system call."""
        os.write(self._descriptor, json.dumps({"what": what, **values}).encode() + b"\n")


def live(home: Home, diary: Diary, kinds: Callable[[], Mapping[str, str]], at: At, seconds: float) -> None:
    """Serve and pull.

    Args:
        home: The device's home.
        diary: Told of everything.
        kinds: Tells the kind by version; of one that `crashes` the process dies when it is asked. That is
            simulated: no model file takes its runtime down for certain.
        at: Told of states.
        seconds: How long, if nothing kills it.
    """

    def open_voice(*arguments: Any, **options: Any) -> Voice:
        voice = really_open(*arguments, **options)
        version = voice.model.version if voice.model else None
        if kinds().get(version or "") == "crashes":
            voice.model = _Crashing(diary, version or "")
        diary.tell("opened", version=version)
        at("opened")
        return voice

    def told(spoken: Spoken) -> None:
        diary.tell("spoke", by=spoken.source, version=spoken.version)
        at("spoke")

    really_open = service.open_voice
    service.open_voice = open_voice
    probation = Probation(home, lambda line: diary.tell("warned", line=line))
    probation.start()
    diary.tell("started", **_standing(home))
    at("started")
    voice = open_voice(home, generator=np.random.default_rng())
    served = Service(
        home,
        voice,
        stride=1,
        told=told,
        warn=lambda line: diary.tell("warned", line=line),
        probation=probation,
    )
    served.run(_states(home, diary, at, time.monotonic() + seconds))


class _Crashing:
    def __init__(self, diary: Diary, version: str) -> None:
        self.diary, self.version = diary, version

    def infer(self, *_: object) -> None:
        self.diary.tell("crashed", version=self.version)
        os.kill(os.getpid(), signal.SIGKILL)


def _standing(home: Home) -> dict[str, Any]:
    """What speaks after a start, and what is known against releases."""
    speaks, known = Current.read(home).speaks, Knowledge.read(home)
    return {
        "speaks": speaks.version if speaks else None,
        "refused": sorted(known.refused),
        "yanked": sorted(known.notices.yanked),
    }


def _states(home: Home, diary: Diary, at: At, end: float) -> Iterator[tuple[float, np.ndarray]]:
    """Windows of random walks, one after the other, 2 s apart by their own clock; and pulls now and then."""
    heard, pull_at = 0, time.monotonic() + PULL_EVERY
    while time.monotonic() < end:
        states = some_windows(1, int.from_bytes(os.urandom(4), "big")).states[0]
        for state in states:
            if heard >= WINDOW_LENGTH:
                time.sleep(_STATE_EVERY)
            if time.monotonic() >= pull_at:
                _pull(home, diary, at)
                pull_at = time.monotonic() + PULL_EVERY
            yield 2.0 * heard, state
            heard += 1


def _pull(home: Home, diary: Diary, at: At) -> None:
    diary.tell("pulling")
    at("pulling")
    try:
        outcome = Updater(home, at=at).pull()
        diary.tell("pulled", action=outcome.action, version=outcome.version)
    except LumenError as error:
        diary.tell("pulled", action=type(error).__name__, why=error.found[:200])
    at("pulled")
