"""Windows known by their summaries alone: those of a split, or published ones read from a CSV file."""

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from eisv_lumen.errors import SourceError
from eisv_lumen.vocabulary import DIMENSIONS, SHAPE_ID, SHAPES
from eisv_lumen.windows import Summaries, summaries
from training.data import Split

MEAN = DIMENSIONS
FIRST = tuple(f"d{dimension}" for dimension in DIMENSIONS)
SECOND = tuple(f"d2{dimension}" for dimension in DIMENSIONS)
COLUMNS = ("shape", "n_states", "duration_s", *MEAN, *FIRST, *SECOND)
"""Columns a file of window summaries must have; it may have others, such as `record`."""

_NUMBERS = COLUMNS[1:]


@dataclass(frozen=True)
class SummarisedWindows:
    """N windows, as far as a prompt and a score know them.

    Attributes:
        shapes: `[N]` shape ids the voices are told and judged by.
        summaries: What the prompts say.
        patterns: `[N]` pattern ids of the reference labels, or None where there are none.
        sequence: `[N]` which recording each window was cut from (see `metrics.consecutive`), or None
            where it is not known which windows follow each other.
    """

    shapes: np.ndarray
    summaries: Summaries
    patterns: np.ndarray | None = None
    sequence: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.shapes)

    def __getitem__(self, rows: np.ndarray) -> Self:
        """The chosen windows."""
        return type(self)(
            self.shapes[rows],
            Summaries(**{name: values[rows] for name, values in vars(self.summaries).items()}),
            None if self.patterns is None else self.patterns[rows],
            None if self.sequence is None else self.sequence[rows],
        )


def of_split(split: Split) -> SummarisedWindows:
    """A split's windows with their robust labels; recordings as sequences."""
    return SummarisedWindows(split.shapes, summaries(split.windows), split.patterns, sequences(split))


def sequences(split: Split) -> np.ndarray:
    """`[N]` which recording and time scale each window was cut from; generated windows stand alone."""
    recorded = np.char.add(np.char.add(split.source, "|"), split.scale)
    return np.where(split.real, recorded, np.char.add("window ", np.arange(len(split)).astype(str)))


def read_windows_csv(path: Path) -> SummarisedWindows:
    """Window summaries from a CSV file, plain or gzipped, with the shapes that were published for them.

    Args:
        path: A file with the columns `COLUMNS`: the published label; how many states over how many seconds;
            the mean state; mean first (per s) and second (per s squared) derivatives.

    Raises:
        SourceError: The file cannot be read, lacks a column, holds no rows, or a row that no window can have.
    """
    reader = csv.reader(io.StringIO(_text(path)), strict=True)
    shapes: list[int] = []
    numbers: list[list[float]] = []
    try:
        header = next(reader, [])
        place = _places(path, header)
        for row in reader:
            if not row:
                continue
            shape, values = _read_row(f"{path.name}, line {reader.line_num}", row, len(header), place)
            shapes.append(shape)
            numbers.append(values)
    except csv.Error as error:
        raise _refused(f"{path.name}, line {reader.line_num}: {error}", "comma-separated values") from error
    if not shapes:
        raise _refused(f"{path.name} without a row", "at least one window")
    table = np.array(numbers)
    mean, first, second = np.split(table[:, 2:], 3, axis=1)
    return SummarisedWindows(
        np.array(shapes), Summaries(table[:, 0].astype(np.int64), table[:, 1], mean, first, second)
    )


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise _refused(f"{path.name}: {reason}", "a readable CSV file (.csv or .csv.gz)") from error


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """Column number of each of `COLUMNS`."""
    names = [name.strip() for name in header]
    for name in COLUMNS:
        if names.count(name) != 1:
            found = "without" if name not in names else "with more than one"
            raise _refused(
                f"{path.name} {found} column {name!r}", f"the columns {' '.join(COLUMNS)}, once each"
            )
    return {name: names.index(name) for name in COLUMNS}


def _read_row(where: str, row: list[str], width: int, place: dict[str, int]) -> tuple[int, list[float]]:
    """Shape id and numbers, in the order of `COLUMNS`, of one row."""
    if len(row) != width:
        raise _refused(f"{where}: {len(row)} fields", f"{width}, as in the first line")
    name = row[place["shape"]].strip()
    if name not in SHAPE_ID:
        raise _refused(f"{where}: shape {name!r}", f"one of {' '.join(SHAPES)}")
    return SHAPE_ID[name], [_number(where, column, row[place[column]]) for column in _NUMBERS]


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    fits, expected = np.isfinite(value), "a finite number"
    if column == "n_states":
        fits, expected = fits and value >= 1 and value == int(value), "a whole number of at least 1"
    elif column == "duration_s":
        fits, expected = fits and value >= 0, "seconds, not below 0"
    elif column in MEAN:
        fits, expected = fits and 0 <= value <= 1, "a mean from 0 to 1"
    if not fits:
        raise _refused(f"{where}: {column} {text!r}", expected)
    return value


def _refused(found: str, expected: str) -> SourceError:
    return SourceError(
        found=found,
        expected=expected,
        next="mend the file, or pass another one as --windows-csv",
    )
