"""Publishing: one commit per repository, read back and compared, and only then the tags, the student's last.

Every step looks first at what the Hub has, so a publisher that was killed anywhere and runs again finishes
without duplicate or empty commits, and one that has nothing to do changes nothing. A step that failed because
the Hub did not answer, or because somebody else wrote at the same time, looks again in the same way.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from eisv_lumen import artifact
from eisv_lumen.errors import VerificationError
from eisv_lumen.hub_client import HubConflictError, HubUnreachableError
from eisv_lumen.release import Release
from eisv_lumen.signing import SigningKey
from hub.contents import LocalFile
from hub.manifest import ReleaseManifest, SignedRelease
from hub.openssf import BUNDLE, ModelSigner
from hub.parallel import Workers
from hub.plan import Planner, RepositoryPlan
from hub.read_back import ReadBack
from hub.remote import commit_title
from hub.sending import additions
from hub.settings import ReleaseSettings

ORDER = ("dataset", "base", "teacher", "space", "student")
"""In which repositories are written; the student's names the commits of the others."""

SLOWEST = 50_000
"""Bytes per second below which an upload counts as stalled."""

STATES = (
    "planned",
    *(f"{step} {role}" for role in ORDER for step in ("created", "committed")),
    *(f"compared {role}" for role in ORDER),
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
        self.read_back = ReadBack(self.reader, workers, at)
        self.changed = False
        self._ahead: dict[str, dict[str, CommitOperationAdd]] = {}

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
        others = order[:-1]
        done, commits = dict(plans), dict[str, str]()

        def write(role: str) -> None:
            if role == "student":
                done[role] = self._send_ahead(plans[role])
            else:
                done[role], commits[role] = self._land(plans[role], self._with_bundle)

        self.workers.each(write, order)
        others_compared = self.read_back.begin([(done[role], commits[role]) for role in others])
        signed: list[SignedRelease] = []

        def complete(plan: RepositoryPlan) -> RepositoryPlan:
            plan = self._with_bundle(plan)
            signed[:] = [self.manifest.of({**done, "student": plan}, commits, folders, manifests)]
            return plan.with_files(signed[0].files)

        done["student"], commits["student"] = self._land(done["student"], complete)
        student_compared = self.read_back.begin([(done["student"], commits["student"])])
        others_compared()
        student_compared()
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
                    self.at(f"committed {plan.role}")
                return plan, head
            try:
                commit = self._commit(plan)
            except (HubUnreachableError, HubConflictError) as error:
                # It may have arrived all the same: look before sending it again.
                backoff.wait(error)
            else:
                self.at(f"committed {plan.role}")
                return plan, commit
            plan = self._again(plan)

    def _send_ahead(self, plan: RepositoryPlan) -> RepositoryPlan:
        """Upload the large files of a repository whose commit has to wait; they are no part of it yet."""
        plan = self._existing(plan)
        difference = plan.difference
        if plan.tagged or not (difference.added or difference.changed):
            return plan
        names = [*difference.added, *difference.changed]
        sent = additions(plan.files, names)
        self.ask(
            f"upload files to {plan.repo_id}",
            lambda: self.api.preupload_lfs_files(plan.repo_id, sent, repo_type=plan.repo_type),
            extra_seconds=_size(plan, names) / SLOWEST,
        )
        self._ahead[plan.role] = dict(zip(names, sent, strict=True))
        return plan

    def _again(self, plan: RepositoryPlan) -> RepositoryPlan:
        """The plan against what the Hub has by now."""
        return self.planner.repository(plan.role, plan.repo_id, plan.own)

    def _commit(self, plan: RepositoryPlan) -> str:
        difference = plan.difference
        sent = [*difference.added, *difference.changed]
        # What was sent ahead serves one attempt: afterwards the branch may treat those files otherwise.
        ahead = self._ahead.pop(plan.role, {})
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            ahead[name] for name in sent if name in ahead
        ]
        operations += additions(plan.files, (name for name in sent if name not in ahead))
        operations += [CommitOperationDelete(name, is_folder=False) for name in difference.deleted]
        size = _size(plan, sent)
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


def _size(plan: RepositoryPlan, names: Iterable[str]) -> int:
    return sum(plan.files[name].size for name in names)
