"""The figures of a dataset's report: plain numbers in, the bytes of a PNG out, the same ones every time."""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from eisv_lumen.vocabulary import DIMENSIONS, SHAPES

MAX_BYTES = 120_000
"""Largest figure; a card with all of them stays below a megabyte."""

SHAPE_COLORS = {
    "settled_presence": "#dddddd",
    "convergence": "#56b4e9",
    "rising_entropy": "#e69f00",
    "falling_energy": "#332288",
    "basin_transition_down": "#0072b2",
    "basin_transition_up": "#d55e00",
    "entropy_spike_recovery": "#882255",
    "drift_dissonance": "#cc6677",
    "void_rising": "#663311",
}
"""Told apart in every kind of colour blindness; movement up is warm, movement down is cold, rest is grey."""

DIMENSION_COLORS = dict(zip(DIMENSIONS, ("#d97b06", "#0f8a83", "#d03a66", "#6d5bd0"), strict=True))
"""The explorer's; each has a line style of its own as well."""

_DASHES: dict[str, tuple[float, Sequence[float]]] = {
    "E": (0, ()),
    "I": (0, (5, 1.2)),
    "S": (0, (1.2, 1)),
    "V": (0, (5, 1, 1, 1)),
}
_INK, _DIM, _LINE, _BAR, _TINT = "#1d2528", "#5d686e", "#d5dadc", "#3b6e8f", "#fdf6e3"
_LEFT_OUT = ("#3b6e8f", "#cc7a29", "#8a8f94")
_WIDTH = 10.0
_LEAST_CHANGE = 0.12
_DPIS = (130, 110, 90, 70)
_COLORS = (256, 64)
_SHOWN_SOURCES = 12
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
_PANEL = 0.81
"""Where the panels of windows end, in rows."""

_MOMENTS = {
    1e-3: "1 ms",
    1e-2: "10 ms",
    0.1: "0.1 s",
    1.0: "1 s",
    10.0: "10 s",
    60.0: "1 min",
    600.0: "10 min",
    3600.0: "1 h",
    6 * 3600.0: "6 h",
    86400.0: "1 day",
    7 * 86400.0: "1 week",
    30 * 86400.0: "30 days",
    365.25 * 86400.0: "1 year",
}
_MORE_MOMENTS = _MOMENTS | {
    2e-3: "2 ms",
    5e-3: "5 ms",
    2e-2: "20 ms",
    5e-2: "50 ms",
    0.2: "0.2 s",
    0.5: "0.5 s",
    2.0: "2 s",
    5.0: "5 s",
    20.0: "20 s",
    30.0: "30 s",
    120.0: "2 min",
    300.0: "5 min",
    1800.0: "30 min",
    2 * 3600.0: "2 h",
    12 * 3600.0: "12 h",
    2 * 86400.0: "2 days",
}
"""For an axis that is too short for three of the others."""


@dataclass(frozen=True)
class Bar:
    """One bar of shares: windows of each shape under a name."""

    name: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Example:
    """A window to draw.

    Attributes:
        shape: Its label.
        source: Where it comes from.
        synthetic: Whether it was generated.
        cadence_s: Seconds between its states.
        times: `[T]` seconds since it began.
        states: `[T, 4]` E, I, S, V.
    """

    shape: str
    source: str
    synthetic: bool
    cadence_s: float
    times: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class Histogram:
    """Counts of durations: `edges_s` `[n + 1]` ascending seconds, `counts` `[n]`."""

    edges_s: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Stability:
    """Shares of a source's windows whose label stands under noise, by rule set."""

    robust: float
    published: float
    n: int


