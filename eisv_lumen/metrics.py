"""Every number of the evaluation table (DOMAIN.md section 4), each computed in one place.

Every function takes arrays over windows; `score` computes all of them for one voice, with intervals.
An invalid answer counts: it scores 0 in coherence, pattern accuracy, bridge fidelity and temporal
consistency, and has no tokens to count in diversity and distribution fit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.errors import InputError
from eisv_lumen.expression import is_legal, lumen_ids, patterns_of
from eisv_lumen.vocabulary import (
    AFFINITY,
    EOS,
    N_PATTERNS,
    N_SHAPES,
    N_TOKENS,
    PAD,
    SHAPES,
)

ECE_BINS = 15
RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
COLUMNS = {
    "coherence": "coherence",
    "valid_rate": "valid rate",
    "pattern_accuracy": "pattern accuracy",
    "shape_accuracy": "shape accuracy",
    "diversity": "diversity (bits)",
    "bridge_fidelity": "bridge fidelity",
    "temporal_consistency": "temporal consistency",
    "calibration": "calibration (ECE)",
    "pattern_divergence": "pattern divergence (bits)",
    "token_divergence": "token divergence (bits)",
}
"""Metric names in the order of the table, with their headings. Divergences are the distribution fit."""

_RESAMPLES_AT_ONCE = 4_000_000
_SILENCE = np.array([0, EOS, PAD])

Cell = dict[str, Any]
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Voice:
    """What one voice said of N windows, and what it believed.

    Attributes:
        name: Row of the table.
        ids: `[N, 3]` ids said; ignored where not `valid`.
        distribution: The exact distribution the voice draws from, one row per window or one per shape
            (see `distribution_rows`); None for a voice that gives samples only.
        distribution_rows: `[N]` row of `distribution` per window. By default the window's own, or its
            shape's where there are as many rows as shapes.
        shape_probs: `[N, 9]` belief over shapes, or None.
        shape_ids: `[N]` the shape heard; by default the likeliest of `shape_probs`.
        confidence: `[N]` in [0, 1]; by default the expected coherence of `ids` under `shape_probs`.
        lumen_ids: `[N, 3]` Lumen words said directly, -1 where there is none; None when it says none.
        valid: `[N]` bool, whether the answer parsed; by default all.
        shape_given: Whether the voice was told the shape, so that hearing it is no achievement.
    """

    name: str
    ids: np.ndarray
    distribution: ExpressionDistribution | None = None
    distribution_rows: np.ndarray | None = None
    shape_probs: np.ndarray | None = None
    shape_ids: np.ndarray | None = None
    confidence: np.ndarray | None = None
    lumen_ids: np.ndarray | None = None
    valid: np.ndarray | None = None
    shape_given: bool = False


# One value per window.


def coherence(ids: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """`[N]` share of the tokens said that are affine to the true shape.

    Args:
        ids: `[N, 3]` legal ids.
        shapes: `[N]` true shape ids.
    """
    said = ids < N_TOKENS
    affine = AFFINITY[np.asarray(shapes)[:, None], np.where(said, ids, 0)]
    return (affine & said).sum(axis=1) / said.sum(axis=1)


def expected_coherence(ids: np.ndarray, shape_probs: np.ndarray) -> np.ndarray:
    """`[N]` confidence: coherence of `ids` `[N, 3]` expected under a belief over shapes `[N, 9]`."""
    counts = token_counts(ids)
    return ((shape_probs @ AFFINITY) * counts).sum(axis=1) / counts.sum(axis=1)


def token_counts(ids: np.ndarray) -> np.ndarray:
    """`[N, 15]` how often each token is said in legal ids `[N, 3]`."""
    counts = np.zeros((len(ids), N_TOKENS))
    for position in ids.T:
        said = position < N_TOKENS
        counts[said.nonzero()[0], position[said]] += 1
    return counts


def bridge_fidelity(ids: np.ndarray, words: np.ndarray) -> np.ndarray:
    """`[N]` 1 where the translation of `ids` `[N, 3]` equals the words `[N, 3]` said directly, else 0."""
    return (lumen_ids(ids) == words).all(axis=1).astype(np.float64)


def consecutive(shapes: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """`[P, 2]` pairs of windows that follow each other in one sequence and have the same shape.

    Args:
        shapes: `[N]` shape ids.
        sequence: `[N]` name or number of the recording each window was cut from; windows of one recording
            stand in the order of time, not necessarily side by side.
    """
    _, sequence = np.unique(sequence, return_inverse=True)
    order = np.argsort(sequence, kind="stable")
    pairs = np.stack([order[:-1], order[1:]], axis=1)
    same = (sequence[pairs[:, 0]] == sequence[pairs[:, 1]]) & (shapes[pairs[:, 0]] == shapes[pairs[:, 1]])
    return pairs[same]


def jaccard(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`[P]` overlap of the token sets of legal ids `[P, 3]`: shared tokens / tokens in either."""
    one, two = token_counts(ids) > 0, token_counts(others) > 0
    return (one & two).sum(axis=1) / (one | two).sum(axis=1)


