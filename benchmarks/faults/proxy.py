"""A reverse proxy on loopback that lets the requests between a client and a Hub fail as a schedule says.

The Hub builds every address that it hands out from the Host header, and the proxy passes that on as it came;
so uploads and downloads of large files, pages of a listing and git pass through it as well.
"""

import contextlib
import http.client
import multiprocessing
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Self
from urllib.parse import urlsplit

from benchmarks.faults.schedule import Fault, Schedule

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}
_NEEDS_BODY = {"truncated", "short", "wrong"}
_STALL_SECONDS = 15.0
_RETRY_AFTER = "1"


@dataclass(frozen=True)
class Applied:
    """A fault that happened.

    Attributes:
        number: Of the request, from 0.
        kind: See `schedule.KINDS`.
        late: Whether the Hub had carried the request out.
        request: Method and path, without the query.
    """

    number: int
    kind: str
    late: bool
    request: str


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: str | None
    """Content-Length as the Hub said it: of a HEAD it is not that of the body."""


class FaultProxy:
    """The proxy, in threads of this process. As a context manager it is closed on leaving.

    Args:
        upstream: Address of the Hub.

    Attributes:
        url: Its own address.
        applied: Faults that happened since the last `load`.
        requests: Requests since then.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None and parts.port is not None
        self.upstream = (parts.hostname, parts.port)
        self.applied: list[Applied] = []
        self.requests = 0
        self._schedule: Schedule = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def load(self, schedule: Schedule) -> None:
        """Begin a new run: requests are counted from 0 again."""
        with self._lock:
            self._schedule, self.applied, self.requests = dict(schedule), [], 0

    def next(self) -> tuple[int, Fault | None]:
        """Number of the request that has come, and its fault."""
        with self._lock:
            number = self.requests
            self.requests += 1
            return number, self._schedule.pop(number, None)

    def defer(self, fault: Fault) -> None:
        """Keep a fault that could do nothing to its request, as an answer without a body, for a later one."""
        with self._lock:
            number = self.requests
            while number in self._schedule:
                number += 1
            self._schedule[number] = fault

    def note(self, number: int, fault: Fault, request: str) -> None:
        """Write down that a fault happened."""
        with self._lock:
            self.applied.append(Applied(number, fault.kind, fault.late, request))


class ProxyProcess:
    """The proxy in a process of its own, so that the one that starts it has no threads and may fork.

    Args:
        upstream: Address of the Hub.

    Attributes:
        url: The proxy's address.
    """

    def __init__(self, upstream: str) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(upstream, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.url: str = self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def load(self, schedule: Schedule) -> None:
        """Begin a new run with a schedule."""
        self._pipe.send(schedule)
        self._pipe.recv()

    def seen(self) -> tuple[int, list[Applied]]:
        """How many requests have come since `load`, and which faults happened."""
        self._pipe.send(None)
        seen: tuple[int, list[Applied]] = self._pipe.recv()
        return seen


def _serve(upstream: str, pipe: Connection) -> None:
    with FaultProxy(upstream) as proxy, contextlib.suppress(EOFError, KeyboardInterrupt):
        pipe.send(proxy.url)
        while True:
            asked = pipe.recv()
            if asked is not None:
                proxy.load(asked)
            pipe.send((proxy.requests, proxy.applied))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what this is about; nothing is printed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def relay(self) -> None:
        """Answer one request with the Hub's answer, or what the schedule makes of it."""
        body = b"".join(self._body())
        number, fault = self.server.proxy.next()
        if fault is None:
            self._send(self._ask(body))
            return
        sends = self.command == "PUT" and fault.kind == "wrong"
        if sends and body:
            self._note(number, fault)
            self._send(self._ask(_altered(body, fault.place)))
            return
        acts = fault.late or fault.kind in _NEEDS_BODY | {"duplicate"}
        answer = self._ask(body) if acts else None
        if fault.kind in _NEEDS_BODY and not (answer and answer.body):
            self.server.proxy.defer(fault)
            assert answer is not None
            self._send(answer)
            return
        self._note(number, fault)
        self._fail(fault, body, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = relay

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _note(self, number: int, fault: Fault) -> None:
        self.server.proxy.note(number, fault, f"{self.command} {self.path.partition('?')[0]}")

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield self.rfile.read(int(self.headers.get("content-length", 0)))

    def _ask(self, body: bytes) -> _Answer:
        """The Hub's answer; a Hub that is not there ends the connection."""
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            if body or self.command in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP]
            return _Answer(response.status, headers, response.read(), response.headers["Content-Length"])

    def _send(self, answer: _Answer, part: bytes | None = None) -> None:
        """Send an answer, or its head and only a part of its body."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.command == "HEAD" and answer.length is not None:
            self.send_header("Content-Length", answer.length)
        elif answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if part is None else part)

    def _fail(self, fault: Fault, body: bytes, answer: _Answer | None) -> None:
        kept = answer.body[: int(fault.place * len(answer.body))] if answer else b""
        if fault.kind in ("429", "500", "503"):
            after = [("Retry-After", _RETRY_AFTER)] if fault.kind == "429" else []
            self._send(_Answer(int(fault.kind), after, b'{"error": "on purpose"}', None))
        elif fault.kind == "duplicate":
            self._send(self._ask(body))
        elif fault.kind == "wrong" and answer:
            self._send(_replaced(answer, _altered(answer.body, fault.place)))
        elif fault.kind == "short" and answer:
            self._send(_replaced(answer, kept))
        else:
            if answer:
                self._send(answer, kept)
            self._break_off(fault.kind)

    def _break_off(self, kind: str) -> None:
        self.close_connection = True
        if kind == "stall":
            self._wait_for_client()
        elif kind == "reset":
            # The descriptor itself, closed without a farewell: the client gets a reset, not an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def _wait_for_client(self) -> None:
        """Say nothing until the client has given up."""
        until = time.monotonic() + _STALL_SECONDS
        while time.monotonic() < until:
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return


def _replaced(answer: _Answer, body: bytes) -> _Answer:
    return _Answer(answer.status, answer.headers, body, str(len(body)))


def _altered(body: bytes, place: float) -> bytes:
    at = int(place * len(body))
    return body[:at] + bytes([body[at] ^ (1 + at % 255)]) + body[at + 1 :]
