"""A forest as one ONNX graph with the inputs and outputs of the transformer student.

In front of the trees the twelve summaries are computed, behind them the expression is decoded. The summaries
are computed in double precision, so that they round to the same float32 as in training: a tree compares, and
a last bit can send a window down another branch. The embedding is what the decoding reads: the distributions
that the trees say, side by side.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from eisv_lumen.expression import all_sequences, lumen_ids
from eisv_lumen.vocabulary import AFFINITY, EOS, MAX_TOKENS, N_CLASSES, N_PATTERNS, N_SHAPES, N_TOKENS, PAD
from training.forest.factors import BLOCKS, FORMS, N_FACTORS, N_FORMS, PATTERN_OF_FORM
from training.forest.fitting import FLOOR, N_FEATURES, POSITIVE, Forest

_EMBEDDING = 128
_OPSETS = {"": 17, "ai.onnx.ml": 1}
"""Every onnxruntime knows these; later versions of the tree operator have nothing that is needed here."""

_HEAD = """
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
forest_student (float[batch, length, 4] states, float[batch, length] times, bool[batch, length] mask,
                float[batch, 3, 17] noise)
=> (float[batch, 9] shape_probs, float[batch, 5] pattern_probs, int64[batch, 3] token_ids,
    float[batch, 3, 17] token_probs, int64[batch, 3] lumen_ids, float[batch] confidence,
    float[batch, 128] embedding)
"""

_SUMMARIES = """
    state = Cast <to = 11> (states)
    time = Cast <to = 11> (times)
    present = Cast <to = 11> (mask)
    present_each = Unsqueeze (present, at_2)
    heard = Mul (state, present_each)
    state_total = ReduceSum <keepdims = 0> (heard, at_1)
    count = ReduceSum (present, at_1)
    state_mean = Div (state_total, count)

    # First derivatives, of the intervals in which time passes. Times are seconds before the last state.
    time_begins = Slice (time, at_0, at_last, at_1)
    time_ends = Slice (time, at_1, at_end, at_1)
    step = Sub (time_begins, time_ends)
    passes = Greater (step, zero)
    end_present = Slice (mask, at_1, at_end, at_1)
    usable = And (passes, end_present)
    reciprocal = Div (one, step)
    per_second = Where (usable, reciprocal, zero)
    per_second_each = Unsqueeze (per_second, at_2)
    state_begins = Slice (state, at_0, at_last, at_1)
    state_ends = Slice (state, at_1, at_end, at_1)
    change = Sub (state_ends, state_begins)
    first = Mul (change, per_second_each)

    # Second derivatives, against the usable interval before, which is found by its number.
    used = Cast <to = 11> (usable)
    number = CumSum (used, axis_1)
    number_here = Where (usable, number, minus_one)
    number_before = Sub (number, one)
    numbers_across = Unsqueeze (number_here, at_1)
    numbers_down = Unsqueeze (number_before, at_2)
    comes_before = Equal (numbers_across, numbers_down)
    chosen = Cast <to = 11> (comes_before)
    first_before = MatMul (chosen, first)
    bend = Sub (first, first_before)
    has_before = Greater (number, one)
    bend_per_second = Where (has_before, per_second, zero)
    bend_per_second_each = Unsqueeze (bend_per_second, at_2)
    second = Mul (bend, bend_per_second_each)

    intervals = ReduceSum (used, at_1)
    first_count = Max (intervals, one)
    bends = Sub (intervals, one)
    second_count = Max (bends, one)
    first_total = ReduceSum <keepdims = 0> (first, at_1)
    second_total = ReduceSum <keepdims = 0> (second, at_1)
    first_mean = Div (first_total, first_count)
    second_mean = Div (second_total, second_count)
    summary = Concat <axis = 1> (state_mean, first_mean, second_mean)
    summary_rounded = Cast <to = 1> (summary)
