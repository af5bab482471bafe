"""What lies on the Hub's disk, read with git alone: the judge uses none of the code that it judges."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pygit2

from eisv_lumen import release
from eisv_lumen.errors import VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import ROLES
from eisv_lumen.signing import TrustedKeys
from hub.local.check import problems
from hub.settings import ReleaseSettings

_POINTER = b"version https://git-lfs.github.com/spec/v1\n"


class Repository:
    """A bare repository and its large files.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._git = pygit2.Repository(str(path)) if path.is_dir() else None

    def tags(self) -> dict[str, str]:
        """Commit by tag."""
        if self._git is None:
            return {}
        names = [name for name in self._git.references if name.startswith("refs/tags/")]
        return {
            name.removeprefix("refs/tags/"): str(self._git.references[name].peel(pygit2.Commit).id)
            for name in names
        }

    def branch(self, name: str) -> str | None:
        """The commit of a branch; None where there is none."""
        found = None if self._git is None else self._git.references.get(f"refs/heads/{name}")
        return None if found is None else str(found.peel(pygit2.Commit).id)

    def commits(self) -> int:
        """How many commits its main branch has, the first one that the Hub makes left out."""
        return max(0, sum(1 for _ in self._history()) - 1)

    def empty_commits(self) -> int:
        """How many commits of the main branch have the tree of their parent."""
        return sum(
            1 for commit in self._history() if commit.parents and commit.tree.id == commit.parents[0].tree.id
        )

    def files(self, commit: str) -> dict[str, bytes]:
        """Every file at a commit: what a person would download.

        Raises:
            KeyError: There is no such commit.
        """
        assert self._git is not None
        found = self._git[commit]
        assert isinstance(found, pygit2.Commit)
        return dict(self._content(found.tree, ""))

    def _content(self, tree: pygit2.Tree, prefix: str) -> Iterator[tuple[str, bytes]]:
        for entry in tree:
            if isinstance(entry, pygit2.Tree):
                yield from self._content(entry, f"{prefix}{entry.name}/")
            elif isinstance(entry, pygit2.Blob):
                yield f"{prefix}{entry.name}", self._whole(entry.data)

    def _whole(self, data: bytes) -> bytes:
        if not data.startswith(_POINTER):
            return data
        oid = data.split(b"sha256:", 1)[1].split(b"\n", 1)[0].decode()
        return (self._path / "lfs" / "objects" / oid[:2] / oid[2:4] / oid).read_bytes()

    def _history(self) -> Iterator[pygit2.Commit]:
        if self._git is None or self._git.head_is_unborn:
            return iter(())
        return iter(self._git.walk(self._git.head.target))


def repositories(root: Path, settings: ReleaseSettings) -> dict[str, Repository]:
    """Repository by role; one that does not exist is empty."""
    places = root / "repositories"
    return {
        role: Repository(places / f"{kind}s" / settings.namespace / f"{settings.names[role]}.git")
        for role, kind in ROLES.items()
    }


def half_releases(found: Mapping[str, Repository], trusted: TrustedKeys) -> list[str]:
    """Releases that devices can see, being tagged in the student's repository, and that are not whole."""
    losses = []
    for tag, commit in found["student"].tags().items():
        try:
            _check_release(found, tag, commit, trusted)
        except (VerificationError, KeyError, OSError) as error:
            losses.append(f"{tag} is visible and not whole: {type(error).__name__} {str(error)[:200]}")
    return losses


def _check_release(found: Mapping[str, Repository], tag: str, commit: str, trusted: TrustedKeys) -> None:
    student = found["student"].files(commit)
    with TemporaryDirectory() as temporary:
        for name in (STUDENT.release, STUDENT.signature):
            (Path(temporary) / name).write_bytes(student[name])
        manifest = release.read(Path(temporary), trusted)
    if manifest.tag != tag:
        raise KeyError(f"a manifest of {manifest.tag}")
    for role, record in manifest.repositories.items():
        where = commit if role == "student" else str(record.commit)
        if found[role].tags().get(tag) != where:
            raise KeyError(f"{role}: {tag} is not at {where}")
        files = found[role].files(where)
        for name, entry in record.files.items():
            if hashlib.sha256(files[name]).hexdigest() != entry["sha256"]:
                raise KeyError(f"{role}: {name} has other content")


def damage(root: Path, namespace: str) -> list[str]:
    """What git fsck and the check of large files find in a namespace."""
    return list(problems(root, namespace))
