"""The files of a revision: listed, looked up, and where new ones are to be sent."""

import base64
import binascii
from collections.abc import Iterable
from itertools import islice
from typing import Any

from starlette.responses import Response

from hub.local.calls import Call, answer
from hub.local.commits import ATTRIBUTES
from hub.local.files import File, Folder, find, last_commits, listing, page_mark, read_small
from hub.local.names import RepoName, checked_path
from hub.local.patterns import IgnoreRules, LfsRules
from hub.local.refusal import Refusal
from hub.local.repositories import StoredRepository
from hub.local.revisions import commit_of

_TREE_PAGE = 1000
_EXPANDED_PAGE = 100


def list_tree(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET tree/R[/path]."""
    repo = call.repository(name).git
    commit = commit_of(repo, rest[0])
    expand, path = call.flag("expand"), "/".join(rest[1:]).strip("/")
    count = min(call.number("limit", _TREE_PAGE), _EXPANDED_PAGE if expand else _TREE_PAGE)
    after = _decoded(call.query("cursor"))
    entries = list(islice(listing(repo, commit, path, call.flag("recursive"), after), count + 1))
    more = {"cursor": _encoded(page_mark(entries[count - 1]))} if len(entries) > count else None
    rows = _entry_rows(call.repository(name), commit, entries[:count], expand)
    return answer(rows, headers={**call.next_link(more), "X-Repo-Commit": str(commit.id)})


def paths_info(call: Call, name: RepoName, rest: list[str]) -> Response:
    """POST paths-info/R."""
    repository = call.repository(name)
    commit = commit_of(repository.git, rest[0])
    if call.is_json:
        body = call.json()
        paths, expand = body.get("paths"), body.get("expand") is True
    else:
        form = call.form()
        paths = [value for key, value in form if key == "paths"]
        expand = any(key == "expand" and value.lower() == "true" for key, value in form)
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Refusal(400, "Invalid request: paths must be an array of texts")
    found = (find(repository.git, commit, path.strip("/")) for path in paths if path.strip("/"))
    return answer(_entry_rows(repository, commit, [entry for entry in found if entry is not None], expand))


def preupload(call: Call, name: RepoName, rest: list[str]) -> Response:
    """POST preupload/R: which files git holds, which large-file storage, which are there already."""
    repository, body = call.repository(name, write=True), call.json()
    repo = repository.git
    commit = commit_of(repo, rest[0])
    rules = LfsRules(read_small(repo, commit, ATTRIBUTES) or b"")
    ignore = body.get("gitIgnore")
    if not isinstance(ignore, str):
        ignore = (read_small(repo, commit, ".gitignore") or b"").decode("utf-8", "replace")
    ignored, rows = IgnoreRules(ignore), []
    files = body.get("files")
    for file in files if isinstance(files, list) else []:
        path = checked_path(file.get("path") if isinstance(file, dict) else None)
        size = file.get("size")
        large = rules.holds(path) or not isinstance(size, int) or size > call.hub.limits.regular_file_bytes
        row: dict[str, Any] = {"path": path, "uploadMode": "lfs" if large else "regular"}
        row["shouldIgnore"] = ignored.ignores(path)
        existing = find(repo, commit, path)
        if isinstance(existing, File):
            row["oid"] = existing.etag
        rows.append(row)
    return answer({"files": rows, "commitOid": str(commit.id)})


def _entry_rows(
    repository: StoredRepository,
    commit: Any,
    entries: Iterable[File | Folder],
    expand: bool,
) -> list[dict[str, Any]]:
    rows = [_entry_row(entry) for entry in entries]
    if expand:
        last = last_commits(repository.git, commit, [row["path"] for row in rows])
        for row in rows:
            row["lastCommit"] = last.get(row["path"])
    return rows


def _entry_row(entry: File | Folder) -> dict[str, Any]:
    if isinstance(entry, Folder):
        return {"type": "directory", "oid": entry.oid, "size": 0, "path": entry.path}
    row: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.pointer:
        row["lfs"] = {"oid": entry.pointer.oid, "size": entry.size, "pointerSize": entry.blob_size}
    return row


def _encoded(mark: str) -> str:
    return base64.urlsafe_b64encode(mark.encode("utf-8", "surrogateescape")).decode()


def _decoded(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, b"-_", validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise Refusal(400, "Invalid cursor") from None
