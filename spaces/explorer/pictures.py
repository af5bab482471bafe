"""What a visitor sees, as HTML and SVG strings: no plotting library, sharp at every size, light and dark."""

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from voices import Speech

from eisv_lumen.device.awareness import GATE
from eisv_lumen.expression import Expression
from eisv_lumen.metrics import COLUMNS
from eisv_lumen.vocabulary import LED_TINT, SHAPE_DESCRIPTIONS, SHAPE_ID, SHAPES, VOID_MAX

_ROWS_SHOWN = 12
_LIGHT_STOPS = (0.0, 0.35, 0.65, 1.0)
_LIGHT = ((70, 150, 245, 255), (130, 110, 110, 180), (255, 240, 150, 70))
"""Red, green and blue of the base light at the energies of `_LIGHT_STOPS`."""


def voice_card(speech: Speech | None, led: str, *, title: str, mark: str, speaks: bool, note: str) -> str:
    """One voice: its mark, expression, words, light, and confidence where it has one.

    Args:
        speech: What it says; None where there is no such voice.
        led: CSS colour of its light.
        title: Name of the voice.
        mark: `M` or `R`.
        speaks: Whether this is the voice that a device would let speak.
        note: A sentence below.
    """
    state = "speaks" if speaks else "beside"
    head = (
        f'<div class="voice-head"><span class="mark mark-{mark}">[{mark}]</span> {escape(title)}'
        f'<span class="state">{"speaks" if speaks else "stays silent"}</span></div>'
    )
    if speech is None:
        return f'<div class="card voice {state}">{head}<p class="note">{escape(note)}</p></div>'
    written = escape(str(speech.expression))
    tokens = "".join(f'<span class="token">{token}</span>' for token in written.split())
    return (
        f'<div class="card voice {state}" style="--led:{led}">{head}'
        f'<div class="said"><span class="leds" title="Lumen’s light"><i></i><i></i><i></i></span>'
        f'<div><div class="expression" data-expression="{written}">{tokens}</div>'
        f'<div class="words">“{escape(" ".join(speech.words))}”'
        f' <span class="pattern">{speech.expression.pattern.lower()}</span></div></div></div>'
        f"{_gauge(speech.confidence) if speech.confidence is not None else ''}"
        f'<p class="note">{escape(note)}</p></div>'
    )


def shape_bars(student: Speech | None, rules: Speech) -> str:
    """The student's belief over the shapes, with the rules' decision marked; without a student that alone."""
    heard = rules.shape if student is None else student.shape
    rows = []
    if student is not None and student.shape_probs is not None:
        order = np.argsort(-student.shape_probs, kind="stable")
        rows = [_shape_bar(SHAPES[i], float(student.shape_probs[i]), heard, rules.shape) for i in order]
    return (
        f'<div class="card shapes"><div class="shape-heard" data-shape="{heard}">{spoken(heard)}</div>'
        f'<p class="note">{escape(SHAPE_DESCRIPTIONS[heard])}</p>{"".join(rows)}</div>'
    )


def _shape_bar(shape: str, share: float, heard: str, by_rules: str) -> str:
    mark = '<span class="mark mark-R" title="what the rules hear">[R]</span>' if shape == by_rules else ""
    return (
        f'<div class="bar{" best" if shape == heard else ""}" title="{escape(SHAPE_DESCRIPTIONS[shape])}">'
        f'<span class="bar-name">{spoken(shape)} {mark}</span>'
        f'<span class="track"><i style="width:{100 * share:.1f}%"></i></span>'
        f'<span class="bar-value">{100 * share:.1f} %</span></div>'
    )


