"""The controls with which a visitor picks or shapes a window and chooses how it is voiced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import sources
from chart import NAMES

from eisv_lumen.vocabulary import DIMENSIONS, SHAPES, VOID_MAX
from eisv_lumen.windows import MIN_STATES, WINDOW_LENGTH, Windows

DATASET, GENERATED, BY_HAND = "Dataset", "Generated", "By hand"
LIKELIEST, DRAWN = "Likeliest", "Drawn"
_CADENCES = {
    "every second": 1.0,
    "every 2 s": 2.0,
    "every 10 s": 10.0,
    "every 30 s": 30.0,
    "every 5 min": 300.0,
}
_START = {"E": 0.70, "I": 0.65, "S": 0.20, "V": 0.06}
_END = {"E": 0.42, "I": 0.60, "S": 0.26, "V": 0.10}


@dataclass(frozen=True)
class Controls:
    """What a visitor can set.

    Attributes:
        by_name: Every control, in the order in which handlers get their values.
        groups: Which kinds of window each group of controls belongs to.
    """

    by_name: Mapping[str, gr.components.Component]
    groups: Mapping[gr.Column, tuple[str, ...]]

    @property
    def components(self) -> list[gr.components.Component]:
        """The controls as Gradio wants its inputs."""
        return list(self.by_name.values())

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """Values by name; an emptied number field counts as 0."""
        return {name: 0 if v is None else v for name, v in zip(self.by_name, values, strict=True)}

    def visibility(self, source: str) -> list[Any]:
        """One update per group: those of the chosen kind of window are shown."""
        return [gr.update(visible=source in kinds) for kinds in self.groups.values()]


def build(examples: Mapping[str, sources.Example]) -> Controls:
    """Lay the controls out, one group below the other."""
    kinds = [DATASET, GENERATED, BY_HAND] if examples else [GENERATED, BY_HAND]
    named: dict[str, gr.components.Component] = {
        "source": gr.Radio(kinds, value=kinds[0], label="Window", elem_id="source")
    }
    groups: dict[gr.Column, tuple[str, ...]] = {}
    with gr.Column(visible=kinds[0] == DATASET) as group:
        groups[group] = (DATASET,)
        titles = list(examples)
        named["example"] = gr.Dropdown(
            titles,
            value=titles[0] if titles else None,
            label="From the dataset's test split",
            elem_id="example",
        )
    with gr.Column(visible=kinds[0] == GENERATED) as group, gr.Group():
        groups[group] = (GENERATED,)
        named["shape"] = gr.Dropdown(
            [(shape.replace("_", " "), shape) for shape in SHAPES],
            value="basin_transition_down",
            label="Shape",
            elem_id="shape",
        )
        named["noisy"] = gr.Checkbox(True, label="With the noise and clock of real sensors")
    with gr.Column(visible=False, elem_classes="by-hand") as group, gr.Group():
        groups[group] = (BY_HAND,)
        _by_hand(named)
    with gr.Column(visible=kinds[0] == GENERATED) as group, gr.Group():
        groups[group] = (GENERATED, BY_HAND)
        with gr.Row():
            named["cadence"] = gr.Dropdown(
                list(_CADENCES.items()), value=2.0, label="One state", min_width=120
            )
            named["window_seed"] = gr.Number(7, label="Variant", precision=0, minimum=0, min_width=80)
    _how_it_is_heard(named)
    return Controls(named, groups)


def window_of(choice: Mapping[str, Any], examples: Mapping[str, sources.Example]) -> tuple[Windows, str]:
    """The window that the controls describe, and a sentence about it."""
    if choice["source"] == DATASET:
        example = examples[choice["example"]]
        return example.window, example.about
    cadence, seed = float(choice["cadence"]), abs(int(choice["window_seed"]))
    if choice["source"] == GENERATED:
        window = sources.synthetic(choice["shape"], cadence, bool(choice["noisy"]), seed)
        shape = choice["shape"].replace("_", " ")
        return window, f"A generated window; the rules' label of the complete window is {shape}."
    start, end = ([float(choice[f"{name}_{side}"]) for name in DIMENSIONS] for side in ("start", "end"))
    window = sources.by_hand(
        start, end, spike=float(choice["spike"]), noise=float(choice["noise"]), cadence=cadence, seed=seed
    )
    return window, "Your own window, from the first state to the last."


def _by_hand(named: dict[str, gr.components.Component]) -> None:
    for name in DIMENSIONS:
        most = VOID_MAX if name == "V" else 1.0
        with gr.Row():
            for side, values in (("start", _START), ("end", _END)):
                named[f"{name}_{side}"] = gr.Slider(
                    0.0,
                    most,
                    values[name],
                    step=0.01,
                    label=f"{NAMES[name].capitalize()} {'from' if side == 'start' else 'to'}",
                    buttons=[],
                    min_width=120,
                    elem_id=f"{name}-{side}",
                )
    with gr.Row():
        named["spike"] = gr.Slider(0.0, 0.6, 0.0, step=0.01, label="Entropy peak", min_width=120, buttons=[])
        named["noise"] = gr.Slider(0.0, 0.05, 0.004, step=0.001, label="Noise", min_width=120, buttons=[])


def _how_it_is_heard(named: dict[str, gr.components.Component]) -> None:
    with gr.Group():
        named["heard"] = gr.Slider(
            MIN_STATES,
            WINDOW_LENGTH,
            WINDOW_LENGTH,
            step=1,
            label="States heard",
            info="Cut the window short: how early is its shape recognised?",
            elem_id="heard",
        )
        named["zoom"] = gr.Checkbox(True, label="Zoom in on each of the four numbers")
    with gr.Group(), gr.Row():
        named["voice"] = gr.Radio(
            [LIKELIEST, DRAWN], value=LIKELIEST, label="Expression", min_width=180, elem_id="voice"
        )
        named["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=80, elem_id="seed")
