"""Rows of the published schema, written as the published builder writes them and read back."""

import json
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builder.legacy_rows import HubRows, LegacyRows, is_legacy, resolve
from dataset_builder.parquet import LEGACY
from eisv_lumen.errors import ConfigurationError, HubError, SourceError
from eisv_lumen.expression import Expression
from eisv_lumen.logs import LogReport
from eisv_lumen.vocabulary import STATE_MAX
from hub.local import start

START = 1.76e9


def eisv(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, 4)) * STATE_MAX


def moments(n, step=2.0, seed=0):
    return START + np.cumsum(np.random.default_rng(seed).uniform(0.5, 1.5, n) * step)


def row(times, states, tokens=(), provenance="lumen_real", **changed):
    """One row, its JSON made by the standard library, as the published builder does."""
    times, states = np.asarray(times).tolist(), np.asarray(states).tolist()
    points = [{"t": t, "E": e, "I": i, "S": s, "V": v} for t, (e, i, s, v) in zip(times, states, strict=True)]
    steps = [(a, b, b["t"] - a["t"]) for a, b in pairwise(points) if b["t"] > a["t"]]
    rates = [{"t": b["t"]} | {f"d{k}": (b[k] - a[k]) / dt for k in "EISV"} for a, b, dt in steps]
    return {
        "shape": "convergence",
        "eisv_states": json.dumps(points),
        "derivatives": json.dumps(rates),
        "t_start": times[0] if times else 0.0,
        "t_end": times[-1] if times else 0.0,
        "provenance": provenance,
        "tokens": json.dumps([list(one) for one in tokens]),
        "n_expressions": len(tokens),
        **changed,
    }


def cut(times, states, said=(), length=20, stride=10):
    """All windows of a series; `said` are (moment, tokens), given to each window around the moment."""
    return [
        row(
            times[at : at + length],
            states[at : at + length],
            [tokens for moment, tokens in said if times[at] <= moment <= times[at + length - 1]],
        )
        for at in range(0, len(times) - length + 1, stride)
    ]


def means(times, states, cadence):
    """Mean times and states of bins of so many seconds."""
    _, which, counts = np.unique(times // cadence, return_inverse=True, return_counts=True)
    sums = [np.bincount(which, weights=column) / counts for column in (times - START, *states.T)]
    return START + sums[0], np.stack(sums[1:], axis=1)


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=LEGACY), path, **options)
    return path


def read(place):
    report = LogReport()
    with LegacyRows(place, report) as rows:
        parts = list(rows.states())
        observed, synthetic = rows.observed(), rows.synthetic()
        again = [len(times) for times, _ in rows.states()]
    assert again == [len(times) for times, _ in parts] and max(again, default=0) <= 65_536
    times = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
    states = np.concatenate([part[1] for part in parts]) if parts else np.zeros((0, 4))
    assert (np.diff(times) > 0).all()
    return times, states, observed, synthetic, report


def said(observed):
    return [str(Expression.from_ids(ids)) for ids in observed.ids]


@pytest.mark.parametrize("order", ["as recorded", "newest first", "shuffled"])
def test_states_of_overlapping_rows_are_the_states_they_were_cut_from(tmp_path, order):
    times, states = moments(70_000), eisv(70_000)
    rows = cut(times, states)
    if order == "newest first":
        rows = rows[::-1]
    if order == "shuffled":
        rows = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]
    found, values, observed, synthetic, report = read(write(tmp_path / "rows.parquet", rows))
    np.testing.assert_array_equal(found, times)
    np.testing.assert_array_equal(values, states)
    assert report.rows == len(rows) and not report.dropped
    assert report.notes == (
        [] if order == "as recorded" else ["the rows were not in order of time and were sorted"]
    )
    assert len(observed) == 0 and synthetic is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_cut_of_any_series_gives_the_series_back(tmp_path_factory, data):
    n = data.draw(st.integers(20, 120))
    steps = data.draw(st.lists(st.sampled_from([0.01, 0.5, 2.0, 60.0, 7200.0]), min_size=n, max_size=n))
    times, states = START + np.cumsum(steps), eisv(n, seed=n)
    stride = data.draw(st.integers(1, 20))
    rows = cut(times, states, stride=stride)
    rows = [rows[at] for at in data.draw(st.permutations(range(len(rows))))]
    held = (n - 20) // stride * stride + 20
    path = tmp_path_factory.mktemp("cut") / "rows.parquet"
    found, values, _, _, report = read(write(path, rows, row_group_size=data.draw(st.integers(1, 50))))
    np.testing.assert_array_equal(found, times[:held])
    np.testing.assert_array_equal(values, states[:held])
    assert not report.dropped


