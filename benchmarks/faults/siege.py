"""A device under kill for minutes on end, while releases keep coming: what is found after each death."""

import json
import os
import random
import sqlite3
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from benchmarks.faults import life
from benchmarks.faults.client import use_endpoint
from benchmarks.faults.life import Diary
from benchmarks.faults.outcome import Trial
from benchmarks.faults.processes import Ended, Kill, forked
from benchmarks.faults.stream import BAD, FINE, Stream
from eisv_lumen.device import slots, updater
from eisv_lumen.device.current import CURRENT, NAMES, Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.probation import read_counts
from eisv_lumen.device.settings import Limits
from eisv_lumen.device.status import status
from eisv_lumen.errors import LumenError
from eisv_lumen.versions import Version
from hub.local import LocalHub
from hub.local.check import problems

LIMITS = Limits(expressions=15, seconds=0.3, latency_ms=60_000.0, rss_mb=4096.0)
"""Short, so that verdicts fall between kills; wide where a busy machine would break them."""

_LONGEST = 4.0
"""Seconds of the longest life."""

_LIVES = 8
"""Lives in peace within which a last release must be installed and kept."""

_ACTS = 400


class Siege:
    """A device, the publisher that it follows, and what was known of the device after its last death.

    Args:
        hub: A running Hub.
        root: Its folder.
        folder: For home and students.
        generator: Source of the publisher's chances.
    """

    def __init__(self, hub: LocalHub, root: Path, folder: Path, generator: random.Random) -> None:
        folder.mkdir(parents=True)
        use_endpoint(hub.url)
        self.root, self.folder = root, folder
        self.stream = Stream(hub, "siege/eisv-lumen-student", folder)
        self.home = Home(folder / "home")
        self.home.write("trust.json", self.stream.trusted.to_dict())
        settings = {"repo_id": self.stream.repository.repo_id, "hub": hub.url, "probation": asdict(LIMITS)}
        self.home.write("device.json", settings)
        self.seen: Counter[str] = Counter()
        self._known, self._left = self._memory(), set[str]()
        self.stream.start(generator)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.stop()

    def live(self, kill: Kill | None, seconds: float) -> tuple[Ended, list[dict[str, Any]]]:
        """One life of the device process; how it ended and what it told."""
        path = self.folder / "diary"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        diary, kinds = Diary(descriptor), self.stream.kinds
        try:
            ended = forked(lambda at: life.live(self.home, diary, kinds, at, seconds), kill)
        finally:
            os.close(descriptor)
        # The process may have died in the middle of its last line.
        lines = path.read_text("utf-8").split("\n")[:-1]
        return ended, [json.loads(line) for line in lines]

    def check(self, told: list[dict[str, Any]]) -> list[str]:
        """What is on the device's disk while nothing runs, and what the dead process said."""
        kinds = self.stream.kinds()
        try:
            memory = self._memory()
        except LumenError as error:
            return [f"nothing can be read: {error.found}"]
        losses = self._speaking(kinds, memory) + _forgotten(self._known, memory)
        for entry in told:
            if entry["what"] == "started" and entry["speaks"] in entry["refused"] + entry["yanked"]:
                losses.append(f"started with {entry['speaks']}, which is refused or yanked")
            if entry["what"] == "opened" and entry["version"] and not _may_speak(entry["version"], kinds):
                losses.append(f"opened {entry['version']}, {kinds.get(entry['version'])}")
        losses += self._left_behind(told)
        self._count(told, memory, kinds)
        self._known = memory
        return losses

    def _left_behind(self, told: list[dict[str, Any]]) -> list[str]:
        """Files that a kill left, and the next pull that had time for it did not remove."""
        names = {path.name for path in self.home.slots.iterdir()}
        left = {name for name in names if not _expected(name)}
        cleaned = any(entry.get("action") in ("installed", "unchanged") for entry in told)
        stale, self._left = left & self._left if cleaned else set(), left
        if stale or len([name for name in names if name.startswith(".incoming-")]) > 1:
            return [f"left behind in slots: {sorted(names)}"]
        return []

    def _memory(self) -> dict[str, Any]:
        known, current, counts = Knowledge.read(self.home), Current.read(self.home), read_counts(self.home)
        return {
            "current": current,
            "counts": counts,
            "refused": known.refused,
            "yanked": known.notices.yanked,
            "notices": known.notices.sequence,
            "keys": self.home.keys_sequence(self.home.settings().repo_id),
            "highest": max(map(Version.parse, known.installed), default=Version.parse("0.0.0")),
        }

    def _speaking(self, kinds: dict[str, str], memory: dict[str, Any]) -> list[str]:
        try:
            self.home.read(CURRENT)
            self.home.read(STATE)
            current = memory["current"]
            if current.speaks is None:
                against = {**memory["refused"], **memory["yanked"]}
                left = [entry.version for entry in current.back if entry.version not in against]
                return [f"the rules speak, though {left[0]} is there"] if left else []
            version = slots.open_current(self.home, self.stream.every_key).version
        except LumenError as error:
            return [f"nothing speaks: {error.found}"]
        return [] if _may_speak(version, kinds) else [f"{version} speaks, {kinds.get(version)}"]

    def _count(self, told: list[dict[str, Any]], memory: dict[str, Any], kinds: dict[str, str]) -> None:
        self.seen.update("expressions" for entry in told if entry["what"] == "spoke")
        pulled = [entry for entry in told if entry["what"] == "pulled"]
        self.seen.update(f"pulls {entry['action']}" for entry in pulled)
        warned = [entry["line"] for entry in told if entry["what"] == "warned"]
        self.seen["probations passed"] += sum("probation passed" in line for line in warned)
        for version in memory["refused"].keys() - self._known["refused"].keys():
            sound = f": {memory['refused'][version]}" if kinds[version] in FINE else ""
            self.seen[f"{kinds[version]}, refused{sound}"] += 1


