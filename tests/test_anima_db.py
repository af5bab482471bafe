"""Lumen's database, of every age and state of health: real SQLite files, and a real second writer."""

import json
import sqlite3
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from dataset_builder.anima_db import AnimaDatabase, StateReader, read_feedback, read_tokens
from eisv_lumen.errors import SourceError
from eisv_lumen.expression import Expression
from eisv_lumen.logs import LogReport
from eisv_lumen.sensors import ANIMA, AnimaFilter, Readings
from eisv_lumen.timestamps import time_zone
from eisv_lumen.vocabulary import SHAPE_ID

START = 1.76e9
WHOLE = "id INTEGER PRIMARY KEY, timestamp TEXT, warmth REAL, clarity REAL, stability REAL, presence REAL"


def clock(seconds, zone=UTC):
    """A moment as the tables write it: naive, in the zone of the device."""
    return datetime.fromtimestamp(START + seconds, zone).replace(tzinfo=None).isoformat()


def anima(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, 4))


def make(path, states=(), columns=WHOLE, **tables):
    """A database; each table as `name=(columns, rows)`."""
    connection = sqlite3.connect(path)
    for name, (described, rows) in {"state_history": (columns, states), **tables}.items():
        connection.execute(f"CREATE TABLE {name} ({described})")
        if rows:
            named = [part.split()[0] for part in described.split(", ") if "PRIMARY KEY" not in part]
            marks = ", ".join("?" * len(named))
            connection.executemany(f"INSERT INTO {name} ({', '.join(named)}) VALUES ({marks})", rows)
    connection.commit()
    connection.close()
    return path


def rows(values, zone=UTC, step=2.0):
    return [(clock(step * i, zone), *row) for i, row in enumerate(np.asarray(values).tolist())]


def read(path, zone=UTC, **options):
    report = LogReport()
    reader = StateReader(zone, report, **options)
    with AnimaDatabase(path, zone, report) as database:
        parts = [reader.read(stored) for stored in database.rows()]
        observed = database.observed()
    times = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
    states = np.concatenate([part[1] for part in parts]) if parts else np.zeros((0, 4))
    assert all(len(part[0]) == len(part[1]) <= 65_536 for part in parts)
    return times, states, observed, report


def said(observed):
    return [str(Expression.from_ids(ids)) for ids in observed.ids]


def test_states_come_in_chunks_in_the_order_of_the_rows(tmp_path):
    values = anima(70_000)
    path = make(tmp_path / "anima.db", rows(values))
    with AnimaDatabase(path, UTC, LogReport()) as database:
        assert len(list(database.rows())) > 1
    times, states, observed, report = read(path)
    np.testing.assert_array_equal(states, values)
    np.testing.assert_array_equal(times, START + 2.0 * np.arange(70_000))
    assert report.rows == 70_000 and not report.dropped and not report.notes
    assert len(observed) == 0 and observed.ids.shape == (0, 3) and observed.feedback == ()


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Denver", "Asia/Kathmandu"])
def test_naive_times_are_local_to_the_zone(tmp_path, name):
    zone = time_zone(name)
    path = make(tmp_path / "anima.db", rows(anima(100), zone, step=977.0))
    times, *_ = read(path, zone)
    np.testing.assert_allclose(times, START + 977.0 * np.arange(100), atol=1e-6)


def test_times_may_be_numbers_or_name_their_zone(tmp_path):
    moments = [
        "2025-10-09T08:53:20+00:00",
        "2025-10-09 08:53:22Z",
        START + 4,
        "1760000006000",
        int(START) + 8,
    ]
    path = make(
        tmp_path / "anima.db",
        [(moment, 0.5, 0.5, 0.5, 0.5) for moment in moments],
        columns=WHOLE.replace("timestamp TEXT", "timestamp"),
    )
    assert read(path, time_zone("America/Denver"))[0].tolist() == (START + 2.0 * np.arange(5)).tolist()


