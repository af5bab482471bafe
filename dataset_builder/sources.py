"""What a dataset is made from: recordings, logs, anima.db files and published rows, by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dataset_builder.legacy_rows import HubRows, is_legacy, resolve
from eisv_lumen import artifact, layouts
from eisv_lumen.errors import ConfigurationError, SourceError

LOG_ENDINGS = (".csv", ".csv.gz", ".parquet", ".db", ".sqlite", ".sqlite3")
HUB = "hub:"
RECORDING, LOG, PARQUET_LOG, DATABASE, PUBLISHED = (
    "recording",
    "log",
    "Parquet log",
    "database",
    "published rows",
)
_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)")
_SQLITE, _PARQUET = b"SQLite format 3\0", b"PAR1"


@dataclass(frozen=True)
class Source:
    """A place to read from, and the name that its rows carry.

    Attributes:
        name: In `source` of every row.
        place: A file, a folder, or rows in a repository at one commit.
        kind: What is read there.
    """

    name: str
    place: Path | HubRows
    kind: str

    @property
    def path(self) -> Path:
        """The place of a source that is not in a repository."""
        assert isinstance(self.place, Path)
        return self.place

    @property
    def log(self) -> Path:
        """The file that is read: the readings of a recording folder, or the file itself."""
        return self.path / layouts.RECORDING.readings if self.kind == RECORDING else self.path

    def inputs(self) -> dict[str, Path]:
        """Files and folders that identify the content, by name; a database's write-ahead log is one."""
        if isinstance(self.place, HubRows):
            return {}
        if self.place.is_dir() and not (self.place / artifact.MANIFEST).is_file():
            files = sorted(self.place.rglob("*.parquet"))
            return {f"{self.name}/{path.relative_to(self.place).as_posix()}": path for path in files}
        ahead = self.place.with_name(self.place.name + "-wal")
        pending = self.kind == DATABASE and ahead.is_file() and ahead.stat().st_size
        return {self.name: self.place} | ({f"{self.name}-wal": ahead} if pending else {})


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """Sources of `PATH` or `NAME=PATH` arguments; a folder of logs stands for each of its logs.

    `hub:OWNER/NAME@REVISION` stands for published rows in a repository, at the commit that this means now. A
    source whose content was given before is left out.

    Raises:
        SourceError: A path does not exist or cannot be read, or a folder holds no log.
        ConfigurationError: No source, or two of the same name.
        HubError: A repository cannot be reached, or has no such revision.
    """
    found: list[tuple[Source, bool]] = []
    for argument in arguments:
        named = None if Path(argument).exists() else _NAMED.fullmatch(argument)
        name, place = (named[1], named[2]) if named else (None, argument)
        inside = [_on_hub(place, name)] if place.startswith(HUB) else _at(Path(place), name)
        found += [(source, bool(name)) for source in inside]
    if not found:
        raise ConfigurationError(
            found="no source",
            expected="one or more --source PATH or --source NAME=PATH",
            next="python -m dataset_builder.record --out DIR makes a recording to start with",
        )
    return _unique(found)


def _on_hub(spec: str, name: str | None) -> Source:
    rows = resolve(spec)
    return Source(name or rows.repository.split("/")[-1], rows, PUBLISHED)


def _at(path: Path, name: str | None) -> list[Source]:
    if path.is_dir() and not (path / artifact.MANIFEST).is_file() and not is_legacy(path):
        inside = sorted(
            p for p in path.iterdir() if p.name.endswith(LOG_ENDINGS) or (p / artifact.MANIFEST).is_file()
        )
        if not inside:
            raise _refused(
                path, "a folder without logs", "a recording folder, or a folder of CSV, Parquet and db files"
            )
        prefix = f"{name}-" if name else ""
        return [Source(prefix + _name_of(p), p, _kind(p)) for p in inside]
    return [Source(name or _name_of(path), path, _kind(path))]


def _kind(path: Path) -> str:
    if path.is_dir():
        return PUBLISHED if is_legacy(path) else RECORDING
    head = _head(path)
    if head.startswith(_PARQUET):
        return PUBLISHED if is_legacy(path) else PARQUET_LOG
    return DATABASE if head == _SQLITE else LOG


def _unique(sources: list[tuple[Source, bool]]) -> list[Source]:
    """Each content once, each name once; a name that the user did not choose gives way."""
    kept: dict[str, Source] = {}
    names: set[str] = set()
    for source, chosen in sources:
        several = len(sources) > 1 and isinstance(source.place, Path) and source.log.is_file()
        content = artifact.sha256_file(source.log) if several else str(source.place)
        if content in kept:
            continue
        name, count = source.name, 1
        while name in names:
            if chosen:
                raise ConfigurationError(
                    found=f"two sources named {name!r}",
                    expected="a name of its own for each",
                    next="name them: --source NAME=PATH",
                )
            count += 1
            name = f"{source.name}-{count}"
        names.add(name)
        kept[content] = replace(source, name=name)
    return list(kept.values())


def _name_of(path: Path) -> str:
    name = path.name
    for ending in (".gz", ".csv", ".parquet", ".sqlite3", ".sqlite", ".db"):
        name = name.removesuffix(ending)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "source"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE))
    except OSError as error:
        raise _refused(
            path, error.strerror or type(error).__name__, "a readable log, database or recording folder"
        ) from error


def _refused(path: Path, found: str, expected: str) -> SourceError:
    return SourceError(found=f"{path}: {found}", expected=expected, next="check the path, then run again")