def test_rows_need_not_touch(tmp_path):
    times, states = moments(200), eisv(200)
    kept = [0, 1, 5, 6, 7, 12]
    rows = cut(times, states)
    held = np.unique(np.concatenate([np.arange(10 * at, 10 * at + 20) for at in kept]))
    found, values, *_ = read(write(tmp_path / "rows.parquet", [rows[at] for at in kept]))
    np.testing.assert_array_equal(found, times[held])
    np.testing.assert_array_equal(values, states[held])


def test_of_rows_that_tell_a_state_differently_the_first_stands(tmp_path):
    times, states = moments(40), eisv(40)
    later = states.copy()
    later[[12, 15], 1] = [0.123, 0.456]
    rows = [*cut(times[:20], states[:20]), *cut(times[10:30], later[10:30])]
    found, values, _, _, report = read(write(tmp_path / "rows.parquet", rows))
    np.testing.assert_array_equal(found, times[:30])
    np.testing.assert_array_equal(values, states[:30])
    assert report.dropped == {"state that two rows tell differently": 2}


def test_rows_may_round_the_same_time_differently(tmp_path):
    times, states = moments(30), eisv(30)
    late = times + np.random.default_rng(1).uniform(-1e-3, 1e-3, 30)
    rows = [*cut(times[:20], states[:20]), *cut(late[10:], states[10:] + 1e-7)]
    found, values, _, _, report = read(write(tmp_path / "rows.parquet", rows))
    np.testing.assert_array_equal(found, np.append(times[:20], late[20:]))
    np.testing.assert_allclose(values, states, atol=1e-6)
    assert not report.dropped


def test_a_row_of_another_log_at_the_same_time_is_left_out(tmp_path):
    times, states = moments(60), eisv(60)
    rows = [*cut(times, states), *cut(times[10:40] + 0.7, eisv(30, seed=9))]
    found, values, _, _, report = read(write(tmp_path / "rows.parquet", rows))
    np.testing.assert_array_equal(found, times)
    np.testing.assert_array_equal(values, states)
    assert report.dropped == {"row that contradicts another one of the same time": 2}


def test_rows_of_means_are_no_states(tmp_path):
    """As in this project's own legacy files, which hold the coarser scales beside the native one."""
    times, states = moments(9000, step=2.0), eisv(9000)
    rows = cut(times, states)
    coarse = [one for cadence in (30.0, 300.0) for one in cut(*means(times, states, cadence))]
    assert len(coarse) > 50
    for order in (rows + coarse, coarse + rows):
        found, values, _, _, report = read(write(tmp_path / "rows.parquet", order))
        np.testing.assert_array_equal(found, times)
        np.testing.assert_array_equal(values, states)
        assert sum(report.dropped.values()) == len(coarse)
        assert report.dropped["row of means over other rows"] > 0.9 * len(coarse)


def test_a_change_of_cadence_is_no_mean(tmp_path):
    for steps in ([2.0] * 200 + [60.0] * 200, [60.0] * 200 + [2.0] * 200):
        times, states = START + np.cumsum(steps), eisv(400)
        found, _, _, _, report = read(write(tmp_path / "rows.parquet", cut(times, states)))
        np.testing.assert_array_equal(found, times)
        assert not report.dropped