# Summaries of distributions.


def token_entropy(counts: np.ndarray) -> np.ndarray:
    """Shannon entropy in bits of counts or probabilities over the last axis; 0 where all are 0."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    p = counts / np.where(total > 0, total, 1)
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=-1) + 0.0


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen–Shannon divergence in bits over the last axis, in [0, 1]; inputs are normalised, NaN if all 0.

    H((p + q) / 2) − (H(p) + H(q)) / 2.
    """
    with np.errstate(invalid="ignore"):
        p, q = (np.asarray(x, np.float64) / np.sum(x, axis=-1, keepdims=True) for x in (p, q))
    return np.clip(token_entropy((p + q) / 2) - (token_entropy(p) + token_entropy(q)) / 2, 0, 1)


def ece(confidence: np.ndarray, outcome: np.ndarray, bins: int = ECE_BINS) -> float:
    """Expected calibration error: mean over windows of their bin's |mean confidence − mean outcome|.

    Args:
        confidence: `[N]` in [0, 1], cut into `bins` bins of equal width.
        outcome: `[N]` in [0, 1]: what came of it, e.g. coherence.
        bins: Number of bins.
    """
    return float(np.abs(_binned_excess(confidence, outcome, bins).sum(axis=0)).sum() / len(confidence))


# Intervals.