@contextmanager
def plain_style() -> Iterator[None]:
    """Settings of these figures alone: no file of the user's changes them, and none of theirs leaks out."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
                "font.size": 9.0,
                "text.color": _INK,
                "text.parse_math": False,  # a dollar sign in a source's name is a dollar sign
                "axes.edgecolor": _DIM,
                "axes.labelcolor": _INK,
                "axes.linewidth": 0.7,
                "xtick.color": _DIM,
                "ytick.color": _DIM,
                "xtick.labelcolor": _INK,
                "ytick.labelcolor": _INK,
                "xtick.labelsize": 8.5,
                "ytick.labelsize": 8.5,
                "hatch.linewidth": 0.6,
            }
        )
        yield


def png(figure: Figure) -> bytes:
    """The figure as a PNG of at most `MAX_BYTES`, without metadata.

    Few colours keep it small; where that is not enough there are fewer still, and then fewer pixels.
    """
    canvas = FigureCanvasAgg(figure)
    content = b""
    for dpi in _DPIS:
        figure.set_dpi(dpi)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        for colors in _COLORS:
            content = _encode(picture, colors)
            if len(content) <= MAX_BYTES:
                return content
    return content


def _encode(picture: Image.Image, colors: int) -> bytes:
    few = picture.quantize(colors, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette, paper = few.getpalette() or [], int(np.asarray(few)[0, 0])
    palette[3 * paper : 3 * paper + 3] = [255, 255, 255]  # rounded, it would stand out on a white page
    few.putpalette(palette)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_shares(title: str, note: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> Figure:
    """Stacked bars of the share of each shape, in groups with a heading.

    Args:
        title: What is shown.
        note: One line below the title.
        groups: Heading and bars of each; a bar without windows says so.
    """
    lines = sum(len(bars) + 1.25 for _, bars in groups)
    figure, axes, _ = _page(title, note, lines * 0.25, left=2.3, right=1.1, legend=0.42, foot=0.5)
    y = 0.0
    for heading, bars in groups:
        y += 0.75
        axes.text(0, y, _fit(heading, 6.0, weight="bold"), weight="bold", va="center", transform=_rows(axes))
        _share_bars(axes, [(y + number, bar) for number, bar in enumerate(bars, 1)])
        y += len(bars) + 0.5
    axes.set(xlim=(0, 1), ylim=(y, 0))
    axes.set_xticks(np.linspace(0, 1, 6), [f"{100 * share:.0f} %" for share in np.linspace(0, 1, 6)])
    axes.set_xlabel("share of the windows")
    axes.text(1.012, 0.75, "windows", color=_DIM, va="center", transform=_rows(axes))
    _bare(axes, left=False)
    axes.set_yticks([])
    handles = [Patch(color=SHAPE_COLORS[shape], label=shape) for shape in SHAPES]
    _legend(figure, handles, columns=5)
    return figure


def draw_examples(
    examples: Mapping[str, Sequence[Example]], totals: Mapping[str, tuple[int, int]], columns: int = 4
) -> Figure:
    """A row of windows for each of the nine shapes.

    Args:
        examples: Windows by shape, at most `columns` of each.
        totals: How many windows there are of each shape: real and synthetic.
        columns: Panels per row.
    """
    figure, _, body = _page(
        "What the nine shapes look like",
        "Change of E, I, S and V since the window's first state against time. Picked evenly from all "
        "windows, not by eye; tinted: synthetic.",
        1.12 * len(SHAPES),
        left=2.3,
        right=0.1,
        legend=0.2,
        foot=0.12,
        axes=False,
    )
    left, bottom, width, height = body
    step = height / len(SHAPES)
    for row, shape in enumerate(SHAPES):
        top = bottom + height - row * step
        _shape_label(figure, shape, totals.get(shape, (0, 0)), top, step)
        found = list(examples.get(shape, ()))[:columns]
        limits = _limits(found)
        for column, example in enumerate(found):
            place = (left + column * width / columns, top - _PANEL * step, 0.92 * width / columns, 0.6 * step)
            _window(figure.add_axes(place), example, limits, first=column == 0)
    handles = [
        Line2D([], [], color=DIMENSION_COLORS[name], linestyle=_DASHES[name], linewidth=1.6, label=label)
        for name, label in zip(DIMENSIONS, ("E energy", "I integrity", "S entropy", "V void"), strict=True)
    ]
    _legend(figure, handles, columns=4)
    return figure


def draw_histograms(columns: Mapping[str, Mapping[str, Histogram]]) -> Figure:
    """Histograms of durations, a row per source.

    Args:
        columns: Per column title the histogram of each source; at least one.
    """
    sources = list(dict.fromkeys(source for column in columns.values() for source in column))
    totals = {s: sum(int(c[s].counts.sum()) for c in columns.values() if s in c) for s in sources}
    shown = sorted(sources, key=lambda source: -totals[source])[:_SHOWN_SOURCES]
    shown = [source for source in sources if source in shown]
    left_out = f" The {len(shown)} largest of {len(sources)} sources." if len(shown) < len(sources) else ""
    row = 0.92 if len(shown) > 3 else 1.4
    figure, _, (left, bottom, width, height) = _page(
        "Time between readings, by source",
        f"Both axes are logarithmic. A step longer than ten median steps is a gap.{left_out}",
        row * len(shown),
        left=0.75,
        right=0.25,
        legend=0.2,
        foot=0.3,
        axes=False,
    )
    cell, step = width / len(columns), height / len(shown)
    for number, (title, column) in enumerate(columns.items()):
        at = left + number * cell
        figure.text(at, bottom + height + 0.08 / figure.get_figheight(), title, weight="bold", va="center")
        here = [column[source] for source in shown if source in column]
        span, peak = _span(here), max([10, *(int(found.counts.max(initial=0)) for found in here)])
        for line, source in enumerate(shown):
            low = bottom + height - (line + 1) * step + 0.04 * step
            axes = figure.add_axes((at, low, cell * 0.9, (row - 0.33) / row * step))
            _histogram(axes, column.get(source), span, peak, last=line == len(shown) - 1)
            total = int(column[source].counts.sum()) if source in column else 0
            axes.set_title(_fit(source, cell * 0.9 * _WIDTH - 1.4, 8.5), loc="left", fontsize=8.5, pad=3)
            axes.set_title(
                f"{total:,} {'step' if total == 1 else 'steps'}", loc="right", fontsize=8.5, pad=3, color=_DIM
            )
    figure.text(0.012, bottom + height / 2, "number of steps", rotation=90, va="center")
    return figure


def draw_dropped(blocks: Sequence[tuple[str, Mapping[str, int]]]) -> Figure:
    """Horizontal bars of what was not used, by reason.

    Args:
        blocks: Heading and counts by reason of rows, values and windows; at least one count is not zero.
    """
    kept = [
        (heading, found, color)
        for (heading, counts), color in zip(blocks, _LEFT_OUT, strict=True)
        if (found := {reason: count for reason, count in counts.items() if count > 0})
    ]
    numbers = [count for _, counts, _ in kept for count in counts.values()]
    wide = max(numbers) > 50 * min(numbers)
    lines = sum(len(counts) + 1.3 for _, counts, _ in kept)
    note = "Nothing is filled in or invented: what cannot be used is counted here."
    figure, axes, _ = _page(
        "What was left out, by reason",
        note + (" Logarithmic axis." if wide else ""),
        lines * 0.27,
        left=3.6,
        right=1.1,
        legend=0.0,
        foot=0.5,
    )
    y = 0.0
    start = 0.5 if wide else 0.0
    for heading, counts, color in kept:
        y += 0.8
        axes.text(0, y, heading, weight="bold", va="center", transform=_rows(axes), bbox=_PAPER)
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            y += 1
            axes.barh(y, count - start, 0.66, left=start, color=color)
            _row_label(axes, y, reason, 3.35)
            axes.annotate(f"{count:,}", (count, y), (4, 0), textcoords="offset points", va="center")
        y += 0.5
    axes.set_ylim(y, 0)
    _count_axis(axes, max(numbers), wide)
    axes.set_yticks([])
    _bare(axes, left=False)
    return figure


def draw_stability(sources: Mapping[str, Stability], noise: float | None) -> Figure:
    """Per source, the share of real windows whose label stands under noise, for both rule sets."""
    shown = sorted(sources, key=lambda name: -sources[name].n)[:_SHOWN_SOURCES]
    shown = [name for name in sources if name in shown]
    left_out = f" The {len(shown)} largest of {len(sources)} sources." if len(shown) < len(sources) else ""
    what = f"noise of ±{noise / 2:g} on every state" if noise else "noise of the sensors' resolution"
    figure, axes, _ = _page(
        "Labels that stand under noise, by source",
        f"Share of the real windows that keep their shape under {what}.{left_out}",
        0.32 * len(shown) + 0.25,
        left=2.3,
        right=1.1,
        legend=0.3,
        foot=0.5,
    )
    lowest = min(min(s.robust, s.published) for s in (sources[name] for name in shown))
    low = max(0.0, math.floor(min(lowest, 0.97) * 50 - 0.25) / 50)
    axes.axvline(0.98, color=_DIM, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for y, name in enumerate(shown):
        found = sources[name]
        axes.plot([found.robust, found.published], [y, y], color=_LINE, linewidth=2.5, zorder=2)
        axes.plot(
            found.published,
            y,
            "D",
            markersize=6.5,
            mfc="white",
            mec="#d55e00",
            mew=1.5,
            zorder=3,
            clip_on=False,
        )
        axes.plot(found.robust, y, "o", markersize=6.5, color="#0072b2", zorder=4, clip_on=False)
        _row_label(axes, y, name, 2.05)
        axes.text(1.03, y, f"{found.n:,}", color=_DIM, va="center", transform=_rows(axes))
    axes.set(xlim=(low, 1.0), ylim=(len(shown) - 0.4, -0.85), xlabel="share of windows with the same label")
    axes.text(1.03, -0.7, "windows", color=_DIM, va="center", transform=_rows(axes))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    axes.set_yticks([])
    _bare(axes, left=False)
    axes.grid(axis="x", color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    handles = [
        Line2D(
            [], [], linestyle="", marker="o", markersize=6.5, color="#0072b2", label="shape (robust rules)"
        ),
        Line2D(
            [], [], linestyle="", marker="D", mfc="white", mec="#d55e00", mew=1.5, label="shape_published"
        ),
        Line2D([], [], color=_DIM, linestyle=(0, (4, 3)), label="98 %, what the robust rules must hold"),
    ]
    _legend(figure, handles, columns=3)
    return figure


def fold(bars: Sequence[Bar], shown: int = _SHOWN_SOURCES) -> list[Bar]:
    """The bars with most windows in the order given, and the others together in a last one."""
    if len(bars) <= shown:
        return list(bars)
    ranked = sorted(range(len(bars)), key=lambda number: -sum(bars[number].counts.values()))
    kept, others = sorted(ranked[: shown - 1]), ranked[shown - 1 :]
    counts = {shape: sum(bars[number].counts.get(shape, 0) for number in others) for shape in SHAPES}
    return [*(bars[number] for number in kept), Bar(f"{len(others)} others", counts)]


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use: `0.5 s`, `5 min`, `1.6 h`."""
    for unit, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= unit * (2 if name == "days" else 1):
            return f"{_short(seconds / unit)} {name}"
    return f"{_short(seconds)} s" if seconds >= 0.1 or seconds == 0 else f"{_short(1000 * seconds)} ms"


