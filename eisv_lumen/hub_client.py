"""The unmodified `huggingface_hub` client, with its failures worded and typed.

`huggingface_hub` raises requests' errors up to 0.36, httpx' from 1.0 and httpx2's later; all are met here.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from eisv_lumen.errors import ConfigurationError, HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLE = "HF_TOKEN"
_NOT_THERE = {"EntryNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}
_UPLOAD = "Error while uploading"
_TRANSPORTS = ("requests.", "httpx", "httpcore", "urllib3", "h11", "h2")


class HubUnreachableError(HubError):
    """No usable answer came from the Hub: it is overloaded, or its answers are lost or mangled on the way.

    Attributes:
        retry_after: Seconds that the Hub asked to wait (Retry-After), where it did.
        offline: Whether no connection could be made at all: no network, no name service, no server.
    """

    retry_after: float | None = None
    offline = False


class HubNotFoundError(HubError):
    """The Hub has no such repository, revision or file, or hides it from this token."""


class HubConflictError(HubError):
    """Somebody else changed the branch meanwhile (412), or the name is taken (409)."""


@dataclass(frozen=True)
class Refs:
    """What a repository's tags and branches point to: a commit by name."""

    tags: dict[str, str]
    branches: dict[str, str]


def read_refs(endpoint: str, token: str | None, repo_id: str) -> Refs:
    """Tags and branches of a model repository, in one request.

    `HfApi.list_repo_refs` would wait for ever for a server that went silent; this waits as long as the client
    waits for a file's metadata (HF_HUB_ETAG_TIMEOUT).

    Args:
        endpoint: Address of the Hub.
        token: None sends none.
        repo_id: `namespace/name`.
    """
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT as SECONDS
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers(token=token or False)
    response = get_session().get(f"{endpoint}/api/models/{repo_id}/refs", headers=headers, timeout=SECONDS)
    hf_raise_for_status(response)
    found = response.json()
    tags, branches = (
        {str(ref["name"]): str(ref["targetCommit"]) for ref in found[kind]} for kind in ("tags", "branches")
    )
    return Refs(tags, branches)


def client(endpoint: str | None = None, token: str | None = None) -> "HfApi":
    """An `HfApi` for an endpoint.

    Args:
        endpoint: Address of the Hub; by default the client's own (HF_ENDPOINT, or the public Hub).
        token: None sends none at all, so that a token kept for one Hub never reaches another.
    """
    from huggingface_hub import HfApi

    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(
            found=f"Hub address {endpoint!r}",
            expected="an address that starts with http:// or https://",
            next="pass the whole address, such as http://127.0.0.1:8000",
        )
    return HfApi(endpoint=endpoint.rstrip("/") if endpoint else None, token=token or False)


def read_token(file: Path | None = None) -> str | None:
    """The token in a file, or in HF_TOKEN; None where there is none.

    Raises:
        ConfigurationError: The file is unreadable, or what was found cannot be a token.
    """
    place = TOKEN_VARIABLE if file is None else str(file)
    try:
        token = (os.environ.get(TOKEN_VARIABLE, "") if file is None else file.read_text("utf-8")).strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            found=f"{file}: {getattr(error, 'strerror', None) or 'not a text file'}",
            expected="a file with a Hub token",
            next="pass another --token-file or set HF_TOKEN",
        ) from None
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(
            found=f"{place} holds something else than a token",
            expected="one line of printable characters",
            next="copy the token again",
        )
    if not token and file is not None:
        raise ConfigurationError(
            found=f"{place} is empty", expected="a Hub token", next="copy the token into it"
        )
    return token or None


