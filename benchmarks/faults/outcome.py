"""What many trials came to: counted, with every loss and what is needed to play it again."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.proxy import Applied

UNDER_KILL = "under-kill"
"""The section whose trials are the lives of one device process, see `siege`."""


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        outcome: What it came to, in one or two words.
        losses: What must never be and was; nothing when all is well.
        kinds: Kinds of the faults that happened, or the way in which it was killed.
    """

    outcome: str
    losses: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass
class Tally:
    """Counts over trials.

    Attributes:
        name: What was tried.
        seed: A trial draws from seed, name and its number alone.
    """

    name: str
    seed: int
    trials: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    trials_with: Counter[str] = field(default_factory=Counter)
    lost_with: Counter[str] = field(default_factory=Counter)
    losses: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, trial: Trial) -> None:
        """Count a trial."""
        self.outcomes[trial.outcome] += 1
        self.faults.update(trial.kinds)
        self.trials_with.update(set(trial.kinds))
        if trial.losses:
            self.lost_with.update(set(trial.kinds))
            self.losses.append(
                {"trial": number, "outcome": trial.outcome, "losses": trial.losses, "kinds": trial.kinds}
            )
        self.trials += 1

    def to_dict(self, seconds: float) -> dict[str, Any]:
        """As JSON, with the time they took."""
        kinds = {
            kind: {
                "faults": self.faults[kind],
                "trials": self.trials_with[kind],
                "losses": self.lost_with[kind],
            }
            for kind in sorted(self.faults)
        }
        return {
            "seed": self.seed,
            "trials": self.trials,
            "losses": len(self.losses),
            "seconds": round(seconds, 1),
            "outcomes": dict(sorted(self.outcomes.items())),
            "by_kind": kinds,
            "lost": sorted(self.losses, key=lambda loss: loss["trial"]),
        }


def kinds_of(applied: Iterable[Applied]) -> tuple[str, ...]:
    """Kinds of faults that happened, those after the Hub had acted apart."""
    return tuple(f"{fault.kind} late" if fault.late else fault.kind for fault in applied)
