"""Probation: a new release is kept when it does well, and left at once, offline too, when it does not."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eisv_lumen import release
from eisv_lumen.artifact import canonical_json
from eisv_lumen.device import probation, service, slots
from eisv_lumen.device.awareness import Spoken
from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.probation import Counts, Probation, read_counts
from eisv_lumen.device.service import Service, open_voice
from eisv_lumen.device.settings import Limits
from eisv_lumen.device.starts import WAITING, Starts
from eisv_lumen.device.status import lines, status
from eisv_lumen.device.updater import Updater
from eisv_lumen.device.wishes import set_pin
from eisv_lumen.errors import ArtifactError, ConfigurationError, ResourceError, VerificationError
from eisv_lumen.expression import Expression
from eisv_lumen.signing import RELEASE_PURPOSE, SigningKey, TrustedKeys
from tests.release_artifacts import CREATED, describe, small_student, some_windows

ROOT = Path(__file__).parents[1]
KEY = SigningKey.generate()
REPO = "hikewa/eisv-lumen-student"
LIMITS = Limits(expressions=5, seconds=0.0)


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    return [small_student(folder / str(seed), seed) for seed in range(2)]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.write("trust.json", TrustedKeys([KEY.public]).to_dict())
    home.write("device.json", {"repo_id": REPO, "probation": vars(LIMITS)})
    return home


def install(home: Home, version: str, student: Path, **changes: object) -> str:
    """What a pull does with a verified download; returns the slot."""
    incoming = slots.incoming_folder(home, "0" * 40)
    for name in slots.FILES:
        (incoming / name).parent.mkdir(exist_ok=True)
        shutil.copy(student / name, incoming / name)
    manifest = replace(describe(version, REPO, student), **changes)
    (incoming / "release.json").write_bytes(manifest.to_bytes())
    signature = KEY.sign(manifest.to_bytes(), RELEASE_PURPOSE)
    (incoming / "release.json.sig").write_bytes(canonical_json(signature))
    name = slots.install(home, incoming)
    known = Knowledge.read(home)
    home.update(STATE, **known.after_install(version, manifest.minimum_version, manifest.created))
    slots.switch(home, name, version)
    return name


def kept(home: Home, version: str, student: Path) -> str:
    name = install(home, version, student)
    assert slots.keep(home, str(Current.read(home).trial))
    return name


def said(source: str = "M", confidence: float | None = 0.9, latency_ms: float = 1.0) -> Spoken:
    reason = None if source == "M" else "x"
    words = Expression(("warmth",), "SINGLE")
    return Spoken(words, ("warm",), "convergence", 0.9, source, reason, "v", confidence, latency_ms, 0.0)


def watched(home: Home, spoken: list[Spoken]) -> list[str]:
    """A run of the service, as far as probation sees it; returns what it warned of."""
    warned: list[str] = []
    watch = Probation(home, warned.append)
    watch.start()
    watch.opened()
    for one in spoken:
        watch.asked()
        watch.answered()
        watch.heard(one)
    watch.end()
    return warned


def speaking(home: Home) -> str | None:
    speaks = Current.read(home).speaks
    return speaks.version if speaks else None


@pytest.fixture
def on_trial(home, students):
    """0.1.0 is good, 0.2.0 speaks on probation."""
    kept(home, "0.1.0", students[0])
    install(home, "0.2.0", students[1])
    return home


class TestVerdicts:
    def test_a_release_that_does_well_is_kept(self, on_trial):
        assert read_counts(on_trial) is not None
        (line,) = watched(on_trial, [said()] * 5)
        assert "passed" in line and speaking(on_trial) == "0.2.0"
        current = Current.read(on_trial)
        assert current.trial is None and current.speaks and current.speaks.good
        assert current.back[0].version == "0.1.0"
        assert read_counts(on_trial) is None

    @pytest.mark.parametrize(
        ("spoken", "why"),
        [
            ([said("R", None)] * 3, "failed 3 times"),
            ([said("R", float("nan"))] * 3, "failed 3 times"),
            ([said(latency_ms=9999.0)] * 5, "took over 2000 ms"),
            ([said("R", 0.2)] * 5, "spoke 0 of 5"),
        ],
    )
    def test_a_release_that_does_badly_is_left_and_remembered(self, on_trial, spoken, why):
        (line,) = watched(on_trial, spoken)
        assert why in line and "back to 0.1.0" in line
        assert speaking(on_trial) == "0.1.0" and Current.read(on_trial).trial is None
        assert why in (Knowledge.read(on_trial).unwanted("0.2.0") or "")
        assert why in "\n".join(lines(status(on_trial)))
        assert open_voice(on_trial).model is not None

    def test_memory(self, on_trial, monkeypatch):
        monkeypatch.setattr(probation, "resident_mb", lambda: 500.0)
        assert "500 MB" in watched(on_trial, [said()])[0]
        assert speaking(on_trial) == "0.1.0"

    def test_some_failures_some_slowness_and_some_silence_are_forgiven(self, on_trial):
        on_trial.update("device.json", probation={"expressions": 20, "seconds": 0.0})
        mixed = [said("R", None)] * 2 + [said(latency_ms=9999.0)] * 2 + [said("R", 0.1)] * 12 + [said()] * 4
        assert "passed" in watched(on_trial, mixed)[0]

    def test_it_takes_its_time(self, on_trial):
        on_trial.update("device.json", probation={"expressions": 2, "seconds": 100.0})
        moments = iter(np.arange(0.0, 1000.0, 30.0))
        warned: list[str] = []
        watch = Probation(on_trial, warned.append, clock=lambda: float(next(moments)))
        watch.start()
        for number in range(4):
            watch.heard(said())
            assert bool(warned) == (number >= 3), number

    def test_counts_outlive_a_restart_and_belong_to_one_release(self, on_trial, students):
        watched(on_trial, [said()] * 3)
        assert watched(on_trial, [said()] * 2)
        install(on_trial, "0.3.0", students[0])
        watched(on_trial, [said()])
        counts = read_counts(on_trial)
        assert counts and counts.expressions == 1

    def test_without_anything_to_go_back_to_the_rules_speak(self, home, students):
        install(home, "0.1.0", students[0])
        watched(home, [said("R", None)] * 3)
        assert speaking(home) is None
        voice = open_voice(home)
        assert voice.model is None and "failed its probation" in status(home)["current"]["left"]

    def test_a_minimum_version_is_not_undercut(self, home, students):
        kept(home, "0.1.0", students[0])
        install(home, "0.2.0", students[1], minimum_version="0.2.0")
        watched(home, [said("R", None)] * 3)
        assert speaking(home) is None

    def test_what_speaks_is_not_silenced_by_a_minimum_version_that_came_first(self, home, students):
        """A pull remembers a release's minimum before it switches; it may be killed between the two."""
        kept(home, "0.1.0", students[0])
        home.update(STATE, **Knowledge.read(home).after_install("0.2.0", "0.2.0", CREATED))
        assert watched(home, [said()]) == [] and speaking(home) == "0.1.0"
        assert open_voice(home).model is not None
        with pytest.raises(VerificationError, match=r"older than 0\.2\.0"):
            set_pin(home, "0.1.0")

    def test_a_damaged_last_good_one_is_passed_over(self, home, students):
        kept(home, "0.1.0", students[0])
        name = kept(home, "0.2.0", students[1])
        install(home, "0.3.0", students[0])
        (home.slots / name / "config.json").write_text("{}")
        watched(home, [said("R", None)] * 3)
        assert speaking(home) == "0.1.0"

    def test_a_damaged_file_of_counts_begins_anew(self, on_trial):
        for content in ("{", "[]", '{"trial": 1, "x": 2}'):
            (on_trial.folder / "probation.json").write_text(content)
            assert watched(on_trial, [said()]) == []
        assert speaking(on_trial) == "0.2.0"


