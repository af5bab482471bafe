"""The stages that make base and teacher: what they write, how they go on, and what they refuse."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ConfigurationError, HubError
from eisv_lumen.expression import all_sequences, patterns_of
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import N_SHAPES, PATTERN_ID
from eisv_lumen.windows import summaries
from tests.teacher_folders import (
    BASE_CONFIG,
    TEACHER_CONFIG,
    base_folder,
    dataset_folder,
    teacher_arguments,
    teacher_folder,
)
from training import configuration, pretrain_base, progress, train_teacher
from training.data import read_split
from training.dialogue import prompt_ids
from training.grammar import AnswerGrammar, ExpressionScorer
from training.language_model import load_teacher
from training.soft_targets import Example, collate, contexts, draw
from training.target_trainer import NEGLIGIBLE, TargetTrainer
from training.teacher_examples import TargetSettings, TeacherExamples
from training.train_teacher import TeacherSettings


class Killed(BaseException):
    """Stands for a process that is killed."""


def changed_config(path, folder, **changes):
    """A configuration with some settings changed, e.g. `run={"epochs": 1}`."""
    settings = yaml.safe_load(path.read_text("utf-8"))
    for name, value in changes.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    out = folder / path.name
    out.write_text(yaml.safe_dump(settings), "utf-8")
    return out


def killed_at(step, monkeypatch):
    """The next training run dies after this step."""
    shown = progress.Progress.on_step_end

    def die(self, args, state, control, **rest):
        shown(self, args, state, control, **rest)
        if state.global_step == step:
            raise Killed

    monkeypatch.setattr(progress.Progress, "on_step_end", die)


def test_the_base_is_an_ordinary_model_folder():
    folder = base_folder()
    manifest = artifact.verify(folder, kind="base")
    assert manifest.configuration["repo_id"] == "hikewa/eisv-lumen-base"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert not list(folder.glob("*.bin"))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "SHAPE: convergence"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>assistant\n")
    assert model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=4).shape[0] == 1
    held_out = artifact.read_metrics(folder)["held_out"]
    assert held_out["n"] >= 18 and 0 < held_out["design"] < 1


def test_a_killed_base_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(30, patch)
        pretrain_base.main(["--config", str(BASE_CONFIG), "--out", str(tmp_path / "base")])
    assert not (tmp_path / "base").exists()
    assert pretrain_base.main(["--config", str(BASE_CONFIG), "--out", str(tmp_path / "base")]) == 0
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "base", base_folder()))
    assert all(np.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_the_teacher_is_an_adapter_that_plain_peft_loads():
    folder = teacher_folder()
    artifact.verify(folder, kind="teacher")
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "hikewa/eisv-lumen-base"
    base = AutoModelForCausalLM.from_pretrained(base_folder())
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    split = read_split(dataset_folder(), "test")[np.arange(4)]
    given = prompt_ids(tokenizer, "design", split.shapes, summaries(split.windows))
    scored, _ = ExpressionScorer(model, AnswerGrammar(tokenizer, "design")).score(given)
    merged, _ = load_teacher(folder, base_folder())
    again, _ = ExpressionScorer(merged, AnswerGrammar(tokenizer, "design")).score(given)
    assert np.allclose(scored.third, again.third, atol=1e-4)


def test_the_adapter_changes_what_the_base_says():
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    split = read_split(dataset_folder(), "test")
    given = prompt_ids(tokenizer, "design", split.shapes, summaries(split.windows))
    grammar = AnswerGrammar(tokenizer, "design")
    before, _ = ExpressionScorer(AutoModelForCausalLM.from_pretrained(base_folder()), grammar).score(given)
    after, _ = ExpressionScorer(load_teacher(teacher_folder(), base_folder())[0], grammar).score(given)
    assert np.abs(before.first - after.first).max() > 0.01
    log = json.loads((teacher_folder() / "training_log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_teachers_folder_says_nothing_of_this_machine():
    for path in teacher_folder().rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(base_folder().parent).encode() not in content, path
            assert b"/tmp/" not in content, path


def test_metrics_log_and_gate_are_recorded():
    metrics = artifact.read_metrics(teacher_folder())
    assert metrics["gate_1"]["passed"] and metrics["gate_1"]["n"] == 40
    for part in ("overall", "real", "synthetic"):
        for kind in ("sampled", "constrained", "greedy"):
            assert 0 <= metrics["evaluation"][part][kind]["coherence"]["value"] <= 1
        assert metrics["evaluation"][part]["constrained"]["valid_rate"]["value"] == 1
    assert metrics["training"]["steps"] == 40
    log = json.loads((teacher_folder() / "training_log.json").read_text())
    steps = [entry["step"] for entry in log if "loss" in entry]
    assert steps == sorted(set(steps)) and steps[-1] == 40
    assert (teacher_folder() / "runs" / "events.out.tfevents.0").is_file()


def test_a_finished_teacher_is_left_alone(capsys):
    before = (teacher_folder() / "manifest.json").stat().st_mtime_ns
    assert train_teacher.main(teacher_arguments(teacher_folder())) == 0
    assert "up to date" in capsys.readouterr().out
    assert (teacher_folder() / "manifest.json").stat().st_mtime_ns == before


def test_a_killed_teacher_goes_on_and_ends_the_same(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(27, patch)
        train_teacher.main(teacher_arguments(tmp_path / "teacher"))
    assert not (tmp_path / "teacher").exists()
    assert train_teacher.main(teacher_arguments(tmp_path / "teacher")) == 0
    assert "goes on at step 20" in capsys.readouterr().err
    one, other = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "teacher", teacher_folder())
    )
    assert one.keys() == other.keys()
    assert all(np.allclose(one[name], other[name], atol=1e-6) for name in one)
    logs = [
        json.loads((f / "training_log.json").read_text()) for f in (tmp_path / "teacher", teacher_folder())
    ]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]


def test_a_teacher_below_the_gate_is_kept_and_the_command_fails(tmp_path, capsys):
    config = changed_config(
        TEACHER_CONFIG, tmp_path, gate={"coherence": 0.99}, run={"epochs": 0.1}, evaluation={"windows": 20}
    )
    for _ in range(2):
        assert train_teacher.main(teacher_arguments(tmp_path / "teacher", config)) == 1
        assert "cannot be published" in capsys.readouterr().err
    assert artifact.read_metrics(tmp_path / "teacher")["gate_1"]["passed"] is False
    artifact.verify(tmp_path / "teacher", kind="teacher")


def test_hard_targets_and_early_stopping_run_too(tmp_path):
    config = changed_config(
        TEACHER_CONFIG,
        tmp_path,
        target={"kind": "hard"},
        run={"early_stopping_patience": 1, "examples_per_epoch": 48, "gradient_checkpointing": True},
        evaluation={"windows": 20},
    )
    assert train_teacher.main(teacher_arguments(tmp_path / "teacher", config)) == 0
    log = json.loads((tmp_path / "teacher" / "training_log.json").read_text())
    assert sum("eval_loss" in entry for entry in log) >= 2


def examples(**changes):
    split = read_split(dataset_folder(), "train")
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    settings = TargetSettings(**changes)
    grammars = {form: AnswerGrammar(tokenizer, form) for form in settings.forms}
    rules = Rules().distribution()
    return TeacherExamples(split, tokenizer, grammars, rules, settings, count=400, seed=1), tokenizer, split


def test_examples_are_drawn_afresh_each_epoch_and_the_same_each_time():
    drawn, _, _ = examples()
    first = [drawn[index][0].answer for index in range(30)]
    assert [drawn[index][0].answer for index in range(30)] == first
    drawn.epoch = 1
    assert [drawn[index][0].answer for index in range(30)] != first


def test_targets_are_probabilities_over_tokens():
    drawn, tokenizer, _ = examples()
    rows = [drawn[index] for index in range(40)]
    for (row,) in rows:
        assert np.allclose(row.probabilities.sum(axis=1), 1)
        chosen = (row.tokens == np.array(row.answer)[:, None]) & (row.probabilities > 0)
        assert chosen.any(axis=1).all(), "the answer itself is always possible"
    batch = collate(rows, tokenizer.pad_token_id)
    answer = batch["target_ids"].shape[1]
    assert batch["input_ids"].shape == batch["labels"].shape
    learned = batch["labels"][:, -answer:]
    said = learned != -100
    assert torch.equal(batch["target_probabilities"].sum(-1) > 0, said)
    assert (batch["labels"][:, :-answer] == -100).all(), "nothing of the prompt is learned"
    assert torch.equal(batch["input_ids"][:, -answer:][said], learned[said])


def test_answers_beside_each_other_are_taught_as_if_each_stood_alone(tmp_path):
    drawn, tokenizer, _ = examples(answers=5)
    rows = [drawn[index] for index in range(6)]
    assert all(len({tuple(one.answer) for one in row}) > 1 for row in rows)
    assert len({len(row[0].prompt) for row in rows}) > 1, "both forms, so that prompts are padded"
    model = AutoModelForCausalLM.from_pretrained(base_folder())
    trainer = TargetTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True),
        legality=0.7,
    )

    def gradient(batch):
        model.zero_grad()
        trainer.compute_loss(model.train(), batch).backward()
        return model.model.layers[0].mlp.up_proj.weight.grad.numpy().copy()

    together = collate(rows, tokenizer.pad_token_id)
    alone = collate([[one] for row in rows for one in row], tokenizer.pad_token_id)
    assert together["input_ids"].numel() < 0.5 * alone["input_ids"].numel(), "a prompt is read once"
    expected = gradient(alone)
    assert np.abs(gradient(together) - expected).max() < 1e-4 * np.abs(expected).max()
    # Without the mask, an answer would read the answers beside it.
    causal = torch.ones_like(together["attention_mask"]).tril()
    assert (
        np.abs(gradient({**together, "attention_mask": causal}) - expected).max()
        > 0.01 * np.abs(expected).max()
    )


class FixedLogits(torch.nn.Module):
    """Simulates a language model: it says the same at every place, whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids, logits_to_keep, **_):
        return SimpleNamespace(logits=self.logits.expand(len(input_ids), logits_to_keep, -1))


