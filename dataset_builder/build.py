"""Build a dataset folder from sensor logs, recordings, anima.db files and published rows.

python -m dataset_builder.build --source artifacts/demo/recording --source desk=log.csv.gz \
    --config dataset_builder/configs/default.yaml --out artifacts/demo/dataset

With `--grow OLD` the rows, splits and expressions of an earlier dataset stay as they are, and what the
sources hold beyond it is added.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dataset_builder.configuration import DatasetSettings
from dataset_builder.teaching import converging
from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.rules import Rules

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of mallopt(3)."""
_KEPT = 8 << 20


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
    with contextlib.nullcontext(Rules) if grow else converging(settings.seed) as rules:
        # To import all that reads and writes takes about as long as the rules learn; they do it meanwhile.
        from dataset_builder.folder import build_folder

        return build_folder(
            out, arguments, settings, rules, timezone=timezone, mappings=mappings or {}, grow=grow
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


@contextlib.contextmanager
def _light_arrow() -> Iterator[None]:
    """Arrow, where it is imported within: without pandas, and on the system's memory pool.

    It imports pandas, where it is, before its first array: a quarter of a second and 43 MB. It looks for it
    once; what needs pandas later can import it. The system's pool gives back what is freed; the others keep
    tens of megabytes for a next time.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    sys.meta_path.insert(0, _NoPandas)
    try:
        yield
    finally:
        sys.meta_path.remove(_NoPandas)


def _keep_freed_memory() -> None:
    """Have GNU's allocator keep what is freed, up to 8 MB, for the next batch.

    Pages that come fresh from the system take longer than what is written into them.
    """
    with contextlib.suppress(AttributeError):  # of another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _KEPT)


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
    _keep_freed_memory()
    gc.freeze()  # what is imported stays: no collection, nor a forked process, need touch it again
    settings = DatasetSettings.read(arguments.config) if arguments.config else DatasetSettings()
    if arguments.site_pressure is not None:
        settings = replace(settings, site_pressure=arguments.site_pressure)
    with _light_arrow():
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
    gc.freeze()  # nor need the end of the process
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
