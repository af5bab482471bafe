"""Rows of the `legacy` configuration: the published schema, with its JSON texts.

The texts are made of digits by array arithmetic, every number padded to the same width, so that a window's
text is its states' texts side by side.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_builder import parquet
from eisv_lumen.expression import Expression, to_published
from eisv_lumen.vocabulary import DIMENSIONS, SHAPES

STATE_DECIMALS, TIME_DECIMALS = 4, 3
PROVENANCE = {"real": "lumen_real", "synthetic": "synthetic"}

_FOURS = np.frombuffer("".join(f"{number:04}" for number in range(10_000)).encode(), np.uint32)
"""The four characters of each number below 10,000."""


def legacy_columns(
    times: np.ndarray,
    states: np.ndarray,
    at: np.ndarray,
    shapes: np.ndarray,
    said: Mapping[int, np.ndarray],
    *,
    provenance: str,
    cadence: float,
) -> dict[str, Any]:
    """Columns exactly as published so far.

    Args:
        times: `[M]` seconds since the epoch, ascending within a window.
        states: `[M, 4]` E, I, S, V.
        at: `[N, T]` rows of the states of each window, one after the other.
        shapes: `[N]` shape ids of the published rules.
        said: Per row the expressions `[K, 3]` that were said in it; rows without any may be left out.
        provenance: `real` or `synthetic`.
        cadence: Seconds between states. Derivatives get as many decimals as the states' let be known.
    """
    states = states.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.diff(states, axis=0, append=np.nan) / np.diff(times, append=np.nan)[:, None]
    # Between two windows that do not touch no time may pass; that rate is in neither.
    rates[~np.isfinite(rates)] = 0.0
    decimals = STATE_DECIMALS + int(np.clip(np.round(np.log10(max(cadence, 1e-9))), 0, 5))
    tokens, counts = ["[]"] * len(at), np.zeros(len(at), np.int64)
    for row, several in said.items():
        tokens[row] = json.dumps([to_published(Expression.from_ids(ids)) for ids in several])
        counts[row] = len(several)
    moments = _digits(times, TIME_DECIMALS)
    later = np.concatenate([moments[1:], moments[-1:]])
    length = at.shape[1]
    return {
        "shape": parquet.repeated(SHAPES, shapes, pa.string()),
        "eisv_states": _json_lists(_points(moments, states, DIMENSIONS, STATE_DECIMALS), at[:, 0], length),
        "derivatives": _json_lists(
            _points(later, rates, [f"d{name}" for name in DIMENSIONS], decimals), at[:, 0], length - 1
        ),
        "t_start": times[at[:, 0]],
        "t_end": times[at[:, -1]],
        "provenance": [PROVENANCE[provenance]] * len(at),
        "tokens": tokens,
        "n_expressions": counts,
    }


def _points(moments: np.ndarray, values: np.ndarray, names: Sequence[str], decimals: int) -> np.ndarray:
    """`[M, W]` bytes: the text of `{t, name: value, …}` for each row, with a comma in front.

    Args:
        moments: `[M, K]` the times' texts.
        values: `[M, len(names)]`.
        names: What the values are called.
        decimals: Of the values.
    """
    columns = [_constant(',{"t":'), moments]
    for name, numbers in zip(names, values.T, strict=True):
        columns += [_constant(f',"{name}":'), _digits(numbers, decimals, sign=True)]
    columns.append(_constant("}"))
    text = np.empty((len(values), sum(column.shape[-1] for column in columns)), np.uint8)
    place = 0
    for column in columns:
        text[:, place : place + column.shape[-1]] = column
        place += column.shape[-1]
    return text


def _json_lists(points: np.ndarray, first: np.ndarray, length: int) -> pa.Array:
    """`[N]` JSON lists of so many points each, which follow each other from the first on."""
    n, width = len(first), length * points.shape[1]
    text = np.empty((n, width + 1), np.uint8)
    text[:, :-1] = np.lib.stride_tricks.sliding_window_view(points.ravel(), width)[first * points.shape[1]]
    text[:, 0] = ord("[")
    text[:, -1] = ord("]")
    offsets = np.arange(n + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))


def _constant(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _digits(values: np.ndarray, decimals: int, *, sign: bool = False) -> np.ndarray:
    """`[n, W]` the numbers as text of one width: sign or space, digits, point, decimals."""
    scaled = np.rint(np.abs(values) * 10.0**decimals).astype(np.int64)
    whole = len(str(int(scaled.max(initial=0)) // 10**decimals))
    digits = _all_digits(scaled, whole + decimals)
    text = np.empty((len(values), sign + whole + 1 + decimals), np.uint8)
    text[:, sign : sign + whole] = digits[:, :whole]
    text[:, sign + whole] = ord(".")
    text[:, sign + whole + 1 :] = digits[:, whole:]
    # JSON knows no leading zeros, and a sign stands right before its number.
    first = np.full(len(values), int(sign))
    for place in range(sign, sign + whole - 1):
        leading = (first == place) & (text[:, place] == ord("0"))
        if not leading.any():
            break
        text[leading, place] = ord(" ")
        first += leading
    if sign:
        text[:, 0] = ord(" ")
        negative = np.flatnonzero((values < 0) & (scaled > 0))
        text[negative, first[negative] - 1] = ord("-")
    return text


def _all_digits(numbers: np.ndarray, count: int) -> np.ndarray:
    """`[n, count]` the last digits of whole numbers as characters, looked up four at a time."""
    fours = np.empty((len(numbers), -(-count // 4)), np.uint32)
    for place in range(fours.shape[1] - 1, 0, -1):
        rest = numbers // 10_000
        fours[:, place] = _FOURS[numbers - 10_000 * rest]
        numbers = rest
    fours[:, 0] = _FOURS[numbers]
    return fours.view(np.uint8)[:, -count:]
