"""Prompts: both forms to the letter, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from eisv_lumen import prompts
from eisv_lumen.errors import InputError
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import SHAPES
from eisv_lumen.windows import Summaries, summaries


def row(**changed):
    values = {
        "n_states": 20,
        "duration": 40.0,
        "mean": np.array([0.7, 0.61, 0.18, 0.05]),
        "first": np.array([0.0, 0.001, -0.0025, -0.000001]),
        "second": np.array([0.0, 0.0, 0.00012, -0.5]),
    }
    return SimpleNamespace(**(values | changed))


def test_the_design_prompt_to_the_letter():
    system, user = prompts.design_messages("settled_presence", row())
    assert system == {"role": "system", "content": prompts.SYSTEM}
    assert user["role"] == "user"
    assert user["content"] == (
        "SHAPE: settled_presence\n"
        "WINDOW: 20 states over 40s\n"
        "MEAN_EISV: E=0.700 I=0.610 S=0.180 V=0.050\n"
        "DERIVATIVES: dE=+0.0000 dI=+0.0010 dS=-0.0025 dV=+0.0000\n"
        "SECOND_DERIVATIVES: d2E=+0.0000 d2I=+0.0000 d2S=+0.0001 d2V=-0.5000"
    )


def test_the_card_prompt_is_the_published_one():
    summary = row(mean=np.array([0.72, 0.85, 0.15, 0.08]), first=np.zeros(4))
    assert prompts.card_prompt("settled_presence", summary) == (
        "You are an EISV expression generator. Given trajectory dynamics, produce a primitive expression.\n\n"
        "Trajectory shape: settled_presence\n"
        "EISV values: E=0.72, I=0.85, S=0.15, V=0.08\n"
        "Dominant dimension: I (Information Integrity)\n"
        "Trend: stable\n\n"
        "Expression:"
    )


@pytest.mark.parametrize(("slope", "trend"), [(0.01, "rising"), (-0.01, "falling"), (0.0004, "stable")])
def test_the_trend_is_that_of_the_dominant_dimension(slope, trend):
    text = prompts.card_prompt("convergence", row(first=np.array([slope, 0.9, 0.9, 0.9])))
    assert f"Dominant dimension: E (Energy)\nTrend: {trend}\n" in text


def test_a_slice_of_summaries_is_one_window():
    windows = generate(np.arange(len(SHAPES)), np.random.default_rng(0), cadence=2.0)
    many = summaries(windows)
    one = Summaries(*(getattr(many, name)[3:4] for name in vars(many)))
    single = SimpleNamespace(**{name: getattr(many, name)[3] for name in vars(many)})
    assert prompts.design_messages(SHAPES[3], one) == prompts.design_messages(SHAPES[3], single)
    assert prompts.card_prompt(SHAPES[3], one) == prompts.card_prompt(SHAPES[3], single)


def test_a_negative_zero_is_written_as_zero():
    text = prompts.design_messages("convergence", row(first=np.full(4, -0.0)))[1]["content"]
    assert "dE=+0.0000 dI=+0.0000 dS=+0.0000 dV=+0.0000" in text


@pytest.mark.parametrize(
    ("shape", "summary"),
    [
        ("bliss", row()),
        ("convergence", row(mean=np.array([np.nan, 0, 0, 0]))),
        ("convergence", row(duration=np.inf)),
        ("convergence", row(first=np.zeros(3))),
        ("convergence", row(n_states=np.array([20, 20]))),
    ],
)
@pytest.mark.parametrize("form", [prompts.design_messages, prompts.card_prompt])
def test_what_is_no_window_is_refused(form, shape, summary):
    with pytest.raises(InputError):
        form(shape, summary)
