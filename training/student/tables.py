"""A new TrajectoryTransformer that knows the vocabulary, the grammar and the affinity table."""

from typing import Any

import numpy as np
import torch

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
    ):
        model.get_buffer(name).copy_(torch.from_numpy(np.ascontiguousarray(table)))
    return model


def count_parameters(model: torch.nn.Module) -> int:
    """Trainable numbers in a model."""
    return sum(parameter.numel() for parameter in model.parameters())
