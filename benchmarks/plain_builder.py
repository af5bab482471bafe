"""The baseline: windows as lists of dicts, derivatives and rules in plain loops.

This is how such a dataset is built without arrays; `benchmarks.run` measures the kit against it.
"""

import itertools

State = dict[str, float]
DIMENSIONS = ("E", "I", "S", "V")


def derivatives(states: list[State]) -> list[State]:
    """Change per second between consecutive states; pairs at the same time are skipped."""
    rates = []
    for before, after in itertools.pairwise(states):
        seconds = after["t"] - before["t"]
        if seconds == 0:
            continue
        rate = {"t": after["t"]}
        for name in DIMENSIONS:
            rate[name] = (after[name] - before[name]) / seconds
        rates.append(rate)
    return rates


def classify(states: list[State]) -> str:
    """The published rules on one window, first match wins."""
    first = derivatives(states)
    second = derivatives(first)
    energy = [state["E"] for state in states]
    entropy = [state["S"] for state in states]
    mean = {name: sum(rate[name] for rate in first) / len(first) if first else 0.0 for name in DIMENSIONS}
    if max(energy) - min(energy) >= 0.2 and mean["E"] < 0 and energy[0] > energy[-1]:
        return "basin_transition_down"
    if max(energy) - min(energy) >= 0.2 and mean["E"] > 0 and energy[-1] > energy[0]:
        return "basin_transition_up"
    if max(entropy) - min(entropy) >= 0.2 and 0 < entropy.index(max(entropy)) < len(entropy) - 1:
        return "entropy_spike_recovery"
    if max(state.get("ethical_drift", 0.0) for state in states) > 0.3:
        return "drift_dissonance"
    if mean["V"] > 0.05:
        return "void_rising"
    if mean["S"] > 0.05:
        return "rising_entropy"
    if mean["E"] < -0.05:
        return "falling_energy"
    rates = [abs(rate[name]) for rate in first for name in DIMENSIONS]
    bends = [abs(rate[name]) for rate in second for name in DIMENSIONS]
    if max(rates, default=0) < 0.05 and max(bends, default=0) < 0.05 and max(rates, default=0) > 1e-9:
        return "convergence"
    return "settled_presence"


def labelled(states: list[State], length: int = 20, stride: int = 10) -> list[str]:
    """The published label of every window of a log."""
    starts = range(0, len(states) - length + 1, stride)
    return [classify(states[start : start + length]) for start in starts]
