"""The release manifest of a publication: described from the plans, signed once, found again afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from eisv_lumen import artifact, release
from eisv_lumen.artifact import SCHEMA_VERSION
from eisv_lumen.errors import VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import Compatibility, Release, RepositoryRecord
from eisv_lumen.signing import RELEASE_PURPOSE, SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.contents import LocalFile
from hub.onnx_opset import opset_of
from hub.plan import RepositoryPlan
from hub.remote import Reader
from hub.settings import ReleaseSettings
from hub.signatures import signed_by

OLDEST_PACKAGE = "0.1.0"
"""First version of eisv-lumen that reads this release format."""


@dataclass(frozen=True)
class SignedRelease:
    """A release manifest with the bytes that were signed and their signature document."""

    manifest: Release
    content: bytes
    signature: bytes

    @property
    def files(self) -> dict[str, LocalFile]:
        """Both as files of the student's repository."""
        return {
            STUDENT.release: LocalFile.of(self.content),
            STUDENT.signature: LocalFile.of(self.signature),
        }


class ReleaseManifest:
    """Describes and signs one release.

    Args:
        reader: Reads what the student's repository has already.
        settings: Names and conditions of the release.
        version: Its version.
        keys: The signing keys.
    """

    def __init__(
        self, reader: Reader, settings: ReleaseSettings, version: Version, keys: tuple[SigningKey, ...]
    ) -> None:
        self.reader, self.settings, self.version, self.keys = reader, settings, version, keys

    def of(
        self,
        plans: Mapping[str, RepositoryPlan],
        commits: Mapping[str, str],
        folders: Mapping[str, Path],
        manifests: Mapping[str, artifact.Manifest],
    ) -> SignedRelease:
        """The manifest that is published already where nothing else has changed, or a new one, signed.

        Args:
            plans: What each repository holds.
            commits: Commits of all but the student's.
            folders: Artifact folders, for what was measured.
            manifests: Their manifests.

        Raises:
            VerificationError: The version is tagged with another manifest, or one by another key.
        """
        plan = plans["student"]
        found = self._published(plan)
        if found:
            manifest = self._describe(plans, commits, folders, manifests, found.manifest.created)
            if manifest.to_bytes() == found.content:
                return SignedRelease(manifest, found.content, found.signature)
        if plan.tagged:
            raise VerificationError(
                found=f"{self.version.tag} of {plan.repo_id} with another release manifest or by another key",
                expected="a version that is new, or published with exactly this content and key",
                next="publish under a higher --version; a tag is never moved",
            )
        created = datetime.now(UTC).replace(microsecond=0).isoformat()
        content = self._describe(plans, commits, folders, manifests, created).to_bytes()
        return SignedRelease(
            Release.from_bytes(content), content, signed_by(self.keys, content, RELEASE_PURPOSE)
        )

    def _published(self, plan: RepositoryPlan) -> SignedRelease | None:
        """A manifest in the student's repository that every one of the keys has signed."""
        revision = plan.tagged or plan.remote.head
        if revision is None or not {STUDENT.release, STUDENT.signature} <= set(plan.tree):
            return None
        content, signature = (
            self.reader.file(plan.repo_id, plan.repo_type, revision, name)
            for name in (STUDENT.release, STUDENT.signature)
        )
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / STUDENT.release).write_bytes(content)
            (folder / STUDENT.signature).write_bytes(signature)
            try:
                for key in self.keys:
                    manifest = release.read(folder, TrustedKeys([key.public]))
            except VerificationError:
                return None
        return SignedRelease(manifest, content, signature)

    def _describe(
        self,
        plans: Mapping[str, RepositoryPlan],
        commits: Mapping[str, str],
        folders: Mapping[str, Path],
        manifests: Mapping[str, artifact.Manifest],
        created: str,
    ) -> Release:
        days = self.settings.expires_days
        expires = datetime.fromisoformat(created) + timedelta(days=days) if days else None
        records = {
            role: RepositoryRecord(plan.repo_id, plan.repo_type, commits.get(role), _record(plan))
            for role, plan in plans.items()
        }
        student = folders["student"]
        return Release(
            version=str(self.version),
            created=created,
            repositories=records,
            compatibility=Compatibility(
                schema_version=SCHEMA_VERSION,
                vocabulary_sha256=release.vocabulary_sha256(),
                opset=max(opset_of(student / name) for name in (STUDENT.fp32, STUDENT.int8)),
                min_package=OLDEST_PACKAGE,
            ),
            minimum_version=self.settings.minimum_version,
            expires=expires.isoformat() if expires else None,
            gates={
                "1": artifact.read_metrics(folders["teacher"])["gate_1"],
                "2": artifact.read_metrics(student)["gate_2"],
            },
            metrics={
                role: record.files[artifact.METRICS]["sha256"]
                for role, record in records.items()
                if artifact.METRICS in record.files
            },
            generation=manifests["student"].generation,
            parent=manifests["student"].parent,
        )


def _record(plan: RepositoryPlan) -> dict[str, dict[str, object]]:
    left_out = (STUDENT.release, STUDENT.signature)
    return {name: file.record for name, file in sorted(plan.files.items()) if name not in left_out}
