"""Prompts: both forms to the letter, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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


def user_text(shape, many, n):
    """The text of one window by the definition: each number formatted on its own."""
    one = SimpleNamespace(**{name: getattr(many, name)[n] for name in vars(many)})
    parts = [
        (one.mean, 3, "MEAN_EISV: ", "{}={:.3f}"),
        (one.first, 4, "DERIVATIVES: ", "d{}={:+.4f}"),
        (one.second, 4, "SECOND_DERIVATIVES: ", "d2{}={:+.4f}"),
    ]
    lines = [f"SHAPE: {shape}", f"WINDOW: {int(one.n_states)} states over {float(one.duration):.0f}s"]
    for values, digits, opening, form in parts:
        rounded = np.round(values, digits) + 0.0
        lines.append(
            opening + " ".join(form.format(d, float(v)) for d, v in zip("EISV", rounded, strict=True))
        )
    return "\n".join(lines)


numbers = (
    st.floats(-1e12, 1e12) | st.floats(-0.1, 0.1) | st.sampled_from([-0.0, 0.0005, -0.00005, 1e300, -1e60])
)


@given(st.data(), st.integers(0, 6))
def test_many_prompts_are_the_single_ones_byte_for_byte(data, n):
    drawn = data.draw(hnp.arrays(np.float64, (n, 13), elements=numbers))
    many = Summaries(
        data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 10**9))),
        drawn[:, 0],
        drawn[:, 1:5],
        drawn[:, 5:9],
        drawn[:, 9:],
    )
    ids = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, len(SHAPES) - 1)))
    texts = prompts.design_prompts(ids, many)
    assert texts == [user_text(SHAPES[shape], many, k) for k, shape in enumerate(ids)]
    for k, shape in enumerate(ids):
        one = Summaries(*(getattr(many, name)[k : k + 1] for name in vars(many)))
        assert prompts.design_messages(SHAPES[shape], one)[1]["content"] == texts[k]


def test_prompts_of_made_windows_are_the_single_ones():
    ids = np.arange(300) % len(SHAPES)
    many = summaries(generate(ids, np.random.default_rng(1), cadence=30.0))
    texts = prompts.design_prompts(ids, many)
    assert texts == [user_text(SHAPES[shape], many, k) for k, shape in enumerate(ids)]
    assert len(set(texts)) == 300


@pytest.mark.parametrize(
    ("ids", "changed"),
    [
        (np.array([0, 9]), {}),
        (np.array([0, -1]), {}),
        (np.array([0.0, 1.0]), {}),
        (np.array([[0, 1]]), {}),
        (np.array([True, False]), {}),
        (np.array([0]), {}),
        (np.array([0, 1, 2]), {}),
        (np.array([0, 1]), {"mean": np.full((2, 4), np.nan)}),
        (np.array([0, 1]), {"second": np.array([[0, 0, 0, 0], [0, 0, 0, np.inf]])}),
        (np.array([0, 1]), {"duration": np.array([1.0, -np.inf])}),
        (np.array([0, 1]), {"first": np.zeros((2, 3))}),
        (np.array([0, 1]), {"mean": np.zeros((4, 2))}),
        (np.array([0, 1]), {"n_states": np.array([20])}),
    ],
)
def test_what_are_no_windows_is_refused(ids, changed):
    two = {
        "n_states": np.array([20, 20]),
        "duration": np.zeros(2),
        "mean": np.zeros((2, 4)),
        "first": np.zeros((2, 4)),
        "second": np.zeros((2, 4)),
    }
    assert len(prompts.design_prompts(np.array([0, 8]), Summaries(**two))) == 2
    with pytest.raises(InputError, match="found:"):
        prompts.design_prompts(ids, Summaries(**two | changed))
