"""What a repository should hold and what it holds: files known by their hashes, and how two sets differ."""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self

from eisv_lumen.errors import ArtifactError

_BLOCK = 1 << 20
SMALL = 10 << 20
"""Bytes up to which a file may travel within a commit itself, where the Hub compares nothing."""

_KEPT = 64 << 20
"""Bytes of a folder's small files that are kept in memory from their validation until they are sent."""


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
        kept: The bytes of a file, where they were kept, and what its folder said of it when they were read.
    """

    sha256: str
    size: int
    source: Path | bytes
    kept: tuple[bytes, os.stat_result] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, source: Path | bytes, room: int = 0) -> Self:
        """Describe a file, or bytes.

        Args:
            source: Where it lies, or the bytes.
            room: Bytes up to which a file is kept in memory.

        Raises:
            ArtifactError: The file is unreadable.
        """
        if isinstance(source, bytes):
            return cls(hashlib.sha256(source).hexdigest(), len(source), source)
        try:
            with source.open("rb", buffering=0) as file:
                stamp = os.fstat(file.fileno())
                if stamp.st_size > min(room, SMALL):
                    return cls(_digest(file, hashlib.sha256()), stamp.st_size, source)
                content = file.readall()
        except OSError as error:
            raise ArtifactError(
                found=f"{source!r}: {error.strerror}",
                expected="a file that can be read",
                next="build the folder again",
            ) from error
        return cls(hashlib.sha256(content).hexdigest(), len(content), source, (content, stamp))

    @cached_property
    def git_sha1(self) -> str:
        """The hash by which git knows a file with these bytes.

        Raises:
            ArtifactError: They are no longer the bytes that were hashed first.
        """
        as_git = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        with self.open() as file:
            if _digest(file, hashlib.sha256(), as_git) != self.sha256:
                raise self._changed()
        return as_git.hexdigest()

    def same(self, remote: Content) -> bool:
        """Whether the Hub has the same bytes, by whichever hash it gives."""
        return self.sha256 == remote.sha256 if remote.sha256 else self.git_sha1 == remote.git_sha1

    def read(self) -> bytes:
        """Its bytes, the very ones that were hashed first.

        Raises:
            ArtifactError: Those of the file are others by now.
        """
        if isinstance(self.source, bytes):
            return self.source
        try:
            if self.kept is not None:
                content, stamp = self.kept
                same = _stamp(self.source.stat()) == _stamp(stamp)
            else:
                content = self.source.read_bytes()
                same = hashlib.sha256(content).hexdigest() == self.sha256
        except OSError:
            raise self._changed() from None
        if not same:
            raise self._changed()
        return content

    def open(self) -> BinaryIO:
        """Its bytes as a stream; those of a file that is not kept as they are now."""
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        return self.source.open("rb") if self.kept is None else io.BytesIO(self.kept[0])

    def head(self, size: int) -> bytes:
        """Its first bytes."""
        with self.open() as file:
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


def folder_files(folder: Path) -> dict[str, LocalFile]:
    """Every file of a folder by its path in the repository; most small ones are kept in memory.

    Raises:
        ArtifactError: A file is unreadable.
    """
    files, room = dict[str, LocalFile](), _KEPT
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = files[path.relative_to(folder).as_posix()] = LocalFile.of(path, room)
        room -= file.size if file.kept else 0
    return files


def compare(local: Mapping[str, LocalFile], remote: Mapping[str, Content]) -> Difference:
    """What must change for `remote` to become `local`."""
    return Difference(
        tuple(sorted(set(local) - set(remote))),
        tuple(sorted(name for name in set(local) & set(remote) if not local[name].same(remote[name]))),
        tuple(sorted(set(remote) - set(local))),
    )


def _digest(file: BinaryIO | io.FileIO, *algorithms: Any) -> str:
    """The first algorithm's result; all of them are given the bytes."""
    while block := file.read(_BLOCK):
        for algorithm in algorithms:
            algorithm.update(block)
    return str(algorithms[0].hexdigest())


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to, or another takes its place; not when it gets one more name."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
