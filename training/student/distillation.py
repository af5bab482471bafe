"""Distilling the teacher: the loss, and the Trainer that lowers it after the listening stage."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Sampler, WeightedRandomSampler
from transformers import Trainer, TrainingArguments

from eisv_lumen.vocabulary import MAX_TOKENS, N_TOKENS
from training.pretrain_base import last_checkpoint
from training.student.batches import Batches, WindowIndices
from training.student.listening import Audience, Listening, Order
from training.student.modeling_eisv_lumen import TrajectoryTransformer
from training.student.settings import LossSettings, StudentSettings

_SMALLEST = 1e-6
_HEARING = tuple(
    f"student.{part}."
    for part in ("features.summary", "features.summary_body", "skip", "pool", "after_pool", "shape_head")
)
"""Parts that say which shape a window has: those that listening taught, and what the encoder adds to them."""


class Distillation(nn.Module):
    """The student with what only training needs: the projection to the teacher's width, and the loss."""

    def __init__(self, student: TrajectoryTransformer, teacher_width: int, settings: LossSettings) -> None:
        super().__init__()
        self.student = student
        self.projection = nn.Linear(student.config.embedding_size, teacher_width)
        self.settings = settings
        self.parts: dict[str, list[float]] = {}

    def forward(
        self,
        states: Tensor,
        times: Tensor,
        mask: Tensor,
        first: Tensor,
        second: Tensor,
        third: Tensor,
        patterns: Tensor,
        hidden: Tensor,
        shapes: Tensor,
        sequences: Tensor,
        words: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of one batch of B windows with K prefixes each.

        Args:
            states: `[B, T, 4]`, with `times` and `mask` `[B, T]`.
            times: As the model takes them.
            mask: As the model takes it.
            first: `[B, 17]` the teacher's distribution of the first id.
            second: `[B, K, 17]` of the second id after each prefix.
            third: `[B, K, 17]` of the third id.
            patterns: `[B, 5]` of the pattern.
            hidden: `[B, H]` the teacher's standardised last hidden state.
            shapes: `[B]` true shapes.
            sequences: `[B, K + 1, 3]` the prefixes, and last the labelled expression.
            words: `[B, K + 1, 3]` Lumen words of the sequences, 15 for none.
        """
        student, settings = self.student, self.settings
        encoded = student.encode(states, times, mask)
        logits, spoken = self._teacher_forced(encoded, sequences)
        by_pattern = encoded.pattern_logits
        tau = settings.temperature
        distil = divergence(first, logits[0][:, 0], tau) + divergence(patterns, by_pattern, tau)
        distil = (
            distil + divergence(second, logits[1][:, :-1], tau) + divergence(third, logits[2][:, :-1], tau)
        )
        hard = torch.stack(
            [
                nn.functional.cross_entropy(logits[position][:, -1], sequences[:, -1, position])
                for position in range(MAX_TOKENS)
            ]
        ).sum()
        said = sequences < N_TOKENS
        lumen = nn.functional.cross_entropy(spoken[said], words[said])
        shape = nn.functional.cross_entropy(encoded.shape_logits, shapes)
        features = (self.projection(encoded.embedding) - hidden).square().mean()
        loss = (
            settings.distil * distil
            + settings.shape * shape
            + settings.hard * hard
            + settings.lumen * lumen
            + settings.features * features
        )
        self._note(distil=distil, shape=shape, hard=hard, lumen=lumen, features=features)
        return {"loss": loss}

    def _teacher_forced(self, encoded: Any, sequences: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of each step (`[B, 1, 17]`, then `[B, K + 1, 17]`) and Lumen logits `[B, K + 1, 3, 16]`."""
        student, (batch, count, _) = self.student, sequences.shape
        hidden, past = student.step(encoded, student.beginning(batch, 1, sequences.device), 0, None)
        logits, spoken = [student.logits(hidden, [])], []
        past = [
            (key.expand(-1, count, -1, -1, -1), value.expand(-1, count, -1, -1, -1)) for key, value in past
        ]
        for position in range(MAX_TOKENS):
            hidden, past = student.step(encoded, sequences[..., position], position + 1, past)
            spoken.append(student.lumen_head(hidden))
            if position + 1 < MAX_TOKENS:
                logits.append(student.logits(hidden, list(sequences[..., : position + 1].unbind(dim=-1))))
        return logits, torch.stack(spoken, dim=2)

    def _note(self, **parts: Tensor) -> None:
        for name, value in parts.items():
            self.parts.setdefault(name, []).append(float(value.detach()))


def divergence(teacher: Tensor, logits: Tensor, tau: float) -> Tensor:
    """τ² · KL(teacher ‖ student), both at temperature τ, in nats; mean over rows.

    Args:
        teacher: `[..., C]` probabilities at temperature 1.
        logits: `[..., C]` the student's; illegal classes are very negative and take no part.
        tau: Temperature.
    """
    legal = logits > -1e8
    softened = (teacher.clamp(min=_SMALLEST).log() / tau).masked_fill(~legal, -torch.inf).log_softmax(dim=-1)
    student = (logits / tau).log_softmax(dim=-1)
    difference = torch.where(legal, softened.exp() * (softened - student), torch.zeros_like(student))
    return difference.sum(dim=-1).mean() * tau**2


class StudentTrainer(Trainer):
    """Takes windows in an order of its own, and logs the parts of the loss."""

    def __init__(self, *args: Any, order: Sampler[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = order

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._order

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each part since the last log."""
        assert isinstance(self.model, Listening | Distillation)
        parts = self.model.parts
        super().log(
            {**logs, **{name: float(np.mean(values)) for name, values in parts.items()}}, *args, **kwargs
        )
        parts.clear()


def listen(
    student: TrajectoryTransformer,
    batches: Batches,
    settings: StudentSettings,
    scratch: Path,
    callbacks: list[Any],
) -> None:
    """Teach summary and shape head first: cheap steps, so that distillation starts where shapes are heard."""
    stage, model, checkpoints = settings.listening, Listening(student), scratch / "listening"
    with Audience(student, batches, settings) as audience:
        audience.order.first = _steps_taken(last_checkpoint(checkpoints)) // audience.steps_per_part
        _train(
            model,
            list(model.parameters()),
            audience,
            audience.order,
            checkpoints,
            callbacks,
            seed=settings.seed,
            max_steps=audience.steps,
            per_device_train_batch_size=stage.batch_size,
            learning_rate=stage.learning_rate,
            weight_decay=settings.weight_decay,
            save_steps=audience.steps_per_part,
        )


def distil(
    student: TrajectoryTransformer,
    batches: Batches,
    settings: StudentSettings,
    scratch: Path,
    callbacks: list[Any],
) -> None:
    """Train a student in place; goes on from the newest checkpoint in `scratch`.

    The borders between shapes are as sharp as the listening stage's many large batches made them; a small
    learning rate keeps them so.
    """
    model = Distillation(student, batches.hidden.shape[1], settings.loss)
    weights = batches.chances(balance=settings.balance, real_share=settings.real_share).tolist()
    named = dict(model.named_parameters())
    hearing = [name for name in named if name.startswith(_HEARING)]
    _train(
        model,
        [
            {"params": [named[name] for name in named if name not in hearing]},
            {
                "params": [named[name] for name in hearing],
                "lr": settings.learning_rate * settings.listening.kept_rate,
            },
        ],
        batches,
        WeightedRandomSampler(weights, len(weights)),
        scratch / "distillation",
        callbacks,
        seed=settings.seed,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        save_steps=settings.save_steps,
    )


def _train(
    model: nn.Module,
    parameters: list[Any],
    batches: Any,
    order: Order | WeightedRandomSampler,
    checkpoints: Path,
    callbacks: list[Any],
    **arguments: Any,
) -> None:
    from transformers import PrinterCallback

    newest = last_checkpoint(checkpoints)
    if newest is not None and _steps_taken(newest) >= arguments["max_steps"]:
        # The Trainer would take one step more.
        model.load_state_dict(load_file(Path(newest) / "model.safetensors"))
        return
    optimizer = torch.optim.AdamW(
        parameters, lr=arguments["learning_rate"], weight_decay=arguments["weight_decay"], fused=True
    )
    trainer = StudentTrainer(
        model=model,
        optimizers=(optimizer, None),
        args=TrainingArguments(
            output_dir=str(checkpoints),
            lr_scheduler_type="cosine",
            warmup_ratio=0.1,
            save_total_limit=1,
            logging_steps=max(1, arguments["max_steps"] // 40),
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            ignore_data_skip=True,
            remove_unused_columns=False,
            **arguments,
        ),
        train_dataset=WindowIndices(len(order)),
        data_collator=batches,
        callbacks=callbacks,
        order=order,
    )
    trainer.remove_callback(PrinterCallback)
    with warnings.catch_warnings():
        # About ordering checkpoints by number instead of time, which is the order wanted.
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        trainer.train(resume_from_checkpoint=newest)
    model.cpu()  # where all that follows looks for it


def _steps_taken(checkpoint: str | None) -> int:
    if checkpoint is None:
        return 0
    return int(json.loads((Path(checkpoint) / "trainer_state.json").read_text("utf-8"))["global_step"])
