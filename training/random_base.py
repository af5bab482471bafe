"""Make a base model of a real architecture with random weights, to run a real configuration without its base.

python -m training.random_base --like qwen3-4b --out DIR            # narrow and shallow: seconds on a laptop
python -m training.random_base --like qwen3-4b --full --out DIR     # the real sizes, to measure a GPU with

Architecture, rotary scaling, tied embeddings, special tokens, chat template, splitting into words and default
generation settings are those of the model named; vocabulary and weights are made up.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen.errors import ArtifactError, exit_with_reason
from eisv_lumen.vocabulary import SHAPES

_VOCABULARY = 1200
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_LLAMA_CHAT = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{ 'Cutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|eot_id|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_QWEN_CHAT = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Architecture:
    """What is particular about a base model.

    Attributes:
        model_type: Its name in transformers.
        sizes: Its real sizes.
        narrow: Sizes in the same proportions for a run of seconds.
        common: What does not depend on the sizes.
        digits: Most digits in one token.
        specials: Beginning of text (or None), end of a turn, padding (or None), further special tokens.
        chat: Its chat template, in its own style.
        generation: The generation settings it comes with.
    """

    model_type: str
    sizes: dict[str, int]
    narrow: dict[str, int]
    common: dict[str, Any]
    digits: int
    specials: tuple[str | None, str, str | None, tuple[str, ...]]
    chat: str
    generation: dict[str, Any]


def _sizes(hidden: int, inner: int, layers: int, heads: int, kv: int, head: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head,
    }


ARCHITECTURES = {
    "llama-3.2-1b": Architecture(
        model_type="llama",
        sizes={**_sizes(2048, 8192, 16, 32, 8, 64), "vocab_size": 128_256},
        narrow=_sizes(64, 256, 2, 4, 1, 16),
        common={
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": True,
        },
        digits=3,
        specials=(
            "<|begin_of_text|>",
            "<|eot_id|>",
            None,
            ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
        ),
        chat=_LLAMA_CHAT,
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    ),
    "qwen3-4b": Architecture(
        model_type="qwen3",
        sizes={**_sizes(2560, 9728, 36, 32, 8, 128), "vocab_size": 151_936},
        narrow=_sizes(64, 240, 2, 4, 1, 24),  # heads wider than the model together, as in the original
        common={
            "max_position_embeddings": 40_960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
        },
        digits=1,
        specials=(None, "<|im_end|>", "<|endoftext|>", ("<|im_start|>", "<think>", "</think>")),
        chat=_QWEN_CHAT,
        generation={"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Write the model folder; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", choices=sorted(ARCHITECTURES), required=True)
    parser.add_argument("--full", action="store_true", help="the real sizes, with weights in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    parameters = write(options.like, options.out, full=options.full, seed=options.seed)
    print(f"base: {parameters:,} random parameters like {options.like} in {options.out}")
    return 0


def write(like: str, out: Path, *, full: bool = False, seed: int = 0) -> int:
    """Write an ordinary transformers model folder.

    Args:
        like: A name in `ARCHITECTURES`.
        out: The folder; new or empty.
        full: The real sizes instead of narrow ones, with weights in bfloat16.
        seed: Seed of weights and tokenizer.

    Returns:
        The number of parameters.

    Raises:
        ArtifactError: `out` holds something already.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, set_seed

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(found=f"{out} is not empty", expected="a new folder", next="choose another --out")
    kind = ARCHITECTURES[like]
    tokenizer = new_tokenizer(kind, seed)
    # Embeddings outnumber the tokenizer's tokens, as in the originals.
    sizes = kind.sizes if full else {**kind.narrow, "vocab_size": len(tokenizer) + 8}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(
        kind.model_type, **sizes, **kind.common, **ids, pad_token_id=tokenizer.pad_token_id
    )
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if full else torch.float32)
    model.generation_config = GenerationConfig(**kind.generation, **ids)
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    return sum(parameter.numel() for parameter in model.parameters())


def new_tokenizer(kind: Architecture, seed: int) -> Any:
    """A byte-level tokenizer that splits text as the architecture's own does, with few words merged."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from training import corpus

    begin, end, pad, others = kind.specials
    specials = [*(token for token in (begin, end, pad) if token), *others]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS % kind.digits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    generator = np.random.default_rng(seed)
    texts = [corpus.prompt_text("card", SHAPES[i % len(SHAPES)], generator) for i in range(400)]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Large vocabularies have a token for a sign with the end of its line: the grammar must live with that.
    tokenizer.train_from_iterator([*corpus.vocabulary_text(), *texts, *["~\n"] * 400], trainer)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin} $B",
            special_tokens=[(begin, tokenizer.token_to_id(begin))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        chat_template=kind.chat,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


if __name__ == "__main__":
    exit_with_reason(main)