class TestStarts:
    def crash(self, home: Home, *steps: str) -> list[str]:
        """A start whose process is gone before it says anything: at once, or after some steps."""
        warned: list[str] = []
        watch = Probation(home, warned.append)
        watch.start()
        for step in steps:
            getattr(watch, step)()
        return warned

    @pytest.mark.parametrize("steps", [[], ["opened", "asked"]], ids=["opening", "asking"])
    @pytest.mark.parametrize("passed", [False, True], ids=["on probation", "kept"])
    def test_three_that_end_with_the_model_in_a_row_end_it(self, on_trial, steps, passed):
        if passed:
            assert "passed" in watched(on_trial, [said()] * 5)[0]
        for _ in range(3):
            assert self.crash(on_trial, *steps) == [] and speaking(on_trial) == "0.2.0"
        (line,) = self.crash(on_trial, *steps)
        assert "3 starts never came" in line and speaking(on_trial) == "0.1.0"
        why = Knowledge.read(on_trial).refused["0.2.0"]
        assert ("failed its probation" in why) == (not passed)
        assert f"refused   0.2.0: {why}" in lines(status(on_trial))

    def test_when_the_one_before_crashes_too_the_rules_speak(self, on_trial):
        for _ in range(7):
            self.crash(on_trial)
        assert speaking(on_trial) is None and open_voice(on_trial).model is None
        assert set(Knowledge.read(on_trial).refused) == {"0.1.0", "0.2.0"}
        assert self.crash(on_trial) == []

    def test_starts_that_come_to_speak_or_end_in_order_do_not_count(self, on_trial):
        on_trial.update("device.json", probation={"expressions": 100})
        for spoken in ([], [said()]) * 3:
            watched(on_trial, spoken)
            self.crash(on_trial)
            watched(on_trial, spoken)
        starts = Starts.read(on_trial)
        assert speaking(on_trial) == "0.2.0" and starts and (starts.crashed, starts.lost) == (0, 0)

    def test_an_orderly_end_forgives_no_crash_but_a_word_does(self, on_trial):
        for _ in range(2):
            self.crash(on_trial)
            watched(on_trial, [])
        assert Starts.read(on_trial).crashed == 2
        assert any("lost in a row: 2 with the model" in line for line in lines(status(on_trial)))
        watched(on_trial, [said()])
        assert not any(line.startswith("starts") for line in lines(status(on_trial)))
        assert Starts.read(on_trial).crashed == 0

    def test_a_process_that_is_killed_while_it_waits_convicts_nobody(self, on_trial):
        for _ in range(9):
            assert self.crash(on_trial, "opened") == [] and speaking(on_trial) == "0.2.0"
        watched(on_trial, [said()])
        for _ in range(9):
            assert self.crash(on_trial, "opened") == [] and speaking(on_trial) == "0.2.0"

    def test_but_in_the_end_something_else_speaks_for_a_while(self, on_trial):
        for _ in range(10):
            assert self.crash(on_trial, "opened") == []
        (line,) = self.crash(on_trial, "opened")
        assert "10 starts never came" in line and speaking(on_trial) == "0.1.0"
        known = Knowledge.read(on_trial)
        assert known.refused == {} and "10 starts" in known.waiting["0.2.0"]
        (line,) = [line for line in lines(status(on_trial)) if line.startswith("waits")]
        assert "0.2.0" in line and "tried again after" in line

    def test_a_probation_that_is_passed_ends_the_waits(self, on_trial, students):
        for _ in range(11):
            self.crash(on_trial, "opened")
        install(on_trial, "0.2.0", students[1])
        watched(on_trial, [said()] * 5)
        assert Knowledge.read(on_trial).waiting == {}

    def test_each_release_has_its_own_starts(self, on_trial, students):
        for _ in range(2):
            self.crash(on_trial)
        install(on_trial, "0.3.0", students[0])
        self.crash(on_trial)
        assert self.crash(on_trial) == [] and speaking(on_trial) == "0.3.0"

    @pytest.mark.parametrize("failing", ["start", "opened", "asked", "answered", "heard", "end"])
    def test_writes_that_fail_neither_add_nor_forgive_lost_starts(self, on_trial, monkeypatch, failing):
        on_trial.update("device.json", probation={"expressions": 100})
        for _ in range(2):
            self.crash(on_trial)

        def full(*_: object) -> None:
            raise ResourceError(found="full", expected="x", next="y")

        watch = Probation(on_trial, lambda line: None)
        for step in ("start", "opened", "asked", "answered", "heard", "end"):
            with monkeypatch.context() as patch:
                if step == failing:
                    patch.setattr(Home, "write", full)
                watch.heard(said()) if step == "heard" else getattr(watch, step)()
        assert Starts.read(on_trial).crashed == (2 if failing == "answered" else 0)
        assert speaking(on_trial) == "0.2.0"

    @pytest.mark.parametrize("content", ["{", "[]", '{"release": 1}', '{"crashed": 9}', "{}"])
    def test_a_damaged_file_convicts_nobody(self, on_trial, content):
        (on_trial.folder / "starts.json").write_text(content)
        assert self.crash(on_trial) == [] and speaking(on_trial) == "0.2.0"

    def test_a_verdict_that_was_killed_half_way_is_finished(self, on_trial, monkeypatch):
        class Killed(BaseException):
            pass

        def dies(*_: object, **__: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(slots, "go_back", dies)
            with pytest.raises(Killed):
                watched(on_trial, [said("R", None)] * 3)
        assert speaking(on_trial) == "0.2.0"
        assert "failed 3 times" in self.crash(on_trial)[0]
        assert speaking(on_trial) == "0.1.0"


class TestSlots:
    def test_the_last_good_release_survives_any_number_of_trials(self, home, students):
        good = kept(home, "0.1.0", students[0])
        for number in range(2, 8):
            install(home, f"0.{number}.0", students[1])
            assert slots.open_slot(home, good, home.trusted()).version == "0.1.0"
        watched(home, [said("R", None)] * 3)
        assert speaking(home) == "0.1.0"

    def test_a_verdict_on_a_release_that_was_replaced_meanwhile_is_void(self, on_trial, students):
        warned: list[str] = []
        watch = Probation(on_trial, warned.append)
        watch.start()
        install(on_trial, "0.3.0", students[0])
        for _ in range(5):
            watch.heard(said("R", None))
        assert speaking(on_trial) == "0.3.0" and warned == []
        assert Knowledge.read(on_trial).unwanted("0.3.0") is None

    def test_rollback_by_a_person_needs_something_to_go_back_to(self, on_trial):
        assert Updater(on_trial).rollback().version == "0.1.0"
        with pytest.raises(VerificationError, match="no earlier release"):
            Updater(on_trial).rollback()

    def test_a_home_of_an_earlier_package(self, home, students):
        name = install(home, "0.1.0", students[0])
        home.write("current", {"slot": name, "version": "0.1.0"})
        current = Current.read(home)
        assert current.trial is None and current.speaks and current.speaks.good
        assert slots.open_current(home, home.trusted()).version == "0.1.0"

    @pytest.mark.parametrize("content", ["{", "[]", '{"slot": "z"}', '{"slot": "a"}', '{"back": [1]}'])
    def test_a_damaged_file_is_nothing_installed(self, home, content):
        (home.folder / "current").write_text(content)
        assert Current.read(home) == Current()

    def test_single_altered_bytes_in_a_slot_are_refused(self, home, students):
        folder = home.slots / kept(home, "0.1.0", students[0])
        generator = np.random.default_rng(0)
        names = [*slots.FILES, *slots.SIGNED]
        accepted = []
        for number in range(1000):
            path = folder / names[number % len(names)]
            content = path.read_bytes()
            position, flip = int(generator.integers(len(content))), int(generator.integers(1, 256))
            altered = bytearray(content)
            altered[position] ^= flip
            path.write_bytes(altered)
            try:
                slots.open_current(home, home.trusted())
                accepted.append((path.name, position, flip))
            except VerificationError:
                pass
            path.write_bytes(content)
        assert accepted == []
        assert slots.open_current(home, home.trusted()).version == "0.1.0"


class TestService:
    def states(self, count: int):
        generator = np.random.default_rng(0)
        for number in range(count):
            yield 2.0 * number, generator.random(4) * [1, 1, 1, 0.3]

    def run(self, home: Home, expressions: int, told=lambda spoken: None) -> list[str]:
        warned: list[str] = []
        watch = Probation(home, warned.append)
        watch.start()
        voice = open_voice(home, gate=0.0)
        Service(home, voice, stride=1, told=told, warn=warned.append, probation=watch).run(
            self.states(20 + expressions), expressions
        )
        return warned

    def test_it_keeps_a_good_release(self, on_trial):
        assert "probation passed" in self.run(on_trial, 6)[0]
        assert Current.read(on_trial).trial is None

    def test_it_leaves_a_bad_one_and_goes_on_with_the_last_good_one(self, on_trial, monkeypatch):
        real = service.open_voice

        class Broken:
            version = "0.2.0"

            def infer(self, *_: object) -> None:
                raise RuntimeError

        def breaks(home: Home, *arguments: object, **options: float):
            voice = real(home, *arguments, **options)
            if speaking(home) == "0.2.0":
                voice.model = Broken()
            return voice

        monkeypatch.setattr(service, "open_voice", breaks)
        monkeypatch.setitem(globals(), "open_voice", breaks)
        heard: list[Spoken] = []
        self.run(on_trial, 6, heard.append)
        assert [spoken.source for spoken in heard] == ["R", "R", "R", "M", "M", "M"]
        assert heard[-1].version == "0.1.0"

    def test_a_release_that_cannot_be_opened_is_left(self, on_trial):
        (on_trial.slots / Current.read(on_trial).speaks.slot / "config.json").unlink()
        assert "back to 0.1.0" in self.run(on_trial, 4)[0]

    def damage(self, home: Home, slot: str) -> None:
        path = home.slots / slot / "onnx" / "model_int8.onnx"
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)

    def test_a_damaged_release_is_stood_in_for_by_the_last_good_one(self, home, students):
        for version in ("0.1.0", "0.2.0"):
            kept(home, version, students[0])
        self.damage(home, kept(home, "0.3.0", students[1]))
        before, warned = Current.read(home), []
        spoken = open_voice(home, gate=0.0, warn=warned.append).speak(some_windows(1))
        assert (spoken.source, spoken.version) == ("M", "0.2.0")
        (line,) = warned
        assert "model_int8.onnx" in line and "0.2.0 speaks instead" in line
        assert Current.read(home) == before

    @pytest.mark.parametrize("why", ["damaged", "refused", "too old"])
    def test_but_only_by_one_that_is_sound_and_wanted(self, home, students, why):
        first = kept(home, "0.1.0", students[0])
        second = kept(home, "0.2.0", students[0])
        self.damage(home, kept(home, "0.3.0", students[1]))
        if why == "damaged":
            self.damage(home, second)
        elif why == "refused":
            home.update(STATE, refused={"0.2.0": "bad"})
        else:
            home.update(STATE, minimum_version="0.3.0")
        spoken = open_voice(home, gate=0.0).speak(some_windows(1))
        assert spoken.version == (None if why == "too old" else "0.1.0") and first
        assert spoken.reason is None or "model_int8.onnx" in spoken.reason

    def test_a_disk_that_cannot_be_read_is_damage_too(self, home, students, monkeypatch):
        kept(home, "0.1.0", students[0])
        bad, real = home.slots / kept(home, "0.2.0", students[1]), release.check_file

        def unreadable(path, *arguments):
            if bad in path.parents:
                raise OSError(5, "Input/output error", str(path))
            real(path, *arguments)

        monkeypatch.setattr(release, "check_file", unreadable)
        assert open_voice(home, gate=0.0).speak(some_windows(1)).version == "0.1.0"

    def test_on_probation_nobody_stands_in_so_that_nobody_passes_for_another(self, on_trial):
        self.damage(on_trial, Current.read(on_trial).speaks.slot)
        assert open_voice(on_trial).model is None

    def test_it_takes_up_a_release_that_was_pulled_meanwhile(self, on_trial, students):
        heard: list[Spoken] = []

        def told(spoken: Spoken) -> None:
            heard.append(spoken)
            if len(heard) == 2:
                install(on_trial, "0.3.0", students[0])

        self.run(on_trial, 4, told)
        counts = read_counts(on_trial)
        assert [spoken.version for spoken in heard] == ["0.2.0", "0.2.0", "0.3.0", "0.3.0"]
        assert counts and counts.expressions == 2 and Starts.read(on_trial).crashed == 0

    def test_the_end_of_probation_opens_no_model_anew(self, on_trial, monkeypatch):
        opened: list[Home] = []
        monkeypatch.setattr(service, "open_voice", lambda home, **_: opened.append(home))
        self.run(on_trial, 8)
        assert opened == []

    def test_a_full_disk_silences_nothing(self, on_trial, monkeypatch):
        real = Home.write

        def full(self, name, content):
            if name == probation.COUNTS:
                raise OSError(28, "No space left on device")
            real(self, name, content)

        monkeypatch.setattr(Home, "write", full)
        heard: list[Spoken] = []
        warned = self.run(on_trial, 3, heard.append)
        assert len(heard) == 3 and "No space left" in warned[0]


