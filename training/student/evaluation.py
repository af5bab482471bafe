"""What the exported student hears and says on held-out windows, against the rules on the same windows."""

from typing import Any

import numpy as np
import torch

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.metrics import Voice, js_divergence, score, token_entropy
from eisv_lumen.shapes import robust
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import N_SHAPES, SHAPES
from eisv_lumen.windows import WINDOW_LENGTH, Windows
from training.data import Split
from training.student.augmentation import cut, drop, freeze, jitter_seconds
from training.student.batches import inputs_of
from training.student.labels import TeacherLabels
from training.student.modeling_eisv_lumen import TrajectoryTransformer

PREFIXES = (4, 8, 10, 15, 20)
CONFIDENT = 0.6
"""Confidence from which a device speaks (DOMAIN.md)."""

MISSING = 0.2
"""Share of a window's states that a rough one has lost."""
JITTER_SECONDS = 0.5

_AT_ONCE = 64


def distribution_of(model: TrajectoryTransformer, windows: Windows) -> ExpressionDistribution:
    """The student's exact distribution over expressions, one row per window (float32)."""
    parts: list[tuple[np.ndarray, ...]] = []
    with torch.inference_mode():
        for start in range(0, len(windows), _AT_ONCE):
            found = model.conditionals(**inputs_of(windows[start : start + _AT_ONCE]))
            parts.append(tuple(part.numpy() for part in found))
    first, second, third = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ExpressionDistribution(first, second, third)


def measure(graph: TrajectoryModel, split: Split, *, seed: int) -> dict[str, Any]:
    """Every metric, on real and synthetic windows apart.

    Args:
        graph: The INT8 student, which says what is scored.
        split: Held-out windows.
        seed: Of what is sampled.

    Returns:
        `overall`, `real` and `synthetic`, each with the metrics of `eisv_lumen.metrics.score` (expressions
        drawn from the student), `recall` and `macro_recall`, `above_gate`, `early`, `rough`, and
        `labelled_temporal_consistency`, that of the expressions which the rules labelled the windows with.
    """
    groups = {"overall": np.ones(len(split), bool), "real": split.real, "synthetic": ~split.real}
    return {name: _group(graph, split[chosen], seed) for name, chosen in groups.items() if chosen.any()}


def _group(graph: TrajectoryModel, split: Split, seed: int) -> dict[str, Any]:
    result = graph.infer_batch(split.windows, np.random.default_rng(seed))
    voice = Voice(
        "Student",
        result.token_ids,
        shape_probs=result.shape_probs.astype(np.float64),
        confidence=np.clip(result.confidence.astype(np.float64), 0.0, 1.0),
        lumen_ids=result.lumen_ids,
    )
    sequence = np.char.add(np.char.add(split.source, "/"), split.scale)
    measured = score(
        voice, shapes=split.shapes, reference_patterns=split.patterns, sequence=sequence, seed=seed
    )
    return {
        **measured,
        "macro_recall": macro_recall(result.shapes, split.shapes),
        "recall": recalls(result.shapes, split.shapes),
        "above_gate": float((result.confidence >= CONFIDENT).mean()),
        "labelled_temporal_consistency": labelled_consistency(split, sequence, seed),
        "early": early(graph, split),
        "rough": rough(graph, split, seed=seed),
    }


def recalls(heard: np.ndarray, shapes: np.ndarray) -> dict[str, dict[str, float]]:
    """Share of each shape's windows that are heard as it, with their number."""
    return {
        SHAPES[shape]: {
            "value": float((heard[shapes == shape] == shape).mean()),
            "n": int((shapes == shape).sum()),
        }
        for shape in range(N_SHAPES)
        if (shapes == shape).any()
    }


def macro_recall(heard: np.ndarray, shapes: np.ndarray) -> float:
    """Mean recall over the shapes that occur."""
    return float(np.mean([cell["value"] for cell in recalls(heard, shapes).values()]))


def early(graph: TrajectoryModel, split: Split) -> dict[str, dict[str, float]]:
    """Shape accuracy from the first states only, by student and rules; truth is the complete window's label.

    Both hear states and times alone: what the rules know besides, the ethical drift, is withheld from them.
    """
    found = {}
    complete = split.windows.counts == WINDOW_LENGTH
    for length in PREFIXES:
        windows = cut(split.windows[complete], 0, length)
        if not len(windows):
            continue
        shapes = split.shapes[complete]
        found[str(length)] = {
            "student": float((graph.infer_batch(windows).shapes == shapes).mean()),
            "rules": float((robust(windows) == shapes).mean()),
            "n": len(windows),
        }
    return found


def rough(graph: TrajectoryModel, split: Split, *, seed: int) -> dict[str, dict[str, float]]:
    """Shape accuracy on complete windows that were degraded, by student and rules on the same ones.

    Truth is the label of the window before. `missing` has lost a fifth of its states, `frozen` shows one
    dimension, a random one, at its first state throughout, `jitter` has each time moved by up to 0.5 s.

    Args:
        graph: The student.
        split: Held-out windows.
        seed: Of what is lost, frozen and moved.

    Returns:
        Per condition `student` and `rules`, how much less that is than on the clean windows
        (`student_drop`, `rules_drop`), and `n`. Empty where no window is complete.
    """
    complete = split.windows.counts == WINDOW_LENGTH
    windows, shapes = cut(split.windows[complete], 0, WINDOW_LENGTH), split.shapes[complete]
    if not len(windows):
        return {}
    every, generator = np.ones(len(windows)), np.random.default_rng(seed)
    degraded = {
        "missing": drop(windows, MISSING * every, generator),
        "frozen": freeze(windows, every > 0, generator),
        "jitter": jitter_seconds(windows, JITTER_SECONDS * every, generator),
    }

    def accuracies(heard: Windows) -> tuple[float, float]:
        answers = graph.infer_batch(heard).shapes, robust(heard)
        return float((answers[0] == shapes).mean()), float((answers[1] == shapes).mean())

    found, clean = {}, accuracies(windows)
    for name, changed in degraded.items():
        student, rules = accuracies(changed)
        found[name] = {
            "student": student,
            "rules": rules,
            "student_drop": clean[0] - student,
            "rules_drop": clean[1] - rules,
            "n": len(windows),
        }
    return found


def labelled_consistency(split: Split, sequence: np.ndarray, seed: int) -> dict[str, Any]:
    """Temporal consistency of the expressions the windows were labelled with: the rules' own."""
    spoken = Voice("Rules", split.ids)
    cells = score(
        spoken, shapes=split.shapes, reference_patterns=split.patterns, sequence=sequence, seed=seed
    )
    return cells["temporal_consistency"]


def fit(
    model: TrajectoryTransformer, split: Split, labels: TeacherLabels, *, most: int, seed: int
) -> dict[str, float]:
    """How near the student's exact distributions are to the teacher's, per window and in bits.

    Args:
        model: The trained model.
        split: Windows that it was not trained on.
        labels: The teacher's labels of them.
        most: Most windows to compare.
        seed: Of the choice of windows.
    """
    chosen = np.random.default_rng(seed).permutation(len(split))[:most]
    student, teacher = distribution_of(model, split.windows[chosen]), labels.distribution[chosen]
    patterns = student.patterns(), teacher.patterns()
    tokens = student.tokens(), teacher.tokens()
    return {
        "pattern_js_bits": float(js_divergence(*patterns).mean()),
        "token_js_bits": float(js_divergence(*tokens).mean()),
        "token_entropy": float(token_entropy(tokens[0]).mean()),
        "teacher_token_entropy": float(token_entropy(tokens[1]).mean()),
        "n": len(chosen),
    }
