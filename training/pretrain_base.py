"""Make the tiny base model: configuration, tokenizer, and pre-training on generated text.

python -m training.pretrain_base --config training/configs/base-tiny.yaml --out artifacts/base

The result is an ordinary transformers model folder.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.vocabulary import SHAPES
from training import configuration
from training.configuration import require

# Words of the domain stay whole before merging, numbers fall into a name with the digits before the point and
# pairs of digits after it, so that a prompt of fifteen numbers is short.
_PIECES = r" ?~[a-z_]+~| ?d?2?[EISV]=[+-]?\d\.| ?[A-Za-z_]+:?| ?\d{1,2}| ?[^\sA-Za-z\d~]+| ?~|\s+"


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
        answers: Answers taught to each prompt, see `teacher_examples.TargetSettings`.
        legality: Weight of the loss that keeps impossible tokens away, see `target_trainer`.
        purity: Weight of the loss that drives out the last of them, see there too.
        save_steps: Steps between checkpoints, from which a killed run goes on.
        measured_windows: Generated windows on which the finished model is compared with the rules.
    """

    seed: int
    repo_id: str
    model: ModelSettings
    documents: dict[str, int]
    vocabulary: int = 1100
    batch_size: int = 32
    answers: int = 1
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    legality: float = 0.0
    purity: float = 0.0
    save_steps: int = 400
    measured_windows: int = 90

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        from training.corpus import KINDS

        require(self.vocabulary >= 300, "vocabulary", self.vocabulary, "at least 300 (256 of them are bytes)")
        require(self.answers > 0, "answers", self.answers, "at least one")
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
    from transformers import PrinterCallback, TrainingArguments, set_seed

    from training.base_examples import BaseExamples
    from training.progress import Progress, TrainingLog
    from training.soft_targets import collate
    from training.target_trainer import InOrder

    began = time.monotonic()
    set_seed(settings.seed)
    tokenizer = train_tokenizer(settings.vocabulary, settings.seed)
    examples = BaseExamples(
        tokenizer, settings.documents, settings.batch_size, settings.answers, settings.seed
    )
    model = new_model(settings.model, tokenizer)
    log = TrainingLog(work.scratch / "training_log.json")
    trainer = InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=str(work.scratch / "checkpoints"),
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            adam_beta2=0.98,
            save_steps=settings.save_steps,
            save_total_limit=1,
            logging_steps=20,
            label_names=["labels"],
            seed=settings.seed,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
        ),
        train_dataset=examples,
        data_collator=partial(collate, pad=tokenizer.pad_token_id),
        callbacks=[Progress("base"), log],
        legality=settings.legality,
        purity=settings.purity,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(work.scratch / "checkpoints"))
    model.save_pretrained(work.folder, safe_serialization=True)
    tokenizer.save_pretrained(work.folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "documents": len(examples),
        "steps": trainer.state.global_step,
        "held_out": measure(model, tokenizer, settings),
        "log": log.entries,
        "seconds": round(time.monotonic() - began, 1),
    }


def measure(model: Any, tokenizer: Any, settings: BaseSettings) -> dict[str, Any]:
    """How near the base is to the plain rules, on windows it was not trained on."""
    from eisv_lumen import synthetic
    from eisv_lumen.rules import Rules
    from eisv_lumen.vocabulary import AFFINITY, N_SHAPES
    from eisv_lumen.windows import summaries
    from training.dialogue import FORMS, prompt_ids
    from training.grammar import AnswerGrammar, ExpressionScorer

    shapes = np.repeat(np.arange(N_SHAPES), settings.measured_windows // N_SHAPES + 1)
    generator = np.random.default_rng(settings.seed + 1)
    described = summaries(synthetic.generate(shapes, generator, cadence=30.0))
    target = Rules().distribution()[shapes].coherence(AFFINITY[shapes])
    measured: dict[str, Any] = {"n": len(shapes), "rules": float(target.mean())}
    for form in FORMS:
        scorer = ExpressionScorer(model, AnswerGrammar(tokenizer, form))
        distribution, _ = scorer.score(prompt_ids(tokenizer, form, shapes, described))
        measured[form] = float(distribution.coherence(AFFINITY[shapes]).mean())
    return measured


def train_tokenizer(vocabulary: int, seed: int) -> Any:
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
    generator = np.random.default_rng(seed)
    prompts = [
        corpus.prompt_text(kind, SHAPES[shape], generator)
        for kind in corpus.KINDS
        for shape in generator.integers(0, len(SHAPES), 1000)
    ]
    # The words count more than once, so that they are merged before chance combinations are.
    tokenizer.train_from_iterator([*list(corpus.vocabulary_text()) * 20, *prompts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=corpus.END,
        pad_token=corpus.BLANK,
        additional_special_tokens=[corpus.START],
        chat_template=corpus.CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        model_input_names=["input_ids", "attention_mask"],  # token_type_ids would break generate(**inputs)
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
    """The newest complete checkpoint of a killed run, or None; a kill may have torn a newer one."""
    return max(
        (str(found) for found in folder.glob("checkpoint-*") if _steps(found)), key=_steps, default=None
    )


def _steps(checkpoint: str | Path) -> int:
    """Steps taken until a checkpoint; 0 when it is not whole. The Trainer writes its state last."""
    try:
        state = json.loads((Path(checkpoint) / "trainer_state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return 0
    return int(state["global_step"])


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
