"""The JSON interface that `huggingface_hub` speaks: repositories, files, revisions."""

import base64
import binascii
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.responses import PlainTextResponse, Response

from hub.local.calls import Call, answer
from hub.local.cards import card_data, card_problems
from hub.local.commits import ATTRIBUTES, CARD, first_commit, squash
from hub.local.files import File, Folder, find, last_commits, listing, page_mark, read_small
from hub.local.names import Kind, RepoName, checked_message, checked_path, is_repo_part, kind_of
from hub.local.patterns import DEFAULT_ATTRIBUTES, IgnoreRules, LfsRules
from hub.local.refusal import Refusal, repository_not_found
from hub.local.repositories import StoredRepository
from hub.local.revisions import (
    DEFAULT_BRANCH,
    commit_date,
    commit_of,
    commit_row,
    create_branch,
    create_tag,
    delete_reference,
    history,
    list_references,
)

Handler = Callable[[Call, RepoName, list[str]], Response]

_TREE_PAGE = 1000
_EXPANDED_PAGE = 100
_COMMITS_PAGE = 50
_SDKS = ("gradio", "docker", "static", "streamlit")


def whoami(call: Call) -> Response:
    """GET whoami-v2."""
    if call.account is None:
        raise Refusal(401, "Invalid username or password.")
    account = call.account
    token = {"displayName": f"{account.user}-{account.role}", "role": account.role}
    return answer(
        {
            "type": "user",
            "id": account.user,
            "name": account.user,
            "fullname": account.user,
            "isPro": False,
            "orgs": [{"type": "org", "name": name} for name in sorted(account.namespaces - {"*"})],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def validate_yaml(call: Call) -> Response:
    """POST validate-yaml: JSON in and out, or a form answered with text."""
    values: dict[str, Any] = call.json() if call.is_json else dict(call.form())
    content, kind = values.get("content"), kind_of(values.get("repoType"))
    if not isinstance(content, str):
        raise Refusal(400, "Invalid request: content must be a text")
    errors, warnings = card_problems(content, kind)
    if not call.is_json:
        return PlainTextResponse("\n".join(errors), 400 if errors else 200)
    rows = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }
    return answer(rows, 400 if errors else 200)


def _named(call: Call, body: dict[str, Any]) -> RepoName:
    name, namespace = body.get("name"), body.get("organization")
    if namespace is None and isinstance(name, str) and "/" in name:
        namespace, _, name = name.partition("/")
    if namespace is None and call.account is not None:
        namespace = call.account.user
    if not (
        isinstance(name, str)
        and isinstance(namespace, str)
        and is_repo_part(name)
        and is_repo_part(namespace)
    ):
        raise Refusal(400, "Invalid repository name: letters, digits, '-', '_' and '.', at most 96 of them")
    try:
        return RepoName(kind_of(body.get("type")), namespace, name)
    except Refusal as refusal:
        raise Refusal(400, "Invalid repository name: it is reserved") from refusal


def create_repository(call: Call) -> Response:
    """POST repos/create."""
    body = call.json()
    name = _named(call, body)
    account = call.check_write(name.namespace)
    sdk = body.get("sdk") if name.kind == "spaces" else None
    if name.kind == "spaces" and sdk not in _SDKS:
        raise Refusal(400, f"Invalid sdk: expected one of {', '.join(_SDKS)}")
    private = body.get("private") is True or body.get("visibility") == "private"
    url = f"{call.base}/{name.prefix}{name.id}"
    try:
        with call.hub.repositories.creating(name, private, sdk) as repository:
            first_commit(repository, _first_files(name, sdk), account)
    except Refusal as refusal:
        if refusal.status == 409:
            refusal.body = {"url": url}
        raise
    return answer({"url": url, "name": name.id, "id": name.id})


def _first_files(name: RepoName, sdk: str | None) -> dict[str, bytes]:
    files = {ATTRIBUTES: DEFAULT_ATTRIBUTES}
    if sdk:
        card = f"---\ntitle: {name.name}\nemoji: 🌱\ncolorFrom: gray\ncolorTo: green\nsdk: {sdk}\n---\n"
        files[CARD] = card.encode()
    return files


def delete_repository(call: Call) -> Response:
    """DELETE repos/delete."""
    name = _named(call, call.json())
    call.repository(name, write=True)
    call.hub.repositories.delete(name)
    return answer({})


def move_repository(call: Call) -> Response:
    """POST repos/move."""
    body = call.json()
    kind = body.get("type")
    old, new = (_named(call, {"name": body.get(key), "type": kind}) for key in ("fromRepo", "toRepo"))
    call.repository(old, write=True)
    call.check_write(new.namespace)
    call.hub.repositories.move(old, new)
    return answer({"url": f"{call.base}/{new.prefix}{new.id}"})


def list_repositories(call: Call, kind: Kind) -> Response:
    """GET /api/models, /api/datasets, /api/spaces."""
    author, search = call.query("author") or None, call.query("search").lower()
    wanted = set(call.request.query_params.getlist("filter")) | set(call.request.query_params.getlist("tags"))
    expand, gated = _expand(call, kind), call.flag("gated")
    if gated or (author is not None and not is_repo_part(author)):
        return answer([])
    rows = []
    for name in call.hub.repositories.names(kind, author):
        try:
            siblings = call.flag("full") or "siblings" in expand
            row = repository_row(call.repository(name), DEFAULT_BRANCH, siblings)
        except Refusal:  # private to others, or deleted meanwhile
            continue
        if search in name.id.lower() and wanted <= set(row["tags"]):
            rows.append(row)
    by = call.query("sort", "lastModified")
    by = by if by in ("createdAt", "lastModified", "id") else "lastModified"
    rows.sort(key=lambda row: str(row[by]), reverse=call.query("direction", "-1") == "-1")
    start, count = _number(call, "cursor", 0), min(_number(call, "limit", 1000), 1000)
    more = {"cursor": str(start + count)} if start + count < len(rows) else None
    shown = [_expanded(row, expand) for row in rows[start : start + count]]
    return answer(shown, headers=_next_link(call, more))


def repository_info(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET a repository at revision/R."""
    row = repository_row(call.repository(name), rest[0], blobs=call.flag("blobs"))
    return answer(_expanded(row, _expand(call, name.kind)))


def _expand(call: Call, kind: Kind) -> list[str]:
    """Which properties are asked for; empty: the usual ones.

    Raises:
        Refusal: 400 for one that this kind of repository never has.
    """
    expand = call.request.query_params.getlist("expand") + call.request.query_params.getlist("expand[]")
    if expand and not set(expand) <= set(_properties(kind)):
        raise Refusal(400, f'"expand" must be one of [{", ".join(_properties(kind))}]')
    return expand


@cache
def _properties(kind: Kind) -> tuple[str, ...]:
    from huggingface_hub import hf_api  # as large as this server

    kinds = {
        "models": hf_api.ExpandModelProperty_T,
        "datasets": hf_api.ExpandDatasetProperty_T,
        "spaces": hf_api.ExpandSpaceProperty_T,
    }
    return get_args(kinds[kind])


def _expanded(row: dict[str, Any], expand: list[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key in ("_id", "id", *expand)} if expand else row


def repository_row(
    repository: StoredRepository, revision: str, siblings: bool = True, blobs: bool = False
) -> dict[str, Any]:
    """What the Hub says of a repository at a revision.

    Raises:
        Refusal: RevisionNotFound.
    """
    repo, facts, name = repository.git, repository.facts, repository.name
    commit = commit_of(repo, revision)
    card = card_data(read_small(repo, commit, CARD))
    row: dict[str, Any] = {
        "_id": name.id,
        "id": name.id,
        "author": name.namespace,
        "sha": str(commit.id),
        "lastModified": commit_date(commit),
        "createdAt": facts.created,
        "private": facts.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card),
        "cardData": card,
    }
    if name.kind == "models":
        row["modelId"] = name.id
        row |= {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
    if name.kind == "spaces":
        row["sdk"] = card.get("sdk") or facts.sdk
        row["runtime"] = _RUNTIME
    if siblings:
        files = (entry for entry in listing(repo, commit, recursive=True) if isinstance(entry, File))
        row["siblings"] = [_sibling(file, blobs) for file in files]
    return row


_RUNTIME = {
    "stage": "STOPPED",
    "hardware": {"current": None, "requested": None},
    "storage": None,
    "gcTimeout": None,
}


def _tags(card: dict[str, Any]) -> list[str]:
    tags = [str(tag) for tag in _several(card.get("tags"))]
    tags += [str(card[key]) for key in ("library_name", "pipeline_tag") if card.get(key)]
    for key in ("license", "language", "datasets", "base_model", "task_categories", "size_categories"):
        prefix = {"datasets": "dataset"}.get(key, key)
        tags += [f"{prefix}:{value}" for value in _several(card.get(key))]
    return list(dict.fromkeys(tags))


def _several(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _sibling(file: File, blobs: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        row |= {"size": file.size, "blobId": file.oid}
        if file.pointer:
            row["lfs"] = {"sha256": file.pointer.oid, "size": file.size, "pointerSize": file.blob_size}
    return row


def list_tree(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET tree/R[/path]."""
    repo = call.repository(name).git
    commit = commit_of(repo, rest[0])
    expand, path = call.flag("expand"), "/".join(rest[1:]).strip("/")
    count = min(_number(call, "limit", _TREE_PAGE), _EXPANDED_PAGE if expand else _TREE_PAGE)
    after = _decoded(call.query("cursor"))
    entries = list(islice(listing(repo, commit, path, call.flag("recursive"), after), count + 1))
    more = {"cursor": _encoded(page_mark(entries[count - 1]))} if len(entries) > count else None
    rows = _entry_rows(call.repository(name), commit, entries[:count], expand)
    return answer(rows, headers={**_next_link(call, more), "X-Repo-Commit": str(commit.id)})


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


def list_refs(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET refs."""
    return answer(list_references(call.repository(name).git, call.flag("include_prs")))


def list_commits(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET commits/R."""
    repo = call.repository(name).git
    commit = commit_of(repo, rest[0])
    page, count = _number(call, "p", 0), max(1, min(_number(call, "limit", _COMMITS_PAGE), 1000))
    commits = list(history(repo, commit, page * count, count + 1))
    rows = [commit_row(each) for each in commits[:count]]
    if call.request.query_params.getlist("expand[]"):
        for row in rows:
            row["formatted"] = {"title": row["title"], "message": row["message"]}
    return answer(rows, headers=_next_link(call, {"p": str(page + 1)} if len(commits) > count else None))


def add_branch(call: Call, name: RepoName, rest: list[str]) -> Response:
    """POST branch/B."""
    start = call.json().get("startingPoint", DEFAULT_BRANCH)
    if not isinstance(start, str):
        raise Refusal(400, "Invalid startingPoint")
    call.repository(name, write=True)
    with call.hub.repositories.writing(name) as repository:
        create_branch(repository.git, rest[0], start)
    return answer({}, 201)


def add_tag(call: Call, name: RepoName, rest: list[str]) -> Response:
    """POST tag/R, where R is the revision that gets the tag."""
    body = call.json()
    tag, message = body.get("tag"), body.get("message")
    if not isinstance(tag, str) or not isinstance(message, str | None):
        raise Refusal(400, "Invalid request: tag and message must be texts")
    call.repository(name, write=True)
    account = call.check_write(name.namespace)
    with call.hub.repositories.writing(name) as repository:
        create_tag(repository.git, tag, rest[0], checked_message(message or ""), account)
    return answer({}, 201)


def remove_branch(call: Call, name: RepoName, rest: list[str]) -> Response:
    """DELETE branch/B."""
    return _remove_reference(call, name, "refs/heads/", rest[0])


def remove_tag(call: Call, name: RepoName, rest: list[str]) -> Response:
    """DELETE tag/TAG."""
    return _remove_reference(call, name, "refs/tags/", rest[0])


def _remove_reference(call: Call, name: RepoName, folder: str, reference: str) -> Response:
    call.repository(name, write=True)
    with call.hub.repositories.writing(name) as repository:
        delete_reference(repository.git, folder, reference)
    return answer({})


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


def super_squash(call: Call, name: RepoName, rest: list[str]) -> Response:
    """POST super-squash/R."""
    message = call.json().get("message") or f"Super-squash branch '{rest[0]}'"
    if not isinstance(message, str):
        raise Refusal(400, "Invalid message")
    call.repository(name, write=True)
    account = call.check_write(name.namespace)
    with call.hub.repositories.writing(name) as repository:
        squash(repository, rest[0], checked_message(message), account)
    return answer({})


def change_settings(call: Call, name: RepoName, rest: list[str]) -> Response:
    """PUT settings: private or public; gating is not this Hub's."""
    body = call.json()
    repository = call.repository(name, write=True)
    if body.get("gated") not in (None, False):
        raise Refusal(400, "The local Hub has no gated repositories")
    private = body.get("private", {"private": True, "public": False}.get(str(body.get("visibility"))))
    if isinstance(private, bool):
        call.hub.repositories.change_facts(name, private)
    return answer(
        {"private": private if isinstance(private, bool) else repository.facts.private, "gated": False}
    )


def check_access(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET auth-check."""
    call.repository(name)
    return answer({})


def space_runtime(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET runtime of a Space, which never runs here."""
    call.repository(name)
    if name.kind != "spaces":
        raise repository_not_found()
    return answer(_RUNTIME)


def refuse_xet(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET xet-write-token and xet-read-token, for which newer clients ask before they upload."""
    call.repository(name)
    raise Refusal(404, "The local Hub has no xet storage: set HF_HUB_DISABLE_XET=1")


def _number(call: Call, name: str, default: int) -> int:
    value = call.query(name)
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else default


def _next_link(call: Call, change: dict[str, str] | None) -> dict[str, str]:
    if change is None:
        return {}
    query = [(key, value) for key, value in call.request.query_params.multi_items() if key not in change]
    path = call.request.scope["raw_path"].decode("ascii").split("?")[0]
    return {"Link": f'<{call.base}{path}?{urlencode(query + list(change.items()))}>; rel="next"'}


def _encoded(mark: str) -> str:
    return base64.urlsafe_b64encode(mark.encode("utf-8", "surrogateescape")).decode()


def _decoded(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, b"-_", validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise Refusal(400, "Invalid cursor") from None


# (method, word after the repository, least number of parts behind it)
REPOSITORY_ROUTES: dict[tuple[str, str], tuple[Handler, int]] = {
    ("GET", "revision"): (repository_info, 1),
    ("GET", "tree"): (list_tree, 1),
    ("POST", "paths-info"): (paths_info, 1),
    ("GET", "refs"): (list_refs, 0),
    ("GET", "commits"): (list_commits, 1),
    ("POST", "branch"): (add_branch, 1),
    ("DELETE", "branch"): (remove_branch, 1),
    ("POST", "tag"): (add_tag, 1),
    ("DELETE", "tag"): (remove_tag, 1),
    ("POST", "preupload"): (preupload, 1),
    ("POST", "super-squash"): (super_squash, 1),
    ("PUT", "settings"): (change_settings, 0),
    ("GET", "auth-check"): (check_access, 0),
    ("GET", "runtime"): (space_runtime, 0),
    ("GET", "xet-write-token"): (refuse_xet, 1),
    ("GET", "xet-read-token"): (refuse_xet, 1),
}
TOP_ROUTES: dict[tuple[str, str], Callable[[Call], Response]] = {
    ("GET", "whoami-v2"): whoami,
    ("POST", "validate-yaml"): validate_yaml,
    ("POST", "repos/create"): create_repository,
    ("DELETE", "repos/delete"): delete_repository,
    ("POST", "repos/move"): move_repository,
}
