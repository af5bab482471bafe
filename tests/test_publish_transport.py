"""A Hub that goes silent, or answers in the middle of nowhere, is given up in time."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from eisv_lumen.hub_client import HubUnreachableError
from hub import transport
from hub.parallel import Workers
from hub.remote import Reader
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


@pytest.fixture
def dripping():
    """A server that begins to answer at once and then sends one byte after the other, for a minute."""

    class Drip(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1200")
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(1200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("what", ["a file", "refs"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_answer_that_drips_ends_in_every_thread(dripping, monkeypatch, workers, what):
    fresh_client(monkeypatch)
    transport.limit_silence()
    reader = Reader(
        HfApi(endpoint=dripping, token="hf_x"), Asking(dripping, patience=Patience(attempts=1, seconds=0.5))
    )

    def read(repo: str) -> object:
        return reader.file(repo, "model", "0" * 40, "x") if what == "a file" else reader.remote(repo, "model")

    started = time.monotonic()
    with Workers(workers) as threads, pytest.raises(HubUnreachableError):
        threads.each(read, ["a/b", "a/c"])
    assert time.monotonic() - started < 30


def test_the_newer_client_gives_up_an_answer_that_drips(dripping):
    httpx = pytest.importorskip("httpx")
    started = time.monotonic()
    with transport._limited_client(httpx.Client(), 60.0) as client:
        with transport.ended_within(0.5), pytest.raises(TimeoutError):
            client.get(dripping)
        with client.stream("GET", dripping) as response:
            assert next(response.iter_raw()).startswith(b"x")
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


@pytest.mark.skipif(not hasattr(transport._http, "configure_http_backend"), reason="on httpx from 1.0 on")
def test_proxies_of_the_environment_count_as_before(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,inner.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/a/bundle.pem")
    limited = transport._limited_session(requests.Session(), 5)
    for given in ({}, {"http": "http://mine:1"}):
        for url in (
            "http://127.0.0.1:9/x",
            "http://outer.example/x",
            "http://inner.example/y",
            "https://outer.example/",
        ):
            for _ in range(2):
                plain = requests.Session().merge_environment_settings(url, dict(given), False, None, None)
                found = limited.merge_environment_settings(url, dict(given), False, None, None)
                assert found == plain
                found["proxies"]["http"] = "http://spoiled:1"  # the caller's own to change


def test_work_goes_on_beside_the_caller_and_its_failure_is_told_when_asked_for():
    started, finish = threading.Event(), threading.Event()

    def work(number: int) -> int:
        started.set()
        assert finish.wait(20)
        return 1 // number

    with Workers(2) as threads:
        results = threads.begin(work, [1, 0])
        assert started.wait(20)  # while nobody waits for it
        finish.set()
        with pytest.raises(ZeroDivisionError):
            results()
    with Workers(1) as alone:
        assert alone.begin(lambda number: number + 1, [1, 2])() == [2, 3]
