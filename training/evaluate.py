"""Fill the evaluation table: every voice on the test windows, real and synthetic ones apart.

python -m training.evaluate --dataset DIR --base DIR --teacher DIR --student DIR --out DIR

With `--windows-csv FILE` also on published windows of which only summaries are known; a student hears raw
states, so it has no row there.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from training.data import labelling_weights, read_split
from training.dev_windows import SummarisedWindows, of_split, read_windows_csv
from training.devices import DEVICES, Device
from training.language_model import base_inputs, load_teacher
from training.row_counts import require_windows

TABLE, PLOT = "table.md", "table.png"

PUPILS = ("Forest", "Student")
"""Rows of what was distilled from the teacher, which is their target."""

SUMMARISED = "lumen real"
"""The part of published windows known by their summaries."""

_NOTES = """
Every cell is measured, with its 95 % bootstrap interval over windows; – stands where nothing can be measured,
and "given" where the voice was told the shape. Answers are drawn at temperature 1, the teacher's without any
constraint. "Rules + feedback" learned on the way: first through the training windows, then these. The
distribution fit of student and forest is against the teacher, of the others against the converged rules,
which are the teacher's target; entropy is that of the tokens, as a share of the same target's. Coherence
alone proves little: a table look-up that is told the shape scores 1.
"""
_SUMMARISED_NOTE = """
These are published windows known by their summaries alone: the shape told, and judged by, is the published
label. Without raw states the student cannot hear them; without reference labels there is no pattern accuracy,
and without times no temporal consistency.
"""
_PER_SHAPE = {
    "coherence": "coherence",
    "valid_rate": "valid rate",
    "diversity": "diversity (bits)",
    "token_entropy": "entropy / target's",
    "pattern_divergence": "pattern divergence (bits)",
    "token_divergence": "token divergence (bits)",
}
_FORMS = {
    "unconstrained": "unconstrained",
    "constrained": "constrained by the grammar",
    "card": "short prompt, unconstrained",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="model folder; by default the adapter's Hub repository")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, help="leave out to evaluate the teacher alone")
    parser.add_argument("--forest", type=Path, help="the forest student, the baseline beside it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=2000, help="most test windows to ask about")
    parser.add_argument("--windows-csv", type=Path, help="window summaries (.csv, .csv.gz) to ask about too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="a GPU where there is one")
    options = parser.parse_args(arguments)
    inputs = {"dataset": options.dataset, "teacher": options.teacher}
    given = zip(PUPILS, (options.forest, options.student), strict=True)
    pupils = {name: folder for name, folder in given if folder is not None}
    for kind, folder in [*inputs.items(), *(("student", folder) for folder in pupils.values())]:
        artifact.Manifest.read(folder, kind=kind)
    inputs |= {name.lower(): folder for name, folder in pupils.items()}
    require_windows(options.dataset, "test")
    inputs |= base_inputs(options.base)
    summarised = None
    if options.windows_csv is not None:
        summarised = read_windows_csv(options.windows_csv)
        inputs["windows-csv"] = options.windows_csv
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
            work.metrics = evaluate(
                options.dataset,
                options.base,
                options.teacher,
                pupils,
                settings,
                summarised,
                device=options.device,
            )
            (work.folder / TABLE).write_text(markdown(work.metrics), "utf-8")
            plots.draw_table(work.metrics, work.folder / PLOT)
    print(markdown(artifact.read_metrics(options.out), by_shape=False), end="")
    print(f"Shape by shape: {options.out / TABLE}")
    return 0


def evaluate(
    dataset: Path,
    base: Path | None,
    teacher: Path,
    pupils: Mapping[str, Path],
    settings: evaluation.TeacherEvaluation,
    summarised: SummarisedWindows | None = None,
    *,
    device: Device = "auto",
) -> dict[str, Any]:
    """The metrics of every voice.

    Args:
        dataset: Dataset folder; its test splits are asked about.
        base: Base model folder, or None for the adapter's Hub repository.
        teacher: Teacher folder.
        pupils: Folders of what was distilled from the teacher, by the name of their row.
        settings: How many windows, and the seed.
        summarised: Windows known by their summaries to ask about too.
        device: Where the teacher shall answer.

    Returns:
        Plain JSON: `table` and `greedy`, each `{part: {row: evaluation.score_on(...)}}` with the parts real
        and synthetic where there are such windows, and "lumen real" where there are summarised ones;
        `teacher_forms`, per part the valid rate, coherence and bridge fidelity of the teacher unconstrained,
        constrained, and by the short prompt; and `windows`, their number per part.
    """
    train = evaluation.in_time(read_split(dataset, "train"))
    test = evaluation.some_of(read_split(dataset, "test"), settings.windows, settings.seed)
    rules = Rules.from_dict(labelling_weights(dataset))
    model, tokenizer = load_teacher(teacher, base, device=device)
    parts = {name: rows for name, rows in evaluation.parts(test).items() if name != "overall"}
    heard = _heard(model, tokenizer, of_split(test), train.shapes, rules, settings)
    for name, folder in pupils.items():
        pupil = TrajectoryModel.from_pretrained(folder)
        heard.drawn.append(voices.student_voice(pupil, test, settings.seed, name=name))
        heard.greedy.append(voices.student_voice(pupil, test, None, name=name))
    measured = _measured(heard, parts, rules, settings.seed)
    if summarised is not None:
        told = _heard(model, tokenizer, summarised, train.shapes, rules, settings)
        everything = {SUMMARISED: np.arange(len(summarised))}
        for name, found in _measured(told, everything, rules, settings.seed).items():
            measured[name] |= found
    return measured


def markdown(measured: Mapping[str, Any], *, by_shape: bool = True) -> str:
    """The table as Markdown, each part apart, then the teacher by form of asking, then shape by shape."""
    sections = []
    for part, rows in measured["table"].items():
        note = _SUMMARISED_NOTE if part == SUMMARISED else ""
        sections += [
            f"### {part.capitalize()} {'windows' if note else 'test windows'}\n{note}",
            _with_entropy(metrics.table_markdown(rows), rows),
            f"The teacher on {part} windows, by the way it is asked:\n",
            _forms_markdown(measured["teacher_forms"][part]),
        ]
        if by_shape:
            sections += [f"Shape by shape on {part} windows:\n", _shapes_markdown(rows)]
    return "\n".join(sections) + _NOTES


@dataclass(frozen=True)
class _Heard:
    """What every voice said of the same windows: drawn, by its likeliest answers, and the teacher by form."""

    windows: SummarisedWindows
    drawn: list[Voice]
    greedy: list[Voice]
    forms: dict[str, Voice]
    exact: ExpressionDistribution


def _heard(
    model: Any,
    tokenizer: Any,
    windows: SummarisedWindows,
    train_shapes: np.ndarray,
    rules: Rules,
    settings: evaluation.TeacherEvaluation,
) -> _Heard:
    answers, exact = evaluation.answer_all(model, tokenizer, windows, "design", settings)
    short, _ = evaluation.answer_all(model, tokenizer, windows, "card", settings, kinds=("sampled",))
    said = {
        kind: evaluation.teacher_voice("Teacher", windows.shapes, answer, None if kind == "greedy" else exact)
        for kind, answer in answers.items()
    }
    card = evaluation.teacher_voice("Teacher", windows.shapes, short["sampled"], None)
    baselines = voices.baseline_voices(windows.shapes, train_shapes, rules, settings.seed)
    return _Heard(
        windows,
        [*baselines, said["sampled"]],
        [said["greedy"]],
        {"unconstrained": said["sampled"], "constrained": said["constrained"], "card": card},
        exact,
    )


def _measured(
    heard: _Heard, parts: Mapping[str, np.ndarray], rules: Rules, seed: int
) -> dict[str, dict[str, Any]]:
    def scored(spoken: Sequence[Voice], rows: np.ndarray) -> dict[str, Any]:
        windows, found = heard.windows[rows], {}
        for voice in spoken:
            pupil = voice.name in PUPILS
            found[voice.name] = evaluation.score_on(
                voices.rows_of(voice, rows),
                windows,
                heard.exact[rows] if pupil else rules.distribution(),
                np.arange(len(rows)) if pupil else None,
                seed,
            )
        return found

    return {
        "table": {name: scored(heard.drawn, rows) for name, rows in parts.items()},
        "greedy": {name: scored(heard.greedy, rows) for name, rows in parts.items()},
        "teacher_forms": {
            name: {
                form: _brief(voices.rows_of(voice, rows), heard.windows[rows], rules)
                for form, voice in heard.forms.items()
            }
            for name, rows in parts.items()
        },
        "windows": {name: len(rows) for name, rows in parts.items()},
    }


def _brief(voice: Voice, windows: SummarisedWindows, rules: Rules) -> dict[str, Any]:
    drawn = replace(voice, distribution=None, distribution_rows=None)
    cells = evaluation.score_on(drawn, windows, rules.distribution())
    return {name: cells[name] for name in ("valid_rate", "coherence", "bridge_fidelity")}


def _with_entropy(table: str, rows: Mapping[str, Any]) -> str:
    """The table with one more column: entropy beside the target's."""
    more = [_PER_SHAPE["token_entropy"], "---:", *(_written(row["token_entropy"]) for row in rows.values())]
    lines = table.splitlines()
    return "\n".join(f"{line} {cell} |" for line, cell in zip(lines, more, strict=True)) + "\n"


