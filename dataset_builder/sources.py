"""What a dataset is made from: recordings, CSV logs and anima.db files, each read into EISV series."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_builder.anima_db import Observed, read_database
from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError, SourceError
from eisv_lumen.logs import LogReport, read_log, require_states, time_zone
from eisv_lumen.series import Series

RECORDING = "recording"
READINGS = "readings.csv.gz"
LOG_ENDINGS = (".csv", ".csv.gz", ".db", ".sqlite", ".sqlite3")
_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)")
_SQLITE = b"SQLite format 3\0"
_SAME_STATE = 1e-3


@dataclass(frozen=True)
class Source:
    """A place to read from, and the name that its rows carry."""

    name: str
    path: Path

    @property
    def log(self) -> Path:
        """The file that is read: the readings of a recording folder, or the file itself."""
        return self.path / READINGS if self.path.is_dir() else self.path

    @property
    def is_database(self) -> bool:
        """Is it a SQLite file?"""
        return not self.path.is_dir() and _head(self.path) == _SQLITE

    def inputs(self) -> dict[str, Path]:
        """Files and folders that identify the content, by name; a database's write-ahead log is one."""
        ahead = self.path.with_name(self.path.name + "-wal")
        pending = self.is_database and ahead.is_file() and ahead.stat().st_size
        return {self.name: self.path} | ({f"{self.name}-wal": ahead} if pending else {})


@dataclass
class Content:
    """What was read from a source.

    Attributes:
        source: Where from.
        kind: `recording`, `log` or `database`.
        devices: EISV series by device name.
        report: What was mapped and dropped.
        observed: Expressions that were really said, where the source has any.
    """

    source: Source
    kind: str
    devices: dict[str, Series]
    report: LogReport
    observed: Observed | None = None
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def states(self) -> int:
        """Number of usable states."""
        return sum(len(series) for series in self.devices.values())


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """Sources of `PATH` or `NAME=PATH` arguments; a folder of logs stands for each of its logs.

    A source whose content was given before is left out.

    Raises:
        SourceError: A path does not exist or cannot be read, or a folder holds no log.
        ConfigurationError: No source, or two of the same name.
    """
    found: list[tuple[Source, bool]] = []
    for argument in arguments:
        named = None if Path(argument).exists() else _NAMED.fullmatch(argument)
        name, path = (named[1], Path(named[2])) if named else (None, Path(argument))
        found += [(source, bool(name)) for source in _at(path, name)]
    if not found:
        raise ConfigurationError(
            found="no source",
            expected="one or more --source PATH or --source NAME=PATH",
            next="python -m dataset_builder.record --out DIR makes a recording to start with",
        )
    return _unique(found)


def read_source(source: Source, *, timezone: str, site_pressure: float) -> Content:
    """The EISV series of a source.

    Raises:
        SourceError: It cannot be read, or holds fewer than 20 usable states.
        ArtifactError: A recording folder is damaged.
    """
    if source.is_database:
        report = LogReport()
        series, observed = read_database(source.path, time_zone(timezone), report)
        content = Content(source, "database", {source.name: series}, report, observed)
    else:
        if source.path.is_dir():
            artifact.verify(source.path, kind=RECORDING)
        log = read_log(source.log, timezone=timezone)
        devices = {device or source.name: s for device, s in log.series(site_pressure=site_pressure).items()}
        content = Content(source, RECORDING if source.path.is_dir() else "log", devices, log.report)
    require_states(source.name, content.states)
    return content


def drop_repeated_states(contents: Sequence[Content]) -> None:
    """Leave out states that an earlier source holds as well, such as an older copy of a database."""
    earlier: list[Series] = []
    for content in contents:
        for device, series in content.devices.items():
            again = np.zeros(len(series), bool)
            for other in earlier:
                again |= _shared(series, other)
            content.report.drop("state held by an earlier source", int(again.sum()))
            if again.any():
                series = Series.of(series.times[~again], series.states[~again])
                content.devices[device] = series
            earlier.append(series)


def _shared(series: Series, other: Series) -> np.ndarray:
    """`[N]` bool: times that both hold, if the states there are mostly the same ones."""
    order = np.argsort(other.times, kind="stable")
    if not len(series) or not len(order):
        return np.zeros(len(series), bool)
    at = np.minimum(np.searchsorted(other.times, series.times, sorter=order), len(order) - 1)
    match = order[at]
    same_time = other.times[match] == series.times
    same_state = (np.abs(other.states[match] - series.states) < _SAME_STATE).all(axis=1)
    mostly = same_time.any() and same_state[same_time].mean() > 0.5
    return same_time & mostly


def _at(path: Path, name: str | None) -> list[Source]:
    if path.is_dir() and not (path / artifact.MANIFEST).is_file():
        inside = sorted(
            p for p in path.iterdir() if p.name.endswith(LOG_ENDINGS) or (p / artifact.MANIFEST).is_file()
        )
        if not inside:
            raise _refused(
                path, "a folder without logs", "a recording folder, or a folder of CSV and db files"
            )
        prefix = f"{name}-" if name else ""
        return [Source(prefix + _name_of(p), p) for p in inside]
    if not path.is_dir():
        _head(path)
    return [Source(name or _name_of(path), path)]


def _unique(sources: list[tuple[Source, bool]]) -> list[Source]:
    """Each content once, each name once; a name that the user did not choose gives way."""
    kept: dict[str, Source] = {}
    names: set[str] = set()
    for source, chosen in sources:
        content = artifact.sha256_file(source.log) if source.log.is_file() else str(source.path)
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
        kept[content] = Source(name, source.path)
    return list(kept.values())


def _name_of(path: Path) -> str:
    name = path.name
    for ending in (".gz", ".csv", ".sqlite3", ".sqlite", ".db"):
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
