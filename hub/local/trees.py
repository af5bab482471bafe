"""Changing a git tree: only the folders that a change touches are read and written."""

import pygit2
from pygit2.enums import FileMode

from hub.local.objects import ObjectBatch
from hub.local.refusal import Refusal, entry_not_found

_ATTRIBUTES_BYTES = 1 << 20


class _File:
    def __init__(self, mode: int, oid: str) -> None:
        self.mode, self.oid = mode, oid


class _Folder:
    """A folder that is read when something looks into it."""

    def __init__(self, repo: pygit2.Repository, oid: pygit2.Oid | None) -> None:
        self._repo, self.oid = repo, oid
        self._entries: dict[str, _File | _Folder] | None = None if oid else {}

    @property
    def entries(self) -> "dict[str, _File | _Folder]":
        if self._entries is None:
            assert self.oid is not None
            tree = self._repo[self.oid]
            assert isinstance(tree, pygit2.Tree)
            self._entries = {str(entry.name): self._entry(entry) for entry in tree}
        return self._entries

    def _entry(self, entry: pygit2.Object) -> "_File | _Folder":
        if entry.filemode == FileMode.TREE:
            return _Folder(self._repo, entry.id)
        return _File(entry.filemode, str(entry.id))

    def write(self, batch: ObjectBatch) -> str | None:
        """Its id; None when nothing is in it."""
        if self._entries is None:
            return str(self.oid)
        lines: list[tuple[bytes, bytes]] = []
        for name, entry in self._entries.items():
            raw = name.encode("utf-8", "surrogateescape")
            if isinstance(entry, _File):
                lines.append((raw, b"%o %s\0%s" % (entry.mode, raw, bytes.fromhex(entry.oid))))
            elif (oid := entry.write(batch)) is not None:
                lines.append((raw + b"/", b"40000 %s\0%s" % (raw, bytes.fromhex(oid))))
        if not lines:
            return None
        return batch.add("tree", b"".join(line for _, line in sorted(lines)))


class TreeEdit:
    """The files of a commit while they are changed.

    Args:
        repo: Where the base lies.
        base: What to begin with; None for nothing.
    """

    def __init__(self, repo: pygit2.Repository, base: pygit2.Tree | None) -> None:
        self._repo = repo
        self._top = _Folder(repo, base.id if base is not None else None)

    def put(self, path: str, mode: int, oid: str) -> None:
        """Add or replace a file.

        Raises:
            Refusal: 400 where a folder has its name, or a file the name of one of its folders.
        """
        *folders, name = path.split("/")
        folder = self._top
        for part in folders:
            inner = folder.entries.setdefault(part, _Folder(self._repo, None))
            if isinstance(inner, _File):
                raise Refusal(400, f"Cannot write {path}: {part} is a file")
            folder = inner
        existing = folder.entries.get(name)
        if isinstance(existing, _Folder) and existing.entries:
            raise Refusal(400, f"Cannot write {path}: it is a folder")
        folder.entries[name] = _File(mode, oid)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it: clients need not know which of the two it is.

        Raises:
            Refusal: EntryNotFound.
        """
        folder, name = self._holder(path)
        if folder is None or name not in folder.entries:
            raise _missing(path, "file")
        del folder.entries[name]

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all that is in it.

        Raises:
            Refusal: EntryNotFound.
        """
        folder, name = self._holder(path)
        if folder is None or not isinstance(folder.entries.get(name), _Folder):
            raise _missing(path, "folder")
        del folder.entries[name]

    def read(self, path: str) -> bytes:
        """The content of a small file that is not large-file storage's; empty when there is none."""
        folder, name = self._holder(path)
        entry = folder.entries.get(name) if folder is not None else None
        if not isinstance(entry, _File):
            return b""
        oid = pygit2.Oid(hex=entry.oid)
        if self._repo.odb.read_header(oid)[1] > _ATTRIBUTES_BYTES:
            return b""
        return self._repo.odb.read(oid)[1]

    def write(self, batch: ObjectBatch) -> str:
        """Add the changed trees to a batch.

        Returns:
            The id of the top one.
        """
        return self._top.write(batch) or batch.add("tree", b"")

    def _holder(self, path: str) -> tuple[_Folder | None, str]:
        *folders, name = path.split("/")
        folder: _File | _Folder | None = self._top
        for part in folders:
            folder = folder.entries.get(part) if isinstance(folder, _Folder) else None
        return folder if isinstance(folder, _Folder) else None, name


def _missing(path: str, what: str) -> Refusal:
    refusal = entry_not_found(path)
    refusal.message = f"A {what} with this name doesn't exist: {path}"
    return refusal