def test_an_updater_and_a_service_at_once_lose_nothing(on_trial, students):
    """Two that write: one installs release after release, the other refuses and goes back."""
    stop, errors = threading.Event(), []
    home = on_trial

    def serve() -> None:
        while not stop.is_set():
            watched(home, [said("R", None)] * 3)
            try:
                slots.open_current(home, home.trusted())
            except ArtifactError as error:
                errors.append(error)
            except VerificationError as error:
                # The slot may have been replaced since `current` was read; then it names another one now.
                errors.extend([error] if not _opens(home) else [])

    thread = threading.Thread(target=serve)
    thread.start()
    versions = [f"1.{number}.0" for number in range(15)]
    for version in versions:
        install(home, version, students[1])
    stop.set()
    thread.join()
    assert errors == []
    watched(home, [said("R", None)] * 3)
    assert speaking(home) == "0.1.0"
    assert set(versions) <= set(Knowledge.read(home).installed)
    assert "1.14.0" in Knowledge.read(home).refused


def _opens(home: Home) -> bool:
    try:
        return bool(slots.open_current(home, home.trusted()))
    except VerificationError:
        return False


RUN = """
import json, os, signal, sys
from eisv_lumen import cli
from eisv_lumen.student import TrajectoryModel

really = TrajectoryModel.{method}

def dies(*arguments):
    if json.load(open(os.path.join(sys.argv[3], "current")))["version"] == "0.2.0":
        os.kill(os.getpid(), signal.{signal})
    return really(*arguments)

TrajectoryModel.{method} = {wrapper}(dies)
cli.main()
"""
DEATHS = [("from_pretrained", "staticmethod", "SIGABRT"), ("infer", "", "SIGKILL")]


