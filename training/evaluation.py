"""Scoring voices on a split: what gates, cards and the evaluation table are made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.metrics import Voice, bootstrap, score, token_counts, token_entropy
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import N_SHAPES, SHAPES
from training.answering import Answers, ask
from training.configuration import require
from training.data import Split
from training.dev_windows import SummarisedWindows, of_split
from training.dialogue import Form, prompt_ids
from training.grammar import AnswerGrammar, ExpressionScorer
from training.voices import rows_of

_UNMEASURED = {"value": None, "low": None, "high": None, "n": 0}
_NUMBERS_PER_SHAPE = ("pattern_divergence", "token_divergence")


@dataclass(frozen=True)
class TeacherEvaluation:
    """How a teacher is measured.

    Attributes:
        windows: Most windows to ask it about, drawn at random where the split has more.
        batch_size: Prompts at a time.
        seed: Seed of everything drawn.
    """

    windows: int = 1000
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        for name in ("windows", "batch_size"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")


def measure_teacher(
    model: Any, tokenizer: Any, split: Split, rules: Rules, settings: TeacherEvaluation
) -> dict[str, Any]:
    """All metrics of a teacher on held-out windows.

    Args:
        model: The language model, adapter merged or not.
        tokenizer: Its tokenizer.
        split: Held-out windows.
        rules: The rules that labelled the dataset: the target.
        settings: See `TeacherEvaluation`.

    Returns:
        Plain JSON: `overall`, `real` and `synthetic` (where there are such windows), each with `sampled`
        (temperature 1, unconstrained), `constrained` and `greedy`; and `card`, the short prompt's `sampled`.
    """
    split = some_of(split, settings.windows, settings.seed)
    windows = of_split(split)
    answers, distribution = answer_all(model, tokenizer, windows, "design", settings)
    measured = {
        name: {
            kind: _score(kind, windows[chosen], _chosen(said, chosen), distribution[chosen], rules)
            for kind, said in answers.items()
        }
        for name, chosen in parts(split).items()
    }
    card, short = answer_all(model, tokenizer, windows, "card", settings, kinds=("sampled",))
    measured["card"] = {"sampled": _score("sampled", windows, card["sampled"], short, rules)}
    return measured


def answer_all(
    model: Any,
    tokenizer: Any,
    windows: SummarisedWindows,
    form: Form,
    settings: TeacherEvaluation,
    kinds: tuple[str, ...] = ("sampled", "constrained", "greedy"),
) -> tuple[dict[str, Answers], ExpressionDistribution]:
    """A teacher's generated answers to every window, by kind, and its exact distributions."""
    grammar = AnswerGrammar(tokenizer, form)
    prompts = prompt_ids(tokenizer, form, windows.shapes, windows.summaries)
    answers = {
        kind: ask(
            model,
            tokenizer,
            grammar,
            prompts,
            constrained=kind != "sampled",
            greedy=kind == "greedy",
            seed=settings.seed,
            batch_size=settings.batch_size,
        )
        for kind in kinds
    }
    distribution, _ = ExpressionScorer(model, grammar).score(prompts)
    return answers, distribution


def teacher_voice(
    name: str, shapes: np.ndarray, answers: Answers, distribution: ExpressionDistribution | None
) -> Voice:
    """What a teacher said, for `metrics.score`; it was told the shapes `[N]`."""
    return Voice(
        name=name,
        ids=answers.ids,
        distribution=distribution,
        distribution_rows=None if distribution is None else np.arange(len(shapes)),
        shape_probs=np.eye(N_SHAPES)[shapes],
        lumen_ids=answers.lumen_ids,
        valid=answers.valid,
        shape_given=True,
    )


