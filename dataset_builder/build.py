"""Build a dataset folder from sensor logs, recordings, anima.db files and published rows.

python -m dataset_builder.build --source artifacts/demo/recording --source desk=log.csv.gz \
    --config dataset_builder/configs/default.yaml --out artifacts/demo/dataset

With `--grow OLD` the rows, splits and expressions of an earlier dataset stay as they are, and what the
sources hold beyond it is added.
"""

import argparse
import gc
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from dataset_builder.composing import Composition
from dataset_builder.configuration import DatasetSettings
from dataset_builder.growth import Parent
from dataset_builder.legacy_rows import HubRows
from dataset_builder.mapping import read_mapping
from dataset_builder.sources import Source, find_sources
from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError, exit_with_reason
from eisv_lumen.timestamps import time_zone

KIND = "dataset"
FORMAT = 3
"""Number of the builder's own behaviour; a new one makes datasets built before be built again."""


def build(
    out: Path,
    arguments: Sequence[str],
    settings: DatasetSettings,
    *,
    timezone: str = "UTC",
    mappings: Mapping[str, Path] | None = None,
    grow: Path | None = None,
) -> bool:
    """Build a dataset folder; returns False where it stands already.

    Args:
        out: The folder's final name.
        arguments: Sources as `PATH`, `NAME=PATH` or `hub:OWNER/NAME@REVISION`.
        settings: Everything else.
        timezone: Zone of times that name none.
        mappings: By source, a file that says which column of its log is which channel, in which unit;
            under "" one for all other sources.
        grow: Dataset folder whose rows stay, to which what is new is added.

    Raises:
        SourceError: A source is missing, unreadable or empty, or no window can be cut from any.
        ConfigurationError: An unknown time zone, or two sources of one name.
        ArtifactError: The dataset to be grown is damaged or of another version.
        ResourceError: The place is not writable.
    """
    time_zone(timezone)
    sources = find_sources(arguments)
    columns = {name: read_mapping(path) for name, path in (mappings or {}).items()}
    _refuse_unused(columns, sources)
    parent = None if grow is None else _parent(grow)
    hub = {source.name: str(source.place) for source in sources if isinstance(source.place, HubRows)}
    inputs = {name: path for source in sources for name, path in source.inputs().items()}
    inputs |= {f"mapping {name}".strip(): path for name, path in (mappings or {}).items()}
    if grow is not None:
        inputs["parent"] = grow
    configuration = {
        "format": FORMAT,
        "timezone": timezone,
        "sources": [source.name for source in sources],
        **({"hub": hub} if hub else {}),
        **settings.to_dict(),
    }
    if parent:
        parent.require_settings(configuration)
    with artifact.build(
        out,
        kind=KIND,
        configuration=configuration,
        inputs=inputs,
        seed=settings.seed,
        generation=parent.manifest.generation + 1 if parent else 0,
        parent=parent.identity if parent else None,
    ) as work:
        if work is None:
            return False
        try:
            if parent:
                parent.require_unchanged()
            # What a killed build left there is of no use.
            shutil.rmtree(work.scratch)
            work.scratch.mkdir()
            Composition(work, settings, parent).run(sources, timezone, columns)
        except BaseException:
            # There is nothing to go on from: what is wrong with the input or the disk leaves nothing behind.
            shutil.rmtree(work.folder.parent, ignore_errors=True)
            raise
        shutil.rmtree(work.scratch)
    return True


def _parent(folder: Path) -> Parent:
    if not folder.exists():
        artifact.remove_stale_work(folder.absolute())  # a kill while it was replaced put it aside
    return Parent.read(folder)


def _refuse_unused(mappings: Mapping[str, object], sources: Sequence[Source]) -> None:
    for name in mappings:
        if name and name not in {source.name for source in sources}:
            raise ConfigurationError(
                found=f"a mapping for {name!r}, which is no source",
                expected="a name among " + ", ".join(source.name for source in sources),
                next="name the source, --source NAME=PATH, and its mapping, --mapping NAME=FILE, alike",
            )


def _mappings(arguments: Sequence[str]) -> dict[str, Path]:
    """Files by the name of their source, "" for all others."""
    found: dict[str, Path] = {}
    for argument in arguments:
        name, named, path = argument.partition("=")
        if Path(argument).exists() or not named:
            name, path = "", argument
        found[name] = Path(path)
    return found


class _NoPandas:
    """Stands before the finders of modules and finds no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Nothing of any other name."""
        if name == "pandas":
            raise ImportError(name)


def _keep_pandas_out() -> None:
    """Spare a quarter of a second and 43 MB: arrow imports pandas, where it is, before its first array.

    It looks for it once, so it looks now, while there is none. What needs pandas later can import it.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(_NoPandas)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="recording, CSV or Parquet log, anima.db, published rows (also hub:OWNER/NAME@REVISION), or a "
        "folder of these; several allowed",
    )
    parser.add_argument("--config", type=Path, help="YAML settings; the defaults where not given")
    parser.add_argument(
        "--mapping",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="YAML or JSON file naming columns and units of the logs, or of the source NAME alone",
    )
    parser.add_argument("--timezone", default="UTC", help="zone of times that name none (UTC)")
    parser.add_argument("--site-pressure", type=float, help="usual pressure in hPa, instead of the settings'")
    parser.add_argument(
        "--grow", type=Path, metavar="DATASET", help="keep this dataset's rows and add what is new"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    # The system's pool gives back what is freed; the others keep tens of megabytes for a next time.
    pa.set_memory_pool(pa.system_memory_pool())
    _keep_pandas_out()
    gc.freeze()  # what is imported stays: no collection, nor a forked process, need touch it again
    settings = DatasetSettings.read(arguments.config) if arguments.config else DatasetSettings()
    if arguments.site_pressure is not None:
        settings = replace(settings, site_pressure=arguments.site_pressure)
    made = build(
        arguments.out,
        arguments.source,
        settings,
        timezone=arguments.timezone,
        mappings=_mappings(arguments.mapping),
        grow=arguments.grow,
    )
    counts = artifact.read_metrics(arguments.out)["counts"]
    text = "; ".join(f"{split} {n['real']} real + {n['synthetic']} synthetic" for split, n in counts.items())
    print(f"{arguments.out}: {'built' if made else 'stands already'}: {text}")
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
