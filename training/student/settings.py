"""Everything that determines a student."""

from dataclasses import dataclass, field

from training.configuration import require
from training.student.augmentation import AugmentationSettings


@dataclass(frozen=True)
class SizeSettings:
    """Sizes of the network; see `TrajectoryConfig`."""

    width: int = 128
    heads: int = 4
    encoder_layers: int = 4
    within_layers: int = 1
    decoder_layers: int = 2
    feed_forward: int = 384
    embedding_size: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit each other."""
        require(self.width % self.heads == 0, "model: heads", self.heads, "a divisor of width")
        require(self.heads % 4 == 0, "model: heads", self.heads, "a multiple of the four dimensions")
        require(self.encoder_layers > 0, "model: encoder_layers", self.encoder_layers, "at least one")
        require(self.decoder_layers > 0, "model: decoder_layers", self.decoder_layers, "at least one")
        fits = 0 <= self.within_layers <= self.encoder_layers
        require(fits, "model: within_layers", self.within_layers, "at most encoder_layers")
        require(0.0 <= self.dropout < 1.0, "model: dropout", self.dropout, "a share below 1")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the parts of the loss.

    Attributes:
        distil: Divergence from the teacher's distributions at `temperature`, times its square.
        shape: Cross-entropy of the shape head.
        hard: Cross-entropy of the labelled expression.
        lumen: Cross-entropy of the Lumen words.
        features: Squared distance of the projected embedding from the teacher's last hidden state.
        temperature: τ of the distillation.
        prefixes: Prefixes per window at which the second and third distribution are compared.
    """

    distil: float = 0.7
    shape: float = 0.1
    hard: float = 0.2
    features: float = 0.1
    lumen: float = 1.0
    temperature: float = 4.0
    prefixes: int = 3

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        for name in ("distil", "shape", "hard", "features", "lumen"):
            require(getattr(self, name) >= 0, f"loss: {name}", getattr(self, name), "a weight of 0 or more")
        require(self.temperature >= 1, "loss: temperature", self.temperature, "at least 1")
        require(self.prefixes >= 1, "loss: prefixes", self.prefixes, "at least one")


@dataclass(frozen=True)
class ListeningSettings:
    """The first stage, in which summary and shape head learn shapes alone; its steps cost a hundredth.

    Attributes:
        windows: Fresh windows that it hears, at least.
        passes: How often it hears each.
        batch_size: Windows per step.
        learning_rate: Largest learning rate of this stage.
        kept_rate: Learning rate of summary and shape head in the second stage, as a share of that stage's.
        augmentation: Of this stage. Shapes are to be heard from parts of a window; the second stage is about
            what is said of it, which the teacher knows of complete ones.
    """

    windows: int = 2_000_000
    passes: int = 4
    batch_size: int = 1024
    learning_rate: float = 4e-3
    kept_rate: float = 0.02
    augmentation: AugmentationSettings = field(
        default_factory=lambda: AugmentationSettings(clean=0.2, cut=0.8)
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("windows", "passes", "batch_size"):
            require(getattr(self, name) > 0, f"listening: {name}", getattr(self, name), "a positive number")
        fits = 0 < self.learning_rate < 1
        require(fits, "listening: learning_rate", self.learning_rate, "a number between 0 and 1")
        require(0 <= self.kept_rate <= 1, "listening: kept_rate", self.kept_rate, "a share from 0 to 1")


@dataclass(frozen=True)
class QuantisationSettings:
    """What becomes INT8.

    Attributes:
        per_channel: One scale per output column instead of one per matrix.
        keep: Parts of node names that stay FP32.
    """

    per_channel: bool = True
    keep: tuple[str, ...] = ("features",)


@dataclass(frozen=True)
class StudentSettings:
    """Settings of `training.train_student`.

    Attributes:
        steps: Optimiser steps.
        balance: Windows of a shape are drawn with weight count^-balance: 0 as they come, 1 all shapes alike.
        real_share: Least share of the dataset's real windows among those drawn, which are few beside the
            synthetic and simulated ones; the devices that recorded them are those that the student is for.
        augmentation: Of the second stage.
        supplement: Windows made beside the dataset's for training, see `training.student.supplement`.
        save_steps: Steps between checkpoints, from which a killed run goes on.
        parity_windows: Windows on which torch, FP32 and INT8 are compared.
        fit_windows: Most windows whose exact distribution is compared with the teacher's.
    """

    seed: int
    steps: int
    model: SizeSettings = field(default_factory=SizeSettings)
    listening: ListeningSettings = field(default_factory=ListeningSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    quantisation: QuantisationSettings = field(default_factory=QuantisationSettings)
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    balance: float = 0.25
    real_share: float = 0.1
    supplement: int = 160000
    save_steps: int = 200
    parity_windows: int = 2000
    fit_windows: int = 300

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("seed", "supplement", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a number of 0 or more")
        for name in ("steps", "batch_size", "save_steps", "parity_windows", "fit_windows"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "a number between 0 and 1")
        for name in ("balance", "real_share"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")
