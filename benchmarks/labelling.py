"""Windows labelled per second with exact distributions, beside what `generate` and naive scoring take.

python -m benchmarks.labelling [--base DIR --teacher DIR] [--out FILE]

Without folders, a model with random weights of the tiny configuration's size stands in, and is made to write
answers as long as a legal one. One sample is no distribution: so many samples as bring the divergence that
sampling alone adds below the teacher's own tolerance are measured too.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measurement import Measurement, rate
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES, N_TOKENS
from eisv_lumen.windows import summaries

BASE, TEACHER = Path("artifacts/demo/base"), Path("artifacts/demo/teacher")
ROUNDS = 5
"""Each way is measured in turn, so often; the median counts."""
COMPARED = 200
"""Windows, at most, on which exact and naive scoring are compared; a naive one takes a third of a second."""
BATCHES = (8, 32, 128)
TOLERATED = 0.02
"""Bits of divergence that a teacher may be from its target."""
SAMPLES = math.ceil((N_TOKENS - 1) / (8 * TOLERATED * math.log(2)))
"""Samples per window that add no more than that by themselves: (categories - 1) / (8 n ln 2)."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the figures as a list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--out", type=Path, default=Path("artifacts/labelling.json"))
    parser.add_argument("--windows", type=int, default=256)
    options = parser.parse_args(arguments)
    model, tokenizer, trained = speaker(options.base, options.teacher)
    found = measure(model, tokenizer, trained, options.windows)
    for figure in found:
        beside = f"   baseline {figure.baseline:.4g}, {figure.ratio:.2f} times" if figure.ratio else ""
        print(f"{figure.name:64} {figure.value:10.4g} {figure.unit:10} n={figure.n}{beside}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, [asdict(figure) for figure in found])
    return 0


def speaker(base: Path, teacher: Path) -> tuple[Any, Any, bool]:
    """The teacher and its tokenizer, or a random model of its size; and whether it was trained."""
    import torch

    from training.configuration import load
    from training.language_model import load_teacher
    from training.pretrain_base import BaseSettings, new_model, train_tokenizer

    if base.is_dir() and teacher.is_dir():
        return *load_teacher(teacher, base), True
    print(f"no base and teacher at {base} and {teacher}: a random model of the tiny size stands in")
    settings = load(Path(__file__).parents[1] / "training/configs/base-tiny.yaml", BaseSettings)
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(settings.vocabulary, settings.seed)
    return new_model(settings.model, tokenizer).eval(), tokenizer, False


def measure(model: Any, tokenizer: Any, trained: bool, count: int) -> list[Measurement]:
    """Exact scoring of `count` windows, beside every other way to label them."""
    from training.dialogue import prompt_ids
    from training.grammar import AnswerGrammar, ExpressionScorer, leaf_probabilities

    generator = np.random.default_rng(0)
    shapes = generator.integers(0, N_SHAPES, count)
    windows = generate(shapes, generator, cadence=generator.choice([2.0, 10.0, 30.0, 300.0], count))
    prompts = prompt_ids(tokenizer, "design", shapes, summaries(windows))
    grammar = AnswerGrammar(tokenizer, "design")
    scorer = ExpressionScorer(model, grammar)
    few, fewer, fewest = prompts[: max(count // 8, 1)], prompts[: max(count // 64, 1)], prompts[:3]
    sampled = partial(sample, model, tokenizer, grammar, trained)
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "exact": (lambda: scorer.score(prompts), count),
        "generate, one window at a time": (lambda: sampled(few, batch_size=1), len(few)),
        **{
            f"generate, {batch} at a time": (partial(sampled, prompts, batch_size=batch), count)
            for batch in BATCHES
        },
        f"generate, {SAMPLES} samples per window": (
            lambda: sampled(fewer, batch_size=1, samples=SAMPLES),
            len(fewer),
        ),
        "naive scoring": (lambda: [naive(model, grammar, prompt) for prompt in fewest], len(fewest)),
    }
    each = in_turn({name: work for name, (work, _) in ways.items()})
    taken = {name: each[name] / n for name, (_, n) in ways.items()}
    compared = prompts[:COMPARED]
    exact = np.log(leaf_probabilities(scorer.score(compared)[0]))
    apart = np.abs(exact - np.stack([naive(model, grammar, prompt) for prompt in compared])).max()
    return [
        *(
            rate(f"labelled exactly, against {name}", n, "windows/s", taken["exact"] * n, taken[name] * n)
            for name, (_, n) in ways.items()
            if name != "exact"
        ),
        Measurement(
            "largest difference from naive scoring (log-probability)", float(apart), "nats", exact.size
        ),
        Measurement("tokens read per window, exact", float(tokens_read(prompts, grammar)), "tokens", count),
        Measurement(
            "tokens read per window, generate",
            float(np.mean([len(p) for p in prompts]) + max(map(len, grammar.answers))),
            "tokens",
            count,
        ),
    ]


def in_turn(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each way, the median of `ROUNDS`; in turn, so that a busy neighbour meets them all."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: median(seconds) for name, seconds in taken.items()}


def sample(
    model: Any,
    tokenizer: Any,
    grammar: Any,
    trained: bool,
    prompts: list[list[int]],
    *,
    batch_size: int,
    samples: int = 1,
) -> int:
    """Plain `generate`: draws at temperature 1, without any constraint; returns the number of answers."""
    import torch
    from transformers import GenerationConfig

    longest = max(map(len, grammar.answers))
    plan = GenerationConfig(
        max_new_tokens=longest,
        min_new_tokens=None if trained else longest,
        do_sample=True,
        top_k=0,
        num_return_sequences=samples,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=grammar.end,
    )
    order, said = sorted(prompts, key=len), 0
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = tokenizer.pad({"input_ids": order[start : start + batch_size]}, return_tensors="pt")
            said += len(model.generate(**batch.to(model.device), generation_config=plan))
    return said


def naive(model: Any, grammar: Any, prompt: list[int]) -> np.ndarray:
    """`[3000]` log-probabilities of a prompt's expressions; prompt and path are read anew at each choice."""
    import torch

    trie = grammar.trie
    total = np.zeros(len(trie.token))
    paths = {int(node): trie.token[trie.path(int(node))].tolist() for node in trie.choices()}
    for length in sorted({len(path) for path in paths.values()}):
        nodes = [node for node, path in paths.items() if len(path) == length]
        ids = torch.tensor([prompt + paths[node] for node in nodes], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, logits_to_keep=1).logits[:, -1].double().cpu()
        for node, row in zip(nodes, logits, strict=True):
            below = trie.children[node][trie.children[node] >= 0]
            total[below] = row[trie.token[below]].log_softmax(0).numpy()
    for node in range(1, len(total)):
        total[node] += total[trie.parent[node]]
    return total[trie.leaf]


def tokens_read(prompts: list[list[int]], grammar: Any) -> float:
    """Tokens an exact label costs: the prompt beyond what all share, and the grammar's before a choice."""
    low, high = min(prompts), max(prompts)
    shared = next(place for place, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1])
    return float(np.mean([len(prompt) for prompt in prompts]) - shared + len(grammar.trie.context()))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
