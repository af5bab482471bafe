"""Buffer, cadence, voice, journal and service: what turns states into speech, whatever the model does."""

import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisv_lumen.device.awareness import Cadence, StateBuffer, Voice
from eisv_lumen.device.home import Home
from eisv_lumen.device.journal import Journal
from eisv_lumen.device.service import Service, collect, live_states, newest_window, open_voice
from eisv_lumen.errors import ResourceError, SourceError, WindowError
from eisv_lumen.expression import Expression
from eisv_lumen.rules import Rules
from eisv_lumen.sensors import Readings
from eisv_lumen.vocabulary import AFFINITY, SHAPE_ID, TOKEN_ID
from tests.release_artifacts import small_student, some_windows

STATE = np.array([0.5, 0.5, 0.5, 0.1])
WINDOW = some_windows(1)


class Model:
    """A student with a confidence of the test's choice."""

    version = "9.9.9"

    def __init__(self, confidence: float = 0.9, error: BaseException | None = None) -> None:
        self.confidence, self.error = confidence, error

    def infer(self, window, generator=None):
        if self.error:
            raise self.error
        return SimpleNamespace(
            expression=Expression(("ripple",), "SINGLE"),
            lumen_words=("busy",),
            shape="rising_entropy",
            confidence=self.confidence,
        )


def speak(model, **options):
    return Voice(model, Rules(), generator=np.random.default_rng(0), **options).speak(WINDOW)


class TestVoice:
    def test_a_confident_model_speaks(self):
        spoken = speak(Model())
        assert (spoken.source, spoken.reason, str(spoken.expression)) == ("M", None, "~ripple~")
        assert (spoken.shape, spoken.confidence, spoken.version) == ("rising_entropy", 0.9, "9.9.9")

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (None, "no model is installed"),
            (Model(0.59), "below the gate"),
            (Model(float("nan")), "below the gate"),
            (Model(error=WindowError(found="a bad window", expected="x", next="y")), "a bad window"),
            (Model(error=RuntimeError("secret detail")), "RuntimeError"),
        ],
    )
    def test_otherwise_the_rules_speak_and_say_why(self, model, reason):
        spoken = speak(model)
        assert spoken.source == "R" and reason in (spoken.reason or "")
        assert spoken.shape in SHAPE_ID and 0 <= spoken.confidence <= 1
        assert spoken.version == (None if model is None else "9.9.9")

    def test_the_gate_is_inclusive(self):
        assert speak(Model(0.6)).source == "M"
        assert speak(Model(0.7), gate=0.8).source == "R"

    def test_the_rules_learn_from_what_they_say(self):
        voice = Voice(None, Rules(), generator=np.random.default_rng(0))
        spoken = voice.speak(WINDOW)
        shape = SHAPE_ID[spoken.shape]
        assert voice.rules.updates[shape] == 1
        moved = np.flatnonzero(voice.rules.weights[shape] != Rules().weights[shape])
        assert set(moved) <= {TOKEN_ID[token] for token in spoken.expression.tokens}

    def test_the_rules_confidence_is_their_expected_coherence(self):
        spoken = speak(None)
        expected = Rules().distribution().coherence(AFFINITY)[SHAPE_ID[spoken.shape]]
        assert spoken.confidence == pytest.approx(expected)


