"""The Trainer of base and teacher: its loss is taken of the answer, towards probabilities."""

from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer

from training.soft_targets import NOT_LEARNED

NEGLIGIBLE = 2e-5
"""Probability of all impossible tokens together, at one place of an answer, that is nothing to mend."""


class TargetTrainer(Trainer):
    """A Trainer whose loss is the cross-entropy to the targets at the answer's tokens.

    Args:
        legality: Weight of an extra loss, the negative log of the probability of all tokens that the target
            allows. Cross-entropy alone leaves a thousand impossible tokens one in a thousand each: too
            little to matter in one place, and one answer in thirty spoilt.
        purity: Weight of another, the log of the probability of all other tokens, down to `NEGLIGIBLE`. The
            pull of the losses above on an impossible token is as small as its probability, so the last half
            per cent stays; the pull of this one does not fade before they are negligible.
        arguments: As for `transformers.Trainer`, and `options` too.
    """

    def __init__(self, *arguments: Any, legality: float = 0.0, purity: float = 0.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.legality, self.purity = legality, purity
        # The loss below divides by the number of answer tokens in all accumulated batches.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean cross-entropy per answer token."""
        labels = inputs["labels"]
        probabilities = inputs["target_probabilities"]
        answer = probabilities.shape[1]
        mask = inputs["attention_mask"]
        beside = mask.ndim == 3
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=_additive(mask, model) if beside else mask,
            position_ids=inputs["position_ids"],
            logits_to_keep=answer + 1,
            use_cache=False,
        ).logits[:, :-1]
        if beside:
            logits = logits[:, inputs["predecessors"][0]]
        likely = logits.float().log_softmax(dim=-1).gather(2, inputs["target_ids"])
        total = -(likely * probabilities).sum()
        if (self.legality or self.purity) and model.training:
            allowed = likely.masked_fill(probabilities <= 0, -torch.inf).logsumexp(dim=-1)
            allowed = allowed[labels[:, -answer:] != NOT_LEARNED]
            impossible = (-torch.expm1(allowed)).clamp(min=NEGLIGIBLE) / NEGLIGIBLE
            total = total - self.legality * allowed.sum() + self.purity * impossible.log().sum()
        if num_items_in_batch is None:
            loss = total / (labels != NOT_LEARNED).sum()
        else:
            loss = total / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss


def _additive(reads: torch.Tensor, model: Any) -> torch.Tensor:
    """`[B, 1, L, L]` what attention adds to its scores, from `[B, L, L]` who reads whom."""
    kind = next(model.parameters()).dtype
    hidden = torch.zeros(reads.shape, dtype=kind, device=reads.device)
    return hidden.masked_fill_(~reads, torch.finfo(kind).min)[:, None]


class InOrder(TargetTrainer):
    """Reads its examples in the order in which they are given."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        examples: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(examples)
