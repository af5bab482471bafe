"""Kills of a device that judges a new release or goes back from one: a sound one speaks, bad stays bad."""

import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.faults.outcome import Trial
from benchmarks.faults.processes import At, Ended, Kill, forked, random_kill
from benchmarks.faults.siege import LIMITS
from benchmarks.faults.stream import sure_student, unsure_student
from eisv_lumen.artifact import canonical_json
from eisv_lumen.device import slots
from eisv_lumen.device.awareness import Spoken
from eisv_lumen.device.current import CURRENT, Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.journal import Journal
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.probation import Probation, read_counts
from eisv_lumen.device.service import Service, open_voice
from eisv_lumen.device.starts import Starts
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import LumenError
from eisv_lumen.notices import Notices
from eisv_lumen.signing import RELEASE_PURPOSE, SigningKey, TrustedKeys
from eisv_lumen.windows import WINDOW_LENGTH
from tests.release_artifacts import CREATED, REPO_IDS, describe, some_windows

OLD, NEW = "0.1.0", "0.2.0"
_LIMITS = replace(LIMITS, expressions=6, seconds=0.0)
_EXPRESSIONS = 8
"""Said in one life, if nothing kills it: more than a verdict needs."""

_MOST_KILLS = 2
"""In a row; a third one may also fall while the model is opened or asked, which convicts the release."""


@dataclass(frozen=True)
class Case:
    """A device with a new release.

    Attributes:
        name: What is special.
        template: Its home folder, to be copied.
        ends: Version that speaks in the end; None: the rules.
        by_person: Whether a person rolls back, and no service runs.
        acts: What an undisturbed process does, and `seconds` how long it lives (see `Ended`).
        states: Named states that it passes through.
    """

    name: str
    template: Path
    ends: str | None
    by_person: bool = False
    acts: int = 0
    seconds: float = 0.0
    states: tuple[str, ...] = ()


class ServiceWorld:
    """Homes of devices in which a release is about to be judged or left.

    Args:
        folder: For the homes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.key = folder, SigningKey.generate()
        self.sure, self.unsure = sure_student(folder / "sure"), unsure_student(folder / "unsure")
        cases = [
            Case("does well", self._home("well", self.sure), NEW),
            Case("does badly", self._home("badly", self.unsure), OLD),
            Case("does badly, the first one", self._home("first", self.unsure, alone=True), None),
            Case("is yanked", self._home("yanked", self.sure, then=_yanked), OLD),
            Case("lost its starts", self._home("lost", self.sure, then=_lost_starts), OLD),
            Case("is rolled back", self._home("person", self.sure), OLD, by_person=True),
        ]
        self.cases = {case.name: self._measured(case) for case in cases}
        self.points = [(case.name, state) for case in self.cases.values() for state in case.states]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing outlives a trial."""

    def _home(
        self,
        name: str,
        student: Path,
        *,
        alone: bool = False,
        then: Callable[[Home], None] = lambda home: None,
    ) -> Path:
        home = Home(self.folder / "homes" / name)
        home.write("trust.json", TrustedKeys([self.key.public]).to_dict())
        home.write("device.json", {"repo_id": REPO_IDS["student"], "probation": asdict(_LIMITS)})
        if not alone:
            self._install(home, OLD, self.sure)
            assert slots.keep(home, str(Current.read(home).trial))
        self._install(home, NEW, student)
        then(home)
        return home.folder

    def _install(self, home: Home, version: str, student: Path) -> None:
        """What a pull does with a verified download."""
        incoming = slots.incoming_folder(home, "0" * 40)
        for name in slots.FILES:
            (incoming / name).parent.mkdir(exist_ok=True)
            shutil.copy(student / name, incoming / name)
        content = describe(version, REPO_IDS["student"], student).to_bytes()
        signature = canonical_json(self.key.sign(content, RELEASE_PURPOSE))
        for name, data in zip(slots.SIGNED, (content, signature), strict=True):
            (incoming / name).write_bytes(data)
        slot = slots.install(home, incoming)
        home.update(STATE, **Knowledge.read(home).after_install(version, "0.0.0", CREATED))
        slots.switch(home, slot, version, repo_id=REPO_IDS["student"])

    def _measured(self, case: Case) -> Case:
        home = self.home(case)
        clean = run(case, home)
        assert clean.how == "done" and speaking(home) == case.ends, (case.name, clean.value)
        states = tuple(dict.fromkeys(clean.value))
        return replace(case, acts=clean.acts, seconds=clean.seconds, states=states)

    def home(self, case: Case) -> Home:
        """A fresh home; the one of the last trial is gone."""
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        shutil.copytree(case.template, self.folder / "home")
        return Home(self.folder / "home")


def run(case: Case, home: Home, kill: Kill | None = None) -> Ended:
    """One life of the service, or one roll-back; its value are the states that it passed through."""

    def work(at: At) -> Any:
        if case.by_person:
            Updater(home).rollback()
        else:
            _serve(home, at)
        return at.seen

    return forked(work, kill)


