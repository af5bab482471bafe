"""Which split each moment belongs to, for all devices at once.

Devices that recorded at the same time share one division of it. So nothing that was measured twice, such as a
thinned copy of a log or two devices in one room, is on both sides of a split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset_builder.configuration import DatasetSettings
from dataset_builder.cutting import Scale, batches, whole, with_shapes
from dataset_builder.splits import TRAIN, Piece, Plan, block_borders, choose_blocks, plan_few, purged
from dataset_builder.spool import Spooled
from eisv_lumen.vocabulary import N_SHAPES

_LONG_ENOUGH = 2
"""A scale decides how long blocks are where the log is at least this many of its windows long."""


@dataclass(frozen=True)
class Recorded:
    """A device's states as recorded, and at the time scales that windows are cut at."""

    series: Spooled
    scales: list[Scale]


def together(devices: Sequence[Recorded]) -> list[list[int]]:
    """Numbers of the devices, in groups whose spans of time overlap."""
    order = sorted(range(len(devices)), key=lambda number: devices[number].series.span)
    groups: list[list[int]] = []
    latest = -np.inf
    for number in order:
        start, end = devices[number].series.span
        if groups and start <= latest:
            groups[-1].append(number)
        else:
            groups.append([number])
        latest = max(latest, end)
    return groups


def plan_together(
    devices: Sequence[Recorded],
    settings: DatasetSettings,
    generator: np.random.Generator,
    held: Sequence[Piece] = (),
) -> list[Plan]:
    """A plan per device of a group: the same division of time, and a purge by its own cadence.

    Args:
        devices: Devices that recorded at the same time.
        settings: Shares, purge, window length and stride.
        generator: Chooses the blocks.
        held: Pieces of time that are divided already, as in a dataset that is grown.
    """
    shares = (settings.splits.validation, settings.splits.test)
    purge = settings.splits.purge_states
    sample = np.sort(np.concatenate([device.series.sample_times() for device in devices]), kind="stable")
    new = sample[~np.any([(sample >= p.start) & (sample <= p.end) for p in held], axis=0)] if held else sample
    total = sum(len(device.series) for device in devices)
    n = round(total * len(new) / max(len(sample), 1))
    borders = block_borders(new, n, purge, _longest(devices, new, settings))
    if len(borders):
        counts = np.concatenate([_counts(device, borders, settings) for device in devices], axis=1)
        blocks = choose_blocks(shares, generator, counts)
        plans = [purged(borders, blocks, purge * device.series.step) for device in devices]
    elif len(new):
        plans = [plan_few(new, shares=shares, purge=purge)] * len(devices)
    else:
        plans = [Plan(np.zeros(0), np.array([TRAIN]))] * len(devices)
    for piece in held:
        plans = [
            plan.overlaid(piece, purge * device.series.step)
            for plan, device in zip(plans, devices, strict=True)
        ]
    return plans


def _longest(devices: Sequence[Recorded], times: np.ndarray, settings: DatasetSettings) -> float:
    """Seconds that the longest window of interest covers."""
    duration = float(np.ptp(times)) if len(times) else 0.0
    cadences = {scale.cadence for device in devices for scale in device.scales}
    spans = [settings.length * cadence for cadence in cadences if np.isfinite(cadence)]
    return max((span for span in spans if duration >= _LONG_ENOUGH * span), default=min(spans, default=0.0))


def _counts(device: Recorded, borders: np.ndarray, settings: DatasetSettings) -> np.ndarray:
    """`[blocks, shapes]` windows of a device that begin in each block."""
    counts = np.zeros((len(borders) + 1, N_SHAPES))
    found = ((None, b) for scale in device.scales for b in batches(scale, whole(scale.series), settings))
    for _, batch, _, shapes in with_shapes(found):
        np.add.at(counts, (np.searchsorted(borders, batch.times[:, 0], side="right"), shapes), 1)
    return counts
