"""Whether a dataset has what a stage needs, from the footers of its files alone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from eisv_lumen.errors import ArtifactError, SourceError
from eisv_lumen.layouts import DATASET, HELD_OUT_SYNTHETIC


def count_windows(dataset: Path, split: str) -> int:
    """Windows in a split, the synthetic ones held out beside it included.

    Raises:
        ArtifactError: The split's file is missing or damaged.
    """
    path, made = (dataset / DATASET.windows(name) for name in (split, HELD_OUT_SYNTHETIC.get(split, split)))
    try:
        return sum(pq.read_metadata(file).num_rows for file in {path, made} if file == path or file.is_file())
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            found=f"{path}: {str(error).splitlines()[0]}",
            expected="a split of a dataset folder",
            next="build the dataset again: python -m dataset_builder.build --help",
        ) from error


def require_windows(dataset: Path, *splits: str) -> None:
    """Refuse a dataset in which a split that is needed is empty.

    Raises:
        ArtifactError: A split's file is missing or damaged.
        SourceError: A split is empty.
    """
    for split in splits:
        if not count_windows(dataset, split):
            raise SourceError(
                found=f"no window in the {split} split of {dataset}",
                expected=f"at least one in each of {', '.join(splits)}",
                next="build the dataset from more data: python -m dataset_builder.build --help",
            )
