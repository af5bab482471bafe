"""How much can be heard at all of windows that are short, lack states or a dimension, or have uneven clocks.

python -m benchmarks.limits [--dataset DIR] [--student DIR] [--out FILE]

Per condition a strong listener is trained for that condition alone, on windows like those of the test. Its
error stands beside those of the student and of the rules, and beside what the student is asked for, half the
rules'. It is an upper bound of the least possible error, not a proof that nobody hears more.

Synthetic windows are made afresh, as many as it takes. Of real ones there are few: a forest learns from all
that lie outside the block of time that it is asked about.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.listener import Effort, Source, heard, heard_by_others, trained
from eisv_lumen import synthetic
from eisv_lumen.artifact import Manifest, write_json
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.shapes import robust
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import DIMENSIONS, N_SHAPES
from eisv_lumen.windows import WINDOW_LENGTH, Windows, concatenate
from training.data import Split, read_splits
from training.student.augmentation import cut, drop, freeze, jitter_seconds
from training.student.evaluation import JITTER_SECONDS, MISSING, PREFIXES

Condition = Callable[[Windows, np.random.Generator], Windows]
"""What becomes of complete windows before they are heard."""


@dataclass(frozen=True)
class Limit:
    """Error rates on n held-out windows.

    Attributes:
        part: "synthetic": the dataset's test windows; "synthetic, fresh": many more of the kind; "real": the
            dataset's test windows; "real, all": those of every split.
        condition: Name of the condition.
        n: Windows.
        listener: Error of the strong listener.
        student: Error of the student, or None where it was trained on some of the windows.
        rules: Error of the rules.
        asked: Error that the student is asked for: of the first states, half the rules'; else its own on
            complete windows and half of what the condition costs the rules.
    """

    part: str
    condition: str
    n: int
    listener: float
    student: float | None
    rules: float
    asked: float | None


@dataclass(frozen=True)
class Held:
    """Complete windows that are asked about, with what the rules know besides, and their shapes `[N]`."""

    part: str
    windows: Windows
    shapes: np.ndarray

    def bare(self) -> Windows:
        """States and times alone, as everybody hears them."""
        return Windows(self.windows.states, self.windows.times, self.windows.mask)


def conditions() -> dict[str, Condition]:
    """The conditions of `training.student.evaluation` by name."""

    def first(length: int) -> Condition:
        return lambda windows, generator: cut(windows, 0, length)

    return {
        **{f"first {length}": first(length) for length in PREFIXES if length < WINDOW_LENGTH},
        "missing": lambda windows, generator: drop(windows, np.full(len(windows), MISSING), generator),
        "frozen": lambda windows, generator: freeze(windows, np.ones(len(windows), bool), generator),
        "jitter": lambda windows, generator: jitter_seconds(
            windows, np.full(len(windows), JITTER_SECONDS), generator
        ),
    }


def measure(
    student: TrajectoryModel, splits: dict[str, Split], effort: Effort, fresh: int, seed: int
) -> Iterator[Limit]:
    """Every condition, on synthetic windows and on real ones.

    Args:
        student: Who is compared.
        splits: Of the dataset that it was trained on.
        effort: How hard the listeners try.
        fresh: Synthetic windows that are asked about beside those of the test split.
        seed: Of all randomness.
    """
    made = synthetic_like(splits["test"])
    known = [held("synthetic", splits["test"], real=False)]
    known.append(Held("synthetic, fresh", *made(fresh, _drawn(seed, 0))))
    real, spans, tested = real_windows(splits)
    for number, (name, condition) in enumerate(conditions().items()):
        network = trained(_in_condition(made, condition), effort, _drawn(seed, number + 1))
        for group in known:
            rough = condition(group.bare(), _drawn(seed, 0))
            yield limit(group, name, rough, heard(network, rough), student)
        if not tested.any():
            continue
        rough = condition(real.bare(), _drawn(seed, 0))
        forest = heard_by_others(rough, real.shapes, spans, seed)
        group = Held("real", real.windows[tested], real.shapes[tested])
        yield limit(group, name, rough[tested], forest[tested], student)
        yield limit(real, name, rough, forest, None)


def limit(
    group: Held, name: str, rough: Windows, answer: np.ndarray, student: TrajectoryModel | None
) -> Limit:
    """The errors of everybody who hears `rough`, which a condition made of the windows of a group."""

    def error(shapes: np.ndarray) -> float:
        return float((shapes != group.shapes).mean())

    rules, whole = error(robust(rough)), group.bare()
    early = name.startswith("first")
    asked = rules / 2 if early else None
    if student is not None and not early:
        asked = error(student.infer_batch(whole).shapes) + (rules - error(robust(whole))) / 2
    return Limit(
        part=group.part,
        condition=name,
        n=len(whole),
        listener=error(answer),
        student=None if student is None else error(student.infer_batch(rough).shapes),
        rules=rules,
        asked=asked,
    )


def frozen_away(group: Held) -> dict[str, dict[str, float]]:
    """What is lost with each dimension, by counting, without any listener.

    Returns:
        Per dimension, `decides`: share of windows whose label is another when that dimension stands still;
        `guessed`: the least error of an answer that follows from the label of what is still shown, the most
        frequent shape for each; and `n`. `all`: the means.
    """
    found = {}
    for number, dimension in enumerate(DIMENSIONS):
        states = group.windows.states.copy()
        states[..., number] = states[:, :1, number]
        shown = robust(replace(group.windows, states=states))
        together = np.zeros((N_SHAPES, N_SHAPES))
        np.add.at(together, (shown, group.shapes), 1)
        found[dimension] = {
            "decides": float((shown != group.shapes).mean()),
            "guessed": float(1.0 - together.max(axis=1).sum() / together.sum()),
            "n": len(shown),
        }
    means = {name: float(np.mean([cell[name] for cell in found.values()])) for name in ("decides", "guessed")}
    return {**found, "all": {**means, "n": len(group.shapes)}}


def held(part: str, split: Split, *, real: bool) -> Held:
    """The complete real, or synthetic, windows of a split."""
    chosen = (split.real == real) & (split.windows.counts == WINDOW_LENGTH)
    return Held(part, _full(split.windows[chosen]), split.shapes[chosen])


def real_windows(splits: dict[str, Split]) -> tuple[Held, np.ndarray, np.ndarray]:
    """All complete real windows, the span of time `[N, 2]` of each, and which are of the test split `[N]`.

    Spans of different devices are moved apart: they have nothing to do with each other.
    """
    groups = [held("real, all", split, real=True) for split in splits.values()]
    rows = [split[split.real & (split.windows.counts == WINDOW_LENGTH)] for split in splits.values()]
    spans = np.concatenate([np.stack([split.t_start, split.t_end], axis=1) for split in rows])
    _, device = np.unique(np.concatenate([split.device for split in rows]), return_inverse=True)
    spans += device[:, None] * (spans.max(initial=0.0) + 1.0)
    tested = np.concatenate(
        [np.full(len(split), name == "test") for name, split in zip(splits, rows, strict=True)]
    )
    windows = concatenate([group.windows for group in groups])
    return Held("real, all", windows, np.concatenate([group.shapes for group in groups])), spans, tested


def synthetic_like(split: Split) -> Source:
    """Synthetic windows of all shapes alike, at the cadences of a split's."""
    cadences = np.unique(split.cadence[~split.real])

    def make(count: int, generator: np.random.Generator) -> tuple[Windows, np.ndarray]:
        shapes = generator.permutation(np.arange(count) % N_SHAPES)
        return synthetic.generate(shapes, generator, cadence=generator.choice(cadences, count)), shapes

    return make


