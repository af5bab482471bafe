"""Windows and teacher labels as training batches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from eisv_lumen.distribution import LEGAL_THIRD
from eisv_lumen.expression import lumen_ids
from eisv_lumen.vocabulary import N_SHAPES, N_TOKENS, N_WORDS
from eisv_lumen.windows import WINDOW_LENGTH, Windows
from training.data import Split
from training.student.augmentation import AugmentationSettings, augment
from training.student.labels import TeacherLabels
from training.student.supplement import Supplement, joined, lenders, varied


def inputs_of(windows: Windows) -> dict[str, Tensor]:
    """The model's inputs for windows of at most 20 states."""
    packed = windows.packed()
    length = min(int(packed.counts.max(initial=1)), WINDOW_LENGTH)
    mask = packed.mask[:, :length]
    states = np.where(mask[..., None], packed.states[:, :length], 0.0)
    return {
        "states": torch.from_numpy(states.astype(np.float32)),
        "times": torch.from_numpy(packed.seconds_before_last()[:, :length].astype(np.float32)),
        "mask": torch.from_numpy(np.ascontiguousarray(mask)),
    }


class WindowIndices(torch.utils.data.Dataset):
    """The numbers of the training windows; `Batches` turns several of them into a batch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        """Number of windows."""
        return self.count

    def __getitem__(self, index: int) -> int:
        """The number itself."""
        return index


class Batches:
    """Makes a batch of chosen windows: a fresh variant of each, and what the teacher says to it."""

    def __init__(
        self,
        split: Split,
        labels: TeacherLabels,
        augmentation: AugmentationSettings,
        *,
        prefixes: int,
        listening: AugmentationSettings | None = None,
        more: Supplement | None = None,
    ) -> None:
        """The windows of a split with their labels, and more windows that borrow theirs.

        Args:
            split: Labelled windows.
            labels: Their labels.
            augmentation: Of the windows that the teacher is heard about.
            prefixes: Prefixes of expressions per window.
            listening: Augmentation of batches of shapes alone; the same when None.
            more: Windows beside those of the split.
        """
        self.windows, self.shapes = split.windows.packed(), split.shapes
        self.lenders, self.real = np.arange(len(split)), split.real
        if more is not None:
            self.windows = joined([self.windows, more.windows])
            self.shapes = np.concatenate([self.shapes, more.shapes])
            self.real = np.concatenate([self.real, np.zeros(len(more.shapes), bool)])
            self.lenders = np.concatenate([self.lenders, more.lenders])
        self.ids, self.lent = split.ids, split.shapes
        self.labels, self.augmentation, self.prefixes = labels, augmentation, prefixes
        self.listening = augmentation if listening is None else listening
        self.patterns = np.concatenate(
            [labels.distribution[start : start + 256].patterns() for start in range(0, len(labels), 256)]
        )
        self.hidden = standardised(labels.hidden)

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch for `Distillation.forward`; randomness comes from torch, whose state checkpoints keep."""
        generator = np.random.default_rng(int(torch.randint(2**62, ())))
        windows, shapes, rows = self._chosen(indices, self.augmentation.vary, generator)
        teacher = self.labels.distribution[rows]
        prefixes = self._prefixes(teacher.first, teacher.second, teacher.third, generator)
        every = np.arange(len(rows))[:, None]
        sequences = np.concatenate([prefixes, self.ids[rows][:, None]], axis=1)
        words = lumen_ids(sequences.reshape(-1, 3)).reshape(sequences.shape)
        one, two = prefixes[..., 0], prefixes[..., 1]
        targets = {
            "first": teacher.first,
            "second": teacher.second[every, one],
            "third": teacher.third[every, one, two],
            "patterns": self.patterns[rows],
            "hidden": self.hidden[rows],
        }
        return {
            **inputs_of(augment(windows, self.augmentation, generator)),
            **{name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in targets.items()},
            "shapes": torch.from_numpy(shapes),
            "sequences": torch.from_numpy(sequences),
            "words": torch.from_numpy(np.where(words < 0, N_WORDS, words)),
        }

    def of_shapes(
        self, indices: Sequence[int] | np.ndarray, generator: np.random.Generator
    ) -> tuple[Windows, np.ndarray]:
        """Variants of the windows for the listening stage, and their shapes."""
        windows, shapes, _ = self._chosen(indices, self.listening.vary, generator)
        return augment(windows, self.listening, generator), shapes

    def chances(self, *, balance: float, real_share: float) -> np.ndarray:
        """`[N]` of drawing each window; see `sampling_weights`."""
        return sampling_weights(self.shapes, self.real, balance=balance, real_share=real_share)

    def _chosen(
        self, indices: Sequence[int] | np.ndarray, vary: float, generator: np.random.Generator
    ) -> tuple[Windows, np.ndarray, np.ndarray]:
        """Complete windows, their shapes, and the rows of the split whose teacher labels they borrow."""
        chosen = np.asarray(indices)
        windows, shapes = self.windows[chosen], self.shapes[chosen]
        rows = self.lenders[chosen]
        if vary:
            windows, shapes = varied(windows, shapes, vary, self.lent, generator)
            rows = np.where(shapes == self.lent[rows], rows, lenders(shapes, self.lent, generator))
        return windows, shapes, rows

    def _prefixes(
        self, first: np.ndarray, second: np.ndarray, third: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """`[B, K, 3]` ids, each token drawn half from the teacher and half from all tokens alike."""
        every = np.arange(len(first))[:, None]
        one = _draw(np.repeat(first[:, None, :N_TOKENS], self.prefixes, axis=1), generator)
        two = _draw(second[every, one][..., :N_TOKENS], generator)
        legal = LEGAL_THIRD[one, two]
        three = _draw(third[every, one, two] * legal, generator, legal)
        return np.stack([one, two, three], axis=2)


def sampling_weights(
    shapes: np.ndarray, real: np.ndarray, *, balance: float, real_share: float
) -> np.ndarray:
    """`[N]` chance of drawing each window, summing to 1.

    Args:
        shapes: `[N]` their shapes; a window's weight is (windows of its shape)^-balance.
        real: `[N]` bool, whether a window was recorded by one of the devices that the student is for.
        balance: From 0, windows as they come, to 1, all shapes alike.
        real_share: Least chance that a real window is drawn, if there are any.
    """
    weights = np.bincount(shapes, minlength=N_SHAPES)[shapes].astype(np.float64) ** -balance
    weights /= weights.sum()
    share = weights[real].sum()
    if 0 < share < real_share:
        weights *= np.where(real, real_share / share, (1 - real_share) / (1 - share))
    return weights


def standardised(hidden: np.ndarray) -> np.ndarray:
    """`[N, H]` hidden states with mean 0 and variance 1 per feature."""
    return (hidden - hidden.mean(axis=0)) / np.maximum(hidden.std(axis=0), 1e-3)


def _draw(probs: np.ndarray, generator: np.random.Generator, legal: np.ndarray | None = None) -> np.ndarray:
    alike = np.ones(probs.shape) if legal is None else legal.astype(np.float64)
    probs = probs.astype(np.float64)
    probs = probs / np.maximum(probs.sum(axis=-1, keepdims=True), 1e-12)
    mixed = (probs + alike / alike.sum(axis=-1, keepdims=True)).cumsum(axis=-1)
    return (mixed > generator.random((*probs.shape[:-1], 1)) * mixed[..., -1:]).argmax(axis=-1)
