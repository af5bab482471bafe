"""Trials of the device's updater: whatever happens to it, the old or the new release speaks, whole."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from huggingface_hub import HfApi

from benchmarks.faults.client import hurry, use_endpoint
from benchmarks.faults.outcome import Trial, kinds_of
from benchmarks.faults.processes import At, Ended, Kill, forked
from benchmarks.faults.proxy import ProxyProcess
from benchmarks.faults.schedule import Schedule
from benchmarks.faults.selftest import forked_selftest
from eisv_lumen.device import slots, updater
from eisv_lumen.device.current import NAMES, Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import LumenError
from eisv_lumen.signing import SigningKey, TrustedKeys
from hub.local import LocalHub
from tests.release_artifacts import Branch, Repository, small_student

VERSIONS = ("0.1.0", "0.2.0", "0.3.0")
NEW = VERSIONS[-1]


@dataclass(frozen=True)
class Case:
    """A device before a pull that is to bring it `NEW`.

    Attributes:
        name: What is special.
        template: Its home folder, to be copied.
        old: Version that speaks; None where nothing is installed.
        between: Version it goes back to while it has no better one; the old one has been yanked.
        requests: How many requests an undisturbed pull takes, and `acts` and `seconds` (see `Ended`).
        states: Named states that one passes through.
    """

    name: str
    template: Path
    old: str | None
    between: str | None = None
    requests: int = 0
    acts: int = 0
    seconds: float = 0.0
    states: tuple[str, ...] = ()

    def allows(self, version: str | None, misread: bool = False) -> bool:
        """Whether a version may speak while the pull is under way, or after it has failed.

        Args:
            version: The version.
            misread: A byte of the listing, which nobody signs, was another. That can hide the newest release;
                then a sound one before it may be taken for the newest, but never one older than the old.
        """
        if version in (self.old, NEW) or (self.between is not None and version == self.between):
            return True
        return misread and version in VERSIONS and version > (self.old or "")


class DeviceWorld:
    """Repositories of students, and homes of devices that are about to pull from them.

    In one a key has been added and the release that speaks was yanked; the next is signed by the new key.

    Args:
        hub: A running Hub.
        folder: For the homes.

    Attributes:
        warm: Whether the self-test runs in a forked process, and not in a fresh one as on a device.
    """

    def __init__(self, hub: LocalHub, folder: Path) -> None:
        self.hub, self.folder, self.warm = hub, folder, False
        self.keys = [SigningKey.generate(), SigningKey.generate()]
        self.trusted = TrustedKeys([key.public for key in self.keys])
        self.proxy = ProxyProcess(hub.url)
        use_endpoint(hub.url)
        self.students = [
            small_student(folder / "students" / str(seed), seed) for seed in range(len(VERSIONS))
        ]
        templates = self._releases()
        cases = [
            Case("first", templates[0], None),
            Case("second", templates[1], "0.1.0"),
            Case("third", templates[2], "0.2.0"),
            Case("yanked", self._yanked(), "0.2.0", between="0.1.0"),
        ]
        self.cases = {case.name: self._measured(case) for case in cases}
        self.points = [(case.name, state) for case in self.cases.values() for state in case.states]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()

    def _releases(self) -> list[Path]:
        """A repository with all versions; homes with none, one and two of them installed."""
        repository = self._repository("faults/eisv-lumen-student")
        homes = [self._new_home("none", repository)]
        for version, student in zip(VERSIONS, self.students, strict=True):
            repository.publish(version, student)
            if version != NEW:
                homes.append(self._pulled(homes[-1], version))
        return homes

    def _yanked(self) -> Path:
        repository = self._repository("faults/eisv-lumen-yanked")
        home = self._new_home("yanked", repository)
        for version, student in zip(VERSIONS[:2], self.students, strict=False):
            repository.publish(version, student)
            home = self._pulled(home, f"yanked-{version}")
        branch = Branch(repository)
        branch.rotate(self.keys, self.keys[0])
        branch.say(yanked={"0.2.0": "on purpose"}, key=self.keys[1])
        repository.publish(NEW, self.students[2], key=self.keys[1])
        return home

    def _repository(self, repo_id: str) -> Repository:
        return Repository(HfApi(endpoint=self.hub.url, token=self.hub.token), repo_id, self.keys[0])

    def _new_home(self, name: str, repository: Repository) -> Path:
        home = Home(self.folder / "homes" / name)
        home.write("trust.json", TrustedKeys([self.keys[0].public]).to_dict())
        home.write("device.json", {"repo_id": repository.repo_id, "hub": self.proxy.url})
        return home.folder

    def _pulled(self, home: Path, name: str) -> Path:
        """A copy of a home, after a pull whose release has been settled on."""
        copy = home.with_name(name)
        shutil.copytree(home, copy)
        ended = self.pull(Home(copy))
        assert ended.how == "done" and ended.value["action"] == "installed", ended.value
        slots.keep(Home(copy), Current.read(Home(copy)).trial or "")
        return copy

    def _measured(self, case: Case) -> Case:
        """The case with what an undisturbed pull takes."""
        clean = self.pull(self.home(case))
        assert clean.how == "done", clean.value
        return replace(
            case,
            requests=self.proxy.seen()[0],
            acts=clean.acts,
            seconds=clean.seconds,
            states=tuple(dict.fromkeys(clean.value["states"])),
        )

    def home(self, case: Case) -> Home:
        """A fresh home; the one of the last trial is gone."""
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        shutil.copytree(case.template, self.folder / "home")
        return Home(self.folder / "home")

    def pull(
        self, home: Home, schedule: Schedule | None = None, kill: Kill | None = None, *, patient: bool = True
    ) -> Ended:
        """One pull in a process of its own."""
        self.proxy.load(schedule or {})

        def work(at: At) -> Any:
            if not patient:
                hurry()
            if self.warm:
                updater.run_selftest = forked_selftest
            outcome = Updater(home, at=at).pull()
            return {"action": outcome.action, "version": outcome.version, "states": at.seen}

        return forked(work, kill, patient=patient)

    def speaking(self, home: Home) -> str | None:
        """Version in the slot that speaks, every byte of it verified; None when nothing is installed.

        Raises:
            LumenError: The slot that is to speak is damaged.
        """
        return None if Current.read(home).speaks is None else slots.open_current(home, self.trusted).version


def network_trial(world: DeviceWorld, case: Case, schedule: Schedule) -> Trial:
    """A pull through a network that fails as scheduled; then one through a sound network."""
    home = world.home(case)
    ended = world.pull(home, schedule, patient=False)
    applied = world.proxy.seen()[1]
    kinds = kinds_of(applied)
    misread = any(fault.kind == "wrong" and fault.request.endswith("/refs") for fault in applied)
    losses, now = _spoken(world, home, case, misread)
    outcome = ended.how
    if ended.how == "done":
        outcome = ended.value["action"]
        if ended.value["version"] != now:
            losses.append(f"said {ended.value['version']} speaks, but {now} does")
        if outcome == "installed" and now != NEW and not misread:
            losses.append(f"installed {now}")
        if not kinds and now != NEW:
            losses.append(f"{outcome} on a sound network")
    elif ended.how != "refused":
        losses.append(f"{ended.how}: {_last(ended)}")
    losses += _finish(world, home)
    return Trial(outcome, tuple(f"{case.name}: {loss}" for loss in losses), kinds)


def kill_trial(world: DeviceWorld, case: Case, kill: Kill) -> Trial:
    """A pull that is killed; then one that is not."""
    home = world.home(case)
    ended = world.pull(home, kill=kill)
    losses, now = _spoken(world, home, case)
    if ended.how not in ("killed", "done"):
        losses.append(f"{ended.how}: {_last(ended)}")
    outcome = f"{ended.how}, {'new' if now == NEW else 'old'}"
    losses += _finish(world, home)
    way = "state" if kill.state else "act" if kill.act is not None else "time"
    return Trial(outcome, tuple(f"{case.name}, {kill}: {loss}" for loss in losses), (way,))


def _spoken(
    world: DeviceWorld, home: Home, case: Case, misread: bool = False
) -> tuple[list[str], str | None]:
    try:
        now = world.speaking(home)
    except LumenError as error:
        return [f"nothing speaks: {error.found}"], None
    return ([] if case.allows(now, misread) else [f"{now} speaks instead of {case.old} or {NEW}"]), now


def _finish(world: DeviceWorld, home: Home) -> list[str]:
    """A pull through a sound network must bring the new release, and leave nothing that fills a disk."""
    ended = world.pull(home)
    if ended.how != "done":
        return [f"the next pull {ended.how}: {_last(ended)}"]
    try:
        now = world.speaking(home)
    except LumenError as error:
        return [f"nothing speaks after the next pull: {error.found}"]
    found = [] if now == NEW else [f"{now} speaks after the next pull ({ended.value['action']})"]
    left = [path for path in home.slots.iterdir() if path.name not in NAMES]
    if sum(file.stat().st_size for path in left for file in (path, *path.rglob("*")) if file.is_file()):
        found.append(f"left behind: {[path.name for path in left]}")
    return found


def _last(ended: Ended) -> str:
    return str(ended.value).strip().splitlines()[-1][:300] if ended.value else "no words"
