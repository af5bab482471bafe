"""Train a teacher: a LoRA adapter on a language model, towards the distribution of the rules with feedback.

python -m training.train_teacher --config training/configs/teacher-tiny.yaml --dataset D --base B --out T
accelerate launch --multi_gpu --num_processes 4 -m training.train_teacher --config ... (the same)

Without --base the base model named in the configuration is downloaded from the Hub. A killed run goes on from
its last checkpoint. Several processes share the examples of each step, so that they make the teacher that a
single process would make; the first of them builds the folder. A teacher that fails gate 1 is kept, so that
it can be looked at; the command then ends with exit code 1, and publishing refuses the folder.
"""

import argparse
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError, exit_with_reason
from eisv_lumen.rules import Rules
from training import configuration, devices, gates
from training.configuration import require
from training.data import Split, labelling_weights, read_split
from training.devices import Team
from training.evaluation import TeacherEvaluation
from training.language_model import BaseReference, Precision, base_inputs
from training.row_counts import require_windows
from training.teacher_examples import TargetSettings

TRAINING_LOG = "training_log.json"


@dataclass(frozen=True)
class LoraSettings:
    """The adapter: rank, scale, dropout and the projections it sits on."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")

    def __post_init__(self) -> None:
        """Refuse ranks and shares that cannot be."""
        require(self.r > 0, "r", self.r, "a positive rank")
        require(self.alpha > 0, "alpha", self.alpha, "a positive scale")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share in [0, 1)")
        require(bool(self.targets), "targets", self.targets, "names of linear layers")


@dataclass(frozen=True)
class RunSettings:
    """How the adapter is trained.

    Attributes:
        examples_per_epoch: Examples drawn per epoch; None for as many as there are training windows.
        validation_examples: Examples the validation loss is measured on.
        early_stopping_patience: Epochs without a better validation loss after which to stop and keep the
            best; None trains to the end.
        save_steps: Steps between checkpoints (every epoch with early stopping).
    """

    epochs: float
    batch_size: int
    learning_rate: float
    examples_per_epoch: int | None = None
    gradient_accumulation: int = 1
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_length: int = 512
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    validation_examples: int = 256
    early_stopping_patience: int | None = None
    save_steps: int = 200
    logging_steps: int = 20
    tensorboard: bool = True

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("epochs", "batch_size", "gradient_accumulation", "max_length", "save_steps"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "a number between 0 and 1")


@dataclass(frozen=True)
class TeacherSettings:
    """Everything that determines a teacher."""

    seed: int
    base: BaseReference
    run: RunSettings
    lora: LoraSettings = field(default_factory=LoraSettings)
    target: TargetSettings = field(default_factory=TargetSettings)
    gate: gates.TeacherGate = field(default_factory=gates.TeacherGate)
    evaluation: TeacherEvaluation = field(default_factory=TeacherEvaluation)


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code: 1 when the teacher failed its gate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="model folder; by default the configured Hub repository")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="e.g. run.epochs=1")
    parser.add_argument("--device", choices=devices.DEVICES, default="auto", help="a GPU where there is one")
    options = parser.parse_args(arguments)
    team = Team.join(devices.choose(options.device))
    if not team.leads:
        follow(options, team)
        return 0
    settings = configuration.load(options.config, TeacherSettings, options.set)
    artifact.Manifest.read(options.dataset, kind="dataset")
    require_windows(options.dataset, "train", "validation", "test")
    inputs = {"dataset": options.dataset, **base_inputs(options.base)}
    plain = configuration.as_plain(settings)
    with artifact.build(
        options.out, kind="teacher", configuration=plain, inputs=inputs, seed=settings.seed
    ) as work:
        team.share(None if work is None else str(work.scratch))
        if work is None:
            print(f"teacher: {options.out} is up to date")
        else:
            print("teacher: training a LoRA adapter, because a language model voices shapes with variety")
            work.metrics = build(settings, options.dataset, options.base, work, team)
    return gates.report("teacher", "gate_1", options.out)


def follow(options: argparse.Namespace, team: Team) -> None:
    """Train beside the first process, which has checked everything and builds the folder."""
    scratch = team.share()
    if scratch is None:
        return
    settings = configuration.load(options.config, TeacherSettings, options.set)
    train, validation = (read_split(options.dataset, split) for split in ("train", "validation"))
    rules = Rules.from_dict(labelling_weights(options.dataset))
    train_adapter(settings, train, validation, rules, options.base, Path(scratch), team)


def build(
    settings: TeacherSettings, dataset: Path, base: Path | None, work: artifact.Work, team: Team
) -> dict[str, Any]:
    """Train into `work.folder` and measure on the test split; returns the metrics."""
    from training import evaluation
    from training.language_model import ready_to_answer

    train, validation, test = (read_split(dataset, split) for split in ("train", "validation", "test"))
    rules = Rules.from_dict(labelling_weights(dataset))
    began = time.monotonic()
    model, tokenizer, training = train_adapter(settings, train, validation, rules, base, work.scratch, team)
    training["seconds"] = round(time.monotonic() - began, 1)
    save_adapter(settings, model, tokenizer, work)
    print("teacher: measuring it on windows it never saw")
    answering = ready_to_answer(model, settings.run.precision)
    measured = evaluation.measure_teacher(answering, tokenizer, test, rules, settings.evaluation)
    return {
        "gate_1": gates.teacher_gate(measured, settings.gate),
        "evaluation": measured,
        "training": training,
    }


def train_adapter(
    settings: TeacherSettings,
    train: Split,
    validation: Split,
    rules: Rules,
    base: Path | None,
    scratch: Path,
    team: Team,
) -> tuple[Any, Any, dict[str, Any]]:
    """The trained peft model, its tokenizer, and what is worth knowing about the run.

    Args:
        settings: See `TeacherSettings`.
        train: Windows to learn from.
        validation: Windows to measure the loss on.
        rules: The rules that labelled the dataset: the target.
        base: Folder of the base model; None for its repository.
        scratch: Folder of checkpoints and logs, the same in every process.
        team: The processes that train together; afterwards each is alone.

    Raises:
        ResourceError: Model and batch do not fit into memory.
        ConfigurationError: An adapter target is no layer of the base, a prompt exceeds `max_length`, or the
            examples of a step cannot be shared equally.
    """
    import torch
    from transformers import set_seed

    from training.language_model import load_base, load_tokenizer, out_of_memory
    from training.pretrain_base import last_checkpoint
    from training.progress import Trackio
    from training.teacher_trainer import new_adapter, new_trainer, training_examples

    own = share_of(settings, team)
    set_seed(settings.seed)
    tokenizer = load_tokenizer(base, settings.base)
    examples = training_examples(own, tokenizer, train, rules)
    held_out = training_examples(own, tokenizer, validation, rules, validation=True)
    require_room(own, tokenizer, base, examples.longest(), team)
    model = new_adapter(load_base(base, settings.base, settings.run.precision), own, base)
    trainer, _ = new_trainer(model, tokenizer, examples, held_out, as_trained(own), scratch)
    trainer.args.ddp_find_unused_parameters = False  # every adapter takes part in every step
    if Trackio.installed():
        name = scratch.parent.name.strip(".").replace(".work", "")
        trainer.add_callback(Trackio(name, configuration.as_plain(settings)))
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(scratch / "checkpoints"))
        held_out_loss = trainer.evaluate()["eval_loss"]
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(settings.base.repo) from error
    team.part()
    if settings.run.gradient_checkpointing:
        model.gradient_checkpointing_disable()
        model.config.use_cache = True
    facts = {
        "steps": trainer.state.global_step,
        "examples_seen": trainer.state.global_step
        * settings.run.batch_size
        * settings.run.gradient_accumulation,
        "processes": team.size,
        "training_windows": len(train),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "base_parameters": sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n),
        "validation": {"loss": held_out_loss, "n": len(held_out)},
    }
    return model, tokenizer, facts


def share_of(settings: TeacherSettings, team: Team) -> TeacherSettings:
    """The settings of one process of several.

    Raises:
        ConfigurationError: The examples of a step cannot be shared equally.
    """
    size, accumulation = team.divide(settings.run.batch_size, settings.run.gradient_accumulation)
    return replace(settings, run=replace(settings.run, batch_size=size, gradient_accumulation=accumulation))


def as_trained(settings: TeacherSettings) -> TeacherSettings:
    """The settings as the Trainer wants them: mixed precision is for GPUs that have it.

    On a CPU a base in bfloat16 stays so, and the adapter on it computes in float32 without being told.

    Raises:
        ConfigurationError: The GPU knows no bfloat16.
    """
    import torch

    if settings.run.precision == "bf16" and devices.current() == "cpu":
        return replace(settings, run=replace(settings.run, precision="fp32"))
    if settings.run.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise ConfigurationError(
            found=f"precision bf16 on a {torch.cuda.get_device_name()}",
            expected="a GPU that computes in bfloat16 (Ampere or later)",
            next="--set run.precision=fp32, with twice the memory, or use another GPU",
        )
    return settings


def require_room(
    settings: TeacherSettings, tokenizer: Any, base: Path | None, longest: int, team: Team
) -> None:
    """Refuse a run that does not fit into memory, before the base is fetched and loaded.

    Raises:
        ResourceError: It does not fit.
    """
    from training import memory
    from training.dialogue import answer_ids
    from training.language_model import BYTES, load_config

    run = settings.run
    beside = settings.target.answers
    answer = max(len(ids) for form in settings.target.forms for ids in answer_ids(tokenizer, form))
    wanted = memory.needed(
        load_config(base, settings.base),
        BYTES[run.precision],
        rank=settings.lora.r,
        targets=settings.lora.targets,
        batch=memory.Batch(run.batch_size, longest + answer * (beside - 1), answer * beside),
        checkpointing=run.gradient_checkpointing,
    )
    place = devices.current()
    memory.require_room(str(base or settings.base.repo), wanted, memory.available(place, team.local_size))


def save_adapter(settings: TeacherSettings, model: Any, tokenizer: Any, work: artifact.Work) -> None:
    """Write adapter, tokenizer and the records of the run into `work.folder`."""
    for adapter in model.peft_config.values():
        # The base's own name on the Hub: a path on this machine would lead nowhere elsewhere.
        adapter.base_model_name_or_path = settings.base.repo
        adapter.revision = settings.base.revision
    # Without embedding layers: looking for them would ask the Hub for the base.
    model.save_pretrained(work.folder, safe_serialization=True, save_embedding_layers=False)
    tokenizer.save_pretrained(work.folder)
    shutil.copyfile(work.scratch / TRAINING_LOG, work.folder / TRAINING_LOG)
    (work.folder / artifact.CARD).unlink(missing_ok=True)
    recorded = sorted((work.scratch / "tensorboard").glob("events.out.tfevents.*"))
    for index, events in enumerate(recorded):
        # The writer puts the machine's name into the file's name.
        (work.folder / "runs").mkdir(exist_ok=True)
        shutil.copyfile(events, work.folder / "runs" / f"events.out.tfevents.{index}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
