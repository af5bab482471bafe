"""Growing a dataset: its rows, their split and their expressions stay; what is new is added behind them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.parquet import described
from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError
from eisv_lumen.layouts import DATASET
from eisv_lumen.rules import Rules

Plans = dict[str, dict[str, list[dict[str, Any]]]]
"""By source and device: pieces of time, each `{"start", "end", "edges", "splits"}`."""


@dataclass(frozen=True)
class Parent:
    """The dataset that is grown."""

    folder: Path
    manifest: artifact.Manifest
    metrics: dict[str, Any]
    plans: Plans
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
        return cls(
            folder=Path(folder),
            manifest=manifest,
            metrics=artifact.read_metrics(folder),
            plans=artifact.read_json(Path(folder) / DATASET.plan)["devices"],
            rules=Rules.from_dict(artifact.read_json(Path(folder) / DATASET.weights)),
        )

    @property
    def identity(self) -> str:
        """sha256 of its manifest."""
        return artifact.input_hash(self.folder)

    def held(self) -> dict[tuple[str, str], list[tuple[float, float]]]:
        """Spans of time that the dataset covers, by source and device."""
        return {
            (source, device): [(piece["start"], piece["end"]) for piece in pieces]
            for source, devices in self.plans.items()
            for device, pieces in devices.items()
        }

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


def joined_plans(before: Mapping[str, Any], added: Plans) -> Plans:
    """The pieces of both."""
    plans: Plans = {source: {d: list(p) for d, p in devices.items()} for source, devices in before.items()}
    for source, devices in added.items():
        for device, pieces in devices.items():
            plans.setdefault(source, {}).setdefault(device, []).extend(pieces)
    return plans
