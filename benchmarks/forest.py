"""The forest student on one core, beside a walk through the same trees in plain Python.

python -m benchmarks.forest FOREST

Prints a JSON list. `on_one_core` starts a process of one thread, as `benchmarks.classification` does. The
published student is such a walk, over trees in JSON; this one does the whole job of the graph: it takes the
summaries, walks, and decodes the likeliest expression.
"""

import json
import os
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.classification import ONE_THREAD
from benchmarks.measurement import Measurement, rate, seconds
from eisv_lumen.errors import ArtifactError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import AFFINITY, EOS, N_SHAPES, N_TOKENS, PAD
from eisv_lumen.windows import Windows

N_HEARD = 2_000
N_BATCHED = 512
TURN = 50
"""Windows that one of the two hears before the other has its turn."""
N_FORMS = 6
Node = dict[str, Any]


def on_one_core(folder: Path) -> list[Measurement]:
    """All figures of a forest's folder, measured in a process of one thread."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.forest", str(folder)],
        env={**os.environ, **ONE_THREAD},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [Measurement(**figure) for figure in json.loads(found.stdout)]


def measure(folder: Path, n_heard: int = N_HEARD, n_batched: int = N_BATCHED) -> list[Measurement]:
    """Latency and throughput; graph and walk take turns, so that a busy machine slows both alike."""
    generator = np.random.default_rng(0)
    windows = generate(generator.integers(0, N_SHAPES, n_heard), generator, cadence=2.0)
    alone = [windows[index] for index in range(n_heard)]
    lists = [as_lists(window) for window in alone]
    model, plain = TrajectoryModel.from_pretrained(folder), PlainForest.read(folder / STUDENT.fp32)
    model.infer(alone[0])
    by_graph: list[float] = []
    by_walk: list[float] = []
    for start in range(0, n_heard, TURN):
        turn = range(start, min(start + TURN, n_heard))
        by_graph += [seconds(partial(model.infer, alone[index]), repeats=1) for index in turn]
        by_walk += [seconds(partial(plain.hear, *lists[index]), repeats=1) for index in turn]
    graph, walk = float(np.median(by_graph)), float(np.median(by_walk))
    batch = windows[np.arange(n_batched) % n_heard]
    batched = seconds(partial(model.infer_batch, batch))
    return [
        Measurement("forest, one window (median)", graph * 1e3, "ms", n_heard, walk * 1e3, walk / graph),
        rate("forest, batched", n_batched, "windows/s", batched, walk * n_batched),
    ]


@dataclass(frozen=True)
class PlainForest:
    """A forest as plain lists and dicts.

    Attributes:
        trees: Root nodes; a branch has `feature`, `threshold`, `low`, `high`, a leaf has `value`.
        tables: The graph's constants by name, as nested lists.
    """

    trees: list[Node]
    tables: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "PlainForest":
        """The trees and tables of an exported forest.

        Raises:
            ArtifactError: The graph holds no trees.
        """
        graph = onnx.load(path).graph
        ensembles = [node for node in graph.node if node.op_type == "TreeEnsembleRegressor"]
        if not ensembles:
            raise ArtifactError(
                found=f"{path} without trees",
                expected="the graph of a forest student",
                next="pass a folder that training.train_forest made",
            )
        tables = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
        return cls(_trees(ensembles[0]), tables)

    def hear(self, states: Sequence[Sequence[float]], times: Sequence[float]) -> tuple[int, list[int], float]:
        """Shape id, ids of the likeliest expression, and confidence, of one window."""
        factors = self._factors(array("f", plain_summaries(states, times)))
        floor, sharpness = self.tables["floor"], self.tables["sharpness"]
        shapes = _normalised([max(p, floor) ** sharpness for p in factors[:N_SHAPES]])
        ids = _likeliest(factors[N_SHAPES:])
        tokens = [i for i in ids if i < N_TOKENS]
        fitting = sum(p * row[token] for p, row in zip(shapes, _AFFINE, strict=True) for token in tokens)
        return shapes.index(max(shapes)), ids, fitting / len(tokens)

    def _factors(self, summary: Sequence[float]) -> list[float]:
        """What the trees say to 12 summaries: shapes, forms, and tokens by position."""
        places = [0.0] * len(self.tables["axes"])
        for node in self.trees:
            while "value" not in node:
                node = node["low"] if summary[node["feature"]] <= node["threshold"] else node["high"]
            for axis, value in enumerate(node["value"]):
                places[axis] += value
        said = list(self.tables["origin"])
        for place, row in zip(places, self.tables["axes"], strict=True):
            for index, value in enumerate(row):
                said[index] += place * value
        said = [max(value, self.tables["least"]) for value in said]
        edges = (0, N_SHAPES, N_SHAPES + N_FORMS, *(N_SHAPES + N_FORMS + N_TOKENS * k for k in (1, 2, 3)))
        return [value for low, high in pairwise(edges) for value in _normalised(said[low:high])]


_AFFINE = AFFINITY.tolist()


def plain_summaries(states: Sequence[Sequence[float]], times: Sequence[float]) -> list[float]:
    """The 12 summaries of a window: mean state, mean first and mean second derivatives."""
    numbers = [sum(column) / len(states) for column in zip(*states, strict=True)]
    first: list[list[float]] = []
    second: list[list[float]] = []
    for (before, began), (after, ended) in pairwise(zip(states, times, strict=True)):
        step = ended - began
        if step <= 0:
            continue
        slope = [(b - a) / step for a, b in zip(before, after, strict=True)]
        if first:
            second.append([(b - a) / step for a, b in zip(first[-1], slope, strict=True)])
        first.append(slope)
    for rows in (first, second):
        numbers += [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else [0.0] * 4
    return numbers


def as_lists(window: Windows) -> tuple[list[list[float]], list[float]]:
    """States and times of one window, as single precision has them, which is what the graph is given."""
    given = window.seconds_before_last()[0].astype(np.float32).astype(float)
    present = window.mask[0]
    states = window.states[0].astype(np.float32).astype(float)
    return states[present].tolist(), (-given[present]).tolist()


def _likeliest(said: list[float]) -> list[int]:
    """Ids chosen step by step, from the six forms and then the tokens of three positions."""
    single, pair, triple, twice, thrice, question = said[:N_FORMS]
    first, second, third = (said[N_FORMS + N_TOKENS * k :][:N_TOKENS] for k in range(3))
    one = first.index(max(first))
    two = [*_spread(second, {one}, pair + triple), question, single]
    two[one] = twice + thrice
    next_one = two.index(max(two))
    if next_one >= N_TOKENS:
        return [one, next_one, PAD]
    if next_one == one:
        return [one, one, one if thrice > twice else EOS]
    three = [*_spread(third, {one, next_one}, triple), 0.0, pair]
    return [one, next_one, three.index(max(three))]


def _spread(weights: list[float], left_out: set[int], share: float) -> list[float]:
    kept = [0.0 if index in left_out else weight for index, weight in enumerate(weights)]
    return [share * weight for weight in _normalised(kept)]


def _normalised(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


def _trees(ensemble: onnx.NodeProto) -> list[Node]:
    """Root nodes of the trees of a TreeEnsembleRegressor."""
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in ensemble.attribute}
    keys = list(zip(found["nodes_treeids"], found["nodes_nodeids"], strict=True))
    nodes: dict[tuple[int, int], Node] = {key: {} for key in keys}
    for number, key in enumerate(keys):
        if found["nodes_modes"][number] == b"LEAF":
            nodes[key]["value"] = [0.0] * found["n_targets"]
            continue
        nodes[key] |= {
            "feature": found["nodes_featureids"][number],
            "threshold": found["nodes_values"][number],
            "low": nodes[key[0], found["nodes_truenodeids"][number]],
            "high": nodes[key[0], found["nodes_falsenodeids"][number]],
        }
    for tree, node, target, weight in zip(
        *(found[f"target_{name}"] for name in ("treeids", "nodeids", "ids", "weights")), strict=True
    ):
        nodes[tree, node]["value"][target] = weight
    return [nodes[tree, 0] for tree in sorted(set(found["nodes_treeids"]))]


def main() -> None:
    """Measure and print the figures."""
    print(json.dumps([asdict(figure) for figure in measure(Path(sys.argv[1]))]))


if __name__ == "__main__":
    main()
