"""Where a visitor's window comes from: recorded, synthetic, or shaped by hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import SHAPE_ID, STATE_MAX
from eisv_lumen.windows import WINDOW_LENGTH, Windows


@dataclass(frozen=True)
class Example:
    """A window of the dataset's test split that is shipped with the Space.

    Attributes:
        title: What a visitor picks it by.
        window: The window.
        about: Where it comes from, in a sentence.
    """

    title: str
    window: Windows
    about: str

    @classmethod
    def of(cls, number: int, row: dict[str, Any]) -> "Example":
        """The example in one row of `examples.json`."""
        shape = row["shape"].replace("_", " ")
        return cls(
            title=f"{number:02d} · {shape} · {row['provenance']} · every {row['cadence_s']:g} s",
            window=Windows.of(row["states"], row["times"], ethical_drift=row.get("ethical_drift")),
            about=(
                f"{row['provenance'].capitalize()} window of the test split of “{row['source']}”, one state "
                f"every {row['cadence_s']:g} s. The rules' label of the complete window is {shape}."
            ),
        )


def read_examples(path: Path) -> dict[str, Example]:
    """The shipped examples by title; none where the Space was built without a dataset."""
    if not path.is_file():
        return {}
    examples = [Example.of(i + 1, row) for i, row in enumerate(json.loads(path.read_text("utf-8")))]
    return {example.title: example for example in examples}


def synthetic(shape: str, cadence: float, noisy: bool, seed: int) -> Windows:
    """A generated window of a shape."""
    return generate(
        np.array([SHAPE_ID[shape]]),
        np.random.default_rng(seed),
        cadence=cadence,
        noise="realistic" if noisy else "none",
    )


def by_hand(
    start: Sequence[float], end: Sequence[float], *, spike: float, noise: float, cadence: float, seed: int
) -> Windows:
    """A window that goes from one state to another.

    Args:
        start: E, I, S, V at the first state.
        end: The same at the last.
        spike: Height of a passing rise of S in the middle.
        noise: Standard deviation of the noise on E, I, S; V gets 0.3 of it, like its range.
        cadence: Seconds between states.
        seed: Seed of the noise.
    """
    course = 1 / (1 + np.exp(-8 * (np.linspace(0, 1, WINDOW_LENGTH) - 0.5)))
    course = ((course - course[0]) / (course[-1] - course[0]))[:, None]
    states = np.array(start) + (np.array(end) - np.array(start)) * course
    states[:, 2] += spike * np.exp(-(((np.linspace(0, 1, WINDOW_LENGTH) - 0.5) / 0.14) ** 2))
    states += np.random.default_rng(seed).normal(size=states.shape) * noise * STATE_MAX
    return Windows.of(np.clip(states, 0.0, STATE_MAX), np.arange(WINDOW_LENGTH) * cadence)


def first_states(window: Windows, count: int) -> Windows:
    """The first `count` states of a window."""
    drift = None if window.ethical_drift is None else window.ethical_drift[:, :count]
    return Windows(window.states[:, :count], window.times[:, :count], window.mask[:, :count], drift)
