"""What publishing a folder would change in its repository: read, compare, decide; nothing is written."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from eisv_lumen.errors import VerificationError
from eisv_lumen.hub_client import HubNotFoundError, hub_errors
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import ROLES
from eisv_lumen.versions import Version

KEPT_FILES = {".gitattributes"}
"""Files that belong to the Hub, not to the release: neither compared nor deleted."""

RELEASE_FILES = {STUDENT.release, STUDENT.signature}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """What identifies a file's bytes: on the Hub, a small file by its git hash and a large one by sha256."""

    sha256: str | None
    git_sha1: str | None

    def same(self, other: "Content") -> bool:
        """Whether the bytes are the same, by whichever hash both know."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.git_sha1 is not None and self.git_sha1 == other.git_sha1


@dataclass(frozen=True)
class Remote:
    """A repository as the Hub has it.

    Attributes:
        head: Commit of the main branch; None while there is no commit or no repository.
        exists: Whether the repository exists.
        tags: Names of its tags.
    """

    exists: bool
    head: str | None = None
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Difference:
    """Paths that a commit would touch."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.added or self.changed or self.deleted)

    def __str__(self) -> str:
        """Such as "+2 ~1 -0 files"."""
        return f"+{len(self.added)} ~{len(self.changed)} -{len(self.deleted)} files"

    def lines(self) -> list[str]:
        """One line per path, marked + ~ or -."""
        marked = [("+", self.added), ("~", self.changed), ("-", self.deleted)]
        return [f"{mark} {path}" for mark, paths in marked for path in paths]


@dataclass(frozen=True)
class RepositoryPlan:
    """What to do with one repository.

    Attributes:
        role: See `release.ROLES`.
        repo_id: `namespace/name`.
        folder: The artifact folder.
        remote: What the Hub has now.
        tagged: Commit that carries this version's tag already.
        difference: What a commit would change; nothing when tagged.
    """

    role: str
    repo_id: str
    folder: Path
    remote: Remote
    tagged: str | None
    difference: Difference = field(default_factory=Difference)

    @property
    def repo_type(self) -> str:
        """Type on the Hub."""
        return ROLES[self.role]


def plan(
    api: HfApi, repo_ids: Mapping[str, str], folders: Mapping[str, Path], version: Version
) -> dict[str, RepositoryPlan]:
    """Compare every folder of a release with its repository.

    Raises:
        HubError: The Hub cannot be read.
        VerificationError: The version exists with other content, or a newer one is published already.
    """
    plans = {}
    for role in ROLES:
        remote = read_remote(api, repo_ids[role], ROLES[role])
        plans[role] = _plan_repository(api, role, repo_ids[role], folders[role], remote, version)
    newer = [v for tag in plans["student"].remote.tags if (v := Version.of_tag(tag)) and v > version]
    if newer and plans["student"].tagged is None:
        raise VerificationError(
            found=f"release {max(newer)} of {repo_ids['student']}",
            expected=f"nothing newer than {version}",
            next="publish under a higher --version; devices never go back to a lower one",
        )
    return plans


def read_remote(api: HfApi, repo_id: str, repo_type: str) -> Remote:
    """Head and tags of a repository, which need not exist."""
    try:
        with hub_errors(f"read {repo_id}", api.endpoint):
            refs = api.list_repo_refs(repo_id, repo_type=repo_type)
    except HubNotFoundError:
        return Remote(exists=False)
    heads = [branch.target_commit for branch in refs.branches if branch.name == "main"]
    return Remote(True, heads[0] if heads else None, frozenset(tag.name for tag in refs.tags))


def read_tree(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> dict[str, Content]:
    """Every file of a repository at a revision; nothing at revision None."""
    if revision is None:
        return {}
    with hub_errors(f"list the files of {repo_id}", api.endpoint):
        entries = list(api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=repo_type))
    return {
        entry.path: Content(entry.lfs.sha256 if entry.lfs else None, None if entry.lfs else entry.blob_id)
        for entry in entries
        if isinstance(entry, RepoFile) and entry.path not in KEPT_FILES
    }


def resolve_tag(api: HfApi, repo_id: str, repo_type: str, tag: str) -> str:
    """The commit that a tag points to."""
    with hub_errors(f"resolve {tag} of {repo_id}", api.endpoint):
        commit = api.repo_info(repo_id, repo_type=repo_type, revision=tag).sha
    return str(commit)


def local_content(files: Mapping[str, Path]) -> dict[str, Content]:
    """Both hashes of local files."""
    return {name: Content(*_hashes(path)) for name, path in files.items()}


def folder_files(folder: Path) -> dict[str, Path]:
    """Every file of a folder by its path in the repository."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def compare(local: Mapping[str, Content], remote: Mapping[str, Content]) -> Difference:
    """What must change for `remote` to become `local`."""
    return Difference(
        tuple(sorted(set(local) - set(remote))),
        tuple(sorted(name for name in set(local) & set(remote) if not local[name].same(remote[name]))),
        tuple(sorted(set(remote) - set(local))),
    )


def _plan_repository(
    api: HfApi, role: str, repo_id: str, folder: Path, remote: Remote, version: Version
) -> RepositoryPlan:
    tagged = None
    if version.tag in remote.tags:
        tagged = resolve_tag(api, repo_id, ROLES[role], version.tag)
    tree: dict[str, Any] = read_tree(api, repo_id, ROLES[role], tagged or remote.head)
    left_out = RELEASE_FILES if role == "student" else set()
    published = {name: content for name, content in tree.items() if name not in left_out}
    difference = compare(local_content(folder_files(folder)), published)
    if tagged and difference:
        raise VerificationError(
            found=f"{version.tag} of {repo_id} with other content ({difference}: {difference.lines()[0]})",
            expected="a version that is new, or published with exactly these files",
            next="publish under a higher --version; a tag is never moved",
        )
    return RepositoryPlan(role, repo_id, folder, remote, tagged, difference)


def _hashes(path: Path) -> tuple[str, str]:
    sha256 = hashlib.sha256()
    sha1 = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            sha1.update(block)
    return sha256.hexdigest(), sha1.hexdigest()
