"""The dataset's files: Parquet with plain typed columns, the same types and the same bytes every time."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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


def write(path: Path, schema: pa.Schema, parts: Iterable[dict[str, Any]]) -> None:
    """Write a table, one row group per part, so that only one part is in memory.

    Args:
        path: The file to make.
        schema: One of the schemas above; its column types are what the `datasets` library shows.
        parts: Per column an arrow array, a numpy array or a list; all of the same length.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    described = schema.with_metadata({b"huggingface": json.dumps(_features(schema)).encode()})
    with pq.ParquetWriter(
        path, described, compression="zstd", compression_level=6, version="2.6", store_schema=True
    ) as file:
        for columns in parts:
            file.write_table(
                pa.Table.from_arrays([_array(columns[f.name], f) for f in schema], schema=described)
            )


def _array(values: Any, field: pa.Field) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    # A list, because from numpy objects arrow would import pandas first.
    return pa.array(values.tolist() if isinstance(values, np.ndarray) else values, field.type)


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


def messages(turns: Sequence[Sequence[dict[str, str]]]) -> pa.Array:
    """A conversation per row."""
    return pa.array(list(turns), _MESSAGES)


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