@contextmanager
def hub_errors(what: str, endpoint: str) -> Iterator[None]:
    """Turn the client's exceptions into a `HubError` that says what was being done.

    Args:
        what: Such as "create hikewa/eisv-lumen-student".
        endpoint: Address shown in the message.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        translated = _translate(error, what, endpoint)
        if translated is None:
            raise
        # The cause is dropped: request objects in it carry the token.
        raise translated from None


def _translate(error: Exception, what: str, endpoint: str) -> HubError | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _NOT_THERE and not names & {"LocalEntryNotFoundError", "GatedRepoError"}:
        # By its class: without a token the Hub answers 401 for what does not exist, or is private.
        return _of_status(404, what, endpoint)
    if type(error) is RuntimeError and str(error).startswith(_UPLOAD):
        return _of_upload(error, what, endpoint)
    status = _status(error)
    if status is not None:
        translated = _of_status(status, what, endpoint)
        if isinstance(translated, HubUnreachableError):
            translated.retry_after = retry_after(error)
        return translated
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "FileMetadataError"}:
        cause = error.__cause__ or error.__context__
        deeper = _translate(cause, what, endpoint) if isinstance(cause, Exception) else None
        return deeper or _unreachable(error, what, endpoint)
    if "HFValidationError" in names:
        return HubError(
            found=f"a repository name that the client refuses, to {what}",
            expected="namespace/name of letters, digits, - _ .",
            next="correct the names in the recipe",
        )
    if type(error).__module__.startswith(_TRANSPORTS) or isinstance(error, ConnectionError | TimeoutError):
        return _unreachable(error, what, endpoint)
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubUnreachableError(
            found=f"a truncated answer from {endpoint}, to {what}",
            expected="the whole file",
            next="run the same command again",
        )
    if isinstance(error, json.JSONDecodeError):
        return HubUnreachableError(
            found=f"an answer from {endpoint} that is no JSON, to {what}",
            expected="a Hub's answer",
            next="check the Hub's address, and whether the network asks for a log-in",
        )
    return None


def _of_upload(error: RuntimeError, what: str, endpoint: str) -> HubError:
    """The client wraps what went wrong with a large file."""
    cause = error.__cause__
    deeper = _translate(cause, what, endpoint) if isinstance(cause, Exception) else None
    if isinstance(deeper, HubUnreachableError) or (cause is not None and _status(cause) in (401, 403, 404)):
        return deeper or _unreachable(error, what, endpoint)
    # The bytes here are right, so they were spoilt on the way: worth another attempt.
    return HubUnreachableError(
        found=f"{endpoint} refused the bytes of a large file that reached it, to {what}",
        expected="the bytes that were sent",
        next="check the network, then run the same command again",
    )


def retry_after(error: Exception) -> float | None:
    """Seconds that a response's Retry-After asks to wait: a number of them, or a date."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("Retry-After") if headers is not None else None
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _unreachable(error: Exception, what: str, endpoint: str) -> HubUnreachableError:
    unreachable = HubUnreachableError(
        found=f"no answer from {endpoint} ({type(error).__name__}), to {what}",
        expected="a Hub that can be reached",
        next="check the network and the Hub's address, then run the same command again",
    )
    unreachable.offline = _never_connected(error)
    return unreachable


def _never_connected(error: BaseException) -> bool:
    """Whether no connection came about, in the words of urllib3 below requests, or of httpx."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"NewConnectionError", "NameResolutionError", "ConnectError", "OfflineModeIsEnabled"}:
        return True
    reason = getattr(error, "reason", None) or next(iter(error.args), None)
    return isinstance(reason, Exception) and reason is not error and _never_connected(reason)


def _of_status(status: int, what: str, endpoint: str) -> HubError:
    if status in (401, 403):
        return HubError(
            found=f"{endpoint} refused the token ({status}), to {what}",
            expected="a token with the right to do that",
            next="set HF_TOKEN or pass --token-file with a valid token",
        )
    if status == 404:
        return HubNotFoundError(
            found=f"{endpoint} has nothing there (404), to {what}",
            expected="an existing repository, revision and file",
            next="check the repository's name and the token's rights",
        )
    if status in (409, 412):
        return HubConflictError(
            found=f"somebody else changed the repository meanwhile ({status}), to {what}",
            expected="the state that was read before",
            next="run the same command again; it reads the new state first",
        )
    if status == 429 or status >= 500:
        return HubUnreachableError(
            found=f"{endpoint} is overloaded or broken ({status}), to {what}",
            expected="a working Hub",
            next="wait a little, then run the same command again",
        )
    return HubError(
        found=f"{endpoint} answered {status}, to {what}",
        expected="a request that it accepts",
        next="read what the Hub's log says about the request",
    )
