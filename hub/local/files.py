"""What one commit holds: folders, files and their sizes, read from git without a process per file."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pygit2

from hub.local.lfs import POINTER_BYTES, Pointer
from hub.local.refusal import entry_not_found
from hub.local.revisions import commit_date


@dataclass(frozen=True)
class Folder:
    """A folder at a commit: its path and the id of its tree."""

    path: str
    oid: str


@dataclass(frozen=True)
class File:
    """A file at a commit.

    Attributes:
        path: Inside the repository.
        oid: Git's id of the blob (for a large file, of its pointer).
        size: Bytes of the content (for a large file, not of its pointer).
        blob_size: Bytes of the blob.
        pointer: For a large file.
    """

    path: str
    oid: str
    size: int
    blob_size: int
    pointer: Pointer | None

    @property
    def etag(self) -> str:
        """What identifies the content: sha256 of a large file, git's id of another."""
        return self.pointer.oid if self.pointer else self.oid


def file_at(repo: pygit2.Repository, path: str, oid: pygit2.Oid) -> File:
    """Describe a blob, looking into it only where it is small enough to be a pointer."""
    size = repo.odb.read_header(oid)[1]
    pointer = Pointer.decode(repo.odb.read(oid)[1]) if size <= POINTER_BYTES else None
    return File(path, str(oid), pointer.size if pointer else size, size, pointer)


def find(repo: pygit2.Repository, commit: pygit2.Commit, path: str) -> File | Folder | None:
    """The entry at a path, None when there is none. The empty path is the top folder."""
    if not path:
        return Folder("", str(commit.tree.id))
    entry = _entry_at(commit.tree, path)
    if isinstance(entry, pygit2.Tree):
        return Folder(path, str(entry.id))
    return file_at(repo, path, entry.id) if isinstance(entry, pygit2.Blob) else None


def _entry_at(tree: pygit2.Object, path: str) -> pygit2.Object | None:
    """The object at a path, by bisection: pygit2 1.21 keeps in memory every path it is asked to look up."""
    for name in path.encode("utf-8", "surrogatepass").split(b"/"):
        found = _entry_of(tree, name) if isinstance(tree, pygit2.Tree) else None
        if found is None:
            return None
        tree = found
    return tree


def _entry_of(tree: pygit2.Tree, name: bytes) -> pygit2.Object | None:
    for wanted in (name, name + b"/"):
        index = bisect_left(range(len(tree)), wanted, key=lambda index: _mark(tree, "", index))
        if index < len(tree) and _mark(tree, "", index) == wanted:
            return tree[index]
    return None


def find_file(repo: pygit2.Repository, commit: pygit2.Commit, path: str) -> File:
    """The file at a path.

    Raises:
        Refusal: EntryNotFound, also for a folder.
    """
    entry = find(repo, commit, path)
    if not isinstance(entry, File):
        raise entry_not_found(path, str(commit.id))
    return entry


def read_small(
    repo: pygit2.Repository, commit: pygit2.Commit, path: str, limit: int = 1 << 20
) -> bytes | None:
    """The content of a small file that git itself holds; None for any other."""
    entry = find(repo, commit, path)
    if not isinstance(entry, File) or entry.pointer or entry.size > limit:
        return None
    return repo.odb.read(pygit2.Oid(hex=entry.oid))[1]


def listing(
    repo: pygit2.Repository, commit: pygit2.Commit, path: str = "", recursive: bool = False, after: str = ""
) -> Iterator[File | Folder]:
    """The entries of a folder: its folders, then its files; all that lies below it: in git's order.

    Args:
        repo: The repository.
        commit: Where to look.
        path: The folder; empty for the top.
        recursive: Also what lies in folders below.
        after: `page_mark` of the entry that an earlier page ended with.

    Raises:
        Refusal: EntryNotFound when there is no such folder.
    """
    top = find(repo, commit, path)
    if not isinstance(top, Folder):
        raise entry_not_found(path, str(commit.id))
    tree = commit.tree if not path else repo[pygit2.Oid(hex=top.oid)]
    assert isinstance(tree, pygit2.Tree)
    prefix = f"{path}/" if path else ""
    if recursive:
        yield from _walk(repo, tree, prefix, after)
        return
    if not after or after.endswith("/"):
        yield from (entry for entry in _entries(repo, tree, prefix, after) if isinstance(entry, Folder))
        after = ""
    yield from (entry for entry in _entries(repo, tree, prefix, after) if isinstance(entry, File))


