"""Coarser time scales: means over bins, streamed from one spool into another."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataset_builder.spool import Spooled, SpoolWriter

COARSER = 1.5
"""A scale must be this much coarser than the log itself."""


def binned(series: Spooled, cadence: float, folder: Path) -> Spooled | None:
    """Mean time and state of each bin of `cadence` seconds; None where the log is too coarse for it.

    Bins begin at multiples of the cadence, so that they stay where they are when a log grows; none holds
    states of two segments. A bin with less than half as many states as the log's usual step gives is left
    out.
    """
    if not cadence >= COARSER * series.step:
        return None
    writer, borders = SpoolWriter(folder), list[int]()
    for start, stop in series.parts():
        for times, states in _bins(series, start, stop, cadence):
            writer.append(times, states)
        if writer.n > (borders[-1] if borders else 0):
            borders.append(writer.n)
    return writer.finish(borders[:-1])


def _bins(series: Spooled, start: int, stop: int, cadence: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    usual = cadence / series.step
    carried: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros((0, 4), np.float32))
    for times, states in series.chunks(start, stop):
        times, states = np.concatenate([carried[0], times]), np.concatenate([carried[1], states])
        # The last bin may go on in the next chunk.
        whole = int(np.searchsorted(times, np.floor(times[-1] / cadence) * cadence, side="left"))
        carried = times[whole:], states[whole:]
        if whole:
            yield _means(times[:whole], states[:whole], cadence, usual)
    if len(carried[0]):
        yield _means(*carried, cadence, usual)


def _means(
    times: np.ndarray, states: np.ndarray, cadence: float, usual: float
) -> tuple[np.ndarray, np.ndarray]:
    starts = np.flatnonzero(np.diff(np.floor(times / cadence), prepend=np.nan) != 0)
    counts = np.diff(np.append(starts, len(times)))
    # Seconds since the first state: sums of epoch times would lose the milliseconds.
    elapsed = np.add.reduceat(times - times[0], starts) / counts
    means = np.add.reduceat(states.astype(np.float64), starts, axis=0) / counts[:, None]
    kept = 2 * counts >= usual
    return times[0] + elapsed[kept], means[kept]
