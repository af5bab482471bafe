"""Plain settings and measurements as rows of a two-column table."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from eisv_lumen.artifact import Manifest
from model_cards.measurements import Measurement

_LABELS = {
    "valid_rate": "valid rate",
    "n": "windows measured",
    "n_updates": "updates",
    "rss_mb": "resident memory (MB)",
    "js_tokens": "JS divergence, tokens (bits)",
    "js_patterns": "JS divergence, patterns (bits)",
    "lr": "learning rate",
    "r": "LoRA rank",
    "alpha": "LoRA alpha",
    "ece": "calibration error",
    "fp32": "FP32",
    "int8": "INT8",
    "seconds": "seconds",
}
_HIDDEN = frozenset({"sha256", "passed", "path", "folder", "per_shape", "table", "log", "history"})
_PATH_LIKE = re.compile(r"^(/|[A-Za-z]:\\|~)")


class Fact(NamedTuple):
    """One row: what, and how much."""

    name: str
    value: str

    @classmethod
    def text(cls, key: str, value: Any) -> str:
        """`name value` in one piece, empty where the value cannot be shown."""
        shown = _shown(value)
        return "" if shown is None else f"{_label(key)} {shown}"


def facts(values: Mapping[str, Any], prefix: str = "") -> list[Fact]:
    """Rows of everything in a mapping that can be shown: numbers, texts, short lists, measurements.

    Nested mappings become rows of their own, with their key in front. What is None, hidden (hashes, long
    logs) or a path of the machine that built it is left out.
    """
    rows: list[Fact] = []
    for key, value in values.items():
        if key in _HIDDEN:
            continue
        name = f"{prefix}{_label(key)}"
        measured = Measurement.of(value) if isinstance(value, Mapping) else None
        if measured is not None:
            rows.append(Fact(name, str(measured)))
        elif isinstance(value, Mapping):
            rows += facts(value, prefix=f"{name}: ")
        elif (shown := _shown(value)) is not None:
            rows.append(Fact(name, shown))
    return rows


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


def _label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " "))


def _shown(value: Any) -> str | None:
    if value is None or value == "" or isinstance(value, Mapping):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        parts = [_shown(item) for item in value]
        return ", ".join(part for part in parts if part) or None if len(parts) <= 10 else None
    text = str(value)
    return None if not text.strip() or _PATH_LIKE.match(text) or len(text) > 200 else text
