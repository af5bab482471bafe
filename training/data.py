"""A dataset folder as arrays: one split of its windows, with labels, expressions and origin."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eisv_lumen import artifact, expression
from eisv_lumen.errors import ArtifactError, LumenError
from eisv_lumen.layouts import DATASET, HELD_OUT_SYNTHETIC, SPLITS
from eisv_lumen.vocabulary import MAX_TOKENS, SHAPE_ID, SHAPES
from eisv_lumen.windows import WINDOW_LENGTH, Windows

_COLUMNS = (
    "window_id",
    "source",
    "device",
    "provenance",
    "scale",
    "cadence_s",
    "t_start",
    "t_end",
    "times",
    "states",
    "ethical_drift",
    "shape",
    "shape_published",
    "tokens",
    "pattern",
    "observed_tokens",
    "observed_pattern",
    "observed_score",
)


@dataclass(frozen=True)
class Split:
    """N windows of one split.

    Attributes:
        windows: The windows `[N, T]`, shorter ones padded and masked.
        shapes: `[N]` ids of the default (robust) labels.
        shapes_published: `[N]` ids of the published rules' labels.
        ids: `[N, 3]` the expression each window was labelled with.
        window_ids: `[N]` names, unique over the dataset.
        provenance: `[N]` "real" or "synthetic".
        source: `[N]` name of the log or generator a window came from.
        device: `[N]` the device that recorded it.
        scale: `[N]` "native", "30s", "300s".
        cadence: `[N]` seconds between states.
        t_start: `[N]` seconds since 1970; `t_end` likewise.
        observed_ids: `[N, 3]` the expression that was really said, -1 where none was recorded.
        observed_scores: `[N]` its score in 0..1, NaN where none was recorded.
    """

    windows: Windows
    shapes: np.ndarray
    shapes_published: np.ndarray
    ids: np.ndarray
    window_ids: np.ndarray
    provenance: np.ndarray
    source: np.ndarray
    device: np.ndarray
    scale: np.ndarray
    cadence: np.ndarray
    t_start: np.ndarray
    t_end: np.ndarray
    observed_ids: np.ndarray
    observed_scores: np.ndarray

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.window_ids)

    def __getitem__(self, index: np.ndarray | slice) -> Self:
        """The chosen windows."""
        return type(self)(**{name: values[index] for name, values in vars(self).items()})

    @property
    def patterns(self) -> np.ndarray:
        """`[N]` pattern ids of the expressions the windows were labelled with."""
        return expression.patterns_of(self.ids)

    @property
    def real(self) -> np.ndarray:
        """`[N]` bool: recorded, not generated."""
        return self.provenance == "real"


def read_split(folder: Path, split: str) -> Split:
    """The windows of one split of a dataset folder, with the synthetic ones that are held out beside it.

    Raises:
        ArtifactError: The folder is no dataset, or the split's file is missing or lacks columns.
        WindowError: A window holds values that no window may hold.
    """
    folder = Path(folder)
    artifact.Manifest.read(folder, kind="dataset")
    path = folder / DATASET.windows(split)
    made = folder / DATASET.windows(HELD_OUT_SYNTHETIC.get(split, split))
    tables = [_read_table(path), *([_read_table(made)] if made != path and made.is_file() else [])]
    try:
        return _split_of(pa.concat_tables(tables))
    except LumenError:
        raise
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise _unreadable(path, f"{type(error).__name__} {error}") from error


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path, columns=list(_COLUMNS))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, str(error).splitlines()[0]) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise _unreadable(path, f"no column {missing[0]!r}")
    return table


def read_splits(folder: Path, splits: tuple[str, ...] = SPLITS) -> dict[str, Split]:
    """Several splits by name."""
    return {split: read_split(folder, split) for split in splits}


def labelling_weights(folder: Path) -> dict[str, Any]:
    """The state of the rules that labelled a dataset, as `Rules.from_dict` reads it.

    Raises:
        ArtifactError: The folder is no dataset or holds no readable weights.
    """
    folder = Path(folder)
    artifact.Manifest.read(folder, kind="dataset")
    try:
        return json.loads((folder / DATASET.weights).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(folder / DATASET.weights, type(error).__name__) from error


def _split_of(table: pa.Table) -> Split:
    column = {name: table[name].combine_chunks() for name in _COLUMNS}
    observed_ids, observed_scores = _observed(column)
    return Split(
        windows=_windows(column["states"], column["times"], column["ethical_drift"]).validate(),
        shapes=_shape_ids(column["shape"]),
        shapes_published=_shape_ids(column["shape_published"]),
        ids=_expression_ids(column["tokens"], column["pattern"]),
        **{
            name: np.array(column[key].to_pylist(), dtype=object).astype(str)
            for name, key in (
                ("window_ids", "window_id"),
                ("provenance", "provenance"),
                ("source", "source"),
                ("device", "device"),
                ("scale", "scale"),
            )
        },
        cadence=_numbers(column["cadence_s"]),
        t_start=_numbers(column["t_start"]),
        t_end=_numbers(column["t_end"]),
        observed_ids=observed_ids,
        observed_scores=observed_scores,
    )


def _windows(states: pa.Array, times: pa.Array, drift: pa.Array) -> Windows:
    lengths = _numbers(times.value_lengths()).astype(int) if len(times) else np.zeros(0, int)
    if len(times) and (_numbers(states.value_lengths()) != lengths).any():
        raise ValueError("as many times as states in every window")
    mask = np.arange(lengths.max(initial=WINDOW_LENGTH))[None] < lengths[:, None]
    rows, flat_times = states.flatten(), _numbers(times.flatten())
    if len(rows) and (_numbers(rows.value_lengths()) != 4).any():
        raise ValueError("a state of other than 4 numbers")
    flat_states = _numbers(rows.flatten()).reshape(len(rows), 4)
    packed_states, packed_times = np.zeros((*mask.shape, 4)), np.zeros(mask.shape)
    packed_states[mask], packed_times[mask] = flat_states, flat_times
    return Windows.of(packed_states, packed_times, mask, _drift(drift, mask))


def _drift(column: pa.Array, mask: np.ndarray) -> np.ndarray | None:
    if column.null_count == len(column):
        return None
    drift = np.zeros(mask.shape)
    for row, values in enumerate(column.to_pylist()):
        if values is not None:
            drift[row, : len(values)] = np.nan_to_num(np.array(values, np.float64))
    return drift


def _observed(column: dict[str, pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    tokens, patterns = column["observed_tokens"], column["observed_pattern"]
    ids = np.full((len(tokens), MAX_TOKENS), -1, np.int64)
    for row in np.flatnonzero(tokens.is_valid().to_numpy(zero_copy_only=False)):
        names = tokens[row].as_py()
        if names:
            ids[row] = expression.from_published(names, patterns[row].as_py()).ids
    scores = np.array([np.nan if s is None else s for s in column["observed_score"].to_pylist()], np.float64)
    return ids, scores


def _expression_ids(tokens: pa.Array, patterns: pa.Array) -> np.ndarray:
    written = [
        expression.Expression(tuple(name.strip("~") for name in names), pattern)
        for names, pattern in zip(tokens.to_pylist(), patterns.to_pylist(), strict=True)
    ]
    return expression.encode(written)


def _shape_ids(column: pa.Array) -> np.ndarray:
    names = column.to_pylist()
    unknown = [name for name in names if name not in SHAPE_ID]
    if unknown:
        raise ValueError(f"shape {unknown[0]!r}, expected one of {' '.join(SHAPES)}")
    return np.array([SHAPE_ID[name] for name in names], np.int64)


def _numbers(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)


def _unreadable(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        found=f"{path}: {found}",
        expected="a split of a dataset folder",
        next="build the dataset again: python -m dataset_builder.build --config "
        "dataset_builder/configs/default.yaml --source LOG --out DIR",
    )