def test_rows_that_say_no_state_are_left_out_and_counted(tmp_path):
    path = make(
        tmp_path / "anima.db",
        [
            (clock(0), 0.5, 0.5, 0.5, 0.5),
            ("yesterday", 0.5, 0.5, 0.5, 0.5),
            (None, 0.5, 0.5, 0.5, 0.5),
            (clock(2), 0.5, None, 0.5, 0.5),
            (clock(4), 0.5, "cold", 0.5, 0.5),
            (clock(6), 0.5, 1.5, 0.5, 0.5),
            (clock(8), float("inf"), 0.5, 0.5, 0.5),
            (clock(10), "0.25", 0, 1, 0.5),
            (b"\xff\xfe not UTF-8", 0.5, 0.5, 0.5, 0.5),
        ],
    )
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO state_history (timestamp, warmth, clarity, stability, presence) "
        "VALUES (CAST(x'ff4e6f' AS TEXT), 0.5, 0.5, 0.5, 0.5)"
    )
    connection.commit()
    connection.close()
    times, states, _, report = read(path)
    assert times.tolist() == [START, START + 10]
    assert states.tolist() == [[0.5] * 4, [0.25, 0.0, 1.0, 0.5]]
    assert report.rows == 10
    assert report.dropped == {"unreadable time": 4, "no value": 2, "impossible state": 2}


HISTORY = (
    "id INTEGER PRIMARY KEY, timestamp TEXT, tokens TEXT, category_pattern TEXT, warmth REAL, "
    "brightness REAL, stability REAL, presence REAL, score REAL, feedback_signals TEXT, got_response BOOL"
)


def utterance(seconds, tokens, pattern=None, score=None, signals=None):
    return (clock(seconds), tokens, pattern, 0.5, 0.5, 0.5, 0.5, score, signals, signals is not None)


def test_expressions_as_every_version_wrote_them(tmp_path):
    path = make(
        tmp_path / "anima.db",
        primitive_history=(
            HISTORY,
            [
                utterance(10, "~ripple~ ~return~", "PAIR", 0.75, '["response", "touch"]'),
                utterance(
                    4, "~ripple~,~return~", "PAIR", None, '{"response": true, "touch": 0, "gaze": 0.4}'
                ),
                utterance(20, "ripple, return, holding", "TRIPLE", 0, "response, touch,,response"),
                utterance(30, "stillness stillness", "REPETITION", 1),
                utterance(40, "~threshold~ ~questioning~", "QUESTION"),
                utterance(50, "~threshold~ ~questioning~", "PAIR"),
                utterance(60, "~threshold~?", None),
                utterance(70, '["~holding~", "~return~"]', "SENSORY,SOCIAL", 1.5, "null"),
                utterance(80, "warm feel"),
                utterance(90, "~purple~ ~return~"),
                utterance(100, ""),
                utterance(110, None),
                ("some day", *utterance(0, "~ripple~")[1:]),
            ],
        ),
    )
    *_, observed, report = read(path)
    assert said(observed) == [
        "~ripple~ ~return~",
        "~ripple~ ~return~",
        "~ripple~ ~return~ ~holding~",
        "~stillness~ ~stillness~",
        "~threshold~?",
        "~threshold~ ~questioning~",
        "~threshold~?",
        "~holding~ ~return~",
    ]
    assert (observed.times - START).tolist() == [4, 10, 20, 30, 40, 50, 60, 70]
    nan = float("nan")
    np.testing.assert_array_equal(observed.scores, [nan, 0.75, 0, 1, nan, nan, nan, nan])
    assert observed.feedback == (
        ("response", "gaze"), ("response", "touch"), ("response", "touch"), (), (), (), (), (),
    )  # fmt: skip
    assert report.dropped == {
        "observed expression in Lumen's words": 1,
        "observed expression unreadable": 3,
        "observed expression without a time": 1,
    }
    assert report.values == {"impossible score": 1}


@pytest.mark.parametrize("lacking", ["category_pattern", "score", "feedback_signals", "got_response", "all"])
def test_older_histories_lack_columns(tmp_path, lacking):
    newer = {"category_pattern TEXT": "PAIR", "score REAL": 0.75, "feedback_signals TEXT": "touch",
             "got_response BOOL": 1}  # fmt: skip
    kept = {name: value for name, value in newer.items() if lacking not in (name.split()[0], "all")}
    path = make(
        tmp_path / "anima.db",
        rows(anima(30)),
        primitive_history=(
            ", ".join(["id INTEGER PRIMARY KEY", "timestamp TEXT", "tokens TEXT", *kept]),
            [(clock(5), "~ripple~ ~return~", *kept.values())],
        ),
    )
    times, _, observed, report = read(path)
    assert len(times) == 30 and said(observed) == ["~ripple~ ~return~"] and not report.dropped
    assert np.isnan(observed.scores[0]) == ("score REAL" not in kept)
    assert observed.feedback == ((("touch",) if "feedback_signals TEXT" in kept else ()),)


