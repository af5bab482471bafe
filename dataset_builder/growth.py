"""Growing a dataset: its rows, their split and their expressions stay; what is new is added behind them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.parquet import described
from dataset_builder.splits import Piece
from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ConfigurationError
from eisv_lumen.layouts import DATASET
from eisv_lumen.rules import Rules

Held = dict[str, dict[str, list[list[float]]]]
"""By source and device: spans `[start, end]` of the states that a dataset holds."""
FIXED = ("length", "stride", "scales", "site_pressure")
"""Settings that a dataset keeps when it grows."""


@dataclass(frozen=True)
class Parent:
    """The dataset that is grown."""

    folder: Path
    manifest: artifact.Manifest
    metrics: dict[str, Any]
    pieces: list[Piece]
    held: Held
    rules: Rules

    @classmethod
    def read(cls, folder: Path) -> Self:
        """A dataset folder, every file of it verified.

        Raises:
            ArtifactError: It is damaged, no dataset, or one that cannot be grown.
        """
        manifest = artifact.verify(folder, kind="dataset")
        if DATASET.plan not in manifest.files:
            raise ArtifactError(
                found=f"{folder} has no {DATASET.plan}",
                expected="a dataset built by this version",
                next="build the dataset anew from all its sources, without --grow",
            )
        plan = artifact.read_json(Path(folder) / DATASET.plan)
        return cls(
            folder=Path(folder),
            manifest=manifest,
            metrics=artifact.read_metrics(folder),
            pieces=[Piece.from_dict(piece) for piece in plan["pieces"]],
            held=plan["held"],
            rules=Rules.from_dict(artifact.read_json(Path(folder) / DATASET.weights)),
        )

    @property
    def identity(self) -> str:
        """sha256 of its manifest."""
        return artifact.input_hash(self.folder)

    def spans(self, source: str, device: str) -> list[tuple[float, float]]:
        """Spans of time that the dataset holds of a device."""
        return [(start, end) for start, end in self.held.get(source, {}).get(device, [])]

    def require_settings(self, configuration: Mapping[str, Any]) -> None:
        """Refuse to add windows of another make.

        Raises:
            ConfigurationError: A setting that a dataset keeps differs.
        """
        for name in FIXED:
            if configuration[name] != self.manifest.configuration[name]:
                raise ConfigurationError(
                    found=f"{name} {configuration[name]!r}",
                    expected=f"{self.manifest.configuration[name]!r}, as in the dataset that is grown",
                    next="use that dataset's settings, or build anew from all sources, without --grow",
                )

    def require_unchanged(self) -> None:
        """Refuse to go on when another process has replaced the dataset meanwhile.

        Raises:
            ArtifactError: It is another dataset now.
        """
        if artifact.Manifest.read(self.folder) != self.manifest:
            raise ArtifactError(
                found=f"{self.folder} was built anew meanwhile",
                expected="one process at a time that grows a dataset",
                next="run the same command again",
            )

    def rows(self, name: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """The rows of one of its files, a row group at a time.

        Raises:
            ArtifactError: The file has other columns than are written now.
        """
        with pq.ParquetFile(self.folder / name) as file:
            if not file.schema_arrow.equals(schema):
                raise ArtifactError(
                    found=f"{name} has other columns than are written now",
                    expected="a dataset built by this version",
                    next="build the dataset anew from all its sources, without --grow",
                )
            for number in range(file.num_row_groups):
                yield file.read_row_group(number).replace_schema_metadata(described(schema).metadata)


def joined(before: Held, added: Held) -> Held:
    """The spans of both."""
    held: Held = {
        source: {d: list(spans) for d, spans in devices.items()} for source, devices in before.items()
    }
    for source, devices in added.items():
        for device, spans in devices.items():
            held.setdefault(source, {}).setdefault(device, []).extend(spans)
    return held