def frequency_table(counts: Mapping[str, Counter[Expression]]) -> str:
    """How often each expression came, the student's beside the rules'."""
    leading = "student" if "student" in counts else "rules"
    totals = {voice: sum(counter.values()) for voice, counter in counts.items()}
    most = max(c.most_common(1)[0][1] / totals[v] for v, c in counts.items())
    rows = []
    for expression, count in counts[leading].most_common(_ROWS_SHOWN):
        shares = {v: counts[v][expression] / totals[v] if v in counts else None for v in ("student", "rules")}
        cells = "".join(_share_cell(v, share, most) for v, share in shares.items())
        rows.append(
            f'<tr><td class="said-text">{escape(str(expression))}</td>'
            f"<td>{escape(' '.join(expression.lumen_words))}</td>"
            f"<td>{expression.pattern.lower()}</td><td class='number'>{count}</td>{cells}</tr>"
        )
    different = " · ".join(f"{v}: {len(c)} different in {totals[v]} draws" for v, c in counts.items())
    return (
        f'<div class="card"><p class="note">{different}. What the {leading} says most often:</p>'
        '<table class="plain"><thead><tr><th>expression</th><th>Lumen words</th><th>pattern</th>'
        f'<th class="number">{leading}, times</th><th>student, share</th><th>rules, share</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def evaluation_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One evaluation table: a row per voice, each cell with its 95 % interval."""
    columns = [c for c in COLUMNS if any(_measured(row.get(c)) for row in rows.values())]
    head = "".join(f"<th>{escape(COLUMNS[c])}</th>" for c in columns)
    body = "".join(
        f'<tr class="{"own" if name == "Student" else ""}"><td>{escape(name)}</td>'
        + "".join(_evaluation_cell(row.get(c)) for c in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return (
        f'<div class="card scroll"><h3>{escape(title)}</h3><table class="plain evaluation">'
        f"<thead><tr><th>voice</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def led_colour(state: np.ndarray, shape: str) -> str:
    """CSS colour of Lumen's light: a base from the last state, plus the shape's tint (DOMAIN.md section 3).

    The base goes from blue over violet and rose to amber with energy, and is brighter the more integrity
    and presence there is.
    """
    energy, integrity, _, void = state
    base = np.array([np.interp(energy, _LIGHT_STOPS, channel) for channel in _LIGHT])
    brightness = 0.7 + 0.2 * integrity + 0.1 * (1 - void / VOID_MAX)
    colour = base * brightness + LED_TINT[SHAPE_ID[shape]]
    return "rgb({}, {}, {})".format(*np.clip(colour, 0, 255).round().astype(int))


def _gauge(confidence: float) -> str:
    above = confidence >= GATE
    return (
        f'<div class="gauge {"above" if above else "below"}" data-confidence="{confidence:.3f}">'
        f'<span class="track"><i style="width:{100 * confidence:.1f}%"></i>'
        f'<b style="left:{100 * GATE:.0f}%"></b></span>'
        f'<span class="gauge-text">confidence <strong>{confidence:.2f}</strong>, '
        f"{'at or above' if above else 'below'} the gate of {GATE}</span></div>"
    )


def _share_cell(voice: str, share: float | None, most: float) -> str:
    if share is None:
        return "<td>–</td>"
    bar = f'<span class="track"><i style="width:{100 * share / most:.1f}%"></i></span>'
    return f'<td class="share {voice}">{bar}{100 * share:.1f} %</td>'


def _measured(cell: Mapping[str, Any] | None) -> bool:
    return cell is not None and cell.get("value") is not None


def _evaluation_cell(cell: Mapping[str, Any] | None) -> str:
    if cell is not None and cell.get("given"):
        return "<td>given</td>"
    if cell is None or cell.get("value") is None:
        return "<td>–</td>"
    interval = f"<small>{cell['low']:.3f} – {cell['high']:.3f}</small>" if cell.get("low") is not None else ""
    return f'<td title="n = {cell.get("n")}"><b>{cell["value"]:.3f}</b>{interval}</td>'


def spoken(shape: str) -> str:
    """A shape's name as people write it."""
    return shape.replace("_", " ")
