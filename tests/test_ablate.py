"""Leaving out the terms of the distillation loss."""

import json

import pytest

from tests.student_folders import write_inputs
from training import ablate, configuration
from training.student.settings import StudentSettings

SETTINGS = ["steps=2", "listening.windows=200", "listening.passes=1", "supplement=200", "fit_windows=8"]
SETTINGS += ["loss.lumen=0", "loss.distil=0", "loss.features=0", "loss.shape=0"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    dataset, labels, _ = write_inputs(
        tmp_path_factory.mktemp("inputs"), {"train": 45, "validation": 18, "test": 18}
    )
    config = "training/configs/student-smoke.yaml"
    given = ["--config", config, "--dataset", str(dataset), "--labels", str(labels)]
    return given + [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="module")
def out(arguments, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "ablations.json"
    assert ablate.main([*arguments, "--out", str(path)]) == 0
    return path


def test_each_term_that_is_weighed_is_left_out_once(out):
    written = json.loads(out.read_text())
    assert written["settings"]["steps"] == 2
    names = ["all terms", "without hard"]
    assert list(written["students"]) == names
    for found in written["students"].values():
        assert found["overall"]["coherence"]["n"] == 18
        assert found["fit"]["n"] == 8
    fits = {found["fit"]["token_js_bits"] for found in written["students"].values()}
    assert len(fits) == len(names)


def test_only_the_named_term_changes():
    settings = configuration.from_mapping({"seed": 0, "steps": 1}, StudentSettings)
    variants = ablate.variants(settings)
    for term in ablate.TERMS:
        changed = vars(variants[f"without {term}"].loss)
        assert {name for name, value in changed.items() if value != getattr(settings.loss, name)} == {term}


def test_a_killed_run_goes_on_with_the_students_that_are_missing(arguments, out, tmp_path, capsys):
    written = json.loads(out.read_text())
    kept = {name: found for name, found in written["students"].items() if name != "without hard"}
    kept["all terms"]["fit"]["token_js_bits"] = 9.0
    path = tmp_path / "ablations.json"
    path.write_text(json.dumps({**written, "students": kept}))
    assert ablate.main([*arguments, "--out", str(path)]) == 0
    again = json.loads(path.read_text())["students"]
    assert again["all terms"]["fit"]["token_js_bits"] == 9.0
    assert again["without hard"]["overall"]["coherence"]["n"] == 18
    assert "| 9.000 |" in capsys.readouterr().out


def test_students_of_other_settings_are_trained_again(arguments, out, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ablate, "students", lambda *given: asked.append(given[-1]) or iter(()))
    path = tmp_path / "ablations.json"
    path.write_text(out.read_text())
    assert ablate.main([*arguments, "--out", str(path)]) == 0
    assert ablate.main([*arguments, "--set", "seed=1", "--out", str(path)]) == 0
    assert asked == [{"all terms", "without hard"}, set()]
