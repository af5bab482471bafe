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

from eisv_lumen.vocabulary import AFFINITY, MAX_TOKENS, N_CLASSES, N_TOKENS
from training.forest.decoding import EMBEDDING, SPLIT, pieces, tables
from training.forest.fitting import FLOOR, N_FEATURES, POSITIVE, Forest

_OPSETS = {"": 17, "ai.onnx.ml": 1}
"""Every onnxruntime knows these; later versions of the tree operator have nothing that is needed here."""

_LONG_AFTER = -1e30
"""Seconds before the last state that no state is at: from there to the first one no time passes."""
_SHORTEST = 1e-300
"""Where no time passes, 0 is divided by this. No two float32 times differ by less."""

_HEAD = """
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
forest_student (float[batch, length, 4] states, float[batch, length] times, bool[batch, length] mask,
                float[batch, 3, 17] noise)
=> (float[batch, 9] shape_probs, float[batch, 5] pattern_probs, int64[batch, 3] token_ids,
    float[batch, 3, 17] token_probs, int64[batch, 3] lumen_ids, float[batch] confidence,
    float[batch, 128] embedding)
"""

_SUMMARIES = """
    # What changes until each state, from the one before, and the seconds that pass. Before the first none do.
    state = Cast <to = 11> (states)
    state_before = Pad (state, one_later_each)
    change = Sub (state, state_before)
    time_row = Unsqueeze (times, at_1)
    time = Cast <to = 11> (time_row)
    time_before = Pad (time, one_later, long_after)
    step = Sub (time_before, time)

    # First derivatives are changes per second, where time passed until a state that is present.
    passes = Greater (step, zero)
    mask_row = Unsqueeze (mask, at_1)
    usable = And (passes, mask_row)
    used = Cast <to = 11> (usable)
    divisor = Clip (step, shortest)
    per_second = Div (used, divisor)

    # Second derivatives, against the first one before, which is found by its number; at number 1, none.
    # As a sum over first ones: each counts per second of its own, less per second of the next one.
    number = CumSum (used, axis_2)
    previous = Sub (number, one)
    number_before = Clip (previous, one)
    numbers_down = Transpose <perm = [0, 2, 1]> (number_before)
    comes_next = Equal (numbers_down, number)
    next = Cast <to = 11> (comes_next)
    per_second_next = MatMul (per_second, next)
    less = Sub (per_second, per_second_next)
    per_second_twice = Mul (less, per_second)

    # Sums over changes; a mean is one, too, of each change as often as a state follows it.
    present = Cast <to = 11> (mask_row)
    following = CumSum <reverse = 1> (present, axis_2)
    weights = Concat <axis = 1> (following, per_second, per_second_twice)
    totals = MatMul (weights, change)
    counted = Concat <axis = 1> (present, used, used)
    counts = ReduceSum (counted, at_2)
    counts_but_one = Sub (counts, but_one)
    counts_least = Clip (counts_but_one, one)
    means = Div (totals, counts_least)
    means_rounded = Cast <to = 1> (means)
    summary = Reshape (means_rounded, twelve)
"""

_TREES = """
    places = ai.onnx.ml.TreeEnsembleRegressor (summary)
    beside = Gemm (places, axes, origin)
    positive = Clip (beside, least)
    above = MatMul (positive, pieces_above)
    below = MatMul (positive, pieces_below)
    embedding = Div (above, below)
    shapes, pattern_probs, tokens_1, several, triple, rest = Split <axis = 1> (embedding, widths)
    floored = Clip (shapes, floor)
    sharpened = Pow (floored, sharpness)
    shape_probs = LpNormalization <axis = 1, p = 1> (sharpened)
"""

_DECODING = """
    noises = Reshape (noise, in_a_row)
    noise_1, noise_2, noise_3 = Split <axis = 1> (noises, noise_widths)
    log_1 = Log (tokens_1)
    score_1 = Add (log_1, noise_1)
    id_1 = ArgMax <axis = 1> (score_1)

    # The second id: another token, the first again, or an end.
    left_2_at = GatherND (left_2, id_1)
    weights_2 = GatherElements <axis = 1> (embedding, left_2_at)
    share_2 = LpNormalization <axis = 1, p = 1> (weights_2)
    spread_2 = Mul (share_2, several)
    ends_2_at = GatherND (ends_2, id_1)
    end_2 = GatherElements <axis = 1> (embedding, ends_2_at)
    probs_2 = Add (spread_2, end_2)
    log_2 = Log (probs_2)
    score_2 = Add (log_2, noise_2)
    id_2 = ArgMax <axis = 1> (score_2)

    # The third: after two tokens another or EOS, after a repetition the same or EOS, after an end PAD.
    ids_12 = Concat <axis = 1> (id_1, id_2)
    left_3_at = GatherND (left_3, ids_12)
    weights_3 = GatherElements <axis = 1> (embedding, left_3_at)
    share_3 = LpNormalization <axis = 1, p = 1> (weights_3)
    spread_3 = Mul (share_3, triple)
    ends_3_at = GatherND (ends_3, ids_12)
    end_3 = GatherElements <axis = 1> (embedding, ends_3_at)
    probs_3 = Add (spread_3, end_3)
    log_3 = Log (probs_3)
    score_3 = Add (log_3, noise_3)
    id_3 = ArgMax <axis = 1> (score_3)

    token_ids = Concat <axis = 1> (ids_12, id_3)
    probs = Concat <axis = 1> (tokens_1, probs_2, probs_3)
    token_probs = Reshape (probs, in_steps)
    lumen_ids = GatherND (translation, token_ids)
    fitting = MatMul (shape_probs, affinity)
    fitting_said = GatherElements <axis = 1> (fitting, token_ids)
    fitting_total = ReduceSum <keepdims = 0> (fitting_said, at_1)
    each = GatherND (one_of, token_ids)
    confidence = Mul (fitting_total, each)
"""


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
    above, below = pieces()
    return {
        "at_1": np.array([1], np.int64),
        "at_2": np.array([2], np.int64),
        "axis_2": np.array(2, np.int64),
        "zero": np.array(0.0),
        "one": np.array(1.0),
        "one_later_each": np.array([0, 1, 0, 0, -1, 0], np.int64),
        "one_later": np.array([0, 0, 1, 0, 0, -1], np.int64),
        "long_after": np.array(_LONG_AFTER),
        "shortest": np.array(_SHORTEST),
        "but_one": np.array([[0.0], [0.0], [1.0]]),
        "twelve": np.array([-1, N_FEATURES], np.int64),
        "axes": forest.plane.axes.astype(np.float32),
        "origin": forest.plane.origin.astype(np.float32),
        "least": np.array(POSITIVE, np.float32),
        "pieces_above": above.astype(np.float32),
        "pieces_below": below.astype(np.float32),
        "widths": np.array([*SPLIT.values(), EMBEDDING - sum(SPLIT.values())], np.int64),
        "floor": np.array(FLOOR, np.float32),
        "sharpness": np.array(1.0 / forest.temperature, np.float32),
        "in_a_row": np.array([-1, MAX_TOKENS * N_CLASSES], np.int64),
        "in_steps": np.array([-1, MAX_TOKENS, N_CLASSES], np.int64),
        "noise_widths": np.full(MAX_TOKENS, N_CLASSES, np.int64),
        "affinity": np.pad(AFFINITY.astype(np.float32), [(0, 0), (0, N_CLASSES - N_TOKENS)]),
        **tables(),
    }
