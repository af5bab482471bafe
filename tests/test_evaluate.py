"""Labels and the evaluation table, from small real folders."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from eisv_lumen import artifact
from eisv_lumen.baselines import rules_voice
from eisv_lumen.errors import ArtifactError
from eisv_lumen.layouts import LABELS
from eisv_lumen.metrics import COLUMNS, Voice
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import SHAPES
from eisv_lumen.windows import summaries
from tests.student_folders import student_folder
from tests.teacher_folders import base_folder, dataset_folder, teacher_folder
from training import evaluate, label
from training.data import read_split
from training.dev_windows import SummarisedWindows, sequences
from training.dialogue import prompt_ids
from training.evaluation import entropy_beside, in_time, score_on
from training.grammar import AnswerGrammar, ExpressionScorer
from training.language_model import load_teacher
from training.voices import rows_of, student_voice

ROWS = ["Random", "Rules", "Rules + feedback", "Rules + feedback, converged", "Teacher", "Forest", "Student"]


def folders(**others):
    named = {"dataset": dataset_folder(), "base": base_folder(), "teacher": teacher_folder(), **others}
    return [part for name, folder in named.items() for part in (f"--{name}", str(folder))]


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "labels"
    assert label.main([*folders(), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "evaluation"
    assert (
        evaluate.main(
            [
                *folders(student=student_folder(), forest=student_folder()),
                "--out",
                str(out),
                "--windows",
                "60",
            ]
        )
        == 0
    )
    return out


def test_labels_are_the_teachers_exact_answer_to_each_window(labels):
    artifact.verify(labels, kind="labels")
    tensors = load_file(labels / LABELS.tensors)
    names = json.loads((labels / LABELS.window_ids).read_text())
    split = read_split(dataset_folder(), "validation")
    assert len(names) == len(tensors["first"]) == len(split) + len(read_split(dataset_folder(), "train"))
    model, tokenizer = load_teacher(teacher_folder(), base_folder())
    chosen = split[np.array([5, 1])]
    given = prompt_ids(tokenizer, "design", chosen.shapes, summaries(chosen.windows))
    expected, hidden = ExpressionScorer(model, AnswerGrammar(tokenizer, "design")).score(given)
    rows = [names.index(name) for name in chosen.window_ids]
    assert np.allclose(tensors["first"][rows], expected.first, atol=1e-4)
    assert np.allclose(tensors["third"][rows], expected.third, atol=1e-3)
    assert np.allclose(tensors["hidden"][rows], hidden, atol=1e-3)


def test_labelling_again_changes_nothing(labels, capsys):
    assert label.main([*folders(), "--out", str(labels)]) == 0
    assert "up to date" in capsys.readouterr().out


def test_every_voice_has_a_row_of_every_metric(evaluated):
    artifact.verify(evaluated, kind="evaluation")
    metrics = artifact.read_metrics(evaluated)
    assert list(metrics["table"]) == ["real", "synthetic"]
    for part, rows in metrics["table"].items():
        assert list(rows) == ROWS
        for row in rows.values():
            assert set(COLUMNS) <= set(row)
            cell = row["coherence"]
            assert cell["low"] <= cell["value"] <= cell["high"]
            assert cell["n"] == metrics["windows"][part]
        assert (
            rows["Rules + feedback, converged"]["coherence"]["value"] > rows["Random"]["coherence"]["value"]
        )
        assert rows["Rules"]["pattern_divergence"]["value"] < 0.05, "the rules' patterns are the target's"
        assert rows["Student"]["shape_accuracy"].get("given") is None
        assert rows["Teacher"]["shape_accuracy"]["given"]
    assert sum(metrics["windows"].values()) == 60
    assert list(metrics["teacher_forms"]) == ["real", "synthetic"]
    for part, forms in metrics["teacher_forms"].items():
        assert list(forms) == ["unconstrained", "constrained", "card"]
        assert forms["constrained"]["valid_rate"]["value"] == 1
        assert forms["unconstrained"]["valid_rate"] == metrics["table"][part]["Teacher"]["valid_rate"]


def test_every_shape_has_every_metric_with_its_interval(evaluated):
    for part, rows in artifact.read_metrics(evaluated)["table"].items():
        for row in rows.values():
            assert sum(found["n"] for found in row["per_shape"].values()) == row["coherence"]["n"], part
            for found in row["per_shape"].values():
                assert set(COLUMNS) <= set(found)
                for name in ("pattern_divergence", "token_divergence"):
                    if found[name] is not None:
                        low, high = found[f"{name}_interval"]
                        assert low - 1e-9 <= found[name] <= high + 1e-9
                for name in ("coherence", "valid_rate"):
                    cell = found[name]
                    assert cell["low"] <= cell["value"] <= cell["high"] and cell["n"] == found["n"]


def test_entropy_is_measured_beside_the_targets(evaluated):
    for rows in artifact.read_metrics(evaluated)["table"].values():
        converged = rows["Rules + feedback, converged"]["token_entropy"]
        assert converged["value"] == pytest.approx(1) and converged["bits"] == pytest.approx(
            converged["target"]
        )
        assert rows["Random"]["token_entropy"]["value"] > 1, "nothing is more varied than chance"
        told = [row for name, row in rows.items() if name not in evaluate.PUPILS]
        assert {row["token_entropy"]["target"] for row in told} == {converged["target"]}


def test_entropy_of_samples_is_that_of_their_tokens():
    rules, shapes = Rules().distribution(), np.zeros(4, np.int64)
    ids = np.array([[0, 15, 16], [1, 15, 16], [0, 15, 16], [1, 15, 16]])
    said = Voice("v", ids, valid=np.array([True, True, True, True]))
    found = entropy_beside(said, shapes, rules, shapes)
    assert found["bits"] == pytest.approx(1) and found["value"] == pytest.approx(1 / found["target"])
    silent = Voice("v", ids, valid=np.zeros(4, bool))
    assert entropy_beside(silent, shapes, rules, shapes)["value"] is None


def test_as_many_windows_as_shapes_are_no_ambiguity():
    """Nine distributions for nine windows could be one per window or one per shape."""
    shapes = np.array([3, 3, 3, 1, 1, 1, 0, 0, 0])
    rules = Rules()
    voice = rules_voice(shapes, np.random.default_rng(0), rules)
    split = read_split(dataset_folder(), "test")
    told = summaries(split.windows[np.arange(9)])
    row = score_on(voice, SummarisedWindows(shapes, told), rules.distribution())
    assert row["token_divergence"]["value"] == pytest.approx(0, abs=1e-9)
    assert list(row["per_shape"]) == [SHAPES[shape] for shape in (0, 1, 3)]


def test_the_table_is_written_for_people(evaluated):
    text = (evaluated / evaluate.TABLE).read_text()
    assert "### Real test windows" in text and "### Synthetic test windows" in text
    assert all(f"| {row} |" in text for row in ROWS)
    assert text.count("| constrained by the grammar | 1.000 [1.000, 1.000] |") == 2
    assert "| shape | n | voice | coherence |" in text and "| settled_presence |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    heads = [i for i, line in enumerate(tables) if line.startswith(("| voice", "| teacher", "| shape |"))]
    for begin, end in zip(heads, [*heads[1:], len(tables)], strict=True):
        assert len({line.count("|") for line in tables[begin:end]}) == 1, "every line has every column"
    with Image.open(evaluated / evaluate.PLOT) as picture:
        assert picture.width > 600
        assert len(set(picture.convert("L").getdata())) > 20


def test_the_teacher_alone_can_be_evaluated(tmp_path):
    assert evaluate.main([*folders(), "--out", str(tmp_path / "e"), "--windows", "20"]) == 0
    assert "Student" not in artifact.read_metrics(tmp_path / "e")["table"]["real"]


def test_folders_of_the_wrong_kind_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="is a base"):
        evaluate.main([*folders(teacher=base_folder()), "--out", str(tmp_path / "e")])
    with pytest.raises(ArtifactError, match="is a base"):
        label.main([*folders(teacher=base_folder()), "--out", str(tmp_path / "e")])


def test_a_teacher_on_another_base_is_refused(tmp_path):
    from tests.teacher_folders import BASE_CONFIG
    from training.configuration import load
    from training.pretrain_base import BaseSettings, ModelSettings, new_model, train_tokenizer

    sizes = vars(load(BASE_CONFIG, BaseSettings).model) | {"hidden_size": 48}
    tokenizer = train_tokenizer(1100, 0)
    new_model(ModelSettings(**sizes), tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ArtifactError, match="does not fit"):
        load_teacher(teacher_folder(), tmp_path / "base")


def test_windows_of_one_recording_follow_each_other_in_time():
    split = in_time(read_split(dataset_folder(), "test"))
    names = sequences(split)
    for name in np.unique(names[split.real]):
        assert (np.diff(split.t_start[names == name]) >= 0).all()
    alone = names[~split.real]
    assert len(np.unique(alone)) == len(alone), "generated windows have no neighbours"


def test_part_of_a_voice_is_what_it_said_of_those_windows():
    from eisv_lumen.student import TrajectoryModel

    split = read_split(dataset_folder(), "test")
    voice = student_voice(TrajectoryModel.from_pretrained(student_folder()), split, seed=1, batch_size=17)
    rows = np.array([4, 30])
    part = rows_of(voice, rows)
    assert np.array_equal(part.ids, voice.ids[rows])
    assert np.array_equal(part.shape_probs, voice.shape_probs[rows])