class TestBuffer:
    @given(st.lists(st.floats(0.5, 2.0), max_size=60))
    def test_it_holds_the_newest_states(self, steps):
        buffer = StateBuffer()
        times = np.cumsum(steps)
        for number, moment in enumerate(times):
            assert buffer.add(float(moment), np.full(4, number / 100) * [1, 1, 1, 0.3])
        assert len(buffer) == min(len(steps), 20)
        if len(steps) >= 4:
            window = buffer.window()
            assert np.allclose(np.diff(window.times[0]), np.diff(times)[-len(buffer) + 1 :])
            assert window.states[0, -1, 0] == pytest.approx((len(steps) - 1) / 100)

    @pytest.mark.parametrize("jump", [25.0, 3600.0, -1.0, -1e6])
    def test_it_starts_afresh_at_a_gap_or_a_step_back(self, jump):
        buffer = StateBuffer()
        for moment in range(0, 20, 2):
            buffer.add(float(moment), STATE)
        assert not buffer.add(18.0 + jump, STATE)
        assert len(buffer) == 1
        with pytest.raises(WindowError):
            buffer.window()

    def test_a_repeated_time_is_no_gap(self):
        buffer = StateBuffer()
        for moment in (0.0, 0.0, 0.0, 2.0, 4.0, 4.0):
            assert buffer.add(moment, STATE)

    def test_cadence(self):
        buffer, cadence = StateBuffer(), Cadence(10)
        due = []
        for number in range(50):
            buffer.add(float(number), STATE)
            if cadence.due(buffer):
                due.append(number)
        assert due == [19, 29, 39, 49]


class TestJournal:
    def test_it_keeps_what_was_said(self, tmp_path):
        journal = Journal(tmp_path / "j.sqlite")
        spoken = speak(Model())
        journal.append(spoken, WINDOW)
        (entry,) = Journal(tmp_path / "j.sqlite").newest()
        assert (entry["expression"], entry["lumen_words"], entry["source"]) == ("~ripple~", "busy", "M")
        assert entry["time"] == spoken.time and '"states"' in entry["window"]

    def test_the_oldest_entries_make_room(self, tmp_path):
        journal = Journal(tmp_path / "j.sqlite", keep=3)
        for confidence in (0.61, 0.62, 0.63, 0.64, 0.65):
            journal.append(speak(Model(confidence)), WINDOW)
        assert [entry["confidence"] for entry in journal.newest()] == [0.65, 0.64, 0.63] and len(journal) == 3

    def test_a_damaged_file_is_a_typed_error(self, tmp_path):
        (tmp_path / "j.sqlite").write_bytes(b"no database, but long enough to be taken for one" * 30)
        with pytest.raises(ResourceError, match=r"j\.sqlite"):
            Journal(tmp_path / "j.sqlite")

    def test_a_locked_file_is_waited_for(self, tmp_path):
        journal = Journal(tmp_path / "j.sqlite")
        with sqlite3.connect(tmp_path / "j.sqlite") as reader:
            reader.execute("SELECT * FROM spoken").fetchall()
            journal.append(speak(Model()), WINDOW)
        assert len(journal) == 1


def readings(count: int, step: float = 2.0):
    rng = np.random.default_rng(0)
    for number in range(count):
        channels = {"cpu_pct": [30 + 10 * rng.random()], "memory_pct": [40.0], "cpu_temp_c": [50.0]}
        yield Readings.of([1e9 + step * number], channels)


