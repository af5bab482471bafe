import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eisv_lumen import metrics as m
from eisv_lumen.baselines import oracle_voice, random_voice, rules_voice
from eisv_lumen.errors import InputError
from eisv_lumen.expression import Expression, all_sequences, encode, lumen_ids, parse, patterns_of
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import AFFINITY, EOS, N_SHAPES, N_TOKENS, SHAPE_ID, SHAPES, TOKEN_ID, TOKENS

SEQUENCES = all_sequences()
seeds = st.integers(0, 2**32 - 1)
SETTLED = SHAPE_ID["settled_presence"]


def said(*texts):
    return encode([parse(text) for text in texts])


def positive(size, low=0.0):
    return hnp.arrays(np.float64, size, elements=st.floats(low, 1e3)).filter(lambda a: a.sum() > 1e-6)


# One value per window.


def test_coherence_equals_the_definition_for_every_expression_and_shape():
    for shape, name in enumerate(SHAPES):
        affine = {TOKENS[i] for i in np.flatnonzero(AFFINITY[shape])}
        expected = [
            sum(token in affine for token in one.tokens) / len(one.tokens)
            for one in map(Expression.from_ids, SEQUENCES)
        ]
        got = m.coherence(SEQUENCES, np.full(len(SEQUENCES), SHAPE_ID[name]))
        assert got == pytest.approx(expected)


def test_expected_coherence_is_the_mean_over_the_belief():
    generator = np.random.default_rng(0)
    belief = generator.dirichlet(np.ones(N_SHAPES), size=len(SEQUENCES))
    by_shape = np.stack(
        [m.coherence(SEQUENCES, np.full(len(SEQUENCES), shape)) for shape in range(N_SHAPES)], axis=1
    )
    assert m.expected_coherence(SEQUENCES, belief) == pytest.approx((belief * by_shape).sum(axis=1))


def test_token_counts_count_what_is_said():
    counts = m.token_counts(said("~ripple~ ~ripple~ ~ripple~", "~return~?", "~warmth~ ~return~"))
    assert counts.sum(axis=1).tolist() == [3, 1, 2]
    assert counts[0, TOKEN_ID["ripple"]] == 3 and counts[1, TOKEN_ID["return"]] == 1


def test_jaccard_compares_sets_of_tokens():
    one = said("~ripple~ ~ripple~", "~ripple~ ~return~", "~warmth~", "~warmth~ ~return~ ~ripple~")
    two = said("~ripple~?", "~ripple~ ~warmth~", "~return~", "~ripple~ ~return~ ~warmth~")
    assert m.jaccard(one, two) == pytest.approx([1, 1 / 3, 0, 1])


def test_consecutive_pairs_stay_within_recording_and_shape():
    shapes = np.array([0, 0, 1, 0, 0, 1, 1])
    sequence = np.array(["desk", "desk", "iss", "iss", "desk", "iss", "iss"])
    pairs = {tuple(pair) for pair in m.consecutive(shapes, sequence).tolist()}
    assert pairs == {(0, 1), (1, 4), (5, 6)}
    assert m.consecutive(np.array([0]), np.array([0])).shape == (0, 2)


def test_bridge_fidelity_needs_all_words_right():
    ids = said("~stillness~ ~holding~", "~ripple~")
    words = lumen_ids(ids)
    assert m.bridge_fidelity(ids, words).tolist() == [1, 1]
    words[0, 1] = -1
    assert m.bridge_fidelity(ids, words).tolist() == [0, 1]


# Summaries of distributions.


@given(positive(N_TOKENS))
def test_entropy_lies_between_certainty_and_uniformity(counts):
    entropy = m.token_entropy(counts)
    p = counts / counts.sum()
    p = p[p > 0]
    assert -1e-9 <= entropy <= np.log2(N_TOKENS) + 1e-9
    assert entropy == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-9)


