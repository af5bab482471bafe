"""The teacher's labels, row by row beside the windows they belong to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from eisv_lumen import artifact
from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.errors import ArtifactError
from eisv_lumen.layouts import LABELS
from training.data import Split

_LABEL = "python -m training.label --dataset DIR --base DIR --teacher DIR --out DIR"


@dataclass(frozen=True)
class TeacherLabels:
    """What the teacher says to N windows.

    Attributes:
        distribution: Its exact distribution over expressions, one row per window.
        hidden: `[N, H]` its last hidden state.
        window_ids: `[N]` the windows' names.
    """

    distribution: ExpressionDistribution
    hidden: np.ndarray
    window_ids: np.ndarray

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.window_ids)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The labels in a folder that `training.label` wrote.

        Raises:
            ArtifactError: The folder is of another kind, damaged, or its parts do not fit each other.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        artifact.Manifest.read(folder, kind="labels")
        try:
            tensors = load_file(folder / LABELS.tensors)
            names = np.array(json.loads((folder / LABELS.window_ids).read_text("utf-8")), dtype=str)
            parts = [tensors[name] for name in ("first", "second", "third", "hidden")]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise _unusable(folder, f"{type(error).__name__} {error}") from error
        if {len(part) for part in parts} != {len(names)}:
            raise _unusable(folder, f"{[len(part) for part in parts]} rows for {len(names)} windows")
        first, second, third, hidden = parts
        return cls(ExpressionDistribution(first, second, third), hidden.astype(np.float32), names)

    def beside(self, split: Split) -> tuple[Split, Self]:
        """The windows of a split that are labelled, and their labels in the same order.

        Raises:
            ArtifactError: When none is.
        """
        place = {name: index for index, name in enumerate(self.window_ids.tolist())}
        rows = np.array([place.get(name, -1) for name in split.window_ids.tolist()], np.int64)
        if not (rows >= 0).any():
            raise ArtifactError(
                found="labels of other windows",
                expected="labels of the dataset's windows",
                next=f"label this dataset: {_LABEL}",
            )
        kept = rows[rows >= 0]
        labels = type(self)(self.distribution[kept], self.hidden[kept], self.window_ids[kept])
        return split[rows >= 0], labels


def _unusable(folder: Path, found: str) -> ArtifactError:
    return ArtifactError(
        found=f"{folder}: {found}",
        expected="the teacher's distributions and hidden states, one row per window",
        next=f"label the dataset again: {_LABEL}",
    )