"""

_TREES = """
    places = ai.onnx.ml.TreeEnsembleRegressor (summary_rounded)
    beside = Gemm (places, axes, origin)
    positive = Max (beside, least)
    sums = MatMul (positive, blocks)
    factors = Div (positive, sums)
    embedding = MatMul (factors, pieces)
    shapes, pattern_probs, tokens_1, tokens_2, tokens_3, ended, pair, twice,
        several, triple, thrice, repeated, rest = Split <axis = 1> (embedding, widths)
    floored = Max (shapes, floor)
    sharpened = Pow (floored, sharpness)
    sharpened_total = ReduceSum (sharpened, at_1)
    shape_probs = Div (sharpened, sharpened_total)
"""

_DECODING = """
    noises = Reshape (noise, in_a_row)
    noise_1, noise_2, noise_3 = Split <axis = 1> (noises, noise_widths)
    log_1 = Log (tokens_1)
    score_1 = Add (log_1, noise_1)
    id_1 = ArgMax <axis = 1> (score_1)
    is_1 = Equal (id_1, classes)

    # The second id: the first token again, another one, or an end.
    others_2 = Where (is_1, zero_float, tokens_2)
    others_2_total = ReduceSum (others_2, at_1)
    share_2 = Div (others_2, others_2_total)
    spread_2 = Mul (share_2, several)
    unless_again = Add (spread_2, ended)
    probs_2 = Where (is_1, repeated, unless_again)
    log_2 = Log (probs_2)
    score_2 = Add (log_2, noise_2)
    id_2 = ArgMax <axis = 1> (score_2)
    is_2 = Equal (id_2, classes)

    # The third: after a repetition the same or EOS, after two tokens another or EOS, after an end PAD.
    is_either = Or (is_1, is_2)
    others_3 = Where (is_either, zero_float, tokens_3)
    others_3_total = ReduceSum (others_3, at_1)
    share_3 = Div (others_3, others_3_total)
    spread_3 = Mul (share_3, triple)
    after_two = Add (spread_3, pair)
    after_again = Where (is_1, thrice, twice)
    again = Equal (id_1, id_2)
    weights_3 = Where (again, after_again, after_two)
    weights_3_total = ReduceSum (weights_3, at_1)
    probs_3_open = Div (weights_3, weights_3_total)
    over = Greater (id_2, last_token)
    probs_3 = Where (over, only_pad, probs_3_open)
    log_3 = Log (probs_3)
    score_3 = Add (log_3, noise_3)
    id_3 = ArgMax <axis = 1> (score_3)

    token_ids = Concat <axis = 1> (id_1, id_2, id_3)
    probs = Concat <axis = 1> (tokens_1, probs_2, probs_3)
    token_probs = Reshape (probs, in_steps)
    lumen_ids = GatherND (translation, token_ids)
    fitting = MatMul (shape_probs, affinity)
    fitting_said = GatherElements <axis = 1> (fitting, token_ids)
    fitting_total = ReduceSum <keepdims = 0> (fitting_said, at_1)
    spoken = Gather (is_token, token_ids)
    spoken_total = ReduceSum <keepdims = 0> (spoken, at_1)
    confidence = Div (fitting_total, spoken_total)
"""

_PIECES = {
    "shapes": N_SHAPES,
    "pattern_probs": N_PATTERNS,
    **{f"tokens_{position}": N_CLASSES for position in (1, 2, 3)},
    **dict.fromkeys(("ended", "pair", "twice"), N_CLASSES),
    **dict.fromkeys(("several", "triple", "thrice", "repeated"), 1),
}
"""What the decoding reads of the trees' answer, and how many numbers each piece is."""


def export(forest: Forest, path: Path) -> None:
    """Write the graph of a forest to a file that does not exist yet."""
    model = parser.parse_model(f"{_HEAD}{{{_SUMMARIES}{_TREES}{_DECODING}}}")
    for name, value in _constants(forest).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    node = next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    node.attribute.extend(_trees(forest.trees).attribute)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def _trees(regressor: Any) -> onnx.NodeProto:
    """The trees as skl2onnx converts them."""
    from skl2onnx import to_onnx

    converted = to_onnx(regressor, np.zeros((1, N_FEATURES), np.float32), target_opset=_OPSETS)
    return next(node for node in converted.graph.node if node.op_type == "TreeEnsembleRegressor")


