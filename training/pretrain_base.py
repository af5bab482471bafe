"""Make the tiny base model: configuration, tokenizer, and pre-training on generated text.

python -m training.pretrain_base --config training/configs/base-tiny.yaml --out artifacts/base

The result is an ordinary transformers model folder.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from training import configuration
from training.configuration import require

# Words of the domain stay whole before merging, numbers fall into a name with the digits before the point and
# pairs of digits after it, so that a prompt of fifteen numbers is short.
_PIECES = r" ?~[a-z_]+~| ?d?2?[EISV]=[+-]?\d\.| ?[A-Za-z_]+:?| ?\d{1,2}| ?[^\sA-Za-z\d~]+| ?~|\s+"

NOT_LEARNED = -100
"""Label of a token that no loss is taken of."""


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the Qwen3 architecture."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int = 1024

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit each other."""
        for name, value in vars(self).items():
            require(value > 0, name, value, "a positive number")
        require(self.heads % self.kv_heads == 0, "kv_heads", self.kv_heads, "a divisor of heads")


@dataclass(frozen=True)
class BaseSettings:
    """Everything that determines a base model.

    Attributes:
        repo_id: Where the base will be published; adapters name it as their base.
        vocabulary: Most tokens the tokenizer may have.
        documents: Documents of each kind to train on, see `corpus.KINDS`.
        save_steps: Steps between checkpoints, from which a killed run goes on.
    """

    seed: int
    repo_id: str
    model: ModelSettings
    documents: dict[str, int]
    vocabulary: int = 1024
    batch_size: int = 32
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    save_steps: int = 400

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        from training.corpus import KINDS

        require(self.vocabulary >= 300, "vocabulary", self.vocabulary, "at least 300 (256 of them are bytes)")
        require(self.batch_size > 0, "batch_size", self.batch_size, "a positive number")
        require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "a number between 0 and 1")
        require(
            bool(self.documents) and set(self.documents) <= set(KINDS) and min(self.documents.values()) >= 0,
            "documents",
            self.documents,
            "a count for some of " + ", ".join(KINDS),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    settings = configuration.load(options.config, BaseSettings)
    plain = configuration.as_plain(settings)
    with artifact.build(options.out, kind="base", configuration=plain, seed=settings.seed) as work:
        if work is None:
            print(f"base: {options.out} is up to date")
            return 0
        print("base: pre-training a small Qwen3-architecture model, because an adapter needs one to adapt")
        work.metrics = pretrain(settings, work)
    print(f"base: {work.metrics['parameters']:,} parameters in {options.out}")
    return 0


def pretrain(settings: BaseSettings, work: artifact.Work) -> dict[str, Any]:
    """Train tokenizer and model and save them into `work.folder`; returns the metrics."""
    import torch
    from transformers import Trainer, TrainingArguments, set_seed

    from training.progress import Progress, TrainingLog

    began = time.monotonic()
    set_seed(settings.seed)
    texts = training_texts(settings)
    tokenizer = train_tokenizer([given + learned for given, learned in texts], settings.vocabulary)
    examples = tokenized(texts, tokenizer)
    held_out = examples[: len(examples) // 50]
    examples = examples[len(held_out) :]
    model = new_model(settings.model, tokenizer)
    log = TrainingLog(work.scratch / "training_log.json")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work.scratch / "checkpoints"),
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=4 * settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            adam_beta2=0.99,
            save_steps=settings.save_steps,
            save_total_limit=1,
            logging_steps=20,
            seed=settings.seed,
            report_to=[],
            disable_tqdm=True,
            group_by_length=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
        ),
        train_dataset=examples,
        eval_dataset=held_out,
        data_collator=lambda rows: padded(rows, tokenizer.pad_token_id),
        callbacks=[Progress("base"), log],
    )
    _quiet(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(work.scratch / "checkpoints"))
    held_out_loss = trainer.evaluate()["eval_loss"]
    model.to(torch.float32).save_pretrained(work.folder, safe_serialization=True)
    tokenizer.save_pretrained(work.folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "documents": len(examples),
        "training_tokens": sum(len(row["input_ids"]) for row in examples),
        "held_out": {"loss": held_out_loss, "n": len(held_out)},
        "log": log.entries,
        "seconds": round(time.monotonic() - began, 1),
    }


def training_texts(settings: BaseSettings) -> list[tuple[str, str]]:
    """The documents to train on in random order: what is given, and what is to be learned from it."""
    from training import corpus

    generator = np.random.default_rng(settings.seed)
    texts = [
        text
        for kind, count in settings.documents.items()
        for text in corpus.documents(kind, count, generator)
    ]
    return [texts[index] for index in generator.permutation(len(texts))]


def tokenized(texts: list[tuple[str, str]], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Rows of `input_ids` and `labels`; what is given is not to be learned."""
    given, learned = (
        tokenizer(list(part), add_special_tokens=False)["input_ids"] for part in zip(*texts, strict=True)
    )
    return [
        {"input_ids": before + after, "labels": [NOT_LEARNED] * len(before) + after}
        for before, after in zip(given, learned, strict=True)
    ]


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer in which every word of the domain is one token.

    Returns:
        A `PreTrainedTokenizerFast` with a chat template; padded on the left.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from training import corpus

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [corpus.BLANK, corpus.START, corpus.END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The words count more than once, so that they are merged before chance combinations are.
    tokenizer.train_from_iterator([*list(corpus.vocabulary_text()) * 20, *texts[:4000]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=corpus.END,
        pad_token=corpus.BLANK,
        additional_special_tokens=[corpus.START],
        chat_template=corpus.CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def new_model(sizes: ModelSettings, tokenizer: Any) -> Any:
    """A Qwen3 causal language model with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            intermediate_size=sizes.intermediate_size,
            max_position_embeddings=sizes.max_positions,
            tie_word_embeddings=True,
            initializer_range=sizes.hidden_size**-0.5,
            rope_theta=10_000.0,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of a killed run, or None."""
    from transformers.trainer_utils import get_last_checkpoint

    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    # The Trainer writes its state last.
    return found if found and (Path(found) / "trainer_state.json").is_file() else None


def padded(rows: list[dict[str, list[int]]], pad: int) -> dict[str, Any]:
    """Rows as one batch of tensors, padded on the right."""
    import torch

    length = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), NOT_LEARNED)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        size = len(row["input_ids"])
        ids[index, :size] = torch.tensor(row["input_ids"])
        labels[index, :size] = torch.tensor(row["labels"])
        mask[index, :size] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _quiet(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
