"""Gates: what a trained artifact must reach before it may be published."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eisv_lumen import artifact
from training.configuration import require

FAILED = 1
"""Exit code of a stage whose artifact stands but failed its gate."""


@dataclass(frozen=True)
class TeacherGate:
    """Gate 1, on held-out windows (DOMAIN.md section 4).

    Attributes:
        coherence: To be exceeded by the expected coherence of what the teacher says through the grammar at
            temperature 1, by its exact distribution: no luck of the draw decides.
        valid_rate: To be reached by the share of answers that parse when nothing constrains them.
    """

    coherence: float = 0.933
    valid_rate: float = 0.90

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name, value in vars(self).items():
            require(0 <= value <= 1, name, value, "a share from 0 to 1")


def teacher_gate(measured: Mapping[str, Any], gate: TeacherGate) -> dict[str, Any]:
    """Gate 1 of a teacher measured by `evaluation.measure_teacher`."""
    cells = measured["overall"]["sampled"]
    coherence, valid = cells["expected_coherence"], cells["valid_rate"]
    return {
        "passed": bool(coherence["value"] > gate.coherence and valid["value"] >= gate.valid_rate),
        "coherence": coherence["value"],
        "valid_rate": valid["value"],
        "coherence_unconstrained": cells["coherence"]["value"],
        "n": coherence["n"],
        "needed": {"coherence": gate.coherence, "valid_rate": gate.valid_rate},
        "split": "test",
    }


def report(name: str, gate: str, folder: Path) -> int:
    """Say whether an artifact passed its gate; returns the exit code of its stage."""
    found = artifact.read_metrics(folder)[gate]
    measured = ", ".join(
        f"{key.replace('_', ' ')} {found[key]:.3f} (needed {needed})"
        for key, needed in found["needed"].items()
    )
    if found["passed"]:
        print(f"{name}: passed {gate.replace('_', ' ')}: {measured}, n = {found['n']}")
        return 0
    print(
        f"{name}: FAILED {gate.replace('_', ' ')}: {measured}, n = {found['n']}\n"
        f"{folder} is kept to be looked at, and cannot be published.\n"
        "next: train longer or on more windows, then run the same command again",
        file=sys.stderr,
    )
    return FAILED
