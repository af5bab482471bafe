"""A new TrajectoryTransformer that knows the vocabulary, the grammar and the affinity table."""

from typing import Any

import numpy as np
import torch

from eisv_lumen import shapes
from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD
from eisv_lumen.vocabulary import (
    AFFINITY,
    DIMENSIONS,
    LUMEN_WORDS,
    MAX_TOKENS,
    PATTERNS,
    SHAPES,
    STATE_MAX,
    TOKENS,
)
from eisv_lumen.windows import WINDOW_LENGTH
from training.student.configuration_eisv_lumen import TrajectoryConfig
from training.student.modeling_eisv_lumen import TrajectoryTransformer

_UNIT = 0.1
_OUT_OF_REACH = 1e3


def new_model(**sizes: Any) -> TrajectoryTransformer:
    """An untrained model of the given sizes (see `TrajectoryConfig`), with the tables of the ground floor."""
    config = TrajectoryConfig(
        window_length=WINDOW_LENGTH,
        decoding_steps=MAX_TOKENS,
        state_scale=(1.0 / STATE_MAX).tolist(),
        dimensions=DIMENSIONS,
        shapes=SHAPES,
        patterns=PATTERNS,
        tokens=TOKENS,
        lumen_words=LUMEN_WORDS,
        **sizes,
    )
    TrajectoryConfig.register_for_auto_class()
    TrajectoryTransformer.register_for_auto_class("AutoModel")
    model = TrajectoryTransformer(config)
    for name, table in (
        ("affinity", AFFINITY.astype(np.float32)),
        ("legal_first", LEGAL_FIRST),
        ("legal_second", LEGAL_SECOND),
        ("legal_third", LEGAL_THIRD),
        *zip(("features.tests", "features.bounds", "features.others"), rule_tests(), strict=True),
    ):
        model.get_buffer(name).copy_(torch.from_numpy(np.ascontiguousarray(table)))
    return model


def rule_tests() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tests of `eisv_lumen.shapes.robust` as `WindowFeatures` makes them, float32.

    Returns:
        `[9, 6, 4]` weights, `[9, 4]` bounds, and `[4, 4]` which dimensions each is not compared with. One
        unit is ten times the movement at which a dimension has moved.
    """
    energy, clarity, entropy, _ = range(len(DIMENSIONS))
    unit = _UNIT / shapes.MOVED * STATE_MAX  # the network sees states as shares of their range
    direction = np.zeros(len(DIMENSIONS))
    direction[shapes.DIRECTED_DIMENSIONS] = shapes.DIRECTIONS.ravel()
    named = direction != 0
    weights, bounds = np.zeros((9, 6, 4)), np.full((9, 4), _OUT_OF_REACH)
    extent, travelled, net, late, up, fall = range(6)
    weights[0, extent] = np.where(named, unit, 0.0)
    bounds[0] = 0.0
    weights[1, extent] = weights[2, extent] = weights[4, extent] = unit
    bounds[1] = bounds[4] = _UNIT
    weights[2, net], weights[2, extent], bounds[2] = unit * direction, -shapes.DIRECTED * unit, 0.0
    weights[3, late], weights[3, net] = unit * direction, -shapes.ONGOING * unit * direction
    bounds[3] = 0.0
    weights[4, extent, clarity] *= 1 + shapes.ROUGHNESS
    weights[4, travelled, clarity] = -shapes.ROUGHNESS * unit[clarity]
    weights[5, up, entropy], bounds[5, entropy] = unit[entropy], _bound(shapes.SPIKE, entropy)
    weights[6, fall, entropy], weights[6, up, entropy] = unit[entropy], -shapes.RECOVERED * unit[entropy]
    bounds[6, entropy] = 0.0
    weights[7, net, energy], weights[8, net, energy] = -unit[energy], unit[energy]
    bounds[7:, energy] = _bound(shapes.BASIN, energy)
    others = np.where(named & ~np.eye(len(DIMENSIONS), dtype=bool), 0.0, _OUT_OF_REACH)
    return weights.astype(np.float32), bounds.astype(np.float32), others.astype(np.float32)


def _bound(change: float, dimension: int) -> float:
    return float(_UNIT * change / shapes.MOVED[dimension])


def count_parameters(model: torch.nn.Module) -> int:
    """Trainable numbers in a model."""
    return sum(parameter.numel() for parameter in model.parameters())