def markdown(limits: list[Limit]) -> str:
    """One line per part and condition."""
    lines = [
        "| windows | n | condition | strong listener | student | rules | asked |",
        "| --- | ---: | --- |" + " ---: |" * 4,
    ]
    for found in sorted(limits, key=lambda found: found.part):
        student, asked = ("–" if value is None else f"{value:.3f}" for value in (found.student, found.asked))
        cells = [
            found.part,
            f"{found.n:,}",
            found.condition,
            f"{found.listener:.3f}",
            student,
            f"{found.rules:.3f}",
            asked,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "".join(line + "\n" for line in lines)


def main() -> None:
    """Measure every condition, print a table of errors, and write all figures as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("artifacts/demo/dataset"))
    parser.add_argument("--student", type=Path, default=Path("artifacts/demo/student"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/limits.json"))
    parser.add_argument("--windows", type=int, default=Effort.windows, help="that each network learns from")
    parser.add_argument("--passes", type=int, default=Effort.passes, help="how often it sees each")
    parser.add_argument("--fresh", type=int, default=9_000, help="synthetic windows to ask about besides")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    effort = Effort(options.windows, options.passes)
    identities = {
        kind: Manifest.read(getattr(options, kind), kind=kind).identity for kind in ("dataset", "student")
    }
    student, splits = TrajectoryModel.from_pretrained(options.student), read_splits(options.dataset)
    made = Held("synthetic, fresh", *synthetic_like(splits["test"])(options.fresh, _drawn(options.seed, 0)))
    limits = []
    for found in measure(student, splits, effort, options.fresh, options.seed):
        print(f"{found.part}, {found.condition}: {found.listener:.3f}", flush=True)
        limits.append(found)
    result: dict[str, Any] = {
        "inputs": identities,
        "seed": options.seed,
        "effort": asdict(effort),
        "limits": [asdict(found) for found in limits],
        "frozen": {"synthetic, fresh": frozen_away(made), "real, all": frozen_away(real_windows(splits)[0])},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    print(markdown(limits), end="")


def _in_condition(source: Source, condition: Condition) -> Source:
    def make(count: int, generator: np.random.Generator) -> tuple[Windows, np.ndarray]:
        windows, shapes = source(count, generator)
        return condition(Windows(windows.states, windows.times, windows.mask), generator), shapes

    return make


def _chosen(group: Held, rows: np.ndarray) -> Held:
    return Held(group.part, group.windows[rows], group.shapes[rows])


def _full(windows: Windows) -> Windows:
    packed = windows.packed()
    drift = packed.ethical_drift
    return Windows(
        packed.states[:, :WINDOW_LENGTH],
        packed.times[:, :WINDOW_LENGTH],
        packed.mask[:, :WINDOW_LENGTH],
        None if drift is None else drift[:, :WINDOW_LENGTH],
    )


def _drawn(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


if __name__ == "__main__":
    exit_with_reason(main)
