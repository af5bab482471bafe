"""Plain file servers to measure the local Hub against, each a process of its own."""

import http.client
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

_UVICORN = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
app = Starlette(routes=[Mount("/", StaticFiles(directory=sys.argv[1]))])
uvicorn.run(app, host="127.0.0.1", port=0, access_log=False, log_level="info")
"""
_COMMANDS = {
    "http.server": ["-u", "-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1", "0", "-d"],
    "Starlette StaticFiles on uvicorn": ["-u", "-c", _UVICORN],
}
NAMES = tuple(_COMMANDS)
_PORT = re.compile(r"127\.0\.0\.1[: ](?:port )?(\d+)")
_BLOCK = 1 << 20


@contextmanager
def serving(name: str, folder: Path) -> Iterator[str]:
    """A plain server of a folder's files; its address.

    Args:
        name: One of `NAMES`.
        folder: What it serves.
    """
    process = subprocess.Popen(
        [sys.executable, *_COMMANDS[name], str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := _PORT.search(line):
                # It logs every request, and would wait for a reader.
                threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
                yield f"http://127.0.0.1:{found[1]}"
                return
        raise RuntimeError(f"{name} did not start")
    finally:
        process.kill()
        process.wait()


def fetch(url: str) -> int:
    """Download a file, throwing its bytes away as they come; how many there were."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    assert response.status == 200, response.status
    buffer = memoryview(bytearray(_BLOCK))
    size = 0
    while count := response.readinto(buffer):
        size += count
    connection.close()
    return size
