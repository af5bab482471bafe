"""Fill the evaluation table: every voice on the test windows, real and synthetic ones apart.

python -m training.evaluate --dataset DIR --base DIR --teacher DIR --student DIR --out DIR
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen import artifact, metrics
from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.metrics import Voice
from eisv_lumen.rules import Rules
from eisv_lumen.student import TrajectoryModel
from training import configuration, evaluation, plots, voices
from training.data import Split, labelling_weights, read_split
from training.language_model import base_inputs, load_teacher

TABLE, PLOT = "table.md", "table.png"

_NOTES = """
Every cell is measured, with its 95 % bootstrap interval over windows; – stands where nothing can be measured,
and "given" where the voice was told the shape. Answers are drawn at temperature 1, the teacher's without any
constraint. "Rules + feedback" learned on the way: first through the training windows, then these. The
distribution fit of the student is against the teacher, of the others against the converged rules, which are
the teacher's target. Coherence alone proves little: a table look-up that is told the shape scores 1.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="model folder; by default the adapter's Hub repository")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, help="leave out to evaluate the teacher alone")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=2000, help="most test windows to ask about")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    inputs = {"dataset": options.dataset, "teacher": options.teacher}
    if options.student is not None:
        inputs["student"] = options.student
    for kind, folder in inputs.items():
        artifact.Manifest.read(folder, kind=kind)
    inputs |= base_inputs(options.base)
    settings = evaluation.TeacherEvaluation(windows=options.windows, seed=options.seed)
    with artifact.build(
        options.out,
        kind="evaluation",
        configuration=configuration.as_plain(settings),
        inputs=inputs,
        seed=options.seed,
    ) as work:
        if work is None:
            print(f"evaluation: {options.out} is up to date")
        else:
            print(
                "evaluation: every voice speaks of the same test windows, because a number alone says little"
            )
            work.metrics = evaluate(options.dataset, options.base, options.teacher, options.student, settings)
            (work.folder / TABLE).write_text(markdown(work.metrics), "utf-8")
            plots.draw_table(work.metrics, work.folder / PLOT)
    print((options.out / TABLE).read_text("utf-8"), end="")
    return 0


def evaluate(
    dataset: Path,
    base: Path | None,
    teacher: Path,
    student: Path | None,
    settings: evaluation.TeacherEvaluation,
) -> dict[str, Any]:
    """The metrics of every voice.

    Returns:
        Plain JSON: `table` and `greedy`, each `{part: {row: metrics.score(...)}}` with the parts real and
        synthetic where there are such windows; `teacher_forms` (valid rate and coherence constrained, and by
        the short prompt); and `windows`, their number per part.
    """
    train = evaluation.in_time(read_split(dataset, "train"))
    test = evaluation.some_of(read_split(dataset, "test"), settings.windows, settings.seed)
    rules = Rules.from_dict(labelling_weights(dataset))
    model, tokenizer = load_teacher(teacher, base)
    answers, exact = evaluation.answer_all(model, tokenizer, test, "design", settings)
    short, _ = evaluation.answer_all(model, tokenizer, test, "card", settings, kinds=("sampled",))
    said = {
        kind: evaluation.teacher_voice("Teacher", test, answer, None if kind == "greedy" else exact)
        for kind, answer in answers.items()
    }
    drawn = [*voices.baseline_voices(test, train, rules, settings.seed), said["sampled"]]
    likeliest = [said["greedy"]]
    if student is not None:
        pupil = TrajectoryModel.from_pretrained(student)
        drawn.append(voices.student_voice(pupil, test, settings.seed))
        likeliest.append(voices.student_voice(pupil, test, None))
    parts = {name: rows for name, rows in evaluation.parts(test).items() if name != "overall"}
    card = evaluation.teacher_voice("Teacher", test, short["sampled"], None)
    return {
        "table": _scored(drawn, test, parts, rules, exact, settings.seed),
        "greedy": _scored(likeliest, test, parts, rules, exact, settings.seed),
        "teacher_forms": {
            "unconstrained": _brief(said["sampled"], test, rules),
            "constrained": _brief(said["constrained"], test, rules),
            "card": _brief(card, test, rules),
        },
        "windows": {name: len(rows) for name, rows in parts.items()},
    }


def markdown(measured: Mapping[str, Any]) -> str:
    """The table as Markdown, real and synthetic windows apart."""
    sections = [
        f"### {name.capitalize()} test windows\n\n{metrics.table_markdown(rows)}"
        for name, rows in measured["table"].items()
    ]
    return "\n".join(sections) + _NOTES


def _scored(
    spoken: list[Voice],
    test: Split,
    parts: Mapping[str, np.ndarray],
    rules: Rules,
    teacher: ExpressionDistribution,
    seed: int,
) -> dict[str, Any]:
    return {
        name: {
            voice.name: evaluation.score_on(
                voices.rows_of(voice, rows),
                test[rows],
                teacher[rows] if voice.name == "Student" else rules.distribution(),
                seed,
            )
            for voice in spoken
        }
        for name, rows in parts.items()
    }


def _brief(voice: Voice, test: Split, rules: Rules) -> dict[str, Any]:
    cells = evaluation.score_on(replace(voice, distribution=None), test, rules.distribution())
    return {name: cells[name] for name in ("valid_rate", "coherence", "bridge_fidelity")}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
