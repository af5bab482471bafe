"""Kills of yank, roll-out and rotation: devices see the notices as they were or as they are to be."""

import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from huggingface_hub import HfApi

from benchmarks.faults import stored
from benchmarks.faults.client import use_endpoint
from benchmarks.faults.outcome import Trial
from benchmarks.faults.processes import At, Ended, Kill, forked
from benchmarks.faults.selftest import forked_selftest
from eisv_lumen.device import updater
from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import LumenError
from eisv_lumen.notices import BRANCH, NOTICES, SIGNATURE_SUFFIX, KeySet, Notices, keys_path
from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted
from hub import rollout, rotate, yank
from hub.local import LocalHub
from tests.release_artifacts import NAMES, Repository, recipe, small_student

COMMANDS: dict[str, Callable[[], None]] = {"yank": yank.main, "rollout": rollout.main, "rotate": rotate.main}
VERSIONS = ("0.1.0", "0.2.0")
_TRIALS_PER_REPOSITORY = 10


@dataclass(frozen=True)
class Said:
    """What the notices branch says.

    Attributes:
        yanked: Reason by version.
        rollout: Share by version, where it is not 1.
        keys: Ids of the keys that count, the first one first.
        changes: How many commits have changed it.
        rotations: How many of them changed the keys.
    """

    yanked: dict[str, str] = field(default_factory=dict)
    rollout: dict[str, float] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    changes: int = 0
    rotations: int = 0


