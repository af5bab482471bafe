"""`git clone` and `git fetch`, served by git's own upload-pack. Nothing can be pushed this way."""

import asyncio
import contextlib
import os
import re
import signal
import zlib
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from hub.local.calls import Call
from hub.local.git import git_command, git_environment
from hub.local.names import RepoName
from hub.local.refusal import Refusal
from hub.local.repositories import StoredRepository
from hub.local.threads import in_thread

_PROTOCOL = re.compile(r"version=[0-2]")
_NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}
_CHUNK = 1 << 16


async def advertise(call: Call, name: RepoName) -> Response:
    """GET info/refs?service=git-upload-pack."""
    repository = await _readable(call, name)
    if call.query("service") != "git-upload-pack":
        raise Refusal(403, "This Hub's git is for reading: push with huggingface_hub")
    process = await _upload_pack(call, repository, "--http-backend-info-refs")
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise OSError("git upload-pack failed")
    # Version 2 of the protocol has its service line only where an old client needs it.
    head = (
        b""
        if call.request.headers.get("git-protocol") == "version=2"
        else b"001e# service=git-upload-pack\n0000"
    )
    return Response(head + out, headers=_NO_CACHE, media_type="application/x-git-upload-pack-advertisement")


async def upload_pack(call: Call, name: RepoName) -> Response:
    """POST git-upload-pack: what the client has and wants, answered with a pack."""
    repository = await _readable(call, name)
    await call.read_body()
    body = call.body
    if call.request.headers.get("content-encoding") == "gzip":
        body = await in_thread(_inflated, body, call.hub.limits.json_bytes)
    process = await _upload_pack(call, repository)
    return StreamingResponse(
        _exchange(process, body), headers=_NO_CACHE, media_type="application/x-git-upload-pack-result"
    )


async def _readable(call: Call, name: RepoName) -> StoredRepository:
    try:
        return await in_thread(call.repository, name)
    except Refusal:
        if call.account is not None:
            raise
        # git sends its credentials only when asked; absent and private repositories answer alike.
        raise Refusal(
            401, "Repository not found", headers={"WWW-Authenticate": 'Basic realm="Hub"'}
        ) from None


async def _upload_pack(call: Call, repository: StoredRepository, *options: str) -> asyncio.subprocess.Process:
    protocol = call.request.headers.get("git-protocol", "")
    more = {"GIT_PROTOCOL": protocol} if _PROTOCOL.fullmatch(protocol) else {}
    return await asyncio.create_subprocess_exec(
        *git_command("upload-pack", "--stateless-rpc", "--strict", *options, str(repository.path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=git_environment(**more),
        start_new_session=True,  # its pack-objects is ended with it
    )


async def _exchange(process: asyncio.subprocess.Process, body: bytes) -> AsyncIterator[bytes]:
    assert process.stdin is not None and process.stdout is not None
    feeding = asyncio.create_task(_feed(process.stdin, body))
    try:
        while chunk := await process.stdout.read(_CHUNK):
            yield chunk
    finally:
        feeding.cancel()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _feed(stdin: asyncio.StreamWriter, body: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(body)
        await stdin.drain()
        stdin.close()


def _inflated(body: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        content = inflater.decompress(body, limit)
    except zlib.error:
        raise Refusal(400, "Invalid gzip") from None
    if inflater.unconsumed_tail:
        raise Refusal(413, f"Request of more than {limit} bytes")
    return content
