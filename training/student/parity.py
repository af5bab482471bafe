"""Does the exported student say what the trained one says: torch, FP32 and INT8 on the same windows."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime
import torch

from eisv_lumen.metrics import coherence, js_divergence
from eisv_lumen.student import BatchResult
from eisv_lumen.vocabulary import MAX_TOKENS, N_CLASSES
from eisv_lumen.windows import MIN_STATES, WINDOW_LENGTH, Windows
from training.data import Split
from training.student import export
from training.student.batches import inputs_of
from training.student.modeling_eisv_lumen import TrajectoryTransformer

BATCH_SIZES = (1, 7, 64)
DRAWS = 3
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"max_probability_difference": 1e-4},
    "int8": {"shape_agreement": 0.995, "js_bits": 0.005, "coherence_loss": 0.003},
}
"""What an export must keep to. Agreements must be reached, everything else must not be exceeded."""


def measure(
    model: TrajectoryTransformer,
    exported: dict[str, onnxruntime.InferenceSession],
    split: Split,
    *,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Compare torch with each exported graph on complete and cut windows, in batches of 1, 7 and 64.

    Args:
        model: The trained model.
        exported: Sessions by precision.
        split: Held-out windows; used several times, at other lengths, where there are fewer than `count`.
        count: Windows to compare; half complete, half cut to their first 4 to 19 states.
        seed: Of the choice of windows and the noise.

    Returns:
        Per precision, with tolerances and whether they were kept:
        `shape_agreement`: share of windows with the same likeliest shape;
        `expression_agreement` without and `sampled_agreement` with noise (the same for all): share of windows
        with the same ids; tokens of equal probability make these the least telling;
        `max_probability_difference` of any shape, pattern or next-id probability on the same prefix;
        `js_bits`: Jensen–Shannon divergence of the next-id distributions on the same prefix, mean over
        windows, summed over the three steps; `coherence_loss` of what is sampled, against torch.
    """
    generator = np.random.default_rng(seed)
    rows = np.concatenate([generator.permutation(len(split)) for _ in range(-(-count // len(split)))])[:count]
    windows, shapes = mixed_lengths(split.windows[rows], generator), split.shapes[rows]
    noises = [np.zeros((count, MAX_TOKENS, N_CLASSES), np.float32)]
    noises += [generator.gumbel(size=noises[0].shape).astype(np.float32) for _ in range(DRAWS)]
    expected = [_in_torch(model, windows, noise) for noise in noises]
    report: dict[str, Any] = {"n": count, "batch_sizes": list(BATCH_SIZES), "draws": DRAWS, "split": "test"}
    for precision, graph in exported.items():
        found = [_in_batches(graph, windows, noise) for noise in noises]
        measured = _compared(expected, found, shapes)
        measured["tolerances"] = TOLERANCES[precision]
        measured["passed"] = all(
            measured[name] >= limit if name.endswith("agreement") else measured[name] <= limit
            for name, limit in TOLERANCES[precision].items()
        )
        report[precision] = measured
    return {"passed": all(report[precision]["passed"] for precision in exported), **report}


def mixed_lengths(windows: Windows, generator: np.random.Generator) -> Windows:
    """Every second window cut to its first 4 to 19 states, the others as they are."""
    packed = windows.packed()
    lengths = generator.integers(MIN_STATES, WINDOW_LENGTH, len(windows))
    lengths[::2] = WINDOW_LENGTH
    kept = packed.mask & (np.arange(packed.mask.shape[1])[None] < lengths[:, None])
    return Windows(packed.states, packed.times, kept).packed()


def _in_torch(
    model: TrajectoryTransformer, windows: Windows, noise: np.ndarray, *, at_once: int = 256
) -> BatchResult:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(windows), at_once):
            chosen = slice(start, start + at_once)
            output = model(**inputs_of(windows[chosen]), noise=torch.from_numpy(noise[chosen]))
            parts.append({name: value.numpy() for name, value in output.items()})
    return _joined(parts)


def _in_batches(graph: onnxruntime.InferenceSession, windows: Windows, noise: np.ndarray) -> BatchResult:
    """A third of the windows in each of the batch sizes."""
    parts = []
    for third, size in zip(_thirds(len(windows)), BATCH_SIZES, strict=True):
        for start in range(third.start, third.stop, size):
            chosen = slice(start, min(start + size, third.stop))
            feed = {name: value.numpy() for name, value in inputs_of(windows[chosen]).items()}
            parts.append(export.run(graph, {**feed, "noise": noise[chosen]}))
    return _joined(parts)


def _thirds(count: int) -> Iterator[slice]:
    edges = np.linspace(0, count, len(BATCH_SIZES) + 1).astype(int).tolist()
    return (slice(low, high) for low, high in pairwise(edges))


def _joined(parts: list[dict[str, np.ndarray]]) -> BatchResult:
    return BatchResult(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _compared(expected: list[BatchResult], found: list[BatchResult], shapes: np.ndarray) -> dict[str, Any]:
    """All measures; the first of each list was decoded without noise, the others with."""
    same = [
        (one.token_ids == other.token_ids).all(axis=1).mean()
        for one, other in zip(expected, found, strict=True)
    ]
    greedy, other = expected[0], found[0]
    largest = max(
        float(np.abs(getattr(greedy, name) - getattr(other, name)).max())
        for name in ("shape_probs", "pattern_probs")
    )
    divergences = []
    for one, other_draw in zip(expected, found, strict=True):
        steps, difference = _by_step(one, other_draw)
        divergences.append(steps)
        largest = max(largest, difference)
    losses = [
        coherence(one.token_ids, shapes).mean() - coherence(two.token_ids, shapes).mean()
        for one, two in zip(expected[1:], found[1:], strict=True)
    ]
    return {
        "shape_agreement": float((greedy.shapes == other.shapes).mean()),
        "expression_agreement": float(same[0]),
        "sampled_agreement": float(np.mean(same[1:])),
        "max_probability_difference": largest,
        "js_bits": float(np.mean(divergences[1:])),
        "coherence_loss": float(np.mean(losses)),
    }


def _by_step(one: BatchResult, other: BatchResult) -> tuple[float, float]:
    """Divergence summed over the steps, and largest difference, where the ids so far are the same."""
    same = np.ones(len(one), bool)
    total, largest = 0.0, 0.0
    for step in range(MAX_TOKENS):
        p, q = one.token_probs[same, step].astype(float), other.token_probs[same, step].astype(float)
        if len(p):
            total += float(js_divergence(p, q).mean())
            largest = max(largest, float(np.abs(p - q).max()))
        same &= one.token_ids[:, step] == other.token_ids[:, step]
    return total, largest
