"""What a language model is asked, and what it is to answer, in both forms that are understood.

The design's form is a conversation: a system line, a user turn with the shape and the window's summaries, an
answer of three lines (`expression.render_answer`). The published card's form is plain text that ends in
`Expression:`, and its answer is the bare expression.
"""

from typing import Any, Protocol

import numpy as np

from eisv_lumen.errors import InputError
from eisv_lumen.vocabulary import DIMENSIONS, SHAPE_ID, SHAPES

SYSTEM = "You turn EISV trajectories into primitive expressions."
"""The system line of the design's form."""

DIMENSION_NAMES = ("Energy", "Information Integrity", "Entropy", "Void")
TREND_THRESHOLD = 0.02
"""A dimension that moved by less than this over the window is called stable."""


class WindowSummary(Protocol):
    """One window as `windows.summaries` describes it: scalars and `[4]` rows, or arrays with N = 1."""

    @property
    def n_states(self) -> Any:
        """States present."""

    @property
    def duration(self) -> Any:
        """Seconds from the first to the last."""

    @property
    def mean(self) -> Any:
        """`[4]` mean state."""

    @property
    def first(self) -> Any:
        """`[4]` mean first derivatives, per s."""

    @property
    def second(self) -> Any:
        """`[4]` mean second derivatives, per s squared."""


def design_messages(shape: str, summary: WindowSummary) -> list[dict[str, str]]:
    """The design's prompt: a system and a user message in chat form.

    Args:
        shape: One of `SHAPES`.
        summary: The window's state count, duration in seconds, mean state, and mean first (per s)
            and second (per s squared) derivatives.

    Raises:
        InputError: Unknown shape, or summaries that are no finite numbers.
    """
    count, duration, mean, first, second = _numbers(summary)
    lines = [
        f"SHAPE: {_known(shape)}",
        f"WINDOW: {count} states over {duration:.0f}s",
        "MEAN_EISV: " + " ".join(f"{d}={v:.3f}" for d, v in zip(DIMENSIONS, mean, strict=True)),
        "DERIVATIVES: " + " ".join(f"d{d}={v:+.4f}" for d, v in zip(DIMENSIONS, first, strict=True)),
        "SECOND_DERIVATIVES: " + " ".join(f"d2{d}={v:+.4f}" for d, v in zip(DIMENSIONS, second, strict=True)),
    ]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(lines)}]


def card_prompt(shape: str, summary: WindowSummary) -> str:
    """The published card's short prompt, as plain text; the answer is a space and the expression.

    The dominant dimension is the one with the highest mean; its trend is the mean slope times the duration,
    called stable below `TREND_THRESHOLD`.

    Raises:
        InputError: As `design_messages`.
    """
    _, duration, mean, first, _ = _numbers(summary)
    dominant = int(np.argmax(mean))
    moved = first[dominant] * duration
    trend = "stable" if abs(moved) < TREND_THRESHOLD else "rising" if moved > 0 else "falling"
    values = ", ".join(f"{d}={v:.2f}" for d, v in zip(DIMENSIONS, mean, strict=True))
    return (
        "You are an EISV expression generator. "
        "Given trajectory dynamics, produce a primitive expression.\n\n"
        f"Trajectory shape: {_known(shape)}\n"
        f"EISV values: {values}\n"
        f"Dominant dimension: {DIMENSIONS[dominant]} ({DIMENSION_NAMES[dominant]})\n"
        f"Trend: {trend}\n\n"
        "Expression:"
    )


def _numbers(summary: WindowSummary) -> tuple[int, float, np.ndarray, np.ndarray, np.ndarray]:
    count, duration = (np.ravel(np.asarray(v, np.float64)) for v in (summary.n_states, summary.duration))
    # Adding zero turns -0.0 into 0.0, so that nothing is written as -0.000.
    rows = [
        np.round(np.ravel(np.asarray(v, np.float64)), digits) + 0.0
        for v, digits in ((summary.mean, 3), (summary.first, 4), (summary.second, 4))
    ]
    if count.shape != (1,) or duration.shape != (1,) or any(row.shape != (4,) for row in rows):
        raise InputError(
            found=f"summaries of shapes {[row.shape for row in (count, duration, *rows)]}",
            expected="one window: n_states and duration, and four means and derivatives each",
            next="pass one row of windows.summaries",
        )
    if not all(np.isfinite(values).all() for values in (count, duration, *rows)):
        raise InputError(
            found="NaN or infinite summaries",
            expected="finite numbers",
            next="validate the window before it is put into a prompt",
        )
    return int(count[0]), float(duration[0]), rows[0], rows[1], rows[2]


def _known(shape: str) -> str:
    if shape not in SHAPE_ID:
        raise InputError(
            found=f"shape {shape!r}", expected="one of " + " ".join(SHAPES), next="correct the shape's name"
        )
    return shape
