"""Draw the figures of a dataset folder: what is in it, what was left out, how its shapes look.

    python -m dataset_builder.report artifacts/demo/dataset

Writes `figures/*.png` into the folder. They belong to its card, so run this before `model_cards.render`.
The same dataset gives the same bytes. A figure whose numbers an older dataset does not hold is left out.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from dataset_builder.drawing import (
    Bar,
    Example,
    Histogram,
    Stability,
    draw_dropped,
    draw_examples,
    draw_histograms,
    draw_shares,
    draw_stability,
    fold,
    plain_style,
    png,
)
from dataset_builder.table import REAL, SYNTHETIC
from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ResourceError, exit_with_reason
from eisv_lumen.layouts import ALL_SPLITS, DATASET, SPLITS
from eisv_lumen.vocabulary import SHAPES

FIGURES = ("shapes.png", "windows.png", "cadence.png", "dropped.png", "scales.png", "stability.png")
"""Every figure, in the order of the card."""

_EXAMPLES = 4
_KEYS = ("shape", "provenance", "source", "scale")
_DURATIONS = {"cadence": "All steps", "gaps": "Gaps"}
_ROWS_AT_ONCE = 1 << 16


@dataclass
class Rows:
    """Which windows a dataset holds.

    Attributes:
        paths: The Parquet file of each split.
        groups: Row numbers by split, shape, provenance, source and scale; a number counts within its file.
    """

    paths: dict[str, Path]
    groups: dict[tuple[str, ...], list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Rows":
        """Go through the files of the `windows` configuration, a few columns at a time.

        Raises:
            ArtifactError: There is none, or one is unreadable or lacks a column.
        """
        paths = {split: folder / DATASET.windows(split) for split in ALL_SPLITS}
        rows = cls({split: path for split, path in paths.items() if path.is_file()})
        if not rows.paths:
            raise _unusable(f"{folder} without {DATASET.windows(SPLITS[0])}")
        for split, path in rows.paths.items():
            number = 0
            for batch in _batches(path):
                table = pa.table(
                    {**dict(zip(_KEYS, batch.columns, strict=True)), "row": _numbers(number, batch)}
                )
                grouped = table.group_by(list(_KEYS)).aggregate([("row", "list")])
                for *key, found in zip(*(grouped[name] for name in (*_KEYS, "row_list")), strict=True):
                    name = (split, *(str(part.as_py()) for part in key))
                    rows.groups.setdefault(name, []).append(found.values.to_numpy())
                number += len(batch)
        return rows

    def count(self, **wanted: str) -> dict[str, int]:
        """Windows of each shape, of the split, provenance, source and scale that are named."""
        counts = dict.fromkeys(SHAPES, 0)
        for (split, shape, *others), numbers in self.groups.items():
            here = dict(zip(("split", *_KEYS[1:]), (split, *others), strict=True))
            if all(here[name] == value for name, value in wanted.items()):
                counts[shape] = counts.get(shape, 0) + sum(map(len, numbers))
        return counts

    def sources(self, provenance: str) -> list[str]:
        """Names of the sources that have windows of a provenance, sorted."""
        return sorted({key[3] for key in self.groups if key[2] == provenance})


def draw_report(folder: Path) -> dict[str, bytes]:
    """The figures of a dataset folder by file name; nothing is written.

    Raises:
        ArtifactError: The folder is no dataset, or cannot be read.
    """
    metrics, rows = artifact.read_metrics(folder), Rows.read(folder)
    with plain_style():
        return {name: png(figure) for name, figure in figures(metrics, rows)}


def write_report(folder: Path) -> list[Path]:
    """Draw a dataset's figures into its folder and take away those that it no longer has.

    Returns:
        The paths of the figures that stand, in the order of `FIGURES`.

    Raises:
        ArtifactError: The folder is no dataset, or cannot be read.
        ResourceError: The folder is not writable or the disk is full.
    """
    drawn = draw_report(folder)
    place = Path(folder) / artifact.FIGURES
    try:
        place.mkdir(exist_ok=True)
        for name in FIGURES:
            if name not in drawn:
                (place / name).unlink(missing_ok=True)
            elif not (place / name).is_file() or (place / name).read_bytes() != drawn[name]:
                _write(Path(folder), place / name, drawn[name])
    except OSError as error:
        raise ResourceError(
            found=f"{error.filename or place}: {error.strerror or type(error).__name__}",
            expected="a writable folder with free space",
            next="mend its permissions or free some space, then run the same command again",
        ) from error
    return [place / name for name in FIGURES if name in drawn]


def figures(metrics: Mapping[str, Any], rows: Rows) -> Iterator[tuple[str, Figure]]:
    """File name and figure of all that can be drawn, in the order of `FIGURES`; for use in `plain_style`."""
    yield "shapes.png", _shapes(rows)
    yield "windows.png", _windows(rows)
    durations = {
        title: {source: _histogram(entry, key, source) for source, entry in metrics[key].items()}
        for key, title in _DURATIONS.items()
        if metrics.get(key)
    }
    if durations:
        yield "cadence.png", draw_histograms(durations)
    blocks = left_out(metrics)
    if any(count > 0 for _, counts in blocks for count in counts.values()):
        yield "dropped.png", draw_dropped(blocks)
    if metrics.get("cut"):
        groups = [
            (source, [Bar(scale, counts) for scale, counts in scales.items()])
            for source, scales in _largest(metrics["cut"])
        ]
        note = "All real windows that were cut, before any was chosen for the dataset."
        yield "scales.png", draw_shares("Shapes by source and time scale", note, groups)
    if metrics.get("label_stability_by_source"):
        noise = (metrics.get("label_stability") or {}).get("noise")
        stable = {
            source: Stability(found["robust"], found["published"], found["n"])
            for source, found in metrics["label_stability_by_source"].items()
            if found.get("n")
        }
        if stable:
            yield "stability.png", draw_stability(stable, noise)


def _shapes(rows: Rows) -> Figure:
    groups = []
    for provenance in (REAL, SYNTHETIC):
        splits = [
            Bar(split, counts)
            for split in rows.paths
            if any((counts := rows.count(split=split, provenance=provenance)).values())
            or (split in SPLITS and provenance == "real")
        ]
        sources = [
            Bar(source, rows.count(source=source, provenance=provenance))
            for source in rows.sources(provenance)
        ]
        if sources:
            groups += [
                (f"{provenance.capitalize()} windows, by split", splits),
                (f"{provenance.capitalize()} windows, by source", fold(sources)),
            ]
    note = "Windows in the dataset; real ones were recorded, synthetic ones generated."
    return draw_shares("Shapes by split and source", note, groups)


def _windows(rows: Rows) -> Figure:
    found = {shape: examples(rows, shape) for shape in SHAPES}
    totals = {
        shape: (rows.count(provenance=REAL)[shape], rows.count(provenance=SYNTHETIC)[shape])
        for shape in SHAPES
    }
    return draw_examples(found, totals, _EXAMPLES)


def examples(rows: Rows, shape: str) -> list[Example]:
    """A few windows of a shape, spread over scales, sources and time; synthetic ones where real ones lack."""
    found: list[Example] = []
    for provenance in (REAL, SYNTHETIC):
        places: dict[tuple[str, str], list[np.ndarray]] = {}
        for (split, of, kind, source, scale), numbers in rows.groups.items():
            if (of, kind) == (shape, provenance):
                here = [
                    np.stack([np.full(len(part), ALL_SPLITS.index(split)), part], axis=1) for part in numbers
                ]
                places.setdefault((scale, source), []).extend(here)
        groups = [np.concatenate(places[key]) for key in sorted(places)]
        chosen = _spread(groups, _EXAMPLES - len(found))
        found += sorted(
            (_example(rows.paths[ALL_SPLITS[split]], shape, number) for split, number in chosen),
            key=lambda example: example.cadence_s,
        )
    return found


def _spread(groups: Sequence[np.ndarray], wanted: int) -> list[list[int]]:
    """Rows of as many of the arrays `[n, 2]` as possible, evenly from each."""
    if not groups or wanted <= 0:
        return []
    if len(groups) > wanted:
        groups = [groups[(2 * i + 1) * len(groups) // (2 * wanted)] for i in range(wanted)]
    shares = [0] * len(groups)
    while sum(shares) < min(wanted, sum(map(len, groups))):
        for number, group in enumerate(groups):
            if shares[number] < len(group) and sum(shares) < wanted:
                shares[number] += 1
    return [
        group[(2 * i + 1) * len(group) // (2 * share)].tolist()
        for group, share in zip(groups, shares, strict=True)
        for i in range(share)
    ]


def _example(path: Path, shape: str, number: int) -> Example:
    """One window, from the row group that holds it."""
    file = pq.ParquetFile(path)
    group = 0
    while number >= file.metadata.row_group(group).num_rows:
        number -= file.metadata.row_group(group).num_rows
        group += 1
    columns = ["source", "provenance", "cadence_s", "times", "states"]
    row = file.read_row_group(group, columns=columns).slice(number, 1).to_pylist()[0]
    return Example(
        shape=shape,
        source=row["source"],
        synthetic=row["provenance"] == SYNTHETIC,
        cadence_s=row["cadence_s"],
        times=np.array(row["times"]),
        states=np.array(row["states"]),
    )


def left_out(metrics: Mapping[str, Any]) -> list[tuple[str, Counter[str]]]:
    """What was dropped, apart by what it was: rows of a log, single values, and whole windows."""
    rows: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for source in metrics.get("sources") or ():
        if isinstance(source, Mapping):
            rows.update(source.get("dropped") or {})
            values.update(source.get("values") or {})
    windows = Counter(metrics.get("dropped") or {}) - rows - values
    others = "Windows" if all(reason.startswith("window") for reason in windows) else "Windows and others"
    return [("Rows and states", rows), ("Single values, taken as missing", values), (others, windows)]


def _largest(scales: Mapping[str, Mapping[str, Any]], shown: int = 12) -> list[tuple[str, Mapping[str, Any]]]:
    """The sources with most windows, in the order given; the others together, scale by scale."""
    size = {source: sum(sum(c.values()) for c in found.values()) for source, found in scales.items()}
    if len(size) <= shown:
        return list(scales.items())
    ranked = sorted(size, key=lambda source: -size[source])
    others: dict[str, Counter[str]] = {}
    for source in ranked[shown - 1 :]:
        for scale, counts in scales[source].items():
            others.setdefault(scale, Counter()).update(counts)
    kept = [(source, found) for source, found in scales.items() if source in ranked[: shown - 1]]
    return [*kept, (f"{len(size) - len(kept)} others", others)]


def _histogram(entry: Mapping[str, Any], key: str, source: str) -> Histogram:
    edges, counts = np.asarray(entry["edges_s"], float), np.asarray(entry["counts"], int)
    if len(edges) != len(counts) + 1 or not (np.diff(edges) > 0).all():
        raise _unusable(f"{key} of {source!r} with {len(edges)} edges for {len(counts)} counts")
    return Histogram(edges, counts)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_KEYS)):
            columns = [pc.cast(batch.column(name), pa.string()) for name in _KEYS]
            yield pa.record_batch(columns, list(_KEYS))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise _unusable(f"{path}: {type(error).__name__}") from error


def _numbers(start: int, batch: pa.RecordBatch) -> pa.Array:
    return pa.array(np.arange(start, start + len(batch)))


def _write(folder: Path, path: Path, content: bytes) -> None:
    # Beside the folder: a part of a figure left inside by a kill could not be published.
    partial = folder.absolute().with_name(f".{folder.absolute().name}.figure-partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _unusable(found: str) -> ArtifactError:
    return ArtifactError(
        found=found,
        expected="a dataset folder with its windows and measurements",
        next="build it again: python -m dataset_builder.build",
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="the dataset folder")
    folder = parser.parse_args().dataset
    drawn = write_report(folder)
    size = sum(path.stat().st_size for path in drawn)
    print(
        f"report {folder}: {', '.join(path.stem for path in drawn)} ({size / 1000:.0f} kB)", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
