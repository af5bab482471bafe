"""A listener that is allowed everything: wide, trained for one condition, on as many windows as it likes.

What it does not hear can hardly be heard by a network that has to fit into a megabyte and to hear everything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier

from eisv_lumen.shapes import levels
from eisv_lumen.vocabulary import N_SHAPES, STATE_MAX
from eisv_lumen.windows import WINDOW_LENGTH, Windows
from training.student.batches import inputs_of
from training.student.modeling_eisv_lumen import TrajectoryTransformer
from training.student.tables import new_model

Source = Callable[[int, np.random.Generator], tuple[Windows, np.ndarray]]
"""Makes so many windows in the condition that is listened to, and their shapes `[N]`."""

BLOCKS = 10
"""Blocks of time, each heard by a forest that learnt from the others."""
TREES = 300
"""Of each forest."""

_GAINS = np.array([4.0, 16.0, 64.0])
_BATCH = 500
_AT_ONCE = 20_000
_LEARNING_RATE = 2e-3
_WARM_UP = 0.05
_SMALLEST = 1e-3


@dataclass(frozen=True)
class Effort:
    """How hard a listener tries.

    Attributes:
        windows: Fresh windows that it is trained on.
        passes: How often it sees each.
        width: Width of its three hidden layers.
    """

    windows: int = 400_000
    passes: int = 4
    width: int = 384


def trained(source: Source, effort: Effort, generator: np.random.Generator) -> torch.nn.Module:
    """A network that tells shapes from the `features` of windows."""
    torch.manual_seed(int(generator.integers(2**31)))
    network: torch.nn.Module | None = None
    chunks = max(1, effort.windows // _AT_ONCE)
    for chunk in range(chunks):
        windows, shapes = source(min(effort.windows, _AT_ONCE), generator)
        inputs, labels = torch.from_numpy(features(windows)), torch.from_numpy(shapes)
        if network is None:
            network = _network(inputs.shape[1], effort.width)
            optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        for turn in range(effort.passes):
            done = (chunk + turn / effort.passes) / chunks
            rate = _LEARNING_RATE * min(1.0, done / _WARM_UP + 0.01) * (1.0 + np.cos(np.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            for batch in torch.randperm(len(inputs)).split(_BATCH):
                loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    assert network is not None
    return network.eval()


def heard(network: torch.nn.Module, windows: Windows) -> np.ndarray:
    """`[N]` shapes that a trained network hears."""
    with torch.inference_mode():
        return network(torch.from_numpy(features(windows))).argmax(dim=1).numpy()


def heard_by_others(windows: Windows, shapes: np.ndarray, spans: np.ndarray, seed: int) -> np.ndarray:
    """`[N]` shapes that forests hear, each in one block of time after learning from the others.

    Args:
        windows: `[N]` windows.
        shapes: `[N]` their true shapes.
        spans: `[N, 2]` when each begins and ends; what overlaps the block is not learnt from.
        seed: Of the forests.
    """
    seen, found = features(windows), np.zeros(len(shapes), np.int64)
    for block in np.array_split(np.argsort(spans[:, 0], kind="stable"), BLOCKS):
        start, stop = spans[block, 0].min(), spans[block, 1].max()
        others = (spans[:, 1] < start) | (spans[:, 0] > stop)
        forest = ExtraTreesClassifier(TREES, min_samples_leaf=2, max_features=0.1, random_state=seed)
        found[block] = forest.fit(seen[others], shapes[others]).predict(seen[block])
    return found


def features(windows: Windows) -> np.ndarray:
    """`[N, F]` float32: states, steps, levels, margins of the rules' tests, clocks; each at several gains.

    Levels are there twice, by position and by time, for windows that have lost states.
    """
    packed = windows.packed()
    there = packed.mask[..., None]
    states = np.where(there, packed.states / STATE_MAX, 0.0)
    from_first = np.where(there, states - states[:, :1], 0.0)
    steps = np.where(there[:, 1:], np.diff(states, axis=1), 0.0)
    by_position, by_time = levels(packed) / STATE_MAX, levels(evenly(packed)) / STATE_MAX
    course = by_position - by_position[:, :1]
    extent = np.ptp(by_position[:, ::2], axis=1)
    sizes = [extent, np.ptp(from_first, axis=1), np.abs(steps).mean(axis=1), course[:, -1]]
    clock = packed.seconds_before_last()
    clock = clock / np.maximum(clock[:, :1], 1e-6)
    shown = [
        *(
            _at_gains(part)
            for part in (from_first, steps, course, by_time - by_time[:, -1:], _margins(packed))
        ),
        states,
        np.clip(course / (extent[:, None] + 3 * _SMALLEST), -2.0, 2.0),
        np.log(np.abs(np.stack(sizes)) + _SMALLEST).transpose(1, 0, 2) + 4.0,
        clock,
        np.diff(clock, axis=1) * WINDOW_LENGTH,
        packed.mask,
        packed.counts / WINDOW_LENGTH,
    ]
    return np.concatenate([part.reshape(len(packed), -1) for part in shown], axis=1).astype(np.float32)


def evenly(windows: Windows) -> Windows:
    """As many states at even steps in time, on the straight lines between the states."""
    packed = windows.packed()
    room = packed.mask.shape[1]
    last = np.maximum(packed.counts - 1, 1)[:, None]
    clock = packed.times - packed.times[:, :1]
    wanted = np.minimum(np.arange(room) / last, 1.0) * clock[:, -1:]
    before = (clock[:, None] <= wanted[..., None]).sum(axis=2).clip(1, room - 1) - 1
    start, stop = (np.take_along_axis(clock, before + ahead, axis=1) for ahead in (0, 1))
    share = np.clip((wanted - start) / np.maximum(stop - start, 1e-9), 0.0, 1.0)[..., None]
    one, other = (np.take_along_axis(packed.states, before[..., None] + ahead, axis=1) for ahead in (0, 1))
    return Windows(one + share * (other - one), packed.times[:, :1] + wanted, packed.mask)


def _network(inputs: int, width: int) -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for size in (inputs, width, width):
        layers += [torch.nn.Linear(size, width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, N_SHAPES))


def _at_gains(values: np.ndarray) -> np.ndarray:
    return np.tanh(values[..., None] * _GAINS)


def _margins(windows: Windows) -> np.ndarray:
    """`[N, 2, 4]`; the student's own first look, whose tests are tables."""
    inputs = inputs_of(windows)
    with torch.inference_mode():
        found = _student().features.margins(inputs["states"], inputs["mask"].sum(dim=1))
    return found.numpy()


@lru_cache(maxsize=1)
def _student() -> TrajectoryTransformer:
    return new_model()
