"""Time limits for the Hub client's connections: of itself it waits for ever for a server that went silent."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub.utils import _http as _client_http

SECONDS = 60.0
"""Longest silence of a server, in the middle of an answer too."""

_BLOCK = 1 << 16
_SENT = 1 << 18
"""Bytes of a file sent at once; of itself the client takes 16 KiB, which keeps it busier than the Hub."""
_MARK = "_limited"
_END: ContextVar[float] = ContextVar("end", default=math.inf)
_http: Any = _client_http  # other names in other versions


def limit_silence(seconds: float = SECONDS) -> None:
    """Give every connection of this process's client a time limit; again and again changes nothing.

    Both generations of the client make their connections by one factory, which is wrapped: whatever it was
    set up with, such as proxies, stays.
    """
    if hasattr(_http, "configure_http_backend"):  # on requests, up to 0.36
        make = _http._GLOBAL_BACKEND_FACTORY
        if not hasattr(make, _MARK):
            _http.configure_http_backend(_marked(lambda: _limited_session(make(), seconds)))
    else:  # on httpx, from 1.0
        make = _http._GLOBAL_CLIENT_FACTORY
        if not hasattr(make, _MARK):
            _http.set_client_factory(_marked(lambda: _limited_client(make(), seconds)))


@contextmanager
def ended_within(seconds: float) -> Iterator[None]:
    """Give up every answer to this thread that is not whole by then.

    An answer that drips in byte by byte is never silent for long. One that the client streams to a file is
    not ended: a large file takes its time.
    """
    token = _END.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _END.reset(token)


def _limited_session(session: Any, seconds: float) -> Any:
    def send_in_time(request: Any, stream: bool = False, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or seconds
        response = type(session).send(session, request, stream=True, **options)
        if not stream:
            # As it comes in: the stream's own blocks are waited for until they are full.
            parts = iter(lambda: response.raw.read1(_BLOCK, decode_content=True) or b"", b"")
            response.raw.stream = lambda *_, **__: _in_time(parts)
            with _closed_on_failure(response):
                _ = response.content  # read now, and what fails is worded by the client
        return response

    session.send = send_in_time
    import urllib3  # no part of newer clients

    if not urllib3.__version__.startswith("1."):  # where nobody could choose
        for adapter in session.adapters.values():
            adapter.poolmanager.connection_pool_kw["blocksize"] = _SENT
    session.merge_environment_settings = _remembered(session.merge_environment_settings)
    return session


def _remembered(settings: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Proxies and certificates of the environment, asked for once per host, as from 1.0 on.

    Reading the environment anew is a good part of what a small request costs the client.
    """
    known: dict[Any, dict[str, Any]] = {}

    def of_host(url: str, proxies: dict[str, str], *more: Any) -> dict[str, Any]:
        if proxies:
            return settings(url, proxies, *more)
        key = (urlsplit(url)[:2], *more)
        if key not in known:
            known[key] = settings(url, {}, *more)
        return {**known[key], "proxies": dict(known[key]["proxies"])}

    return of_host


def _limited_client(client: Any, seconds: float) -> Any:
    def send_in_time(request: Any, *, stream: bool = False, **options: Any) -> Any:
        response = type(client).send(client, request, stream=True, **options)
        if not stream:
            with _closed_on_failure(response):
                response._content = b"".join(_in_time(response.iter_bytes()))
        return response

    client.timeout, client.send = seconds, send_in_time
    return client


@contextmanager
def _closed_on_failure(response: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        response.close()
        raise


def _in_time(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        if time.monotonic() > _END.get():
            raise TimeoutError("an answer that takes too long")
        yield part


def _marked(factory: Callable[[], Any]) -> Callable[[], Any]:
    setattr(factory, _MARK, True)
    return factory
