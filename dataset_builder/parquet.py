"""The dataset's files: Parquet with plain typed columns, the same types and the same bytes every time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPREAD = frozenset({"states", "times", "t_start", "t_end"})
"""Columns of measured numbers: stored byte by byte, which compresses them best."""
UNREPEATED = SPREAD | {"window_id", "eisv_states", "derivatives"}
"""Columns whose values hardly repeat: a dictionary would only take room, as would their least and largest."""

_LEVEL = 1
"""Of the compression: texts in small pages and numbers byte by byte gain next to nothing from slower ones."""
_PAGE = 1 << 15
"""Bytes after which a page of long texts ends."""
_TEXT = pa.string()
_TEXTS, _REALS = pa.list_(pa.string()), pa.list_(pa.float32())
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

WINDOWS = pa.schema(
    [
        ("window_id", _TEXT),
        ("source", _TEXT),
        ("device", _TEXT),
        ("provenance", _TEXT),
        ("scale", _TEXT),
        ("cadence_s", pa.float32()),
        ("t_start", pa.float64()),
        ("t_end", pa.float64()),
        ("times", _REALS),
        ("states", pa.list_(_REALS)),
        ("ethical_drift", _REALS),
        ("shape", _TEXT),
        ("shape_published", _TEXT),
        ("tokens", _TEXTS),
        ("pattern", _TEXT),
        ("expression", _TEXT),
        ("lumen_words", _TEXTS),
        ("observed_tokens", _TEXTS),
        ("observed_pattern", _TEXT),
        ("observed_score", pa.float32()),
        ("observed_feedback", _TEXTS),
    ]
)
EXPRESSIONS = pa.schema(
    [
        ("window_id", _TEXT),
        ("provenance", _TEXT),
        ("shape", _TEXT),
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("pattern", _TEXT),
    ]
)
LEGACY = pa.schema(
    [
        ("shape", _TEXT),
        ("eisv_states", _TEXT),
        ("derivatives", _TEXT),
        ("t_start", pa.float64()),
        ("t_end", pa.float64()),
        ("provenance", _TEXT),
        ("tokens", _TEXT),
        ("n_expressions", pa.int64()),
    ]
)


class ParquetFile:
    """A table on its way to its file, a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema, *, page_rows: int | None = None) -> None:
        """Open a file of one of the schemas above; its column types are what the `datasets` library shows.

        Args:
            path: The file; its folder is made.
            schema: What it holds.
            page_rows: Most rows in a page of long texts; else arrow's own 1024 or more.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema = described(schema)
        numbers = [name for name in _leaves(schema) if name.split(".")[0] in SPREAD]
        self._file = pq.ParquetWriter(
            path,
            self.schema,
            compression="zstd",
            compression_level=_LEVEL,
            version="2.6",
            store_schema=True,
            write_statistics=[name for name in _leaves(schema) if name.split(".")[0] not in UNREPEATED],
            use_dictionary=[name for name in _leaves(schema) if name.split(".")[0] not in UNREPEATED],
            column_encoding=dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
            **({"write_batch_size": page_rows, "data_page_size": _PAGE} if page_rows else {}),
        )

    def write(self, columns: Mapping[str, Any]) -> pa.Table:
        """Write one row group: per column an arrow array, a numpy array or a list, of the same length."""
        arrays = [_array(columns[field.name], field) for field in self.schema]
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        self.write_table(table)
        return table

    def write_table(self, table: pa.Table) -> None:
        """Write rows of the file's own schema."""
        self._file.write_table(table, row_group_size=max(len(table), 1))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def described(schema: pa.Schema) -> pa.Schema:
    """The schema with the features that the `datasets` library reads from a file's metadata."""
    return schema.with_metadata({b"huggingface": json.dumps(_features(schema)).encode()})


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns that Parquet stores, as its writer names them."""
    return [path for field in schema for path in _paths(field.name, field.type)]


def _paths(name: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind):
        return _paths(f"{name}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [path for field in kind for path in _paths(f"{name}.{field.name}", field.type)]
    return [name]


def _array(values: Any, field: pa.Field) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    # A list, because from numpy objects arrow would import pandas first.
    return pa.array(values.tolist() if isinstance(values, np.ndarray) else values, field.type)


def repeated(choices: Sequence[Any], which: np.ndarray, kind: pa.DataType) -> pa.Array:
    """`[N]` one of a few values for each row."""
    # Not by `take`: loading arrow's compute functions takes longer than all of this.
    return pa.array([choices[number] for number in which.tolist()], kind)


def number_lists(values: np.ndarray, present: np.ndarray | None = None) -> pa.Array:
    """A list of numbers per row of `[N, T]`, a list of lists of `[N, T, K]`; null where not present."""
    n, length = values.shape[:2]
    if values.ndim == 3:
        inner = np.arange(n * length + 1, dtype=np.int32) * values.shape[2]
        flat: pa.Array = pa.ListArray.from_arrays(inner, pa.array(values.reshape(-1), pa.float32()))
        return pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * length, flat)
    if present is None:
        present = np.ones(n, bool)
    flat = pa.array(values[present].reshape(-1), pa.float32())
    offsets = np.concatenate([[0], np.cumsum(present * length)]).astype(np.int32)
    mask = np.concatenate([~present, [False]])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32(), mask=mask), flat)


def messages(*turns: tuple[str, str | Sequence[str]]) -> pa.Array:
    """A conversation per row, of turns `(role, content)`; one content is the same in all, or one per row."""
    rows = next(len(content) for _, content in turns if not isinstance(content, str))
    contents = [[content] * rows if isinstance(content, str) else content for _, content in turns]
    spoken = pa.array([content for row in zip(*contents, strict=True) for content in row], _TEXT)
    roles = repeated([role for role, _ in turns], np.tile(np.arange(len(turns)), rows), _TEXT)
    both = pa.StructArray.from_arrays([roles, spoken], fields=list(_MESSAGES.value_type))
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * len(turns), both, type=_MESSAGES)


def _features(schema: pa.Schema) -> dict[str, Any]:
    return {"info": {"features": {field.name: _feature(field.type) for field in schema}}}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A type as the `datasets` library writes it into a Parquet file's metadata."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
