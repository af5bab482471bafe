"""Plain settings and measurements as rows of a two-column table."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from eisv_lumen.artifact import Manifest
from model_cards.measurements import Measurement

_LABELS = {
    "peak_rss_mb": "peak resident memory (MB)",
    "rss_mb": "resident memory (MB)",
    "share_of_teacher": "share of the teacher's coherence",
    "js_bits": "Jensen–Shannon divergence (bits)",
    "r": "rank",
    "lora": "LoRA",
}
_UNITS = {"_s": " (s)", "_ms": " (ms)", "_mb": " (MB)", "_bits": " (bits)"}
_HIDDEN = frozenset(
    {"sha256", "passed", "path", "folder", "per_shape", "table", "log", "history", "evaluation"}
)
_PATH_LIKE = re.compile(r"^(/|[A-Za-z]:\\|~)")


class Fact(NamedTuple):
    """One row: what, and how much."""

    name: str
    value: str


def facts(values: Mapping[str, Any], prefix: str = "") -> list[Fact]:
    """Rows of everything in a mapping that can be shown: numbers, texts, short lists, measurements.

    Nested mappings become rows of their own, with their key in front. What is None, hidden (hashes, long
    logs) or a path of the machine that built it is left out.
    """
    rows: list[Fact] = []
    for key, value in values.items():
        if key in _HIDDEN:
            continue
        name = f"{prefix}{label(key)}"
        measured = Measurement.of(value) if isinstance(value, Mapping) else None
        if measured is not None:
            rows.append(Fact(name, str(measured)))
        elif isinstance(value, Mapping):
            rows += facts(value, prefix=f"{name}: ")
        elif (text := shown(value)) is not None:
            rows.append(Fact(name, text))
    return rows


def source_line(source: str | Mapping[str, Any]) -> str:
    """One line on a log that a dataset was built from, as far as its entry in the metrics tells."""
    if isinstance(source, str):
        return source
    parts = [f"{source['states']:,} states"] if isinstance(source.get("states"), int) else []
    devices = source.get("devices") or {}
    steps = sorted({device["median_step_s"] for device in devices.values() if device.get("median_step_s")})
    if steps:
        parts.append("one every " + " or ".join(f"{step:g} s" for step in steps))
    # A device all of whose states another source holds has no time of its own.
    ends = [device.get(end) for device in devices.values() for end in ("t_start", "t_end")]
    days = sorted(_day(end) for end in ends if end is not None)
    if days:
        parts.append(f"{days[0]} to {days[-1]}" if days[0] != days[-1] else days[0])
    if source.get("mapped"):
        parts.append("channels " + ", ".join(f"`{name}`" for name in sorted(source["mapped"])))
    if source.get("observed"):
        parts.append(f"{source['observed']:,} recorded utterances")
    parts += [str(note) for note in source.get("notes") or ()]
    return (
        f"**{source.get('name', 'a log')}** ({source.get('kind', 'log')})"
        + (": " if parts else "")
        + "; ".join(parts)
    )


def origin(manifest: Manifest) -> list[str]:
    """Lines on how an artifact was made: seed, generation, inputs by hash, library versions."""
    lines = []
    if manifest.seed is not None:
        lines.append(f"Seed {manifest.seed}.")
    grown = f", grown from {manifest.parent}" if manifest.parent else ""
    lines.append(f"Generation {manifest.generation}{grown}.")
    for name, digest in manifest.inputs.items():
        lines.append(f"From {name} `{digest[:12]}` (sha256 of its manifest or file).")
    if manifest.libraries:
        lines.append("Libraries: " + ", ".join(f"{name} {v}" for name, v in manifest.libraries.items()) + ".")
    return lines


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def label(key: str) -> str:
    """A metrics key in words."""
    if key in _LABELS:
        return _LABELS[key]
    for suffix, unit in _UNITS.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix).replace("_", " ") + unit
    return key.replace("_", " ")


def shown(value: Any) -> str | None:
    """A value as text, None where it cannot be shown: nothing, a long list, a path of some machine."""
    if value is None or value == "" or isinstance(value, Mapping):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        parts = [shown(item) for item in value]
        return ", ".join(part for part in parts if part) or None if len(parts) <= 10 else None
    text = str(value)
    return None if not text.strip() or _PATH_LIKE.match(text) or len(text) > 200 else text
