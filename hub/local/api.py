"""The JSON interface that `huggingface_hub` speaks: which address is answered by what."""

from collections.abc import Callable
from typing import Any

from starlette.responses import PlainTextResponse, Response

from hub.local import api_files, api_repositories, api_revisions
from hub.local.calls import Call, answer
from hub.local.cards import card_problems
from hub.local.names import RepoName, kind_of
from hub.local.refusal import Refusal

Handler = Callable[[Call, RepoName, list[str]], Response]


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


def check_access(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET auth-check."""
    call.repository(name)
    return answer({})


def refuse_xet(call: Call, name: RepoName, rest: list[str]) -> Response:
    """GET xet-write-token and xet-read-token, for which newer clients ask before they upload."""
    call.repository(name)
    raise Refusal(404, "The local Hub has no xet storage: set HF_HUB_DISABLE_XET=1")


# (method, word after the repository, least number of parts behind it)
REPOSITORY_ROUTES: dict[tuple[str, str], tuple[Handler, int]] = {
    ("GET", "revision"): (api_repositories.repository_info, 1),
    ("GET", "tree"): (api_files.list_tree, 1),
    ("POST", "paths-info"): (api_files.paths_info, 1),
    ("GET", "refs"): (api_revisions.list_refs, 0),
    ("GET", "commits"): (api_revisions.list_commits, 1),
    ("POST", "branch"): (api_revisions.add_branch, 1),
    ("DELETE", "branch"): (api_revisions.remove_branch, 1),
    ("POST", "tag"): (api_revisions.add_tag, 1),
    ("DELETE", "tag"): (api_revisions.remove_tag, 1),
    ("POST", "preupload"): (api_files.preupload, 1),
    ("POST", "super-squash"): (api_revisions.super_squash, 1),
    ("PUT", "settings"): (api_repositories.change_settings, 0),
    ("GET", "auth-check"): (check_access, 0),
    ("GET", "runtime"): (api_repositories.space_runtime, 0),
    ("GET", "xet-write-token"): (refuse_xet, 1),
    ("GET", "xet-read-token"): (refuse_xet, 1),
}
TOP_ROUTES: dict[tuple[str, str], Callable[[Call], Response]] = {
    ("GET", "whoami-v2"): whoami,
    ("POST", "validate-yaml"): validate_yaml,
    ("POST", "repos/create"): api_repositories.create_repository,
    ("DELETE", "repos/delete"): api_repositories.delete_repository,
    ("POST", "repos/move"): api_repositories.move_repository,
}
