"""Real windows: series cut at several time scales, within their splits."""

import numpy as np

from dataset_builder.configuration import DatasetSettings, scale_cadence
from dataset_builder.sources import Content
from dataset_builder.splits import assign, runs
from dataset_builder.table import REAL, Table
from eisv_lumen.layouts import SPLITS
from eisv_lumen.series import Series, bin_means, sliding
from eisv_lumen.shapes import classify
from eisv_lumen.windows import Windows, concatenate

COARSER = 1.5
"""A scale must be this much coarser than the log itself."""
_LONG_ENOUGH = 2
"""A scale decides how long blocks are where the log is at least this many of its windows long."""


def cut_content(content: Content, settings: DatasetSettings) -> tuple[list[Table], int]:
    """Windows of all devices of a source at all scales, and how many states the purge left out."""
    tables, purged = [], 0
    for number, (device, series) in enumerate(content.devices.items()):
        split = _split(series, settings, np.random.default_rng([settings.seed, number]))
        purged += int((split < 0).sum())
        for which in range(len(SPLITS)):
            parts = runs(series, split, which)
            for scale in settings.scales:
                cadence = scale_cadence(scale)
                windows = cut(series, parts, cadence, settings)
                if len(windows):
                    tables.append(
                        Table.of(
                            windows,
                            source=content.source.name,
                            device=device,
                            provenance=REAL,
                            scale=scale,
                            cadence=cadence or series.step,
                            split=which,
                        )
                    )
    return tables, purged


def cut(series: Series, parts: list[slice], cadence: float | None, settings: DatasetSettings) -> Windows:
    """Windows within the given stretches, of states as recorded or of their means over bins."""
    if cadence is None:
        return sliding(series.states, series.times, settings.length, settings.stride, within=[*parts])
    none = sliding(series.states[:0], series.times[:0], settings.length, settings.stride)
    if not cadence >= COARSER * series.step:
        return none
    found = [none]
    for part in parts:
        times, states = bin_means(series.times[part], series.states[part], cadence)
        found.append(sliding(states, times, settings.length, settings.stride, within=[slice(0, len(times))]))
    return concatenate(found)


def _split(series: Series, settings: DatasetSettings, generator: np.random.Generator) -> np.ndarray:
    duration = float(np.ptp(series.times)) if len(series) else 0.0
    spans = [settings.length * (scale_cadence(scale) or series.step) for scale in settings.scales]
    longest = max((span for span in spans if duration >= _LONG_ENOUGH * span), default=min(spans))
    return assign(
        series,
        shares=(settings.splits.validation, settings.splits.test),
        purge=settings.splits.purge_states,
        longest=longest,
        generator=generator,
        marks=_marks(series, settings),
    )


def _marks(series: Series, settings: DatasetSettings) -> tuple[np.ndarray, np.ndarray]:
    """Middle time and shape of the windows that the whole series would give."""
    found = [cut(series, list(series.segments), scale_cadence(scale), settings) for scale in settings.scales]
    windows = concatenate(found)
    if not len(windows):
        return np.zeros(0), np.zeros(0, np.int64)
    return windows.times[:, windows.times.shape[1] // 2], classify(windows)