def test_expressions_are_heard_once_however_the_rows_overlap(tmp_path):
    times, states = START + 2.0 * np.arange(200), eisv(200)
    spoken = [
        (5, ["~ripple~", "~return~"]),
        (15, ["~ripple~", "~return~"]),  # in the first two rows
        (16, ["~stillness~", "~stillness~"]),
        (17, ["~threshold~", "~questioning~"]),
        (37, ["~ripple~", "~return~"]),
        (41, ["~ripple~ ~return~ ~holding~"]),  # as rows of space-joined databases hold it
        (43, ["warm", "feel"]),
    ]
    for stride in (10, 5, 20):
        rows = cut(times, states, [(times[at], tokens) for at, tokens in spoken], stride=stride)
        *_, observed, _, report = read(write(tmp_path / "rows.parquet", rows))
        assert sorted(said(observed)) == sorted(
            ["~ripple~ ~return~"] * 3
            + ["~stillness~ ~stillness~", "~threshold~?", "~ripple~ ~return~ ~holding~"]
        ), stride
        assert set(observed.times.tolist()) <= {one["t_end"] for one in rows}
        # At the end of the first row that has it: at most a row later than it was said.
        assert observed.times.min() == times[19] and observed.times.max() <= times[41 + 19]
        assert np.isnan(observed.scores).all() and set(observed.feedback) == {()}
        assert (observed.shapes == -1).all()
        assert report.dropped["observed expression in Lumen's words"] >= 1


def test_synthetic_rows_are_windows_and_no_states(tmp_path):
    times, states = np.arange(20.0), eisv(60).reshape(3, 20, 4)
    rows = [row(times, one, [["~ripple~"]], provenance="synthetic") for one in states]
    rows += [
        row(times[:15], states[0, :15], provenance="synthetic"),
        row(times, states[0] - [0, 0, 0, 0.4], provenance="synthetic"),
    ]
    real, felt = moments(20), eisv(20, seed=4)
    rows.insert(1, row(real, felt))
    found, _, observed, synthetic, report = read(write(tmp_path / "rows.parquet", rows))
    np.testing.assert_array_equal(found, real)
    assert len(observed) == 0
    np.testing.assert_array_equal(synthetic.validate().states, states)
    np.testing.assert_array_equal(synthetic.times, np.tile(times, (3, 1)))
    assert report.dropped == {
        "synthetic row of another length than 20": 1,
        "synthetic row with an impossible state": 1,
    }


def test_what_cannot_be_used_is_counted_by_reason(tmp_path):
    times, states = moments(200), eisv(200)

    def at(first, length=20):
        return times[first : first + length], states[first : first + length]

    signed = states.copy()
    signed[100:104, 3] = -0.2
    rows = [
        row(*at(0)),
        row(*at(20), eisv_states="[{"),
        row(*at(20), eisv_states=None),
        row(*at(20), eisv_states='{"t": 1}'),
        row(*at(20), eisv_states='[{"t": 1, "E": 0.5}]'),
        row(*at(20), eisv_states='["t", 1]'),
        row(*at(20), eisv_states="[" * 100_000),
        row(*at(20), eisv_states=row(times[20:40], np.full((20, 4), np.nan))["eisv_states"]),
        row(*at(20, 3)),
        row(times[40:20:-1], states[20:40]),
        row(*at(20), t_start=0.0),
        row(*at(20), t_end=None),
        row(*at(20), provenance="dreamt"),
        row(*at(40, 15)),
        row(times[90:110], signed[90:110]),
        row(times[120:140].repeat(2)[:20], states[120:140].repeat(2, axis=0)[:20]),
        row(*at(160), [["~purple~"]]),
        row(*at(180)) | {"tokens": "[["},
    ]
    found, values, observed, _, report = read(write(tmp_path / "rows.parquet", rows))
    kept = [*range(20), *range(40, 55), *range(90, 100), *range(104, 110), *range(120, 130), *range(160, 200)]
    np.testing.assert_array_equal(found, times[kept])
    np.testing.assert_array_equal(values, states[kept])
    assert len(observed) == 0 and report.rows == len(rows)
    assert report.dropped == {
        "row of malformed JSON": 3,
        "row without t, E, I, S, V": 3,
        "row with NaN": 1,
        "row of fewer than 4 states": 1,
        "row with times that decrease": 1,
        "row whose times are not those of its states": 2,
        "row of unknown provenance": 1,
        "impossible state": 4,
        "repeated time": 10,
        "observed expression unreadable": 2,
    }