def _short(number: float) -> str:
    """Two digits, or all before the point."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.2g}"


def _page(
    title: str,
    note: str,
    body: float,
    *,
    left: float,
    right: float,
    legend: float,
    foot: float,
    axes: bool = True,
) -> tuple[Figure, Axes, tuple[float, float, float, float]]:
    """A figure with its title; sizes in inches, `body` the height of what is drawn.

    Returns:
        The figure, its axes where wanted, and the body as left, bottom, width, height in figure shares.
    """
    head = 0.62 + legend
    height = head + body + foot
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    figure.text(0.012, 1 - 0.2 / height, title, fontsize=13, weight="bold", va="center")
    figure.text(0.012, 1 - 0.45 / height, note, color=_DIM, va="center")
    area = (left / _WIDTH, foot / height, (_WIDTH - left - right) / _WIDTH, body / height)
    return figure, figure.add_axes(area) if axes else Axes(figure, area), area


def _legend(figure: Figure, handles: Sequence[Patch | Line2D], columns: int) -> None:
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.008, 1 - 0.56 / figure.get_figheight()),
        ncols=columns,
        frameon=False,
        borderaxespad=0.0,
        borderpad=0.2,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
        fontsize=9,
    )


def _share_bars(axes: Axes, bars: Sequence[tuple[float, Bar]]) -> None:
    """Draw bars at their heights: one call for all segments of a shape."""
    totals = np.array([sum(bar.counts.values()) for _, bar in bars])
    heights, start = np.array([y for y, _ in bars]), np.zeros(len(bars))
    for shape in SHAPES:
        counts = np.array([bar.counts.get(shape, 0) for _, bar in bars])
        share, color = counts / np.maximum(totals, 1), SHAPE_COLORS[shape]
        used = share > 0
        axes.barh(
            heights[used], share[used], 0.78, left=start[used], color=color, edgecolor="white", linewidth=0.6
        )
        for at in np.flatnonzero(share >= 0.06):
            # What is rounded to all of them, but is not, says so.
            text = "> 99 %" if 0.995 <= share[at] < 1 else f"{100 * share[at]:.0f} %"
            middle = start[at] + share[at] / 2
            axes.text(middle, heights[at], text, ha="center", va="center", fontsize=8, color=_on(color))
        start += share
    for (y, bar), total in zip(bars, totals, strict=True):
        _row_label(axes, y, bar.name, 2.05)
        axes.text(1.012, y, f"{total:,}", color=_DIM, va="center", transform=_rows(axes))
        if total == 0:
            axes.text(0.006, y, "none", color=_DIM, va="center", style="italic")


def _shape_label(figure: Figure, shape: str, totals: tuple[int, int], top: float, step: float) -> None:
    real, synthetic = totals
    color = SHAPE_COLORS[shape]
    figure.add_artist(Rectangle((0.012, top - _PANEL * step), 0.006, 0.6 * step, color=color, linewidth=0))
    figure.text(0.024, top - 0.32 * step, shape, weight="bold", fontsize=8.5, va="center")
    figure.text(0.024, top - 0.51 * step, f"{real:,} real", color=_DIM, fontsize=8.5, va="center")
    figure.text(0.024, top - 0.69 * step, f"{synthetic:,} synthetic", color=_DIM, fontsize=8.5, va="center")


def _window(axes: Axes, example: Example, limits: tuple[float, float], *, first: bool) -> None:
    change = example.states - example.states[:1]
    axes.axhline(0, color=_LINE, linewidth=0.8, zorder=1)
    for number, name in enumerate(DIMENSIONS):
        axes.plot(
            example.times,
            change[:, number],
            color=DIMENSION_COLORS[name],
            linestyle=_DASHES[name],
            linewidth=1.3,
            zorder=2,
        )
    end = max(float(example.times[-1]), 1e-6)
    axes.set(xlim=(0, end), ylim=limits)
    axes.set_xticks([0, end], ["0", duration(end)])
    start, stop = axes.get_xticklabels()
    start.set_horizontalalignment("left")
    stop.set_horizontalalignment("right")
    ticks = _ticks(limits)
    axes.set_yticks(ticks, [_signed(tick) if first else "" for tick in ticks])
    axes.tick_params(labelsize=7.5, length=2, pad=2)
    cadence = f", every {duration(example.cadence_s)}"
    source = "synthetic" if example.synthetic else _fit(example.source, 1.72 - _width(cadence, 7.5), 7.5)
    axes.set_title(f"{source}{cadence}", fontsize=7.5, loc="left", pad=3)
    if example.synthetic:
        axes.set_facecolor(_TINT)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(examples: Sequence[Example]) -> tuple[float, float]:
    """Ends of a row's axis of changes; never so near each other that noise looks like movement."""
    changes = [example.states - example.states[:1] for example in examples]
    low = min([0.0, *(float(change.min(initial=0.0)) for change in changes)])
    high = max([0.0, *(float(change.max(initial=0.0)) for change in changes)])
    lacking = max(0.0, _LEAST_CHANGE - (high - low)) / 2
    room = 0.06 * max(high - low, _LEAST_CHANGE)
    return low - lacking - room, high + lacking + room