@pytest.mark.parametrize(("impossible", "purity"), [(0.004, 0.0), (0.004, 0.1), (1e-5, 0.1)])
def test_impossible_tokens_are_driven_out_until_they_are_negligible(tmp_path, impossible, purity):
    model = FixedLogits(torch.tensor([0.6, 0.4, impossible / 2, impossible / 2]).log())
    trainer = TargetTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True),
        purity=purity,
    )
    one = Example([0], [1], np.array([[0, 1]]), np.array([[0.6, 0.4]]))
    trainer.compute_loss(model.train(), collate([[one]], pad=0)).backward()
    pull = float(model.logits.grad[2:].sum())
    # Cross-entropy pulls an impossible token as hard as it is likely.
    expected = impossible + purity * (impossible > NEGLIGIBLE)
    assert pull == pytest.approx(expected, rel=0.02)
    assert model.logits.grad.sum() == pytest.approx(0.0, abs=1e-6)
    model.zero_grad()
    loss = trainer.compute_loss(model.eval(), collate([[one]], pad=0))
    assert loss.item() == pytest.approx(-0.6 * np.log(0.6) - 0.4 * np.log(0.4), abs=0.01)


def test_draws_beside_each_other_are_exact_and_spread():
    cumulative = contexts(Rules().distribution(), 0.0)[0]
    generator = np.random.default_rng(0)
    drawn = np.array([draw(cumulative, generator.random(), 8) for _ in range(2000)])
    expected = np.diff(cumulative, prepend=0) / cumulative[-1]
    likely = np.argsort(expected)[-15:]
    for column in (drawn[:, 0], drawn[:, 5]):
        share = np.bincount(column, minlength=len(expected))[likely] / len(column)
        assert np.abs(share - expected[likely]).max() < 0.015
    assert np.mean([len(set(row)) for row in drawn.tolist()]) > 7.5
    edges = np.array([0.25, 0.5, 1.0])
    assert draw(edges, 0.999999, 3) == [2, 1, 2] and draw(edges, 0.0, 2) == [0, 1]


