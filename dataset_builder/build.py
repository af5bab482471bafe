"""Build a dataset folder from sensor logs, recordings and anima.db files.

python -m dataset_builder.build --source artifacts/demo/recording --source desk=log.csv.gz \
    --config dataset_builder/configs/default.yaml --out artifacts/demo/dataset
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builder.blending import keep_real, labels, make_synthetic, synthetic_counts
from dataset_builder.configuration import DatasetSettings
from dataset_builder.cutting import cut_content
from dataset_builder.labelling import speak
from dataset_builder.measuring import measure
from dataset_builder.rows import Dataset, write_dataset
from dataset_builder.sources import Content, Source, drop_repeated_states, find_sources, read_source
from dataset_builder.table import Table
from eisv_lumen import artifact
from eisv_lumen.errors import SourceError, exit_with_reason
from eisv_lumen.layouts import DATASET
from eisv_lumen.logs import time_zone
from eisv_lumen.rules import Rules

KIND = "dataset"
FORMAT = 1
"""Number of the builder's own behaviour; a new one makes datasets built before be built again."""


def build(out: Path, arguments: Sequence[str], settings: DatasetSettings, *, timezone: str = "UTC") -> bool:
    """Build a dataset folder; returns False where it stands already.

    Args:
        out: The folder's final name.
        arguments: Sources as `PATH` or `NAME=PATH`.
        settings: Everything else.
        timezone: Zone of times that name none.

    Raises:
        SourceError: A source is missing, unreadable or empty, or no window can be cut from any.
        ConfigurationError: An unknown time zone, or two sources of one name.
        ResourceError: The place is not writable.
    """
    time_zone(timezone)
    sources = find_sources(arguments)
    inputs = {name: path for source in sources for name, path in source.inputs().items()}
    configuration = {
        "format": FORMAT,
        "timezone": timezone,
        "sources": [source.name for source in sources],
        **settings.to_dict(),
    }
    hashes = {name: artifact.input_hash(path) for name, path in inputs.items()}
    if artifact.is_current(out, artifact.identity_of(KIND, configuration, hashes, settings.seed)):
        return False
    # Everything that can be wrong with the input is found before the place is touched.
    contents = _read(sources, timezone, settings)
    dataset, rules, measured = _compose(contents, settings)
    with artifact.build(
        out, kind=KIND, configuration=configuration, inputs=inputs, seed=settings.seed
    ) as work:
        if work is not None:
            _say(f"writes {len(dataset)} windows")
            write_dataset(work.folder, dataset)
            artifact.write_json(work.folder / DATASET.weights, rules.to_dict())
            work.metrics = measured
    return True


def _read(sources: list[Source], timezone: str, settings: DatasetSettings) -> list[Content]:
    contents = []
    for source in sources:
        _say(f"reads {source.name}")
        contents.append(read_source(source, timezone=timezone, site_pressure=settings.site_pressure))
    drop_repeated_states(contents)
    return contents


def _compose(contents: list[Content], settings: DatasetSettings) -> tuple[Dataset, Rules, dict[str, Any]]:
    real = _real(contents, settings)
    shapes, _ = labels(real)
    kept = keep_real(real, shapes, settings)
    counts = synthetic_counts(int((real.split[kept] == 0).sum()), settings)
    _say(f"cut {len(real)} real windows, keeps {kept.sum()}, adds {sum(counts)} synthetic ones")
    table = Table.join([real[kept], make_synthetic(counts, settings)])
    table = table[_order(table)]
    robust, published = labels(table)
    spoken, rules, feedback = speak(table, robust, contents, settings)
    dataset = Dataset(table, table.names(), robust, published, spoken)
    measured = measure(dataset, contents, real=real, real_shapes=shapes, kept=kept, feedback=feedback)
    return dataset, rules, measured


def _real(contents: list[Content], settings: DatasetSettings) -> Table:
    tables = []
    for content in contents:
        found, purged = cut_content(content, settings)
        tables += found
        content.report.drop("state between two splits", purged)
    if not tables:
        longest = max(
            part.stop - part.start
            for content in contents
            for series in content.devices.values()
            for part in series.segments
        )
        raise SourceError(
            found=f"at most {longest} states without a gap",
            expected=f"{settings.length} states in a row, no step longer than ten times the usual one",
            next="record for longer without interruption, or pass another log",
        )
    return Table.join(tables)


def _order(table: Table) -> np.ndarray:
    """Real before synthetic, then by source, device, scale and time; synthetic rows keep their order."""
    keys = [np.unique(column.astype(str), return_inverse=True)[1] for column in _sorted_by(table)]
    return np.lexsort((table.start, *reversed(keys)))


def _sorted_by(table: Table) -> list[np.ndarray]:
    synthetic = table.provenance == "synthetic"
    scale = np.where(synthetic, "", table.scale.astype(str))
    return [table.provenance, table.source, table.device, scale]


def _say(text: str) -> None:
    print(f"dataset: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="recording folder, CSV log, anima.db, or a folder of them; several allowed",
    )
    parser.add_argument("--config", type=Path, help="YAML settings; the defaults where not given")
    parser.add_argument("--timezone", default="UTC", help="zone of times that name none (UTC)")
    parser.add_argument("--site-pressure", type=float, help="usual pressure in hPa, instead of the settings'")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    settings = DatasetSettings.read(arguments.config) if arguments.config else DatasetSettings()
    if arguments.site_pressure is not None:
        settings = replace(settings, site_pressure=arguments.site_pressure)
    made = build(arguments.out, arguments.source, settings, timezone=arguments.timezone)
    counts = artifact.read_metrics(arguments.out)["counts"]
    text = "; ".join(f"{split} {n['real']} real + {n['synthetic']} synthetic" for split, n in counts.items())
    print(f"{arguments.out}: {'built' if made else 'stands already'}: {text}")
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
