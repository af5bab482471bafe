"""Branches, tags and commits of one repository."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from hub.local.accounts import Account
from hub.local.durable import read_bytes
from hub.local.refusal import Refusal, revision_not_found

DEFAULT_BRANCH = "main"
_PROPOSALS = "refs/pr/"
_PROPOSAL = re.compile(r"refs/pr/[1-9][0-9]{0,8}")
_COMMIT_ID = re.compile(r"[0-9a-f]{7,40}")
_TARGET = re.compile(rb"[0-9a-f]{40}\n")
# git-check-ref-format(1); pygit2's own check keeps every name it is asked about in memory.
_REFERENCE = re.compile(
    r"refs/(?!.*(?:\.\.|//|@\{|/\.|\.lock(?:/|$)))(?!.*[./]$)[^\x00-\x20\x7f~^:?*\[\\]{1,240}", re.DOTALL
)


def is_reference_name(name: str) -> bool:
    """Whether a branch or tag can have this full name, `refs/…`."""
    try:
        return bool(_REFERENCE.fullmatch(name)) and len(name.encode()) < 250 and not name.startswith("refs/.")
    except UnicodeEncodeError:
        return False


def commit_of(repo: pygit2.Repository, revision: str) -> pygit2.Commit:
    """The commit that a branch, a tag, a full reference name or a commit id stands for.

    Raises:
        Refusal: RevisionNotFound.
    """
    for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
        commit = _reference_target(repo, name)
        if commit is not None:
            return commit
    if _COMMIT_ID.fullmatch(revision):
        try:
            found = repo.get(revision)
        except ValueError:  # several objects begin like this
            found = None
        if isinstance(found, pygit2.Commit):
            return found
    raise revision_not_found(revision)


def loose_reference(folder: Path, revision: str) -> str | None:
    """What a commit id, a branch or a tag stands for, as far as one look at one file tells.

    Returns:
        The commit, or another object that leads to one; None where it takes `commit_of` to know.
    """
    if _COMMIT_ID.fullmatch(revision) and len(revision) == 40:
        return revision  # no branch or tag is allowed such a name
    names = [f"refs/{kind}/{revision}" for kind in ("heads", "tags")]
    top = str(folder)
    if not is_reference_name(names[0]) or os.path.exists(f"{top}/packed-refs"):  # noqa: PTH110 - in haste
        return None
    for name in names:
        try:
            target = read_bytes(f"{top}/{name}")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        return target[:40].decode() if _TARGET.fullmatch(target) else None
    return None


def branch_head(repo: pygit2.Repository, branch: str) -> pygit2.Commit:
    """The newest commit of a branch or a proposal, the only kinds of revision that can be written to.

    Raises:
        Refusal: RevisionNotFound.
    """
    commit = _reference_target(repo, _head(branch))
    if commit is None:
        raise revision_not_found(branch)
    return commit


def _reference_target(repo: pygit2.Repository, name: str) -> pygit2.Commit | None:
    """The commit of a reference known by its full name.

    `revparse_single` on a name that exists, since pygit2 1.21 keeps in memory every name it is asked
    to look up as a reference.
    """
    if not is_reference_name(name) or not _has_reference(repo, name):
        return None
    try:
        return repo.revparse_single(name).peel(pygit2.Commit)
    except KeyError:  # deleted meanwhile
        return None


def _has_reference(repo: pygit2.Repository, name: str) -> bool:
    folder = Path(repo.path)
    if (folder / name).is_file():
        return True
    return (folder / "packed-refs").exists() and name.encode() in repo.raw_listall_references()


def commit_date(commit: pygit2.Commit) -> str:
    """When a commit was made, as the Hub writes times."""
    return datetime.fromtimestamp(commit.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def commit_row(commit: pygit2.Commit) -> dict[str, object]:
    """One commit as the history lists it."""
    title, _, message = commit.message.partition("\n")
    return {
        "id": str(commit.id),
        "title": title,
        "message": message.strip("\n"),
        "authors": [{"user": commit.author.name}],
        "date": commit_date(commit),
    }


def history(
    repo: pygit2.Repository, commit: pygit2.Commit, start: int, count: int
) -> Iterator[pygit2.Commit]:
    """Commits from a commit back, newest first."""
    for index, each in enumerate(repo.walk(commit.id)):
        if index >= start + count:
            return
        if index >= start:
            yield each


def list_references(repo: pygit2.Repository, proposals: bool = False) -> dict[str, list[dict[str, str]]]:
    """Branches, tags and conversions, each with the commit it stands for (never the tag object).

    Args:
        repo: The repository.
        proposals: Also list what has been proposed, under its full name.
    """
    folders = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/convert/": "converts"}
    if proposals:
        folders[_PROPOSALS] = "pullRequests"
    rows: dict[str, list[dict[str, str]]] = {key: [] for key in folders.values()}
    for reference in sorted(repo.listall_reference_objects(), key=lambda each: each.name):
        for folder, key in folders.items():
            if reference.name.startswith(folder):
                name = reference.name if folder == _PROPOSALS else reference.name.removeprefix(folder)
                target = str(reference.peel(pygit2.Commit).id)
                rows[key].append({"name": name, "ref": reference.name, "targetCommit": target})
    return rows


def create_branch(repo: pygit2.Repository, branch: str, start: str) -> None:
    """Create a branch at a revision.

    Raises:
        Refusal: 409 when it exists, RevisionNotFound for the start, 400 for the name.
    """
    name = _free_name(repo, "refs/heads/", branch, "Branch")
    repo.references.create(name, commit_of(repo, start).id)


def create_tag(repo: pygit2.Repository, tag: str, revision: str, message: str, account: Account) -> None:
    """Create a tag at a revision, annotated when there is a message. Tags are never moved.

    Raises:
        Refusal: 409 when it exists, RevisionNotFound, 400 for the name.
    """
    commit = commit_of(repo, revision)
    name = _free_name(repo, "refs/tags/", tag, "Tag")
    if message:
        repo.create_tag(tag, commit.id, ObjectType.COMMIT, signature(account), message)
    else:
        repo.references.create(name, commit.id)


def delete_reference(repo: pygit2.Repository, folder: str, name: str) -> None:
    """Delete a branch (`refs/heads/`) or a tag (`refs/tags/`).

    Raises:
        Refusal: RevisionNotFound; 403 for the default branch.
    """
    full = folder + name
    if full == f"refs/heads/{DEFAULT_BRANCH}":
        raise Refusal(403, f"Cannot delete refs/heads/{DEFAULT_BRANCH}: it is the default branch")
    if _reference_target(repo, full) is None:
        raise revision_not_found(name)
    repo.references.delete(full)


def move_branch(repo: pygit2.Repository, branch: str, old: pygit2.Oid, new: pygit2.Oid) -> None:
    """Point a branch at a new commit if it still stands at the old one.

    Raises:
        Refusal: 412 when it does not.
    """
    if branch_head(repo, branch).id != old:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    repo.references.create(_head(branch), new, force=True)


def propose(repo: pygit2.Repository, commit: pygit2.Oid) -> int:
    """Keep a commit beside the branches, as a pull request does. The caller holds the repository.

    Returns:
        Its number; its revision is `refs/pr/NUMBER`.
    """
    taken = [int(name.removeprefix(_PROPOSALS)) for name in repo.references if _PROPOSAL.fullmatch(name)]
    number = max(taken, default=0) + 1
    repo.references.create(f"{_PROPOSALS}{number}", commit)
    return number


def _head(branch: str) -> str:
    """Full name of what a commit to `branch` moves."""
    return branch if _PROPOSAL.fullmatch(branch) else f"refs/heads/{branch}"


def signature(account: Account) -> pygit2.Signature:
    """Who a commit or tag is by, now."""
    return pygit2.Signature(account.user, f"{account.user}@localhost")


def _free_name(repo: pygit2.Repository, folder: str, name: object, what: str) -> str:
    if not isinstance(name, str) or not is_reference_name(folder + name):
        raise Refusal(400, f"Invalid {what.lower()} name")
    if _COMMIT_ID.fullmatch(name) and len(name) == 40:
        raise Refusal(400, f"Invalid {what.lower()} name: it looks like a commit")
    full = folder + name
    for other in repo.listall_references():
        if other == full:
            raise Refusal(409, f"Reference {full} already exists")
        if other.startswith(full + "/") or full.startswith(other + "/"):
            raise Refusal(409, f"{what} {name} conflicts with the reference {other}")
    return full