def score_on(
    voice: Voice,
    windows: SummarisedWindows,
    reference: ExpressionDistribution,
    reference_rows: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """`metrics.score` of a voice, with what it leaves out: entropy beside the target's, and shapes in full.

    Args:
        voice: What was said of N windows.
        windows: Those windows.
        reference: The target.
        reference_rows: `[N]` row of `reference` per window; by default the window's shape.
        seed: Seed of the resampling.

    Returns:
        What `metrics.score` returns, and `token_entropy` (see `entropy_beside`). Under "per_shape" also every
        other metric of that shape as a cell with n and interval, and the divergences' intervals as
        "pattern_divergence_interval" and "token_divergence_interval".
    """
    rows = windows.shapes if reference_rows is None else reference_rows
    cells = _scored(voice, windows, reference, rows, seed)
    for shape, row in cells["per_shape"].items():
        here = np.flatnonzero(windows.shapes == SHAPES.index(shape))
        alone = _scored(rows_of(voice, here), windows[here], reference, rows[here], seed)
        for name in _NUMBERS_PER_SHAPE:
            row[f"{name}_interval"] = [alone[name]["low"], alone[name]["high"]]
        row |= {name: cell for name, cell in alone.items() if name != "per_shape" and name not in row}
    return cells


def _scored(
    voice: Voice,
    windows: SummarisedWindows,
    reference: ExpressionDistribution,
    reference_rows: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    cells = score(
        voice,
        shapes=windows.shapes,
        reference_patterns=np.full(len(windows), -1) if windows.patterns is None else windows.patterns,
        sequence=windows.sequence,
        reference=reference,
        reference_rows=reference_rows,
        seed=seed,
    )
    if windows.patterns is None:
        cells["pattern_accuracy"] = dict(_UNMEASURED)
    cells["token_entropy"] = entropy_beside(voice, windows.shapes, reference, reference_rows, seed)
    return cells


def entropy_beside(
    voice: Voice,
    shapes: np.ndarray,
    reference: ExpressionDistribution,
    reference_rows: np.ndarray,
    seed: int = 0,
) -> dict[str, Any]:
    """Entropy of what a voice says as a share of the target's, on the same windows: 1 is as varied.

    By the voice's exact distribution where it has one; else by what it said, which is a little less varied
    than what it draws from. The interval is that of the share.

    Returns:
        A cell with "bits", the voice's entropy, and "target", the target's, beside the share as "value".
    """
    if voice.distribution is None:
        valid = np.ones(len(shapes), bool) if voice.valid is None else np.asarray(voice.valid, bool)
        said = token_counts(voice.ids) * valid[:, None]
    else:
        own = shapes if voice.distribution_rows is None else voice.distribution_rows
        said = voice.distribution.token_counts()[own]
    wanted = reference.token_counts()[reference_rows]
    target, bits = (float(token_entropy(counts.sum(axis=0))) for counts in (wanted, said))
    if not said.any() or not target:
        return dict(_UNMEASURED) | {"bits": None, "target": target}
    value, low, high = bootstrap(
        lambda weights: token_entropy(weights @ said) / token_entropy(weights @ wanted),
        len(shapes),
        seed=seed,
    )
    return {"value": value, "low": low, "high": high, "n": len(shapes), "bits": bits, "target": target}


def in_time(split: Split) -> Split:
    """The windows in the order of time within each recording."""
    return split[np.lexsort((split.t_start, split.scale, split.source))]


def some_of(split: Split, count: int, seed: int) -> Split:
    """At most `count` windows, drawn at random, in the order of time."""
    if len(split) > count:
        split = split[np.random.default_rng(seed).permutation(len(split))[:count]]
    return in_time(split)


def parts(split: Split) -> dict[str, np.ndarray]:
    """Rows of `overall`, `real` and `synthetic` windows, those of them that there are."""
    rows = {
        "overall": np.arange(len(split)),
        "real": np.flatnonzero(split.real),
        "synthetic": np.flatnonzero(~split.real),
    }
    return {name: chosen for name, chosen in rows.items() if len(chosen)}


def _chosen(answers: Answers, rows: np.ndarray) -> Answers:
    return Answers(
        [answers.texts[row] for row in rows], answers.valid[rows], answers.ids[rows], answers.lumen_ids[rows]
    )


def _score(
    kind: str,
    windows: SummarisedWindows,
    answers: Answers,
    distribution: ExpressionDistribution,
    rules: Rules,
) -> dict[str, Any]:
    # The exact distribution is that of constrained sampling; greedy answers are no draws from it.
    exact = None if kind == "greedy" else distribution
    return score_on(teacher_voice(kind, windows.shapes, answers, exact), windows, rules.distribution())
