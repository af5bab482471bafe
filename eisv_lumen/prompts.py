"""What a language model is asked, and what it is to answer, in both forms that are understood.

The design's form is a conversation: a system line, a user turn with the shape and the window's summaries, an
answer of three lines (`expression.render_answer`). The published card's form is plain text that ends in
`Expression:`, and its answer is the bare expression.
"""

from typing import Any, Protocol

import numpy as np

from eisv_lumen.errors import InputError
from eisv_lumen.vocabulary import DIMENSIONS, N_SHAPES, SHAPE_ID, SHAPES

SYSTEM = "You turn EISV trajectories into primitive expressions."
"""The system line of the design's form."""

DIMENSION_NAMES = ("Energy", "Information Integrity", "Entropy", "Void")
TREND_THRESHOLD = 0.02
"""A dimension that moved by less than this over the window is called stable."""

_OPENINGS = [f"SHAPE: {shape}\nWINDOW: " for shape in SHAPES]
_NUMBERS = "\n".join(
    [
        "%d states over %.0fs",
        "MEAN_EISV: " + " ".join(f"{d}=%.3f" for d in DIMENSIONS),
        "DERIVATIVES: " + " ".join(f"d{d}=%+.4f" for d in DIMENSIONS),
        "SECOND_DERIVATIVES: " + " ".join(f"d2{d}=%+.4f" for d in DIMENSIONS),
    ]
)
"""One template for all numbers: much faster than formatting them one by one."""


class WindowSummary(Protocol):
    """Windows as `windows.summaries` describes them: N rows each; of one window also scalars and `[4]`."""

    @property
    def n_states(self) -> Any:
        """`[N]` states present."""

    @property
    def duration(self) -> Any:
        """`[N]` seconds from the first to the last."""

    @property
    def mean(self) -> Any:
        """`[N, 4]` mean state."""

    @property
    def first(self) -> Any:
        """`[N, 4]` mean first derivatives, per s."""

    @property
    def second(self) -> Any:
        """`[N, 4]` mean second derivatives, per s squared."""


def design_messages(shape: str, summary: WindowSummary) -> list[dict[str, str]]:
    """The design's prompt: a system and a user message in chat form.

    Args:
        shape: One of `SHAPES`.
        summary: The window's state count, duration in seconds, mean state, and mean first (per s)
            and second (per s squared) derivatives.

    Raises:
        InputError: Unknown shape, or summaries that are no finite numbers.
    """
    numbers = _numbers(summary, 1)
    content = _written([SHAPE_ID[_known(shape)]], numbers)[0]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def design_prompts(shape_ids: np.ndarray, summaries: WindowSummary) -> list[str]:
    """The user text of `design_messages` for many windows at once.

    Args:
        shape_ids: `[N]` ids into `SHAPES`.
        summaries: Counts and durations `[N]`, mean states and mean derivatives `[N, 4]`, as
            `windows.summaries` gives them.

    Raises:
        InputError: Unknown ids, other than one row per id, or summaries that are no finite numbers.
    """
    ids = np.asarray(shape_ids)
    known = (
        ids.ndim == 1 and (ids.dtype.kind in "iu" or not ids.size) and ((ids >= 0) & (ids < N_SHAPES)).all()
    )
    if not known:
        raise InputError(
            found=f"shape ids of shape {ids.shape} and type {ids.dtype}, or outside the vocabulary",
            expected=f"one dimension of ids from 0 to {N_SHAPES - 1}",
            next="pass ids into vocabulary.SHAPES",
        )
    return _written(ids.tolist(), _numbers(summaries, len(ids)))


def card_prompt(shape: str, summary: WindowSummary) -> str:
    """The published card's short prompt, as plain text; the answer is a space and the expression.

    The dominant dimension is the one with the highest mean; its trend is the mean slope times the duration,
    called stable below `TREND_THRESHOLD`.

    Raises:
        InputError: As `design_messages`.
    """
    numbers = _numbers(summary, 1)
    duration, mean, first = float(numbers[0, 1]), numbers[0, 2:6], numbers[0, 6:10]
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


def _written(shape_ids: list[int], numbers: np.ndarray) -> list[str]:
    return [
        _OPENINGS[shape] + _NUMBERS % tuple(row)
        for shape, row in zip(shape_ids, numbers.tolist(), strict=True)
    ]


def _numbers(summary: WindowSummary, n_windows: int) -> np.ndarray:
    """`[N, 14]` count, duration, means, and first and second derivatives, rounded as they are written."""
    columns = [
        np.asarray(value, np.float64)
        for value in (summary.n_states, summary.duration, summary.mean, summary.first, summary.second)
    ]
    if n_windows == 1:
        columns = [np.ravel(column)[None] for column in columns]
        columns[:2] = [column[0] for column in columns[:2]]
    shapes = [column.shape for column in columns]
    if shapes != [(n_windows,)] * 2 + [(n_windows, 4)] * 3:
        raise InputError(
            found=f"summaries of shapes {shapes}",
            expected=f"{n_windows} window(s): each with n_states and duration, four means, and two by four "
            "derivatives",
            next="pass the rows of windows.summaries that belong to these windows",
        )
    # Adding zero turns -0.0 into 0.0, so that nothing is written as -0.000.
    rounded = [np.round(column, digits) + 0.0 for column, digits in zip(columns[2:], (3, 4, 4), strict=True)]
    numbers = np.concatenate([columns[0][:, None], columns[1][:, None], *rounded], axis=1)
    if not np.isfinite(numbers).all():
        raise InputError(
            found="NaN or infinite summaries",
            expected="finite numbers",
            next="validate the window before it is put into a prompt",
        )
    return numbers


def _known(shape: str) -> str:
    if shape not in SHAPE_ID:
        raise InputError(
            found=f"shape {shape!r}", expected="one of " + " ".join(SHAPES), next="correct the shape's name"
        )
    return shape
