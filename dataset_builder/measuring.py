"""What a dataset holds, as numbers: its metrics file."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_builder.reading import Content
from dataset_builder.spool import STEP_EDGES
from dataset_builder.survey import RESOLUTION, Survey
from dataset_builder.table import REAL, SYNTHETIC
from eisv_lumen.layouts import SPLITS
from eisv_lumen.vocabulary import SHAPES

_KEYS = ["provenance", "source", "scale", "shape", "shape_published"]


class Tally:
    """Counts the rows that are written."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._observed = 0

    def add(self, split: str, rows: pa.Table) -> None:
        """Rows of the `windows` configuration."""
        found = Counter(zip(*(rows[name].to_pylist() for name in _KEYS), strict=True))
        for key, count in found.items():
            self._counts[split, *key] += count
        self._observed += len(rows) - rows["observed_tokens"].null_count

    def count(self, split: str, provenance: str) -> int:
        """Rows of a split and provenance."""
        return sum(n for key, n in self._counts.items() if key[:2] == (split, provenance))

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows by split and provenance."""
        return {split: {kind: self.count(split, kind) for kind in (REAL, SYNTHETIC)} for split in SPLITS}

    def to_dict(self) -> dict[str, Any]:
        """The metrics that are counted from the rows themselves."""
        agree = sum(n for (*_, robust, published), n in self._counts.items() if robust == published)
        by_split = self._shapes(4, 0, 1)
        return {
            "counts": self.counts(),
            "shapes": self._by_source(4),
            "shapes_published": self._by_source(5),
            "shapes_by_split": {
                split: {kind: by_split.get((split, kind), {}) for kind in (REAL, SYNTHETIC)}
                for split in SPLITS
            },
            "labels_agree": round(agree / max(self._counts.total(), 1), 4),
        }

    @property
    def observed(self) -> int:
        """Rows with an observed expression."""
        return self._observed

    def _by_source(self, label: int) -> dict[str, dict[str, dict[str, int]]]:
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (source, scale), shapes in self._shapes(label, 2, 3).items():
            found.setdefault(source, {})[scale] = shapes
        return found

    def _shapes(self, label: int, *by: int) -> dict[tuple[str, ...], dict[str, int]]:
        """How often each shape, at place `label` of a key, occurs: by what is at other places of it."""
        found: dict[tuple[str, ...], Counter[str]] = {}
        for key, n in self._counts.items():
            found.setdefault(tuple(key[at] for at in by), Counter())[key[label]] += n
        return {
            group: {shape: counts[shape] for shape in SHAPES if counts[shape]}
            for group, counts in found.items()
        }


class Delta:
    """Hash of the real rows that a build adds, in the order written."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, names: Sequence[str], starts: np.ndarray, states: np.ndarray) -> None:
        """Names, beginnings `[N]` and float32 states `[N, T, 4]` of windows."""
        rows = zip(names, starts.tolist(), strict=True)
        self._hash.update("".join(f"{name} {start!r}\n" for name, start in rows).encode())
        self._hash.update(np.ascontiguousarray(states).data)

    def hexdigest(self) -> str:
        """sha256 hex."""
        return self._hash.hexdigest()


def measure(
    tally: Tally,
    contents: Sequence[Content],
    survey: Survey,
    *,
    beyond: int,
    feedback: dict[str, Any],
    growth: dict[str, Any] | None,
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    """The dataset's metrics as plain JSON.

    Args:
        tally: The rows.
        contents: What was read.
        survey: What was cut from it.
        beyond: Windows that the splits have no room for.
        feedback: What the labelling rules learned from.
        growth: What was added to the dataset that is grown, or None.
        earlier: The metrics of the dataset that is grown, or None.
    """
    earlier = earlier or {}
    dropped: Counter[str] = Counter(earlier.get("dropped", {}))
    for content in contents:
        dropped.update(content.report.dropped)
        dropped.update(content.report.values)
    dropped["window beyond the split's size"] += beyond
    by_source = _stability(earlier.get("label_stability_by_source", {}), survey.stood())
    return {
        **tally.to_dict(),
        "cut": _merged(earlier.get("cut", {}), survey.cut()),
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "sources": [*earlier.get("sources", []), *(_source(content) for content in contents)],
        "feedback": {**feedback, "n_observed": tally.observed},
        "label_stability": {**_pooled(by_source.values()), "noise": RESOLUTION},
        "label_stability_by_source": by_source,
        "cadence": _histograms(earlier.get("cadence", {}), contents, gaps=False),
        "gaps": _histograms(earlier.get("gaps", {}), contents, gaps=True),
        "growth": growth,
    }


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Nested counts added up."""
    result = dict(one)
    for key, value in other.items():
        before = result.get(key, 0 if isinstance(value, int) else {})
        result[key] = before + value if isinstance(value, int) else _merged(before, value)
    return result


def _source(content: Content) -> dict[str, Any]:
    return {
        "name": content.source.name,
        "kind": content.source.kind,
        "states": content.states,
        "devices": {
            device: {
                "states": len(series),
                "segments": len(series.segments) - 1,
                "median_step_s": None if series.step != series.step else round(series.step, 3),
                "t_start": round(series.span[0], 3) if len(series) else None,
                "t_end": round(series.span[1], 3) if len(series) else None,
            }
            for device, series in content.devices.items()
        },
        "observed": 0 if content.observed is None else len(content.observed),
        **content.report.to_dict(),
    }


def _stability(
    earlier: Mapping[str, Mapping[str, Any]], stood: Mapping[str, tuple[int, int, int]]
) -> dict[str, dict[str, Any]]:
    """By source, the share of labels that stood under noise: those tried before, and those tried now."""
    now = {
        source: {"robust": robust / n, "published": published / n, "n": n}
        for source, (robust, published, n) in stood.items()
        if n
    }
    return {
        source: _pooled([part[source] for part in (earlier, now) if source in part])
        for source in dict.fromkeys([*earlier, *now])
    }


def _pooled(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of all windows tried, from shares of some of them."""
    parts = [part for part in parts if part["n"]]
    n = sum(part["n"] for part in parts)
    shares = {
        rules: round(sum(part[rules] * part["n"] for part in parts) / n, 4) if n else None
        for rules in ("robust", "published")
    }
    return {**shares, "n": n}


def _histograms(
    earlier: Mapping[str, Any], contents: Sequence[Content], *, gaps: bool
) -> dict[str, dict[str, list[float]]]:
    """Forward steps by length, or only those that are gaps, for each source."""
    found = dict(earlier)
    for content in contents:
        name, series = content.source.name, content.devices.values()
        counts = np.sum([s.gaps() if gaps else s.steps for s in series], axis=0)
        if name in earlier:
            counts = counts + earlier[name]["counts"]
        found[name] = {"edges_s": [round(edge, 6) for edge in STEP_EDGES], "counts": counts.tolist()}
    return found
