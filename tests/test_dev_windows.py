"""Windows known by their summaries: read from a CSV file, and a teacher judged on them."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from eisv_lumen import artifact
from eisv_lumen.errors import SourceError
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES, SHAPES
from eisv_lumen.windows import summaries
from tests.student_folders import student_folder
from tests.teacher_folders import ROOT, base_folder, dataset_folder, teacher_folder
from training import evaluate
from training.data import read_split
from training.dev_windows import COLUMNS, FIRST, MEAN, SECOND, of_split, read_windows_csv, sequences

HEADER = ",".join(["record", *COLUMNS])
GOOD = "0,convergence,4,16.6,0.3788,0.705,0.2042,0.1037,0.0003,0.0,0.0001,0.0001,0.0004,0.0,-0.0001,-0.0001"


def written(path, count=27, seed=0):
    """A simulated file of the published layout: generated windows of every shape, rounded to 4 digits."""
    shapes = np.arange(count) % N_SHAPES
    windows = generate(shapes, np.random.default_rng(seed), cadence=10.0)
    told = summaries(windows)
    rows = [
        [index, SHAPES[shape], told.n_states[index], round(told.duration[index], 2)]
        + [round(float(value), 4) for part in (told.mean, told.first, told.second) for value in part[index]]
        for index, shape in enumerate(shapes)
    ]
    lines = "\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return shapes, told


def arguments(csv, out, *more):
    folders = {"dataset": dataset_folder(), "base": base_folder(), "teacher": teacher_folder()}
    named = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    return [*named, "--windows-csv", str(csv), "--out", str(out), "--windows", "30", *more]


@pytest.mark.parametrize("name", ["w.csv", "w.csv.gz"])
def test_summaries_are_read_as_they_were_written(tmp_path, name):
    shapes, told = written(tmp_path / name)
    found = read_windows_csv(tmp_path / name)
    assert found.shapes.tolist() == shapes.tolist()
    for part in ("n_states", "duration", "mean", "first", "second"):
        assert np.allclose(getattr(found.summaries, part), getattr(told, part), atol=0.006)
    assert found.patterns is None and found.sequence is None
    chosen = found[np.array([4, 1])]
    assert len(chosen) == 2 and chosen.summaries.mean.tolist() == found.summaries.mean[[4, 1]].tolist()


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    names, fields = HEADER.split(","), GOOD.split(",")
    turned = [",".join([*reversed(line), "extra"]) for line in (names, fields)]
    (tmp_path / "w.csv").write_text("\n".join(turned) + "\n\n")
    found = read_windows_csv(tmp_path / "w.csv")
    assert found.summaries.duration.tolist() == [16.6]
    assert found.summaries.second[0].tolist() == [0.0004, 0.0, -0.0001, -0.0001]


@pytest.mark.parametrize("column", ["shape", "n_states", "duration_s", MEAN[0], FIRST[1], SECOND[3]])
def test_a_missing_column_is_named(tmp_path, column):
    (tmp_path / "w.csv").write_text(HEADER.replace(f",{column}", ",other", 1) + "\n" + GOOD + "\n")
    with pytest.raises(SourceError, match=f"without column '{column}'"):
        read_windows_csv(tmp_path / "w.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD.replace("convergence", "collapse"), "line 3: shape 'collapse'"),
        (GOOD.replace(",4,", ",0,"), "n_states '0'"),
        (GOOD.replace(",4,", ",4.5,"), "n_states '4.5'"),
        (GOOD.replace("16.6", "-1"), "duration_s '-1'"),
        (GOOD.replace("0.3788", "1.2"), "E '1.2'"),
        (GOOD.replace("0.705", "nan"), "I 'nan'"),
        (GOOD.replace("0.705", "high"), "I 'high'"),
        (GOOD.replace("0.0004", "inf"), "d2E 'inf'"),
        (GOOD.replace("0.0003", ""), "dE ''"),
        (GOOD + ",1", "17 fields"),
        (GOOD.rsplit(",", 1)[0], "15 fields"),
        ('"' + GOOD, "line 3"),
    ],
)
def test_a_row_that_no_window_can_have_is_refused(tmp_path, line, said):
    (tmp_path / "w.csv").write_text(f"{HEADER}\n{GOOD}\n{line}\n")
    with pytest.raises(SourceError) as refused:
        read_windows_csv(tmp_path / "w.csv")
    assert said in str(refused.value) and refused.value.expected and refused.value.next


@pytest.mark.parametrize(
    "data",
    [b"", HEADER.encode(), b"\xff\xfe\x00", gzip.compress(f"{HEADER}\n{GOOD}\n".encode())[:-12]],
    ids=["empty", "no rows", "no text", "cut off"],
)
def test_a_file_without_windows_is_refused(tmp_path, data):
    (tmp_path / "w.csv").write_bytes(data)
    with pytest.raises(SourceError):
        read_windows_csv(tmp_path / "w.csv")
    with pytest.raises(SourceError):
        read_windows_csv(tmp_path / "absent.csv")


def test_a_column_named_twice_is_refused(tmp_path):
    (tmp_path / "w.csv").write_text(f"{HEADER},E\n{GOOD},0.5\n")
    with pytest.raises(SourceError, match="more than one"):
        read_windows_csv(tmp_path / "w.csv")


def test_the_command_refuses_a_bad_file_and_writes_nothing(tmp_path):
    (tmp_path / "w.csv").write_text(f"{HEADER}\n{GOOD.replace('convergence', 'collapse')}\n")
    out = tmp_path / "evaluation"
    ended = subprocess.run(
        [sys.executable, "-m", "training.evaluate", *arguments(tmp_path / "w.csv", out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert "found: w.csv, line 2: shape 'collapse'" in ended.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "w.csv"]


def check(out, count, shapes):
    metrics = artifact.read_metrics(out)
    assert list(metrics["table"]) == ["real", "synthetic", "lumen real"]
    assert metrics["windows"]["lumen real"] == count
    rows = metrics["table"]["lumen real"]
    assert list(rows) == ["Random", "Rules", "Rules + feedback", "Rules + feedback, converged", "Teacher"]
    for row in rows.values():
        for name in ("coherence", "valid_rate", "diversity", "token_divergence", "token_entropy"):
            cell = row[name]
            assert cell["low"] <= cell["value"] <= cell["high"] and cell["n"] == count
        for name in ("pattern_accuracy", "temporal_consistency"):
            assert row[name]["value"] is None, "there is nothing to measure it by"
        assert {name: found["n"] for name, found in row["per_shape"].items()} == shapes
        assert all(found["valid_rate"]["n"] == found["n"] for found in row["per_shape"].values())
    assert rows["Rules + feedback, converged"]["coherence"]["value"] > rows["Rules"]["coherence"]["value"]
    assert rows["Rules + feedback, converged"]["token_divergence"]["value"] == pytest.approx(0, abs=1e-9)
    forms = metrics["teacher_forms"]["lumen real"]
    assert forms["constrained"]["valid_rate"]["value"] == 1
    assert forms["unconstrained"]["valid_rate"] == rows["Teacher"]["valid_rate"]
    assert list(metrics["greedy"]["lumen real"]) == ["Teacher"]
    text = (out / evaluate.TABLE).read_text()
    assert "### Lumen real windows\n" in text and f"| voice (n = {count}) |" in text
    with Image.open(out / evaluate.PLOT) as picture:
        colours = {pixel for _, pixel in picture.convert("RGB").getcolors(1 << 20)}
    assert (122, 154, 92) in colours, "the third part is drawn"


def test_summarised_windows_are_a_part_of_the_evaluation(tmp_path):
    shapes, _ = written(tmp_path / "w.csv.gz", count=9)
    out = tmp_path / "evaluation"
    more = ("--student", str(student_folder()))
    assert evaluate.main(arguments(tmp_path / "w.csv.gz", out, *more)) == 0
    check(out, 9, {SHAPES[shape]: 1 for shape in shapes})
    metrics = artifact.read_metrics(out)
    assert "Student" in metrics["table"]["real"] and "Student" not in metrics["table"]["lumen real"]
    written(tmp_path / "w.csv.gz", count=9, seed=1)
    assert evaluate.main(arguments(tmp_path / "w.csv.gz", out, *more)) == 0
    assert artifact.read_metrics(out) != metrics, "another file is another evaluation"


def test_published_windows_are_judged(tmp_path, shared_data):
    path = shared_data / "lumen_real_windows_dev.csv.gz"
    found = read_windows_csv(path)
    assert len(found) == 250 and (found.summaries.n_states == 4).all()
    assert evaluate.main(arguments(path, tmp_path / "e")) == 0
    shapes, counts = np.unique(found.shapes, return_counts=True)
    check(tmp_path / "e", 250, {SHAPES[s]: int(n) for s, n in zip(shapes, counts, strict=True)})


def test_windows_of_a_split_are_told_by_their_own_summaries():
    split = read_split(dataset_folder(), "test")
    told = of_split(split)
    assert len(told) == len(split)
    assert np.allclose(told.summaries.mean, summaries(split.windows).mean)
    assert told.sequence.tolist() == sequences(split).tolist()
    assert (told.patterns == split.patterns).all()