class NoticeWorld:
    """A repository with two releases, commands that change its notices, and a device that follows.

    Args:
        hub: A running Hub.
        root: Its folder, which is looked into.
        folder: For keys, home and students.
    """

    def __init__(self, hub: LocalHub, root: Path, folder: Path) -> None:
        self.hub, self.root, self.folder = hub, root, folder
        folder.mkdir(parents=True)
        use_endpoint(hub.url)
        self.key = SigningKey.generate()
        self.key.write(folder / "key.pem")
        (folder / "token").write_text(hub.token)
        write_trusted(folder / "trust.json", TrustedKeys([self.key.public]))
        self.students = [small_student(folder / "students" / version) for version in VERSIONS]
        self.repositories = 0
        self.points = [(name, state) for name in COMMANDS for state in self._measured(name)]
        self.trials = _TRIALS_PER_REPOSITORY

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing outlives a trial."""

    def renew(self) -> None:
        """A repository about which nothing has been said, and a device that has its releases."""
        self.repositories += 1
        namespace = f"notices-{self.repositories}"
        self.recipe = recipe(self.folder, namespace=namespace)
        self.repo_id = f"{namespace}/{NAMES['student']}"
        api = HfApi(endpoint=self.hub.url, token=self.hub.token)
        self.repository = Repository(api, self.repo_id, self.key)
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        self.home = Home(self.folder / "home")
        self.home.write("trust.json", TrustedKeys([self.key.public]).to_dict())
        self.home.write("device.json", {"repo_id": self.repo_id, "hub": self.hub.url})
        for version, student in zip(VERSIONS, self.students, strict=True):
            self.repository.publish(version, student)
            assert self.pull().how == "done"
        self.said, self.trials = Said(keys=(self.key.key_id,)), 0

    def _measured(self, name: str) -> list[str]:
        """States that a command passes through where nothing has been said; its acts and time are kept."""
        self.renew()
        arguments, _ = self.change(name, random.Random(0))
        clean = self.run(name, arguments)
        assert clean.how == "done", clean.value
        self.seconds, self.acts = clean.seconds, clean.acts
        return list(dict.fromkeys(clean.value))

    def change(self, name: str, generator: random.Random) -> tuple[list[str], Said]:
        """Arguments of a command that changes something, and what the branch says after it."""
        version = generator.choice(VERSIONS)
        after = replace(self.said, changes=self.said.changes + 1)
        if name == "yank":
            yanked = {other: why for other, why in after.yanked.items() if other != version}
            if version in after.yanked:
                return [version, "--undo"], replace(after, yanked=yanked)
            return [version, "--reason", "on purpose"], replace(
                after, yanked={**yanked, version: "on purpose"}
            )
        if name == "rollout":
            shares = {0.0, 0.25, 0.75, 1.0} - {after.rollout.get(version, 1.0)}
            share = generator.choice(sorted(shares))
            others = {other: part for other, part in after.rollout.items() if other != version}
            shares_after = others if share == 1 else {**others, version: share}
            return [version, str(share)], replace(after, rollout=shares_after)
        after = replace(after, rotations=after.rotations + 1)
        key, path = SigningKey.generate(), self.folder / f"{self.repo_id.split('/')[0]}-{after.rotations}.pem"
        key.write(path)
        revoked = [part for key_id in after.keys[1:] for part in ("--revoke", key_id)]
        return ["--new-key", str(path), *revoked], replace(after, keys=(after.keys[0], key.key_id))

    def run(self, name: str, arguments: list[str], kill: Kill | None = None) -> Ended:
        """Run a command in a process of its own; its value are the states that it passed through."""
        options = {
            "--recipe": self.recipe,
            "--endpoint": self.hub.url,
            "--token-file": self.folder / "token",
            "--key": self.folder / "key.pem",
            "--trust": self.folder / "trust.json",
        }
        given = [str(part) for option in options.items() for part in option]

        def work(at: At) -> Any:
            _tell_of_requests(at)
            sys.argv = [name, *arguments, *given, "--yes"]
            COMMANDS[name]()
            return at.seen

        return forked(work, kill)

    def pull(self) -> Ended:
        """One pull of the device in a process of its own."""

        def work(at: At) -> Any:
            updater.run_selftest = forked_selftest
            outcome = Updater(self.home).pull()
            return {"action": outcome.action, "problem": outcome.problem}

        return forked(work)

    def on_disk(self) -> Said:
        """What the branch says, every signature checked.

        Raises:
            VerificationError: A document is not signed as it should be.
            KeyError: One is missing.
        """
        namespace, name = self.repo_id.split("/")
        found = stored.Repository(self.root / "repositories" / "models" / namespace / f"{name}.git")
        head, trusted = found.branch(BRANCH), TrustedKeys([self.key.public])
        files = found.files(head) if head else {}
        number = 0
        while keys_path(number + 1) in files:
            number += 1
            pair = files[keys_path(number)], files[keys_path(number) + SIGNATURE_SUFFIX]
            trusted = KeySet.verify(*pair, trusted, self.repo_id, number).trusted
        notices = Notices.empty(self.repo_id)
        if number or NOTICES in files:
            pair = files[NOTICES], files[NOTICES + SIGNATURE_SUFFIX]
            notices = Notices.verify(*pair, trusted, self.repo_id)
        keys = tuple(sorted(trusted.key_ids, key=self.key.key_id.__ne__))
        return Said(notices.yanked, notices.rollout, keys, notices.sequence, number)


def notice_kill_trial(
    world: NoticeWorld, generator: random.Random, point: tuple[str, str] | None = None
) -> Trial:
    """A command that is killed; then a device that looks, and the command again."""
    # What begins the branch is passed only where there is none yet.
    if world.trials == _TRIALS_PER_REPOSITORY or (point and "branch" in point[1]):
        world.renew()
    world.trials += 1
    if point is None:
        name = generator.choice(list(COMMANDS))
        after, act = generator.random() * world.seconds, generator.randrange(world.acts)
        kill = Kill(after=after) if generator.random() < 0.75 else Kill(act=act)
    else:
        name, kill = point[0], Kill(state=point[1])
    before = world.said
    arguments, wanted = world.change(name, generator)
    ended = world.run(name, arguments, kill)
    losses = [] if ended.how in ("killed", "done") else [f"{ended.how}: {ended.value}"]
    now, found = _seen(world, (before, wanted))
    losses += found
    for _ in range(2):
        again = world.run(name, arguments)
        if again.how != "done":
            losses.append(f"run again, {again.how}: {again.value}")
    world.said, found = _seen(world, (wanted,))
    losses += found + stored.damage(world.root, world.repo_id.split("/")[0])
    way = "state" if kill.state else "act" if kill.act is not None else "time"
    words = f"{name} {' '.join(arguments)}, {kill}"
    outcome = f"{ended.how}, {'new' if now == wanted else 'old'}"
    return Trial(outcome, tuple(f"{words}: {loss}" for loss in losses), (way,))


def _seen(world: NoticeWorld, allowed: tuple[Said, Said] | tuple[Said]) -> tuple[Said, list[str]]:
    """What the branch says; and what is wrong with it, or with what the device makes of it."""
    try:
        said = world.on_disk()
        ended = world.pull()
        # The Hub may carry out a request only after the process that sent it is dead.
        both = said, world.on_disk()
    except (LumenError, KeyError) as error:
        return allowed[-1], [f"half a change: {type(error).__name__} {error}"]
    losses = [f"{said} instead of {' or '.join(map(str, allowed))}" for said in both if said not in allowed]
    if ended.how not in ("done", "refused") or (ended.how == "done" and ended.value["problem"]):
        losses.append(f"the device {ended.how}: {ended.value}")
    wrong = [_disagreement(world.home, said) for said in both]
    return both[1], losses + (wrong[0] if all(wrong) else [])


def _disagreement(home: Home, said: Said) -> list[str]:
    """What of a branch the device has not made its own."""
    known, speaks = Knowledge.read(home), Current.read(home).speaks
    notices, trusts = known.notices, set(home.trusted().key_ids)
    losses = []
    if (notices.yanked, notices.rollout, trusts) != (said.yanked, said.rollout, set(said.keys)):
        losses.append(f"the device knows {notices} and trusts {trusts}, though {said} stands")
    if speaks is not None and speaks.version in said.yanked:
        losses.append(f"{speaks.version} speaks, which is yanked")
    free = set(VERSIONS) - set(said.yanked) - set(said.rollout)
    if speaks is None and free:
        losses.append(f"nothing speaks, though {sorted(free)} may")
    return losses


def _tell_of_requests(at: At) -> None:
    """Let every request of this process be two states: about to be sent, and answered."""
    send = requests.Session.send

    def told(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> Any:
        name = f"{request.method} {_subject(str(request.url))}"
        at(f"{name} asked")
        response = send(session, request, **options)
        at(f"{name} answered")
        return response

    requests.Session.send = told  # type: ignore[method-assign,assignment]


def _subject(url: str) -> str:
    """Such as `commit` of /api/models/SOMEONE/NAME/commit/REVISION."""
    parts = urlsplit(url).path.strip("/").split("/")
    if "resolve" in parts:
        return "/".join(parts[parts.index("resolve") + 2 :])
    return parts[4] if len(parts) > 4 else parts[-1]
