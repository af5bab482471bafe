"""Train a teacher: a LoRA adapter on a language model, towards the distribution of the rules with feedback.

python -m training.train_teacher --config training/configs/teacher-tiny.yaml --dataset D --base B --out T

Without --base the base model named in the configuration is downloaded from the Hub. A killed run goes on from
its last checkpoint. A teacher that fails gate 1 is kept, so that it can be looked at; the command then ends
with exit code 1, and publishing refuses the folder.
"""

import argparse
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.rules import Rules
from training import configuration, gates
from training.configuration import require
from training.data import Split, labelling_weights, read_split
from training.evaluation import TeacherEvaluation
from training.language_model import BaseReference, Precision, base_inputs
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
    options = parser.parse_args(arguments)
    settings = configuration.load(options.config, TeacherSettings)
    artifact.Manifest.read(options.dataset, kind="dataset")
    inputs = {"dataset": options.dataset, **base_inputs(options.base)}
    plain = configuration.as_plain(settings)
    with artifact.build(
        options.out, kind="teacher", configuration=plain, inputs=inputs, seed=settings.seed
    ) as work:
        if work is None:
            print(f"teacher: {options.out} is up to date")
        else:
            print("teacher: training a LoRA adapter, because a language model voices shapes with variety")
            work.metrics = build(settings, options.dataset, options.base, work)
    return gates.report("teacher", "gate_1", options.out)


def build(settings: TeacherSettings, dataset: Path, base: Path | None, work: artifact.Work) -> dict[str, Any]:
    """Train into `work.folder` and measure on the test split; returns the metrics."""
    from training import evaluation

    train, validation, test = (read_split(dataset, split) for split in ("train", "validation", "test"))
    rules = Rules.from_dict(labelling_weights(dataset))
    began = time.monotonic()
    model, tokenizer, training = train_adapter(settings, train, validation, rules, base, work)
    training["seconds"] = round(time.monotonic() - began, 1)
    save_adapter(settings, model, tokenizer, work)
    print("teacher: measuring it on windows it never saw")
    merged = model.merge_and_unload().eval()
    measured = evaluation.measure_teacher(merged, tokenizer, test, rules, settings.evaluation)
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
    work: artifact.Work,
) -> tuple[Any, Any, dict[str, Any]]:
    """The trained peft model, its tokenizer, and what is worth knowing about the run.

    Raises:
        ResourceError: Model and batch do not fit into memory.
        ConfigurationError: An adapter target is no layer of the base, or a prompt exceeds `max_length`.
    """
    import torch
    from transformers import set_seed

    from training.language_model import load_base, load_tokenizer, out_of_memory
    from training.teacher_trainer import new_adapter, new_trainer, training_examples

    set_seed(settings.seed)
    tokenizer = load_tokenizer(base, settings.base)
    examples = training_examples(settings, tokenizer, train, rules)
    held_out = training_examples(settings, tokenizer, validation, rules, validation=True)
    model = new_adapter(load_base(base, settings.base, settings.run.precision), settings, base)
    trainer, log = new_trainer(model, tokenizer, examples, held_out, settings, work.scratch)
    from training.pretrain_base import last_checkpoint

    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(work.scratch / "checkpoints"))
        held_out_loss = trainer.evaluate()["eval_loss"]
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(settings.base.repo) from error
    facts = {
        "steps": trainer.state.global_step,
        "examples_seen": int(trainer.state.global_step * trainer.args.train_batch_size)
        * settings.run.gradient_accumulation,
        "training_windows": len(train),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "base_parameters": sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n),
        "validation": {"loss": held_out_loss, "n": len(held_out)},
    }
    shutil.copyfile(log.path, work.folder / TRAINING_LOG)
    return model, tokenizer, facts


def save_adapter(settings: TeacherSettings, model: Any, tokenizer: Any, work: artifact.Work) -> None:
    """Write adapter, tokenizer and TensorBoard record into `work.folder`."""
    for adapter in model.peft_config.values():
        # The base's own name on the Hub: a path on this machine would lead nowhere elsewhere.
        adapter.base_model_name_or_path = settings.base.repo
        adapter.revision = settings.base.revision
    # Without embedding layers: looking for them would ask the Hub for the base.
    model.save_pretrained(work.folder, safe_serialization=True, save_embedding_layers=False)
    tokenizer.save_pretrained(work.folder)
    (work.folder / artifact.CARD).unlink(missing_ok=True)
    recorded = sorted((work.scratch / "tensorboard").glob("events.out.tfevents.*"))
    for index, events in enumerate(recorded):
        # The writer puts the machine's name into the file's name.
        (work.folder / "runs").mkdir(exist_ok=True)
        shutil.copyfile(events, work.folder / "runs" / f"events.out.tfevents.{index}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
