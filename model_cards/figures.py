"""The figures of a dataset folder as its card shows them, each with a text for those who cannot see it."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eisv_lumen import artifact

_UNSAFE = str.maketrans({"[": "(", "]": ")", "\\": "/", "\n": " ", "`": "'", "<": "‹", ">": "›"})


def dataset_figures(folder: Path, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Markdown of every figure by its name; empty where the folder has no such figure."""
    place = Path(folder) / artifact.FIGURES
    return {
        name: f"![{describe(metrics).translate(_UNSAFE)}](figures/{name}.png)"
        if (place / f"{name}.png").is_file()
        else ""
        for name, describe in ALT_TEXTS.items()
    }


def _shapes(metrics: Mapping[str, Any]) -> str:
    real: Counter[str] = Counter()
    for provenances in (metrics.get("shapes_by_split") or {}).values():
        real.update(provenances.get("real") or {})
    text = "Stacked bars: share of each shape by split and by source, real and synthetic windows apart."
    if real.total():
        shape, count = real.most_common(1)[0]
        text += f" The most frequent real shape is {shape} with {100 * count / real.total():.0f} %."
    return text + " The counts are in the tables below."


def _windows(_: Mapping[str, Any]) -> str:
    return (
        "Small plots, one row for each of the nine shapes: how E, I, S and V change over the time of up to "
        "four windows. Real windows come first, synthetic ones are tinted; each panel names its cadence."
    )


def _scales(metrics: Mapping[str, Any]) -> str:
    cut = metrics.get("cut") or {}
    scales = dict.fromkeys(scale for by_scale in cut.values() for scale in by_scale)
    return (
        f"Stacked bars: share of each shape among the real windows of {_sources(cut)}, at the time scales "
        f"{', '.join(scales)}. The shares are in the table below."
    )


def _cadence(metrics: Mapping[str, Any]) -> str:
    sources = metrics.get("cadence") or metrics.get("gaps") or {}
    gaps = sum(sum(found["counts"]) for found in (metrics.get("gaps") or {}).values())
    counted = f" Gaps in all: {gaps:,}." if metrics.get("gaps") else ""
    return (
        f"Histograms with logarithmic axes: the time between readings of {_sources(sources)}, and the gaps "
        f"longer than ten median steps.{counted}"
    )


def _dropped(metrics: Mapping[str, Any]) -> str:
    dropped = Counter(metrics.get("dropped") or {})
    text = "Horizontal bars: how many rows, single values and windows were left out, by reason."
    if dropped:
        reason, count = dropped.most_common(1)[0]
        text += f" Most frequent: {reason}, {count:,}."
    return text + " The counts are in the table below."


def _stability(metrics: Mapping[str, Any]) -> str:
    found = [entry for entry in (metrics.get("label_stability_by_source") or {}).values() if entry.get("n")]
    text = "Dots: share of the real windows whose label stands under noise, by source, for both rule sets."
    if found:
        lowest = min(entry["robust"] for entry in found)
        text += f" The lowest share of the default label is {100 * lowest:.1f} %."
    return text + " The shares are in the table below."


def _sources(sources: Mapping[str, Any]) -> str:
    return "one source" if len(sources) == 1 else f"{len(sources)} sources"


ALT_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "shapes": _shapes,
    "windows": _windows,
    "cadence": _cadence,
    "dropped": _dropped,
    "scales": _scales,
    "stability": _stability,
}
"""What each figure that `dataset_builder.report` draws shows, in words."""
