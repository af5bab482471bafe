import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD, ExpressionDistribution
from eisv_lumen.expression import all_sequences, is_legal, patterns_of
from eisv_lumen.metrics import coherence, token_counts
from eisv_lumen.vocabulary import AFFINITY, N_CLASSES, N_PATTERNS, N_SHAPES, N_TOKENS, PAD

SEQUENCES = all_sequences()


def arbitrary(seed, rows, spread=2.0):
    """Any distribution that the grammar allows: masked softmax of noise."""
    generator = np.random.default_rng(seed)

    def normalised(mask):
        weights = np.exp(spread * generator.normal(size=(rows, *mask.shape))) * mask
        return weights / weights.sum(axis=-1, keepdims=True)

    return ExpressionDistribution(*(normalised(mask) for mask in (LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD)))


seeds = st.integers(0, 2**32 - 1)


def everything(distribution, row):
    """Probabilities of all 3,000 expressions, by brute force."""
    repeated = distribution[np.full(len(SEQUENCES), row)]
    return repeated.probability(SEQUENCES)


def test_masks_allow_exactly_the_legal_sequences():
    every = np.array(list(itertools.product(range(N_CLASSES), repeat=3)))
    one, two, three = every.T
    allowed = LEGAL_FIRST[one].copy()
    a, b = np.minimum(one, N_TOKENS - 1), np.minimum(two, N_TOKENS - 1)
    allowed &= LEGAL_SECOND[a, two]
    allowed &= np.where(two < N_TOKENS, LEGAL_THIRD[a, b, three], three == PAD)
    assert (allowed == is_legal(every)).all()


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_probabilities_of_all_expressions_sum_to_one(seed):
    distribution = arbitrary(seed, 2)
    for row in range(2):
        assert everything(distribution, row).sum() == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_patterns_tokens_and_coherence_equal_enumeration(seed):
    distribution = arbitrary(seed, 1)
    p = everything(distribution, 0)
    patterns = np.bincount(patterns_of(SEQUENCES), weights=p, minlength=N_PATTERNS)
    assert distribution.patterns()[0] == pytest.approx(patterns)

    counts = p @ token_counts(SEQUENCES)
    assert distribution.token_counts()[0] == pytest.approx(counts)
    assert distribution.tokens()[0] == pytest.approx(counts / counts.sum())

    for shape in range(N_SHAPES):
        expected = p @ coherence(SEQUENCES, np.full(len(SEQUENCES), shape))
        assert distribution.coherence(AFFINITY[[shape]])[0] == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(seeds, hnp.arrays(np.float64, (1, N_TOKENS), elements=st.floats(0, 1)))
def test_coherence_accepts_probabilities_of_being_affine(seed, affine):
    distribution = arbitrary(seed, 1)
    said = token_counts(SEQUENCES)
    expected = everything(distribution, 0) @ ((said * affine).sum(axis=1) / said.sum(axis=1))
    assert distribution.coherence(affine)[0] == pytest.approx(expected)


def test_probability_of_an_illegal_sequence_is_zero():
    distribution = arbitrary(0, 1)
    every = np.array(list(itertools.product(range(N_TOKENS), range(N_CLASSES), range(N_CLASSES))))
    p = distribution[np.zeros(len(every), int)].probability(every)
    assert ((p > 0) == is_legal(every)).all()


def chi_square_is_plausible(counts, p):
    """Rare outcomes pooled until each class expects five; then within four deviations of its mean."""
    expected = p * counts.sum()
    order = np.argsort(-expected)
    counts, expected = counts[order], expected[order]
    often = expected >= 5
    counts = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    statistic = ((counts - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    freedom = len(counts) - 1
    return statistic < freedom + 4 * np.sqrt(2 * freedom)


def frequencies(ids):
    position = {tuple(row): i for i, row in enumerate(SEQUENCES.tolist())}
    return np.bincount([position[tuple(row)] for row in ids.tolist()], minlength=len(SEQUENCES))


def test_samples_follow_the_distribution():
    distribution, generator = arbitrary(7, 1), np.random.default_rng(7)
    thousand = distribution[np.zeros(1000, int)]
    counts = sum(frequencies(thousand.sample(generator)) for _ in range(40))
    assert chi_square_is_plausible(counts, everything(distribution, 0))
    assert not chi_square_is_plausible(counts, everything(arbitrary(8, 1), 0))


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([np.float16, np.float32, np.float64]))
def test_samples_and_greedy_answers_are_legal_in_every_precision(seed, dtype):
    exact = arbitrary(seed, 64, spread=6.0)
    stored = ExpressionDistribution(
        *(part.astype(dtype) for part in (exact.first, exact.second, exact.third))
    )
    assert is_legal(stored.sample(np.random.default_rng(seed))).all()
    assert is_legal(stored.greedy()).all()


def test_sampling_needs_no_exact_normalisation():
    """Half-precision labels do not sum to one; the largest uniform number must still pick an id."""

    class AlmostOne:
        def random(self, size):
            return np.full(size, 1 - 2**-53)

    exact = arbitrary(3, 50)
    assert is_legal(exact.sample(AlmostOne())).all()


def test_greedy_takes_the_likeliest_id_at_each_step():
    distribution = arbitrary(5, 30)
    for row, (one, two, three) in enumerate(distribution.greedy().tolist()):
        assert one == distribution.first[row].argmax()
        assert two == distribution.second[row, one].argmax()
        if two < N_TOKENS:
            assert three == distribution.third[row, one, two].argmax()
        else:
            assert three == PAD


def test_indexing_keeps_the_rows_together():
    distribution = arbitrary(1, 6)
    chosen = distribution[np.array([4, 1])]
    assert len(distribution) == 6 and len(chosen) == 2
    assert (chosen.patterns() == distribution.patterns()[[4, 1]]).all()
    assert len(distribution[2:5]) == 3
