r"""Leave out each term of the distillation loss in turn, and measure the students that come of it.

    python -m training.ablate --config training/configs/student.yaml --set steps=200 \
        --dataset artifacts/dataset --labels artifacts/labels --out ablations.json

All students go on from the same listening stage, with the same batches. A killed run goes on: students that
are in the file already, from the same settings and folders, are not trained again.
"""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.layouts import STUDENT
from training import configuration
from training.data import Split, read_splits
from training.student.settings import StudentSettings
from training.train_student import batches_of

TERMS = ("distil", "shape", "hard", "features", "lumen")
_REPORTED = ("shape_accuracy", "coherence", "bridge_fidelity", "calibration", "diversity")


def main(arguments: list[str] | None = None) -> int:
    """Run all students; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args(arguments)
    settings = configuration.load(options.config, StudentSettings, options.overrides)
    inputs = {
        kind: artifact.Manifest.read(getattr(options, kind), kind=kind).identity
        for kind in ("dataset", "labels")
    }
    of_what = {"settings": configuration.as_plain(settings), "inputs": inputs}
    known = _students_in(options.out, of_what)
    for name, measured in students(settings, options.dataset, options.labels, set(known)):
        known[name] = measured
        artifact.write_json(options.out, {**of_what, "students": known})
    print(markdown(known), end="")
    return 0


def variants(settings: StudentSettings) -> dict[str, StudentSettings]:
    """The settings as they are, and without each term of the loss that they weigh."""
    named = {"all terms": settings}
    for term in TERMS:
        if getattr(settings.loss, term) > 0:
            without: dict[str, Any] = {term: 0.0}
            named[f"without {term}"] = replace(settings, loss=replace(settings.loss, **without))
    return named


def students(settings: StudentSettings, dataset: Path, labels: Path, known: set[str]) -> Any:
    """Train and measure each student whose name is not `known`; yields names and measurements."""
    from dataclasses import asdict

    from transformers import set_seed

    from training.progress import Progress
    from training.student.distillation import distil, listen
    from training.student.labels import TeacherLabels
    from training.student.tables import new_model

    wanted = {name: changed for name, changed in variants(settings).items() if name not in known}
    if not wanted:
        return
    splits, taught = read_splits(dataset), TeacherLabels.read(labels)
    batches = batches_of(settings, *taught.beside(splits["train"]))
    held_out = taught.beside(splits["validation"])
    with tempfile.TemporaryDirectory(prefix="ablations-") as folder:
        set_seed(settings.seed)
        model = new_model(**asdict(settings.model))
        listen(model, batches, settings, Path(folder), [Progress("ablations, listening")])
        heard = {name: value.clone() for name, value in model.state_dict().items()}
        for number, (name, changed) in enumerate(wanted.items()):
            set_seed(settings.seed)
            model.load_state_dict(heard)
            distil(model.train(), batches, changed, Path(folder) / str(number), [Progress(name)])
            yield name, measure(model, changed, splits["test"], held_out, Path(folder) / str(number))


def measure(
    model: Any, settings: StudentSettings, split: Split, held_out: tuple[Split, Any], scratch: Path
) -> dict[str, Any]:
    """What the FP32 graph of a student hears and says on the test split, and its fit on validation."""
    from eisv_lumen.student import TrajectoryModel
    from training.student import calibration, evaluation, export

    validation = held_out[0]
    windows, shapes = calibration.complete_and_cut(validation.windows, validation.shapes, settings.seed)
    model.temperature.fill_(calibration.fit_temperature(calibration.shape_logits(model, windows), shapes))
    model.eval().save_pretrained(scratch)
    export.export_fp32(model, scratch / STUDENT.fp32)
    config = json.loads((scratch / STUDENT.config).read_text("utf-8"))
    graph = TrajectoryModel(scratch / STUDENT.fp32, config, version="unreleased", precision="fp32")
    parts = evaluation.measure(graph, split, seed=settings.seed)
    return {
        "fit": evaluation.fit(model, *held_out, most=settings.fit_windows, seed=settings.seed),
        **{part: {metric: cells[metric] for metric in _REPORTED} for part, cells in parts.items()},
    }


def markdown(measured: dict[str, Any]) -> str:
    """One line per student: the metrics over all test windows, and the divergence from the teacher."""
    head = ["student", "n", *(metric.replace("_", " ") for metric in _REPORTED), "pattern JS", "token JS"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, found in measured.items():
        cells, fit = found["overall"], found["fit"]
        numbers = [
            *(cells[metric]["value"] for metric in _REPORTED),
            *(fit[f"{what}_js_bits"] for what in ("pattern", "token")),
        ]
        lines.append([name, str(cells["coherence"]["n"]), *(f"{number:.3f}" for number in numbers)])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _students_in(path: Path, of_what: dict[str, Any]) -> dict[str, Any]:
    """The students that an earlier run of the same wrote into the file."""
    try:
        earlier = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    same = isinstance(earlier, dict) and all(earlier.get(name) == value for name, value in of_what.items())
    return dict(earlier["students"]) if same else {}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Of several GPUs the Trainer would make larger batches than the stages mean.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    exit_with_reason(main)
