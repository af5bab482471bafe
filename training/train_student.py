r"""Distil a student from the teacher's labels, export it to ONNX, quantise it, and measure all of it.

    python -m training.train_student --config training/configs/student.yaml \
        --dataset artifacts/dataset --labels artifacts/labels --out artifacts/student

A killed run goes on from its last checkpoint. A student that fails gate 2 is kept, so that it can be looked
at; the command then ends with exit code 1, and publishing refuses the folder.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.layouts import STUDENT
from eisv_lumen.vocabulary import AFFINITY
from training import configuration, gates
from training.data import Split, read_splits
from training.student.settings import StudentSettings


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code: 1 when the student failed its gate."""
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
    settings = configuration.load(options.config, StudentSettings)
    artifact.Manifest.read(options.dataset, kind="dataset")
    artifact.Manifest.read(options.labels, kind="labels")
    inputs = {"dataset": options.dataset, "labels": options.labels}
    if options.teacher is not None:
        artifact.Manifest.read(options.teacher, kind="teacher")
        inputs["teacher"] = options.teacher
    plain = configuration.as_plain(settings)
    with artifact.build(
        options.out, kind="student", configuration=plain, inputs=inputs, seed=settings.seed
    ) as work:
        if work is None:
            print(f"student: {options.out} is up to date")
        else:
            print("student: distilling the teacher into a network small enough for a Pi")
            work.metrics = build(settings, options.dataset, options.labels, options.teacher, work)
    return report(options.out)


def build(
    settings: StudentSettings, dataset: Path, labels: Path, teacher: Path | None, work: artifact.Work
) -> dict[str, Any]:
    """Train, calibrate, export, quantise and record into `work.folder`; returns the metrics."""
    from transformers import set_seed

    from training.student import calibration, evaluation
    from training.student.labels import TeacherLabels
    from training.student.tables import count_parameters, new_model

    began = time.monotonic()
    set_seed(settings.seed)
    splits, taught = read_splits(dataset), TeacherLabels.read(labels)
    training, held_out = taught.beside(splits["train"]), taught.beside(splits["validation"])
    model = new_model(**asdict(settings.model))
    print(f"student: {count_parameters(model):,} parameters")
    log = train(model, settings, *training, work.scratch)
    trained = time.monotonic()
    held = splits["validation"]
    windows, shapes = calibration.complete_and_cut(held.windows, held.shapes, settings.seed)
    temperature = calibration.fit_temperature(calibration.shape_logits(model, windows), shapes)
    model.temperature.fill_(temperature)
    chosen = np.random.default_rng(settings.seed).permutation(len(held_out[0]))[: settings.fit_windows]
    said = evaluation.distribution_of(model.eval(), held_out[0].windows[chosen])
    voice = calibration.fit_voice(said, held_out[1].distribution[chosen])
    calibration.set_voice(model, voice)
    model.eval().save_pretrained(work.folder, safe_serialization=True)
    sizes = write_graphs(model, settings, work.folder)
    measured = measure(model, settings, splits["test"], work.folder)
    passed = gate_2(measured, held_out, teacher)
    return {
        "gate_2": passed,
        **measured,
        "fit": {
            **evaluation.fit(model, *held_out, most=settings.fit_windows, seed=settings.seed),
            "split": "validation",
        },
        "parameters": count_parameters(model),
        "sizes": sizes,
        "calibration": {
            "temperature": temperature,
            "voice_temperature": voice,
            "split": "validation",
            "n": len(windows),
        },
        "training": {
            "windows": len(training[0]),
            "steps": settings.steps,
            "log": log,
            "seconds": round(trained - began, 1),
        },
        "seconds": round(time.monotonic() - began, 1),
    }


def train(
    model: Any, settings: StudentSettings, split: Split, labels: Any, scratch: Path
) -> list[dict[str, Any]]:
    """Distil into `model`; returns the log."""
    from training.progress import Progress, TrainingLog
    from training.student.distillation import distil, listen

    batches = batches_of(settings, split, labels)
    print("student: first stage, hearing shapes; second stage, distilling the teacher's voice")
    listen(model, batches, settings, scratch, [Progress("student, listening")])
    log = TrainingLog(scratch / "training_log.json")
    distil(model, batches, settings, scratch, [Progress("student"), log])
    return log.entries


def batches_of(settings: StudentSettings, split: Split, labels: Any) -> Any:
    """The `training.student.batches.Batches` of labelled windows and of those made beside them."""
    from training.student.batches import Batches
    from training.student.supplement import supplement

    generator = np.random.default_rng(settings.seed)
    more = (
        supplement(split.windows, split.shapes, settings.supplement, generator)
        if settings.supplement
        else None
    )
    return Batches(
        split,
        labels,
        settings.augmentation,
        prefixes=settings.loss.prefixes,
        listening=settings.listening.augmentation,
        more=more,
    )


