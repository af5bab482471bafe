"""The release manifest: one signed document that names every file of every repository of a release.

It lies as `release.json` beside `release.json.sig` in the student's repository. Whoever follows the tags of
that repository and believes its signature knows the exact commits of all the others, so a release is visible
whole or not at all. The publishing side (`hub`) writes it, the device verifies it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self

from eisv_lumen import __version__, vocabulary
from eisv_lumen.artifact import SCHEMA_VERSION, canonical_json, sha256_file
from eisv_lumen.errors import VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.signing import RELEASE_PURPOSE, TrustedKeys
from eisv_lumen.versions import Version

RELEASE_FORMAT = 1
SUPPORTED_OPSET = 23
"""Newest ONNX operator set that the oldest onnxruntime allowed here (1.22) runs."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
ROLES = {"dataset": "dataset", "base": "model", "teacher": "model", "student": "model", "space": "space"}
"""Role of each repository of a release, and its type on the Hub."""
OPTIONAL_ROLES = frozenset({"base"})
"""Roles that a release may lack: the adapter may name somebody else's base model."""

_SIGNATURE_FILES = (STUDENT.release, STUDENT.signature)


@dataclass(frozen=True)
class RepositoryRecord:
    """One repository of a release.

    Attributes:
        repo_id: `namespace/name`.
        repo_type: `model`, `dataset` or `space`.
        commit: 40 hex digits; None for the student, whose commit holds this very document.
        files: Per path `{"sha256": hex, "size": bytes}`; the student's without the release manifest and its
            signature.
    """

    repo_id: str
    repo_type: str
    commit: str | None
    files: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Compatibility:
    """What a device must have to run the student.

    Attributes:
        schema_version: Schema of the artifact folders.
        vocabulary_sha256: See `vocabulary_sha256`.
        opset: ONNX operator set of the graphs.
        min_package: Oldest version of the eisv-lumen package.
    """

    schema_version: int
    vocabulary_sha256: str
    opset: int
    min_package: str

    def check(self) -> None:
        """Compare with this installation.

        Raises:
            VerificationError: The release needs something else than what is installed.
        """
        wrong = None
        if self.schema_version > SCHEMA_VERSION:
            wrong = f"schema {self.schema_version}", f"schema {SCHEMA_VERSION} or older"
        elif self.vocabulary_sha256 != vocabulary_sha256():
            wrong = "another vocabulary", "the vocabulary of the installed package"
        elif self.opset > SUPPORTED_OPSET:
            wrong = f"ONNX operator set {self.opset}", f"at most {SUPPORTED_OPSET}"
        elif Version.parse(self.min_package) > Version.parse(__version__):
            wrong = f"a student for eisv-lumen {self.min_package}", f"eisv-lumen {__version__} or older"
        if wrong:
            raise VerificationError(
                found=wrong[0], expected=wrong[1], next="update the package: pip install --upgrade eisv-lumen"
            )


