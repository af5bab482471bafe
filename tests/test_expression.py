import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisv_lumen import expression as e
from eisv_lumen.errors import ExpressionError
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import (
    EOS,
    LUMEN_WORDS,
    N_CLASSES,
    PAD,
    PATTERN_ID,
    SHAPES,
    TOKEN_ID,
    TOKENS,
    TRANSLATION,
)

SEQUENCES = e.all_sequences()
EXPRESSIONS = e.decode(SEQUENCES)
expressions = st.sampled_from(EXPRESSIONS)
ids = st.lists(st.integers(-2, N_CLASSES + 1), min_size=3, max_size=3)


def test_there_are_exactly_three_thousand_expressions():
    assert SEQUENCES.shape == (3000, 3)
    assert len({str(one) for one in EXPRESSIONS}) == 3000


def test_ids_round_trip_for_every_expression():
    assert (e.encode(EXPRESSIONS) == SEQUENCES).all()
    assert e.encode([]).shape == (0, 3)


def test_text_round_trips_for_every_expression():
    assert [e.parse(str(one)) for one in EXPRESSIONS] == EXPRESSIONS


def test_answers_round_trip_for_every_expression():
    for one in EXPRESSIONS:
        assert e.parse_answer(e.render_answer(one)) == e.Answer(one, one.lumen_words)


def test_many_answers_are_the_single_ones_in_any_order():
    rows = np.random.default_rng(0).integers(0, len(SEQUENCES), 10_000)
    assert e.render_answers(SEQUENCES[rows]) == [e.render_answer(EXPRESSIONS[row]) for row in rows]
    assert e.decode(SEQUENCES[rows]) == [EXPRESSIONS[row] for row in rows]
    assert e.render_answers(np.zeros((0, 3), np.int64)) == []


def test_what_is_written_is_written_once_per_expression():
    seen = []
    rows = SEQUENCES[[5, 7, 5, 5, 7]]
    texts = e.written(rows, lambda one: seen.append(one) or e.to_published(one))
    assert texts == [e.to_published(EXPRESSIONS[k]) for k in (5, 7, 5, 5, 7)]
    assert len(seen) == 2


@pytest.mark.parametrize("write", [e.decode, e.render_answers])
@pytest.mark.parametrize(
    "row",
    [[0, EOS, EOS], [EOS, PAD, PAD], [0, 0, 1], [0, -1, PAD], [0, N_CLASSES, PAD], [-1, -1, -1], [0, 1]],
)
def test_one_broken_row_among_many_is_refused(write, row):
    with pytest.raises(ExpressionError, match="found:"):
        write(np.array([row]))
    if len(row) == 3:
        with pytest.raises(ExpressionError):
            write(np.concatenate([SEQUENCES, [row]]))


def test_patterns_of_agrees_with_the_objects():
    assert e.patterns_of(SEQUENCES).tolist() == [PATTERN_ID[one.pattern] for one in EXPRESSIONS]


def test_every_sequence_of_ids_is_legal_or_refused():
    every = np.array(list(itertools.product(range(N_CLASSES), repeat=3)))
    legal = e.is_legal(every)
    assert {tuple(row) for row in every[legal]} == {tuple(row) for row in SEQUENCES}
    for row in every[~legal][::7]:
        with pytest.raises(ExpressionError):
            e.Expression.from_ids(row)


@given(ids)
def test_ids_outside_the_vocabulary_are_never_legal(row):
    legal = bool(e.is_legal(np.array([row]))[0])
    assert legal == (tuple(row) in {tuple(sequence) for sequence in SEQUENCES.tolist()})


def translate(tokens):
    """The domain's rule, written out: the first word of each token's pair that is not used yet."""
    said = []
    for token in tokens:
        first, second = TRANSLATION[token]
        if first not in said:
            said.append(first)
        elif second not in said:
            said.append(second)
    return tuple(said)


def test_translation_takes_the_first_unused_word_of_each_token():
    table = e.lumen_ids(SEQUENCES)
    for one, row in zip(EXPRESSIONS, table.tolist(), strict=True):
        words = translate(one.tokens)
        assert one.lumen_words == words
        assert 1 <= len(words) <= 3
        assert tuple(LUMEN_WORDS[i] for i in row if i >= 0) == words
        assert row == sorted(row, key=lambda i: i < 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("~stillness~ ~deep_listening~", ("quiet", "sense")),
        ("~warmth~ ~warmth~ ~warmth~", ("warm", "feel")),
        ("~resonance~ ~holding~", ("with", "here")),
        ("~threshold~?", ("sense",)),
    ],
)
def test_examples_of_translation(text, words):
    assert e.parse(text).lumen_words == words


