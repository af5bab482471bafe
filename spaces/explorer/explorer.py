"""The page: three tabs, and what happens between controls and pictures."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import chart
import controls
import gradio as gr
import numpy as np
import pictures
import sources
from voices import Speech, Voices, coherence_of

from eisv_lumen.errors import LumenError

_SEEDS = 10_000
_ABOUT = (
    "Lumen is a small agent on a Raspberry Pi. Its sensors become four numbers: energy, integrity, entropy "
    "and void. Twenty of them in a row have a <b>shape</b>, and Lumen gives it a voice: one to three tokens, "
    "the same in its own few words, and a light. Rules can do that. The <b>student</b>, a small network, "
    "learned to hear the shape in the raw window, and to say how sure it is."
)
_GENERATOR = (
    "The voices do not say one thing per shape. Here the window of the Explorer tab is voiced many times, so "
    "that you see how often each expression comes, beside the rules for the shape that they hear."
)
_COMPARISON = (
    "Every cell was measured by the evaluation of this release; below each number is its 95 % bootstrap "
    "interval, and n under the pointer; “given” is what a voice was told. Coherence alone proves little: a "
    "look-up table of shapes reaches 1. Read it beside diversity, and beside shape accuracy for voices that "
    "have to find the shape themselves."
)
_NO_EVALUATION = "This build was made without an evaluation, so there is nothing measured to show."


def page(voices: Voices, assets: Path) -> gr.Blocks:
    """The Blocks of the Space.

    Args:
        voices: Who speaks.
        assets: Folder of `examples.json` and `evaluation.json`; either may be absent.
    """
    examples = sources.read_examples(assets / "examples.json")
    with gr.Blocks(title="EISV-Lumen explorer", analytics_enabled=False) as blocks:
        gr.HTML(_header(voices), elem_id="header")
        with gr.Tab("Explorer"), gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                chosen = controls.build(examples)
                again = gr.Button("Speak again", variant="primary", elem_id="speak")
            with gr.Column(scale=9, min_width=420):
                results = _results()
        with gr.Tab("Expression generator"):
            _generator_tab(voices, examples, chosen)
        with gr.Tab("Model comparison"):
            gr.HTML(comparison(assets / "evaluation.json"), elem_id="comparison")

        def update(*values: Any) -> list[str]:
            return explore(voices, examples, chosen.read(values))

        source = chosen.by_name["source"]
        source.input(chosen.visibility, source, list(chosen.groups), show_progress="hidden", queue=False)  # type: ignore[attr-defined]
        inputs = [component.input for component in chosen.components]  # type: ignore[attr-defined]
        gr.on(
            [blocks.load, *inputs],
            update,
            chosen.components,
            results,
            show_progress="hidden",
            trigger_mode="always_last",
            queue=False,  # Milliseconds of work: the way through the queue would take longer.
        )
        again.click(
            _new_draw, None, [chosen.by_name["voice"], chosen.by_name["seed"]], show_progress="hidden"
        ).then(update, chosen.components, results, show_progress="hidden")
    return blocks


def explore(voices: Voices, examples: Mapping[str, sources.Example], choice: Mapping[str, Any]) -> list[str]:
    """The pictures of one window: trajectory, sentence about it, student, rules, shapes.

    Raises:
        gradio.Error: The window cannot be heard.
    """
    try:
        window, about = controls.window_of(choice, examples)
        count = min(int(choice["heard"]), int(window.counts[0]))
        heard = sources.first_states(window, count)
        seed = abs(int(choice["seed"])) if choice["voice"] == controls.DRAWN else None
        student, rules = voices.hear(heard, seed), voices.by_rules(heard, seed)
    except LumenError as error:
        raise gr.Error(f"{error.found}; expected: {error.expected}", title="Cannot be heard") from error
    return [
        f'<div class="card">{chart.trajectory(window, count, zoom=bool(choice["zoom"]))}'
        f'<p class="note">{escape(about)}</p></div>',
        *_voice_cards(voices, student, rules, heard.states[0, -1]),
        pictures.shape_bars(student, rules),
    ]


def comparison(path: Path) -> str:
    """The evaluation tables that were shipped, or a sentence that there are none."""
    if not path.is_file():
        return f'<p class="note">{_NO_EVALUATION}</p>'
    tables = json.loads(path.read_text("utf-8"))["table"]
    shown = [
        pictures.evaluation_table(f"{provenance.capitalize()} windows of the test split", rows)
        for provenance, rows in tables.items()
        if rows
    ]
    return f'<p class="note">{_COMPARISON}</p>' + "".join(shown)


def _results() -> list[gr.HTML]:
    trajectory = gr.HTML(elem_id="trajectory")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            student, rules = gr.HTML(elem_id="student"), gr.HTML(elem_id="rules")
        with gr.Column(min_width=300):
            shapes = gr.HTML(elem_id="shapes")
    return [trajectory, student, rules, shapes]


def _generator_tab(
    voices: Voices, examples: Mapping[str, sources.Example], chosen: controls.Controls
) -> None:
    gr.HTML(f'<p class="note">{_GENERATOR}</p>')
    with gr.Row(equal_height=True):
        draws = gr.Slider(50, 1000, 300, step=50, label="Draws", scale=4)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, scale=1)
        button = gr.Button("Draw", variant="primary", elem_id="draw", scale=1)
    table = gr.HTML('<p class="note">Nothing drawn yet.</p>', elem_id="frequencies")

    def draw(count: float, number: float | None, *values: Any) -> str:
        return frequencies(voices, examples, chosen.read(values), int(count), abs(int(number or 0)))

    button.click(draw, [draws, seed, *chosen.components], table, show_progress="minimal")


def frequencies(
    voices: Voices,
    examples: Mapping[str, sources.Example],
    choice: Mapping[str, Any],
    draws: int,
    seed: int,
) -> str:
    """Table of what the voices say in many draws for the window that the controls describe."""
    try:
        window, about = controls.window_of(choice, examples)
        heard = sources.first_states(window, min(int(choice["heard"]), int(window.counts[0])))
        counts = voices.frequencies(heard, draws, seed)
    except LumenError as error:
        raise gr.Error(f"{error.found}; expected: {error.expected}", title="Cannot be heard") from error
    return f'<p class="note">{escape(about)}</p>' + pictures.frequency_table(counts)


def _new_draw() -> tuple[str, int]:
    return controls.DRAWN, int(np.random.default_rng().integers(_SEEDS))


def _voice_cards(voices: Voices, student: Speech | None, rules: Speech, last: np.ndarray) -> list[str]:
    model_speaks = student is not None and student.sure
    return [
        pictures.voice_card(
            student,
            "#555" if student is None else pictures.led_colour(last, student.shape),
            title="Student",
            mark="M",
            speaks=model_speaks,
            note=_student_note(voices, student, rules),
        ),
        pictures.voice_card(
            rules,
            pictures.led_colour(last, rules.shape),
            title="Rules",
            mark="R",
            speaks=not model_speaks,
            note=f"They hear {pictures.spoken(rules.shape)} and choose among its tokens.",
        ),
    ]


def _student_note(voices: Voices, student: Speech | None, rules: Speech) -> str:
    if student is None:
        return f"Could not be loaded: {voices.trouble}. The rules speak instead."
    fit = f"{coherence_of(student.expression, rules.shape):.0%} of its tokens fit the shape the rules hear."
    same = student.shape == rules.shape
    return f"Hears {pictures.spoken(student.shape)}{', as the rules do' if same else ''}. {fit}"


def _header(voices: Voices) -> str:
    if voices.student is None:
        state = (
            f'<div id="student-state" class="missing" role="alert"><b>The student could not be loaded.</b> '
            f"{escape(voices.trouble or '')}. Everything below is spoken by the rules.</div>"
        )
    else:
        state = f'<div id="student-state">Student: {escape(voices.name)}</div>'
    return f"<h1>EISV-Lumen explorer</h1><p>{_ABOUT}</p>{state}"
