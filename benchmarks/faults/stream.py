"""Releases that keep coming, good and bad, to a repository that a device follows while it is being killed."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from huggingface_hub import HfApi

from benchmarks.faults.processes import die_with
from eisv_lumen.release import Release
from eisv_lumen.signing import SigningKey, TrustedKeys
from hub.local import LocalHub
from tests import release_artifacts
from tests.release_artifacts import Branch, Repository, small_graph, small_student

FINE = ("good", "new key", "yanked later", "rolled out later")
"""Kinds that a device may install, and keeps unless they are yanked."""

BAD = ("never confident", "crashes")
"""Kinds that pass the self-test and must fail their probation; a crash is simulated, see `life`."""

REFUSED = ("stranger's key", "altered", "expired", "another's manifest")
"""Kinds that must never speak."""

_KINDS = ("good",) * 3 + FINE + BAD + REFUSED
_PAUSE = (0.5, 4.0)
"""Seconds between two releases: the least and the most."""

_SEED = 3


class Stream:
    """A publisher in a process of its own, which writes down what it does in a ledger.

    The ledger names a version before anything of it can be seen, so that whoever reads it later than a device
    knows every version that the device can know.

    Args:
        hub: A running Hub.
        repo_id: The student's repository; it is made, with a first good release in it.
        folder: For students and ledger.
    """

    def __init__(self, hub: LocalHub, repo_id: str, folder: Path) -> None:
        self.key = SigningKey.generate()
        self._extra = SigningKey.generate()
        self.trusted = TrustedKeys([self.key.public])
        self.every_key = TrustedKeys([self.key.public, self._extra.public])
        self.repository = Repository(HfApi(endpoint=hub.url, token=hub.token), repo_id, self.key)
        self._branch, self._ledger = Branch(self.repository), folder / "ledger"
        self._student, self._unsure = sure_student(folder / "sure"), unsure_student(folder / "unsure")
        self._yanked: dict[str, str] = {}
        self._rotated, self._pid = False, 0
        self._ledger.touch()
        self.publish("good")

    def kinds(self) -> dict[str, str]:
        """Kind by version, of all that were published or are just being published."""
        lines = self._ledger.read_text("utf-8").split("\n")[:-1]
        return {str(version): str(kind) for version, kind in map(json.loads, lines)}

    def counted(self) -> Counter[str]:
        """How many releases of each kind there are."""
        return Counter(self.kinds().values())

    def start(self, generator: random.Random) -> None:
        """Begin to publish in a process of its own, which ends with this one's `stop`."""
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                die_with(parent)
                quiet = os.open(os.devnull, os.O_RDWR)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                while True:
                    self.publish(generator.choice(_KINDS), generator)
                    time.sleep(generator.uniform(*_PAUSE))
            finally:
                os._exit(1)

    def stop(self) -> bool:
        """End it, between two requests or in the middle of one; False where it had ended by itself."""
        child, self._pid = self._pid, 0
        if not child or os.waitpid(child, os.WNOHANG)[0]:
            return False
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        return True

    def publish(self, kind: str, generator: random.Random | None = None) -> str:
        """Publish one release of a kind; returns its version."""
        version = f"0.{len(self.kinds()) + 1}.0"
        with self._ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps([version, kind]) + "\n")
        for _ in self._steps(kind, version):
            time.sleep(generator.uniform(*_PAUSE) / 2 if generator else 0)
        return version

    def _steps(self, kind: str, version: str) -> Iterator[None]:
        """Publish; between two steps a device may look."""
        put, student = self.repository.publish, self._student
        if kind == "new key":
            if not self._rotated:
                self._branch.rotate([self.key, self._extra], self.key, notices=False)
                self._rotated = True
            put(version, student, key=self._extra)
        elif kind == "rolled out later":
            self._branch.say(yanked=self._yanked, rollout={version: 0.0})
            put(version, student)
            yield
            self._branch.say(yanked=self._yanked)
        elif kind == "never confident":
            put(version, self._unsure)
        elif kind == "stranger's key":
            put(version, student, key=SigningKey.generate())
        elif kind == "altered":
            put(version, student, sent=_altered)
        elif kind == "expired":
            put(version, student, change=_expired)
        elif kind == "another's manifest":
            put(version, student, change=lambda manifest: replace(manifest, version="0.1.0"))
        else:
            put(version, student)
        if kind == "yanked later":
            yield
            self._yanked = {**self._yanked, version: "on purpose"}
            self._branch.say(yanked=self._yanked)


def sure_student(folder: Path) -> Path:
    """A student that is confident of most windows."""
    return small_student(folder, _SEED)


def unsure_student(folder: Path) -> Path:
    """One that passes its self-test and never comes to speak."""
    with mock.patch.object(release_artifacts, "small_graph", _unsure_graph):
        return small_student(folder, _SEED)


def _unsure_graph(seed: int) -> onnx.ModelProto:
    """Every shape as likely as the others."""
    model = small_graph(seed)
    for value in model.graph.initializer:
        if value.name == "to_shape":
            value.CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 9), np.float32), "to_shape"))
    return model


def _altered(files: dict[str, bytes]) -> None:
    files["config.json"] += b" "


def _expired(manifest: Release) -> Release:
    return replace(manifest, expires="2026-01-02T00:00:00+00:00")
