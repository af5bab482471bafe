"""The application: finds who answers a request, and turns refusals and failures into the Hub's answers."""

import asyncio
import logging
import secrets
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from hub.local import api, api_repositories, git_http, pages, uploads
from hub.local.calls import Call, Hub, refuse, segments_of
from hub.local.durable import is_disk_full
from hub.local.names import KINDS, Kind, RepoName
from hub.local.refusal import Refusal, repository_not_found
from hub.local.resolve import FileAnswers
from hub.local.revisions import DEFAULT_BRANCH
from hub.local.threads import in_thread

logger = logging.getLogger("hub.local")

_DRAIN_BYTES = 32 << 20
_DRAIN_SECONDS = 5.0
_STYLE = Path(__file__).with_name("templates") / "hub.css"
_GIT = {("info", "refs"), ("git-upload-pack",), ("git-receive-pack",), ("info", "lfs", "objects", "batch")}


class HubApplication:
    """ASGI application of the local Hub.

    Args:
        hub: Repositories, accounts, limits.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._files = FileAnswers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request_id, begun, status = secrets.token_hex(8), time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marks = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *marks]
            await send(message)

        request = Request(scope, receive)
        response = await self._answer(request, request_id)
        await response(scope, receive, send_marked)
        # The path alone: queries carry signatures, headers carry tokens.
        path, spent = scope["raw_path"].decode("ascii", "replace"), (time.monotonic() - begun) * 1000
        logger.info("%s %s %d %.1f ms %s", request.method, path, status, spent, request_id)

    async def _answer(self, request: Request, request_id: str) -> Response:
        segments: list[str] = []
        try:
            segments = segments_of(request.scope["raw_path"])
            return await self._dispatch(request, segments)
        except Refusal as refusal:
            answer = refusal
        except OSError as error:
            logger.exception("request %s failed", request_id)
            full = is_disk_full(error)
            answer = Refusal(507, "This Hub's disk is full") if full else Refusal(500, "Internal error")
        except Exception:
            logger.exception("request %s failed", request_id)
            answer = Refusal(500, "Internal error")
        await _drain(request)
        if pages.wants_page(request, segments):
            return pages.refusal_page(answer)
        return refuse(answer)

    async def _dispatch(self, request: Request, segments: list[str]) -> Response:
        if segments[0] == "lfs":
            return await self._lfs_object(request, segments)
        if segments == ["static", "hub.css"]:
            return FileResponse(_STYLE, headers={"Cache-Control": "max-age=300"})
        if segments == ["health"]:
            return PlainTextResponse("ok")
        if segments[0] == "api":
            account = self._hub.accounts.of_header(request.headers.get("authorization"))
            return await _api(Call(self._hub, request, account), segments[1:])
        kind: Kind = "models"
        if segments[0] in KINDS:
            kind, segments = segments[0], segments[1:]  # type: ignore[assignment]
        is_git = tuple(segments[2:]) in _GIT
        basic = is_git or request.method in ("GET", "HEAD")
        account = self._hub.accounts.of_header(request.headers.get("authorization"), basic)
        call = Call(self._hub, request, account)
        if is_git:
            return await _git(
                call, RepoName(kind, segments[0], segments[1].removesuffix(".git")), segments[2:]
            )
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "Method not allowed")
        if segments[2:3] in (["resolve"], ["raw"]) and len(segments) > 4:
            name, raw = RepoName(kind, *segments[:2]), segments[2] == "raw"
            if not raw and (found := self._files.at_once(call, name, segments[3:])) is not None:
                return found
            return await in_thread(self._files.looked_up, call, name, segments[3:], raw)
        return await in_thread(pages.page, call, kind, [part for part in segments if part])

    async def _lfs_object(self, request: Request, segments: list[str]) -> Response:
        if len(segments) != 5 or request.method not in ("PUT", "GET", "HEAD"):
            raise Refusal(404, "Not found")
        name = RepoName(segments[1], segments[2], segments[3])  # type: ignore[arg-type]
        call = Call(self._hub, request, None)
        if request.method == "PUT":
            return await uploads.receive_object(call, name, segments[4])
        return await in_thread(uploads.send_object, call, name, segments[4])


async def _api(call: Call, segments: list[str]) -> Response:
    method = "GET" if call.request.method == "HEAD" else call.request.method
    top = api.TOP_ROUTES.get((method, "/".join(segments)))
    if top is not None:
        await call.read_body()
        return await in_thread(top, call)
    if not segments or segments[0] not in KINDS:
        raise Refusal(404, "Not found: this address is none of the local Hub's")
    kind: Kind = segments[0]  # type: ignore[assignment]
    if len(segments) == 1 and method == "GET":
        return await in_thread(api_repositories.list_repositories, call, kind)
    name = RepoName(kind, *(segments[1:3] if len(segments) >= 3 else ("", "")))
    rest = segments[3:]
    if method == "POST" and rest[:1] == ["commit"] and len(rest) == 2:
        return await uploads.commit(call, name, rest[1])
    # Without a word behind its name, the repository itself is meant, at its default branch.
    word, rest = (rest[0], rest[1:]) if rest else ("revision", [DEFAULT_BRANCH])
    handler, parts = api.REPOSITORY_ROUTES.get((method, word), (None, 0))
    if handler is None and (method, name.name) in api.REPOSITORY_ROUTES:
        raise repository_not_found()  # a name without a namespace: no repository here has one
    if handler is None or len(rest) < parts:
        raise Refusal(404, "Not found: this address is none of the local Hub's")
    await call.read_body()
    return await in_thread(handler, call, name, rest)


async def _git(call: Call, name: RepoName, rest: list[str]) -> Response:
    method = call.request.method
    if rest == ["info", "refs"] and method == "GET":
        return await git_http.advertise(call, name)
    if rest == ["git-upload-pack"] and method == "POST":
        return await git_http.upload_pack(call, name)
    if rest[-1] == "batch" and method == "POST":
        await call.read_body()
        return await in_thread(uploads.lfs_batch, call, name)
    raise Refusal(403, "This Hub's git is for reading: push with huggingface_hub")


async def _drain(request: Request) -> None:
    """Read what a refused client still sends, within bounds, so that it gets to read why."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size > _DRAIN_BYTES:
                    return
    except Exception:
        pass