def _forms_markdown(forms: Mapping[str, Any]) -> str:
    n = forms["unconstrained"]["valid_rate"]["n"]
    head = [f"teacher (n = {n})", "valid rate", "coherence", "bridge fidelity"]
    return _table(
        head,
        [
            [
                _FORMS[form],
                *(_written(cells[name]) for name in ("valid_rate", "coherence", "bridge_fidelity")),
            ]
            for form, cells in forms.items()
        ],
    )


def _shapes_markdown(rows: Mapping[str, Any]) -> str:
    """One line per shape and voice."""
    shapes = next(iter(rows.values()))["per_shape"]
    return _table(
        ["shape", "n", "voice", *_PER_SHAPE.values()],
        [
            [shape, str(row["per_shape"][shape]["n"]), name]
            + [_written(_cell_of(row["per_shape"][shape], metric)) for metric in _PER_SHAPE]
            for shape in shapes
            for name, row in rows.items()
        ],
    )


def _cell_of(row: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """A metric of one shape as a cell; divergences keep value and interval apart."""
    if isinstance(found := row[metric], Mapping):
        return found
    low, high = row[f"{metric}_interval"]
    return {"value": found, "low": low, "high": high}


def _table(head: list[str], lines: list[list[str]]) -> str:
    ruled = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled) + "\n"


def _written(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "–"
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