class TestService:
    def test_it_speaks_at_its_cadence_and_keeps_a_journal(self, tmp_path):
        home, told = Home(tmp_path), []
        service = Service(home, Voice(Model(), Rules()), stride=10, told=told.append)
        assert service.run(live_states(readings(5 + 45))) == 3
        assert [spoken.source for spoken in told] == ["M"] * 3 and len(Journal(home.journal)) == 3

    def test_it_ends_after_as_many_expressions_as_asked(self, tmp_path):
        assert (
            Service(Home(tmp_path), Voice(Model(), Rules()), stride=1).run(live_states(readings(99)), 2) == 2
        )

    def test_a_journal_that_cannot_be_written_does_not_silence_it(self, tmp_path, monkeypatch):
        home, told, warned = Home(tmp_path), [], []
        service = Service(home, Voice(Model(), Rules()), stride=1, told=told.append, warn=warned.append)
        full = ResourceError(found="disk full", expected="x", next="y")
        monkeypatch.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(full))
        assert service.run(live_states(readings(40)), 3) == 3
        assert len(told) == 3 and warned == ["not kept: disk full"] * 3

    def test_a_damaged_journal_neither_silences_it_nor_makes_it_forget(self, tmp_path):
        home, told, warned = Home(tmp_path), [], []
        home.journal.write_bytes(b"no database" * 500)
        service = Service(home, open_voice(home), stride=1, told=told.append, warn=warned.append)
        assert service.run(live_states(readings(60)), 2) == len(told) == len(warned) == 2
        assert "journal.sqlite" in warned[0] and home.rules()[0].updates.sum() == 2
        home.journal.unlink()  # a person mends it; the service goes on keeping
        service.run(live_states(readings(60)), 1)
        assert len(warned) == 2 and len(Journal(home.journal)) == 1

    def test_what_the_rules_learned_survives_a_restart(self, tmp_path):
        home = Home(tmp_path)
        Service(home, open_voice(home), stride=1).run(live_states(readings(60)), 5)
        rules, problem = Home(tmp_path).rules()
        assert rules.updates.sum() == 5 and problem is None

    def test_damaged_weights_start_afresh_and_say_so(self, tmp_path):
        home = Home(tmp_path)
        (tmp_path / "weights.json").write_text('{"weights": {}}')
        rules, problem = home.rules()
        assert rules.updates.sum() == 0 and "weights.json" in (problem or "")
        assert open_voice(home).speak(WINDOW).source == "R"

    def test_a_new_release_is_taken_up_while_running(self, tmp_path, monkeypatch):
        home, opened = Home(tmp_path), []
        monkeypatch.setattr(
            "eisv_lumen.device.service.open_voice",
            lambda *_, **__: opened.append(1) or Voice(Model(0.8), Rules()),
        )
        service = Service(home, Voice(Model(), Rules()), stride=1)
        service.run(live_states(readings(30)), 2)
        assert not opened
        home.write("current", {"slot": "a", "version": "0.1.0"})
        service.run(live_states(readings(30)), 2)
        assert len(opened) == 1 and service.voice.model.confidence == 0.8

    def test_collect_wants_enough_states(self):
        assert collect(live_states(readings(25)), 20).counts.tolist() == [20]
        with pytest.raises(SourceError):
            collect(live_states(readings(24)), 20)

    def test_a_student_folder_is_verified_before_it_speaks(self, tmp_path):
        student = small_student(tmp_path / "student")
        assert open_voice(None, student).speak(WINDOW).source == "M"
        graph = student / "onnx" / "model_int8.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"?")
        spoken = open_voice(None, student).speak(WINDOW)
        assert spoken.source == "R" and "altered" in (spoken.reason or "")


class TestLogs:
    def test_the_newest_states_are_heard(self, tmp_path):
        path = tmp_path / "log.csv"
        path.write_text("timestamp,cpu_pct\n" + "".join(f"{1e9 + 2 * i:.0f},{i % 50}\n" for i in range(100)))
        window = newest_window(path)
        assert window.counts.tolist() == [20] and np.allclose(np.diff(window.times[0]), 2)
        assert newest_window(path, count=4).counts.tolist() == [4]

    def test_a_log_that_ends_in_a_gap_gives_the_last_stretch(self, tmp_path):
        path = tmp_path / "log.csv"
        moments = [1e9 + 2 * i for i in range(40)] + [1e9 + 5000, 1e9 + 5002]
        path.write_text("timestamp,cpu_pct\n" + "".join(f"{m:.0f},{i}\n" for i, m in enumerate(moments)))
        window = newest_window(path)
        assert window.counts.tolist() == [20] and np.allclose(np.diff(window.times[0]), 2)

    @pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "timestamp,cpu_pct\n1,2\n"])
    def test_unusable_logs_are_refused(self, tmp_path, content):
        (tmp_path / "log.csv").write_text(content)
        with pytest.raises(SourceError):
            newest_window(tmp_path / "log.csv")
        with pytest.raises(SourceError):
            newest_window(tmp_path / "absent.csv")

    def test_real_logs(self, shared_data):
        window = newest_window(shared_data / "piweather_sensehat.raw_order.csv.gz")
        assert window.counts.tolist() == [20]
