"""A release whose self-test never answers: tried again for a while, and not for ever."""

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from eisv_lumen.device import attempts, pauses, selftest, slots, updater
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.selftest import KilledError, SelfTest, TimedOutError, UnansweredError, run_selftest
from eisv_lumen.device.status import lines, status
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import HubError, ResourceError, VerificationError
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
        if self.answer == "takes too long":
            raise TimedOutError(found="no result after 60 s", expected="an answer", next="free memory")
        if self.answer == "is killed":
            raise KilledError(found="ended by signal 9", expected="an answer", next="free memory")
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


class Clock:
    """Stands for the machine's."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def pass_by(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pauses, "now", lambda: clock.now)
    return clock


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


def waits(home: Home, bench: Bench) -> bool:
    """Whether the new release is to be left alone for now; a pull does so, and says why."""
    said = [line for line in lines(status(home)) if line.startswith("waits")]
    if said:
        before = bench.runs
        outcome = Updater(home).pull()
        assert bench.runs == before and "0.2.0 waits" in outcome.note and "tried again after" in said[0]
    return bool(said)


def test_what_is_killed_waits_longer_and_longer_and_is_never_refused(home, bench, clock):
    bench.answer = "is killed"
    lengths = []
    for number in range(12):
        with pytest.raises(KilledError):
            Updater(home).pull()
        hours = 0
        while number >= 5 and waits(home, bench):
            clock.pass_by(hours=1)
            hours += 1
        lengths.append(hours)
    assert lengths == [0, 0, 0, 0, 0, 1, 4, 16, 24, 24, 24, 24]
    assert Knowledge.read(home).refused == {}
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"


@pytest.mark.parametrize("how", ["takes too long", "kills"])
def test_a_release_that_hangs_is_given_up_after_a_day_and_not_within_a_busy_hour(
    home, bench, boot, clock, how
):
    bench.answer = how
    begun = clock.now
    for number in range(5):
        if how == "kills":
            killed_pull(home)
            boot.write_text(f"start {number}")
            attempts.settle(home)
        else:
            with pytest.raises((TimedOutError, VerificationError)):
                Updater(home).pull()
        while number < 4 and waits(home, bench):
            clock.pass_by(hours=1)
    assert clock.now - begun == timedelta(hours=1 + 4 + 16)
    assert "5 self-tests" in Knowledge.read(home).refused["0.2.0"]
    bench.answer = "passes"
    assert Updater(home).pull().action == "unchanged" and speaking(home) == "0.1.0"


def times_out_twice(home: Home, bench: Bench) -> None:
    bench.answer = "takes too long"
    for _ in range(2):
        with pytest.raises(TimedOutError):
            Updater(home).pull()


def test_a_wait_keeps_no_other_release_out(home, bench, clock, repository, student):
    times_out_twice(home, bench)
    assert waits(home, bench)
    bench.answer = "passes"
    repository.publish("0.3.0", student)
    assert Updater(home).pull().version == "0.3.0"
    state = home.read(STATE)
    assert state["attempts"] == state["pauses"] == {}  # what is older is no question any more


def test_a_person_need_not_wait(home, bench, clock):
    times_out_twice(home, bench)
    bench.answer = "passes"
    assert waits(home, bench)
    assert Updater(home).pull(retry=True).version == "0.2.0"


def test_a_pin_waits_too_and_a_device_with_nothing_to_go_on_says_so(home, bench, clock, tmp_path, repository):
    times_out_twice(home, bench)
    home.update("device.json", pin="0.2.0")
    assert "pinned to 0.2.0, which waits" in Updater(home).pull().note
    new = repository.device(tmp_path / "new")
    new.update("device.json", pin="0.2.0")
    times_out_twice(new, bench)
    with pytest.raises(HubError, match=r"0\.2\.0 waits"):
        Updater(new).pull()


@pytest.mark.parametrize("turned", [timedelta(days=-400), timedelta(days=400)])
def test_a_clock_that_is_set_ends_a_wait(home, bench, clock, turned):
    times_out_twice(home, bench)
    assert waits(home, bench)
    clock.now += turned
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"


ENDS = {
    "raises(signal.SIGSEGV)": UnansweredError,
    "raises(signal.SIGKILL)": KilledError,
    "raises(signal.SIGTERM)": KilledError,
    "[0 for _ in iter(int, 1)]": UnansweredError,
    "time.sleep(60)": TimedOutError,
}


@pytest.mark.parametrize(("does", "kind"), ENDS.items(), ids=ENDS)
def test_how_a_selftest_ends_is_told_apart(student, monkeypatch, does, kind):
    """The real process, whose replay is replaced; the lower limit of processor time ends it."""
    program = (
        "import os, signal, sys, time; sys.path.insert(0, sys.argv.pop(1))\n"
        "from eisv_lumen.device import selftest\n"
        "raises = lambda number: (signal.signal(number, signal.SIG_DFL) if number != 9 else 0,"
        " os.kill(os.getpid(), number))\n"
        f"selftest.SECONDS = 1; selftest._replay = lambda folder: {does}\n"
        "selftest.main()"
    )
    monkeypatch.setattr(selftest, "_START", program.replace("{", "{{").replace("}", "}}"))
    with pytest.raises(UnansweredError) as ended:
        run_selftest(student, seconds=1.5 if kind is TimedOutError else 60.0)
    assert type(ended.value) is kind


def test_a_machine_that_does_not_tell_its_starts_counts_no_crash(home, bench, boot):
    boot.unlink()
    bench.answer = "kills"
    for _ in range(4):
        killed_pull(home)
    bench.answer = "passes"
    assert Updater(home).pull().version == "0.2.0"