def test_places(tmp_path):
    times, states = moments(60), eisv(60)
    rows = cut(times, states)
    write(tmp_path / "one" / "train-00000-of-00002.parquet", rows[:2])
    write(tmp_path / "one" / "train-00001-of-00002.parquet", rows[2:])
    write(tmp_path / "clone" / "data" / "train-00000-of-00001.parquet", rows)
    write(tmp_path / "dataset" / "data" / "legacy" / "train.parquet", rows)
    for place in ("one", "clone", "dataset", "dataset/data/legacy/train.parquet"):
        assert is_legacy(tmp_path / place)
        np.testing.assert_array_equal(read(tmp_path / place)[0], times)
    pq.write_table(pa.table({"timestamp": [1.0], "cpu_pct": [1.0]}), tmp_path / "log.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1" + bytes(100))
    (tmp_path / "empty").mkdir()
    (tmp_path / "desk.csv").write_text("timestamp,cpu_pct\n1,2\n")
    for place in ("log.parquet", "damaged.parquet", "empty", "desk.csv", "absent"):
        assert not is_legacy(tmp_path / place)
        with pytest.raises(SourceError, match="expected: "):
            read(tmp_path / place)


def test_a_file_damaged_in_the_middle_is_refused(tmp_path):
    path = write(tmp_path / "rows.parquet", cut(moments(3000), eisv(3000)), row_group_size=50)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 5000] = b"\xa5" * 5000
    path.write_bytes(content)
    assert is_legacy(path)
    with pytest.raises(SourceError, match="a Parquet file that can be read"):
        read(path)


def test_batches_are_the_rows_as_they_are(tmp_path):
    rows = [
        *cut(moments(30_000), eisv(30_000), [(START + 9.0, ["~ripple~"])]),
        row([], [], provenance="dreamt"),
    ]
    table = pa.Table.from_pylist(rows, schema=LEGACY)
    wide = table.append_column("note", pa.array(["x"] * len(table)))
    wide = wide.set_column(1, "eisv_states", wide.column(1).cast(pa.large_string()))
    wide = wide.select(wide.column_names[::-1])
    pq.write_table(wide, tmp_path / "rows.parquet")
    with LegacyRows(tmp_path / "rows.parquet", LogReport()) as legacy:
        batches = list(legacy.batches())
    assert len(batches) > 1 and all(batch.schema.equals(LEGACY) for batch in batches)
    assert pa.Table.from_batches(batches).equals(table)