def write_graphs(model: Any, settings: StudentSettings, folder: Path) -> dict[str, int]:
    """Export FP32 and INT8; returns the files' sizes in bytes."""
    from training.student import export

    print("student: exporting one ONNX graph and quantising it to INT8")
    fp32, int8 = folder / STUDENT.fp32, folder / STUDENT.int8
    export.export_fp32(model, fp32)
    quantisation = settings.quantisation
    export.quantise(fp32, int8, keep=quantisation.keep, per_channel=quantisation.per_channel)
    return {
        "fp32": fp32.stat().st_size,
        "int8": int8.stat().st_size,
        "safetensors": (folder / "model.safetensors").stat().st_size,
    }


def measure(model: Any, settings: StudentSettings, split: Split, folder: Path) -> dict[str, Any]:
    """Record golden windows, and measure parity, quality and cost of the exported graphs."""
    from eisv_lumen.student import TrajectoryModel
    from training.student import evaluation, export, footprint, golden, parity

    print("student: comparing torch, FP32 and INT8, and scoring INT8 on the test split")
    config = json.loads((folder / STUDENT.config).read_text("utf-8"))
    paths = {"int8": folder / STUDENT.int8, "fp32": folder / STUDENT.fp32}
    models = {
        name: TrajectoryModel(path, config, version="unreleased", precision=name)
        for name, path in paths.items()
    }
    recorded = golden.record(models, split.windows, split.shapes, settings.seed)
    artifact.write_json(folder / STUDENT.golden, recorded)
    return {
        "parity": parity.measure(
            model,
            {name: export.session(path) for name, path in paths.items()},
            split,
            count=settings.parity_windows,
            seed=settings.seed,
        ),
        "evaluation": evaluation.measure(models["int8"], split, seed=settings.seed),
        "latency": footprint.latency(models, split.windows),
        "memory": footprint.process_memory(folder, split.windows[0]),
    }


def gate_2(measured: dict[str, Any], held_out: tuple[Split, Any], teacher: Path | None) -> dict[str, Any]:
    """Gate 2 (DOMAIN.md section 4): coherence, also as a share of the teacher's, and memory."""
    cell = measured["evaluation"]["overall"]["coherence"]
    if teacher is not None:
        reference, source = (
            float(artifact.read_metrics(teacher)["gate_1"]["coherence"]),
            "gate 1 of the teacher",
        )
    else:
        split, labels = held_out
        reference = float(labels.distribution.coherence(AFFINITY[split.shapes]).mean())
        source = "expected coherence of the teacher's labels on the validation split"
    share, memory = cell["value"] / reference, measured["memory"]["peak_rss_mb"]
    needed = {"coherence": 0.84, "share_of_teacher": 0.90, "peak_rss_mb": 100.0}
    return {
        "passed": bool(
            cell["value"] >= needed["coherence"]
            and share >= needed["share_of_teacher"]
            and memory <= needed["peak_rss_mb"]
        ),
        "coherence": cell["value"],
        "share_of_teacher": share,
        "peak_rss_mb": memory,
        "teacher_coherence": reference,
        "teacher_coherence_from": source,
        "memory_from": "VmHWM of a fresh Python process that loaded the INT8 graph and heard 101 windows",
        "needed": needed,
        "n": cell["n"],
        "split": "test",
    }


def report(folder: Path) -> int:
    """Say how the student did; returns the exit code."""
    metrics = artifact.read_metrics(folder)
    evaluation, int8 = metrics["evaluation"], metrics["parity"]["int8"]
    for name, group in evaluation.items():
        shape = group["shape_accuracy"]
        print(
            f"student: {name}: shape accuracy {shape['value']:.3f}, "
            f"macro recall {group['macro_recall']:.3f}, n = {shape['n']}"
        )
    print(
        f"student: INT8 {metrics['sizes']['int8'] / 1e6:.2f} MB, "
        f"p50 {metrics['latency']['int8']['p50_ms']:.2f} ms; "
        f"hears the same shape as torch in {int8['shape_agreement']:.4f} of {metrics['parity']['n']} windows "
        f"({'within' if metrics['parity']['passed'] else 'BEYOND'} tolerance)"
    )
    return gates.report("student", "gate_2", folder)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Of several GPUs the Trainer would make larger batches than the stages mean.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    # Threads that spin while they wait make a step several times slower where other processes want the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    exit_with_reason(main)
