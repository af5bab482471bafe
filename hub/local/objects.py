"""Git objects that are written together: all are on disk before anything refers to one of them."""

import hashlib
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pygit2
from pygit2.enums import ObjectType, Option

from hub.local.durable import free_bytes
from hub.local.git import git_command, git_environment
from hub.local.refusal import Refusal

ObjectKind = Literal["commit", "tree", "blob"]
_PACK_TYPE = {"commit": 1, "tree": 2, "blob": 3}
_TYPES = {"commit": ObjectType.COMMIT, "tree": ObjectType.TREE, "blob": ObjectType.BLOB}

# Beyond this one pack is cheaper than a file and a sync for each object.
_LOOSE_OBJECTS = 50
_LOOSE_BYTES = 4 << 20
_SPOOL_BYTES = 32 << 20
_BLOCK = 4096
_RESERVE = 256 << 10

pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)
pygit2.option(Option.SET_OWNER_VALIDATION, False)


def object_id(kind: ObjectKind, content: bytes) -> str:
    """The id that git gives an object: 40 hexadecimal digits."""
    return hashlib.sha1(
        b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False
    ).hexdigest()


class ObjectBatch:
    """Objects gathered for one commit. Few are written singly, many as one pack.

    Use as a context manager; what was not written is forgotten.

    Args:
        repository: The bare repository's folder.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._known: set[str] = set()
        self._loose: list[tuple[ObjectKind, bytes]] | None = []
        self._loose_bytes = 0
        self._packed = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> "ObjectBatch":
        return self

    def __exit__(self, *exception: object) -> None:
        self._packed.close()

    def add(self, kind: ObjectKind, content: bytes) -> str:
        """Take an object.

        Returns:
            Its id; it can be read once `write` has returned.
        """
        oid = object_id(kind, content)
        if oid in self._known:
            return oid
        self._known.add(oid)
        if self._loose is not None:
            self._loose.append((kind, content))
            self._loose_bytes += len(content)
            if len(self._loose) > _LOOSE_OBJECTS or self._loose_bytes > _LOOSE_BYTES:
                for each in self._loose:
                    self._pack(*each)
                self._loose = None
        else:
            self._pack(kind, content)
        return oid

    def write(self) -> None:
        """Put all objects on disk, durably.

        Raises:
            Refusal: 507 when they do not fit; 400 for what git itself refuses, as a broken `.gitmodules`.
        """
        needed = self._packed.tell() if self._loose is None else self._loose_bytes + _BLOCK * len(self._loose)
        self._check_room(needed)
        try:
            if self._loose is None:
                self._write_pack()
            else:
                self._write_loose(self._loose)
        except (OSError, pygit2.GitError):
            # Nobody else writes here: the caller holds the repository.
            for leftover in (self._repository / "objects").glob("*/tmp_*"):
                leftover.unlink(missing_ok=True)
            self._check_room(needed)
            raise

    def _check_room(self, needed: int) -> None:
        if free_bytes(self._repository) < needed + _RESERVE:
            raise Refusal(507, "This Hub's disk is full")

    def _write_loose(self, objects: list[tuple[ObjectKind, bytes]]) -> None:
        repo = pygit2.Repository(str(self._repository))
        for kind, content in objects:
            repo.odb.write(_TYPES[kind], content)

    def _pack(self, kind: ObjectKind, content: bytes) -> None:
        size = len(content)
        head = bytearray([_PACK_TYPE[kind] << 4 | size & 15])
        size >>= 4
        while size:
            head[-1] |= 128
            head.append(size & 127)
            size >>= 7
        self._packed.write(bytes(head) + zlib.compress(content, 1))

    def _write_pack(self) -> None:
        # index-pack reads every object back, checks its links, syncs, and renames the pack into place.
        command = git_command("index-pack", "--stdin", "--strict")
        with subprocess.Popen(
            command,
            cwd=self._repository,
            env=git_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None and process.stderr is not None
            try:
                for chunk in self._pack_stream():
                    process.stdin.write(chunk)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it says why on stderr
            reason = process.stderr.read(2000).decode("utf-8", "replace").strip()
        if process.returncode != 0:
            if "fsck error" in reason:
                raise Refusal(400, f"Git refuses what this commit holds: {reason}")
            raise OSError(f"git index-pack: {reason}")

    def _pack_stream(self) -> Iterator[bytes]:
        head = b"PACK" + struct.pack(">II", 2, len(self._known))
        digest = hashlib.sha1(head, usedforsecurity=False)
        yield head
        self._packed.seek(0)
        while chunk := self._packed.read(1 << 20):
            digest.update(chunk)
            yield chunk
        yield digest.digest()
