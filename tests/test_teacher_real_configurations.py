"""The configurations of the real teachers, run on narrow bases with random weights."""

import json
import os
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

from dataset_builder import build as dataset_build
from dataset_builder.configuration import DatasetSettings
from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ConfigurationError, HubError, ResourceError, SourceError
from eisv_lumen.expression import Expression
from eisv_lumen.layouts import DATASET, LABELS
from eisv_lumen.rules import Rules
from eisv_lumen.windows import summaries
from tests.teacher_folders import CONFIGS, ROOT, TEACHER_CONFIG
from tests.test_dataset_builder import write_database
from training import configuration, devices, evaluate, label, memory, random_base, train_teacher
from training.data import labelling_weights, read_split
from training.devices import Team
from training.dialogue import prompt_ids
from training.grammar import AnswerGrammar, ExpressionScorer
from training.language_model import load_base, load_teacher, load_tokenizer
from training.progress import Trackio
from training.teacher_examples import TargetSettings, TeacherExamples
from training.train_teacher import TeacherSettings

REAL = sorted(random_base.ARCHITECTURES)
SHORT = ("run.epochs=1", "run.examples_per_epoch=64", "run.validation_examples=16", "evaluation.windows=9")
PARALLEL = (
    *("run.examples_per_epoch=96", "run.validation_examples=8", "run.batch_size=8", "run.save_steps=4"),
    *("run.learning_rate=1e-3", "run.logging_steps=2", "evaluation.windows=9"),
    *("gate.coherence=0", "gate.valid_rate=0"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A hundred windows from the recordings in the repository."""
    folder = tmp_path_factory.mktemp("dataset")
    settings = folder / "tiny.yaml"
    settings.write_text(
        "train: {windows: 72}\nvalidation: {real: 12, synthetic: 9}\ntest: {real: 12, synthetic: 9}\n"
        "synthetic: {cadences: [2, 30]}\n"
    )
    recordings = str(ROOT / "dataset_builder" / "recordings")
    dataset_build.build(folder / "dataset", [recordings], DatasetSettings.read(settings))
    return folder / "dataset"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A narrow base with random weights per real architecture."""
    folder = tmp_path_factory.mktemp("bases")
    for name in REAL:
        assert random_base.main(["--like", name, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in REAL}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, dataset, bases):
    """What the real configurations make of those bases in a few steps."""
    folder = tmp_path_factory.mktemp("teachers")
    for name in REAL:
        arguments = command(config_of(name), dataset, bases[name], folder / name, *SHORT)
        assert train_teacher.main(arguments) == 1, "random weights pass no gate"
    return {name: folder / name for name in REAL}


def config_of(name):
    return CONFIGS / f"teacher-{name}.yaml"


def command(config, dataset, base, out, *settings):
    """The command line of the teacher's stage."""
    overrides = [part for setting in settings for part in ("--set", setting)]
    folders = ["--dataset", str(dataset), "--base", str(base), "--out", str(out)]
    return ["--config", str(config), *folders, *overrides]


@pytest.mark.parametrize("name", REAL)
def test_a_random_base_has_what_is_particular_about_the_real_one(bases, name):
    config = AutoConfig.from_pretrained(bases[name])
    model = AutoModelForCausalLM.from_pretrained(bases[name])
    assert (
        type(model).__name__ == {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[config.model_type]
    )
    assert config.tie_word_embeddings and model.lm_head.weight is model.get_input_embeddings().weight
    assert config.num_key_value_heads * 4 == config.num_attention_heads
    tokenizer = load_tokenizer(bases[name], reference(name))
    assert config.vocab_size > len(tokenizer)
    assert model.generation_config.temperature == 0.6, "which answering must not fall back to"
    split_words = tokenizer.tokenize(" ~deep_listening~\n")
    assert len(split_words) > 2, "words of the domain are no single tokens here"
    if name == "llama-3.2-1b":
        assert config.rope_scaling["rope_type"] == "llama3"
        assert tokenizer.pad_token == tokenizer.eos_token == "<|eot_id|>"
    else:
        assert config.head_dim * config.num_attention_heads != config.hidden_size


@pytest.mark.parametrize(("name", "billions"), [("llama-3.2-1b", 1.2358), ("qwen3-4b", 4.0225)])
def test_the_full_sizes_are_the_published_ones(name, billions):
    kind = random_base.ARCHITECTURES[name]
    config = AutoConfig.for_model(kind.model_type, **kind.sizes, **kind.common)
    found = memory.needed(config, bytes_per_weight=2)
    assert found.parameters / 1e9 == pytest.approx(billions, abs=1e-3)
    assert found.total == 2 * found.parameters


def test_prompts_begin_and_end_as_each_model_knows_them(bases, dataset):
    split = read_split(dataset, "test")[np.arange(3)]
    described = summaries(split.windows)
    llama, qwen = (load_tokenizer(bases[name], reference(name)) for name in REAL)
    for form in ("design", "card"):
        for ids in prompt_ids(llama, form, split.shapes, described):
            assert ids[0] == llama.bos_token_id and llama.bos_token_id not in ids[1:]
    text = llama.decode(prompt_ids(llama, "design", split.shapes, described)[0])
    assert "Today Date: 26 Jul 2024" in text, "the day of training is not in the prompt"
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    text = qwen.decode(prompt_ids(qwen, "design", split.shapes, described)[0])
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "no train of thought is begun"


@pytest.mark.parametrize("name", REAL)
def test_the_real_configuration_makes_a_teacher(teachers, name):
    manifest = artifact.verify(teachers[name], kind="teacher")
    written = configuration.as_plain(configuration.load(config_of(name), TeacherSettings))
    changed = {
        f"{part}.{key}"
        for part, values in written.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if manifest.configuration[part][key] != value
    }
    # Whatever already equals the file does not count as changed.
    assert changed <= {setting.partition("=")[0] for setting in SHORT}
    assert manifest.configuration["run"]["precision"] == "bf16"
    assert manifest.configuration["run"]["gradient_checkpointing"]
    metrics = artifact.read_metrics(teachers[name])
    assert metrics["training"]["steps"] == 4 and metrics["training"]["examples_seen"] == 64
    assert not metrics["gate_1"]["passed"]
    adapter = load_file(teachers[name] / "adapter_model.safetensors")
    assert max(np.abs(values).max() for key, values in adapter.items() if "lora_B" in key) > 0
    log = json.loads((teachers[name] / "training_log.json").read_text())
    measured = sum("eval_loss" in entry for entry in log)
    assert measured == {"llama-3.2-1b": 2, "qwen3-4b": 1}[name], "one may stop early, after each epoch"
    assert metrics["evaluation"]["overall"]["constrained"]["valid_rate"]["value"] == 1


@pytest.mark.parametrize("name", REAL)
def test_plain_peft_loads_it_and_answers_the_same(teachers, bases, dataset, name):
    adapter = json.loads((teachers[name] / "adapter_config.json").read_text())
    expected = {"llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct", "qwen3-4b": "Qwen/Qwen3-4B"}[name]
    assert adapter["base_model_name_or_path"] == expected
    base = AutoModelForCausalLM.from_pretrained(bases[name], dtype=torch.bfloat16)
    plain = PeftModel.from_pretrained(base, str(teachers[name])).eval()
    model, tokenizer = load_teacher(teachers[name], bases[name])
    assert model.get_base_model().lm_head.weight.dtype == torch.bfloat16, "the precision it was trained in"
    assert model.device.type == devices.current()
    split = read_split(dataset, "test")[np.arange(3)]
    given = prompt_ids(tokenizer, "design", split.shapes, summaries(split.windows))
    grammar = AnswerGrammar(AutoTokenizer.from_pretrained(teachers[name]), "design")
    one, other = (ExpressionScorer(m.to("cpu"), grammar).score(given)[0] for m in (plain, model))
    assert np.array_equal(one.third, other.third)


@pytest.mark.parametrize("name", REAL)
def test_it_labels_and_is_evaluated(teachers, bases, dataset, name, tmp_path):
    folders = ["--dataset", str(dataset), "--base", str(bases[name]), "--teacher", str(teachers[name])]
    assert label.main([*folders, "--out", str(tmp_path / "labels"), "--device", "cpu"]) == 0
    artifact.verify(tmp_path / "labels", kind="labels")
    tensors = load_file(tmp_path / "labels" / LABELS.tensors)
    n = sum(len(read_split(dataset, split)) for split in ("train", "validation"))
    assert tensors["first"].shape[0] == tensors["hidden"].shape[0] == n
    assert np.allclose(tensors["first"].sum(axis=1), 1, atol=1e-5)
    assert evaluate.main([*folders, "--out", str(tmp_path / "evaluation"), "--windows", "6"]) == 0
    for rows in artifact.read_metrics(tmp_path / "evaluation")["table"].values():
        assert 0 <= rows["Teacher"]["coherence"]["value"] <= 1


def launched(config, dataset, base, out, *settings, processes=2):
    """`accelerate launch` with several processes on this machine's CPU."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes"]
    quiet = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    quiet += ["--main_process_port", "0"]
    stage = ["-m", "training.train_teacher", *command(config, dataset, base, out, *settings)]
    return subprocess.Popen(
        [*launcher, str(processes), *quiet, *stage, "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_two_processes_killed_and_gone_on_make_the_teacher_of_one(dataset, bases, tmp_path):
    base = bases["qwen3-4b"]
    assert train_teacher.main(command(TEACHER_CONFIG, dataset, base, tmp_path / "one", *PARALLEL)) == 0
    first = launched(TEACHER_CONFIG, dataset, base, tmp_path / "two", *PARALLEL)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob(".two.work-*/scratch/checkpoints/checkpoint-*/trainer_state.json")):
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
        time.sleep(0.05)
    # The launcher gives each process a session of its own: killing its group would leave them at work.
    for process in [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]:
        process.kill()
    first.communicate()
    assert not (tmp_path / "two").exists()
    second = launched(TEACHER_CONFIG, dataset, base, tmp_path / "two", *PARALLEL)
    said = second.communicate(timeout=400)[0]
    assert second.returncode == 0, said
    assert said.count("goes on at step") == 1, "one process speaks"
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    largest = max(np.abs(values).max() for key, values in one.items() if "lora_B" in key)
    apart = max(np.abs(one[key] - two[key]).max() for key in one)
    assert apart < 0.1 * largest, "but for rounding, which Adam enlarges"
    facts = [artifact.read_metrics(tmp_path / name)["training"] for name in ("one", "two")]
    assert [fact["processes"] for fact in facts] == [1, 2]
    assert facts[0]["steps"] == facts[1]["steps"] == 24
    logs = [json.loads((tmp_path / name / "training_log.json").read_text()) for name in ("one", "two")]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert np.allclose(*losses, rtol=1e-3)
    assert not list(tmp_path.glob(".two.*")), "no lock and no work folder is left"


@pytest.mark.slow
def test_bad_input_ends_every_process_with_one_reason(dataset, bases, tmp_path):
    run = launched(TEACHER_CONFIG, bases["qwen3-4b"], bases["qwen3-4b"], tmp_path / "teacher")
    said = run.communicate(timeout=200)[0]
    assert run.returncode != 0
    assert said.count("error: ArtifactError") == 1
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes", "expected"),
    [(8, 2, 1, (8, 2)), (8, 2, 2, (8, 1)), (2, 8, 4, (2, 2)), (8, 2, 4, (4, 1)), (6, 2, 3, (4, 1))],
)
def test_processes_share_the_examples_of_a_step(batch_size, accumulation, processes, expected):
    size, own = Team(size=processes).divide(batch_size, accumulation)
    assert (size, own) == expected
    assert size * own * processes == batch_size * accumulation and size <= batch_size


def test_examples_that_cannot_be_shared_are_refused():
    with pytest.raises(ConfigurationError, match=r"16 examples per step .* for 3 processes"):
        Team(size=3).divide(8, 2)


def test_settings_are_replaced_from_the_command_line(tmp_path):
    overrides = ["run.epochs=2", "run.learning_rate=1e-3", "lora.targets=[q_proj]", "base.revision=abc"]
    found = configuration.load(config_of("qwen3-4b"), TeacherSettings, overrides)
    assert (found.run.epochs, found.run.learning_rate) == (2.0, 1e-3)
    assert found.lora.targets == ("q_proj",) and found.base.revision == "abc"
    assert found.run.batch_size == 2, "the rest is the file's"
    assert configuration.load(TEACHER_CONFIG, TeacherSettings, ["gate.coherence=0"]).gate.coherence == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.epoch=1", "unknown setting 'epoch'"),
        ("run.epochs=many", "expected: a number"),
        ("run.epochs", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
        ("seed.part=3", "name of a setting"),
        ("lora.targets=[", "a value in YAML"),
        ("run.batch_size=0", "positive"),
    ],
)
def test_what_cannot_be_set_is_refused(override, message):
    with pytest.raises(ConfigurationError, match=message):
        configuration.load(config_of("qwen3-4b"), TeacherSettings, [override])


def test_the_memory_reckoned_for_the_adapter_is_that_of_its_parameters(teachers, bases):
    for name in REAL:
        settings = configuration.load(config_of(name), TeacherSettings)
        config = AutoConfig.from_pretrained(bases[name])
        found = memory.needed(config, 2, rank=settings.lora.r, targets=settings.lora.targets)
        trained = artifact.read_metrics(teachers[name])["training"]
        assert found.adapter == 16 * trained["trainable_parameters"]
        assert found.parameters == trained["base_parameters"]


def test_checkpointing_and_smaller_batches_need_less():
    kind = random_base.ARCHITECTURES["qwen3-4b"]
    config = AutoConfig.for_model(kind.model_type, **kind.sizes, **kind.common)
    batch, half = memory.Batch(8, 300, 50), memory.Batch(4, 300, 50)
    plain, saved = (memory.needed(config, 2, batch=batch, checkpointing=c) for c in (False, True))
    assert saved.activations < plain.activations / 2
    assert memory.needed(config, 2, batch=half).activations == plain.activations / 2


def test_too_little_memory_is_refused_before_the_base_is_loaded(
    dataset, bases, teachers, tmp_path, monkeypatch
):
    """Simulated: how much memory the machine has."""

    def loaded(*_, **__):
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(memory, "available", lambda *_: 300_000)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", loaded)
    arguments = command(config_of("qwen3-4b"), dataset, bases["qwen3-4b"], tmp_path / "t", *SHORT)
    with pytest.raises(ResourceError, match=r"GiB of free memory[\s\S]*about .* GiB: .* billion weights"):
        train_teacher.main(arguments)
    assert not (tmp_path / "t").exists()
    with pytest.raises(ResourceError, match="GiB of free memory"):
        load_teacher(teachers["qwen3-4b"], bases["qwen3-4b"])


def test_memory_is_shared_by_the_processes_and_limited_by_the_container(tmp_path, monkeypatch):
    """Simulated: a container's limit of 1 GiB, of which a quarter is used."""
    whole = memory.available("cpu")
    assert 0 < memory.available("cpu", processes=4) < whole / 2
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.stat").write_text(f"anon {1 << 28}\nfile {1 << 29}\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available("cpu") <= 3 << 28
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available("cpu") > 3 << 28 or whole <= 3 << 28


def test_an_accelerator_that_is_not_there_is_refused(dataset, bases, teachers, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert devices.choose("auto") == devices.choose("cpu") == devices.current() == "cpu"
    folders = ["--dataset", str(dataset), "--base", str(bases["qwen3-4b"])]
    for stage in (
        lambda: train_teacher.main(
            [*command(config_of("qwen3-4b"), dataset, bases["qwen3-4b"], tmp_path / "x"), "--device", "cuda"]
        ),
        lambda: label.main(
            [
                *folders,
                "--teacher",
                str(teachers["qwen3-4b"]),
                "--out",
                str(tmp_path / "x"),
                "--device",
                "cuda",
            ]
        ),
    ):
        with pytest.raises(ResourceError, match="no CUDA device"):
            stage()
    assert not (tmp_path / "x").exists()


def broken(bases, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(bases["llama-3.2-1b"], folder)
    return folder


def test_weights_that_are_damaged_or_missing_are_refused(bases, tmp_path):
    folder = broken(bases, tmp_path)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"base: [\s\S]*next: make it again, or download"):
        load_base(folder, reference("llama-3.2-1b"))
    save_file({k: v for k, v in tensors.items() if "q_proj" not in k}, weights, {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"no weights for model\.layers\.0\.self_attn\.q_proj"):
        load_base(folder, reference("llama-3.2-1b"))
    cut = {k: v[:, :8] if "q_proj" in k else v for k, v in tensors.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in cut.items()}, weights, {"format": "pt"})
    with pytest.raises(ArtifactError, match="base"):
        load_base(folder, reference("llama-3.2-1b"))


def test_a_base_that_is_no_causal_language_model_is_refused(bases, dataset, tmp_path):
    folder = broken(bases, tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    (folder / "model.safetensors").unlink()
    BertForMaskedLM(BertConfig(vocab_size=2000, **sizes)).save_pretrained(folder)
    with pytest.raises((ArtifactError, ConfigurationError)):
        train_teacher.main(command(config_of("llama-3.2-1b"), dataset, folder, tmp_path / "t", *SHORT))
    assert not (tmp_path / "t").exists()


def test_a_tokenizer_without_chat_template_or_end_is_refused(bases, tmp_path):
    folder = broken(bases, tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigurationError, match=r"no chat template[\s\S]*instruction-tuned"):
        load_tokenizer(folder, reference("llama-3.2-1b"))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    with pytest.raises(ArtifactError, match="has no tokenizer"):
        load_tokenizer(folder, reference("llama-3.2-1b"))


def test_a_wrong_or_unreachable_base_is_refused(dataset, tmp_path, monkeypatch):
    """Simulated: no network, as transformers and huggingface_hub know it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True)
    arguments = command(config_of("llama-3.2-1b"), dataset, "no-such-folder", tmp_path / "t")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        train_teacher.main(arguments)
    at = arguments.index("--base")
    with pytest.raises(HubError, match=r"Llama-3\.2-1B-Instruct[\s\S]*hf auth login"):
        train_teacher.main(arguments[:at] + arguments[at + 2 :])
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_dataset_without_windows_is_refused(dataset, bases, tmp_path, split):
    folder = emptied(dataset, tmp_path, split)
    arguments = command(TEACHER_CONFIG, folder, bases["qwen3-4b"], tmp_path / "t", *PARALLEL)
    with pytest.raises(SourceError, match=f"no window in the {split} split"):
        train_teacher.main(arguments)
    assert not (tmp_path / "t").exists()


def test_there_must_be_something_to_label(dataset, bases, teachers, tmp_path):
    folder = emptied(dataset, tmp_path, "train")
    arguments = ["--dataset", str(folder), "--base", str(bases["qwen3-4b"])]
    arguments += ["--teacher", str(teachers["qwen3-4b"]), "--out", str(tmp_path / "labels")]
    with pytest.raises(SourceError, match="no window in the train split"):
        label.main(arguments)
    assert not (tmp_path / "labels").exists()


def emptied(dataset, tmp_path, *splits):
    """A copy of the dataset without the windows of some splits."""
    folder = tmp_path / "dataset"
    shutil.copytree(dataset, folder)
    for split in splits:
        for path in (folder / DATASET.windows(split), folder / DATASET.windows(f"{split}_synthetic")):
            if path.is_file():
                pq.write_table(pq.read_table(path).slice(0, 0), path)
    return folder


def reference(name):
    return configuration.load(config_of(name), TeacherSettings).base


def simulated_trackio(monkeypatch, fails=False):
    """Simulated: a module with the three functions of Trackio that are used; records what it is told."""
    told = []
    library = types.ModuleType("trackio")

    def init(**options):
        if fails:
            raise TypeError("launch() got an unexpected keyword argument")
        told.append(("init", options))

    library.init = init
    library.log = lambda values, step: told.append(("log", values, step))
    library.finish = lambda: told.append(("finish",))
    monkeypatch.setitem(sys.modules, "trackio", library)
    monkeypatch.setattr(Trackio, "installed", staticmethod(lambda: True))
    return told


def test_trackio_is_told_what_is_logged_and_asked_for_no_space(dataset, bases, tmp_path, monkeypatch):
    told = simulated_trackio(monkeypatch)
    short = (*PARALLEL, "run.epochs=0.5")
    assert (
        train_teacher.main(command(TEACHER_CONFIG, dataset, bases["qwen3-4b"], tmp_path / "t", *short)) == 0
    )
    (_, options), *logged = told
    assert options["name"].startswith("t-") and "space_id" not in options
    assert options["config"]["run"]["epochs"] == 0.5
    log = json.loads((tmp_path / "t" / "training_log.json").read_text())
    values = [{**entry[1], "step": entry[2]} for entry in logged if entry[0] == "log"]
    assert [{**entry, "global_step": entry["step"]} for entry in log[: len(values)]] == values
    assert len(values) >= 3 and ("finish",) in told


def test_a_trackio_that_fails_does_not_stop_the_training(dataset, bases, tmp_path, monkeypatch, capsys):
    simulated_trackio(monkeypatch, fails=True)
    short = (*PARALLEL, "run.epochs=0.25")
    assert (
        train_teacher.main(command(TEACHER_CONFIG, dataset, bases["qwen3-4b"], tmp_path / "t", *short)) == 0
    )
    assert capsys.readouterr().err.count("goes on without Trackio (TypeError") == 1
    assert (tmp_path / "t" / "training_log.json").is_file()


def test_observed_expressions_are_taught_by_their_score(bases, tmp_path):
    write_database(tmp_path / "anima.db", score=0.8)
    settings = DatasetSettings.read(ROOT / "dataset_builder" / "configs" / "smoke.yaml")
    dataset_build.build(tmp_path / "dataset", [str(tmp_path / "anima.db")], settings)
    split = read_split(tmp_path / "dataset", "train")
    heard = split.observed_ids[:, 0] >= 0
    assert 0 < heard.sum() < len(split)
    tokenizer = load_tokenizer(bases["qwen3-4b"], reference("qwen3-4b"))
    grammar = AnswerGrammar(tokenizer, "card")
    target = Rules.from_dict(labelling_weights(tmp_path / "dataset")).distribution()
    wanted = TargetSettings(forms={"card": 1.0}, observed_share=1.0, balance=0.0)
    examples = TeacherExamples(split, tokenizer, {"card": grammar}, target, wanted, count=400, seed=0)
    said = tokenizer(f" {Expression(('ripple', 'return'), 'PAIR')}", add_special_tokens=False)["input_ids"]
    rows = [one for index in range(len(examples)) for one in examples[index]]
    observed = [row for row in rows if row.weight != 1.0]
    assert abs(len(observed) / len(rows) - heard.mean()) < 0.06, "as often as there are such windows"
    for row in observed:
        assert row.weight == pytest.approx(0.8, abs=1e-6), "its score"
        assert row.answer == [*said, tokenizer.eos_token_id]
        assert (row.probabilities.max(axis=1) == 1).all()
    soft = [row for row in rows if row.weight == 1.0]
    assert any((row.probabilities > 0).sum(axis=1).max() > 1 for row in soft), "the rest follows the rules"
