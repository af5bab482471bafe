"""Time limits for the Hub client's connections: of itself it waits for ever for a server that went silent."""

from collections.abc import Callable
from typing import Any

from huggingface_hub.utils import _http as _client_http

SECONDS = 60.0
"""Longest silence of a server, in the middle of an answer too."""

_MARK = "_limited"
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


def _limited_session(session: Any, seconds: float) -> Any:
    def send_in_time(request: Any, **options: Any) -> Any:
        return type(session).send(
            session, request, **{**options, "timeout": options.get("timeout") or seconds}
        )

    session.send = send_in_time
    return session


def _limited_client(client: Any, seconds: float) -> Any:
    client.timeout = seconds
    return client


def _marked(factory: Callable[[], Any]) -> Callable[[], Any]:
    setattr(factory, _MARK, True)
    return factory
