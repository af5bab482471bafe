"""Tables of what a dataset holds, left out and gained, from its metrics."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from eisv_lumen.layouts import SPLITS
from eisv_lumen.vocabulary import SHAPES
from model_cards.grids import Grid
from model_cards.measurements import PROVENANCES

_LEFT_OUT, _MISSING = "left out", "value taken as missing"


def share_grid(cut: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Grid:
    """Share of each shape per source and time scale, with the number of windows.

    Args:
        cut: Windows by source, scale and shape.
    """
    rows = []
    for source, scales in cut.items():
        for scale, counts in scales.items():
            n = sum(counts.values())
            rows.append((source, scale, f"{n:,}", *(_percent(counts.get(shape, 0), n) for shape in SHAPES)))
    return Grid(("source", "scale", "windows", *SHAPES), tuple(rows))


def dropped_grid(metrics: Mapping[str, Any]) -> Grid:
    """What was left out by reason, most frequent first, and in which source it was met."""
    sources = [source for source in metrics.get("sources") or () if isinstance(source, Mapping)]
    rows = []
    for reason, count in sorted((metrics.get("dropped") or {}).items(), key=lambda item: (-item[1], item[0])):
        met: Counter[str] = Counter()  # a dataset that grew may name a source more than once
        for source in sources:
            for kind in ("dropped", "values"):
                met[source.get("name", "a log")] += (source.get(kind) or {}).get(reason, 0)
        as_value = any(reason in (source.get("values") or {}) for source in sources)
        where = ", ".join(f"{name} {n:,}" for name, n in met.items() if n) or "–"
        rows.append((reason, _MISSING if as_value else _LEFT_OUT, where, f"{count:,}"))
    return Grid(("reason", "what became of it", "met in", "count"), tuple(rows))


def stability_grid(by_source: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Share of each source's real windows whose label stands under noise, by rule set."""
    rows = [
        (source, f"{found['n']:,}", f"{100 * found['robust']:.2f} %", f"{100 * found['published']:.2f} %")
        for source, found in by_source.items()
        if found.get("n")
    ]
    return Grid(("source", "windows", "`shape`", "`shape_published`"), tuple(rows))


def growth_grid(growth: Mapping[str, Any]) -> Grid:
    """Windows kept from the dataset before and windows added, by split."""
    parts = {part: growth.get(part) or {} for part in ("kept", "added")}
    rows = [
        (
            split,
            *(f"{parts[part].get(split, {}).get(kind, 0):,}" for part in parts for kind in PROVENANCES),
        )
        for split in SPLITS
        if any(split in part for part in parts.values())
    ]
    return Grid(("split", *(f"{kind}, {part}" for part in parts for kind in PROVENANCES)), tuple(rows))


def _percent(count: int, n: int) -> str:
    """A share that never rounds something to nothing."""
    if not count or not n:
        return "0"
    share = 100 * count / n
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"