MEASURE = """
    import sys
    from dataset_builder.legacy_rows import LegacyRows
    from eisv_lumen.logs import LogReport
    from pathlib import Path
    with LegacyRows(Path(sys.argv[1]), LogReport()) as rows:
        n = sum(len(times) for times, _ in rows.states())
        m = sum(len(batch) for batch in rows.batches())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(n, m, status["VmHWM"].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak from")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = {}
    times, states = moments(60_000), eisv(60_000)
    rows = pa.Table.from_pylist(cut(times, states), schema=LEGACY)
    for copies in (1, 6):
        path = tmp_path / f"{copies}.parquet"
        with pq.ParquetWriter(path, LEGACY) as file:
            for _ in range(copies):
                file.write_table(rows, row_group_size=2048)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        n, m, peaks[copies] = map(int, done.stdout.split())
        assert n == 60_000 and m == copies * len(rows)
    assert peaks[6] < 300_000
    assert peaks[6] - peaks[1] < 40_000, peaks  # kB; the five copies more are 150 MB of text


def test_what_a_spec_may_be():
    commit = "0123456789abcdef" * 2 + "01234567"
    assert resolve(f"hub:hikewa/rows@{commit}") == HubRows("hikewa/rows", commit)  # nobody is asked
    assert str(HubRows("hikewa/rows", commit)) == f"hub:hikewa/rows@{commit}"
    for spec in ("hikewa/rows", "hub:rows", "hub:a/b/c", "hub:hikewa/rows@", "hub:hikewa/ro ws", "hub:"):
        with pytest.raises(ConfigurationError, match="hub:OWNER/NAME"):
            resolve(spec)


FROM_HUB = """
    import sys
    import datasets
    from huggingface_hub import HfApi
    from pathlib import Path
    from dataset_builder.legacy_rows import LegacyRows, is_legacy, resolve
    from dataset_builder.parquet import LEGACY
    from eisv_lumen.errors import HubError, SourceError
    from eisv_lumen.logs import LogReport

    def count(place):
        report = LogReport()
        with LegacyRows(place, report) as rows:
            assert all(batch.schema.equals(LEGACY) for batch in rows.batches())
            states = sum(len(times) for times, _ in rows.states())
            return report.rows, sum(len(batch) for batch in rows.batches()), states, len(rows.observed())

    def refused(place, kind, words):
        try:
            count(place)
        except kind as error:
            assert words in str(error), error
        else:
            raise AssertionError(place)

    few, many = (datasets.Dataset.from_parquet(path) for path in sys.argv[1:])
    other = datasets.Dataset.from_dict({"states": [[0.5]] * 9})
    few.push_to_hub("hikewa/published")
    first = resolve("hub:hikewa/published")
    HfApi().create_tag("hikewa/published", tag="v1", repo_type="dataset")
    many.push_to_hub("hikewa/published")
    assert resolve("hub:hikewa/published") != first
    assert resolve("hub:hikewa/published@v1") == first == resolve(str(first))
    print(count("hub:hikewa/published@v1"), count("hub:hikewa/published"), count(first))
    other.push_to_hub("hikewa/several")
    many.push_to_hub("hikewa/several", "legacy", private=True)
    print(count("hub:hikewa/several"))
    other.push_to_hub("hikewa/others")
    refused("hub:hikewa/others", SourceError, "no column shape")
    datasets.DatasetDict({"test": few}).push_to_hub("hikewa/untrained")
    refused("hub:hikewa/untrained", SourceError, "split train")
    refused("hub:hikewa/absent", HubError, "404")
    refused("hub:hikewa/published@v9", HubError, "404")
    refused("hub:hikewa/published@" + "ab" * 20, (HubError, SourceError), "hikewa/published")
    print("done")
"""


@pytest.mark.slow
def test_from_the_local_hub_through_the_libraries_people_use(tmp_path):
    times, states = moments(500), eisv(500)
    spoken = [(times[200], ["~ripple~"]), (times[400], ["~return~"])]
    few = write(tmp_path / "few.parquet", cut(times[:300], states[:300], spoken))
    many = write(tmp_path / "many.parquet", cut(times, states, spoken))
    with start(tmp_path / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FROM_HUB), str(few), str(many)],
            cwd=Path(__file__).resolve().parents[1],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "HF_HOME": str(tmp_path / "hf"),
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": hub.token,
                "HF_HUB_DISABLE_TELEMETRY": "1",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert hub.token not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "(29, 29, 300, 1) (49, 49, 500, 2) (29, 29, 300, 1)",
        "(49, 49, 500, 2)",
        "done",
    ], done.stderr[-4000:]


def test_a_hub_that_is_not_there(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="no answer"):
        resolve("hub:hikewa/rows")
