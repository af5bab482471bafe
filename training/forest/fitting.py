"""Fitting forests to the teacher's labels, and the choice among them.

Regression forests, because the labels are probabilities: a leaf's mean of probability vectors is one again,
and the squared error they lower is the Brier score, which a forecast minimises by saying what it believes. On
0/1 labels that is a classification forest's Gini impurity, so that soft labels cost nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.vocabulary import N_SHAPES
from eisv_lumen.windows import Windows, summaries
from training.configuration import require
from training.data import Split
from training.forest.factors import BLOCKS, Factors
from training.student.calibration import fit_temperature
from training.student.labels import TeacherLabels

N_FEATURES = 12
POSITIVE = 1e-5
"""Least factor."""
FLOOR = 1e-3
"""Least probability of a shape before calibration: trees may never have met one, and still be wrong."""

_LARGEST = float(np.finfo(np.float32).max)
_VARIANCE_KEPT = 0.99


@dataclass(frozen=True)
class ForestSettings:
    """Settings of `training.train_forest`.

    Attributes:
        trees: Numbers of trees to try.
        min_samples_leaf: Fewest windows in a leaf, to try.
        max_features: Summaries that a split chooses from.
        max_bytes: Largest graph that may be chosen.
        parity_windows: Windows on which scikit-learn and ONNX are compared.
        fit_windows: Most windows whose exact distribution is compared with the teacher's.
    """

    seed: int
    trees: tuple[int, ...] = (10, 20, 40)
    min_samples_leaf: tuple[int, ...] = (2, 3, 5, 8)
    max_features: int = 6
    max_bytes: int = 1_700_000
    parity_windows: int = 2000
    fit_windows: int = 300

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("trees", "min_samples_leaf"):
            values = getattr(self, name)
            require(bool(values) and min(values) > 0, name, values, "positive numbers to try")
        for name in ("max_bytes", "parity_windows", "fit_windows"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        fits = 0 < self.max_features <= N_FEATURES
        require(fits, "max_features", self.max_features, f"a number from 1 to {N_FEATURES}")


@dataclass(frozen=True)
class Plane:
    """The plane near which the labels lie: trees say a place on it, in few numbers instead of 60.

    The teacher was told the shape, so nine points span most of what it says; small leaves make a small graph.

    Attributes:
        origin: `[60]` mean label.
        axes: `[R, 60]` orthonormal directions.
    """

    origin: np.ndarray
    axes: np.ndarray

    @classmethod
    def through(cls, labels: np.ndarray) -> "Plane":
        """The plane of fewest axes that keeps nearly all variance of labels `[N, 60]`."""
        origin = labels.mean(axis=0)
        _, sizes, axes = np.linalg.svd(labels - origin, full_matrices=False)
        kept = np.cumsum(sizes**2) / max(float((sizes**2).sum()), 1e-12)
        return cls(origin, axes[: int(np.searchsorted(kept, _VARIANCE_KEPT)) + 1])

    def places(self, labels: np.ndarray) -> np.ndarray:
        """`[N, R]` places of labels `[N, 60]`."""
        return (labels - self.origin) @ self.axes.T

    def labels(self, places: np.ndarray) -> np.ndarray:
        """`[N, 60]` labels at places `[N, R]`; where the plane leaves the distributions, brought back."""
        positive = np.maximum(self.origin + places @ self.axes, POSITIVE)
        return positive / (positive @ BLOCKS)


@dataclass(frozen=True)
class Lesson:
    """What a forest learns from, or is scored on.

    Attributes:
        features: `[N, 12]` summaries of N windows.
        labels: `[N, 60]` their shapes and the teacher's voice, see `Factors`.
    """

    features: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, split: Split, labels: TeacherLabels) -> "Lesson":
        """The windows of a split, and the teacher's labels in the same order."""
        return cls(features(split.windows), Factors.of_labels(split.shapes, labels.distribution).to_array())


@dataclass(frozen=True)
class Forest:
    """A fitted forest.

    Attributes:
        trees: The `RandomForestRegressor` from 12 summaries to a place on the plane.
        plane: What the place means.
        temperature: Of the shape posterior; see `calibrated`.
    """

    trees: Any
    plane: Plane
    temperature: float

    def labels(self, summaries: np.ndarray) -> np.ndarray:
        """`[N, 60]` what the trees say to summaries `[N, 12]`, as they were taught: not calibrated."""
        return self.plane.labels(self.trees.predict(summaries).reshape(len(summaries), -1))

    def factors(self, windows: Windows) -> Factors:
        """What it says of windows, the shapes calibrated."""
        found = Factors.of_array(self.labels(features(windows)))
        return Factors(calibrated(found.shapes, self.temperature), found.forms, found.tokens)

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees."""
        return sum(int(tree.get_n_leaves()) for tree in self.trees.estimators_)


def features(windows: Windows) -> np.ndarray:
    """`[N, 12]` float32 mean state, mean first and mean second derivatives, from what the graph is given."""
    packed = windows.packed()
    given = Windows(
        packed.states.astype(np.float32).astype(np.float64),
        -packed.seconds_before_last().astype(np.float32).astype(np.float64),
        packed.mask,
    )
    found = summaries(given)
    numbers = np.concatenate([found.mean, found.first, found.second], axis=1)
    return np.clip(numbers, -_LARGEST, _LARGEST).astype(np.float32)


def calibrated(shapes: np.ndarray, temperature: float) -> np.ndarray:
    """`[N, 9]` probabilities p^(1/temperature), normalised; at least `FLOOR` before."""
    sharpened = np.maximum(shapes, FLOOR) ** (1.0 / temperature)
    return sharpened / sharpened.sum(axis=1, keepdims=True)


def candidates(settings: ForestSettings) -> list[tuple[int, int]]:
    """Every number of trees with every least size of a leaf."""
    return [(trees, leaf) for leaf in settings.min_samples_leaf for trees in settings.trees]


def fit(lesson: Lesson, trees: int, min_samples_leaf: int, settings: ForestSettings) -> Forest:
    """One forest, not calibrated yet."""
    from sklearn.ensemble import RandomForestRegressor

    plane = Plane.through(lesson.labels)
    forest = RandomForestRegressor(
        n_estimators=trees,
        min_samples_leaf=min_samples_leaf,
        max_features=settings.max_features,
        random_state=settings.seed,
    )
    return Forest(forest.fit(lesson.features, plane.places(lesson.labels)), plane, 1.0)


def brier(forest: Forest, lesson: Lesson) -> float:
    """Squared distance of what the forest says, shapes and voice, from the labels; mean over windows."""
    return float(np.square(forest.labels(lesson.features) - lesson.labels).sum(axis=1).mean())


def calibrate(forest: Forest, split: Split) -> Forest:
    """The forest with the temperature that fits a split it was not fitted to."""
    shapes = forest.labels(features(split.windows))[:, :N_SHAPES]
    temperature = fit_temperature(np.log(np.maximum(shapes, FLOOR)), split.shapes)
    return Forest(forest.trees, forest.plane, temperature)
