"""What a benchmark reports, and how it is timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One figure beside the baseline measured in the same run.

    Attributes:
        name: What was measured.
        value: The figure, in `unit`.
        n: How many things the figure rests on.
        baseline: The baseline's figure in the same unit, or None where a thing stands alone.
        ratio: How many times better than the baseline, or None.
    """

    name: str
    value: float
    unit: str
    n: int
    baseline: float | None = None
    ratio: float | None = None


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of several runs: what the work costs without its neighbours."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def rate(name: str, n: int, unit: str, taken: float, baseline: float) -> Measurement:
    """Things per second, beside the baseline's; both given as the seconds that n things took."""
    return Measurement(name, n / taken, unit, n, n / baseline, baseline / taken)