def test_a_history_without_tokens_is_said_to_be_of_no_use(tmp_path):
    path = make(tmp_path / "anima.db", primitive_history=("timestamp TEXT, mood TEXT", [(clock(1), "good")]))
    *_, observed, report = read(path)
    assert len(observed) == 0
    assert report.notes == ["primitive_history without timestamp and tokens: nothing read from it"]


EVENTS = (
    "id INTEGER PRIMARY KEY, timestamp TEXT, event_type TEXT, shape TEXT, expression_tokens TEXT, "
    "coherence_score REAL, cache_hit BOOL"
)


def test_events_add_what_the_history_does_not_hold(tmp_path):
    zone = time_zone("America/Denver")
    history = [
        (clock(at, zone), tokens, None, 0.5, 0.5, 0.5, 0.5, 0.9, None, 0)
        for at, tokens in ((100, "~ripple~ ~return~"), (200, "~stillness~"))
    ]
    events = [
        (clock(98.5), "expression", "convergence", '["~ripple~", "~return~"]', 0.5, 0),  # said at 100
        (clock(102.5), "expression", "convergence", "~ripple~ ~return~", 0.25, 0),  # too late to be that one
        (clock(200), "expression", "void_rising", "~return~", 1.0, 0),  # other tokens
        (clock(200.5), "expression", "nameless", "~return~", 0.0, 0),  # an event told twice
        (clock(50), "expression", None, "~holding~", None, 1),
        (clock(60), "classification", "convergence", None, 0.5, 0),
        (clock(61), "classification", "convergence", "[]", 0.5, 0),
        (clock(62), "expression", "convergence", "~purple~", 0.5, 0),
    ]
    path = make(
        tmp_path / "anima.db",
        rows(anima(3), zone),
        primitive_history=(HISTORY, history),
        trajectory_events=(EVENTS, events),
    )
    times, _, observed, report = read(path, zone)
    assert times[0] == START
    assert (observed.times - START).tolist() == [50, 100, 102.5, 200, 200]
    assert said(observed) == [
        "~holding~",
        "~ripple~ ~return~",
        "~ripple~ ~return~",
        "~stillness~",
        "~return~",
    ]
    np.testing.assert_array_equal(observed.scores, [np.nan, 0.9, 0.25, 0.9, 1.0])
    shapes = [-1, -1, SHAPE_ID["convergence"], -1, SHAPE_ID["void_rising"]]
    assert observed.shapes.tolist() == shapes
    assert report.dropped == {"observed expression unreadable": 1}
    assert report.notes == ["3 observed expressions come from trajectory_events"]


def test_older_events_lack_columns(tmp_path):
    path = make(
        tmp_path / "anima.db",
        trajectory_events=("timestamp TEXT, expression_tokens TEXT", [(clock(1), "~ripple~")]),
    )
    *_, observed, _ = read(path)
    assert said(observed) == ["~ripple~"] and observed.shapes[0] == -1 and np.isnan(observed.scores[0])
    path = make(tmp_path / "older.db", trajectory_events=("timestamp TEXT, shape TEXT", [(clock(1), "x")]))
    *_, observed, report = read(path)
    assert len(observed) == 0 and "without timestamp and expression_tokens" in report.notes[0]


def sensing(n):
    """Readings as Lumen's `sensors` column holds them, and the same as channels."""
    rng = np.random.default_rng(3)
    t = np.arange(n)
    channels = {
        "cpu_temp_c": 55 + 5 * np.sin(t / 40),
        "ambient_temp_c": 22 + rng.normal(0, 0.1, n),
        "humidity_pct": 45 + 10 * np.sin(t / 70),
        "cpu_pct": rng.uniform(5, 40, n),
        "memory_pct": np.full(n, 42.0) + rng.normal(0, 0.1, n),
        "disk_pct": np.full(n, 31.0),
    }
    named = {"cpu_pct": "cpu_percent", "memory_pct": "memory_percent", "disk_pct": "disk_percent"}
    texts = [
        json.dumps(
            {named.get(name, name): values[i] for name, values in channels.items()} | {"power_watts": 3}
        )
        for i in range(n)
    ]
    return channels, texts