def page_mark(entry: File | Folder) -> str:
    """What `listing` takes as `after` to go on behind an entry."""
    return f"{entry.path}/" if isinstance(entry, Folder) else entry.path


def _entries(repo: pygit2.Repository, tree: pygit2.Tree, prefix: str, after: str) -> Iterator[File | Folder]:
    seen = after.encode()
    first = bisect_right(range(len(tree)), seen, key=lambda index: _mark(tree, prefix, index)) if seen else 0
    for index in range(first, len(tree)):
        entry = tree[index]
        if isinstance(entry, pygit2.Tree):
            yield Folder(f"{prefix}{entry.name}", str(entry.id))
        elif isinstance(entry, pygit2.Blob):
            yield file_at(repo, f"{prefix}{entry.name}", entry.id)


def _walk(repo: pygit2.Repository, tree: pygit2.Tree, prefix: str, after: str) -> Iterator[File | Folder]:
    seen = after.encode()
    # The folder that an earlier page ended in stands right before what comes behind it.
    first = (
        bisect_left(range(len(tree)), seen, key=lambda index: _mark(tree, prefix, index)) - 1 if seen else 0
    )
    for index in range(max(0, first), len(tree)):
        entry = tree[index]
        path = f"{prefix}{entry.name}"
        if isinstance(entry, pygit2.Tree):
            mark = f"{path}/".encode()
            goes_on_inside = seen.startswith(mark)
            if mark < seen and not goes_on_inside:
                continue
            if not goes_on_inside:
                yield Folder(path, str(entry.id))
            yield from _walk(repo, entry, f"{path}/", after if seen > mark else "")
        elif isinstance(entry, pygit2.Blob) and path.encode() > seen:
            yield file_at(repo, path, entry.id)


def _mark(tree: pygit2.Tree, prefix: str, index: int) -> bytes:
    """What git orders a tree's entries by, as a path: a folder's name as if it ended with a slash."""
    entry = tree[index]
    slash = b"/" if isinstance(entry, pygit2.Tree) else b""
    return prefix.encode() + (entry.raw_name or b"") + slash


def last_commits(
    repo: pygit2.Repository, commit: pygit2.Commit, paths: Iterable[str]
) -> dict[str, dict[str, str]]:
    """For each path the commit that changed it last, found in one walk back through the history."""
    found: dict[str, dict[str, str]] = {}
    current = _ids_at(commit, paths)
    while current:
        parent = commit.parents[0] if commit.parents else None
        row = {"id": str(commit.id), "title": commit.message.partition("\n")[0], "date": commit_date(commit)}
        before = _ids_at(parent, current) if parent is not None else {}
        for path, oid in list(current.items()):
            if parent is None or before[path] != oid:
                found[path] = row
                del current[path]
        if parent is None:
            break
        commit = parent
    return found


def _ids_at(commit: pygit2.Commit, paths: Iterable[str]) -> dict[str, str | None]:
    """The id of the entry at each path; every folder is opened once, since a large one is slow to open."""
    folders: dict[str, pygit2.Object | None] = {"": commit.tree}
    found: dict[str, str | None] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = _entry_at(commit.tree, folder)
        holder = folders[folder]
        entry = (
            _entry_of(holder, name.encode("utf-8", "surrogatepass"))
            if isinstance(holder, pygit2.Tree)
            else None
        )
        found[path] = str(entry.id) if entry is not None else None
    return found