@pytest.mark.parametrize(
    ("text", "pattern", "tokens"),
    [
        ("~stillness~", "SINGLE", ("stillness",)),
        ("~threshold~?", "QUESTION", ("threshold",)),
        ("~stillness~ ~holding~", "PAIR", ("stillness", "holding")),
        ("~stillness~,~holding~", "PAIR", ("stillness", "holding")),
        ("~stillness~, ~holding~, ~return~", "TRIPLE", ("stillness", "holding", "return")),
        ("  ~ripple~ ~ripple~ ", "REPETITION", ("ripple", "ripple")),
        ("~ripple~ ~questioning~", "PAIR", ("ripple", "questioning")),
    ],
)
def test_text_that_is_an_expression(text, pattern, tokens):
    assert e.parse(text) == e.Expression(tokens, pattern)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stillness",
        "~silence~",
        "~Stillness~",
        "~stillness~ and ~holding~",
        "~stillness~ ~holding~?",
        "~stillness~? ~holding~",
        "~stillness~ ?",
        "~stillness~ ~stillness~ ~holding~",
        "~a~ ~b~ ~c~ ~d~",
        " ".join(["~ripple~"] * 4),
        "~stillness",
    ],
)
def test_text_that_is_no_expression_is_refused(text):
    with pytest.raises(ExpressionError) as error:
        e.parse(text)
    assert all(word in str(error.value) for word in ("found:", "expected:", "next:"))


@given(expressions)
def test_published_rows_round_trip_with_their_pattern(one):
    written = e.to_published(one)
    read = e.from_published(written, one.pattern)
    assert len(written) == {"SINGLE": 1, "TRIPLE": 3}.get(one.pattern, 2)
    if one.pattern == "REPETITION":
        assert read == e.Expression(one.tokens[:2], "REPETITION")
    else:
        assert read == one


@given(expressions, st.sampled_from(["questioning", "curiosity"]))
def test_a_published_question_is_recognised_without_its_pattern(one, marker):
    if one.pattern == "QUESTION":
        assert e.from_published(e.to_published(one, marker)) == one


def test_names_without_tildes_and_other_categories_are_read():
    assert str(e.from_published(["ripple", "curiosity"])) == "~ripple~?"
    assert str(e.from_published(["ripple", "curiosity"], "inquiry")) == "~ripple~?"
    assert str(e.from_published(["ripple", "curiosity"], "PAIR")) == "~ripple~ ~curiosity~"
    assert str(e.from_published([" ~ripple~ "], "SINGLE")) == "~ripple~"
    for empty in ("QUESTION", None):
        with pytest.raises(ExpressionError):
            e.from_published([], empty)


def test_a_token_before_a_question_marker_is_likelier_a_question_than_a_pair():
    """What reading an unlabelled published row as a QUESTION rests on."""
    rules = Rules().distribution()
    questions = np.array([e.Expression((token,), "QUESTION").ids for token in TOKENS])
    for marker in ("questioning", "curiosity"):
        for shape in range(len(SHAPES)):
            for token, question in zip(TOKENS, questions, strict=True):
                if token == marker:
                    continue
                pair = np.array([[TOKEN_ID[token], TOKEN_ID[marker], EOS]])
                here = rules[[shape]]
                assert here.probability(question[None])[0] / 2 > here.probability(pair)[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "EISV_TOKENS: ~ripple~\nLUMEN_TOKENS: busy",
        "EISV_TOKENS: ~ripple~\nPATTERN: SINGLE\nLUMEN_TOKENS: busy",
        "EISV_TOKENS: ~ripple~\nLUMEN_TOKENS: noisy\nPATTERN: SINGLE",
        "EISV_TOKENS: ~ripple~\nLUMEN_TOKENS: busy sense here with\nPATTERN: SINGLE",
        "EISV_TOKENS: ~ripple~\nLUMEN_TOKENS: busy\nPATTERN: PAIR",
        "EISV_TOKENS: ~rumble~\nLUMEN_TOKENS: busy\nPATTERN: SINGLE",
        "EISV_TOKENS: ~ripple~\nLUMEN_TOKENS:\nPATTERN: SINGLE",
        "EISV_TOKENS: ~ripple~\nLUMEN_TOKENS: busy\nPATTERN: SINGLE\nPATTERN: SINGLE",
    ],
)
def test_answers_that_break_the_form_are_refused(text):
    with pytest.raises(ExpressionError):
        e.parse_answer(text)


def test_an_answer_may_disagree_with_the_translation_and_a_bare_expression_is_one():
    answer = e.parse_answer("EISV_TOKENS: ~ripple~\nLUMEN_TOKENS: warm\nPATTERN: SINGLE")
    assert answer.lumen_words == ("warm",) != answer.expression.lumen_words
    assert e.parse_answer(" ~ripple~? \n").expression.pattern == "QUESTION"


@pytest.mark.parametrize(
    ("tokens", "pattern"),
    [
        ((), "SINGLE"),
        (("ripple", "return"), "SINGLE"),
        (("ripple", "ripple"), "PAIR"),
        (("ripple",), "REPETITION"),
        (("ripple", "return"), "QUESTION"),
        (("ripple", "return", "ripple"), "TRIPLE"),
        (("ripple",), "SHOUT"),
    ],
)
def test_tokens_that_do_not_form_the_pattern_are_refused(tokens, pattern):
    with pytest.raises(ExpressionError):
        e.Expression(tokens, pattern)


@pytest.mark.parametrize(
    "row", [[0, 1], [0, EOS, EOS], [EOS, PAD, PAD], [0, 0, 1], [0, 1, PAD], [0, -1, PAD]]
)
def test_ids_that_break_the_grammar_are_refused(row):
    with pytest.raises(ExpressionError):
        e.Expression.from_ids(row)
