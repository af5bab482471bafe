"""Branches, tags and commits: listed, made and removed."""

from starlette.responses import Response

from hub.local.calls import Call, answer
from hub.local.commits import squash
from hub.local.names import RepoName, checked_message
from hub.local.refusal import Refusal
from hub.local.revisions import (
    DEFAULT_BRANCH,
    commit_of,
    commit_row,
    create_branch,
    create_tag,
    delete_reference,
    history,
    list_references,
)

_COMMITS_PAGE = 50


def list_refs(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET refs."""
    return answer(list_references(call.repository(name).git, call.flag("include_prs")))


def list_commits(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET commits/R."""
    repo = call.repository(name).git
    commit = commit_of(repo, rest[0])
    page, count = call.number("p", 0), max(1, min(call.number("limit", _COMMITS_PAGE), 1000))
    commits = list(history(repo, commit, page * count, count + 1))
    rows = [commit_row(each) for each in commits[:count]]
    if call.request.query_params.getlist("expand[]"):
        for row in rows:
            row["formatted"] = {"title": row["title"], "message": row["message"]}
    return answer(rows, headers=call.next_link({"p": str(page + 1)} if len(commits) > count else None))


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