def test_entropy_of_known_distributions():
    assert m.token_entropy(np.eye(15)[3]) == 0
    assert m.token_entropy(np.ones(15)) == pytest.approx(np.log2(15))
    assert m.token_entropy(np.array([2, 2, 0])) == pytest.approx(1)
    assert m.token_entropy(np.zeros(15)) == 0


@given(positive(7), positive(7))
def test_divergence_is_symmetric_bounded_and_zero_for_equals(p, q):
    there, back = m.js_divergence(p, q), m.js_divergence(q, p)
    assert there == pytest.approx(back, abs=1e-12)
    assert 0 <= there <= 1
    assert m.js_divergence(p, p * 3) == pytest.approx(0, abs=1e-12)
    p, q = p / p.sum(), q / q.sum()
    relative = [
        sum(x * np.log2(x / ((a + b) / 2)) for x, a, b in zip(one, p, q, strict=True) if x > 1e-300)
        for one in (p, q)
    ]
    assert there == pytest.approx(sum(relative) / 2, abs=1e-9)


def test_divergence_of_strangers_is_one_bit_and_of_nothing_unknown():
    assert m.js_divergence(np.array([1, 0]), np.array([0, 1])) == 1
    assert np.isnan(m.js_divergence(np.array([0.0, 0.0]), np.array([0.0, 1.0])))
    assert m.js_divergence(np.eye(3), np.eye(3)).tolist() == [0, 0, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_ece_is_zero_where_each_promise_is_kept(confidence):
    assert m.ece(np.array(confidence), np.array(confidence)) == 0


def test_ece_is_zero_where_promises_are_kept_on_average():
    confidence = np.repeat([0.25, 0.5, 0.75], 4)
    outcome = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0.0])
    assert m.ece(confidence, outcome) == pytest.approx(0)


@settings(max_examples=40)
@given(seeds, st.integers(1, 80))
def test_ece_equals_the_definition_and_is_bounded(seed, n):
    generator = np.random.default_rng(seed)
    confidence, outcome = generator.random(n), generator.random(n)
    total = 0.0
    for low in np.arange(15) / 15:
        here = (confidence >= low) & (confidence < low + 1 / 15)
        if here.any():
            total += here.mean() * abs(confidence[here].mean() - outcome[here].mean())
    assert m.ece(confidence, outcome) == pytest.approx(total, abs=1e-9)
    assert m.ece(np.ones(n), np.zeros(n)) == 1
    assert m.ece(np.zeros(n), np.ones(n)) == 1


# Intervals.


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_intervals_of_a_mean_cover_it_nineteen_times_in_twenty():
    generator, covered = np.random.default_rng(0), 0
    for seed in range(300):
        values = generator.beta(2, 5, size=80)
        _, low, high = m.bootstrap(mean_of(values), 80, seed=seed)
        covered += low <= 2 / 7 <= high
    assert 0.90 <= covered / 300 <= 0.985


def test_intervals_of_a_mean_are_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(size=2000)
    value, low, high = m.bootstrap(mean_of(values), 2000)
    assert value == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.1)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 60))
def test_the_value_lies_within_its_interval(seed, n):
    counts = m.token_counts(SEQUENCES[np.random.default_rng(seed).integers(3000, size=n)])
    value, low, high = m.bootstrap(lambda w: m.token_entropy(w @ counts), n, resamples=100)
    assert low <= value <= high
    assert value == pytest.approx(m.token_entropy(counts.sum(axis=0)), abs=1e-6)


def test_resampling_is_reproducible_and_does_not_depend_on_its_batches(monkeypatch):
    values = np.random.default_rng(0).random(50)
    first = m.bootstrap(mean_of(values), 50, seed=4)
    assert m.bootstrap(mean_of(values), 50, seed=4) == first
    assert m.bootstrap(mean_of(values), 50, seed=5) != first
    monkeypatch.setattr(m, "_RESAMPLES_AT_ONCE", 50 * 7)
    assert m.bootstrap(mean_of(values), 50, seed=4) == pytest.approx(first)


