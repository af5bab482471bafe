"""The process beside the builder: what it gives back, how it fails, and that it never outlives its use."""

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dataset_builder import composing
from dataset_builder.anima_db import AnimaDatabase
from dataset_builder.beside import Beside, ahead
from dataset_builder.build import build
from dataset_builder.composing import Composition
from dataset_builder.configuration import NATIVE, DatasetSettings
from dataset_builder.legacy import legacy_columns
from dataset_builder.teaching import converging
from dataset_builder.writing import LegacyWriter
from eisv_lumen.errors import ResourceError, SourceError
from eisv_lumen.rules import Rules
from tests.test_dataset_builder import write_database

SETTINGS = DatasetSettings(scales=(NATIVE,))


def ends_itself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def raises(error):
    def work(*_, **__):
        raise error

    return work


def test_it_works_with_what_it_is_handed_in_a_process_of_its_own():
    with Beside(lambda receive: (os.getpid(), receive() * 2)) as beside:
        process, doubled = beside.finish(np.arange(3.0))
    assert process != os.getpid()
    assert doubled.tolist() == [0, 2, 4]
    assert not multiprocessing.active_children()


def test_what_it_raises_is_raised_here():
    with (
        pytest.raises(SourceError, match="a bad row") as refused,
        Beside(raises(SourceError(found="a bad row", expected="a good one", next="mend it"))) as beside,
    ):
        beside.finish()
    assert (refused.value.expected, refused.value.next) == ("a good one", "mend it")
    with pytest.raises(OSError) as full, Beside(raises(OSError(errno.ENOSPC, "full", "a.parquet"))) as beside:
        beside.finish()
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "a.parquet")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"), Beside(lambda _: 1 // 0) as beside:
        beside.finish()


def test_one_that_is_killed_is_an_error():
    with pytest.raises(ResourceError, match="code -9"), Beside(ends_itself) as beside:
        beside.finish()


def test_one_that_is_no_longer_wanted_is_ended():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Beside(lambda _: time.sleep(600)):
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 300


def test_it_ends_when_the_process_that_began_it_is_killed():
    program = (
        "import time\nfrom dataset_builder.beside import Beside\n"
        "with Beside(lambda _: (print('begun', flush=True), time.sleep(600))) as beside:\n    beside.finish()"
    )
    began = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert began.stdout.readline() == b"begun\n"
    began.kill()
    began.wait()
    started = time.monotonic()
    assert began.stdout.read() == b""  # both hold the other end, so it ends when both have
    assert time.monotonic() - started < 300


def test_items_made_ahead_come_in_order_from_a_process_of_its_own():
    found = list(ahead(lambda: ((os.getpid(), np.full(5000, k)) for k in range(40))))
    assert [int(values[-1]) for _, values in found] == list(range(40))
    (process,) = {process for process, _ in found}
    assert process != os.getpid() and not multiprocessing.active_children()


def test_what_the_making_of_an_item_raises_comes_after_the_items_before_it():
    def items():
        yield 1
        raise SourceError(found="a bad row", expected="a good one", next="mend it")

    made = ahead(items)
    assert next(made) == 1
    with pytest.raises(SourceError, match="a bad row"):
        next(made)
    killed = ahead(lambda: (ends_itself() for _ in range(1)))
    with pytest.raises(ResourceError, match="code -9"):
        next(killed)
    assert not multiprocessing.active_children()


def test_a_process_killed_within_an_item_is_an_error_as_well():
    def cut_off(connection, data, write=os.write):
        write(connection.fileno(), bytes(data[:1000]))
        if len(data) > 1000:
            ends_itself()

    def items():
        yield 1
        multiprocessing.connection.Connection._send = cut_off  # in this process alone
        yield np.zeros(1_000_000)

    with pytest.raises(ResourceError, match="code -9"):
        list(ahead(items))


def test_items_that_nobody_wants_any_more_are_not_made():
    made = ahead(lambda: (np.zeros(100_000) for _ in iter(int, 1)))  # without end
    next(made)
    made.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("owner", "name", "does", "error"),
    [
        (AnimaDatabase, "rows", ends_itself, ResourceError),
        (AnimaDatabase, "rows", raises(ValueError("a bug")), RuntimeError),
        (LegacyWriter, "add", ends_itself, ResourceError),
        (LegacyWriter, "close", raises(OSError(errno.ENOSPC, "No space left on device")), ResourceError),
        (LegacyWriter, "add", raises(ValueError("a bug")), RuntimeError),
        (Composition, "_write_splits", raises(KeyboardInterrupt()), KeyboardInterrupt),
        (composing, "read_source", raises(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_a_build_that_fails_on_either_side_leaves_nothing(owner, name, does, error, tmp_path, monkeypatch):
    write_database(tmp_path / "anima.db", n=400)
    monkeypatch.setattr(owner, name, does)
    with pytest.raises(error):
        build(tmp_path / "out", [str(tmp_path / "anima.db")], SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["anima.db"]
    assert not multiprocessing.active_children()


def test_rules_learn_beside_and_are_the_same():
    with converging(977) as rules:
        beside = rules()
    here, updates = Rules.converged(977)
    assert np.array_equal(beside.weights, here.weights) and np.array_equal(beside.updates, updates)
    with converging(977) as again:
        assert np.array_equal(again().weights, here.weights) and again() is not again()


@pytest.mark.parametrize("fails", [False, True])
def test_rules_that_nobody_asks_for_are_given_up(fails, monkeypatch):
    monkeypatch.setattr(Rules, "converged", lambda seed: time.sleep(600))
    with pytest.raises(KeyError) if fails else contextlib.nullcontext(), converging(978):
        assert multiprocessing.active_children()
        if fails:
            raise KeyError
    assert not multiprocessing.active_children()


def test_rules_learn_before_arrow_is_imported():
    program = "import sys\nimport dataset_builder.build\nassert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_command_does_without_pandas_and_leaves_it_usable(tmp_path):
    write_database(tmp_path / "anima.db", n=400)
    program = (
        "import sys\nfrom dataset_builder import build\nbuild.main()\nassert 'pandas' not in sys.modules\n"
        "import pyarrow\nassert pyarrow.default_memory_pool().backend_name == 'system'\n"
        "assert pyarrow.table({'a': [1, 2]}).to_pandas().a.sum() == 3"
    )
    place = ["--source", str(tmp_path / "anima.db"), "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", program, *place], check=True, capture_output=True)


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 4e4])
def test_legacy_texts_say_the_numbers_rounded(size):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.5, 1.5, 50)) + (0.0 if size < 1 else 1.7e9)
    states = (rng.uniform(-size, size, (50, 4))).astype(np.float32)
    at = np.array([0, 10, 30])[:, None] + np.arange(20)
    columns = legacy_columns(times, states, at, np.zeros(3, np.int64), {}, provenance="real", cadence=1.0)
    for row, (text, rates) in enumerate(zip(columns["eisv_states"], columns["derivatives"], strict=True)):
        points, slopes = json.loads(text.as_py()), json.loads(rates.as_py())
        assert [p["t"] for p in points] == np.round(times[at[row]], 3).tolist()
        found = np.array([[p[name] for name in "EISV"] for p in points])
        assert np.abs(found - states[at[row]]).max() <= 0.5001e-4
        steps = np.diff(times[at[row]])[:, None]
        expected = np.diff(states[at[row]].astype(np.float64), axis=0) / steps
        found = np.array([[s[f"d{name}"] for name in "EISV"] for s in slopes])
        assert np.abs(found - expected).max() <= 0.5001e-4
        assert [s["t"] for s in slopes] == [p["t"] for p in points[1:]]
