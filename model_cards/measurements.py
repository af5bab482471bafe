"""Measured numbers as they lie in metrics files, and as a card shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError

PROVENANCES = ("real", "synthetic")

METRIC_NAMES = {
    "coherence": "Coherence",
    "valid_rate": "Valid rate",
    "pattern_accuracy": "Pattern accuracy",
    "shape_accuracy": "Shape accuracy",
    "diversity": "Diversity (bits)",
    "bridge_fidelity": "Bridge fidelity",
    "temporal_consistency": "Temporal consistency",
    "calibration": "Calibration error",
    "ece": "Calibration error",
    "js_patterns": "JS divergence, patterns (bits)",
    "js_tokens": "JS divergence, tokens (bits)",
}
"""How a card names a metric of the evaluation table; those that are not here are not shown."""

METRIC_MEANINGS = {
    "coherence": "share of an expression's tokens that are affine to the window's shape",
    "valid_rate": "answers that parse, with every token and pattern in the vocabulary",
    "pattern_accuracy": "exact match of the pattern with the one expression the window was labelled with",
    "shape_accuracy": "predicted shape is the rule label of the complete window",
    "diversity": "Shannon entropy of the token distribution; 3.91 bits would be all tokens alike",
    "bridge_fidelity": "directly predicted Lumen words equal the translation of the predicted tokens",
    "temporal_consistency": "mean Jaccard overlap of the tokens of consecutive windows of the same shape",
    "calibration": "expected calibration error of the confidence, 15 bins",
    "ece": "expected calibration error of the confidence, 15 bins",
    "js_patterns": "Jensen–Shannon divergence to the reference distribution over patterns, mean over shapes",
    "js_tokens": "Jensen–Shannon divergence to the reference distribution over tokens, mean over shapes",
}

_HUB_METRIC_TYPES = {"shape_accuracy": "accuracy", "pattern_accuracy": "accuracy"}
_DECIMALS = 3


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Attributes:
        value: The number.
        low: Lower end of its 95 % interval, None where none was computed; `high` likewise.
        n: How many windows (or other units) it was measured on, None where not recorded.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @classmethod
    def of(cls, entry: Any) -> Self | None:
        """The measurement in a metrics entry (a number or `{value, low, high, n}`), None where there is none."""
        if isinstance(entry, bool) or entry is None:
            return None
        if isinstance(entry, int | float):
            return cls(float(entry))
        if not isinstance(entry, Mapping) or not isinstance(entry.get("value"), int | float):
            return None
        return cls(float(entry["value"]), entry.get("low"), entry.get("high"), entry.get("n"))

    def __str__(self) -> str:
        """`.951 [.943, .959]`-like text, without the interval where there is none."""
        text = f"{self.value:.{_DECIMALS}f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{self.low:.{_DECIMALS}f}, {self.high:.{_DECIMALS}f}]"


@dataclass(frozen=True)
class Table:
    """The evaluation table of one provenance: `rows[voice][metric]`."""

    provenance: str
    rows: dict[str, dict[str, Measurement]]

    @property
    def metrics(self) -> list[str]:
        """Metrics that any row has, in the order of `METRIC_NAMES`."""
        return [name for name in METRIC_NAMES if any(name in row for row in self.rows.values())]

    @property
    def n(self) -> str:
        """The numbers of windows it was measured on, as text."""
        found = sorted({m.n for row in self.rows.values() for m in row.values() if m.n is not None})
        if not found:
            return "not recorded"
        return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"


class Evaluation:
    """The tables of an evaluation folder."""

    def __init__(self, tables: list[Table]) -> None:
        self.tables = tables

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The tables in `metrics.json` of an evaluation folder.

        Raises:
            ArtifactError: The folder is no evaluation, or holds no measured row.
        """
        artifact.Manifest.read(folder, kind="evaluation")
        tables = required(artifact.read_metrics(folder), "table", folder)
        found = [
            Table(provenance, rows)
            for provenance in PROVENANCES
            if (rows := _rows(tables.get(provenance) or {}))
        ]
        if not found:
            raise ArtifactError(
                found=f"{folder}: a table without a measured row",
                expected="rows per voice under table.real or table.synthetic",
                next="run python -m training.evaluate again",
            )
        return cls(found)

    def row(self, voice: str) -> list[tuple[str, dict[str, Measurement]]]:
        """A voice's measurements per provenance."""
        return [(table.provenance, table.rows[voice]) for table in self.tables if voice in table.rows]

    def model_index(self, voice: str, *, model_name: str, task_type: str, dataset: str) -> list[dict[str, Any]]:
        """A voice's measurements as the Hub's `model-index`."""
        results = [
            EvalResult(
                task_type=task_type,
                task_name="Trajectory to expression",
                dataset_type=dataset,
                dataset_name="UNITARES EISV trajectories",
                dataset_config="windows",
                dataset_split="test",
                metric_type=_HUB_METRIC_TYPES.get(metric, metric),
                metric_name=f"{METRIC_NAMES[metric]}, {provenance} windows",
                metric_value=round(row[metric].value, 4),
                metric_args=_metric_args(provenance, row[metric]),
            )
            for provenance, row in self.row(voice)
            for metric in METRIC_NAMES
            if metric in row
        ]
        return eval_results_to_model_index(model_name, results) if results else []


def required(metrics: Mapping[str, Any], key: str, folder: Path) -> Any:
    """A key that a card cannot do without.

    Raises:
        ArtifactError: When the metrics file has no such key.
    """
    value: Any = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        raise ArtifactError(
            found=f"{folder}/{artifact.METRICS} without {key!r}",
            expected=f"{key!r}, measured by the stage that made the folder",
            next="build that folder again",
        )
    return value


def _rows(rows: Mapping[str, Any]) -> dict[str, dict[str, Measurement]]:
    read = {
        voice: {name: m for name in METRIC_NAMES if (m := Measurement.of(row.get(name))) is not None}
        for voice, row in rows.items()
        if isinstance(row, Mapping)
    }
    return {voice: row for voice, row in read.items() if row}


def _metric_args(provenance: str, measurement: Measurement) -> dict[str, Any]:
    interval = (
        {"low": round(measurement.low, 4), "high": round(measurement.high, 4)}
        if measurement.low is not None and measurement.high is not None
        else {}
    )
    return {"provenance": provenance, **({"n": measurement.n} if measurement.n else {}), **interval}
