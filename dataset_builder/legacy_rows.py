"""Rows of the published schema, read back into states, expressions and synthetic windows.

A published row is a window of 20 states, and its neighbour shares ten of them. The states of all real rows
are merged into one series in which each stands once; rows are parsed once, into scratch files, so that any
number of rows in any order is read in bounded memory.
"""

import bisect
import contextlib
import json
import os
import re
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.anima_db import Observed, Utterance, expression_ids, read_tokens
from dataset_builder.parquet import LEGACY
from eisv_lumen.errors import ConfigurationError, HubError, SourceError
from eisv_lumen.hub_client import client, hub_errors, read_token
from eisv_lumen.layouts import DATASET
from eisv_lumen.logs import LogReport
from eisv_lumen.vocabulary import DIMENSIONS, STATE_MAX
from eisv_lumen.windows import MIN_STATES, WINDOW_LENGTH, Windows

CONFIGURATION, SPLIT = "legacy", "train"
SAME_TIME_S, SAME_STATE = 1.5e-3, 1e-5
"""Two rows may round the same state differently, by no more than this."""
_PROVENANCE = {"lumen_real": True, "synthetic": False}
_BATCH, _CHUNK = 1 << 10, 1 << 16
_WIDTH = 1 + len(DIMENSIONS)
_ROUNDING = 1e-6
_READ = ("eisv_states", "t_start", "t_end", "provenance", "tokens")
_STATE = itemgetter("t", *DIMENSIONS)
_NO_POINTS = np.zeros((0, _WIDTH))
_HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@(\S+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubRows:
    """Rows in a dataset repository, at one commit."""

    repository: str
    commit: str

    def __str__(self) -> str:
        """As a source is written: `hub:OWNER/NAME@COMMIT`."""
        return f"hub:{self.repository}@{self.commit}"


def resolve(spec: str) -> HubRows:
    """The repository and commit that `hub:OWNER/NAME[@REVISION]` means now; `main` where it names none.

    Raises:
        ConfigurationError: The text is not of that form.
        HubError: The Hub cannot be reached, or has no such repository or revision.
    """
    match = _HUB.fullmatch(spec)
    if match is None:
        raise ConfigurationError(
            found=f"source {spec!r}", expected="hub:OWNER/NAME or hub:OWNER/NAME@REVISION", next="correct it"
        )
    repository, revision = match[1], match[2]
    if revision and _COMMIT.fullmatch(revision):
        return HubRows(repository, revision)
    api = client(token=read_token())
    with hub_errors(f"read {repository}", api.endpoint):
        commit = api.dataset_info(repository, revision=revision).sha
    return HubRows(repository, str(commit))


def is_legacy(path: Path) -> bool:
    """Is it a Parquet file of the published schema, a folder of such, or one with `data/legacy`?"""
    files = _files(Path(path))
    try:
        return bool(files) and all(set(LEGACY.names) <= set(pq.read_schema(file).names) for file in files)
    except (pa.ArrowException, OSError):
        return False


class LegacyRows:
    """Published rows; read once on entering, and held in scratch files until the context is left.

    Args:
        place: A Parquet file, a folder of them, a dataset folder with `data/legacy`, or a repository: what
            `resolve` gave, or its text.
        report: Receives what was read and what was dropped.
        scratch: Folder for scratch files (about 1.5 kB per row); the system's own where None.

    Raises:
        SourceError: On entering: nothing there, a damaged file, or another schema.
        HubError: On entering: the repository cannot be read.
    """

    def __init__(
        self, place: Path | str | HubRows, report: LogReport, *, scratch: Path | None = None
    ) -> None:
        if isinstance(place, str):
            place = resolve(place) if place.startswith("hub:") else Path(place)
        self._place, self._report, self._scratch = place, report, scratch
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as closing:
            self._table: pa.Table | None = None
            if isinstance(self._place, HubRows):
                self._table = _from_hub(self._place)
            points, self._merged = (closing.enter_context(_Scratch(self._scratch)) for _ in range(2))
            self._rows = _RowReader(points, self._report).read(self._batches(_READ))
            self._utterances: list[Utterance] = []
            _Merger(self._rows, self._merged, self._report, self._utterances).run()
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def states(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Times `[n]` and states `[n, 4]` of the real rows, each state once, in ascending order of time."""
        for first in range(0, len(self._merged), _CHUNK):
            part = self._merged.read(first, _CHUNK)
            yield part[:, 0], part[:, 1:]

    def observed(self) -> Observed:
        """Expressions of the real rows, each once, at the end of the first row that has it."""
        return Observed.of(self._utterances)

    def synthetic(self) -> Windows | None:
        """The synthetic rows as windows of 20 states; None where there are none."""
        rows = np.flatnonzero(~self._rows.real)
        if not len(rows):
            return None
        points = np.stack([self._rows.of(row) for row in rows.tolist()])
        return Windows.of(np.clip(points[..., 1:], 0.0, STATE_MAX), points[..., 0])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows as they are, the eight columns of `LEGACY`, in the order of the files."""
        return self._batches(tuple(LEGACY.names))

    def _batches(self, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([LEGACY.field(name) for name in columns])
        for batch in self._raw_batches(columns):
            try:
                whole = pa.Table.from_batches([batch]).select(list(columns)).cast(schema)
            except (pa.ArrowException, KeyError) as error:
                raise _refused(str(self._place), str(error), "the published schema") from error
            yield from whole.combine_chunks().to_batches()

    def _raw_batches(self, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        if self._table is not None:
            yield from self._table.to_batches(max_chunksize=_BATCH)
            return
        assert isinstance(self._place, Path)
        files = _files(self._place)
        if not files:
            raise _refused(self._place.name, "no Parquet file there", "rows of the published schema")
        for path in files:
            try:
                with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                    lacking = [name for name in LEGACY.names if name not in file.schema_arrow.names]
                    if lacking:
                        raise _refused(path.name, f"no column {', '.join(lacking)}", "the published schema")
                    yield from file.iter_batches(_BATCH, columns=list(columns), use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _refused(path.name, str(error), "a Parquet file that can be read") from error


class _Scratch:
    """Points `[n, 5]` (t, E, I, S, V) in a file without a name, gone when the context is left."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving
        self._length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        """Number of points."""
        return self._length

    def append(self, points: np.ndarray) -> None:
        """Write points behind the others."""
        self._file.write(points.tobytes())
        self._length += len(points)

    def flush(self) -> None:
        """Points written so far can be read from now on."""
        self._file.flush()

    def read(self, first: int, count: int) -> np.ndarray:
        """`[count, 5]` points; fewer at the end."""
        size = 8 * _WIDTH
        read = os.pread(self._file.fileno(), count * size, first * size)
        return np.frombuffer(read, np.float64).reshape(-1, _WIDTH)


@dataclass(frozen=True)
class _Rows:
    """Rows that were usable, in the order of the files.

    Attributes:
        points: Points of all rows, one after the other.
        first: `[N]` where a row's points begin.
        counts: `[N]` how many there are.
        starts: `[N]` time of the first one.
        ends: `[N]` time of the last one.
        real: `[N]` bool, False for synthetic rows.
        said: Per row the ids of its expressions; equal texts share one tuple.
    """

    points: _Scratch
    first: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    real: np.ndarray
    said: list[tuple[tuple[int, ...], ...]]

    def of(self, row: int) -> np.ndarray:
        """`[n, 5]` points of a row."""
        return self.points.read(int(self.first[row]), int(self.counts[row]))


class _RowReader:
    """Parses batches of rows into a scratch file; what is unusable is counted."""

    def __init__(self, scratch: _Scratch, report: LogReport) -> None:
        self._scratch, self._report = scratch, report
        self._counts, self._real = array("q"), array("b")
        self._starts, self._ends = array("d"), array("d")
        self._said: list[tuple[tuple[int, ...], ...]] = []

    def read(self, batches: Iterator[pa.RecordBatch]) -> _Rows:
        """All rows of the batches, which have the columns `_READ`."""
        self._report.mapped = {"t": "timestamp"} | {name: name for name in DIMENSIONS}
        for batch in batches:
            self._report.rows += len(batch)
            self._take(*(batch.column(name) for name in _READ))
        self._scratch.flush()
        counts = np.array(self._counts, np.int64)
        return _Rows(
            self._scratch,
            np.cumsum(counts) - counts,
            counts,
            np.array(self._starts, np.float64),
            np.array(self._ends, np.float64),
            np.array(self._real, np.bool_),
            self._said,
        )

    def _take(
        self, texts: pa.Array, starts: pa.Array, ends: pa.Array, kinds: pa.Array, said: pa.Array
    ) -> None:
        columns = (
            texts.to_pylist(),
            starts.to_pylist(),
            ends.to_pylist(),
            kinds.to_pylist(),
            said.to_pylist(),
        )
        for text, start, end, kind, tokens in zip(*columns, strict=True):
            points, reason = _points(text)
            real = _PROVENANCE.get(kind)
            reason = reason or _fault(points, start, end, real)
            if reason:
                self._report.drop(reason)
                continue
            self._scratch.append(points)
            self._counts.append(len(points))
            self._starts.append(points[0, 0])
            self._ends.append(points[-1, 0])
            self._real.append(bool(real))
            self._said.append(self._expressions(tokens) if real else ())

    def _expressions(self, text: str | None) -> tuple[tuple[int, ...], ...]:
        ids, dropped = _expressions(text or "[]")
        for reason, count in dropped:
            self._report.drop(reason, count)
        return ids


def _points(text: str | None) -> tuple[np.ndarray, str]:
    """`[n, 5]` t, E, I, S, V of a row's JSON text, and why it says none; empty where it does."""
    try:
        listed = json.loads(text or "")
    except (ValueError, RecursionError):
        return _NO_POINTS, "row of malformed JSON"
    try:
        return np.array([_STATE(point) for point in listed], np.float64).reshape(-1, _WIDTH), ""
    except (TypeError, KeyError, ValueError, OverflowError):
        return _NO_POINTS, "row without t, E, I, S, V"


def _fault(points: np.ndarray, start: float | None, end: float | None, real: bool | None) -> str:
    """Why a row cannot be used; empty where it can."""
    if real is None:
        return "row of unknown provenance"
    if not np.isfinite(points).all():
        return "row with NaN"
    if len(points) < MIN_STATES:
        return f"row of fewer than {MIN_STATES} states"
    times = points[:, 0]
    if (times[1:] < times[:-1]).any():
        return "row with times that decrease"
    if start is None or end is None or not (abs(times[0] - start) <= 0.01 and abs(times[-1] - end) <= 0.01):
        return "row whose times are not those of its states"
    if not real and len(points) != WINDOW_LENGTH:
        return f"synthetic row of another length than {WINDOW_LENGTH}"
    if not real and not _possible(points).all():
        return "synthetic row with an impossible state"
    return ""


def _possible(points: np.ndarray) -> np.ndarray:
    """`[n]` bool: E, I, S in [0, 1] and V in [0, 0.3]; a signed V is another quantity."""
    states = points[:, 1:]
    return np.all((states >= -_ROUNDING) & (states <= STATE_MAX + _ROUNDING), axis=1)


@lru_cache(maxsize=1 << 14)
def _expressions(text: str) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[str, int], ...]]:
    """Ids of the expressions in a JSON list of token lists, and what had to be left out by reason."""
    report, ids = LogReport(), []
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        return (), (("observed expression unreadable", 1),)
    for tokens in listed:
        # Rows of older databases hold a whole expression, joined by spaces, as one token.
        names, asked = read_tokens(" ".join(map(str, tokens)) if isinstance(tokens, list) else tokens)
        found = expression_ids(names, "QUESTION" if asked else "", report)
        if found is not None:
            ids.append(found)
    return tuple(ids), tuple(report.dropped.items())


class _Merger:
    """Overlapping real rows become one series; of rows that contradict each other the first stands."""

    def __init__(self, rows: _Rows, merged: _Scratch, report: LogReport, said: list[Utterance]) -> None:
        self._rows, self._merged, self._report, self._said = rows, merged, report, said
        self._times: list[float] = []  # of states at the end that the next row may hold as well
        self._states: list[list[float]] = []
        self._end = self._last = -np.inf
        self._open: list[Utterance] = []
        self._fresh: list[np.ndarray] = []

    def run(self) -> None:
        """Merge all rows, in order of their first states."""
        rows, waiting = self._rows, 0
        chosen = np.flatnonzero(rows.real)
        order = np.argsort(rows.starts[chosen], kind="stable")
        if (np.diff(order) < 0).any():
            self._report.notes.append("the rows were not in order of time and were sorted")
        chosen = chosen[order]
        means = self._means(chosen)
        self._report.drop("row of means over other rows", int(means.sum()))
        for row in chosen[~means].tolist():
            points = rows.of(row)
            before = self._end
            if not self._add(points):
                self._report.drop("row that contradicts another one of the same time")
                continue
            self._hear(rows.said[row], float(points[0, 0]), before)
            waiting += len(points)
            if waiting >= _CHUNK:
                waiting = self._write()
        self._write()
        self._merged.flush()

    def _means(self, chosen: np.ndarray) -> np.ndarray:
        """`[K]` bool: rows that skip over states which rows of finer steps hold.

        A row of consecutive states holds the first state of every row that begins within it; one of means
        over bins, as this project's own legacy files have them at coarser scales, does not.
        """
        rows = self._rows
        starts, ends = rows.starts[chosen], rows.ends[chosen]
        steps = (ends - starts) / (rows.counts[chosen] - 1)
        found = np.zeros(len(chosen), np.bool_)
        until = np.searchsorted(starts, ends, side="left")
        for at in np.flatnonzero(until - np.arange(len(chosen)) > 1).tolist():
            finer = at + 1 + np.flatnonzero(steps[at + 1 : until[at]] * 2 < steps[at])[:1]
            if len(finer):
                times = rows.of(int(chosen[at]))[:, 0]
                found[at] = np.abs(times - starts[finer[0]]).min() > SAME_TIME_S
        return found

    def _add(self, points: np.ndarray) -> bool:
        """Take the states of a row that none before it holds; False where it contradicts those."""
        times, states = points[:, 0].tolist(), points[:, 1:].tolist()
        held = bisect.bisect_right(times, self._end + SAME_TIME_S)
        if held:
            at = bisect.bisect_left(self._times, times[0] - SAME_TIME_S)
            if at == len(self._times) or self._times[at] > times[0] + SAME_TIME_S:
                return False
            del self._times[:at], self._states[:at]
            if self._times[:held] != times[:held] or self._states[:held] != states[:held]:
                differing = self._differing(times[:held], states[:held])
                self._report.drop("state that two rows tell differently", differing)
        else:
            self._times, self._states = [], []
        self._times += times[held:]
        self._states += states[held:]
        self._fresh.append(points[held:])
        self._end = max(self._end, times[-1])
        return True

    def _differing(self, times: Sequence[float], states: Sequence[Sequence[float]]) -> int:
        there, values = np.array(self._times), np.array(self._states)
        at = np.abs(there[None] - np.array(times)[:, None]).argmin(axis=1)
        late = np.abs(there[at] - times) > SAME_TIME_S
        return int((late | (np.abs(values[at] - states) > SAME_STATE).any(axis=1)).sum())

    def _hear(self, said: tuple[tuple[int, ...], ...], start: float, before: float) -> None:
        """Expressions of a row, said between the ends of the row before it and its own.

        Of those that an overlapping row before it has as well, one each is the same.
        """
        self._open = [utterance for utterance in self._open if utterance.time >= start]
        again = [utterance.ids for utterance in self._open]
        for ids in said:
            if ids in again:
                again.remove(ids)
                continue
            utterance = Utterance(self._end, ids)
            self._said.append(utterance)
            if self._end > before:
                self._open.append(utterance)

    def _write(self) -> int:
        if self._fresh:
            points = np.concatenate(self._fresh)
            again = np.diff(points[:, 0], prepend=self._last) == 0
            self._last = points[-1, 0] if len(points) else self._last
            possible = _possible(points)
            self._report.drop("repeated time", int(again.sum()))
            self._report.drop("impossible state", int((~again & ~possible).sum()))
            points = points[possible & ~again]
            points[:, 1:] = np.clip(points[:, 1:], 0.0, STATE_MAX)
            self._merged.append(points)
            self._fresh = []
        return 0


def _files(place: Path) -> list[Path]:
    """The Parquet files of a place: itself, those of its `data/legacy`, its own, or those of its `data`."""
    if not place.is_dir():
        return [place] if place.is_file() else []
    for folder in (place / Path(DATASET.legacy).parent, place, place / "data"):
        files = sorted(folder.glob("*.parquet"))
        if files:
            return files
    return []


def _from_hub(place: HubRows) -> pa.Table:
    """The rows of a repository at its commit, mapped from the cache of `datasets`."""
    import datasets  # a second to import, which local rows need not

    token = read_token() or False
    try:
        with hub_errors(f"read {place.repository}", str(client().endpoint)):
            names = datasets.get_dataset_config_names(place.repository, revision=place.commit, token=token)
            name = CONFIGURATION if CONFIGURATION in names else None
            loaded = datasets.load_dataset(
                place.repository, name, split=SPLIT, revision=place.commit, token=token
            )
    except HubError:
        raise
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise _refused(
            str(place), lines[0], f"a dataset with a split {SPLIT} of the published schema"
        ) from None
    lacking = [name for name in LEGACY.names if name not in loaded.column_names]
    if lacking:
        raise _refused(str(place), f"no column {', '.join(lacking)}", "the published schema")
    return loaded.data.table


def _refused(name: str, found: str, expected: str) -> SourceError:
    return SourceError(
        found=f"{name}: {found}", expected=expected, next="pass a dataset of the published schema"
    )
