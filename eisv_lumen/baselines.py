"""The voices that a learned one is measured against: random, rules, rules with feedback, and the oracle."""

from dataclasses import replace

import numpy as np

from eisv_lumen.expression import lumen_ids
from eisv_lumen.metrics import Voice
from eisv_lumen.rules import Rules, draw, exact_distribution
from eisv_lumen.vocabulary import AFFINITY, N_PATTERNS, N_SHAPES, N_TOKENS, N_WORDS, PATTERN_WEIGHTS


def random_voice(shapes: np.ndarray, generator: np.random.Generator, name: str = "Random") -> Voice:
    """A voice that knows nothing: every pattern and every token equally likely, whatever the shape.

    It guesses the shape uniformly, believes in all nine alike, and says as many Lumen words as the
    translation has, at random.

    Args:
        shapes: `[N]` shape ids; only their number is used.
        generator: Source of the draws.
        name: Row of the table.
    """
    n = len(shapes)
    patterns, tokens = np.full((n, N_PATTERNS), 1 / N_PATTERNS), np.ones((n, N_TOKENS))
    ids = draw(patterns, tokens, generator)
    words = generator.random((n, N_WORDS)).argsort(axis=1)[:, :3]
    return Voice(
        name=name,
        ids=ids,
        distribution=exact_distribution(patterns[:1], tokens[:1]),
        distribution_rows=np.zeros(n, np.int64),
        shape_probs=np.full((n, N_SHAPES), 1 / N_SHAPES),
        shape_ids=generator.integers(N_SHAPES, size=n),
        lumen_ids=np.where(lumen_ids(ids) >= 0, words, -1),
    )


def rules_voice(
    shapes: np.ndarray, generator: np.random.Generator, rules: Rules | None = None, name: str = "Rules"
) -> Voice:
    """The rules as they stand, without learning on the way; pass taught rules for rules with feedback.

    Args:
        shapes: `[N]` shape ids, which the rules are told.
        generator: Source of the draws.
        rules: Their weights; by default those before any feedback.
        name: Row of the table.
    """
    rules = rules or Rules()
    told = _told(name, rules.sample(shapes, generator), shapes)
    return replace(told, distribution=rules.distribution(), distribution_rows=np.asarray(shapes))


def feedback_voice(
    shapes: np.ndarray,
    generator: np.random.Generator,
    rules: Rules | None = None,
    name: str = "Rules + feedback",
) -> Voice:
    """One pass of self-scored feedback, as published: what was said while learning.

    Its weights move with every window, so there is no one distribution to state.

    Args:
        shapes: `[N]` shape ids in the order in which they are met.
        generator: Source of the draws.
        rules: The rules to start from, which learn; by default fresh ones.
        name: Row of the table.
    """
    rules = rules or Rules()
    return _told(name, rules.speak_and_learn(shapes, generator), shapes)


def oracle_voice(shapes: np.ndarray, generator: np.random.Generator, name: str = "Oracle") -> Voice:
    """The rules' patterns with affine tokens alone: coherence 1 by construction."""
    ids = draw(PATTERN_WEIGHTS[shapes], AFFINITY[shapes].astype(np.float64), generator)
    return _told(name, ids, shapes)


def _told(name: str, ids: np.ndarray, shapes: np.ndarray) -> Voice:
    """A voice that was told the shape and translates its tokens."""
    return Voice(
        name=name, ids=ids, shape_probs=np.eye(N_SHAPES)[shapes], lumen_ids=lumen_ids(ids), shape_given=True
    )
