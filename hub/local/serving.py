"""Sending content: whole or one range of it, never changed on the way."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hub.local.refusal import Refusal
from hub.local.threads import in_thread

_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def serve(request: Request, content: bytes | Path, etag: str, headers: dict[str, str]) -> Response:
    """Answer HEAD or GET for content that never changes under its ETag.

    Args:
        request: For `Range`, `If-Range` and `If-None-Match`.
        content: The bytes, or the file that holds them.
        etag: Unquoted.
        headers: Further headers.

    Raises:
        Refusal: 416 for a range outside the content.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    quoted = f'"{etag}"'
    headers = {**headers, "ETag": quoted, "Accept-Ranges": "bytes"}
    if quoted in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    start, stop, status = 0, size, 200
    if request.headers.get("if-range", quoted) == quoted:
        asked = _asked_range(request.headers.get("range", ""), size, headers)
        if asked is not None:
            (start, stop), status = asked, 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if isinstance(content, bytes):
        return Response(content[start:stop], status, headers)
    return StreamingResponse(_read(content, start, stop), status, headers)


def _asked_range(header: str, size: int, headers: dict[str, str]) -> tuple[int, int] | None:
    """First byte and the one after the last; None when the whole is to be sent."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None  # no range, several, or another unit: the standard lets the whole be sent
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= stop:
        if match[1] and match[2] and int(match[2]) < int(match[1]):
            return None
        raise Refusal(416, "Range not satisfiable", headers={**headers, "Content-Range": f"bytes */{size}"})
    return start, stop


async def _read(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while start < stop:
            chunk = await in_thread(os.pread, descriptor, min(_CHUNK, stop - start), start)
            if not chunk:
                raise OSError(f"{path.name} became shorter while it was sent")
            start += len(chunk)
            yield chunk
    finally:
        os.close(descriptor)
