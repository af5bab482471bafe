"""One request: its address taken apart, its body read within limits, its account, its answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hub.local.accounts import Account, Accounts
from hub.local.limits import Limits
from hub.local.names import RepoName
from hub.local.refusal import Refusal, repository_not_found
from hub.local.repositories import Repositories, StoredRepository
from hub.local.signing import AddressSigner

_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


@dataclass(frozen=True)
class Hub:
    """What all requests share."""

    repositories: Repositories
    accounts: Accounts
    signer: AddressSigner
    limits: Limits


def segments_of(raw_path: bytes) -> list[str]:
    """The parts between slashes, each unquoted on its own: `%2F` stays inside its part.

    Raises:
        Refusal: 400 for what is not UTF-8 or holds a NUL.
    """
    try:
        parts = [unquote_to_bytes(part).decode("utf-8") for part in raw_path.split(b"?")[0].split(b"/")[1:]]
    except UnicodeDecodeError:
        raise Refusal(400, "Invalid address: not UTF-8") from None
    if any("\0" in part for part in parts):
        raise Refusal(400, "Invalid address: NUL")
    return parts


class Call:
    """A request with its account.

    Args:
        hub: What all requests share.
        request: The request.
        account: Who asks; None for anybody.
    """

    def __init__(self, hub: Hub, request: Request, account: Account | None) -> None:
        self.hub, self.request, self.account = hub, request, account
        self.body = b""

    @property
    def base(self) -> str:
        """Scheme and host as the client wrote them, so that another device gets an address it can reach.

        Raises:
            Refusal: 400 for a Host header that is none.
        """
        host = self.request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise Refusal(400, "Invalid Host header")
        return f"{self.request.scope.get('scheme', 'http')}://{host}"

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query_params.get(name, default)

    def flag(self, name: str) -> bool:
        """A query parameter that is true or false."""
        return self.query(name).lower() in ("1", "true", "yes")

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a number."""
        value = self.query(name)
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else default

    def next_link(self, change: dict[str, str] | None) -> dict[str, str]:
        """The header that names the next page: this address with a query changed; None: there is none."""
        if change is None:
            return {}
        query = [(key, value) for key, value in self.request.query_params.multi_items() if key not in change]
        path = self.request.scope["raw_path"].decode("ascii").split("?")[0]
        return {"Link": f'<{self.base}{path}?{urlencode(query + list(change.items()))}>; rel="next"'}

    def repository(self, name: RepoName, write: bool = False) -> StoredRepository:
        """A repository that this account may read, or write.

        Raises:
            Refusal: RepoNotFound where it may not even know of it; 401 or 403 where it may not write.
        """
        repository = self.hub.repositories.open(name)
        if repository.facts.private and not (self.account and self.account.belongs_to(name.namespace)):
            raise repository_not_found()
        if write:
            self.check_write(name.namespace)
        return repository

    def check_write(self, namespace: str) -> Account:
        """The account, if it may change a namespace's repositories.

        Raises:
            Refusal: 401 without an account, 403 for one without the right.
        """
        if self.account is None:
            raise Refusal(401, "Invalid username or password.", headers={"WWW-Authenticate": "Bearer"})
        if not self.account.may_write(namespace):
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace}")
        return self.account

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            Refusal: 408 after a long silence.
        """
        stream = self.request.stream().__aiter__()
        while True:
            try:
                async with asyncio.timeout(self.hub.limits.stall_seconds):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Refusal(408, "The request stalled") from None
            except ClientDisconnect:
                raise Refusal(400, "The client went away") from None
            if chunk:
                yield chunk

    async def read_body(self) -> None:
        """Read an ordinary body into `body`.

        Raises:
            Refusal: 413 for one that is too large.
        """
        headers = self.request.headers
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > self.hub.limits.json_bytes:
                raise Refusal(413, f"Request of more than {self.hub.limits.json_bytes} bytes")
        self.body = bytes(body)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object.

        Raises:
            Refusal: 400 for anything else.
        """
        try:
            value = json.loads(self.body) if self.body else {}
        except (ValueError, RecursionError):
            raise Refusal(400, "Invalid JSON") from None
        if not isinstance(value, dict):
            raise Refusal(400, "Invalid JSON: expected an object")
        return value

    def form(self) -> list[tuple[str, str]]:
        """The body as a form.

        Raises:
            Refusal: 400 for anything else.
        """
        try:
            return parse_qsl(self.body.decode("utf-8"), keep_blank_values=True, max_num_fields=100_000)
        except ValueError:
            raise Refusal(400, "Invalid form") from None

    @property
    def is_json(self) -> bool:
        """Whether the body says that it is JSON."""
        return "json" in self.request.headers.get("content-type", "")


def answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return JSONResponse(content, status, headers)


def refuse(refusal: Refusal) -> Response:
    """A refusal as a response, with the headers that clients read."""
    message = refusal.message.encode("utf-8", "replace").decode()
    headers = {
        "X-Error-Message": quote(message, safe=" !\"#$&'()*+,/:;<=>?@[]^_`{|}~")[:1000],
        **refusal.headers,
    }
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": message, **refusal.body}, refusal.status, headers)
