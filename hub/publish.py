"""Publishing: one commit per repository, read back and compared, and only then the tags, the student's last.

Every step looks first at what the Hub has, so a publisher that was killed anywhere and runs again finishes
without duplicate or empty commits, and one that has nothing to do changes nothing. A step that failed because
the Hub did not answer, or because somebody else wrote at the same time, looks again in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from eisv_lumen import artifact
from eisv_lumen.errors import VerificationError
from eisv_lumen.hub_client import HubConflictError, HubError, HubUnreachableError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import Release
from eisv_lumen.signing import SigningKey
from hub.contents import LocalFile, compare
from hub.manifest import ReleaseManifest, SignedRelease
from hub.openssf import BUNDLE, ModelSigner
from hub.parallel import Workers
from hub.plan import Planner, RepositoryPlan
from hub.remote import commit_title
from hub.settings import ReleaseSettings

ORDER = ("dataset", "base", "teacher", "space", "student")
"""In which repositories are written; the student's names the commits of the others."""

SLOWEST = 50_000
"""Bytes per second below which an upload counts as stalled."""

STATES = (
    "planned",
    *(f"created {role}" for role in ORDER),
    *(f"{step} {role}" for role in ORDER for step in ("committed", "compared")),
    "announced",
    *(f"tagged {role}" for role in ORDER),
)
"""Moments between which a publisher may be killed: in order with one worker, and each role's in any case.
Those of steps that need not be done are left out."""


@dataclass(frozen=True)
class Published:
    """What stands on the Hub after publishing.

    Attributes:
        manifest: The release manifest.
        content: Its canonical bytes, and `signature` their signature document.
        commits: Commit per role, which the tag of the version points to.
        changed: Whether this run wrote anything.
    """

    manifest: Release
    content: bytes
    signature: bytes
    commits: dict[str, str]
    changed: bool


