"""Measurements that take more than two columns: gates, parity, early hearing, recall, latency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eisv_lumen.vocabulary import SHAPES
from model_cards.facts import Fact, label, shown
from model_cards.measurements import PROVENANCES

_ROUGH = {
    "missing": "a fifth of the states missing",
    "frozen": "one dimension frozen",
    "jitter": "times moved by up to 0.5 s",
}
_GRAPHS = {"fp32": "FP32", "int8": "INT8"}


@dataclass(frozen=True)
class Grid:
    """A table as text.

    Attributes:
        heading: One per column.
        rows: Cells, as many per row; empty rows mean that nothing was measured.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def gate_grid(gate: Mapping[str, Any]) -> Grid:
    """What a gate asked for, and what was measured."""
    rows = [
        (label(name), shown(gate.get(name)) or "–", shown(needed) or "–")
        for name, needed in (gate.get("needed") or {}).items()
    ]
    return Grid(("", "measured", "needed"), tuple(rows))


def gate_notes(gate: Mapping[str, Any]) -> list[Fact]:
    """What else a gate recorded: numbers without a threshold, where they come from, n and split."""
    return [
        Fact(label(name), text)
        for name, value in gate.items()
        if name not in ("passed", "needed", *(gate.get("needed") or {})) and (text := shown(value))
    ]


def parity_grid(parity: Mapping[str, Any], reference: str) -> Grid:
    """The exported graphs against what they were made from, with the tolerance of each where there is one."""
    graphs = {name: parity[key] for key, name in _GRAPHS.items() if isinstance(parity.get(key), Mapping)}
    metrics = dict.fromkeys(
        name for graph in graphs.values() for name, value in graph.items() if isinstance(value, float | int)
    )
    rows = [
        (label(metric), *(_with_tolerance(graph, metric) for graph in graphs.values()))
        for metric in metrics
        if metric != "passed"
    ]
    return Grid((f"compared with {reference}", *graphs), tuple(rows) if graphs else ())


def early_grid(evaluation: Mapping[str, Any]) -> Grid:
    """Shape accuracy of student and rules on the first states of the windows, per provenance."""
    rows = [
        (provenance, f"first {states}", *(_number(found, column) for column in ("student", "rules", "n")))
        for provenance in PROVENANCES
        for states, found in (_part(evaluation, provenance).get("early") or {}).items()
    ]
    return Grid(("windows", "states heard", "student", "rules", "n"), tuple(rows))


def rough_grid(evaluation: Mapping[str, Any]) -> Grid:
    """Shape accuracy of student and rules on degraded windows, and what each lost, per provenance."""
    columns = ("student", "rules", "student_drop", "rules_drop", "n")
    rows = [
        (provenance, _ROUGH.get(name, name), *(_number(found, column) for column in columns))
        for provenance in PROVENANCES
        for name, found in (_part(evaluation, provenance).get("rough") or {}).items()
    ]
    return Grid(("windows", "condition", *(label(column) for column in columns)), tuple(rows))


def recall_grid(evaluation: Mapping[str, Any]) -> Grid:
    """Share of the windows of each shape that the student hears as that shape."""
    parts = [p for p in PROVENANCES if _part(evaluation, p).get("recall")]
    rows = [
        (shape, *(_recall(_part(evaluation, part)["recall"].get(shape)) for part in parts))
        for shape in SHAPES
    ]
    return Grid(("shape", *(f"{part} windows" for part in parts)), tuple(rows) if parts else ())


def cost_grid(metrics: Mapping[str, Any]) -> Grid:
    """Size and speed of the two graphs."""
    rows = []
    for key, name in _GRAPHS.items():
        size = (metrics.get("sizes") or {}).get(key)
        latency = (metrics.get("latency") or {}).get(key) or {}
        if size or latency:
            rows.append(
                (
                    name,
                    f"{size / 1e6:.2f} MB" if size else "–",
                    f"{latency['p50_ms']:.2f} ms" if "p50_ms" in latency else "–",
                    f"{latency['p99_ms']:.2f} ms" if "p99_ms" in latency else "–",
                )
            )
    return Grid(("graph", "file", "p50 per expression", "p99"), tuple(rows))


def _part(evaluation: Mapping[str, Any], provenance: str) -> Mapping[str, Any]:
    part = evaluation.get(provenance)
    return part if isinstance(part, Mapping) else {}


def _number(found: Mapping[str, Any], column: str) -> str:
    value = found.get(column)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _with_tolerance(graph: Mapping[str, Any], metric: str) -> str:
    value, tolerance = shown(graph.get(metric)), (graph.get("tolerances") or {}).get(metric)
    if value is None:
        return "–"
    return value if tolerance is None else f"{value} (tolerance {tolerance:g})"


def _recall(cell: Any) -> str:
    if not isinstance(cell, Mapping) or cell.get("value") is None:
        return "–"
    return f"{cell['value']:.3f} (n = {cell.get('n', 0):,})"
