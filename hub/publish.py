"""Publishing: one commit per repository, read back and compared, and only then the tags, the student's last.

Every step looks first at what the Hub has, so a publisher that was killed anywhere and runs again finishes
without duplicate or empty commits, and one that has nothing to do changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from eisv_lumen import artifact, release
from eisv_lumen.artifact import SCHEMA_VERSION, canonical_json
from eisv_lumen.errors import VerificationError
from eisv_lumen.hub_client import HubConflictError, HubError, hub_errors
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import Compatibility, Release, RepositoryRecord
from eisv_lumen.signing import RELEASE_PURPOSE, SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.onnx_opset import opset_of
from hub.plan import Difference, RepositoryPlan, compare, folder_files, local_content, read_tree, resolve_tag
from hub.settings import ReleaseSettings

ORDER = ("dataset", "base", "teacher", "space", "student")
"""In which repositories are written; the student's names the commits of the others."""

OLDEST_PACKAGE = "0.1.0"
"""First version of eisv-lumen that reads this release format."""


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
        api: Client of the Hub.
        settings: Names and conditions of the release.
        version: Its version.
        key: The signing key.
        report: Told of each step in one line.
    """

    def __init__(
        self,
        api: HfApi,
        settings: ReleaseSettings,
        version: Version,
        key: SigningKey,
        report: Callable[[str], None] = print,
    ) -> None:
        self.api, self.settings, self.version, self.key, self.report = api, settings, version, key, report
        self.changed = False

    def publish(
        self, plans: Mapping[str, RepositoryPlan], manifests: Mapping[str, artifact.Manifest]
    ) -> Published:
        """Carry out the plans.

        Raises:
            HubError: The Hub refused, cannot be reached, or holds something else than what was sent.
            VerificationError: The version exists with other content.
        """
        commits: dict[str, str] = {}
        for role in ORDER[:-1]:
            commits[role] = self._commit_folder(plans[role])
        manifest, content, signature = self._release(plans, manifests, commits)
        commits["student"] = self._commit_student(plans["student"], content, signature)
        for role in ORDER:
            self._tag(plans[role], commits[role])
        return Published(manifest, content, signature, commits, self.changed)

    def _commit_folder(self, plan: RepositoryPlan) -> str:
        if plan.tagged:
            return plan.tagged
        files = folder_files(plan.folder)
        commit = self._commit(plan, files, plan.difference)
        self._read_back(plan, commit, files)
        return commit

    def _commit_student(self, plan: RepositoryPlan, content: bytes, signature: bytes) -> str:
        if plan.tagged:
            return plan.tagged
        with TemporaryDirectory() as temporary:
            files = folder_files(plan.folder)
            for name, data in ((STUDENT.release, content), (STUDENT.signature, signature)):
                files[name] = Path(temporary) / name
                files[name].write_bytes(data)
            remote = read_tree(self.api, plan.repo_id, plan.repo_type, plan.remote.head)
            commit = self._commit(plan, files, compare(local_content(files), remote))
            self._read_back(plan, commit, files)
        return commit

    def _commit(self, plan: RepositoryPlan, files: Mapping[str, Path], difference: Difference) -> str:
        head = plan.remote.head
        if not plan.remote.exists:
            head = self._create(plan)
        if head is not None and not difference:
            self.report(f"{plan.role} {plan.repo_id}: as it should be already, {head[:12]}")
            return head
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, files[name]) for name in (*difference.added, *difference.changed)
        ]
        operations += [CommitOperationDelete(name, is_folder=False) for name in difference.deleted]
        size = sum(files[name].stat().st_size for name in (*difference.added, *difference.changed))
        self.report(f"{plan.role} {plan.repo_id}: {difference}, {size / 1e6:.1f} MB")
        with hub_errors(f"commit to {plan.repo_id}", self.api.endpoint):
            info = self.api.create_commit(
                plan.repo_id,
                operations,
                commit_message=f"Release {self.version}",
                repo_type=plan.repo_type,
                parent_commit=head,
            )
        self.changed = True
        return str(info.oid)

    def _create(self, plan: RepositoryPlan) -> str | None:
        with hub_errors(f"create {plan.repo_id}", self.api.endpoint):
            self.api.create_repo(
                plan.repo_id,
                repo_type=plan.repo_type,
                private=self.settings.private,
                exist_ok=True,
                space_sdk="gradio" if plan.repo_type == "space" else None,
            )
            refs = self.api.list_repo_refs(plan.repo_id, repo_type=plan.repo_type)
        self.changed = True
        heads = [branch.target_commit for branch in refs.branches if branch.name == "main"]
        return heads[0] if heads else None

    def _read_back(self, plan: RepositoryPlan, commit: str, files: Mapping[str, Path]) -> None:
        """Compare every hash that the Hub lists, and download the manifests, before anything is tagged."""
        stands = read_tree(self.api, plan.repo_id, plan.repo_type, commit)
        wrong = compare(local_content(files), stands).lines()
        names = [name for name in (artifact.MANIFEST, STUDENT.release, STUDENT.signature) if name in files]
        with TemporaryDirectory() as temporary:
            for name in names:
                if self._download(plan, commit, name, Path(temporary)) != files[name].read_bytes():
                    wrong.append(f"~ {name} as downloaded")
        if wrong:
            raise HubError(
                found=f"{plan.repo_id} at {commit[:12]} differs from what was sent: {', '.join(wrong[:3])}",
                expected="the very files that were committed",
                next="run the same command again; nothing has been tagged",
            )

    def _download(self, plan: RepositoryPlan, commit: str, name: str, folder: Path) -> bytes:
        with hub_errors(f"read {name} of {plan.repo_id} back", self.api.endpoint):
            path = self.api.hf_hub_download(
                plan.repo_id, name, repo_type=plan.repo_type, revision=commit, local_dir=folder
            )
        return Path(path).read_bytes()

    def _release(
        self,
        plans: Mapping[str, RepositoryPlan],
        manifests: Mapping[str, artifact.Manifest],
        commits: Mapping[str, str],
    ) -> tuple[Release, bytes, bytes]:
        """The manifest that is published already where nothing else has changed, or a new one, signed."""
        plan = plans["student"]
        found = self._published_release(plan)
        if found:
            manifest = self._describe(plans, manifests, commits, found[0].created)
            if manifest.to_bytes() == found[1]:
                return manifest, found[1], found[2]
        if plan.tagged:
            raise VerificationError(
                found=f"{self.version.tag} of {plan.repo_id} with another release manifest or by another key",
                expected="a version that is new, or published with exactly this content and key",
                next="publish under a higher --version; a tag is never moved",
            )
        created = datetime.now(UTC).replace(microsecond=0).isoformat()
        manifest = self._describe(plans, manifests, commits, created)
        content = manifest.to_bytes()
        signature = canonical_json(self.key.sign(content, RELEASE_PURPOSE)) + b"\n"
        return manifest, content, signature

    def _published_release(self, plan: RepositoryPlan) -> tuple[Release, bytes, bytes] | None:
        """A manifest in the student's repository that this key has signed."""
        revision = plan.tagged or plan.remote.head
        tree = read_tree(self.api, plan.repo_id, plan.repo_type, revision)
        if revision is None or not {STUDENT.release, STUDENT.signature} <= set(tree):
            return None
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            content = self._download(plan, revision, STUDENT.release, folder)
            signature = self._download(plan, revision, STUDENT.signature, folder)
            try:
                return release.read(folder, TrustedKeys([self.key.public])), content, signature
            except VerificationError:
                return None

    def _describe(
        self,
        plans: Mapping[str, RepositoryPlan],
        manifests: Mapping[str, artifact.Manifest],
        commits: Mapping[str, str],
        created: str,
    ) -> Release:
        folders = {role: plans[role].folder for role in ORDER}
        days = self.settings.expires_days
        expires = datetime.fromisoformat(created) + timedelta(days=days) if days else None
        records = {
            role: RepositoryRecord(
                plans[role].repo_id,
                plans[role].repo_type,
                commits.get(role),
                release.record_files(folders[role]),
            )
            for role in ORDER
        }
        return Release(
            version=str(self.version),
            created=created,
            repositories=records,
            compatibility=Compatibility(
                schema_version=SCHEMA_VERSION,
                vocabulary_sha256=release.vocabulary_sha256(),
                opset=max(opset_of(folders["student"] / name) for name in (STUDENT.fp32, STUDENT.int8)),
                min_package=OLDEST_PACKAGE,
            ),
            minimum_version=self.settings.minimum_version,
            expires=expires.isoformat() if expires else None,
            gates={
                "1": artifact.read_metrics(folders["teacher"])["gate_1"],
                "2": artifact.read_metrics(folders["student"])["gate_2"],
            },
            metrics={
                role: record.files[artifact.METRICS]["sha256"]
                for role, record in records.items()
                if artifact.METRICS in record.files
            },
            generation=manifests["student"].generation,
            parent=manifests["student"].parent,
        )

    def _tag(self, plan: RepositoryPlan, commit: str) -> None:
        if plan.tagged:
            return
        try:
            with hub_errors(f"tag {plan.repo_id}", self.api.endpoint):
                self.api.create_tag(
                    plan.repo_id, tag=self.version.tag, revision=commit, repo_type=plan.repo_type
                )
        except HubConflictError:
            # A retried request may have succeeded the first time; another commit under the tag is a conflict.
            if resolve_tag(self.api, plan.repo_id, plan.repo_type, self.version.tag) != commit:
                raise
        self.changed = True
        self.report(f"{plan.role} {plan.repo_id}: tagged {self.version.tag} at {commit[:12]}")