def bootstrap(
    statistic: Statistic, n: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """A statistic's value on N windows, and its 95 % interval over resampled windows.

    The interval is that of the resamples, moved so that their median lies on the value: entropy and
    divergence of a resample are biased (a resample is less varied than its source), means are not.

    Args:
        statistic: Maps weights `[R, N]` (how often each window counts) to values `[R]`.
        n: Number of windows.
        seed: Seed of the resampling.
        resamples: Number of resamples.
    """
    value = float(statistic(np.ones((1, n), np.float32))[0])
    generator = np.random.default_rng(seed)
    at_once = max(1, _RESAMPLES_AT_ONCE // n)
    drawn = np.concatenate(
        [
            statistic(_resampling_weights(min(at_once, resamples - start), n, generator))
            for start in range(0, resamples, at_once)
        ]
    )
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, middle, high = np.nanquantile(drawn, [tail, 0.5, 1 - tail])
    return value, value + float(min(low - middle, 0)), value + float(max(high - middle, 0))


# The table.


def score(
    voice: Voice,
    *,
    shapes: np.ndarray,
    reference_patterns: np.ndarray,
    sequence: np.ndarray | None = None,
    reference: ExpressionDistribution | None = None,
    reference_rows: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of one voice, as plain JSON.

    Distribution fit compares, per shape, the mean distribution over the shape's windows, of patterns and of
    tokens (pooled, so that longer expressions weigh more), and takes the mean over the shapes that occur.
    A voice with an exact distribution is compared by it; one that gives only samples by their frequencies,
    which adds a divergence of about (categories − 1) / (8 n ln 2) bits per shape.

    Args:
        voice: What was said.
        shapes: `[N]` true shape ids: the rules' labels of the complete windows.
        reference_patterns: `[N]` pattern ids of the reference labels.
        sequence: See `consecutive`; None leaves temporal consistency unmeasured.
        reference: The distribution to fit; rows as in `Voice.distribution`.
        reference_rows: `[N]` row of `reference` per window, where that is neither the window nor its shape.
        seed: Seed of the resampling.

    Returns:
        Per metric of `COLUMNS`: `{"value", "low", "high", "n"}` with a 95 % bootstrap interval over windows
        (pairs of windows for temporal consistency), values None where there is nothing to measure and
        `"given": True` on what the voice was told. Under "per_shape", per shape that occurs: "n", the cells
        "coherence" and "diversity", the numbers "pattern_divergence" and "token_divergence" (None without
        a reference). A voice with an exact distribution also has the cells "expected_coherence" and
        "expected_diversity", free of sampling noise.

    Raises:
        InputError: Arrays of different lengths, no windows, or illegal ids in an answer called valid.
    """
    shapes = np.asarray(shapes)
    valid, ids = _checked(voice, shapes, reference_patterns)
    counts = token_counts(ids) * valid[:, None]
    coherent = coherence(ids, shapes) * valid
    patterns = np.eye(N_PATTERNS)[patterns_of(ids)] * valid[:, None]
    exact = _expectation(voice.distribution, voice.distribution_rows, shapes)
    fit = exact or (patterns, counts)
    target = _expectation(reference, reference_rows, shapes)
    heard = _shape_heard(voice)

    cells = {
        "coherence": _mean_cell(coherent, seed),
        "valid_rate": _mean_cell(valid, seed),
        "pattern_accuracy": _mean_cell((patterns_of(ids) == reference_patterns) & valid, seed),
        "shape_accuracy": _mean_cell(None if heard is None else heard == shapes, seed),
        "diversity": _entropy_cell(counts, seed),
        "bridge_fidelity": _mean_cell(
            None if voice.lumen_ids is None else bridge_fidelity(ids, voice.lumen_ids) * valid, seed
        ),
        "temporal_consistency": _mean_cell(_consistency(ids, valid, shapes, sequence), seed),
        "calibration": _calibration_cell(voice, ids, valid, coherent, seed),
    }
    for name, part in (("pattern_divergence", 0), ("token_divergence", 1)):
        cells[name] = (
            _cell(_divergence(fit[part], target[part], shapes), len(shapes), seed, top=1.0)
            if target
            else _unmeasured()
        )
    if voice.shape_given:
        cells["shape_accuracy"]["given"] = True
    if exact:
        cells["expected_coherence"] = _mean_cell(exact[2], seed)
        cells["expected_diversity"] = _entropy_cell(exact[1], seed)
    return {**cells, "per_shape": _per_shape(shapes, coherent, counts, fit, target, seed)}


def table_markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The evaluation table: one line per voice, `value [low, high]` per cell, n where it differs.

    Args:
        rows: Results of `score` by the voice's name, in the order wanted.
    """
    sizes = [row["coherence"]["n"] for row in rows.values()]
    usual = max(set(sizes), key=sizes.count) if sizes else 0
    head = [f"voice (n = {usual})", *COLUMNS.values()]
    lines = [head, ["---"] + ["---:"] * len(COLUMNS)]
    lines += [[name] + [_written(row.get(column), usual) for column in COLUMNS] for name, row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _written(cell: Mapping[str, Any] | None, usual: int) -> str:
    if cell is None or cell["value"] is None:
        return "given" if cell and cell.get("given") else "–"
    text = f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
    if cell["n"] != usual:
        text += f" (n = {cell['n']})"
    return text + (" given" if cell.get("given") else "")


def _checked(
    voice: Voice, shapes: np.ndarray, reference_patterns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`valid [N]` and `ids [N, 3]`, with a placeholder where the answer is invalid."""
    n = len(shapes)
    arrays: dict[str, np.ndarray | None] = {
        "ids": voice.ids,
        "shape_probs": voice.shape_probs,
        "shape_ids": voice.shape_ids,
        "confidence": voice.confidence,
        "lumen_ids": voice.lumen_ids,
        "valid": voice.valid,
        "reference_patterns": reference_patterns,
    }
    wrong = [name for name, array in arrays.items() if array is not None and len(array) != n]
    if wrong or not n:
        raise _refused(f"{wrong[0] if wrong else 'shapes'} of another length than {n or 'one'} windows")
    valid = np.ones(n, bool) if voice.valid is None else np.asarray(voice.valid, bool)
    ids = np.where(valid[:, None], voice.ids, _SILENCE)
    if not is_legal(ids).all():
        raise _refused(f"{voice.name} calls an answer valid whose ids are no expression")
    return valid, ids


def _expectation(
    distribution: ExpressionDistribution | None, rows: np.ndarray | None, shapes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Expected patterns `[N, 5]`, token counts `[N, 15]` and coherence `[N]`, or None."""
    if distribution is None:
        return None
    size, n = len(distribution), len(shapes)
    if rows is None:
        if size not in (n, N_SHAPES) or (size == n == N_SHAPES):
            raise _refused(f"{size} distributions for {n} windows, and no rows that assign them")
        rows = np.arange(n) if size == n else shapes
    # Coherence depends on the shape: with one row per shape, on 9 x 9 combinations at most.
    cells, where = np.unique(np.stack([rows, shapes]), axis=1, return_inverse=True)
    where, chosen = where.reshape(-1), distribution[cells[0]]
    coherent = chosen.coherence(AFFINITY[cells[1]])[where]
    return chosen.patterns()[where], chosen.token_counts()[where], coherent


def _shape_heard(voice: Voice) -> np.ndarray | None:
    if voice.shape_ids is not None or voice.shape_probs is None:
        return voice.shape_ids
    return voice.shape_probs.argmax(axis=1)


def _consistency(
    ids: np.ndarray, valid: np.ndarray, shapes: np.ndarray, sequence: np.ndarray | None
) -> np.ndarray | None:
    if sequence is None:
        return None
    first, second = consecutive(shapes, sequence).T
    return jaccard(ids[first], ids[second]) * (valid[first] & valid[second])


def _calibration_cell(
    voice: Voice, ids: np.ndarray, valid: np.ndarray, coherent: np.ndarray, seed: int
) -> Cell:
    """Calibration of what was answered: an invalid answer has no confidence."""
    confidence = voice.confidence
    if confidence is None and voice.shape_probs is not None:
        confidence = expected_coherence(ids, voice.shape_probs)
    if confidence is None or not valid.any():
        return _unmeasured()
    excess = _binned_excess(np.asarray(confidence)[valid], coherent[valid], ECE_BINS)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.abs(weights @ excess).sum(axis=1) / weights.sum(axis=1)

    return _cell(statistic, int(valid.sum()), seed, top=1.0)


def _binned_excess(confidence: np.ndarray, outcome: np.ndarray, bins: int) -> np.ndarray:
    """`[N, bins]` confidence − outcome in the column of the confidence's bin, 0 elsewhere."""
    confidence = np.asarray(confidence, np.float64)
    column = np.clip((confidence * bins).astype(int), 0, bins - 1)
    return np.eye(bins)[column] * (confidence - outcome)[:, None]


def _divergence(fit: np.ndarray, target: np.ndarray, shapes: np.ndarray) -> Statistic:
    """Mean over the shapes that occur of the divergence between pooled `fit` and `target` `[N, K]`."""
    occurring = np.unique(shapes)

    def statistic(weights: np.ndarray) -> np.ndarray:
        by_shape = np.stack(
            [
                js_divergence(*(weights[:, shapes == s] @ table[shapes == s] for table in (fit, target)))
                for s in occurring
            ]
        )
        # A resample may hold none of a rare shape: the mean is over those it holds.
        measured = ~np.isnan(by_shape)
        return np.where(measured, by_shape, 0).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)

    return statistic


def _per_shape(
    shapes: np.ndarray,
    coherent: np.ndarray,
    counts: np.ndarray,
    fit: tuple[np.ndarray, ...],
    target: tuple[np.ndarray, ...] | None,
    seed: int,
) -> dict[str, Any]:
    result = {}
    for shape in np.unique(shapes).tolist():
        here = shapes == shape
        row: dict[str, Any] = {
            "n": int(here.sum()),
            "coherence": _mean_cell(coherent[here], seed),
            "diversity": _entropy_cell(counts[here], seed),
        }
        for name, part in (("pattern_divergence", 0), ("token_divergence", 1)):
            row[name] = None
            if target is not None:
                value = float(js_divergence(fit[part][here].sum(axis=0), target[part][here].sum(axis=0)))
                row[name] = None if np.isnan(value) else value
        result[SHAPES[shape]] = row
    return result


def _mean_cell(values: np.ndarray | None, seed: int) -> Cell:
    if values is None or not len(values):
        return _unmeasured()
    values = np.asarray(values, np.float64)
    return _cell(lambda weights: weights @ values / len(values), len(values), seed, top=1.0)


def _entropy_cell(counts: np.ndarray, seed: int) -> Cell:
    if not counts.any():
        return _unmeasured()
    return _cell(lambda weights: token_entropy(weights @ counts), len(counts), seed, top=np.log2(N_TOKENS))


def _cell(statistic: Statistic, n: int, seed: int, *, top: float) -> Cell:
    """A cell with its interval, kept in [0, top]."""
    value, low, high = bootstrap(statistic, n, seed=seed)
    if np.isnan(value):
        return _unmeasured()
    return {"value": value, "low": max(low, 0.0), "high": min(high, float(top)), "n": n}


def _unmeasured() -> Cell:
    return {"value": None, "low": None, "high": None, "n": 0}


def _resampling_weights(resamples: int, n: int, generator: np.random.Generator) -> np.ndarray:
    """`[R, N]` how often each of N windows is drawn in N draws with replacement."""
    drawn = generator.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float32)


def _refused(found: str) -> InputError:
    return InputError(
        found=found,
        expected="one row per window, legal ids in valid answers",
        next="pass arrays over the same windows",
    )