def _constants(forest: Forest) -> dict[str, np.ndarray]:
    widths = [*_PIECES.values(), _EMBEDDING - sum(_PIECES.values())]
    return {
        **{f"at_{place}": np.array([place], np.int64) for place in (0, 1, 2)},
        "at_last": np.array([-1], np.int64),
        "at_end": np.array([np.iinfo(np.int64).max], np.int64),
        "axis_1": np.array(1, np.int64),
        "zero": np.array(0.0),
        "one": np.array(1.0),
        "minus_one": np.array(-1.0),
        "zero_float": np.array(0, np.float32),
        "axes": forest.plane.axes.astype(np.float32),
        "origin": forest.plane.origin.astype(np.float32),
        "least": np.array(POSITIVE, np.float32),
        "blocks": BLOCKS.astype(np.float32),
        "pieces": pieces().astype(np.float32),
        "widths": np.array(widths, np.int64),
        "floor": np.array(FLOOR, np.float32),
        "sharpness": np.array(1.0 / forest.temperature, np.float32),
        "in_a_row": np.array([-1, MAX_TOKENS * N_CLASSES], np.int64),
        "in_steps": np.array([-1, MAX_TOKENS, N_CLASSES], np.int64),
        "noise_widths": np.full(MAX_TOKENS, N_CLASSES, np.int64),
        "classes": np.arange(N_CLASSES),
        "last_token": np.array(N_TOKENS - 1),
        "only_pad": np.eye(N_CLASSES, dtype=np.float32)[[PAD]],
        "is_token": (np.arange(N_CLASSES) < N_TOKENS).astype(np.float32),
        "affinity": np.pad(AFFINITY.astype(np.float32), [(0, 0), (0, N_CLASSES - N_TOKENS)]),
        "translation": _translation(),
    }


def pieces() -> np.ndarray:
    """`[60, 128]` how what the decoding reads is made of the factors; zeros behind it."""
    form = np.eye(N_FORMS)
    forms = {name: form[:, FORMS.index(name)] for name in FORMS}
    eos, pad = np.eye(N_CLASSES)[EOS], np.eye(N_CLASSES)[PAD]
    of_forms = {
        "pattern_probs": PATTERN_OF_FORM,
        "ended": np.outer(forms["SINGLE"], eos) + np.outer(forms["QUESTION"], pad),
        "pair": np.outer(forms["PAIR"], eos),
        "twice": np.outer(forms["TWICE"], eos),
        "several": (forms["PAIR"] + forms["TRIPLE"])[:, None],
        "triple": forms["TRIPLE"][:, None],
        "thrice": forms["THRICE"][:, None],
        "repeated": (forms["TWICE"] + forms["THRICE"])[:, None],
    }
    columns = []
    for name, width in _PIECES.items():
        column = np.zeros((N_FACTORS, width))
        if name == "shapes":
            column[:N_SHAPES] = np.eye(N_SHAPES)
        elif name in of_forms:
            column[N_SHAPES : N_SHAPES + N_FORMS] = of_forms[name]
        else:
            start = N_SHAPES + N_FORMS + (int(name[-1]) - 1) * N_TOKENS
            column[start : start + N_TOKENS, :N_TOKENS] = np.eye(N_TOKENS)
        columns.append(column)
    columns.append(np.zeros((N_FACTORS, _EMBEDDING - sum(_PIECES.values()))))
    return np.concatenate(columns, axis=1)


def _translation() -> np.ndarray:
    """`[17, 17, 17, 3]` Lumen word ids of every id sequence."""
    table = np.full((N_CLASSES,) * MAX_TOKENS + (MAX_TOKENS,), -1, np.int64)
    sequences = all_sequences()
    table[tuple(sequences.T)] = lumen_ids(sequences)
    return table
