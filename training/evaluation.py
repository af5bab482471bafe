"""Scoring voices on a split: what gates, cards and the evaluation table are made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.metrics import Voice, score
from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import N_SHAPES
from eisv_lumen.windows import summaries
from training.answering import Answers, ask
from training.configuration import require
from training.data import Split
from training.dialogue import Form, prompt_ids
from training.grammar import AnswerGrammar, ExpressionScorer


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
    answers, distribution = answer_all(model, tokenizer, split, "design", settings)
    measured = {
        name: {
            kind: _score(kind, split[chosen], _chosen(said, chosen), distribution[chosen], rules)
            for kind, said in answers.items()
        }
        for name, chosen in parts(split).items()
    }
    card, short = answer_all(model, tokenizer, split, "card", settings, kinds=("sampled",))
    measured["card"] = {"sampled": _score("sampled", split, card["sampled"], short, rules)}
    return measured


def answer_all(
    model: Any,
    tokenizer: Any,
    split: Split,
    form: Form,
    settings: TeacherEvaluation,
    kinds: tuple[str, ...] = ("sampled", "constrained", "greedy"),
) -> tuple[dict[str, Answers], ExpressionDistribution]:
    """A teacher's generated answers to every window, by kind, and its exact distributions."""
    grammar = AnswerGrammar(tokenizer, form)
    prompts = prompt_ids(tokenizer, form, split.shapes, summaries(split.windows))
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
    name: str, split: Split, answers: Answers, distribution: ExpressionDistribution | None
) -> Voice:
    """What a teacher said, for `metrics.score`; it was told the shape."""
    return Voice(
        name=name,
        ids=answers.ids,
        distribution=distribution,
        shape_probs=np.eye(N_SHAPES)[split.shapes],
        lumen_ids=answers.lumen_ids,
        valid=answers.valid,
        shape_given=True,
    )


def score_on(
    voice: Voice, split: Split, reference: ExpressionDistribution | None, seed: int = 0
) -> dict[str, Any]:
    """`metrics.score` of a voice on a split: robust labels, recordings as sequences."""
    return score(
        voice,
        shapes=split.shapes,
        reference_patterns=split.patterns,
        sequence=sequences(split),
        reference=reference,
        seed=seed,
    )


def sequences(split: Split) -> np.ndarray:
    """`[N]` which recording and time scale each window was cut from; generated windows stand alone."""
    recorded = np.char.add(np.char.add(split.source, "|"), split.scale)
    return np.where(split.real, recorded, np.char.add("window ", np.arange(len(split)).astype(str)))


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
    kind: str, split: Split, answers: Answers, distribution: ExpressionDistribution, rules: Rules
) -> dict[str, Any]:
    # The exact distribution is that of constrained sampling; greedy answers are no draws from it.
    exact = None if kind == "greedy" else distribution
    return score_on(teacher_voice(kind, split, answers, exact), split, rules.distribution())
