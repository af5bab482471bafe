"""Calibration: what the posterior is fitted on, and a voice as coherent as its variety allows."""

import numpy as np
import pytest
import torch

from eisv_lumen import synthetic
from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD, ExpressionDistribution
from eisv_lumen.metrics import js_divergence, token_entropy
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import AFFINITY, N_SHAPES
from training.student.calibration import complete_and_cut, fit_temperature, fit_voice, set_voice, tempered
from training.student.evaluation import distribution_of
from training.student.tables import new_model

SHAPES = np.arange(N_SHAPES)


@pytest.fixture(scope="module")
def teacher():
    return Rules.converged(0)[0].distribution()


def blurred(distribution, share):
    """What a network says that leaves a share of its probability on every legal id."""
    legal = (LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD)
    parts = (distribution.first, distribution.second, distribution.third)
    return ExpressionDistribution(
        *(
            (1 - share) * part + share * allowed / np.maximum(allowed.sum(axis=-1, keepdims=True), 1)
            for part, allowed in zip(parts, legal, strict=True)
        )
    )


def test_a_blurred_voice_is_made_coherent_again_and_stays_varied(teacher):
    student = blurred(teacher, 0.04)
    temperature = fit_voice(student, teacher)
    assert temperature < 1.0
    voice = tempered(student, temperature)
    gained = voice.coherence(AFFINITY[SHAPES]).mean() - student.coherence(AFFINITY[SHAPES]).mean()
    assert gained > 0.01
    assert token_entropy(voice.tokens()).mean() >= 0.96 * token_entropy(teacher.tokens()).mean()
    assert js_divergence(voice.tokens(), teacher.tokens()).mean() <= 0.015
    assert js_divergence(voice.patterns(), teacher.patterns()).mean() <= 0.015


def test_a_voice_that_has_lost_variety_already_is_left_alone(teacher):
    assert fit_voice(tempered(teacher, 0.6), teacher) == 1.0


@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_the_networks_own_distribution_is_tempered(temperature):
    torch.manual_seed(0)
    model = new_model(
        width=16, heads=4, encoder_layers=1, decoder_layers=1, feed_forward=16, embedding_size=16
    )
    with torch.no_grad():
        model.token_head.bias.normal_()
    windows = synthetic.generate(np.arange(4), np.random.default_rng(0), cadence=2.0)
    wanted = tempered(distribution_of(model.eval(), windows), temperature)
    set_voice(model, temperature)
    found = distribution_of(model, windows)
    for name in ("first", "second", "third"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5)


def test_the_posterior_is_fitted_on_windows_cut_short_as_well():
    windows = synthetic.generate(np.arange(300) % N_SHAPES, np.random.default_rng(0), cadence=2.0)
    both, shapes = complete_and_cut(windows, np.arange(300) % N_SHAPES, seed=0)
    assert len(both) == 600 and (shapes[:300] == shapes[300:]).all()
    np.testing.assert_array_equal(both.states[:300], windows.states)
    assert set(both.counts[:300]) == {20} and set(both.counts[300:]) == set(range(4, 20))
    first, cut = windows.validate(), both[np.arange(300, 600)].validate()
    for row, count in enumerate(cut.counts):
        np.testing.assert_array_equal(cut.packed().states[row, :count], first.states[row, :count])


def test_a_network_that_never_errs_on_complete_windows_is_not_sure_of_short_ones():
    """Complete windows alone would ask for the sharpest posterior there is."""
    rng, shapes = np.random.default_rng(0), np.tile(np.arange(N_SHAPES), 100)
    complete = 4.0 * np.eye(N_SHAPES)[shapes]
    short = complete.copy()
    wrong = rng.random(len(shapes)) < 0.4
    short[wrong] = 4.0 * np.eye(N_SHAPES)[(shapes[wrong] + 1) % N_SHAPES]
    alone = fit_temperature(complete, shapes)
    assert fit_temperature(np.concatenate([complete, short]), np.tile(shapes, 2)) > 5 * alone
