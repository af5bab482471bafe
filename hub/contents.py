"""What a repository should hold and what it holds: files known by their hashes, and how two sets differ."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from eisv_lumen.errors import ArtifactError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """What the Hub says of a file's bytes: of a small file the git hash, of a large one the sha256."""

    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Attributes:
        sha256: Of its bytes.
        size: In bytes.
        source: Where it lies, or the bytes themselves.
    """

    sha256: str
    size: int
    source: Path | bytes

    @classmethod
    def of(cls, source: Path | bytes, sha256: str | None = None) -> Self:
        """Describe a file, or bytes.

        Args:
            source: Where it lies, or the bytes.
            sha256: Of them, where that is known already.

        Raises:
            ArtifactError: The file is unreadable.
        """
        try:
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            return cls(sha256 or _digest(source, hashlib.sha256()), size, source)
        except OSError as error:
            raise ArtifactError(
                found=f"{source!r}: {error.strerror}",
                expected="a file that can be read",
                next="build the folder again",
            ) from error

    @cached_property
    def git_sha1(self) -> str:
        """The hash by which git knows a file with these bytes.

        Raises:
            ArtifactError: They are no longer the bytes that were hashed first.
        """
        as_git = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        if _digest(self.source, hashlib.sha256(), as_git) != self.sha256:
            raise self._changed()
        return as_git.hexdigest()

    def same(self, remote: Content) -> bool:
        """Whether the Hub has the same bytes, by whichever hash it gives."""
        return self.sha256 == remote.sha256 if remote.sha256 else self.git_sha1 == remote.git_sha1

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            ArtifactError: They are no longer the bytes that were hashed first.
        """
        if isinstance(self.source, bytes):
            return self.source
        content = self.source.read_bytes()
        if _digest(content, hashlib.sha256()) != self.sha256:
            raise self._changed()
        return content

    def head(self, size: int) -> bytes:
        """Its first bytes."""
        if isinstance(self.source, bytes):
            return self.source[:size]
        with self.source.open("rb") as file:
            return file.read(size)

    def _changed(self) -> ArtifactError:
        return ArtifactError(
            found=f"{self.source!r} changed while it was published",
            expected="the file that was validated",
            next="let nothing write to the folder, then run the same command again",
        )

    @property
    def record(self) -> dict[str, Any]:
        """Its entry in a release manifest."""
        return {"sha256": self.sha256, "size": self.size}


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


def folder_files(folder: Path, known: Mapping[str, Mapping[str, Any]]) -> dict[str, LocalFile]:
    """Every file of a folder by its path in the repository.

    Args:
        folder: The folder.
        known: `{path: {sha256}}` of files whose hashes have been verified already.
    """
    return {
        name: LocalFile.of(path, known[name]["sha256"] if name in known else None)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (name := path.relative_to(folder).as_posix())
    }


def compare(local: Mapping[str, LocalFile], remote: Mapping[str, Content]) -> Difference:
    """What must change for `remote` to become `local`."""
    return Difference(
        tuple(sorted(set(local) - set(remote))),
        tuple(sorted(name for name in set(local) & set(remote) if not local[name].same(remote[name]))),
        tuple(sorted(set(remote) - set(local))),
    )


def _digest(source: Path | bytes, *algorithms: Any) -> str:
    """The first algorithm's result; all of them are given the bytes."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        while block := file.read(_BLOCK):
            for algorithm in algorithms:
                algorithm.update(block)
    return str(algorithms[0].hexdigest())