# The table.


@pytest.fixture(scope="module")
def windows():
    generator = np.random.default_rng(0)
    shapes = generator.choice(N_SHAPES, size=1000, p=[0.4, 0.3, 0.05, 0.05, 0.05, 0.05, 0.04, 0.04, 0.02])
    taught = Rules.converged(0)[0]
    return {
        "shapes": shapes,
        "taught": taught,
        "given": {
            "shapes": shapes,
            "reference_patterns": patterns_of(taught.sample(shapes, generator)),
            "sequence": np.arange(1000) // 25,
            "reference": taught.distribution(),
        },
    }


@pytest.fixture(scope="module")
def scored(windows):
    return m.score(random_voice(windows["shapes"], np.random.default_rng(1)), **windows["given"])


def test_scores_are_plain_json_with_intervals(scored):
    read = json.loads(json.dumps(scored, allow_nan=False))
    assert read == scored
    for column in m.COLUMNS:
        cell = scored[column]
        assert set(cell) == {"value", "low", "high", "n"}
        assert type(cell["value"]) is float and type(cell["low"]) is float and type(cell["high"]) is float
        assert cell["low"] <= cell["value"] <= cell["high"]
    assert scored["coherence"]["n"] == 1000
    assert 0 < scored["temporal_consistency"]["n"] < 1000


def test_scores_equal_the_functions(windows, scored):
    shapes, given_ = windows["shapes"], windows["given"]
    voice = random_voice(shapes, np.random.default_rng(1))
    ids = voice.ids
    values = {name: scored[name]["value"] for name in m.COLUMNS}
    assert values["coherence"] == pytest.approx(m.coherence(ids, shapes).mean(), abs=1e-6)
    assert values["valid_rate"] == 1
    assert values["pattern_accuracy"] == pytest.approx(
        (patterns_of(ids) == given_["reference_patterns"]).mean(), abs=1e-6
    )
    assert values["shape_accuracy"] == pytest.approx((voice.shape_ids == shapes).mean(), abs=1e-6)
    assert values["diversity"] == pytest.approx(m.token_entropy(m.token_counts(ids).sum(axis=0)), abs=1e-6)
    assert values["bridge_fidelity"] == pytest.approx(
        m.bridge_fidelity(ids, voice.lumen_ids).mean(), abs=1e-6
    )
    pairs = m.consecutive(shapes, given_["sequence"])
    assert values["temporal_consistency"] == pytest.approx(
        m.jaccard(ids[pairs[:, 0]], ids[pairs[:, 1]]).mean(), abs=1e-6
    )
    confidence = m.expected_coherence(ids, voice.shape_probs)
    assert values["calibration"] == pytest.approx(m.ece(confidence, m.coherence(ids, shapes)), abs=1e-6)


def test_exact_fit_is_the_divergence_of_the_distributions(windows, scored):
    exact, target = scored["per_shape"], windows["taught"].distribution()
    uniform = np.full((1, 15), 1 / 15)
    tokens = m.js_divergence(uniform, target.tokens())
    patterns = m.js_divergence(np.full((1, 5), 0.2), target.patterns())
    for shape, name in enumerate(SHAPES):
        assert exact[name]["token_divergence"] == pytest.approx(tokens[shape], abs=1e-9)
        assert exact[name]["pattern_divergence"] == pytest.approx(patterns[shape], abs=1e-9)
    assert scored["token_divergence"]["value"] == pytest.approx(tokens.mean(), abs=1e-6)
    assert scored["pattern_divergence"]["value"] == pytest.approx(patterns.mean(), abs=1e-6)


