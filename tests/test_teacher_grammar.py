"""The grammar of answers: constrained decoding is legal, and exact distributions equal naive scoring."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.expression import all_sequences, parse_answer
from eisv_lumen.rules import Rules
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import SHAPES
from eisv_lumen.windows import summaries
from training import corpus
from training.answering import ask, read_answers
from training.dialogue import FORMS, prompt_ids
from training.grammar import AnswerGrammar, ExpressionScorer, distribution_of, leaf_probabilities
from training.pretrain_base import ModelSettings, new_model, train_tokenizer
from training.soft_targets import SoftTargets

SIZES = ModelSettings(hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=48)


def byte_tokenizer():
    """One token per byte: every word of the grammar falls apart, many into common beginnings."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: index for index, token in enumerate([corpus.BLANK, corpus.START, corpus.END, *alphabet])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=corpus.END,
        pad_token=corpus.BLANK,
        additional_special_tokens=[corpus.START],
        chat_template=corpus.CHAT_TEMPLATE,
        padding_side="left",
    )


@pytest.fixture(scope="module", params=["words", "bytes"])
def speaker(request):
    tokenizer = train_tokenizer(1100, 0) if request.param == "words" else byte_tokenizer()
    torch.manual_seed(1)
    model = new_model(SIZES, tokenizer).eval()
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.ndim == 2 else 1
    return model, tokenizer


def prompts(tokenizer, form, count=5):
    shapes = np.arange(count) % len(SHAPES)
    windows = generate(shapes, np.random.default_rng(0), cadence=np.array([1, 300, 10, 2, 60.0])[:count])
    return prompt_ids(tokenizer, form, shapes, summaries(windows))


def naive_log_probability(model, prompt, sequence, sequences):
    """Walk along one answer; at each token renormalise over what some legal answer has there."""
    total = 0.0
    for place, token in enumerate(sequence):
        options = sorted({other[place] for other in sequences if other[:place] == sequence[:place]})
        if len(options) == 1:
            continue
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + sequence[:place]])).logits[0, -1]
        total += float(logits[options].log_softmax(0)[options.index(token)])
    return total


@pytest.mark.parametrize("form", FORMS)
def test_exact_distributions_equal_naive_scoring(speaker, form):
    model, tokenizer = speaker
    grammar = AnswerGrammar(tokenizer, form)
    given = prompts(tokenizer, form, 3)
    assert len({len(prompt) for prompt in given}) > 1, "prompts of different lengths are padded"
    distribution, hidden = ExpressionScorer(model, grammar, batch_size=2).score(given)
    assert hidden.shape == (3, SIZES.hidden_size)
    some = np.random.default_rng(0).choice(len(all_sequences()), 6, replace=False)
    for row, prompt in enumerate(given):
        for index in some:
            naive = naive_log_probability(model, prompt, grammar.lines[index], grammar.lines)
            exact = distribution[row : row + 1].probability(all_sequences()[[index]])
            assert np.log(exact[0]) == pytest.approx(naive, abs=1e-4)


def test_distributions_are_complete_and_legal(speaker):
    model, tokenizer = speaker
    distribution, _ = ExpressionScorer(model, AnswerGrammar(tokenizer, "design")).score(
        prompts(tokenizer, "design")
    )
    for part, legal in (
        (distribution.first, LEGAL_FIRST),
        (distribution.second, LEGAL_SECOND),
        (distribution.third, LEGAL_THIRD),
    ):
        assert np.allclose(part.sum(axis=-1), 1)
        assert (part[:, ~legal] == 0).all() and (part[:, legal] > 0).all()
    assert np.allclose(leaf_probabilities(distribution).sum(axis=1), 1)


def test_a_prompt_is_scored_alike_in_any_company(speaker):
    model, tokenizer = speaker
    scorer = ExpressionScorer(model, AnswerGrammar(tokenizer, "design"))
    given = prompts(tokenizer, "design")
    together, hidden = scorer.score(given)
    alone, hidden_alone = scorer.score([given[2]])
    assert np.allclose(together.third[2], alone.third[0], atol=1e-5)
    assert np.allclose(hidden[2], hidden_alone[0], atol=1e-4)


