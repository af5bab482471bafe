"""The published baselines, on the published mix of shapes and number of windows."""

import numpy as np
import pytest

from eisv_lumen.baselines import feedback_voice, oracle_voice, random_voice, rules_voice
from eisv_lumen.expression import is_legal, patterns_of
from eisv_lumen.metrics import COLUMNS, coherence, score
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import AFFINITY, N_SHAPES, SHAPE_ID

PUBLISHED_WINDOWS = 21_449
PUBLISHED_MIX = {
    "settled_presence": 0.47,
    "convergence": 0.41,
    "entropy_spike_recovery": 0.05,
    "basin_transition_up": 0.017,
    "basin_transition_down": 0.015,
    "rising_entropy": 0.015,
    "falling_energy": 0.015,
    "void_rising": 0.003,
}


def published_shapes(seed, n=PUBLISHED_WINDOWS):
    shapes = np.array([SHAPE_ID[name] for name in PUBLISHED_MIX])
    share = np.array(list(PUBLISHED_MIX.values()))
    return np.random.default_rng(seed).choice(shapes, size=n, p=share / share.sum())


def mean_coherence(voice, shapes):
    assert is_legal(voice.ids).all()
    return coherence(voice.ids, shapes).mean()


@pytest.mark.parametrize("seed", range(3))
def test_random_is_as_coherent_as_published(seed):
    shapes = published_shapes(seed)
    voice = random_voice(shapes, np.random.default_rng(seed + 10))
    assert mean_coherence(voice, shapes) == pytest.approx(0.265, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_rules_are_as_coherent_as_published(seed):
    shapes = published_shapes(seed)
    voice = rules_voice(shapes, np.random.default_rng(seed + 10))
    assert mean_coherence(voice, shapes) == pytest.approx(0.50, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_rules_with_one_pass_of_feedback_are_as_coherent_as_published(seed):
    shapes = published_shapes(seed)
    voice = feedback_voice(shapes, np.random.default_rng(seed + 10))
    assert mean_coherence(voice, shapes) == pytest.approx(0.93, abs=0.01)


def test_the_oracle_is_wholly_coherent():
    shapes = published_shapes(0)
    assert mean_coherence(oracle_voice(shapes, np.random.default_rng(0)), shapes) == 1


def test_expected_coherence_agrees_with_what_is_said():
    shapes = published_shapes(1)
    for voice in (
        random_voice(shapes, np.random.default_rng(0)),
        rules_voice(shapes, np.random.default_rng(0)),
    ):
        rows = voice.distribution_rows
        exact = np.zeros(len(shapes))
        for shape in np.unique(shapes):
            here = shapes == shape
            belief = voice.distribution[rows[here][:1]]
            exact[here] = belief.coherence(AFFINITY[[shape]])[0]
        assert mean_coherence(voice, shapes) == pytest.approx(exact.mean(), abs=0.01)


def test_feedback_goes_on_from_the_rules_it_is_given():
    shapes = published_shapes(2, 4000)
    rules = Rules()
    first = feedback_voice(shapes, np.random.default_rng(0), rules)
    second = feedback_voice(shapes, np.random.default_rng(1), rules)
    assert rules.updates.sum() == 8000
    assert mean_coherence(second, shapes) > mean_coherence(first, shapes) + 0.03


def test_every_cell_of_the_baselines_is_measured():
    shapes = published_shapes(3, 600)
    taught, _ = Rules.converged(0)
    reference = patterns_of(taught.sample(shapes, np.random.default_rng(0)))
    voices = (
        random_voice(shapes, np.random.default_rng(1)),
        rules_voice(shapes, np.random.default_rng(2)),
        feedback_voice(shapes, np.random.default_rng(3)),
        rules_voice(shapes, np.random.default_rng(4), taught, "Rules + feedback, converged"),
        oracle_voice(shapes, np.random.default_rng(5)),
    )
    rows = {
        voice.name: score(
            voice,
            shapes=shapes,
            reference_patterns=reference,
            sequence=np.arange(600) // 40,
            reference=taught.distribution(),
        )
        for voice in voices
    }
    assert list(rows) == ["Random", "Rules", "Rules + feedback", "Rules + feedback, converged", "Oracle"]
    for row in rows.values():
        assert all(row[column]["value"] is not None and row[column]["n"] > 0 for column in COLUMNS)
    guessed = rows["Random"]
    assert guessed["shape_accuracy"]["value"] == pytest.approx(1 / N_SHAPES, abs=0.05)
    assert "given" not in guessed["shape_accuracy"]
    assert guessed["bridge_fidelity"]["value"] < 0.1
    converged = rows["Rules + feedback, converged"]
    assert converged["shape_accuracy"]["given"]
    assert converged["bridge_fidelity"]["value"] == 1
    assert converged["calibration"]["value"] == 0
    assert converged["token_divergence"]["value"] == pytest.approx(0, abs=1e-9)
    assert rows["Rules"]["token_divergence"]["value"] > 0.1
    coherences = [row["coherence"]["value"] for row in rows.values()]
    assert coherences == sorted(coherences)
