"""The unmodified `huggingface_hub` client, with its failures worded and typed.

`huggingface_hub` raises requests' errors up to 0.36, httpx' from 1.0 and httpx2's later; all are met here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eisv_lumen.errors import ConfigurationError, HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLE = "HF_TOKEN"
_TRANSPORTS = ("requests.", "httpx", "httpcore", "urllib3", "h11", "h2")


class HubUnreachableError(HubError):
    """No answer came from the Hub: no network, no server, or one that is overloaded."""


class HubNotFoundError(HubError):
    """The Hub has no such repository, revision or file, or hides it from this token."""


class HubConflictError(HubError):
    """Somebody else changed the branch meanwhile (412), or the name is taken (409)."""


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
    status = _status(error)
    if status is not None:
        return _of_status(status, what, endpoint)
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "FileMetadataError"}:
        cause = error.__cause__ or error.__context__
        deeper = _translate(cause, what, endpoint) if isinstance(cause, Exception) else None
        return deeper or _unreachable(error, what, endpoint)
    if names & {"EntryNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}:
        return _of_status(404, what, endpoint)
    if "HFValidationError" in names:
        return HubError(
            found=f"a repository name that the client refuses, to {what}",
            expected="namespace/name of letters, digits, - _ .",
            next="correct the names in the recipe",
        )
    if type(error).__module__.startswith(_TRANSPORTS) or isinstance(error, ConnectionError | TimeoutError):
        return _unreachable(error, what, endpoint)
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubError(
            found=f"a truncated answer from {endpoint}, to {what}",
            expected="the whole file",
            next="run the same command again",
        )
    return None


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _unreachable(error: Exception, what: str, endpoint: str) -> HubError:
    return HubUnreachableError(
        found=f"no answer from {endpoint} ({type(error).__name__}), to {what}",
        expected="a Hub that can be reached",
        next="check the network and the Hub's address, then run the same command again",
    )


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