def under_kill(siege: Siege, generator: random.Random) -> Trial:
    """One life, ended by SIGKILL; then a look at what it left."""
    kill = _random_kill(generator)
    ended, told = siege.live(kill, 2 * _LONGEST)
    losses = [] if ended.how == "killed" else [f"{ended.how}: {ended.value}"]
    losses += siege.check(told)
    crashed = bool(told) and told[-1]["what"] == "crashed"
    way = "crash" if crashed else "state" if kill.state else "act" if kill.act is not None else "time"
    return Trial(_doing(told), tuple(f"{kill}: {loss}" for loss in losses), (way,))


def calm(siege: Siege) -> Trial:
    """After it all, undisturbed: the newest good release speaks and is kept, and everything is whole."""
    losses = [] if siege.stream.stop() else ["the publisher has ended"]
    version, told = siege.stream.publish("good"), []
    for _ in range(_LIVES):
        ended, told = siege.live(None, _LONGEST)
        losses += siege.check(told)
        if ended.how != "done":
            losses.append(f"{ended.how}: {ended.value}")
        current = Current.read(siege.home)
        if current.speaks and (current.speaks.version, current.trial) == (version, None):
            break
    else:
        losses.append(f"{current} at last, and not {version}, kept")
    if not any(entry["what"] == "spoke" and entry["by"] == "M" for entry in told):
        losses.append("the model did not speak")
    losses += _problems(siege)
    siege.seen.update({f"releases {kind}": count for kind, count in siege.stream.counted().items()})
    return Trial("calm", tuple(losses), ("none",))


def _problems(siege: Siege) -> list[str]:
    found = [f"status: {value}" for value in status(siege.home).values() if "problem" in str(value)]
    with sqlite3.connect(siege.home.journal) as journal:
        answer = journal.execute("PRAGMA integrity_check").fetchone()[0]
    if answer != "ok":
        found.append(f"journal: {answer}")
    return found + [f"Hub: {problem}" for problem in problems(siege.root, "siege")]


def _random_kill(generator: random.Random) -> Kill:
    """Mostly within the first second, in which a start and a pull happen; sometimes after a quiet time."""
    after = generator.uniform(0.0, 1.2) if generator.random() < 0.6 else generator.uniform(0.5, _LONGEST)
    chance = generator.random()
    if chance < 0.25:
        return Kill(after=_LONGEST, act=generator.randrange(_ACTS))
    if chance < 0.5:
        return Kill(after=_LONGEST, state=generator.choice((*life.STATES, *updater.STATES)))
    return Kill(after=after)


def _doing(told: list[dict[str, Any]]) -> str:
    """What the process was at when it died."""
    if not told:
        return "killed starting"
    last = {"pulling": "pulling", "crashed": "crashing", "started": "opening"}.get(
        told[-1]["what"], "serving"
    )
    return f"killed {last}"


def _may_speak(version: str, kinds: dict[str, str]) -> bool:
    return kinds.get(version) in FINE + BAD


def _expected(name: str) -> bool:
    return name in NAMES or name == ".notices" or name.startswith(".incoming-")


def _forgotten(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a device must never forget, and did."""
    losses = []
    for name in ("refused", "yanked"):
        if gone := before[name].keys() - now[name].keys():
            losses.append(f"{name} no more: {sorted(gone)}")
    losses += [
        f"{name}: {now[name]} after {before[name]}"
        for name in ("notices", "keys", "highest")
        if now[name] < before[name]
    ]
    one, other = before["counts"], now["counts"]
    if one and other and one.trial == other.trial and other.expressions < one.expressions:
        losses.append(f"probation: {other.expressions} expressions after {one.expressions}")
    return losses