class Publisher:
    """Publishes one release.

    Args:
        planner: Reads the Hub and compares.
        settings: Names and conditions of the release.
        keys: The signing keys; the first one's name is recorded.
        workers: Write several repositories at a time, the student's alone and last.
        models: Makes OpenSSF bundles for the models, where wanted.
        announce: Called before the first tag of a version that is new; returns whether it wrote anything.
        report: Told of each step in one line.
        at: Told of each state reached, see `STATES`.
    """

    def __init__(
        self,
        planner: Planner,
        settings: ReleaseSettings,
        keys: tuple[SigningKey, ...],
        workers: Workers,
        *,
        models: ModelSigner | None = None,
        announce: Callable[[], bool] = lambda: False,
        report: Callable[[str], None] = print,
        at: Callable[[str], None] = lambda state: None,
    ) -> None:
        self.planner, self.settings, self.models = planner, settings, models
        self.announce, self.report, self.at, self.workers = announce, report, at, workers
        self.reader = planner.reader
        self.api, self.ask, self.version = self.reader.api, self.reader.ask, planner.version
        self.manifest = ReleaseManifest(self.reader, settings, self.version, keys)
        self.changed = False

    def publish(
        self,
        plans: Mapping[str, RepositoryPlan],
        folders: Mapping[str, Path],
        manifests: Mapping[str, artifact.Manifest],
    ) -> Published:
        """Carry out the plans.

        Raises:
            HubError: The Hub refused, cannot be reached, or holds something else than what was sent.
            VerificationError: The version exists with other content.
        """
        self.at("planned")
        order = [role for role in ORDER if role in plans]
        existing = self.workers.each(self._existing, [plans[role] for role in order])
        plans = {plan.role: plan for plan in existing}
        others = order[:-1]
        landed = self.workers.each(lambda role: self._land(plans[role], self._with_bundle), others)
        done = {role: plan for role, (plan, _) in zip(others, landed, strict=True)}
        commits = {role: commit for role, (_, commit) in zip(others, landed, strict=True)}
        signed: list[SignedRelease] = []

        def complete(plan: RepositoryPlan) -> RepositoryPlan:
            plan = self._with_bundle(plan)
            signed[:] = [self.manifest.of({**done, "student": plan}, commits, folders, manifests)]
            return plan.with_files(signed[0].files)

        done["student"], commits["student"] = self._land(plans["student"], complete)
        if not done["student"].tagged:
            self.changed = self.announce() or self.changed
        self.at("announced")
        self.workers.each(lambda role: self._tag(done[role], commits[role]), others)
        self._tag(done["student"], commits["student"])
        return Published(signed[0].manifest, signed[0].content, signed[0].signature, commits, self.changed)

    def _land(
        self, plan: RepositoryPlan, complete: Callable[[RepositoryPlan], RepositoryPlan]
    ) -> tuple[RepositoryPlan, str]:
        """Bring a repository to what the release wants; returns what was published, and its commit."""
        backoff = self.ask.backoff()
        while True:
            plan = complete(self._existing(plan))
            head = plan.tagged or plan.remote.head
            if head is not None and (plan.tagged or not plan.difference):
                if not plan.tagged:
                    self.report(f"{plan.role} {plan.repo_id}: as it should be already, {head[:12]}")
                self._landed(plan, head)
                return plan, head
            try:
                commit = self._commit(plan)
            except (HubUnreachableError, HubConflictError) as error:
                # It may have arrived all the same: look before sending it again.
                backoff.wait(error)
            else:
                self._landed(plan, commit)
                return plan, commit
            plan = self._again(plan)

    def _landed(self, plan: RepositoryPlan, commit: str) -> None:
        if plan.tagged:
            return
        self.at(f"committed {plan.role}")
        self._read_back(plan, commit)
        self.at(f"compared {plan.role}")

    def _again(self, plan: RepositoryPlan) -> RepositoryPlan:
        """The plan against what the Hub has by now."""
        return self.planner.repository(plan.role, plan.repo_id, plan.own)

    def _commit(self, plan: RepositoryPlan) -> str:
        difference = plan.difference
        sent = [*difference.added, *difference.changed]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, plan.files[name].source) for name in sent
        ]
        operations += [CommitOperationDelete(name, is_folder=False) for name in difference.deleted]
        size = sum(plan.files[name].size for name in sent)
        self.report(f"{plan.role} {plan.repo_id}: {difference}, {size / 1e6:.1f} MB")
        for note in plan.notes:
            self.report(f"  {note}")
        info = self.ask.once(
            f"commit to {plan.repo_id}",
            lambda: self.api.create_commit(
                plan.repo_id,
                operations,
                commit_message=commit_title(self.version),
                repo_type=plan.repo_type,
                parent_commit=plan.remote.head,
            ),
            extra_seconds=size / SLOWEST,
        )
        self.changed = True
        return str(info.oid)

    def _existing(self, plan: RepositoryPlan) -> RepositoryPlan:
        """The plan for a repository that exists: it is made where it does not."""
        if not plan.remote.exists:
            try:
                self.ask(
                    f"create {plan.repo_id}",
                    lambda: self.api.create_repo(
                        plan.repo_id,
                        repo_type=plan.repo_type,
                        private=self.settings.private,
                        space_sdk="gradio" if plan.repo_type == "space" else None,
                    ),
                )
                plan = self.planner.fresh(plan)
            except HubConflictError:  # by somebody else meanwhile, or by a request whose answer was lost
                plan = self._again(plan)
            self.changed = True
            self.at(f"created {plan.role}")
        return plan

    def _with_bundle(self, plan: RepositoryPlan) -> RepositoryPlan:
        """A model with its OpenSSF bundle: the one it has where that fits, else a new one where wanted."""
        revision = plan.tagged or plan.remote.head
        found = None
        if plan.repo_type == "model" and BUNDLE in plan.tree and revision and (plan.tagged or self.models):
            found = self.reader.file(plan.repo_id, plan.repo_type, revision, BUNDLE)
        if plan.tagged:
            return plan.with_files({BUNDLE: LocalFile.of(found)}) if found else plan
        if self.models is None or plan.repo_type != "model":
            return plan
        name = plan.repo_id.rpartition("/")[2]
        if found is None or not self.models.fits(name, plan.files, found):
            found = self.models.sign(name, plan.files)
        return plan.with_files({BUNDLE: LocalFile.of(found)})

    def _read_back(self, plan: RepositoryPlan, commit: str) -> None:
        """Compare every hash that the Hub lists, and download the manifests, before anything is tagged."""
        stands = self.reader.tree(plan.repo_id, plan.repo_type, commit)
        wrong = compare(
            plan.files, {name: content for name, content in stands.items() if name not in plan.kept}
        ).lines()
        for name in (artifact.MANIFEST, STUDENT.release, STUDENT.signature):
            if name in plan.files:
                read = self.reader.file(plan.repo_id, plan.repo_type, commit, name)
                if read != plan.files[name].read():
                    wrong.append(f"~ {name} as downloaded")
        if wrong:
            raise HubError(
                found=f"{plan.repo_id} at {commit[:12]} differs from what was sent: {', '.join(wrong[:3])}",
                expected="the very files that were committed",
                next="run the same command again; nothing has been tagged",
            )

    def _tag(self, plan: RepositoryPlan, commit: str) -> None:
        tag = self.version.tag
        if plan.tagged:
            return
        try:
            self.ask(
                f"tag {plan.repo_id}",
                lambda: self.api.create_tag(plan.repo_id, tag=tag, revision=commit, repo_type=plan.repo_type),
            )
        except HubConflictError:
            # A request whose answer was lost may have succeeded; another commit under the tag is a conflict.
            if self.reader.resolve(plan.repo_id, plan.repo_type, tag) != commit:
                raise VerificationError(
                    found=f"{tag} of {plan.repo_id} at another commit, set by somebody else meanwhile",
                    expected=f"no tag, or one at {commit[:12]}",
                    next="publish under a higher --version; a tag is never moved",
                ) from None
        self.changed = True
        self.report(f"{plan.role} {plan.repo_id}: tagged {tag} at {commit[:12]}")
        self.at(f"tagged {plan.role}")