def test_per_shape_numbers_are_those_of_the_shape_alone(windows, scored):
    shapes, given_ = windows["shapes"], windows["given"]
    here = shapes == SETTLED
    voice = random_voice(shapes, np.random.default_rng(1))
    row = scored["per_shape"]["settled_presence"]
    assert row["n"] == here.sum() == row["coherence"]["n"]
    assert row["coherence"]["value"] == pytest.approx(m.coherence(voice.ids[here], shapes[here]).mean())
    alone = m.score(
        m.Voice(name="alone", ids=voice.ids[here]),
        shapes=shapes[here],
        reference_patterns=given_["reference_patterns"][here],
    )
    assert row["diversity"] == pytest.approx(alone["diversity"])
    assert sum(row["n"] for row in scored["per_shape"].values()) == 1000


def test_samples_fit_their_own_distribution_within_sampling_noise(windows):
    shapes, taught = windows["shapes"], windows["taught"]
    exact = rules_voice(shapes, np.random.default_rng(3), taught)
    samples = replace(exact, distribution=None, distribution_rows=None)
    fitted, sampled = m.score(exact, **windows["given"]), m.score(samples, **windows["given"])
    assert fitted["token_divergence"]["value"] == pytest.approx(0, abs=1e-7)
    for column, categories in (("token_divergence", 15), ("pattern_divergence", 5)):
        for shape, row in sampled["per_shape"].items():
            if row["n"] >= 200:
                assert row[column] < 4 * (categories - 1) / (8 * row["n"] * np.log(2)), shape
    assert "expected_coherence" not in sampled
    expected = fitted["expected_coherence"]["value"]
    assert expected == pytest.approx(taught.distribution().coherence(AFFINITY)[shapes].mean(), abs=1e-6)
    assert fitted["coherence"]["low"] - 0.01 <= expected <= fitted["coherence"]["high"] + 0.01


def test_one_distribution_per_window_equals_one_per_shape(windows):
    shapes, given_ = windows["shapes"], windows["given"]
    by_shape = rules_voice(shapes, np.random.default_rng(0))
    by_window = replace(by_shape, distribution=Rules().distribution()[shapes], distribution_rows=None)
    implied = replace(by_shape, distribution_rows=None)
    scores = [m.score(voice, **given_) for voice in (by_shape, by_window, implied)]
    per_window = {**given_, "reference": windows["taught"].distribution()[shapes]}
    scores.append(m.score(by_shape, **per_window))
    for other in scores[1:]:
        for column in (*m.COLUMNS, "expected_coherence", "expected_diversity"):
            assert other[column] == pytest.approx(scores[0][column], abs=1e-6)


def test_invalid_answers_count_against_the_voice(windows):
    shapes, given_ = windows["shapes"], windows["given"]
    voice = oracle_voice(shapes, np.random.default_rng(0))
    valid = np.arange(1000) % 4 != 0
    garbled = np.where(valid[:, None], voice.ids, -7)
    result = m.score(replace(voice, ids=garbled, valid=valid, distribution=None), **given_)
    assert result["valid_rate"]["value"] == result["coherence"]["value"] == 0.75
    assert result["bridge_fidelity"]["value"] == 0.75
    assert result["diversity"]["value"] == pytest.approx(
        m.token_entropy(m.token_counts(voice.ids[valid]).sum(axis=0)), abs=1e-6
    )
    assert result["calibration"]["n"] == 750


def test_a_voice_that_never_answers_is_scored_zero_not_skipped():
    voice = m.Voice(
        name="mute", ids=np.zeros((3, 3), int), valid=np.zeros(3, bool), shape_probs=np.eye(9)[[0, 0, 0]]
    )
    result = m.score(
        voice,
        shapes=np.zeros(3, int),
        reference_patterns=np.zeros(3, int),
        sequence=np.zeros(3),
        reference=Rules().distribution(),
    )
    for column in ("coherence", "valid_rate", "pattern_accuracy", "temporal_consistency"):
        assert result[column]["value"] == 0
    for column in ("diversity", "calibration"):
        assert result[column]["value"] is None and result[column]["n"] == 0
    json.dumps(result, allow_nan=False)


