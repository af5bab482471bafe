"""The trajectory of a window as an SVG chart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from eisv_lumen.vocabulary import DIMENSIONS
from eisv_lumen.windows import Windows

NAMES = {"E": "energy", "I": "integrity", "S": "entropy", "V": "void"}
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 46, 136, 12, 32
_HEIGHT_TOGETHER, _HEIGHT_LANE, _LANE_GAP = 230, 56, 13
_LABEL_GAP = 17
_SMALLEST_SPAN = {"E": 0.04, "I": 0.04, "S": 0.04, "V": 0.02}
"""A lane spans at least this much, so that the noise of a flat window looks like noise."""
_LEVEL_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)
_TIME_STEPS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@dataclass(frozen=True)
class Lane:
    """A part of the chart's height.

    Attributes:
        low: Value at the bottom.
        high: Value at the top.
        top: Upper edge in pixels.
        height: Height in pixels.
    """

    low: float
    high: float
    top: float
    height: float

    def y(self, value: float) -> float:
        """Pixel of a value."""
        return self.top + self.height * (self.high - value) / (self.high - self.low)

    def grid(self, most: int) -> str:
        """The lane's ground, and lines at round values with the values beside them."""
        ground = (
            f'<rect class="lane" x="{_LEFT}" y="{self.top - 2:.1f}" rx="4" '
            f'width="{_WIDTH - _LEFT - _RIGHT}" height="{self.height + 4:.1f}"/>'
        )
        return ground + "".join(
            f'<path class="grid" d="M{_LEFT} {self.y(value):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 7}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
            for value in ticks(self.low, self.high, _LEVEL_STEPS, most)
        )


def trajectory(window: Windows, heard: int, zoom: bool) -> str:
    """The four dimensions over time.

    Args:
        window: One window, complete.
        heard: How many of its first states are heard; the rest is drawn faintly.
        zoom: A lane for each dimension, scaled to its own range; else all on one scale from 0 to 1.
    """
    states, times = window.states[0], window.times[0] - window.times[0, 0]
    lanes = _own_lanes(states) if zoom else [Lane(0.0, 1.0, _TOP, _HEIGHT_TOGETHER)] * len(DIMENSIONS)
    bottom = lanes[-1].top + lanes[-1].height
    span = max(float(times[-1]), 1e-9)
    across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * times / span
    parts = [lane.grid(most=3 if zoom else 5) for lane in dict.fromkeys(lanes)]
    parts.append(_time_axis(span, bottom))
    if heard < len(times):
        parts.append(_unheard(float(across[heard - 1 : heard + 1].mean()), bottom))
    heights = [np.array([lane.y(v) for v in column]) for lane, column in zip(lanes, states.T, strict=True)]
    for name, values, height in zip(DIMENSIONS, states.T, heights, strict=True):
        parts.append(_line(name, values, times, across, height, heard))
    parts.append(_line_labels(states[-1], [float(height[-1]) for height in heights], bottom))
    title = f"E, I, S and V over {duration(span)}, {heard} of {len(times)} states heard"
    box = f'viewBox="0 0 {_WIDTH} {bottom + _BOTTOM:.0f}" role="img" aria-label="{title}"'
    return f'<svg class="trajectory" {box}>{"".join(parts)}</svg>'


def ticks(low: float, high: float, steps: Sequence[float], most: int) -> list[float]:
    """Round values between two ends, about `most` of them."""
    step = next((s for s in steps if (high - low) / s <= most), steps[-1])
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(n * step, 6) for n in range(first, last + 1)]


def duration(seconds: float) -> str:
    """Seconds as people write them."""
    if seconds < 120:
        return f"{round(seconds, 1):g} s"
    return f"{round(seconds / 60, 1):g} min" if seconds < 7200 else f"{round(seconds / 3600, 1):g} h"


def _own_lanes(states: np.ndarray) -> list[Lane]:
    lanes = []
    for number, name in enumerate(DIMENSIONS):
        low, high = float(states[:, number].min()), float(states[:, number].max())
        margin = max((high - low) * 0.06, (_SMALLEST_SPAN[name] - (high - low)) / 2)
        top = _TOP + number * (_HEIGHT_LANE + _LANE_GAP)
        lanes.append(Lane(low - margin, high + margin, top, _HEIGHT_LANE))
    return lanes


def _time_axis(span: float, bottom: float) -> str:
    return "".join(
        f'<text x="{_LEFT + (_WIDTH - _LEFT - _RIGHT) * time / span:.1f}" y="{bottom + 22:.0f}" '
        f'text-anchor="middle">{duration(time)}</text>'
        for time in ticks(0.0, span, _TIME_STEPS, 6)
    )


def _unheard(edge: float, bottom: float) -> str:
    return (
        f'<rect class="unheard" x="{edge:.1f}" y="{_TOP}" width="{_WIDTH - _RIGHT - edge:.1f}" '
        f'height="{bottom - _TOP:.0f}"/><text x="{edge + 6:.1f}" y="{_TOP + 12}">not heard yet</text>'
    )


def _line(
    name: str, values: np.ndarray, times: np.ndarray, across: np.ndarray, height: np.ndarray, heard: int
) -> str:
    points = [f"{x:.1f},{y:.1f}" for x, y in zip(across, height, strict=True)]
    lines = f'<polyline points="{" ".join(points[:heard])}"/>'
    if heard < len(points):
        lines += f'<polyline class="faint" points="{" ".join(points[heard - 1 :])}"/>'
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.1" class="{"" if i < heard else "faint"}">'
        f"<title>{name} = {value:.3f} after {duration(time)}</title></circle>"
        for i, (x, y, value, time) in enumerate(zip(across, height, values, times, strict=True))
    )
    return f'<g class="dimension-{name}">{lines}{dots}</g>'


def _line_labels(values: np.ndarray, heights: list[float], bottom: float) -> str:
    """Names at the lines' ends, pushed apart where they would overlap."""
    placed = np.array(heights)
    downward = np.argsort(placed, kind="stable")
    for before, after in pairwise(downward):
        placed[after] = max(placed[after], placed[before] + _LABEL_GAP)
    placed[downward[-1]] = min(placed[downward[-1]], bottom)
    for after, before in pairwise(downward[::-1]):
        placed[before] = min(placed[before], placed[after] - _LABEL_GAP)
    return "".join(
        f'<text class="label dimension-{name}" x="{_WIDTH - _RIGHT + 10}" y="{placed[i] + 4:.1f}">'
        f"{name} {NAMES[name]} {values[i]:.2f}</text>"
        for i, name in enumerate(DIMENSIONS)
    )