@pytest.mark.parametrize(("method", "wrapper", "death"), DEATHS, ids=["opened", "asked"])
@pytest.mark.parametrize("passed", [False, True], ids=["on probation", "kept"])
def test_a_service_that_its_model_takes_down_leaves_it(on_trial, method, wrapper, death, passed):
    """The real command, started again and again as by systemd; the crash is simulated in its process."""
    if passed:
        assert "passed" in watched(on_trial, [said()] * 5)[0]
    program = RUN.format(method=method, wrapper=wrapper, signal=death)
    command = [sys.executable, "-c", program, "run", "--home", str(on_trial.folder), "--every", "0.01"]
    ended = []
    for _ in range(4):
        done = subprocess.run(
            [*command, "--count", "1", "--stride", "1"], capture_output=True, text=True, cwd=ROOT
        )
        ended.append(done.returncode)
    assert ended == [-getattr(signal, death)] * 3 + [0], done.stderr
    assert "3 starts never came to a first expression" in done.stderr
    assert speaking(on_trial) == "0.1.0" and set(Knowledge.read(on_trial).refused) == {"0.2.0"}


def test_a_service_that_is_killed_while_it_waits_keeps_its_release(on_trial):
    """The real command, and SIGKILL before it has heard enough to speak."""
    command = [sys.executable, "-m", "eisv_lumen.cli", "run", "--home", str(on_trial.folder), "--every", "9"]
    for number in range(4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        deadline = time.monotonic() + 60
        while Starts.read(on_trial).stage != WAITING or Starts.read(on_trial).lost < number:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.communicate()
    assert speaking(on_trial) == "0.2.0" and Starts.read(on_trial).crashed == 0
    assert watched(on_trial, [said()]) == [] and Knowledge.read(on_trial).refused == {}


class TestLimits:
    @pytest.mark.parametrize(
        "wrong",
        [{"expressions": 0}, {"starts": 1.5}, {"slow_share": 2}, {"rss_mb": -1}, {"seconds": float("nan")}],
    )
    def test_impossible_limits_are_refused(self, wrong):
        with pytest.raises(ConfigurationError, match="probation"):
            Limits(**wrong)

    def test_counts_compare_with_limits(self):
        assert Counts("t", expressions=5).complete(LIMITS)
        assert Counts("t", expressions=4, by_model=0).broken(LIMITS) is None
