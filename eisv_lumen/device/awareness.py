"""What turns states into speech on a device: a buffer, a cadence, and a voice with the rules behind it."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from eisv_lumen import shapes
from eisv_lumen.errors import LumenError
from eisv_lumen.expression import Expression
from eisv_lumen.rules import Rules
from eisv_lumen.series import median_step
from eisv_lumen.vocabulary import AFFINITY, SHAPES
from eisv_lumen.windows import GAP_FACTOR, MIN_STATES, STRIDE, WINDOW_LENGTH, Windows

GATE = 0.6
"""Least confidence with which the model speaks."""

MODEL, RULES = "M", "R"


class Hears(Protocol):
    """What a student can do; `student.TrajectoryModel` does it."""

    version: str

    def infer(self, window: Windows, generator: np.random.Generator | None = None) -> Any:
        """Hear one window."""


@dataclass(frozen=True)
class Spoken:
    """One expression, and how it came about.

    Attributes:
        expression: What is said.
        lumen_words: The same in Lumen's own words.
        shape: The window's shape, by whoever speaks.
        confidence: Expected coherence in [0, 1]: the model's own, or the rules' in this shape.
        source: `M` for the model, `R` for the rules.
        reason: Why the rules speak; None for the model.
        version: The student's version, where one was asked.
        model_confidence: The model's confidence, also where it was too low to speak.
        latency_ms: Time from the window to the expression.
        time: When it was said, seconds since the epoch.
    """

    expression: Expression
    lumen_words: tuple[str, ...]
    shape: str
    confidence: float
    source: str
    reason: str | None
    version: str | None
    model_confidence: float | None
    latency_ms: float
    time: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        values = dict(vars(self))
        values["expression"] = str(self.expression)
        values["pattern"] = self.expression.pattern
        values["tokens"] = list(self.expression.tokens)
        values["lumen_words"] = list(self.lumen_words)
        return values


class StateBuffer:
    """The newest states, never across a gap or a step of the clock backwards.

    Args:
        length: States kept.
    """

    def __init__(self, length: int = WINDOW_LENGTH) -> None:
        self._times: deque[float] = deque(maxlen=length)
        self._states: deque[np.ndarray] = deque(maxlen=length)

    def __len__(self) -> int:
        """Number of states held."""
        return len(self._times)

    @property
    def full(self) -> bool:
        """Whether a whole window is there."""
        return len(self._times) == self._times.maxlen

    def add(self, moment: float, state: np.ndarray) -> bool:
        """Add a state `[4]`; False when it starts a new stretch and the older states were dropped."""
        times = np.array(self._times)
        limit = GAP_FACTOR * median_step(times) if len(times) > 1 else np.inf
        joined = not len(times) or 0 <= moment - times[-1] <= (limit if limit > 0 else np.inf)
        if not joined:
            self._times.clear()
            self._states.clear()
        self._times.append(moment)
        self._states.append(np.asarray(state, np.float64))
        return joined

    def window(self) -> Windows:
        """The states held, as one window.

        Raises:
            WindowError: Fewer than four, or unusable values.
        """
        states = np.array(self._states).reshape(-1, 4)
        times = np.array(self._times)
        window = Windows.of(states, times - times[0] if len(times) else times)
        return window.validate(min_states=MIN_STATES)


class Cadence:
    """When to speak: once the buffer is full, and then every `stride` states."""

    def __init__(self, stride: int = STRIDE) -> None:
        self._stride, self._waited = stride, stride

    def due(self, buffer: StateBuffer) -> bool:
        """Called once per state added."""
        self._waited += 1
        if not buffer.full or self._waited < self._stride:
            return False
        self._waited = 0
        return True


class Voice:
    """The model where it is confident enough, the rules everywhere else.

    Args:
        model: The student, or None where there is none.
        rules: Layer 2; learns from what it says here.
        reason: Why there is no model.
        gate: Least confidence for the model.
        generator: Source of all draws; None draws freely.
    """

    def __init__(
        self,
        model: Hears | None,
        rules: Rules,
        *,
        reason: str | None = None,
        gate: float = GATE,
        generator: np.random.Generator | None = None,
    ) -> None:
        self.model, self.rules, self.gate = model, rules, gate
        self._reason = reason or "no model is installed"
        self._generator = generator or np.random.default_rng()

    def speak(self, window: Windows, clock: Callable[[], float] = time.time) -> Spoken:
        """Voice one window; whatever the model does, something is said."""
        started = time.perf_counter()
        heard, reason = self._hear(window)
        if heard is not None and reason is None:
            expression, words = heard.expression, heard.lumen_words
            shape, confidence = heard.shape, heard.confidence
        else:
            expression, shape, confidence = self._by_rules(window)
            words = expression.lumen_words
        return Spoken(
            expression=expression,
            lumen_words=tuple(words),
            shape=shape,
            confidence=float(confidence),
            source=MODEL if reason is None else RULES,
            reason=reason,
            version=self.model.version if self.model is not None else None,
            model_confidence=float(heard.confidence) if heard is not None else None,
            latency_ms=round(1000 * (time.perf_counter() - started), 3),
            time=clock(),
        )

    def _hear(self, window: Windows) -> tuple[Any, str | None]:
        """What the model hears, and why it does not speak."""
        if self.model is None:
            return None, self._reason
        try:
            heard = self.model.infer(window, self._generator)
        except LumenError as error:
            return None, f"the model failed: {error.found}"
        except Exception as error:  # a voice must survive whatever a model file makes its runtime do
            return None, f"the model failed: {type(error).__name__}"
        # Written so that NaN stays below.
        if not heard.confidence >= self.gate:
            return heard, f"confidence {heard.confidence:.2f} below the gate of {self.gate:.2f}"
        return heard, None

    def _by_rules(self, window: Windows) -> tuple[Expression, str, float]:
        shape = shapes.classify(window)
        expected = self.rules.distribution().coherence(AFFINITY)[shape[0]]
        ids = self.rules.speak_and_learn(shape, self._generator)
        return Expression.from_ids(ids[0]), SHAPES[int(shape[0])], float(expected)
