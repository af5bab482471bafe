"""A dataset folder: what identifies it, whether it stands already, and the one that it grows from."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dataset_builder.composing import Composition
from dataset_builder.configuration import DatasetSettings
from dataset_builder.growth import Parent
from dataset_builder.legacy_rows import HubRows
from dataset_builder.mapping import read_mapping
from dataset_builder.sources import Source, find_sources
from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.rules import Rules
from eisv_lumen.timestamps import time_zone

KIND = "dataset"
FORMAT = 4
"""Number of the builder's own behaviour; a new one makes datasets built before be built again."""


def build_folder(
    out: Path,
    arguments: Sequence[str],
    settings: DatasetSettings,
    rules: Callable[[], Rules],
    *,
    timezone: str,
    mappings: Mapping[str, Path],
    grow: Path | None,
) -> bool:
    """Build a dataset folder; returns False where it stands already.

    Arguments and errors are those of `dataset_builder.build.build`, besides `rules`, which waits for the
    rules that label a dataset which grows from no other.
    """
    time_zone(timezone)
    sources = find_sources(arguments)
    columns = {name: read_mapping(path) for name, path in mappings.items()}
    _refuse_unused(columns, sources)
    parent = None if grow is None else _parent(grow)
    hub = {source.name: str(source.place) for source in sources if isinstance(source.place, HubRows)}
    inputs = {name: path for source in sources for name, path in source.inputs().items()}
    inputs |= {f"mapping {name}".strip(): path for name, path in mappings.items()}
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
            Composition(work, settings, parent).run(sources, timezone, columns, rules)
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
