"""The grammar of answers: constrained decoding is legal, and exact distributions equal naive scoring."""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks import labelling
from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.expression import all_sequences, parse_answer
from eisv_lumen.rules import Rules
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import SHAPES
from eisv_lumen.windows import summaries
from training import corpus, llama_tree, tree_attention
from training.answering import ask, read_answers
from training.dialogue import FORMS, prompt_ids
from training.grammar import AnswerGrammar, ExpressionScorer, distribution_of, leaf_probabilities
from training.pretrain_base import ModelSettings, new_model, train_tokenizer
from training.soft_targets import SoftTargets

word_tokenizer = functools.cache(lambda: train_tokenizer(1100, 0))
grammar_of = functools.cache(AnswerGrammar)
"""Of a tokenizer, in a form; nothing changes a grammar."""
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
    tokenizer = word_tokenizer() if request.param == "words" else byte_tokenizer()
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
    grammar = grammar_of(tokenizer, form)
    given = prompts(tokenizer, form, 3)
    given[1] = [*given[1][:-1], *given[2][-9:]]
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
    distribution, _ = ExpressionScorer(model, grammar_of(tokenizer, "design")).score(
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
    scorer = ExpressionScorer(model, grammar_of(tokenizer, "design"))
    given = prompts(tokenizer, "design")
    together, hidden = scorer.score(given)
    alone, hidden_alone = scorer.score([given[2]])
    assert np.allclose(together.third[2], alone.third[0], atol=1e-5)
    assert np.allclose(hidden[2], hidden_alone[0], atol=1e-4)


def test_what_was_read_of_the_prompts_is_not_kept_when_the_model_changes(speaker):
    """Keys and values belong to one model and one beginning: another of either is read afresh."""
    model, tokenizer = speaker
    scorer = ExpressionScorer(model, grammar_of(tokenizer, "design"))
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


def same(one, other):
    return all(
        np.allclose(a, b, atol=1e-5) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def adapted(model, seed):
    """The model with an adapter of random weights that is large enough to change every answer."""
    torch.manual_seed(seed)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(copy.deepcopy(model), lora)


def test_an_adapter_that_is_switched_or_merged_is_read_afresh(speaker):
    model, tokenizer = speaker
    grammar, given = grammar_of(tokenizer, "design"), prompts(tokenizer, "design", 3)
    plain, _ = ExpressionScorer(model, grammar).score(given)
    peft = adapted(model, 1)
    peft.add_adapter("other", peft.peft_config["default"])
    peft.eval()
    scorer = ExpressionScorer(peft, grammar)
    one, _ = scorer.score(given)
    peft.set_adapter("other")
    other, _ = scorer.score(given)
    with peft.disable_adapter():
        without, _ = scorer.score(given)
    peft.set_adapter("default")
    again, _ = scorer.score(given)
    assert same(one, again) and same(plain, without)
    assert not same(one, other) and not same(one, plain) and not same(other, plain)
    merged, _ = ExpressionScorer(peft.merge_and_unload(), grammar).score(given)
    assert same(merged, one)


def test_another_precision_is_read_afresh(speaker):
    """Keys and values of one dtype cannot be attended to in another."""
    model, tokenizer = speaker
    model = copy.deepcopy(model)
    scorer = ExpressionScorer(model, grammar_of(tokenizer, "design"))
    given = prompts(tokenizer, "design", 3)
    single, _ = scorer.score(given)
    model.to(torch.float64)
    double, _ = scorer.score(given)
    model.to(torch.bfloat16)
    half, hidden = scorer.score(given)
    assert np.allclose(single.first, double.first, atol=1e-5)
    assert hidden.dtype == np.float32 and 1e-5 < np.abs(half.first - double.first).max() < 0.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no second device")
def test_another_device_is_read_afresh(speaker):
    model, tokenizer = speaker
    model = copy.deepcopy(model)
    scorer = ExpressionScorer(model, grammar_of(tokenizer, "design"))
    here, _ = scorer.score(prompts(tokenizer, "design", 3))
    model.to("cuda")
    there, _ = scorer.score(prompts(tokenizer, "design", 3))
    assert np.allclose(here.first, there.first, atol=1e-4)


def test_another_tokenizers_grammar_is_refused_or_read_afresh(speaker):
    """The same text in other tokens is another prompt with another tree."""
    model, tokenizer = speaker
    other = train_tokenizer(1100, 0) if len(tokenizer) < 1000 else byte_tokenizer()
    grammar = AnswerGrammar(other, "design")
    if max(grammar.trie.token) >= len(model.get_output_embeddings().weight):
        with pytest.raises(ConfigurationError, match="tokenizer"):
            ExpressionScorer(model, grammar)
        return
    own = ExpressionScorer(model, grammar_of(tokenizer, "design"))
    before, _ = own.score(prompts(tokenizer, "design", 2))
    ExpressionScorer(model, grammar).score(prompts(other, "design", 2))
    after, _ = own.score(prompts(tokenizer, "design", 2))
    assert same(before, after)


def test_the_side_of_padding_changes_nothing(speaker):
    """Prompts come without padding; what the scorer adds itself is seen by no one."""
    model, tokenizer = speaker
    scorer = ExpressionScorer(model, grammar_of(tokenizer, "design"), batch_size=3)
    side, found = tokenizer.padding_side, {}
    for tokenizer.padding_side in ("left", "right"):
        found[tokenizer.padding_side], _ = scorer.score(prompts(tokenizer, "design", 3))
    tokenizer.padding_side = side
    assert same(found["left"], found["right"])


def test_positions_are_a_prompts_own_whatever_is_shared(speaker):
    """The shared beginning is as long as the company allows: none of it, or all but a token."""
    model, tokenizer = speaker
    scorer = ExpressionScorer(model, grammar_of(tokenizer, "design"))
    prompt = prompts(tokenizer, "design", 1)[0]
    alone, state = scorer.score([prompt])
    for company in ([*prompt, *prompt[5:40]], [prompt[1], *prompt[2:9]], prompt[: len(prompt) // 2], prompt):
        together, states = scorer.score([company, prompt])
        assert same(alone, together[1:])
        assert np.allclose(state[0], states[1], atol=1e-4)


def test_scoring_leaves_the_model_as_it_was(speaker):
    model, tokenizer = speaker
    model = copy.deepcopy(model)
    grammar, given = grammar_of(tokenizer, "design"), prompts(tokenizer, "design", 2)
    before = ask(model, tokenizer, grammar, given, constrained=True, seed=1).texts
    attention = model.config._attn_implementation

    def stop(done):
        raise KeyboardInterrupt

    model.train()
    with pytest.raises(KeyboardInterrupt):
        ExpressionScorer(model, grammar).score(given, progress=stop)
    assert model.training, "also when it was interrupted"
    model.eval()
    ExpressionScorer(model, grammar).score(given)
    assert model.config._attn_implementation == attention
    assert ask(model, tokenizer, grammar, given, constrained=True, seed=1).texts == before


def of_build(build, tokenizer):
    """A causal language model of the build with random weights, large enough that its answers differ."""
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"vocab_size": len(tokenizer), "intermediate_size": 48, "pad_token_id": tokenizer.pad_token_id}
    configuration = AutoConfig.for_model(build, **sizes, **BUILDS[build])
    model = AutoModelForCausalLM.from_config(configuration).eval()
    for parameter in model.parameters():
        parameter.data *= 8 if parameter.ndim == 2 else 1
        parameter.data += 0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0
    return model


BUILDS = {
    # Norms of queries and keys, and a head size of its own.
    "qwen3": {"head_dim": 16},
    # Biases of queries, keys and values.
    "qwen2": {},
    "llama": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    # Fused projections, and norms around every sublayer with queries and keys normed as a whole: read by
    # these models' own code.
    "phi3": {},
    "olmo2": {},
}


@pytest.mark.parametrize("build", BUILDS)
def test_models_of_any_build_are_scored_as_naively(build):
    tokenizer = word_tokenizer()
    model = of_build(build, tokenizer)
    grammar, given = grammar_of(tokenizer, "card"), prompts(tokenizer, "card", 3)
    distribution, hidden = ExpressionScorer(model, grammar).score(given)
    for index in (5, 700, 2900):
        naive = naive_log_probability(model, given[1], grammar.lines[index], grammar.lines)
        exact = distribution[1:].probability(all_sequences()[[index]])
        assert np.log(exact[0]) == pytest.approx(naive, abs=1e-4)
    with torch.no_grad():
        plain = model.get_decoder()(input_ids=torch.tensor([given[2] + forced(grammar)]))
    assert np.allclose(hidden[2], plain.last_hidden_state[0, -1], atol=1e-4)


def forced(grammar):
    """The tokens that begin every answer."""
    return [at[0] for at in zip(*grammar.lines, strict=False) if len(set(at)) == 1]


@pytest.mark.parametrize("build", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("form", FORMS)
def test_the_quick_reader_reads_what_the_models_own_code_reads(build, form):
    tokenizer = word_tokenizer()
    model = of_build(build, tokenizer)
    scorer = ExpressionScorer(model, grammar_of(word_tokenizer(), form))
    ids = torch.tensor([prompts(tokenizer, form, 1)[0][:40], prompts(tokenizer, form, 2)[1][:40]])
    assert llama_tree.reads(model.get_decoder())
    for shared in (0, 1, 9):
        ids[:, :shared] = ids[0, :shared]
        beginning = ids[0, :shared].tolist()
        quick = llama_tree.LlamaReader(model.get_decoder(), scorer._tree, beginning)
        plain = tree_attention.PlainReader(model, scorer._tree, beginning)
        with torch.inference_mode():
            found, expected = quick.read(ids[:, shared:]), plain.read(ids[:, shared:])
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("build", ["phi3", "olmo2"])
def test_other_builds_are_left_to_their_own_code(build):
    assert not llama_tree.reads(of_build(build, word_tokenizer()).get_decoder())


def test_a_model_that_does_more_than_its_build_says_is_read_by_its_own_code():
    """What hangs on a layer is not seen by the quick reader, and would be left out without a word."""
    tokenizer = word_tokenizer()
    model = of_build("llama", tokenizer)
    grammar, given = grammar_of(tokenizer, "card"), prompts(tokenizer, "card", 2)
    before, _ = ExpressionScorer(model, grammar).score(given)
    model.model.layers[0].register_forward_hook(lambda module, inputs, out: 1.5 * out)
    after, _ = ExpressionScorer(model, grammar).score(given)
    assert np.abs(after.first - before.first).max() > 0.01
    naive = naive_log_probability(model, given[1], grammar.lines[700], grammar.lines)
    exact = after[1:].probability(all_sequences()[[700]])
    assert np.log(exact[0]) == pytest.approx(naive, abs=1e-4)


@pytest.mark.parametrize(("build", "extra"), [("granite", {"logits_scaling": 8.0}), ("cohere", {})])
def test_a_model_whose_head_is_not_all_there_is_to_a_logit_is_refused(build, extra, monkeypatch):
    monkeypatch.setitem(BUILDS, build, extra)
    tokenizer = word_tokenizer()
    scorer = ExpressionScorer(of_build(build, tokenizer), grammar_of(tokenizer, "card"))
    with pytest.raises(ConfigurationError, match="whose logits are not its last states times its head"):
        scorer.score(prompts(tokenizer, "card", 2))


def test_layers_that_see_a_part_of_the_prompt_are_left_to_the_models_own_code():
    model = of_build("qwen3", word_tokenizer())
    model.config.layer_types[1] = "sliding_attention"
    assert not llama_tree.reads(model.get_decoder())


def test_two_hundred_windows_are_scored_as_naively():
    """Prompts of several lengths, in many batches; every expression of some, one of every window."""
    tokenizer, count, grammar = word_tokenizer(), 200, grammar_of(word_tokenizer(), "design")
    torch.manual_seed(6)
    model = new_model(SIZES, tokenizer).eval()
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.ndim == 2 else 1
    generator = np.random.default_rng(3)
    shapes = generator.integers(0, len(SHAPES), count)
    windows = generate(shapes, generator, cadence=generator.choice([2.0, 30.0, 300.0], count))
    given = prompt_ids(tokenizer, "design", shapes, summaries(windows))
    assert len({len(prompt) for prompt in given}) > 1
    exact = np.log(leaf_probabilities(ExpressionScorer(model, grammar).score(given)[0]))
    for row in range(0, count, 40):
        assert np.abs(exact[row] - labelling.naive(model, grammar, given[row])).max() < 1e-4
    for row, index in enumerate(generator.integers(0, len(all_sequences()), count)):
        naive = naive_log_probability(model, given[row], grammar.lines[index], grammar.lines)
        assert exact[row, index] == pytest.approx(naive, abs=1e-4)
    assert np.ptp(exact, axis=0).max() > 0.1, "windows differ"


@settings(max_examples=12, deadline=None)
@hypothesis_given(
    seed=st.integers(0, 2**31),
    scale=st.floats(0, 30),
    temperature=st.floats(0.05, 20),
    form=st.sampled_from(FORMS),
    greedy=st.booleans(),
)
def test_any_model_at_any_temperature_answers_legally_under_constraint(
    seed, scale, temperature, form, greedy
):
    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    model = new_model(SIZES, tokenizer).eval()
    for parameter in model.parameters():
        parameter.data *= scale if parameter.ndim == 2 else 1
    asked = prompts(tokenizer, form, 3)
    answers = ask(
        model,
        tokenizer,
        grammar_of(word_tokenizer(), form),
        asked,
        constrained=True,
        greedy=greedy,
        temperature=temperature,
        seed=seed,
    )
    assert answers.valid.all(), answers.texts
    assert all(parse_answer(text).expression for text in answers.texts)


def test_what_a_model_folder_says_of_sampling_does_not_colour_its_draws(speaker):
    """Qwen3's folder asks for top-k 20, others for penalties: those would not be the model's own answers."""
    model, tokenizer = speaker
    model = copy.deepcopy(model)
    grammar, asked = grammar_of(tokenizer, "card"), prompts(tokenizer, "card")
    plain = [
        ask(model, tokenizer, grammar, asked, constrained=True, greedy=greedy, seed=3).texts
        for greedy in (False, True)
    ]
    model.generation_config.update(
        do_sample=True, top_k=1, top_p=0.1, temperature=0.1, repetition_penalty=9.0, min_p=0.9
    )
    coloured = [
        ask(model, tokenizer, grammar, asked, constrained=True, greedy=greedy, seed=3).texts
        for greedy in (False, True)
    ]
    assert plain == coloured


@pytest.mark.parametrize("form", FORMS)
def test_constrained_answers_are_always_legal(speaker, form):
    model, tokenizer = speaker
    grammar = grammar_of(tokenizer, form)
    answers = ask(model, tokenizer, grammar, prompts(tokenizer, form), constrained=True, seed=2)
    assert answers.valid.all(), answers.texts
    free = ask(model, tokenizer, grammar, prompts(tokenizer, form), constrained=False, seed=2)
    assert not free.valid.any(), "an untrained model does not speak legally by itself"


def test_constrained_draws_follow_the_exact_distribution(speaker):
    model, tokenizer = speaker
    grammar = grammar_of(tokenizer, "card")
    prompt = prompts(tokenizer, "card", 1)
    distribution, _ = ExpressionScorer(model, grammar).score(prompt)
    drawn = ask(model, tokenizer, grammar, prompt * 400, constrained=True, seed=5, batch_size=400)
    shares = np.bincount(drawn.ids[:, 0], minlength=15) / 400
    assert np.abs(shares - distribution.first[0, :15]).max() < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_the_grammar_allows_every_legal_answer_and_nothing_else(speaker, form):
    _, tokenizer = speaker
    grammar = grammar_of(tokenizer, form)
    for answer in grammar.answers[::97]:
        for place, token in enumerate(answer):
            assert token in grammar.allowed_after(answer[:place])
        assert grammar.allowed_after(answer) == [grammar.end]
    assert grammar.allowed_after([10**6]) == [grammar.end]


def test_soft_targets_are_the_rules_own_probabilities(speaker):
    _, tokenizer = speaker
    grammar, rules = grammar_of(tokenizer, "design"), Rules().distribution()
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
    tokenizer = word_tokenizer()
    grammar = grammar_of(tokenizer, "design")
    assert max(map(len, grammar.answers)) <= 13
    assert max(len(prompt) for prompt in prompts(tokenizer, "design")) < 90


def test_answers_that_do_not_parse_are_marked():
    good = "EISV_TOKENS: ~stillness~ ~holding~\nLUMEN_TOKENS: quiet here\nPATTERN: PAIR"
    answers = read_answers([good, good.replace("PAIR", "TRIPLE"), "", "~stillness~ ~stillness~ ~holding~"])
    assert answers.valid.tolist() == [True, False, False, False]
    assert parse_answer(good).expression.ids.tolist() == answers.ids[0].tolist()
    assert answers.lumen_ids[0].tolist()[2] == -1


def test_the_benchmark_measures_every_way_on_the_same_windows(monkeypatch):
    """Small sizes: what is tested is that each way runs and that exact and naive scoring agree throughout."""
    monkeypatch.setattr(labelling, "ROUNDS", 1)
    monkeypatch.setattr(labelling, "BATCHES", (4,))
    tokenizer = word_tokenizer()
    torch.manual_seed(4)
    found = labelling.measure(new_model(SIZES, tokenizer).eval(), tokenizer, False, 4)
    figures = {figure.name: figure for figure in found}
    against = [figure for figure in found if figure.unit == "windows/s"]
    assert len(against) == 4 and all(figure.value > 0 and figure.baseline > 0 for figure in against)
    assert len({figure.value for figure in against}) == 1, "one figure, beside each way"
    apart = figures["largest difference from naive scoring (log-probability)"]
    assert apart.value < 1e-4 and apart.n == 4 * len(all_sequences())
