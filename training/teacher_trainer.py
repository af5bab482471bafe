"""The Trainer of a teacher: soft or hard targets at the tokens of the answer."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import LoraConfig, get_peft_model
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.rules import Rules
from training.data import Split
from training.grammar import AnswerGrammar
from training.progress import Progress, TrainingLog
from training.soft_targets import collate
from training.target_trainer import TargetTrainer
from training.teacher_examples import TeacherExamples

if TYPE_CHECKING:
    from training.train_teacher import TeacherSettings


class FreshDraws(TrainerCallback):
    """Tells the examples which epoch it is, so that each epoch draws its own answers."""

    def __init__(self, examples: TeacherExamples) -> None:
        self._examples = examples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Set the epoch; a resumed run may begin in the middle of one."""
        self._examples.epoch = int((state.epoch or 0.0) + 1e-6)


def training_examples(
    settings: "TeacherSettings", tokenizer: Any, split: Split, rules: Rules, *, validation: bool = False
) -> TeacherExamples:
    """The examples of a split; those for validation are the same every time.

    Raises:
        ConfigurationError: A prompt and its answer are longer than `max_length`.
    """
    examples = TeacherExamples(
        split,
        tokenizer,
        {form: AnswerGrammar(tokenizer, form) for form in settings.target.forms},
        rules.distribution(),
        replace(settings.target, long_share=0.0) if validation else settings.target,
        count=settings.run.validation_examples if validation else settings.run.examples_per_epoch,
        seed=settings.seed + validation,
    )
    longest = examples.longest()
    if longest > settings.run.max_length:
        raise ConfigurationError(
            found=f"a prompt with its answer of {longest} tokens",
            expected=f"at most max_length = {settings.run.max_length}",
            next="raise max_length in the configuration",
        )
    return examples


def new_adapter(model: Any, settings: "TeacherSettings", base: Path | None) -> Any:
    """The base model with a fresh adapter on it.

    Raises:
        ConfigurationError: A target is no layer of the base.
    """
    lora = settings.lora
    if settings.run.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
        model.config.use_cache = False
    try:
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=list(lora.targets),
                task_type="CAUSAL_LM",
                # A local base keeps checkpoints from asking the Hub for it; the finished adapter names the
                # repository.
                base_model_name_or_path=str(base or settings.base.repo),
            ),
        )
    except ValueError as error:
        raise ConfigurationError(
            found=f"adapter targets {' '.join(lora.targets)}: {str(error).splitlines()[0]}",
            expected="linear layers of the base model, e.g. q_proj k_proj v_proj o_proj",
            next="correct lora.targets in the configuration",
        ) from error


def new_trainer(
    model: Any,
    tokenizer: Any,
    examples: TeacherExamples,
    held_out: TeacherExamples,
    settings: "TeacherSettings",
    scratch: Path,
) -> tuple[TargetTrainer, TrainingLog]:
    """The Trainer with its callbacks, keeping checkpoints and logs in `scratch`."""
    run = settings.run
    patience = run.early_stopping_patience
    stops, soft = patience is not None, settings.target.kind == "soft"
    log = TrainingLog(scratch / "training_log.json", scratch / "tensorboard" if run.tensorboard else None)
    arguments = TrainingArguments(
        output_dir=str(scratch / "checkpoints"),
        num_train_epochs=run.epochs,
        per_device_train_batch_size=run.batch_size,
        per_device_eval_batch_size=run.batch_size,
        gradient_accumulation_steps=run.gradient_accumulation,
        learning_rate=run.learning_rate,
        lr_scheduler_type=run.scheduler,
        warmup_steps=run.warmup_steps,
        weight_decay=run.weight_decay,
        bf16=run.precision == "bf16",
        eval_strategy="epoch" if stops else "no",
        save_strategy="epoch" if stops else "steps",
        save_steps=run.save_steps,
        save_total_limit=1,
        load_best_model_at_end=stops,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=run.logging_steps,
        prediction_loss_only=True,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = TargetTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=held_out,
        data_collator=partial(collate, pad=tokenizer.pad_token_id),
        callbacks=[FreshDraws(examples), Progress("teacher"), log],
        legality=settings.target.legality if soft else 0.0,
        purity=settings.target.purity if soft else 0.0,
    )
    if patience is not None:
        trainer.add_callback(EarlyStoppingCallback(patience))
    trainer.remove_callback(PrinterCallback)
    return trainer, log
