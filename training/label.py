"""Label a dataset with a teacher: its exact distribution over expressions for every window to learn from.

python -m training.label --dataset DIR --base DIR --teacher DIR --out DIR
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen import artifact
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.layouts import LABELS
from eisv_lumen.vocabulary import AFFINITY
from eisv_lumen.windows import summaries
from training.data import Split, read_split
from training.devices import DEVICES
from training.dialogue import prompt_ids
from training.language_model import base_inputs, load_teacher
from training.row_counts import require_windows

LABELLED_SPLITS = ("train", "validation")


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="model folder; by default the adapter's Hub repository")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=16, help="windows per forward pass")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="a GPU where there is one")
    options = parser.parse_args(arguments)
    artifact.Manifest.read(options.dataset, kind="dataset")
    artifact.Manifest.read(options.teacher, kind="teacher")
    require_windows(options.dataset, *LABELLED_SPLITS)
    inputs = {"dataset": options.dataset, "teacher": options.teacher, **base_inputs(options.base)}
    configuration = {"splits": list(LABELLED_SPLITS), "form": "design"}
    with artifact.build(options.out, kind="labels", configuration=configuration, inputs=inputs) as work:
        if work is None:
            print(f"labels: {options.out} is up to date")
            return 0
        print("labels: asking the teacher for its exact distribution, because samples would be noise")
        splits = [read_split(options.dataset, split) for split in LABELLED_SPLITS]
        model, tokenizer = load_teacher(options.teacher, options.base, device=options.device)
        work.metrics = write_labels(model, tokenizer, splits, work.folder, options.batch_size)
    print(
        f"labels: {work.metrics['n']} windows, {work.metrics['windows_per_second']:.0f} per second, "
        f"in {options.out}"
    )
    return 0


def write_labels(
    model: Any, tokenizer: Any, splits: list[Split], folder: Path, batch_size: int = 16
) -> dict[str, Any]:
    """Write tensors and window ids into `folder`; returns the metrics."""
    from safetensors.numpy import save_file

    from training.grammar import AnswerGrammar, ExpressionScorer

    began = time.monotonic()
    shapes = np.concatenate([split.shapes for split in splits])
    prompts = [
        prompt
        for split in splits
        for prompt in prompt_ids(tokenizer, "design", split.shapes, summaries(split.windows))
    ]
    scorer = ExpressionScorer(model, AnswerGrammar(tokenizer, "design"), batch_size)
    distribution, hidden = scorer.score(prompts, progress=Counter("labels", len(prompts)))
    save_file(
        {
            "first": distribution.first.astype(np.float32),
            "second": distribution.second.astype(np.float32),
            "third": distribution.third.astype(np.float32),
            "hidden": hidden.astype(np.float32),
        },
        str(folder / LABELS.tensors),
    )
    artifact.write_json(
        folder / LABELS.window_ids, [str(name) for split in splits for name in split.window_ids]
    )
    seconds = time.monotonic() - began
    return {
        "n": len(prompts),
        "coherence": float(distribution.coherence(AFFINITY[shapes]).mean()),
        "hidden_size": hidden.shape[1],
        "seconds": round(seconds, 1),
        "windows_per_second": round(len(prompts) / seconds, 1),
    }


class Counter:
    """One moving line on standard error; ten lines in all where it is no terminal."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total = name, total
        self._tenth = 0
        self._began = time.monotonic()

    def __call__(self, done: int) -> None:
        """Show how many of the windows are done."""
        tenth = 10 * done // self._total
        if not sys.stderr.isatty() and tenth == self._tenth:
            return
        self._tenth = tenth
        left = (time.monotonic() - self._began) / done * (self._total - done)
        end = "\r" if sys.stderr.isatty() and done < self._total else "\n"
        line = f"{self._name}: window {done}/{self._total}  {left:.0f} s left"
        print(line.ljust(79), end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    exit_with_reason(main)
