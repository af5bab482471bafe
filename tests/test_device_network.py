"""The updater on a bad network: each fault once is overcome, each fault for ever leaves the old release."""

import http.client
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, constants, file_download

from eisv_lumen.device import slots, source, updater
from eisv_lumen.device.home import Home
from eisv_lumen.device.selftest import SelfTest
from eisv_lumen.device.updater import Outcome, Updater
from eisv_lumen.errors import HubError, VerificationError
from eisv_lumen.hub_client import HubUnreachableError
from eisv_lumen.retry import Patience, Retries
from eisv_lumen.signing import SigningKey, TrustedKeys
from hub.local import start
from tests.release_artifacts import Repository, as_if_imported_with, small_student

KEY = SigningKey.generate()
QUICK = Patience(attempts=3, first=0.01, most=0.05, seconds=60.0)


class Proxy:
    """Between client and Hub; `faults` are consumed in order by the requests that match them.

    Attributes:
        faults: Pairs of a pattern for "METHOD path" and what happens to such a request.
        seen: What was asked, "METHOD path" and the Range header.
    """

    def __init__(self, hub: str) -> None:
        self.hub = urlsplit(hub)
        self.faults: list[tuple[str, str]] = []
        self.seen: list[tuple[str, str | None]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(OSError):
                    proxy.answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.stopped = threading.Event()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def fault(self, asked: str) -> str | None:
        for number, (pattern, what) in enumerate(self.faults):
            if re.search(pattern, asked):
                if not what.endswith("always"):
                    del self.faults[number]
                return what.removesuffix(" always")
        return None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = f"{handler.command} {handler.path}"
        self.seen.append((asked, handler.headers.get("Range")))
        fault = self.fault(asked)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if fault == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
        elif fault == "stall":
            self.stopped.wait(30)
            handler.close_connection = True
        elif fault is not None and fault[0].isdigit():
            status, _, wait = fault.partition(" ")
            self.send(handler, int(status), {"Retry-After": wait} if wait else {}, b"busy")
        elif fault == "portal":
            self.send(handler, 200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
        else:
            self.forward(handler, body, fault)

    def forward(self, handler: BaseHTTPRequestHandler, body: bytes, fault: str | None) -> None:
        connection = http.client.HTTPConnection(self.hub.hostname or "", self.hub.port, timeout=30)
        headers = {name: value for name, value in handler.headers.items() if name != "Connection"}
        connection.request(handler.command, handler.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in ("content-length", "date")}
        if handler.command == "HEAD":
            kept["Content-Length"] = response.headers.get("Content-Length", "0")
        connection.close()
        self.send(handler, response.status, kept, content, fault)

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        content: bytes,
        fault: str | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if "Content-Length" not in headers:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if fault == "wrong":
            content = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
        if fault == "truncated":
            content, handler.close_connection = content[: len(content) // 2], True
        if fault == "drip":
            for number in range(len(content)):
                handler.wfile.write(content[number : number + 1])
                if self.stopped.wait(0.2):
                    return
        handler.wfile.write(content)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A Hub with 0.1.0 and 0.2.0 behind a proxy, and a home in which 0.1.0 speaks."""
    folder = tmp_path_factory.mktemp("world")
    with start(folder / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        as_if_imported_with(hub.url, patch)
        patch.setattr(updater, "run_selftest", lambda _: SelfTest(4, 0.0, 1.0, 60.0))
        repository = Repository(HfApi(endpoint=hub.url, token=hub.token), "hikewa/network", KEY)
        proxy = Proxy(hub.url)
        home = Home(folder / "home")
        home.write("trust.json", TrustedKeys([KEY.public]).to_dict())
        home.write("device.json", {"repo_id": "hikewa/network", "hub": proxy.url})
        repository.publish("0.1.0", small_student(folder / "1", 1))
        Updater(home).pull()
        repository.publish("0.2.0", small_student(folder / "2", 2))
        yield proxy, home
        proxy.close()


@pytest.fixture
def proxy(world, monkeypatch):
    """Simulated: the client waits half a second instead of ten, and one hundredth before it resumes."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.5)
    real = time.sleep
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: real(seconds / 100))
    world[0].faults, world[0].seen = [], []
    return world[0]


@pytest.fixture
def home(world, tmp_path):
    shutil.copytree(world[1].folder, tmp_path / "home")
    return Home(tmp_path / "home")


def pull(home: Home, patience: Patience = QUICK) -> Outcome:
    return Updater(home, patience=patience).pull()


def speaking(home: Home) -> str:
    return slots.open_current(home, home.trusted()).version


PLACES = {
    "refs": r"/refs",
    "commit": r"/revision/",
    "manifest": r"GET .*/release\.json$",
    "head": r"HEAD .*/config\.json",
    "graph": r"GET .*model_int8\.onnx",
}


FAULTS = ("429 0", "503", "reset", "stall")
"""What can happen to any request."""

CASES = [(place, fault) for place in PLACES for fault in FAULTS]
CASES += [("refs", "truncated"), ("commit", "truncated"), ("graph", "truncated")]
CASES += [("refs", "portal"), ("commit", "portal")]


@pytest.mark.parametrize(
    ("place", "fault"), [*CASES, ("manifest", "wrong"), ("graph", "wrong"), ("graph", "portal")]
)
def test_a_fault_that_passes_is_overcome(proxy, home, place, fault):
    proxy.faults = [(PLACES[place], fault)]
    outcome = pull(home)
    assert (outcome.action, speaking(home)) == ("installed", "0.2.0"), outcome
    assert proxy.faults == []


@pytest.mark.parametrize(("place", "fault"), CASES)
def test_a_fault_that_stays_leaves_the_old_one_for_a_bounded_time(proxy, home, place, fault):
    proxy.faults = [(PLACES[place], f"{fault} always")]
    outcome = pull(home, Patience(attempts=2, first=0.01, most=0.05, seconds=20.0))
    assert outcome.action == "offline" and "goes on with 0.1.0" in outcome.note
    assert speaking(home) == "0.1.0"
    proxy.faults = []
    assert pull(home).version == "0.2.0" == speaking(home)


@pytest.mark.parametrize("place", ["manifest", "graph"])
def test_wrong_bytes_that_stay_are_refused_and_nothing_of_them_is_kept(proxy, home, place):
    proxy.faults = [(PLACES[place], "wrong always")]
    with pytest.raises(VerificationError):
        pull(home)
    assert speaking(home) == "0.1.0" and not list(home.slots.glob(".incoming*"))
    proxy.faults = []
    assert pull(home).version == "0.2.0"


@pytest.mark.parametrize("place", ["refs", "commit"])
def test_wrong_letters_in_an_answer_never_silence_the_device(proxy, home, place):
    proxy.faults = [(PLACES[place], "wrong always")]
    with suppress(HubError, VerificationError):
        pull(home)
    assert speaking(home) in ("0.1.0", "0.2.0")
    proxy.faults = []
    pull(home)
    assert speaking(home) == "0.2.0"


@pytest.mark.parametrize(("place", "status"), [("refs", "404"), ("graph", "404"), ("refs", "401")])
def test_a_refusal_is_told_at_once(proxy, home, place, status):
    proxy.faults = [(PLACES[place], f"{status} always")]
    with pytest.raises(HubError, match=status):
        pull(home)
    asked = [what for what, _ in proxy.seen if re.search(PLACES[place], what)]
    assert len(asked) == 1 and speaking(home) == "0.1.0"


def test_a_long_wait_that_the_hub_asks_for_is_not_sat_out(proxy, home):
    proxy.faults = [(PLACES["refs"], "429 3600 always")]
    assert pull(home).action == "offline"
    assert len(proxy.seen) == 1


def test_a_short_one_is(proxy, home, monkeypatch):
    proxy.faults = [(PLACES["refs"], "429 2")]
    waits: list[float] = []
    monkeypatch.setattr("eisv_lumen.retry.time.sleep", waits.append)
    assert pull(home, Patience(attempts=3, first=0.01, most=5.0)).version == "0.2.0"
    assert waits == [2.0]


def test_an_answer_that_drips_is_cut_off(proxy, home):
    proxy.faults = [(PLACES["graph"], "drip always")]
    started = time.monotonic()
    assert pull(home, Patience(attempts=3, first=0.01, seconds=3.0)).action == "offline"
    assert time.monotonic() - started < 30  # whole, it would take hours


def test_a_truncated_download_is_resumed(proxy, home, monkeypatch):
    monkeypatch.setattr(source, "CHUNK_BYTES", 256)
    proxy.faults = [(PLACES["graph"], "truncated")]
    pull(home)
    ranges = [wanted for asked, wanted in proxy.seen if re.search(PLACES["graph"], asked)]
    assert len(ranges) == 2 and ranges[0] is None and ranges[1] and not ranges[1].startswith("bytes=0-")


def test_a_check_that_finds_nothing_new_is_one_request(proxy, home):
    pull(home)
    proxy.seen = []
    assert pull(home).action == "unchanged"
    assert [asked for asked, _ in proxy.seen] == ["GET /api/models/hikewa/network/refs"]


def test_without_a_network_one_attempt_is_enough(home):
    waits: list[str] = []
    home.update("device.json", hub="http://127.0.0.1:9")
    assert Updater(home, report=waits.append).pull().action == "offline" and waits == []


class TestPatience:
    def fails(self, error: HubError) -> tuple[int, list[str]]:
        calls, told = [], []

        def request() -> None:
            calls.append(1)
            raise error

        with pytest.raises(HubError):
            Retries("http://x", QUICK, told.append).call("do something", request)
        return len(calls), told

    def test_attempts_are_counted_and_told(self):
        calls, told = self.fails(HubUnreachableError(found="busy", expected="x", next="y"))
        assert calls == 3 and len(told) == 2 and told[0].startswith("busy: again in")

    def test_a_refusal_is_not_repeated(self):
        assert self.fails(HubError(found="no", expected="x", next="y"))[0] == 1

    def test_waits_grow_and_differ(self, monkeypatch):
        waits: list[float] = []
        monkeypatch.setattr("eisv_lumen.retry.time.sleep", waits.append)

        def request() -> None:
            raise ConnectionResetError

        for _ in range(20):
            with pytest.raises(HubUnreachableError):
                Retries("http://x", Patience(attempts=5, first=1.0)).call("do something", request)
        steps = [waits[number::4] for number in range(4)]
        assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n in range(4) for wait in steps[n])
        assert len(set(steps[0])) > 10

    def test_an_alarm_of_somebody_else_is_put_back(self):
        import signal

        with alarmed(signal.ITIMER_REAL, 50.0):
            assert Retries("http://x", QUICK).call("do something", lambda: 5) == 5
            assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50

    def test_in_another_thread_it_works_without_an_alarm(self):
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(Retries("http://x", QUICK).call("do something", lambda: 5))
        )
        thread.start()
        thread.join()
        assert found == [5]


@contextmanager
def alarmed(timer: int, seconds: float) -> Iterator[None]:
    import signal

    before = signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, *before)


def test_no_token_is_told(proxy, home, tmp_path: Path):
    told: list[str] = []
    proxy.faults = [(PLACES["refs"], "503 always")]
    outcome = Updater(home, "hf_secret", told.append, patience=QUICK).pull()
    assert "hf_secret" not in f"{told}{outcome}{home.read('state.json')}"
