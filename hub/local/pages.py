"""Pages for people: what is on this Hub, and each repository's card, files and history."""

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pygit2
import yaml
from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hub.local.calls import Call
from hub.local.cards import CardError, read_card, render_markdown
from hub.local.commits import CARD
from hub.local.files import File, Folder, find, find_file, last_commits, listing, read_small
from hub.local.names import KINDS, Kind, RepoName
from hub.local.refusal import Refusal, entry_not_found
from hub.local.repositories import StoredRepository
from hub.local.revisions import DEFAULT_BRANCH, commit_of, commit_row, history, list_references

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_SHOWN_ENTRIES = 500
_SHOWN_COMMITS = 50
_SHOWN_BYTES = 512 << 10
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    raise AssertionError


def _day(date: str) -> str:
    return datetime.fromisoformat(date).strftime("%d %b %Y, %H:%M")


def _version(reference: dict[str, str]) -> list[tuple[int, str]]:
    """Orders v1.10 behind v1.9."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", reference["name"])]


def _plain(value: object) -> str:
    """A value of the front matter as a person reads it."""
    if isinstance(value, str | int | float):
        return str(value)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=80).strip()


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "size": _size,
    "day": _day,
    "plain": _plain,
    "address": lambda path: quote(path, safe="/"),
    "segment": lambda revision: quote(revision, safe=""),
}


def _show(template: str, status: int = 200, **values: object) -> Response:
    return HTMLResponse(_templates.get_template(template).render(values), status, _HEADERS)


def wants_page(request: Request, segments: list[str]) -> bool:
    """Whether a browser asks for a page, so that a refusal is one too."""
    is_page = request.method == "GET" and segments[:1] not in (["api"], ["lfs"])
    return is_page and "text/html" in request.headers.get("accept", "")


def refusal_page(refusal: Refusal) -> Response:
    """A refusal as a page."""
    response = _show("refusal.html", refusal.status, refusal=refusal)
    response.headers.update({**refusal.headers, **({"X-Error-Code": refusal.code} if refusal.code else {})})
    return response


def page(call: Call, kind: Kind, segments: list[str]) -> Response:
    """The page at an address; `kind` and its own part of the address are taken apart already.

    Raises:
        Refusal: 404 for an address without a page, 401 for the one that asks for a token.
    """
    if segments == ["login"]:
        if call.account is None:
            raise Refusal(
                401, "Give a token as the password", headers={"WWW-Authenticate": 'Basic realm="Hub"'}
            )
        return RedirectResponse("/", 303)
    if len(segments) < 2:
        return _index(call, segments[0] if segments else None)
    name = RepoName(kind, *segments[:2])
    repository = call.repository(name)
    view, rest = (segments[2], segments[3:]) if len(segments) > 2 else ("card", [])
    revision, path = rest[0] if rest else DEFAULT_BRANCH, "/".join(rest[1:])
    views = {"card": _card, "tree": _tree, "blob": _file, "commits": _history, "commit": _history}
    if view not in views:
        raise Refusal(404, "There is no such page")
    return views[view](repository, revision, path)


def _index(call: Call, namespace: str | None) -> Response:
    groups: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for name in call.hub.repositories.names(namespace=namespace):
        try:
            repository = call.repository(name)
            commit = commit_of(repository.git, DEFAULT_BRANCH)
        except Refusal:  # private to others, or deleted meanwhile
            continue
        tags = sorted(list_references(repository.git)["tags"], key=_version)
        card = _readable_card(repository.git, commit)
        groups[name.kind].append(
            {
                "name": name,
                "facts": repository.facts,
                "commit": commit_row(commit),
                "tag": tags[-1]["name"] if tags else None,
                "title": (card or {}).get("title") or (card or {}).get("pretty_name"),
            }
        )
    if namespace is not None and not any(groups.values()):
        raise Refusal(404, "There is no such namespace, or nothing in it that you may see")
    for rows in groups.values():
        rows.sort(key=lambda row: str(row["commit"]["date"]), reverse=True)
    return _show("index.html", groups=groups, namespace=namespace, account=call.account)


def _frame(repository: StoredRepository, revision: str, commit: pygit2.Commit, view: str) -> dict[str, Any]:
    """What every page of a repository shows."""
    name = repository.name
    return {
        "name": name,
        "facts": repository.facts,
        "home": f"/{name.prefix}{name.id}",
        "revision": revision,
        "commit": commit_row(commit),
        "references": {
            kind: sorted(rows, key=_version) for kind, rows in list_references(repository.git).items()
        },
        "view": view,
    }


def _card(repository: StoredRepository, revision: str, path: str) -> Response:
    repo = repository.git
    commit = commit_of(repo, revision)
    frame = _frame(repository, revision, commit, "card")
    content = read_small(repo, commit, CARD)
    text, data, problem = (content or b"").decode("utf-8", "replace"), None, None
    try:
        card = read_card(text)
        data, text = card.data, card.text
    except CardError as error:
        problem = str(error)
    files = [entry for entry in listing(repo, commit, recursive=True) if isinstance(entry, File)]
    base = f"{frame['home']}/resolve/{quote(revision, safe='')}/"
    return _show(
        "card.html",
        **frame,
        card=render_markdown(text, base) if content is not None else None,
        data={key: value for key, value in (data or {}).items() if key != "model-index"},
        results=list(_results((data or {}).get("model-index"))),
        problem=problem,
        sdk=(data or {}).get("sdk") or repository.facts.sdk,
        files=files[:_SHOWN_ENTRIES],
        count=len(files),
        total=sum(file.size for file in files),
        commits=[commit_row(each) for each in history(repo, commit, 0, 5)],
    )


def _results(index: object) -> Iterable[dict[str, str]]:
    """The rows of a `model-index`, as far as it has the expected form."""
    for model in index if isinstance(index, list) else []:
        for result in model.get("results") or [] if isinstance(model, dict) else []:
            parts = [result.get(part) if isinstance(result, dict) else None for part in ("task", "dataset")]
            task, dataset = (part if isinstance(part, dict) else {} for part in parts)
            for metric in result.get("metrics") or [] if isinstance(result, dict) else []:
                if isinstance(metric, dict):
                    yield {
                        "task": str(task.get("name") or task.get("type") or ""),
                        "dataset": str(dataset.get("name") or dataset.get("type") or ""),
                        "split": str(dataset.get("split") or ""),
                        "metric": str(metric.get("name") or metric.get("type") or ""),
                        "value": _plain(metric.get("value")),
                    }


def _tree(repository: StoredRepository, revision: str, path: str) -> Response:
    repo = repository.git
    commit = commit_of(repo, revision)
    entries = list(listing(repo, commit, path))
    entries.sort(key=lambda entry: (isinstance(entry, File), entry.path))
    shown = entries[:_SHOWN_ENTRIES]
    return _show(
        "tree.html",
        **_frame(repository, revision, commit, "tree"),
        path=path,
        trail=_trail(path),
        entries=[(entry, isinstance(entry, Folder)) for entry in shown],
        hidden=len(entries) - len(shown),
        last=last_commits(repo, commit, [entry.path for entry in shown]),
    )


def _file(repository: StoredRepository, revision: str, path: str) -> Response:
    repo = repository.git
    commit = commit_of(repo, revision)
    if isinstance(find(repo, commit, path), Folder):
        return _tree(repository, revision, path)
    file = find_file(repo, commit, path)
    content = read_small(repo, commit, path, _SHOWN_BYTES)
    text = content.decode("utf-8", "replace") if content is not None and b"\0" not in content else None
    return _show(
        "file.html",
        **_frame(repository, revision, commit, "tree"),
        path=path,
        trail=_trail(path),
        file=file,
        text=text,
        is_image=path.lower().endswith(_IMAGES),
        last=last_commits(repo, commit, [path]).get(path),
    )


def _history(repository: StoredRepository, revision: str, path: str) -> Response:
    if path:
        raise entry_not_found(path)
    repo = repository.git
    commit = commit_of(repo, revision)
    commits = [commit_row(each) for each in history(repo, commit, 0, _SHOWN_COMMITS + 1)]
    return _show(
        "history.html",
        **_frame(repository, revision, commit, "commits"),
        commits=commits[:_SHOWN_COMMITS],
        more=len(commits) > _SHOWN_COMMITS,
    )


def _trail(path: str) -> list[tuple[str, str]]:
    """The folders above a path and itself: name and path of each."""
    parts = path.split("/") if path else []
    return [(part, "/".join(parts[: number + 1])) for number, part in enumerate(parts)]


def _readable_card(repo: pygit2.Repository, commit: pygit2.Commit) -> dict[str, Any] | None:
    try:
        return read_card((read_small(repo, commit, CARD) or b"").decode("utf-8", "replace")).data
    except CardError:
        return None
