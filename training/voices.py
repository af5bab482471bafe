"""The voices of the evaluation table on one split: baselines, teacher and student."""

from dataclasses import replace
from typing import Any

import numpy as np

from eisv_lumen.baselines import feedback_voice, random_voice, rules_voice
from eisv_lumen.metrics import Voice
from eisv_lumen.rules import Rules
from eisv_lumen.student import TrajectoryModel
from training.data import Split

FEEDBACK, CONVERGED = "Rules + feedback", "Rules + feedback, converged"


def baseline_voices(test: np.ndarray, train: np.ndarray, target: Rules, seed: int) -> list[Voice]:
    """Random, the rules, and the rules with feedback in both ways.

    Feedback in one pass is measured as published, on what is said while learning: the rules speak and learn
    through the training windows in the order of time, and are scored as they go on through the test windows.

    Args:
        test: `[N]` shapes of the windows to speak of, in the order of time.
        train: Shapes of the windows met before.
        target: The rules with feedback run to convergence, which labelled the dataset.
        seed: Seed of all draws.
    """
    generators = iter(np.random.default_rng(seed).spawn(5))
    taught = Rules()
    taught.speak_and_learn(train, next(generators))
    return [
        random_voice(test, next(generators)),
        rules_voice(test, next(generators)),
        feedback_voice(test, next(generators), taught, FEEDBACK),
        rules_voice(test, next(generators), target, CONVERGED),
    ]


def student_voice(
    model: TrajectoryModel, split: Split, seed: int | None, name: str = "Student", batch_size: int = 256
) -> Voice:
    """What a student says of windows whose shape it is not told.

    Args:
        model: The student.
        split: The windows.
        seed: Seed of its draws; None for the likeliest expression.
        name: Row of the table.
        batch_size: Windows at a time.
    """
    generator = None if seed is None else np.random.default_rng(seed)
    parts = [
        model.infer_batch(split.windows[np.arange(start, min(start + batch_size, len(split)))], generator)
        for start in range(0, len(split), batch_size)
    ]
    return Voice(
        name=name,
        ids=np.concatenate([part.token_ids for part in parts]),
        shape_probs=np.concatenate([part.shape_probs for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        lumen_ids=np.concatenate([part.lumen_ids for part in parts]),
    )


def rows_of(voice: Voice, rows: np.ndarray) -> Voice:
    """What a voice said of some of the windows."""
    arrays: dict[str, Any] = {
        name: None if (values := getattr(voice, name)) is None else values[rows]
        for name in (
            "ids",
            "distribution_rows",
            "shape_probs",
            "shape_ids",
            "confidence",
            "lumen_ids",
            "valid",
        )
    }
    distribution = voice.distribution
    if distribution is not None and voice.distribution_rows is None and len(distribution) == len(voice.ids):
        distribution = distribution[rows]
    elif distribution is not None and voice.distribution_rows is not None and len(distribution) > len(rows):
        distribution = distribution[arrays["distribution_rows"]]
        arrays["distribution_rows"] = np.arange(len(rows))
    return replace(voice, distribution=distribution, **arrays)