def test_balance_evens_out_the_shapes_and_hard_draws_follow_the_target():
    drawn, tokenizer, split = examples(kind="hard", balance=1.0, forms={"card": 1.0})
    prompts = {tuple(p): s for p, s in zip(drawn._prompts["card"], split.shapes, strict=True)}
    rows = [drawn[index][0] for index in range(400)]
    shapes = np.array([prompts[tuple(row.prompt)] for row in rows])
    present = np.unique(split.shapes)
    assert len(present) == N_SHAPES
    assert np.bincount(shapes, minlength=N_SHAPES)[present].min() > 20
    answers = {tuple(a): i for i, a in enumerate(AnswerGrammar(tokenizer, "card").answers)}
    patterns = patterns_of(all_sequences()[[answers[tuple(row.answer)] for row in rows]])
    single = (patterns == PATTERN_ID["SINGLE"]).mean()
    expected = Rules().distribution().patterns()[shapes, PATTERN_ID["SINGLE"]].mean()
    assert abs(single - expected) < 0.07


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"targets": ["no_such_layer"]}}, "no_such_layer"),
        ({"run": {"max_length": 20}}, "max_length"),
    ],
)
def test_settings_that_do_not_fit_the_base_are_refused(tmp_path, changes, message):
    config = changed_config(TEACHER_CONFIG, tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=message):
        train_teacher.main(teacher_arguments(tmp_path / "teacher", config))
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize(
    "changes", [{"answers": 0}, {"purity": -0.1}, {"legality": -1.0}, {"long_share": 1.5}]
)
def test_targets_out_of_range_are_refused(tmp_path, changes):
    with pytest.raises(ConfigurationError, match=next(iter(changes))):
        configuration.load(changed_config(TEACHER_CONFIG, tmp_path, target=changes), TeacherSettings)


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 0.0}, {"batch_size": 0}, {"epochs": -1}, {"scheduler": "magic"}, {"precision": "fp8"}],
)
def test_settings_out_of_range_are_refused(tmp_path, changes):
    with pytest.raises(ConfigurationError):
        configuration.load(changed_config(TEACHER_CONFIG, tmp_path, run=changes), TeacherSettings)


def test_a_base_without_chat_template_is_refused(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(base_folder(), base)
    (base / "chat_template.jinja").unlink()
    for name in ("manifest.json", "metrics.json"):
        (base / name).unlink()
    with pytest.raises(ConfigurationError, match="chat template"):
        train_teacher.main(teacher_arguments(tmp_path / "teacher", base=base))


def test_folders_of_the_wrong_kind_are_refused(tmp_path):
    arguments = teacher_arguments(tmp_path / "teacher")
    arguments[arguments.index("--dataset") + 1] = str(base_folder())
    with pytest.raises(ArtifactError, match="is a base"):
        train_teacher.main(arguments)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        train_teacher.main(teacher_arguments(tmp_path / "teacher", base=tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match="is a dataset"):
        train_teacher.main(teacher_arguments(tmp_path / "teacher", base=dataset_folder()))


def test_an_unreachable_base_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True)
    arguments = teacher_arguments(tmp_path / "teacher")
    at = arguments.index("--base")
    with pytest.raises(HubError, match="hikewa/eisv-lumen-base"):
        train_teacher.main(arguments[:at] + arguments[at + 2 :])
    assert not (tmp_path / "teacher").exists()
