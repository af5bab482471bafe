"""The two voices a visitor hears: the student, where it can be loaded, and the rules."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen.device.awareness import GATE
from eisv_lumen.errors import LumenError
from eisv_lumen.expression import Expression, decode
from eisv_lumen.metrics import expected_coherence
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import classify
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import SHAPE_ID, SHAPES
from eisv_lumen.windows import Windows


@dataclass(frozen=True)
class Speech:
    """What one voice makes of one window.

    Attributes:
        expression: What it says.
        words: The same in Lumen's own words.
        shape: The shape it hears.
        shape_probs: `[9]` its belief over shapes, None for the rules, which decide.
        confidence: Expected coherence in [0, 1], None for the rules.
    """

    expression: Expression
    words: tuple[str, ...]
    shape: str
    shape_probs: np.ndarray | None = None
    confidence: float | None = None

    @property
    def sure(self) -> bool:
        """Whether a device would let it speak."""
        return self.confidence is not None and self.confidence >= GATE


class Voices:
    """Student and rules.

    Attributes:
        student: The loaded student, None where it could not be loaded.
        name: Where the student came from, for people.
        trouble: Why there is no student, None where there is one.
    """

    def __init__(self, rules: Rules, student: TrajectoryModel | None, name: str, trouble: str | None) -> None:
        self.rules, self.student, self.name, self.trouble = rules, student, name, trouble

    @classmethod
    def load(cls, settings: dict[str, Any], assets: Path) -> "Voices":
        """Load the student named by the environment or the Space's settings, and the rules' weights.

        `EISV_STUDENT` (a folder or repository) and `EISV_STUDENT_REVISION` come before the settings;
        `HF_ENDPOINT` chooses the Hub. Nothing is raised: a Space without its student still speaks by rules.
        """
        source = os.environ.get("EISV_STUDENT") or settings["student"]
        revision = os.environ.get("EISV_STUDENT_REVISION") or settings.get("revision") or "main"
        rules = _rules(assets / "rules.json")
        try:
            student = TrajectoryModel.from_pretrained(source, revision=revision)
        except LumenError as error:
            return cls(rules, None, str(source), error.found)
        name = Path(source).name if Path(source).is_dir() else str(source)
        return cls(rules, student, f"{name} · {student.version} · {student.precision}", None)

    def hear(self, window: Windows, seed: int | None) -> Speech | None:
        """The student's answer to one window, None without a student; a seed draws, None decodes greedily."""
        if self.student is None:
            return None
        heard = self.student.infer(window, None if seed is None else np.random.default_rng(seed))
        return Speech(heard.expression, heard.lumen_words, heard.shape, heard.shape_probs, heard.confidence)

    def by_rules(self, window: Windows, seed: int | None) -> Speech:
        """The rules' answer to one window."""
        shape = int(classify(window)[0])
        distribution = self.rules.distribution()[np.array([shape])]
        ids = distribution.greedy() if seed is None else self._rules_draw(shape, 1, seed)
        expression = Expression.from_ids(ids[0])
        return Speech(expression, expression.lumen_words, SHAPES[shape])

    def frequencies(self, window: Windows, draws: int, seed: int) -> dict[str, Counter[Expression]]:
        """How often each voice says what in many draws: `{"student": ..., "rules": ...}`."""
        shape = int(classify(window)[0])
        counts = {"rules": Counter(decode(self._rules_draw(shape, draws, seed)))}
        if self.student is not None:
            many = window[np.zeros(draws, int)]
            result = self.student.infer_batch(many, np.random.default_rng(seed))
            counts["student"] = Counter(decode(result.token_ids))
        return counts

    def _rules_draw(self, shape: int, draws: int, seed: int) -> np.ndarray:
        return self.rules.sample(np.full(draws, shape), np.random.default_rng(seed))


def coherence_of(expression: Expression, shape: str) -> float:
    """Share of an expression's tokens that are affine to a shape."""
    certain = np.eye(len(SHAPES))[[SHAPE_ID[shape]]]
    return float(expected_coherence(expression.ids[None], certain)[0])


def _rules(weights: Path) -> Rules:
    """The rules as they labelled the dataset this Space was built with, else as they are before feedback."""
    return Rules.from_dict(json.loads(weights.read_text("utf-8"))) if weights.is_file() else Rules()