def _ticks(limits: tuple[float, float]) -> list[float]:
    """Two to four round changes, zero among them."""
    low, high = limits
    step = next(step for step in (0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step < 4)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _signed(change: float) -> str:
    return f"{change:+.3g}".replace("-", "−") if abs(change) > 1e-9 else "0"


def _histogram(
    axes: Axes, found: Histogram | None, span: tuple[float, float], peak: int, *, last: bool
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    if found is None or not found.counts.any():
        axes.text(
            0.5, 0.4, "none", color=_DIM, ha="center", va="center", style="italic", transform=axes.transAxes
        )
    else:
        axes.stairs(found.counts, _positive(found.edges_s), fill=True, color=_BAR, baseline=0.5)
    axes.set(xlim=span, ylim=(0.5, peak * 2.5))
    powers = np.arange(0, math.floor(math.log10(peak)) + 1, max(1, math.ceil(math.log10(peak) / 3)))
    axes.set_yticks(10.0**powers, [_power(int(power)) for power in powers])
    moments = _moments(span)
    axes.set_xticks(list(moments), [name if last else "" for name in moments.values()])
    axes.minorticks_off()
    axes.grid(axis="x", color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, pad=2)
    axes.spines[["top", "right"]].set_visible(False)


def _span(histograms: Sequence[Histogram]) -> tuple[float, float]:
    """From the shortest to the longest duration counted, with some room on both sides."""
    low, high = math.inf, 0.0
    for found in histograms:
        used = np.flatnonzero(found.counts)
        if len(used):
            edges = _positive(found.edges_s)
            low, high = min(low, edges[used[0]]), max(high, edges[used[-1] + 1])
    if high == 0.0:
        return 0.5, 20.0
    middle = math.sqrt(low * high)
    return min(low / 1.3, middle / 4), max(high * 1.3, middle * 4)


def _positive(edges: np.ndarray) -> np.ndarray:
    """Edges for a logarithmic axis: a first one of zero becomes a tenth of the second."""
    return np.concatenate([[edges[0] if edges[0] > 0 else edges[1] / 10], edges[1:]])


def _moments(span: tuple[float, float]) -> dict[float, str]:
    """Ticks of a logarithmic axis of durations, far enough from each other to be read."""
    low, high = span
    inside = [at for at in _MOMENTS if low <= at <= high]
    if len(inside) < 3:
        inside = sorted(at for at in _MORE_MOMENTS if low <= at <= high)
    far = math.log(high / low) / 8
    kept: list[float] = []
    for at in inside:
        if not kept or math.log(at / kept[-1]) >= far:
            kept.append(at)
    return {at: _MORE_MOMENTS[at] for at in kept}


def _count_axis(axes: Axes, peak: int, wide: bool) -> None:
    axes.set_xlabel("count")
    if wide:
        axes.set_xscale("log")
        axes.set_xlim(0.5, peak * 1.5)
        powers = np.arange(0, math.floor(math.log10(peak)) + 1)
        axes.set_xticks(10.0**powers, [_power(int(power)) for power in powers])
        axes.minorticks_off()
    else:
        axes.set_xlim(0, peak * 1.08)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.grid(axis="x", color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)


def _power(power: int) -> str:
    """`10 ** power` as text: 1, 10, 100, 1k, 10k, …."""
    unit, zeros = ("", "k", "M", "G")[min(power // 3, 3)], power - 3 * min(power // 3, 3)
    return "1" + "0" * zeros + unit


def _row_label(axes: Axes, y: float, text: str, inches: float) -> None:
    axes.text(-0.012, y, _fit(text, inches), ha="right", va="center", transform=_rows(axes))


def _rows(axes: Axes) -> matplotlib.transforms.Transform:
    """x in shares of the axes, y in rows."""
    return axes.get_yaxis_transform(which="grid")


def _bare(axes: Axes, *, left: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["left"].set_visible(left)
    axes.tick_params(length=2.5)


def _on(color: str) -> str:
    """Ink that can be read on a colour."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "white"


def _fit(name: str, inches: float, size: float = 9.0, weight: str = "normal") -> str:
    """A name that fits into a width; what is cut is in the middle, because names differ at their ends."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)

    def shortened(length: int) -> str:
        head = (length - 1) // 2
        return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"

    if len(name) <= 200 and _width(name, size, weight) <= inches:
        return name
    length = min(len(name), 200) - 1
    while length > 3 and _width(shortened(length), size, weight) > inches:
        length -= 1
    return shortened(length)


def _width(text: str, size: float, weight: str = "normal") -> float:
    """How wide a text is drawn, in inches."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(size, 72)
    font.set_text(text, 0.0)
    return float(font.get_width_height()[0] / 64 / 72)
