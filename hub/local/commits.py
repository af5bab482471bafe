"""A commit as the client sends it: lines of JSON, turned into git objects and one reference update."""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pygit2
from pygit2.enums import FileMode

from hub.local.accounts import Account
from hub.local.cards import card_problems
from hub.local.lfs import LfsStore, Pointer, checked_oid, checked_size
from hub.local.limits import Limits
from hub.local.names import RepoName, checked_message, checked_path
from hub.local.objects import ObjectBatch
from hub.local.patterns import LfsRules, lfs_line
from hub.local.refusal import Refusal
from hub.local.repositories import StoredRepository
from hub.local.revisions import branch_head, move_branch, propose
from hub.local.trees import TreeEdit

_PARENT = re.compile(r"[0-9a-fA-F]{5,40}")
CARD = "README.md"
ATTRIBUTES = ".gitattributes"


@dataclass(frozen=True)
class Header:
    """The first line: message and, where the client insists on one, the expected parent."""

    message: str
    parent: str | None


class CommitReader:
    """Reads a commit's lines as they arrive; blobs go to the batch at once.

    Args:
        name: The repository, whose kind decides how its card is checked.
        batch: Takes the blobs.
        lfs: Must hold every large file that a line names.
        limits: Sizes and counts that are refused.
    """

    def __init__(self, name: RepoName, batch: ObjectBatch, lfs: LfsStore, limits: Limits) -> None:
        self.header: Header | None = None
        self.batch = batch
        self.large_files: set[str] = set()
        self.attributes: bytes | None = None
        self.edits: list[Callable[[TreeEdit], None]] = []
        self._name, self._lfs, self._limits = name, lfs, limits
        self._rest = bytearray()
        self._bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the request.

        Raises:
            Refusal: For a line that is no valid operation, or too much of anything.
        """
        self._bytes += len(chunk)
        if self._bytes > self._limits.commit_bytes:
            raise Refusal(
                413, f"Commit of more than {self._limits.commit_bytes} bytes: upload large files as LFS"
            )
        scanned = len(self._rest)
        self._rest += chunk
        start = 0
        while (end := self._rest.find(b"\n", max(start, scanned))) >= 0:
            self._line(bytes(self._rest[start:end]))
            start = end + 1
        del self._rest[:start]
        if len(self._rest) > self._limits.line_bytes:
            raise Refusal(
                413, f"A line of more than {self._limits.line_bytes} bytes: upload large files as LFS"
            )

    def finish(self) -> Header:
        """The end of the request.

        Returns:
            The header.

        Raises:
            Refusal: When there was none.
        """
        self._line(bytes(self._rest))
        self._rest.clear()
        if self.header is None:
            raise Refusal(400, "Invalid commit: no header line")
        return self.header

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            item = json.loads(line)
            key, value = item["key"], item["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refusal(400, 'Invalid commit: expected lines of JSON, {"key": …, "value": {…}}') from None
        read = {
            "header": self._read_header,
            "file": self._read_file,
            "lfsFile": self._read_large_file,
            "deletedFile": self._read_deleted_file,
            "deletedFolder": self._read_deleted_folder,
        }.get(key if isinstance(key, str) else "")
        if read is None or not isinstance(value, dict):
            raise Refusal(400, f"Invalid commit: unknown operation {str(key)[:50]!r}")
        if (key == "header") == (self.header is not None):
            raise Refusal(400, "Invalid commit: expected one header line, before all others")
        if len(self.edits) >= self._limits.commit_operations:
            raise Refusal(
                413, f"Commit of more than {self._limits.commit_operations} operations: send several"
            )
        read(value)

    def _read_header(self, value: dict[str, Any]) -> None:
        summary, description, parent = (
            value.get("summary"),
            value.get("description", ""),
            value.get("parentCommit"),
        )
        if not isinstance(summary, str) or not summary.strip() or not isinstance(description or "", str):
            raise Refusal(400, "Invalid commit: the header needs a summary")
        if parent is not None and not (isinstance(parent, str) and _PARENT.fullmatch(parent)):
            raise Refusal(400, "Invalid commit: parentCommit must be a commit id")
        message = checked_message(f"{summary.strip()}\n\n{description or ''}".strip())
        self.header = Header(message, parent.lower() if parent is not None else None)

    def _read_file(self, value: dict[str, Any]) -> None:
        path, content = checked_path(value.get("path")), _content(value)
        if len(content) > self._limits.regular_file_bytes:
            raise Refusal(413, f"{path} has {len(content)} bytes: files this large must be uploaded as LFS")
        pointer = Pointer.decode(content)
        if pointer is not None:
            self._check_stored(path, pointer)
        if path == CARD:
            errors, _ = card_problems(content.decode("utf-8", "replace"), self._name.kind)
            if errors:
                raise Refusal(400, "Invalid metadata in README.md: " + "; ".join(errors))
        if path == ATTRIBUTES:
            self.attributes = content
        self._put(path, self.batch.add("blob", content))

    def _read_large_file(self, value: dict[str, Any]) -> None:
        path, oid = checked_path(value.get("path")), checked_oid(value.get("oid"))
        if value.get("algo", "sha256") != "sha256":
            raise Refusal(400, "Invalid commit: large files are known by their sha256")
        stored = self._lfs.size(oid)
        size = stored if value.get("size") is None else checked_size(value["size"], self._limits.lfs_bytes)
        pointer = Pointer(oid, size or 0)
        self._check_stored(path, pointer)
        self.large_files.add(path)
        self._put(path, self.batch.add("blob", pointer.encode()))

    def _check_stored(self, path: str, pointer: Pointer) -> None:
        stored = self._lfs.size(pointer.oid)
        if stored is None:
            raise Refusal(400, f"LFS pointer of {path} refers to an object that has not been uploaded")
        if stored != pointer.size:
            raise Refusal(
                400, f"LFS pointer of {path} says {pointer.size} bytes, the uploaded object has {stored}"
            )

    def _read_deleted_file(self, value: dict[str, Any]) -> None:
        path = checked_path(value.get("path"))
        self.edits.append(lambda tree: tree.remove(path))

    def _read_deleted_folder(self, value: dict[str, Any]) -> None:
        path = value.get("path")
        path = checked_path(path.rstrip("/") if isinstance(path, str) else path)
        self.edits.append(lambda tree: tree.remove_folder(path))

    def _put(self, path: str, oid: str) -> None:
        self.edits.append(lambda tree: tree.put(path, FileMode.BLOB, oid))


def _content(value: dict[str, Any]) -> bytes:
    content, encoding = value.get("content"), value.get("encoding", "base64")
    if not isinstance(content, str) or encoding not in ("base64", "utf-8"):
        raise Refusal(400, "Invalid commit: a file needs its content, encoded as base64 or utf-8")
    try:
        return base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise Refusal(400, f"Invalid commit: content is not valid {encoding}") from None


@dataclass(frozen=True)
class Applied:
    """What became of a commit.

    Attributes:
        oid: The head afterwards.
        proposal: Number of the proposal that holds it, where it was one.
    """

    oid: str
    proposal: int | None = None


def propose_commit(
    repository: StoredRepository, branch: str, reader: CommitReader, account: Account
) -> Applied:
    """Keep a commit to a branch beside it, under a revision of its own. The caller holds the repository.

    Raises:
        Refusal: As `apply_commit`.
    """
    repo, header = repository.git, reader.finish()
    head = branch_head(repo, branch)
    if header.parent is not None and not str(head.id).startswith(header.parent):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    commit = _write_commit(repo, head, reader, header, account)
    return Applied(commit, propose(repository.git, pygit2.Oid(hex=commit)))


def apply_commit(
    repository: StoredRepository, branch: str, reader: CommitReader, account: Account
) -> Applied:
    """Put a commit that was read completely on a branch. The caller holds the repository.

    A commit that would change nothing, or that is already the head because its answer got lost,
    is not made twice.

    Raises:
        Refusal: 412 when the head is not the expected parent, RevisionNotFound, EntryNotFound for a
            deletion, 400 where a file and a folder would have one name.
    """
    repo, header = repository.git, reader.finish()
    head = branch_head(repo, branch)
    if header.parent is not None and not str(head.id).startswith(header.parent):
        if not _is_repeated(repo, head, reader, header, account):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        return Applied(str(head.id))
    commit = _write_commit(repo, head, reader, header, account)
    if commit != str(head.id):
        move_branch(repository.git, branch, head.id, pygit2.Oid(hex=commit))
    return Applied(commit)


def _write_commit(
    repo: pygit2.Repository, head: pygit2.Commit, reader: CommitReader, header: Header, account: Account
) -> str:
    """The new commit, on disk; the head itself where nothing would change."""
    tree = _write_tree(repo, head.tree, reader)
    if tree == str(head.tree.id):
        return str(head.id)
    commit = reader.batch.add("commit", commit_content(tree, str(head.id), header.message, account))
    reader.batch.write()
    return commit


def _write_tree(repo: pygit2.Repository, base: pygit2.Tree, reader: CommitReader) -> str:
    tree = TreeEdit(repo, base)
    for edit in reader.edits:
        edit(tree)
    if reader.large_files:
        attributes = reader.attributes if reader.attributes is not None else tree.read(ATTRIBUTES)
        rules = LfsRules(attributes)
        missing = b"".join(lfs_line(path) for path in sorted(reader.large_files) if not rules.holds(path))
        if missing:
            separator = b"" if not attributes or attributes.endswith(b"\n") else b"\n"
            tree.put(ATTRIBUTES, FileMode.BLOB, reader.batch.add("blob", attributes + separator + missing))
    return tree.write(reader.batch)


def _is_repeated(
    repo: pygit2.Repository, head: pygit2.Commit, reader: CommitReader, header: Header, account: Account
) -> bool:
    """Whether the head is what this very request made before."""
    parents = [str(oid) for oid in head.parent_ids]
    if len(parents) != 1 or not parents[0].startswith(header.parent or "-") or head.message != header.message:
        return False
    try:
        tree = _write_tree(repo, head.parents[0].tree, reader)
    except Refusal:
        return False
    return tree == str(head.tree.id) and head.author.name == account.user


def commit_content(tree: str, parent: str | None, message: str, account: Account) -> bytes:
    """A git commit object, by an account, now."""
    by = f"{account.user} <{account.user}@localhost> {int(time.time())} +0000"
    parents = f"parent {parent}\n" if parent else ""
    return f"tree {tree}\n{parents}author {by}\ncommitter {by}\n\n{message}".encode()


def first_commit(repository: StoredRepository, files: dict[str, bytes], account: Account) -> None:
    """Give a new repository its branch `main` with some files."""
    repo = repository.git
    with ObjectBatch(repository.path) as batch:
        tree = TreeEdit(repo, None)
        for path, content in files.items():
            tree.put(path, FileMode.BLOB, batch.add("blob", content))
        commit = batch.add("commit", commit_content(tree.write(batch), None, "initial commit", account))
        batch.write()
    repo.references.create("refs/heads/main", pygit2.Oid(hex=commit))


def squash(repository: StoredRepository, branch: str, message: str, account: Account) -> str:
    """Replace a branch's history by one commit with the same files. The caller holds the repository.

    Returns:
        The new commit.
    """
    head = branch_head(repository.git, branch)
    with ObjectBatch(repository.path) as batch:
        commit = batch.add("commit", commit_content(str(head.tree.id), None, message, account))
        batch.write()
    move_branch(repository.git, branch, head.id, pygit2.Oid(hex=commit))
    return commit
