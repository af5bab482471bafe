"""What the graph's decoding reads: numbers made of the trees' answer, and tables of what may follow.

For one window a graph costs its number of nodes. So the ids said so far choose a row of a table, and the row
says for each next id where its probability stands in the embedding: no comparisons, no choices.
"""

from itertools import accumulate

import numpy as np

from eisv_lumen.expression import all_sequences, lumen_ids
from eisv_lumen.vocabulary import EOS, MAX_TOKENS, N_CLASSES, N_PATTERNS, N_SHAPES, N_TOKENS, PAD
from training.forest.factors import FORMS, N_FACTORS, N_FORMS, PATTERN_OF_FORM

EMBEDDING = 128

_TWO_OR_THREE, _REPEATED = ("PAIR", "TRIPLE"), ("TWICE", "THRICE")
_OF_FORMS = {
    "several": (_TWO_OR_THREE, FORMS),
    "triple": (("TRIPLE",), _TWO_OR_THREE),
    "single": (("SINGLE",), FORMS),
    "question": (("QUESTION",), FORMS),
    "again": (_REPEATED, FORMS),
    "pair": (("PAIR",), _TWO_OR_THREE),
    "twice": (("TWICE",), _REPEATED),
    "thrice": (("THRICE",), _REPEATED),
    "certain": (FORMS, FORMS),
    "never": ((), FORMS),
}
"""Probabilities that it is one of some forms, given that it is one of others."""

SPLIT = {"shapes": N_SHAPES, "patterns": N_PATTERNS, "tokens_1": N_CLASSES, "several": 1, "triple": 1}
"""What is read without a table, in the order in which the embedding has it."""

_WIDTHS = {**SPLIT, "tokens_2": N_CLASSES, "tokens_3": N_CLASSES} | dict.fromkeys(_OF_FORMS, 1)
_PLACES = dict(zip(_WIDTHS, accumulate(_WIDTHS.values(), initial=0), strict=False))


def pieces() -> tuple[np.ndarray, np.ndarray]:
    """Two matrices `[60, 128]`: the embedding is `factors @ first / (factors @ second)`; zeros at its end.

    The factors need not be normalised: what divides them is made of them, too.
    """
    above, below = np.zeros((2, N_FACTORS, EMBEDDING))
    below[0] = 1.0
    for name, width in _WIDTHS.items():
        columns = slice(_PLACES[name], _PLACES[name] + width)
        rows, part, whole = _piece(name)
        above[rows, columns] = part
        below[:, columns] = 0.0
        below[rows, columns] = whole
    return above, below


def _piece(name: str) -> tuple[slice, np.ndarray, np.ndarray]:
    """Which factors a piece is made of, how, and what it is a share of."""
    if name == "shapes":
        return slice(0, N_SHAPES), np.eye(N_SHAPES), np.ones((N_SHAPES, N_SHAPES))
    if name.startswith("tokens"):
        start = N_SHAPES + N_FORMS + (int(name[-1]) - 1) * N_TOKENS
        return slice(start, start + N_TOKENS), np.eye(N_TOKENS, N_CLASSES), np.ones((N_TOKENS, N_CLASSES))
    forms = slice(N_SHAPES, N_SHAPES + N_FORMS)
    if name == "patterns":
        return forms, PATTERN_OF_FORM, np.ones((N_FORMS, N_PATTERNS))
    some, given = (np.array([[form in named] for form in FORMS], np.float64) for named in _OF_FORMS[name])
    return forms, some, given


def tables() -> dict[str, np.ndarray]:
    """The decoding's tables by their names in the graph; a row for each first id, or first and second.

    `left_2` `[15, 17]`, `left_3` `[15, 17, 17]`: column of the embedding with each token's weight, of those
    that may be said and are left; `ends_2`, `ends_3` the same of what else the next id may be;
    `translation` `[15, 17, 17, 3]` Lumen word ids, and `one_of` `[15, 17, 17]` 1 / number of tokens.
    """
    ids = np.arange(N_CLASSES)
    first, second, third = np.ix_(ids[:N_TOKENS], ids, ids)
    is_token, never = ids < N_TOKENS, _PLACES["never"]
    others = is_token & (first[..., 0] != ids)
    both = (second < N_TOKENS) & (first != second)
    translation = np.full((N_TOKENS, N_CLASSES, N_CLASSES, MAX_TOKENS), -1, np.int64)
    sequences = all_sequences()
    translation[tuple(sequences.T)] = lumen_ids(sequences)
    others_3 = both & is_token & (first != third) & (second != third)
    said = 1.0 + (second < N_TOKENS) + (third < N_TOKENS)
    return {
        "left_2": np.where(others, _PLACES["tokens_2"] + ids, never),
        "left_3": np.where(others_3, _PLACES["tokens_3"] + ids, never),
        "ends_2": _ends_2(),
        "ends_3": _ends_3(),
        "translation": translation,
        "one_of": np.broadcast_to(1 / said, (N_TOKENS, N_CLASSES, N_CLASSES)).astype(np.float32),
    }


def _ends_2() -> np.ndarray:
    ends = np.full((N_TOKENS, N_CLASSES), _PLACES["never"])
    ends[:, EOS], ends[:, PAD] = _PLACES["single"], _PLACES["question"]
    np.fill_diagonal(ends[:, :N_TOKENS], _PLACES["again"])
    return ends


def _ends_3() -> np.ndarray:
    ends, same = np.full((N_TOKENS, N_CLASSES, N_CLASSES), _PLACES["never"]), np.arange(N_TOKENS)
    ends[:, :N_TOKENS, EOS] = _PLACES["pair"]
    ends[same, same, EOS], ends[same, same, same] = _PLACES["twice"], _PLACES["thrice"]
    ends[:, [EOS, PAD], PAD] = _PLACES["certain"]
    return ends
