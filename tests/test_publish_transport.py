"""A Hub that goes silent, or answers in the middle of nowhere, is given up in time."""

import socket
import threading
import time

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from eisv_lumen.hub_client import HubUnreachableError
from hub import transport
from hub.parallel import Workers
from hub.retry import Asking, Patience


@pytest.fixture
def silent():
    """A server that takes connections and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    taken = []

    def take() -> None:
        while True:
            try:
                taken.append(server.accept())
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()


def fresh_client(monkeypatch):
    """The client as it was before anything limited it; sessions of before are not used again."""
    http = transport._http
    old = hasattr(http, "configure_http_backend")
    name = "_GLOBAL_BACKEND_FACTORY" if old else "_GLOBAL_CLIENT_FACTORY"
    default = http._default_backend_factory if old else http.default_client_factory
    monkeypatch.setattr(http, name, default)


@pytest.fixture(autouse=True)
def sessions_of_one_test():
    yield
    getattr(transport._http, "reset_sessions", getattr(transport._http, "close_session", None))()


@pytest.mark.parametrize("workers", [1, 2])
def test_silence_ends_in_every_thread(silent, monkeypatch, workers):
    fresh_client(monkeypatch)
    transport.limit_silence(0.3)
    asking = Asking(silent, patience=Patience(attempts=2, first=0.01))
    api = HfApi(endpoint=silent, token="hf_x")
    started = time.monotonic()
    with Workers(workers) as threads, pytest.raises(HubUnreachableError):
        threads.each(lambda repo: asking("read", lambda: api.list_repo_refs(repo)), ["a/b", "a/c"])
    assert time.monotonic() - started < 30


def test_limiting_twice_wraps_once():
    transport.limit_silence()
    session = get_session()
    transport.limit_silence()
    assert get_session() is session


def test_workers_keep_order_and_pass_on_what_failed():
    with Workers(3) as threads:
        assert threads.each(lambda n: n * n, range(10)) == [n * n for n in range(10)]
        with pytest.raises(ZeroDivisionError):
            threads.each(lambda n: 1 // n, [1, 0, 2])