def test_what_was_read_of_the_prompts_is_not_kept_when_the_model_changes(speaker):
    """Keys and values belong to one model and one beginning: another of either is read afresh."""
    model, tokenizer = speaker
    scorer = ExpressionScorer(model, AnswerGrammar(tokenizer, "design"))
    given = prompts(tokenizer, "design", 2)
    before, _ = scorer.score(given)
    weight = model.get_decoder().layers[0].self_attn.v_proj.weight
    kept = weight.data.clone()
    weight.data *= -1
    after, _ = scorer.score(given)
    fresh, _ = ExpressionScorer(model, AnswerGrammar(tokenizer, "design")).score(given)
    weight.data = kept
    assert np.allclose(after.first, fresh.first, atol=1e-6)
    assert not np.allclose(after.first, before.first, atol=1e-4)
    other = [[*given[0][:3], given[0][5], *given[0][4:]], given[1]]
    changed, _ = scorer.score(other)
    alone, _ = scorer.score(other[:1])
    assert np.allclose(changed.first[0], alone.first[0], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_constrained_answers_are_always_legal(speaker, form):
    model, tokenizer = speaker
    grammar = AnswerGrammar(tokenizer, form)
    answers = ask(model, tokenizer, grammar, prompts(tokenizer, form), constrained=True, seed=2)
    assert answers.valid.all(), answers.texts
    free = ask(model, tokenizer, grammar, prompts(tokenizer, form), constrained=False, seed=2)
    assert not free.valid.any(), "an untrained model does not speak legally by itself"


def test_constrained_draws_follow_the_exact_distribution(speaker):
    model, tokenizer = speaker
    grammar = AnswerGrammar(tokenizer, "card")
    prompt = prompts(tokenizer, "card", 1)
    distribution, _ = ExpressionScorer(model, grammar).score(prompt)
    drawn = ask(model, tokenizer, grammar, prompt * 400, constrained=True, seed=5, batch_size=400)
    shares = np.bincount(drawn.ids[:, 0], minlength=15) / 400
    assert np.abs(shares - distribution.first[0, :15]).max() < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_the_grammar_allows_every_legal_answer_and_nothing_else(speaker, form):
    _, tokenizer = speaker
    grammar = AnswerGrammar(tokenizer, form)
    for answer in grammar.answers[::97]:
        for place, token in enumerate(answer):
            assert token in grammar.allowed_after(answer[:place])
        assert grammar.allowed_after(answer) == [grammar.end]
    assert grammar.allowed_after([10**6]) == [grammar.end]


def test_soft_targets_are_the_rules_own_probabilities(speaker):
    _, tokenizer = speaker
    grammar, rules = AnswerGrammar(tokenizer, "design"), Rules().distribution()
    soft = SoftTargets.of(grammar, rules)
    index = 1234
    path = grammar.trie.path(int(grammar.trie.leaf[index]))
    for shape in (0, 6):
        product = 1.0
        for above, node in zip([0, *path[:-1]], path, strict=True):
            place = soft.tokens[above].tolist().index(grammar.trie.token[node])
            product *= soft.probabilities[shape, above, place]
        expected = rules[np.array([shape])].probability(all_sequences()[[index]])[0]
        assert product == pytest.approx(expected, rel=1e-9)


def test_a_distribution_survives_being_spelt_out():
    rules = Rules().distribution()
    again = distribution_of(np.log(np.maximum(leaf_probabilities(rules), 1e-300)))
    assert np.allclose(again.first, rules.first) and np.allclose(again.third, rules.third)


def test_a_tokenizer_without_chat_template_is_refused(speaker):
    _, tokenizer = speaker
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ConfigurationError, match="chat template"):
            prompts(tokenizer, "design")
    finally:
        tokenizer.chat_template = template


def test_the_template_writes_conversations_as_the_corpus_does(speaker):
    _, tokenizer = speaker
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == corpus.chat_text(messages)


def test_words_of_the_domain_are_single_tokens():
    tokenizer = train_tokenizer(1100, 0)
    grammar = AnswerGrammar(tokenizer, "design")
    assert max(map(len, grammar.answers)) <= 13
    assert max(len(prompt) for prompt in prompts(tokenizer, "design")) < 90


def test_answers_that_do_not_parse_are_marked():
    good = "EISV_TOKENS: ~stillness~ ~holding~\nLUMEN_TOKENS: quiet here\nPATTERN: PAIR"
    answers = read_answers([good, good.replace("PAIR", "TRIPLE"), "", "~stillness~ ~stillness~ ~holding~"])
    assert answers.valid.tolist() == [True, False, False, False]
    assert parse_answer(good).expression.ids.tolist() == answers.ids[0].tolist()
    assert answers.lumen_ids[0].tolist()[2] == -1
