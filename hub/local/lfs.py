"""Large files: pointers as git holds them, and the content-addressed store beside a repository's objects."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hub.local.durable import free_bytes, sync_folder
from hub.local.refusal import Refusal, repository_not_found

POINTER_BYTES = 1024
_OID = re.compile(r"[0-9a-f]{64}")
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n?"
)


@dataclass(frozen=True)
class Pointer:
    """What git stores in place of a large file.

    Attributes:
        oid: sha256 of the content, 64 hexadecimal digits.
        size: Bytes of the content.
    """

    oid: str
    size: int

    def encode(self) -> bytes:
        """The pointer file."""
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()
        )

    @classmethod
    def decode(cls, content: bytes) -> "Pointer | None":
        """Read a pointer file; None when the content is something else."""
        match = _POINTER.fullmatch(content) if len(content) <= POINTER_BYTES else None
        return cls(match[1].decode(), int(match[2])) if match else None


def checked_oid(oid: object) -> str:
    """A sha256 in hexadecimal.

    Raises:
        Refusal: For anything else.
    """
    if not isinstance(oid, str) or not _OID.fullmatch(oid):
        raise Refusal(422, "Invalid object id: expected a sha256 of 64 lowercase hexadecimal digits")
    return oid


def checked_size(size: object, limit: int) -> int:
    """A number of bytes within the limit.

    Raises:
        Refusal: For anything else.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Refusal(422, "Invalid size: expected a whole number of bytes, not negative")
    if size > limit:
        raise Refusal(413, f"Invalid size: {size} bytes, more than the limit of {limit}")
    return size


class LfsStore:
    """The objects of one repository, in git-lfs's own layout inside the bare repository.

    They lie in the repository, not beside all repositories, so that deleting and moving stay one rename,
    and knowing a hash gives nobody another repository's file.

    Args:
        repository: The bare repository's folder.
    """

    def __init__(self, repository: Path) -> None:
        self._objects = repository / "lfs" / "objects"
        self._incoming = repository / "lfs" / "incoming"

    def path(self, oid: str) -> Path:
        """Where an object lies, or would."""
        return self._objects / oid[:2] / oid[2:4] / oid

    def size(self, oid: str) -> int | None:
        """Bytes of a stored object; None when it is absent."""
        try:
            return self.path(oid).stat().st_size
        except FileNotFoundError:
            return None

    def receive(self, pointer: Pointer) -> "Incoming":
        """Begin to receive an object.

        Raises:
            Refusal: RepoNotFound when the repository has been deleted meanwhile; 507 without room for it.
        """
        try:
            if pointer.size > free_bytes(self._incoming):
                raise Refusal(507, f"No room for {pointer.size} bytes on this Hub's disk")
            return Incoming(self._incoming / secrets.token_hex(16), self.path(pointer.oid), pointer)
        except FileNotFoundError:
            raise repository_not_found() from None


class Incoming:
    """One object on its way in: a temporary file that is checked, synced and renamed, or removed."""

    def __init__(self, temporary: Path, final: Path, pointer: Pointer) -> None:
        self._temporary, self._final, self._pointer = temporary, final, pointer
        self._hash = hashlib.sha256()
        self._size = 0
        self._file = temporary.open("xb", buffering=0)

    def write(self, chunks: Iterable[bytes]) -> None:
        """Take the next bytes.

        Raises:
            Refusal: As soon as there are more than announced.
        """
        for chunk in chunks:
            self._size += len(chunk)
            if self._size > self._pointer.size:
                raise Refusal(400, f"Wrong size: more than the announced {self._pointer.size} bytes")
            self._hash.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]

    def finish(self) -> None:
        """Check size and hash, and give the object its name.

        Raises:
            Refusal: When either differs from what was announced, or the repository is gone.
        """
        if self._size != self._pointer.size:
            raise Refusal(400, f"Wrong size: {self._size} bytes came, {self._pointer.size} were announced")
        if self._hash.hexdigest() != self._pointer.oid:
            raise Refusal(400, "Wrong content: its sha256 is not the announced one")
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            # Only the two fan-out folders: a deleted repository must not come back to life.
            for folder in (self._final.parent.parent, self._final.parent):
                folder.mkdir(exist_ok=True)
            self._temporary.rename(self._final)
            sync_folder(self._final.parent)
            sync_folder(self._final.parent.parent)
        except FileNotFoundError:
            raise repository_not_found() from None

    def close(self) -> None:
        """Remove what is not finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)
