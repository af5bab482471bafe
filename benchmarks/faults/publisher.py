"""Trials of the publisher: whatever happens to it, devices see the old release or the new one, whole."""

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import HfApi

from benchmarks.faults import stored
from benchmarks.faults.client import hurry, use_endpoint
from benchmarks.faults.outcome import Trial, kinds_of
from benchmarks.faults.processes import At, Ended, Kill, forked
from benchmarks.faults.proxy import ProxyProcess
from benchmarks.faults.schedule import Schedule
from eisv_lumen.signing import SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.local import LocalHub
from hub.publication import publish_release
from hub.retry import Patience
from hub.settings import ReleaseSettings
from tests.release_artifacts import NAMES, rebuild, release_folders, small_student

_VERSIONS_PER_NAMESPACE = 12
_PATIENCE = 2.0
"""Seconds for one request that sends no files; keeps stalled answers short."""

_PAYLOAD = {
    "dataset": "data/windows/train.parquet",
    "base": "model.safetensors",
    "teacher": "adapter_model.safetensors",
    "space": "app.py",
    "student": "model.safetensors",
}


class PublisherWorld:
    """Folders of a release that change from version to version, and a Hub to which they are published.

    Args:
        hub: A running Hub; it is stopped at the end, or the one that has taken its place.
        root: Its folder, which is looked into.
        folder: For the artifacts.
    """

    def __init__(self, hub: LocalHub, root: Path, folder: Path) -> None:
        self.hub, self.root, self.folder = hub, root, folder
        self.key = SigningKey.generate()
        self.trusted = TrustedKeys([self.key.public])
        self.proxy = ProxyProcess(hub.url)
        self.student = small_student(folder / "student")
        self.folders: dict[str, Path] = {}
        self.namespaces = 0
        self._next_namespace()
        self.change(random.Random(0), set(NAMES))
        clean = self.publish()
        assert clean.how == "done", clean.value
        self.requests = self.proxy.seen()[0]
        self.acts, self.seconds, self.states = clean.acts, clean.seconds, clean.value["states"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()
        self.hub.stop()

    @property
    def version(self) -> str:
        """Of the release that is being published."""
        return f"0.{self.minor}.0"

    def change(self, generator: random.Random, roles: set[str]) -> None:
        """Let the folders of these roles be another build, of the next version."""
        if self.minor == _VERSIONS_PER_NAMESPACE:
            self._next_namespace()
        self.minor += 1
        for role in sorted(roles):
            content = generator.randbytes(600)
            text = b"print(" + content.hex().encode() + b")\n"
            rebuild(self.folders[role], {_PAYLOAD[role]: text if role == "space" else content})

    def _next_namespace(self) -> None:
        """Repositories of their own, with a first release in them."""
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)
        self.namespaces += 1
        self.settings = ReleaseSettings(namespace=f"faults-{self.namespaces}", names=NAMES)
        self.folders = release_folders(self.folder / "artifacts", self.student)
        config = f'{{"base_model_name_or_path": "{self.settings.repo_id("base")}"}}'.encode()
        rebuild(self.folders["teacher"], {"adapter_config.json": config})
        self.minor = 1
        first = self.publish()
        assert first.how == "done", first.value

    def publish(
        self, schedule: Schedule | None = None, kill: Kill | None = None, *, patient: bool = True
    ) -> Ended:
        """Publish the folders in a process of its own."""
        self.proxy.load(schedule or {})

        def work(at: At) -> Any:
            use_endpoint(self.proxy.url)
            if not patient:
                hurry()
            api = HfApi(endpoint=self.proxy.url, token=self.hub.token)
            version = Version.parse(self.version)
            published = publish_release(
                api,
                self.settings,
                version,
                self.key,
                self.hub.token,
                self.folders,
                self.folder / "records" / self.settings.namespace / self.version,
                patience=Patience(seconds=_PATIENCE),
                at=at,
            )
            assert published is not None
            return {"changed": published.changed, "commits": published.commits, "states": at.seen}

        return forked(work, kill, patient=patient)

    def repositories(self) -> Mapping[str, stored.Repository]:
        """The release's repositories as they lie on the Hub's disk."""
        return stored.repositories(self.root, self.settings)


def network_trial(world: PublisherWorld, generator: random.Random, schedule: Schedule) -> Trial:
    """A release through a network that fails as scheduled; then through a sound one."""
    before = begin(world, generator)
    ended = world.publish(schedule, patient=False)
    applied = world.proxy.seen()[1]
    losses = half_seen(world, before)
    if ended.how == "done" and not _is_out(world):
        losses.append("said that it is published, and it is not")
    elif ended.how not in ("done", "refused"):
        losses.append(f"{ended.how}: {last(ended)}")
    # A listing with a wrong byte may send the publisher to write what stands already.
    losses += finish(world, before, exact=not any(fault.kind == "wrong" for fault in applied))
    outcome = "published" if ended.how == "done" else ended.how
    return Trial(outcome, tuple(losses), kinds_of(applied))


def kill_trial(world: PublisherWorld, generator: random.Random, kill: Kill) -> Trial:
    """A publisher that is killed; then one that is not."""
    before = begin(world, generator)
    ended = world.publish(kill=kill)
    losses = half_seen(world, before)
    if ended.how not in ("killed", "done"):
        losses.append(f"{ended.how}: {last(ended)}")
    outcome = f"{ended.how}, {'new' if _is_out(world) else 'old'}"
    losses += finish(world, before, exact=True)
    way = "state" if kill.state else "act" if kill.act is not None else "time"
    return Trial(outcome, tuple(f"{kill}: {loss}" for loss in losses), (way,))


def begin(world: PublisherWorld, generator: random.Random) -> dict[str, int]:
    """Change some of the folders; how many commits each repository has."""
    roles = {role for role in NAMES if generator.random() < 0.7} | {"student"}
    world.change(generator, roles)
    return {role: repository.commits() for role, repository in world.repositories().items()}


def half_seen(world: PublisherWorld, before: Mapping[str, int]) -> list[str]:
    """What a device or a user could see and must not, of a release that is under way."""
    losses = stored.half_releases(world.repositories(), world.trusted)
    for role, repository in world.repositories().items():
        if repository.commits() > before[role] + 1:
            losses.append(f"{role}: {repository.commits() - before[role]} commits of one release")
    return losses


def _is_out(world: PublisherWorld) -> bool:
    return f"v{world.version}" in world.repositories()["student"].tags()


def finish(world: PublisherWorld, before: Mapping[str, int], *, exact: bool) -> list[str]:
    """Run again, it finishes; run once more, it does nothing; and the Hub is whole."""
    ended, again = world.publish(), world.publish()
    if ended.how != "done" or again.how != "done":
        return [f"run again: {last(ended if ended.how != 'done' else again)}"]
    losses = stored.half_releases(world.repositories(), world.trusted)
    if not _is_out(world):
        losses.append("run again, it is not out")
    if again.value["changed"]:
        losses.append("run once more, it wrote again")
    for role, repository in world.repositories().items():
        made = repository.commits() - before[role]
        if exact and made > 1:
            losses.append(f"{role}: {made} commits of one release")
        if exact and repository.empty_commits():
            losses.append(f"{role}: a commit that changes nothing")
    return losses + stored.damage(world.root, world.settings.namespace)


def last(ended: Ended) -> str:
    """The last line of what a process said."""
    return str(ended.value).strip().splitlines()[-1][:300] if ended.value else ended.how
