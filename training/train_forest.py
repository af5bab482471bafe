r"""Distil the teacher's labels into a forest on the 12 summaries of a window, and export it to ONNX.

    python -m training.train_forest --config training/configs/forest.yaml \
        --dataset artifacts/dataset --labels artifacts/labels --out artifacts/forest

The published student is such a forest; here it hears the raw window like the transformer, through the same
graph interface and in a folder of the same layout, so that `TrajectoryModel` loads either. It is the baseline
to beat: one that fails gate 2 is an outcome, not an error, and publishing refuses its folder.
"""

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

from eisv_lumen import artifact, vocabulary
from eisv_lumen.errors import SourceError, exit_with_reason
from eisv_lumen.layouts import STUDENT
from training import configuration, gates
from training.data import Split, read_splits
from training.forest.fitting import Forest, ForestSettings
from training.row_counts import require_windows
from training.train_student import gate_2

_GRAPHS = {"fp32": STUDENT.fp32, "int8": STUDENT.int8}
"""Trees compare numbers and have nothing to quantise: both names hold the same graph."""


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument(
        "--teacher",
        type=Path,
        help="for its measured coherence; by default that of its labels on the validation split",
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    settings = configuration.load(options.config, ForestSettings)
    inputs = {"dataset": options.dataset, "labels": options.labels}
    if options.teacher is not None:
        inputs["teacher"] = options.teacher
    for kind, folder in inputs.items():
        artifact.Manifest.read(folder, kind=kind)
    require_windows(options.dataset, "train", "validation", "test")
    plain = {"model": "forest", **configuration.as_plain(settings)}
    with artifact.build(
        options.out, kind="student", configuration=plain, inputs=inputs, seed=settings.seed
    ) as work:
        if work is None:
            print(f"forest: {options.out} is up to date")
        else:
            print("forest: distilling the teacher into trees, the baseline that the student has to beat")
            work.metrics = build(settings, options.dataset, options.labels, options.teacher, work)
    report(options.out)
    return 0


def build(
    settings: ForestSettings, dataset: Path, labels: Path, teacher: Path | None, work: artifact.Work
) -> dict[str, Any]:
    """Fit, choose, calibrate, export and record into `work.folder`; returns the metrics."""
    from training.forest import fitting
    from training.forest.reference import Reference
    from training.student import evaluation
    from training.student.labels import TeacherLabels

    began = time.monotonic()
    splits, taught = read_splits(dataset), TeacherLabels.read(labels)
    training, held_out = taught.beside(splits["train"]), taught.beside(splits["validation"])
    forest, tried = choose(settings, training, held_out, work.scratch)
    forest = fitting.calibrate(forest, splits["validation"])
    fitted = time.monotonic()
    sizes = write_graphs(forest, work.folder)
    artifact.write_json(work.folder / STUDENT.config, configuration_of(forest))
    measured = measure(forest, settings, splits["test"], work.folder)
    reference: Any = Reference(forest)
    return {
        "gate_2": gate_2(measured, held_out, teacher),
        **measured,
        "fit": {
            **evaluation.fit(reference, *held_out, most=settings.fit_windows, seed=settings.seed),
            "split": "validation",
        },
        "leaves": forest.n_leaves,
        "axes": len(forest.plane.axes),
        "sizes": sizes,
        "choice": {"tried": tried, "split": "validation", "n": len(held_out[0])},
        "calibration": {
            "temperature": forest.temperature,
            "split": "validation",
            "n": len(splits["validation"]),
        },
        "training": {"windows": len(training[0]), "seconds": round(fitted - began, 1)},
        "seconds": round(time.monotonic() - began, 1),
    }


def choose(
    settings: ForestSettings, training: tuple[Split, Any], held_out: tuple[Split, Any], scratch: Path
) -> tuple[Forest, list[dict[str, Any]]]:
    """The forest with the lowest Brier score on held-out windows, of those small enough; and all tried.

    Raises:
        SourceError: None of them is small enough.
    """
    from training.forest import fitting, graph

    lesson, exam = fitting.Lesson.of(*training), fitting.Lesson.of(*held_out)
    path = scratch / "candidate.onnx"
    tried: list[dict[str, Any]] = []
    best: tuple[float, Forest] | None = None
    for trees, leaf in fitting.candidates(settings):
        forest = fitting.fit(lesson, trees, leaf, settings)
        graph.export(forest, path)
        size, score = path.stat().st_size, fitting.brier(forest, exam)
        tried.append({"trees": trees, "min_samples_leaf": leaf, "brier": score, "bytes": size})
        if size <= settings.max_bytes and (best is None or score < best[0]):
            best = score, forest
    if best is None:
        raise SourceError(
            found=f"forests of {min(one['bytes'] for one in tried):,} bytes and more",
            expected=f"one of at most {settings.max_bytes:,} bytes",
            next="set fewer trees, larger leaves or a larger max_bytes in the configuration",
        )
    return best[1], tried


def write_graphs(forest: Forest, folder: Path) -> dict[str, int]:
    """Export under both names; returns the files' sizes in bytes."""
    from training.forest import graph

    graph.export(forest, folder / STUDENT.fp32)
    shutil.copyfile(folder / STUDENT.fp32, folder / STUDENT.int8)
    return {precision: (folder / name).stat().st_size for precision, name in _GRAPHS.items()}


def configuration_of(forest: Forest) -> dict[str, Any]:
    """What `config.json` says: kind, size, and the vocabulary that gives the graph's ids their meaning."""
    return {
        "model_type": "eisv_forest",
        "trees": len(forest.trees.estimators_),
        "leaves": forest.n_leaves,
        "temperature": forest.temperature,
        **{
            name: list(getattr(vocabulary, name.upper()))
            for name in ("dimensions", "shapes", "patterns", "tokens", "lumen_words")
        },
    }


def measure(forest: Forest, settings: ForestSettings, split: Split, folder: Path) -> dict[str, Any]:
    """Record golden windows, and measure parity with scikit-learn, quality and cost of the graph."""
    from eisv_lumen.student import TrajectoryModel
    from training.forest.reference import Reference
    from training.student import evaluation, export, footprint, golden, parity

    print("forest: comparing scikit-learn and ONNX, and scoring the graph on the test split")
    config, reference = configuration_of(forest), Reference(forest)
    in_numpy: Any = reference
    models = {
        precision: TrajectoryModel(folder / name, config, version="unreleased", precision=precision)
        for precision, name in _GRAPHS.items()
    }
    artifact.write_json(
        folder / STUDENT.golden, golden.record(models, split.windows, split.shapes, settings.seed)
    )
    return {
        "parity": parity.measure(
            in_numpy,
            {"fp32": export.session(folder / STUDENT.fp32)},
            split,
            count=settings.parity_windows,
            seed=settings.seed,
        ),
        "evaluation": evaluation.measure(models["int8"], split, seed=settings.seed),
        "latency": footprint.latency(models, split.windows),
        "memory": footprint.process_memory(folder, split.windows[0]),
    }


def report(folder: Path) -> None:
    """Say how the forest did."""
    metrics = artifact.read_metrics(folder)
    for name, group in metrics["evaluation"].items():
        shape = group["shape_accuracy"]
        print(
            f"forest: {name}: shape accuracy {shape['value']:.3f} "
            f"[{shape['low']:.3f}, {shape['high']:.3f}], macro recall {group['macro_recall']:.3f}, "
            f"n = {shape['n']}"
        )
    parity = metrics["parity"]
    print(
        f"forest: {metrics['leaves']:,} leaves, {metrics['sizes']['fp32'] / 1e6:.2f} MB, "
        f"p50 {metrics['latency']['fp32']['p50_ms']:.3f} ms; probabilities differ from scikit-learn's "
        f"by at most {parity['fp32']['max_probability_difference']:.1e} on {parity['n']} windows "
        f"({'within' if parity['passed'] else 'BEYOND'} tolerance)"
    )
    gates.report("forest", "gate_2", folder)


if __name__ == "__main__":
    # Threads that spin while they wait make everything slower where other processes want the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    exit_with_reason(main)
