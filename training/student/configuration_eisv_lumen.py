"""Configuration of the TrajectoryTransformer; shipped beside the weights, so it needs only transformers."""

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig


class TrajectoryConfig(PretrainedConfig):
    """Sizes and names of a TrajectoryTransformer.

    Args:
        width: Width of encoder and decoder.
        heads: Attention heads; a multiple of the number of dimensions, so that each head of a `within`
            layer belongs to one dimension.
        encoder_layers: Encoder layers in all.
        within_layers: How many of them, from the first, attend within each dimension only.
        decoder_layers: Decoder layers.
        feed_forward: Width of the feed-forward parts.
        embedding_size: Width of the embedding that is an output.
        window_length: Most states in a window; also the number of learned positions.
        levels: Local means by which the window as a whole is shown.
        decoding_steps: Ids per expression.
        dropout: Dropout in training.
        gains: Differences are shown to the network as tanh(gain · difference), once per gain, so that
            movements of a thousandth and of a tenth are both visible.
        state_scale: Factor per dimension that brings it to [0, 1].
        dimensions: Names of the state's columns.
        shapes: Names of the shape classes.
        patterns: Names of the pattern classes.
        tokens: Names of the token ids; after them come the ids of PAD and EOS.
        lumen_words: Names of the Lumen word ids.
        **kwargs: What every transformers configuration takes.
    """

    model_type = "eisv_trajectory"

    def __init__(
        self,
        width: int = 128,
        heads: int = 4,
        encoder_layers: int = 4,
        within_layers: int = 1,
        decoder_layers: int = 2,
        feed_forward: int = 384,
        embedding_size: int = 128,
        window_length: int = 20,
        levels: int = 9,
        decoding_steps: int = 3,
        dropout: float = 0.0,
        gains: Sequence[float] = (4.0, 16.0, 64.0),
        state_scale: Sequence[float] = (1.0, 1.0, 1.0, 1.0 / 0.3),
        dimensions: Sequence[str] = ("E", "I", "S", "V"),
        shapes: Sequence[str] = ("shape",) * 9,
        patterns: Sequence[str] = ("pattern",) * 5,
        tokens: Sequence[str] = ("token",) * 15,
        lumen_words: Sequence[str] = ("word",) * 15,
        **kwargs: Any,
    ) -> None:
        if width % heads or heads % len(dimensions):
            raise ValueError(
                f"width {width} and heads {heads} do not divide into {len(dimensions)} dimensions"
            )
        if within_layers > encoder_layers:
            raise ValueError(f"{within_layers} layers within dimensions of {encoder_layers} encoder layers")
        self.width = width
        self.heads = heads
        self.encoder_layers = encoder_layers
        self.within_layers = within_layers
        self.decoder_layers = decoder_layers
        self.feed_forward = feed_forward
        self.embedding_size = embedding_size
        self.window_length = window_length
        self.levels = levels
        self.decoding_steps = decoding_steps
        self.dropout = dropout
        self.gains = list(gains)
        self.state_scale = list(state_scale)
        self.dimensions = list(dimensions)
        self.shapes = list(shapes)
        self.patterns = list(patterns)
        self.tokens = list(tokens)
        self.lumen_words = list(lumen_words)
        super().__init__(**kwargs)

    @property
    def pad_id(self) -> int:
        """Id that ends a question and fills the rest."""
        return len(self.tokens)

    @property
    def eos_id(self) -> int:
        """Id that ends a statement."""
        return len(self.tokens) + 1

    @property
    def n_classes(self) -> int:
        """Ids a decoding step chooses from."""
        return len(self.tokens) + 2