@dataclass(frozen=True)
class Release:
    """What `release.json` says.

    Attributes:
        version: Semantic version; the tag of every repository is `v{version}`.
        created: When it was first published, ISO 8601 in UTC.
        repositories: By role, see `ROLES` and `OPTIONAL_ROLES`.
        compatibility: What a device needs.
        minimum_version: Oldest version that a device which knows this release may still go back to.
        expires: After this moment no device installs the release any more; None: never.
        gates: What the gates measured, by their number.
        metrics: sha256 of each role's `metrics.json`.
        generation: Training generation of the student; `parent` is the version it grew from.
    """

    version: str
    created: str
    repositories: dict[str, RepositoryRecord]
    compatibility: Compatibility
    minimum_version: str = "0.0.0"
    expires: str | None = None
    gates: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    parent: str | None = None
    format: int = RELEASE_FORMAT

    @property
    def tag(self) -> str:
        """Tag of every repository."""
        return Version.parse(self.version).tag

    @property
    def channel(self) -> str:
        """`stable` or `beta`."""
        return Version.parse(self.version).channel

    @property
    def student(self) -> RepositoryRecord:
        """The student's record."""
        return self.repositories["student"]

    def to_bytes(self) -> bytes:
        """The canonical bytes that are signed and published."""
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a manifest whose signature has been checked already.

        Raises:
            VerificationError: It is malformed, of a newer format, or names dangerous paths.
        """
        try:
            values = json.loads(content)
            if values["format"] != RELEASE_FORMAT:
                raise VerificationError(
                    found=f"a release manifest of format {values['format']}",
                    expected=f"format {RELEASE_FORMAT}",
                    next="update the package: pip install --upgrade eisv-lumen",
                )
            records = {role: RepositoryRecord(**record) for role, record in values["repositories"].items()}
            compatibility = Compatibility(**values["compatibility"])
            release = cls(**{**values, "repositories": records, "compatibility": compatibility})
            release._check()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _malformed(str(error)) from None
        return release

    def _check(self) -> None:
        for version in (self.version, self.minimum_version, self.compatibility.min_package):
            Version.parse(version)
        if Version.parse(self.minimum_version) > Version.parse(self.version):
            # A device that believed this would leave the release itself, and every other one, for the rules.
            raise ValueError(f"minimum_version {self.minimum_version} of release {self.version}")
        for moment in filter(None, (self.created, self.expires)):
            if datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError("a time without a zone")
        if set(self.repositories) | OPTIONAL_ROLES != set(ROLES):
            raise ValueError(f"repositories {', '.join(self.repositories)}")
        for role, record in self.repositories.items():
            if record.repo_type != ROLES[role] or (record.commit is None) != (role == "student"):
                raise ValueError(f"the record of the {role}")
            for path, entry in record.files.items():
                _check_entry(path, entry)

    def check_time(self, now: datetime | None = None, newest_known: str | None = None) -> None:
        """Refuse an expired release.

        A machine without a battery behind its clock may believe in 1970. A clock that stands before the
        release was made is wrong: then the release is judged by the newest moment that is known for sure.
        A signed time never overrules a clock that may be right, because it may itself be a slip.

        Args:
            now: The clock; by default this machine's.
            newest_known: Newest moment that an earlier signed document has named, ISO 8601.

        Raises:
            VerificationError: `expires` lies in the past.
        """
        now = now or datetime.now(UTC)
        created = datetime.fromisoformat(self.created)
        if now < created:
            now = max(created, datetime.fromisoformat(newest_known or self.created))
        if self.expires is not None and datetime.fromisoformat(self.expires) <= now:
            raise VerificationError(
                found=f"release {self.version}, expired {self.expires}",
                expected="a release that is still valid",
                next="wait for a newer release; check this machine's clock",
            )


def read(folder: Path, trusted: TrustedKeys) -> Release:
    """The release manifest in a folder, believed only when a trusted key signed it.

    Raises:
        VerificationError: No manifest, no valid signature, or a malformed manifest.
    """
    contents = []
    for name in _SIGNATURE_FILES:
        try:
            path = folder / name
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise _malformed(f"{name} of {path.stat().st_size} bytes")
            contents.append(path.read_bytes())
        except OSError as error:
            raise VerificationError(
                found=f"{folder / name}: {error.strerror}",
                expected="a release manifest and its signature",
                next="pull again",
            ) from None
    trusted.check(contents[0], contents[1], RELEASE_PURPOSE)
    return Release.from_bytes(contents[0])


def verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]], ignored: Collection[str] = ()) -> None:
    """Check that a folder holds exactly the files of a record, unaltered.

    Args:
        folder: The folder.
        files: `{path: {sha256, size}}`.
        ignored: Paths that may be there and are not looked at.

    Raises:
        VerificationError: A file is missing, altered, a link, or not in the record.
    """
    present = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _wrong_file(name, "neither a file nor a folder")
        if path.is_file():
            present.add(name)
    for name in sorted((present - set(ignored)) | set(files)):
        if name not in files:
            raise _wrong_file(name, "not in the release")
        if name not in present:
            raise _wrong_file(name, "missing")
        check_file(folder / name, name, files[name])


def check_file(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Check one file's size and sha256 against its entry in the manifest.

    Raises:
        VerificationError: They differ.
    """
    size = path.stat().st_size
    if size != entry["size"]:
        raise _wrong_file(name, f"{size} bytes instead of {entry['size']}")
    if sha256_file(path) != entry["sha256"]:
        raise _wrong_file(name, "altered (other sha256)")


def record_files(folder: Path, leave_out: Iterable[str] = _SIGNATURE_FILES) -> dict[str, dict[str, Any]]:
    """`{path: {sha256, size}}` of every file of a folder to publish, card and manifest included."""
    left_out = set(leave_out)
    return {
        name: {"sha256": sha256_file(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in left_out
    }


def vocabulary_sha256() -> str:
    """Hash of everything whose order gives the graph's ids their meaning."""
    names = [
        vocabulary.DIMENSIONS,
        vocabulary.SHAPES,
        vocabulary.PATTERNS,
        vocabulary.TOKENS,
        vocabulary.LUMEN_WORDS,
        vocabulary.TRANSLATION,
    ]
    return hashlib.sha256(canonical_json(names)).hexdigest()


def safe_path(path: str) -> bool:
    """Whether a repository path stays inside its folder and is no hidden or odd name."""
    parts = PurePosixPath(path).parts
    return (
        0 < len(path) <= 512
        and not path.startswith("/")
        and path == PurePosixPath(path).as_posix()
        and "\\" not in path
        and path.isprintable()
        and not any(part.startswith(".") for part in parts)
    )


def _check_entry(path: str, entry: Mapping[str, Any]) -> None:
    if not safe_path(path):
        raise ValueError(f"the path {path[:80]!r}")
    sha256, size = entry["sha256"], entry["size"]
    if not (isinstance(sha256, str) and len(sha256) == 64 and isinstance(size, int) and size >= 0):
        raise ValueError(f"the entry of {path}")


def _wrong_file(name: str, state: str) -> VerificationError:
    return VerificationError(
        found=f"{name}: {state}",
        expected="exactly the files that the signed release names",
        next="do not use it; pull again, and ask the publisher if it stays so",
    )


def _malformed(reason: str) -> VerificationError:
    return VerificationError(
        found=f"a malformed release manifest ({reason.splitlines()[0] if reason else 'empty'})",
        expected="a release manifest as python -m hub.release writes it",
        next="do not use it; ask its publisher",
    )
