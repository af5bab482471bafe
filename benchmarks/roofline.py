"""The least time a graph can take on this core: its operations and bytes, counted, over measured peaks.

The operations are those of matrix products, with the shapes that onnxruntime met in a real run; the bytes are
the graph's own and those that its nodes write. What is measured beside it and lies above is the cost of many
small nodes, not of arithmetic.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.measurement import seconds

_SIDE = 768
"""Side of the square matrices whose product shows the core's peak."""
_COPIED = 64 << 20
"""Bytes copied to show the memory's peak: more than the caches hold."""


@dataclass(frozen=True)
class Peaks:
    """What one core can do: float32 operations and bytes read or written, each per second."""

    operations: float
    traffic: float

    @classmethod
    def measured(cls) -> "Peaks":
        """By numpy in this process; start it with one thread."""
        generator = np.random.default_rng(0)
        left, right = generator.random((2, _SIDE, _SIDE), np.float32)
        source = np.ones(_COPIED // 8)
        target = np.empty_like(source)
        return cls(
            2 * _SIDE**3 / seconds(lambda: left @ right, repeats=10),
            2 * _COPIED / seconds(lambda: np.copyto(target, source), repeats=10),
        )


@dataclass(frozen=True)
class Work:
    """What one run of a graph does.

    Attributes:
        operations: Multiplications and additions of its matrix products.
        traffic: Bytes of the graph, and written by its nodes and read again.
        nodes: Nodes that ran.
    """

    operations: int
    traffic: int
    nodes: int

    @classmethod
    def of(cls, graph: Path, inputs: Mapping[str, np.ndarray]) -> "Work":
        """Counted from onnxruntime's own profile of one run."""
        nodes = _profile(graph, inputs)
        return cls(
            operations=sum(_operations(node) for node in nodes),
            traffic=graph.stat().st_size + 2 * sum(int(node["output_size"]) for node in nodes),
            nodes=len(nodes),
        )

    def seconds(self, peaks: Peaks) -> float:
        """The roofline: no run on such a core is faster."""
        return max(self.operations / peaks.operations, self.traffic / peaks.traffic)


def _profile(graph: Path, inputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    import onnxruntime

    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return [e["args"] for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]


def _operations(node: Mapping[str, Any]) -> int:
    if not any(product in node["op_name"] for product in ("MatMul", "Gemm")):
        return 0
    (left,), (out,) = node["input_type_shape"][0].values(), node["output_type_shape"][0].values()
    return 2 * int(np.prod(out)) * int(left[-1])