def test_what_is_not_said_is_not_measured():
    shapes = np.array([0, 1])
    result = m.score(
        m.Voice(name="tokens only", ids=said("~ripple~", "~return~")),
        shapes=shapes,
        reference_patterns=np.array([0, 1]),
    )
    empty = {"value": None, "low": None, "high": None, "n": 0}
    for column in (
        "shape_accuracy",
        "bridge_fidelity",
        "temporal_consistency",
        "calibration",
        "pattern_divergence",
        "token_divergence",
    ):
        assert result[column] == empty
    assert result["pattern_accuracy"]["value"] == 0.5
    assert result["per_shape"]["convergence"]["token_divergence"] is None


def test_rare_shapes_weigh_as_much_as_common_ones_in_the_fit():
    shapes = np.array([0] * 99 + [2])
    ids = np.concatenate([Rules().sample(shapes[:99], np.random.default_rng(0)), said("~warmth~")])
    result = m.score(
        m.Voice(name="v", ids=ids),
        shapes=shapes,
        reference_patterns=patterns_of(ids),
        reference=Rules().distribution(),
    )
    by_shape = result["per_shape"]
    assert result["token_divergence"]["value"] == pytest.approx(
        (by_shape["settled_presence"]["token_divergence"] + by_shape["rising_entropy"]["token_divergence"])
        / 2,
        abs=1e-6,
    )


def test_scoring_is_fast(windows):
    voice = random_voice(windows["shapes"], np.random.default_rng(1))
    start = time.process_time()
    m.score(voice, **windows["given"])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "change",
    [
        {"ids": said("~ripple~")},
        {"ids": np.array([[0, EOS, EOS]] * 4)},
        {"ids": np.array([[0, 1, 99]] * 4)},
        {"shape_probs": np.ones((3, 9)) / 9},
        {"valid": np.ones(5, bool)},
        {"confidence": np.ones(1)},
        {"distribution": Rules().distribution()[:3]},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    voice = replace(m.Voice(name="v", ids=said(*["~ripple~"] * 4)), **change)
    with pytest.raises(InputError, match="found:"):
        m.score(voice, shapes=np.zeros(4, int), reference_patterns=np.zeros(4, int))


def test_nothing_to_score_is_refused():
    with pytest.raises(InputError):
        m.score(
            m.Voice(name="v", ids=np.zeros((0, 3), int)),
            shapes=np.zeros(0, int),
            reference_patterns=np.zeros(0, int),
        )


def test_nine_windows_need_rows_said_outright():
    """With as many windows as shapes the rows could mean either: never a guess."""
    shapes = np.zeros(9, int)
    voice = rules_voice(shapes, np.random.default_rng(0))
    arguments = {"shapes": shapes, "reference_patterns": shapes}
    assert m.score(voice, **arguments)["expected_coherence"]["n"] == 9
    with pytest.raises(InputError, match="rows"):
        m.score(replace(voice, distribution_rows=None), **arguments)
    with pytest.raises(InputError, match="rows"):
        m.score(voice, reference=Rules().distribution(), **arguments)
    m.score(voice, reference=Rules().distribution(), reference_rows=shapes, **arguments)


def test_the_table_shows_every_cell_with_its_number():
    def cell(value, n=500, **more):
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": n, **more}

    missing = {"value": None, "low": None, "high": None, "n": 0}
    full = {column: cell(0.5) for column in m.COLUMNS} | {"temporal_consistency": cell(0.25, 31)}
    told = full | {"shape_accuracy": cell(1.0, given=True), "calibration": missing}
    lines = m.table_markdown({"Random": full, "Rules": told}).splitlines()
    assert lines[0].startswith("| voice (n = 500) | coherence | valid rate |")
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == len(m.COLUMNS) + 2
    assert lines[2].startswith("| Random | 0.500 [0.490, 0.510] |")
    assert "0.250 [0.240, 0.260] (n = 31)" in lines[2]
    assert "1.000 [0.990, 1.010] given" in lines[3]
    assert "| – |" in lines[3]
    assert len(lines) == 4
    assert m.table_markdown({}).count("\n") == 2