def _serve(home: Home, at: At) -> None:
    def told(_: Spoken) -> None:
        said.append(1)
        at(f"spoke {len(said)}")

    def warned(line: str) -> None:
        at("decided")

    said: list[int] = []
    probation = Probation(home, warned)
    probation.start()
    at("started")
    voice = open_voice(home, generator=np.random.default_rng(), warn=warned)
    at("opened")
    windows = np.concatenate([some_windows(1, seed).states[0] for seed in range(3)])
    states = ((2.0 * number, state) for number, state in enumerate(windows[: WINDOW_LENGTH + _EXPRESSIONS]))
    served = Service(home, voice, stride=1, told=told, warn=warned, probation=probation)
    served.run(states, _EXPRESSIONS)
    at("ended")


def speaking(home: Home) -> str | None:
    """Version in the slot that speaks, every byte of it verified; None: the rules.

    Raises:
        LumenError: The slot is damaged, or the file that names it.
    """
    home.read(CURRENT)
    if Current.read(home).speaks is None:
        return None
    return slots.open_current(home, home.trusted()).version


def service_kill_trial(world: ServiceWorld, case: Case, kills: list[Kill]) -> Trial:
    """A device that is killed, perhaps some times in a row; then one that is not."""
    home, losses, how = world.home(case), list[str](), ""
    for number, kill in enumerate(kills, 1):
        before = Knowledge.read(home).refused
        ended = run(case, home, kill)
        # A second roll-back by a person may find nothing that is left to go back to.
        if ended.how not in ("killed", "done") and not (case.by_person and ended.how == "refused"):
            losses.append(f"{ended.how}: {ended.value}")
        losses += _after(home, case, before, number)
        how = ended.how
    outcome = f"{how}, {_standing(home, case)}"
    losses += _finish(home, case)
    way = "state" if kills[0].state else "act" if kills[0].act is not None else "time"
    words = f"{case.name}, {' and '.join(map(str, kills))}"
    return Trial(outcome, tuple(f"{words}: {loss}" for loss in losses), (way,))


def random_kills(generator: random.Random, case: Case) -> list[Kill]:
    """One, or some in a row."""
    count = 1 if case.by_person else generator.randint(1, _MOST_KILLS)
    return [random_kill(generator, case.seconds, max(1, case.acts)) for _ in range(count)]


def _after(home: Home, case: Case, refused: dict[str, str], kills: int) -> list[str]:
    """What must hold while nothing runs."""
    try:
        now, known, counts = speaking(home), Knowledge.read(home), read_counts(home)
    except LumenError as error:
        return [f"nothing speaks: {error.found}"]
    losses = [] if now in (OLD, NEW, case.ends) else [f"{now} speaks"]
    if now != NEW and case.ends == NEW:
        losses.append(f"{NEW} was left without a reason")
    if refused.keys() - known.refused.keys():
        losses.append(f"refused no more: {sorted(refused)}")
    if counts is not None and now == NEW and not case.by_person:
        # What was said is written down first and counted then: a kill in between loses the count of one.
        said = len(Journal(home.journal))
        if not 0 <= said - counts.expressions <= kills:
            losses.append(f"{counts.expressions} expressions counted of {said}")
    return losses


def _standing(home: Home, case: Case) -> str:
    current = Current.read(home)
    if current.speaks is None or current.speaks.version != NEW:
        return "left"
    return "on probation" if current.trial else "kept"


def _finish(home: Home, case: Case) -> list[str]:
    """Served undisturbed, the verdict falls, and stands at the next start."""
    if case.by_person and NEW not in Knowledge.read(home).refused:
        ended = run(case, home)
        if ended.how != "done":
            return [f"rolled back again, {ended.how}: {ended.value}"]
    losses, served = [], replace(case, by_person=False)
    for _ in range(2):
        ended = run(served, home)
        if ended.how != "done":
            losses.append(f"served again, {ended.how}: {ended.value}")
        try:
            now = speaking(home)
        except LumenError as error:
            return [*losses, f"nothing speaks at last: {error.found}"]
        if now != case.ends:
            losses.append(f"{now} speaks at last, and not {case.ends}")
    if (now is None) != (case.ends is None) or (Current.read(home).trial and case.ends == NEW):
        losses.append(f"not settled: {Current.read(home)}")
    known = Knowledge.read(home)
    if case.ends != NEW and known.condemned(NEW) is None:
        losses.append(f"{NEW} was left, and is not remembered as bad")
    return losses


def _yanked(home: Home) -> None:
    notices = replace(
        Notices.empty(REPO_IDS["student"]), sequence=1, created=CREATED, yanked={NEW: "on purpose"}
    )
    home.update(STATE, notices=asdict(notices))


def _lost_starts(home: Home) -> None:
    starts = Starts.read(home)
    assert starts is not None
    replace(starts, crashed=_LIMITS.starts).write(home)
