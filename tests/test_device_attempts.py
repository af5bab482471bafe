"""A release whose self-test never answers: tried again for a while, and not for ever."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from eisv_lumen.device import attempts, slots, updater
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.selftest import SelfTest, UnansweredError
from eisv_lumen.device.status import lines, status
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import ResourceError, VerificationError
from eisv_lumen.signing import SigningKey
from tests.release_artifacts import Repository

KEY = SigningKey.generate()
PASSED = SelfTest(4, 0.0, 1.0, 60.0)


class Bench:
    """Stands for the self-test: its answers are set by the test, and the attempts counted."""

    def __init__(self) -> None:
        self.runs, self.answer = 0, "passes"

    def __call__(self, folder: Path) -> SelfTest:
        self.runs += 1
        if self.answer == "crashes":
            raise UnansweredError(found="ended by signal 11", expected="an answer", next="free memory")
        if self.answer == "has no library":
            raise ResourceError(found="no onnxruntime", expected="it", next="mend it")
        if self.answer == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.answer == "is interrupted":
            raise KeyboardInterrupt
        return PASSED


@pytest.fixture
def bench(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(updater, "run_selftest", bench)
    return bench


@pytest.fixture
def boot(monkeypatch, tmp_path):
    """The name of this start of the machine, to be changed."""
    path = tmp_path / "boot_id"
    path.write_text("first")
    monkeypatch.setattr(attempts, "_BOOT", path)
    return path


@pytest.fixture
def repository(hub, request):
    api = HfApi(endpoint=hub.url, token=hub.token)
    return Repository(api, f"hikewa/a{abs(hash(request.node.name)) % 10**9}", KEY)


@pytest.fixture
def home(tmp_path, repository, student, bench, boot):
    """0.1.0 speaks, 0.2.0 waits."""
    home = repository.device(tmp_path / "home")
    repository.publish("0.1.0", student)
    Updater(home).pull()
    repository.publish("0.2.0", student)
    bench.runs = 0
    return home


def speaking(home: Home) -> str:
    return slots.open_current(home, home.trusted()).version


def killed_pull(home: Home) -> None:
    """A pull in a process of its own, which dies in the middle of the self-test."""
    process = multiprocessing.get_context("fork").Process(target=lambda: Updater(home).pull())
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_after_three_crashes_it_is_not_tried_again(home, bench, repository, student):
    bench.answer = "crashes"
    for number in (1, 2):
        with pytest.raises(ResourceError):
            Updater(home).pull()
        (line,) = [line for line in lines(status(home)) if line.startswith("untested")]
        assert f"{number} of 3" in line and "signal 11" in line and speaking(home) == "0.1.0"
    with pytest.raises(VerificationError, match="one of 3 attempts"):
        Updater(home).pull()
    assert "3 self-tests" in Knowledge.read(home).refused["0.2.0"]
    assert Updater(home).pull().action == "unchanged" and bench.runs == 3
    assert not list(home.slots.glob(".incoming-*"))
    assert any(line.startswith("refused   0.2.0") for line in lines(status(home)))
    bench.answer = "passes"
    repository.publish("0.3.0", student)
    assert Updater(home).pull().version == "0.3.0"


def test_a_person_can_have_it_tried_again(home, bench):
    bench.answer = "crashes"
    for _ in range(3):
        with pytest.raises((ResourceError, VerificationError)):
            Updater(home).pull()
    with pytest.raises(ResourceError):
        Updater(home).pull(retry=True)
    assert Knowledge.read(home).refused == {}
    bench.answer = "passes"
    assert Updater(home).pull(retry=True).version == "0.2.0"


def test_an_answer_settles_it(home, bench):
    bench.answer = "crashes"
    for _ in range(2):
        with pytest.raises(ResourceError):
            Updater(home).pull()
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"
    state = home.read(STATE)
    assert state["attempts"] == {} and state["testing"] is None
    assert not any(line.startswith("untested") for line in lines(status(home)))


@pytest.mark.parametrize("answer", ["has no library", "is interrupted"])
def test_what_the_machine_or_a_person_did_is_no_attempt(home, bench, answer):
    bench.answer = answer
    for _ in range(5):
        with pytest.raises((ResourceError, KeyboardInterrupt)):
            Updater(home).pull()
    assert Knowledge.read(home).refused == {} and home.read(STATE)["attempts"] == {}
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"


def test_an_updater_that_is_killed_is_no_crash_of_the_release(home, bench):
    bench.answer = "kills"
    for _ in range(5):
        killed_pull(home)
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"


def test_but_not_for_ever(home, bench, monkeypatch):
    monkeypatch.setattr(attempts, "KILLS", 2)
    bench.answer = "kills"
    for _ in range(2):
        killed_pull(home)
    assert Updater(home).pull().action == "unchanged" and speaking(home) == "0.1.0"
    assert "killed" in Knowledge.read(home).refused["0.2.0"]


def test_a_release_that_takes_the_machine_down_is_tried_three_times(home, bench, boot):
    bench.answer = "kills"
    for number in range(3):
        killed_pull(home)
        boot.write_text(f"start {number}")
    bench.answer = "passes"  # and is not asked any more
    assert Updater(home).pull().action == "unchanged" and bench.runs == 0
    assert "the machine went down" in Knowledge.read(home).refused["0.2.0"]


def test_a_machine_that_does_not_tell_its_starts_counts_no_crash(home, bench, boot):
    boot.unlink()
    bench.answer = "kills"
    for _ in range(4):
        killed_pull(home)
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"