@pytest.mark.parametrize("lacking", [("presence",), ("warmth", "stability"), ANIMA])
def test_a_dimension_that_an_older_file_lacks_comes_from_the_sensors(tmp_path, lacking):
    n = 20_000
    channels, texts = sensing(n)
    values = anima(n)
    kept = [at for at, name in enumerate(ANIMA) if name not in lacking]
    described = ["id INTEGER PRIMARY KEY", "timestamp TEXT", *(f"{ANIMA[at]} REAL" for at in kept)]
    path = make(
        tmp_path / "anima.db",
        [
            (time, *row, text)
            for (time, *_), row, text in zip(rows(values), values[:, kept].tolist(), texts, strict=True)
        ],
        columns=", ".join([*described, "sensors TEXT"]),
    )
    times, states, _, report = read(path, site_pressure=830.0)
    felt = AnimaFilter(site_pressure=830.0).update(Readings(START + 2.0 * np.arange(n), channels))
    for at, name in enumerate(ANIMA):
        np.testing.assert_array_equal(states[:, at], (felt if name in lacking else values)[:, at])
    assert report.notes == [f"no {', '.join(lacking)} in state_history: computed from the sensors"]
    assert not set(lacking) & set(report.mapped)
    assert len(times) == n


def test_sensors_that_say_nothing_make_no_state(tmp_path):
    texts = [
        '{"cpu_temp_c": 60, "cpu_percent": 10}',
        None,
        "{}",
        "{broken",
        '["cpu_temp_c"]',
        '{"cpu_temp_c": 394}',
        '{"cpu_temp_c": null, "mood": 1}',
        '{"temperature": 21, "ambient_temp_c": 25}',
    ]
    path = make(
        tmp_path / "anima.db",
        [(clock(2 * i), 0.5, 0.5, 0.5, text) for i, text in enumerate(texts)],
        columns="timestamp TEXT, warmth REAL, clarity REAL, stability REAL, sensors TEXT",
    )
    times, _, _, report = read(path)
    assert (times - START).tolist() == [0, 14]
    assert report.dropped == {"no value": 6}
    assert report.values == {"unreadable sensors": 2, "impossible cpu_temp_c": 1}


def test_empty_tables_are_empty(tmp_path):
    path = make(tmp_path / "anima.db", primitive_history=(HISTORY, []), trajectory_events=(EVENTS, []))
    times, states, observed, report = read(path)
    assert len(times) == len(states) == len(observed) == report.rows == 0


