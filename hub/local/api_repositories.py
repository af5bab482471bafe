"""Repositories as the client sees them: made, listed, described, moved and deleted."""

from functools import cache
from typing import Any, get_args

from starlette.responses import Response

from hub.local.calls import Call, answer
from hub.local.cards import card_data
from hub.local.commits import ATTRIBUTES, CARD, first_commit
from hub.local.files import File, listing, read_small
from hub.local.names import Kind, RepoName, is_repo_part, kind_of
from hub.local.patterns import DEFAULT_ATTRIBUTES
from hub.local.refusal import Refusal, repository_not_found
from hub.local.repositories import StoredRepository
from hub.local.revisions import DEFAULT_BRANCH, commit_date, commit_of

_SDKS = ("gradio", "docker", "static", "streamlit")


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
    start, count = call.number("cursor", 0), min(call.number("limit", 1000), 1000)
    more = {"cursor": str(start + count)} if start + count < len(rows) else None
    shown = [_expanded(row, expand) for row in rows[start : start + count]]
    return answer(shown, headers=call.next_link(more))


def repository_info(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET a repository at revision/R."""
    row = repository_row(call.repository(name), rest[0], blobs=call.flag("blobs"))
    return answer(_expanded(row, _expand(call, name.kind)))


def space_runtime(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET runtime of a Space, which never runs here."""
    call.repository(name)
    if name.kind != "spaces":
        raise repository_not_found()
    return answer(_RUNTIME)


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
