"""Measured numbers as they lie in metrics files, and as a card shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError
from eisv_lumen.metrics import COLUMNS, table_markdown

PROVENANCES = ("real", "synthetic")

METRIC_MEANINGS = {
    "coherence": "share of an expression's tokens that are affine to the window's true shape",
    "valid_rate": "answers that parse, with every token and pattern in the vocabulary",
    "pattern_accuracy": "exact match of the pattern with the one expression the window was labelled with",
    "shape_accuracy": "the shape heard is the rules' label of the complete window; “given”: it was told",
    "diversity": "Shannon entropy of the tokens said; 3.91 bits would be all fifteen alike",
    "bridge_fidelity": "Lumen words said directly equal the translation of the tokens said",
    "temporal_consistency": "mean Jaccard overlap of the tokens of consecutive windows of the same shape",
    "calibration": "expected calibration error of the confidence, 15 bins",
    "pattern_divergence": "Jensen–Shannon divergence to the reference's patterns, mean over shapes",
    "token_divergence": "Jensen–Shannon divergence to the reference's tokens, mean over shapes",
}
"""What each column of the evaluation table says, in words."""

_HUB_METRIC_TYPES = {"shape_accuracy": "accuracy", "pattern_accuracy": "accuracy"}
_DIGITS = 4


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
        """The measurement in a cell `{value, low, high, n}`, None where nothing was measured."""
        if not isinstance(entry, Mapping) or isinstance(entry.get("value"), bool):
            return None
        if not isinstance(entry.get("value"), int | float):
            return None
        return cls(float(entry["value"]), entry.get("low"), entry.get("high"), entry.get("n"))

    def __str__(self) -> str:
        """Value, interval and n as text, as far as they are known."""
        text = f"{self.value:.3f}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:.3f}, {self.high:.3f}]"
        return text + (f", n = {self.n:,}" if self.n else "")


class Evaluation:
    """The tables of an evaluation folder.

    Attributes:
        tables: Per provenance and voice, the cells of the table's columns; answers were drawn.
        likeliest: The same for the likeliest answers, of some voices.
    """

    def __init__(
        self,
        tables: Mapping[str, Mapping[str, Mapping[str, Any]]],
        likeliest: Mapping[str, Any] | None = None,
    ) -> None:
        self.tables, self.likeliest = tables, likeliest or {}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The tables in `metrics.json` of an evaluation folder.

        Raises:
            ArtifactError: The folder is no evaluation, or holds no measured row.
        """
        artifact.Manifest.read(folder, kind="evaluation")
        metrics = artifact.read_metrics(folder)
        tables = required(metrics, "table", folder)
        measured = {provenance: tables[provenance] for provenance in PROVENANCES if tables.get(provenance)}
        rows = [row for rows in measured.values() for row in rows.values()]
        if not rows or any(Measurement.of(row.get("coherence")) is None for row in rows):
            raise ArtifactError(
                found=f"{folder}: a table without a measured row, or a row without coherence",
                expected="rows per voice under table.real or table.synthetic",
                next="run python -m training.evaluate again",
            )
        return cls(measured, metrics.get("greedy"))

    def markdown(self) -> dict[str, str]:
        """The table of each provenance; answers are drawn."""
        return {provenance: table_markdown(rows) for provenance, rows in self.tables.items()}

    def likeliest_markdown(self) -> dict[str, str]:
        """The same of the likeliest answers, of the voices that were asked for them."""
        return {provenance: table_markdown(rows) for provenance, rows in self.likeliest.items() if rows}

    def model_index(
        self, voice: str, *, model_name: str, task_type: str, dataset: str
    ) -> list[dict[str, Any]]:
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
                metric_name=f"{heading[0].upper()}{heading[1:]}, {provenance} windows",
                metric_value=round(measured.value, _DIGITS),
                metric_args=_metric_args(provenance, measured),
            )
            for provenance, rows in self.tables.items()
            for metric, heading in COLUMNS.items()
            if (measured := _achieved(rows.get(voice, {}), metric)) is not None
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


def _achieved(row: Mapping[str, Any], metric: str) -> Measurement | None:
    """A measurement that is the voice's own doing: what it was told is no result of its."""
    told = bool((row.get("shape_accuracy") or {}).get("given"))
    return None if told and metric in ("shape_accuracy", "calibration") else Measurement.of(row.get(metric))


def _metric_args(provenance: str, measured: Measurement) -> dict[str, Any]:
    """Provenance, n and interval of a measurement; what was not recorded is left out."""
    ends = {"low": measured.low, "high": measured.high}
    interval = {name: round(end, _DIGITS) for name, end in ends.items() if end is not None}
    return {"provenance": provenance, **({"n": measured.n} if measured.n else {}), **interval}