REFUSED = {
    "no such file": (lambda path: None, "No such file"),
    "no database": (lambda path: path.write_text("warmth,clarity\n" * 900), "not a database"),
    "other tables": (lambda path: sqlite3.connect(path).execute("CREATE TABLE t (x)"), "no state_history"),
    "no times": (lambda path: make(path, columns="warmth REAL, sensors TEXT"), "without timestamp"),
    "a dimension lacks, and the sensors": (
        lambda path: make(path, columns="timestamp TEXT, warmth REAL, clarity REAL, stability REAL"),
        "state_history without presence",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_database_of_lumens_is_refused(tmp_path, case):
    build, reason = REFUSED[case]
    build(tmp_path / "anima.db")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SourceError, match=reason):
        read(tmp_path / "anima.db")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", ["a hole in the middle", "cut off", "a broken schema"])
def test_a_damaged_database_is_refused(tmp_path, damage):
    path = make(tmp_path / "anima.db", rows(anima(20_000)))
    content = bytearray(path.read_bytes())
    if damage == "a hole in the middle":
        content[len(content) // 3 : len(content) // 2] = b"\xa5" * (len(content) // 2 - len(content) // 3)
    elif damage == "cut off":
        del content[len(content) // 2 :]
    else:
        content[100:4000] = b"\xa5" * 3900
    path.write_bytes(content)
    with pytest.raises(SourceError, match="a SQLite database that can be read"):
        read(path)


WRITER = """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    number = 0
    while True:
        with connection:
            for _ in range(20):
                connection.execute(
                    "INSERT INTO state_history (timestamp, warmth, clarity, stability, presence) "
                    "VALUES (?, 0.5, 0.5, 0.5, 0.5)", (f"2030-01-01T00:00:{number % 60:02}",))
            connection.execute("INSERT INTO primitive_history (timestamp, tokens) "
                               "VALUES ('2030-01-01T00:00:00', '~ripple~')")
        if number % 7 == 0:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        number += 1
        print(number, flush=True)
"""


@pytest.fixture
def busy(tmp_path):
    """A database into which another process writes without pause, in write-ahead mode."""
    path = make(tmp_path / "anima.db", rows(anima(30_000)), primitive_history=(HISTORY, []))
    code = textwrap.dedent(WRITER)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout.readline().strip() == "1"
            yield path, writer
        finally:
            writer.kill()


def test_one_snapshot_while_another_process_writes(busy):
    path, writer = busy
    for _ in range(5):
        report = LogReport()
        with AnimaDatabase(path, UTC, report) as database:
            first = sum(len(stored.anima) for stored in database.rows())
            written = int(writer.stdout.readline())
            while int(writer.stdout.readline()) < written + 5:  # it goes on writing meanwhile
                pass
            again = sum(len(stored.anima) for stored in database.rows())
            # Each of its transactions adds twenty states and one expression.
            assert first == again and first > 30_000
            assert (first - 30_000) == 20 * len(database.observed())
    assert writer.poll() is None


def test_the_writer_is_not_held_up_and_nothing_is_changed(busy):
    path, writer = busy
    writer.kill()
    writer.wait()
    before = {place.name: place.read_bytes() for place in path.parent.iterdir() if place.suffix != ".db-shm"}
    times, *_ = read(path)
    assert len(times) > 30_000
    after = {place.name: place.read_bytes() for place in path.parent.iterdir() if place.suffix != ".db-shm"}
    assert after == before


def test_a_database_at_rest_in_write_ahead_mode_gains_no_files(tmp_path):
    path = make(tmp_path / "anima.db", rows(anima(100)))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    assert [place.name for place in tmp_path.iterdir()] == ["anima.db"]
    assert len(read(path)[0]) == 100
    assert [place.name for place in tmp_path.iterdir()] == ["anima.db"]


def test_a_database_at_rest_that_is_changed_meanwhile_is_refused(tmp_path):
    path = make(tmp_path / "anima.db", rows(anima(100)))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    with pytest.raises(SourceError, match="changed while it was read"), AnimaDatabase(path, UTC, LogReport()):
        connection = sqlite3.connect(path)
        connection.execute("DELETE FROM state_history")
        connection.commit()
        connection.close()


def test_tokens_and_signals():
    assert read_tokens(b"~ripple~ ,  ~return~,") == (("ripple", "return"), False)
    assert read_tokens('["~threshold~?"]') == (("threshold",), True)
    assert read_tokens("~a~ ~b~?") == (("a", "b"), False)
    assert read_tokens(None) == ((), False)
    assert read_feedback(None) == read_feedback("") == read_feedback("[]") == read_feedback("{}") == ()
    assert read_feedback("7") == read_feedback("true") == ()
    assert read_feedback('"touch,gaze"') == read_feedback("touch, gaze") == ("touch", "gaze")
    assert read_feedback('["touch", 3, "touch", null]') == ("touch",)


@pytest.mark.slow
def test_a_long_history_is_read_quickly(tmp_path):
    """As many rows as Lumen's own database has, against what SQLite and `datetime` alone take here."""
    n = 214_503
    path = make(tmp_path / "anima.db", rows(anima(n)))
    plain = quick = float("inf")
    for _ in range(3):
        begun = time.process_time()
        with sqlite3.connect(path) as connection:
            for row in connection.execute(f"SELECT timestamp, {', '.join(ANIMA)} FROM state_history"):
                datetime.fromisoformat(row[0]).replace(tzinfo=UTC).timestamp()
        plain = min(plain, time.process_time() - begun)
        begun = time.process_time()
        assert len(read(path)[0]) == n
        quick = min(quick, time.process_time() - begun)
    assert quick < 0.8 * plain
