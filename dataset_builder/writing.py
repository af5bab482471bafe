"""The files of a dataset while they are written: rows are gathered into row groups of a fixed size."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from dataset_builder.measuring import Delta, Tally
from dataset_builder.parquet import EXPRESSIONS, LEGACY, WINDOWS, ParquetFile
from dataset_builder.rows import Rows, expression_columns, window_columns
from dataset_builder.table import REAL
from eisv_lumen.layouts import ALL_SPLITS, DATASET, HELD_OUT_SYNTHETIC

ROW_GROUP = 4096
"""Rows per row group; bounds the memory that writing takes."""
_LEGACY_PAGE_ROWS = 44
"""Pages of the published texts of just under 64 kB, which zstd's fastest level compresses best."""


class SplitWriter:
    """The rows of one split, in the configurations `windows` and `expressions`."""

    def __init__(self, folder: Path, name: str, tally: Tally, delta: Delta) -> None:
        self._tally, self._delta = tally, delta
        self._split = next((split for split, made in HELD_OUT_SYNTHETIC.items() if made == name), name)
        self._windows = ParquetFile(folder / DATASET.windows(name), WINDOWS)
        self._expressions = ParquetFile(folder / DATASET.expressions(name), EXPRESSIONS)
        self._waiting: list[Rows] = []
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Rows that follow those before."""
        if not len(rows):
            return
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= ROW_GROUP:
            self._write()

    def copy(self, windows: pa.Table | None = None, expressions: pa.Table | None = None) -> None:
        """Rows that another dataset has written."""
        if windows is not None:
            self._tally.add(self._split, windows)
            self._windows.write_table(windows)
        if expressions is not None:
            self._expressions.write_table(expressions)

    def close(self) -> None:
        """Write what is waiting, and finish the files."""
        self._write(rest=True)
        self._windows.close()
        self._expressions.close()

    def _write(self, *, rest: bool = False) -> None:
        if not self._waiting:
            return
        whole = Rows.join(self._waiting)
        stop = len(whole) if rest else len(whole) - len(whole) % ROW_GROUP
        for start in range(0, stop, ROW_GROUP):
            rows = whole[np.arange(start, min(start + ROW_GROUP, stop))]
            names = rows.table.names()
            written = self._windows.write(window_columns(rows, names))
            self._tally.add(self._split, written)
            real = np.flatnonzero(rows.table.provenance == REAL)
            self._delta.add([names[row] for row in real], rows.table.start[real], rows.table.states[real])
            self._expressions.write(expression_columns(rows, names))
        self._waiting = [whole[np.arange(stop, len(whole))]] if stop < len(whole) else []
        self._count = len(whole) - stop


class LegacyWriter:
    """The rows of the `legacy` configuration."""

    def __init__(self, folder: Path) -> None:
        self._file = ParquetFile(folder / DATASET.legacy, LEGACY, page_rows=_LEGACY_PAGE_ROWS)

    def add(self, columns: dict[str, object]) -> None:
        """Rows that follow those before."""
        self._file.write(columns)

    def copy(self, rows: pa.Table) -> None:
        """Rows that are written already."""
        self._file.write_table(rows)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def split_writers(folder: Path, tally: Tally, delta: Delta) -> dict[str, SplitWriter]:
    """One for each split, by name."""
    return {name: SplitWriter(folder, name, tally, delta) for name in ALL_SPLITS}
