"""One build of a dataset: what was read is cut, surveyed, labelled and written."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_builder.beside import Beside
from dataset_builder.blending import make_synthetic, synthetic_counts
from dataset_builder.configuration import NATIVE, DatasetSettings
from dataset_builder.cutting import (
    Batch,
    Scale,
    Stretch,
    batches,
    grouped,
    scales_of,
    stretches,
    whole,
    window_count,
    with_shapes,
)
from dataset_builder.growth import Held, Parent, joined
from dataset_builder.labelling import Heard, Listener, taught
from dataset_builder.legacy import legacy_columns
from dataset_builder.measuring import Delta, Tally, measure
from dataset_builder.parquet import EXPRESSIONS, LEGACY, WINDOWS
from dataset_builder.planning import Recorded, plan_together, together
from dataset_builder.reading import Content, drop_held_states, drop_repeated_states, read_source
from dataset_builder.rows import Rows
from dataset_builder.sources import Source
from dataset_builder.splits import TRAIN, Piece, Plan
from dataset_builder.survey import Kind, Labels, Priorities, Survey
from dataset_builder.table import REAL, SYNTHETIC, Table
from dataset_builder.writing import LegacyWriter, SplitWriter, split_writers
from eisv_lumen import artifact
from eisv_lumen.errors import SourceError
from eisv_lumen.layouts import DATASET, HELD_OUT_SYNTHETIC, SPLITS
from eisv_lumen.logs import LogMapping
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import classify

LEGACY_SYNTHETIC = 180
"""Synthetic windows in the legacy rows: 20 of each shape, among them the one that no sensor log has."""


@dataclass
class Device:
    """One device of a source, cut: its scales, and per scale the stretches that belong to one split each."""

    content: Content
    name: str
    recorded: Recorded
    cut: list[tuple[Scale, list[Stretch]]]
    listener: Listener | None

    @property
    def source(self) -> str:
        """The source's name."""
        return self.content.source.name

    def windows(self, settings: DatasetSettings) -> int:
        """How many windows it gives."""
        return sum(window_count(stretch, settings) for _, found in self.cut for stretch in found)


class Composition:
    """One build: reads, cuts, surveys, writes."""

    def __init__(self, work: artifact.Work, settings: DatasetSettings, parent: Parent | None) -> None:
        self.work, self.settings, self.parent = work, settings, parent
        self.tally, self.delta = Tally(), Delta()
        self._shapes = Labels(work.scratch / "shapes")
        self.contents: list[Content] = []
        self.devices: list[Device] = []
        self.pieces: list[Piece] = []

    def run(
        self,
        sources: Sequence[Source],
        timezone: str,
        columns: Mapping[str, LogMapping],
        rules: Callable[[], Rules],
    ) -> None:
        """The whole build; `rules` waits for those that label a dataset which grows from no other."""
        self._read(sources, timezone, columns)
        # The published rows' texts are half of the work, and keep a second core busy.
        with Beside(self._write_legacy) as published:
            self._cut()
            published.finish(self._write_splits(rules))

    def _write_splits(self, converged: Callable[[], Rules]) -> list[Rows]:
        """Write everything but the published rows; returns what they show of the synthetic windows."""
        survey, kept, learned = self._survey()
        rules, feedback = taught(
            self.parent.rules if self.parent else converged(),
            learned,
            unplaced=sum(
                device.listener.unplaced(self._spans(device)) for device in self.devices if device.listener
            ),
            earlier=self.parent.metrics["feedback"] if self.parent else None,
        )
        given = [content for content in self.contents if content.synthetic is not None]
        counts = synthetic_counts(
            int(kept[TRAIN]),
            self.settings,
            given=sum(len(content.synthetic) for content in given if content.synthetic),
            grown=self.parent is not None,
        )
        say(f"cut {survey.windows.sum()} real windows, keeps {kept.sum()}, adds {sum(counts)} synthetic ones")
        writers = split_writers(self.work.folder, self.tally, self.delta)
        before = self._copy(writers)
        self._write_real(writers, survey, rules)
        for content in given:
            self._write_given(writers[SPLITS[TRAIN]], content, rules)
        shown = self._write_synthetic(writers, counts, before, rules)
        for writer in writers.values():
            writer.close()
        self._finish(survey, rules, feedback, before, beyond=int(survey.windows.sum() - kept.sum()))
        return shown

    def _read(self, sources: Sequence[Source], timezone: str, columns: Mapping[str, LogMapping]) -> None:
        for number, source in enumerate(sources):
            say(f"reads {source.name}")
            self.contents.append(
                read_source(
                    source,
                    self.work.scratch / "states" / str(number),
                    timezone=timezone,
                    site_pressure=self.settings.site_pressure,
                    mapping=columns.get(source.name, columns.get("")),
                )
            )
        drop_repeated_states(self.contents)
        if self.parent:
            drop_held_states(self.contents, self.parent.spans)

    def _cut(self) -> None:
        found = [
            (content, name, Recorded(series, scales_of(series, self.settings, _beside(series.folder))))
            for content in self.contents
            for name, series in content.devices.items()
            if len(series)
        ]
        recorded = [device for *_, device in found]
        for number, group in enumerate(together(recorded)):
            members = [recorded[at] for at in group]
            held = self.parent.pieces if self.parent else ()
            plans = plan_together(members, self.settings, self._generator(707, number), held)
            widest = max(range(len(group)), key=lambda at: members[at].series.step)
            spans = [device.series.span for device in members]
            start, end = min(first for first, _ in spans), max(last for _, last in spans)
            self.pieces.append(Piece(start, end, plans[widest]))
            for at, plan in zip(group, plans, strict=True):
                self._cut_device(*found[at], plan)
        order = {id(content): number for number, content in enumerate(self.contents)}
        self.devices.sort(key=lambda device: order[id(device.content)])
        if not self.parent and not any(device.windows(self.settings) for device in self.devices):
            longest = max(int(np.diff(device.series.segments).max(initial=0)) for device in recorded)
            raise SourceError(
                found=f"at most {longest} states without a gap",
                expected=f"{self.settings.length} states in a row, no step over ten times the usual one",
                next="record for longer without interruption, or pass another log",
            )

    def _cut_device(self, content: Content, name: str, recorded: Recorded, plan: Plan) -> None:
        series = recorded.series
        cut = [(scale, list(stretches(scale, plan))) for scale in recorded.scales]
        device = Device(content, name, recorded, cut, _listener(content))
        native = next((found for scale, found in cut if scale.name == NATIVE), None)
        if native is None:
            native = list(stretches(Scale(NATIVE, series.step, series), plan))
        usable = [stretch.stop - stretch.start for stretch in native]
        content.report.drop("state between two splits", len(series) - sum(usable))
        short = sum(length for length in usable if length < self.settings.length)
        content.report.drop("state in a stretch shorter than a window", short)
        self.devices.append(device)

    def _spans(self, device: Device) -> list[tuple[float, float]]:
        return self.parent.spans(device.source, device.name) if self.parent else []

    def _batches(self) -> Iterator[tuple[tuple[Device, Scale], Batch]]:
        for device in self.devices:
            for scale, found in device.cut:
                for batch in batches(scale, found, self.settings):
                    yield (device, scale), batch

    def _survey(self) -> tuple[Survey, np.ndarray, list[tuple[float, int, np.ndarray, float]]]:
        survey = Survey(self.settings, sum(device.windows(self.settings) for device in self.devices))
        priorities = Priorities(self.settings.seed)
        learned = list[tuple[float, int, np.ndarray, float]]()
        for (device, scale), batch, windows, shapes in with_shapes(self._batches()):
            heard = _heard(device, scale, batch)
            self._shapes.append(shapes)
            kind = Kind(batch.stretch.split, device.source, scale.name)
            survey.add(kind, windows, shapes, priorities.draw(heard.any))
            if batch.stretch.split == TRAIN:
                for row in np.flatnonzero(~np.isnan(heard.scores)).tolist():
                    ended = float(batch.times[row, -1])
                    learned.append((ended, int(shapes[row]), heard.ids[row], float(heard.scores[row])))
        return survey, survey.choose(), learned

    def _write_real(self, writers: dict[str, SplitWriter], survey: Survey, rules: Rules) -> None:
        generator = self._generator(303)
        for tables in grouped(self._kept(survey), lambda one: len(one[0])):
            for rows in _rows(tables, rules, generator):
                writers[SPLITS[rows.table.split[0]]].add(rows)

    def _kept(self, survey: Survey) -> Iterator[tuple[Table, Heard]]:
        """The real windows that are in the dataset, batch by batch, and what was heard there."""
        priorities, shapes = Priorities(self.settings.seed), self._shapes.all()
        for (device, scale), batch in self._batches():
            heard = _heard(device, scale, batch)
            kind = Kind(batch.stretch.split, device.source, scale.name)
            kept = np.flatnonzero(survey.kept(kind, next(shapes), priorities.draw(heard.any)))
            if len(kept):
                table = Table.real(
                    batch[kept],
                    source=device.source,
                    device=device.name,
                    scale=scale.name,
                    cadence=scale.cadence,
                )
                yield table, heard[kept]

    def _write_given(self, writer: SplitWriter, content: Content, rules: Rules) -> None:
        """Windows that the source itself calls synthetic: like those that are made, they only train."""
        assert content.synthetic is not None
        cadence = np.median(np.diff(content.synthetic.times, axis=1), axis=1)
        table = Table.synthetic(
            content.synthetic,
            source=content.source.name,
            split=TRAIN,
            first=0,
            cadence=cadence,
            scale=np.array([f"{seconds:g}s" for seconds in np.round(cadence, 1)], object),
        )
        for rows in _rows([(table, Heard.nothing(len(table)))], rules, self._generator(505)):
            writer.add(rows)

    def _write_synthetic(
        self, writers: dict[str, SplitWriter], counts: Sequence[int], before: dict[str, int], rules: Rules
    ) -> list[Rows]:
        """Write the windows that are made; returns those that the legacy rows show as well."""
        generator, shown = self._generator(404), list[Rows]()
        given = [len(content.synthetic) for content in self.contents if content.synthetic is not None]
        salt = (*self._generation(), *given)
        for split, count in enumerate(counts):
            name = SPLITS[split]
            first = before.get(name, 0)
            for table in make_synthetic(split, count, self.settings, first=first, salt=salt):
                for rows in _rows([(table, Heard.nothing(len(table)))], rules, generator):
                    writers[HELD_OUT_SYNTHETIC.get(name, name)].add(rows)
                    if split == TRAIN and not shown and not self.parent:
                        shown.append(rows[np.arange(min(LEGACY_SYNTHETIC, len(rows)))])
        return shown

    def _write_legacy(self, shown: Callable[[], list[Rows]]) -> None:
        """Every window of the logs as they were recorded, whatever its split; published rows as they are."""
        legacy = LegacyWriter(self.work.folder)
        for rows in self.parent.rows(DATASET.legacy, LEGACY) if self.parent else ():
            legacy.copy(rows)
        for content in self.contents:
            for batch in content.legacy() if content.legacy else ():
                legacy.copy(pa.Table.from_batches([batch]))
        for content in self.contents:
            for series in content.devices.values():
                if len(series) and not content.legacy:
                    self._write_native(legacy, Scale(NATIVE, series.step, series), _listener(content))
        self._show_synthetic(legacy, shown())
        legacy.close()

    def _write_native(self, legacy: LegacyWriter, native: Scale, listener: Listener | None) -> None:
        for batch in batches(native, whole(native.series), self.settings):
            legacy.add(
                legacy_columns(
                    batch.row_times,
                    batch.row_states,
                    batch.at,
                    classify(batch.windows(), rules="published"),
                    listener.within(batch) if listener else {},
                    provenance=REAL,
                    cadence=native.cadence,
                )
            )

    def _show_synthetic(self, legacy: LegacyWriter, shown: list[Rows]) -> None:
        """A few synthetic windows among the published rows, with what the rules with feedback say there."""
        for rows in shown:
            table = rows.table
            legacy.add(
                legacy_columns(
                    (table.start[:, None] + table.times).ravel(),
                    table.states.reshape(-1, 4),
                    np.arange(table.times.size).reshape(table.times.shape),
                    rows.published,
                    {row: rows.ids[row : row + 1] for row in range(len(rows))},
                    provenance=SYNTHETIC,
                    cadence=float(np.median(table.cadence)),
                )
            )

    def _copy(self, writers: dict[str, SplitWriter]) -> dict[str, int]:
        """Write the rows of the dataset that is grown; returns its synthetic windows by split."""
        if self.parent is None:
            return {}
        for name, writer in writers.items():
            for rows in self.parent.rows(DATASET.windows(name), WINDOWS):
                writer.copy(windows=rows)
            for rows in self.parent.rows(DATASET.expressions(name), EXPRESSIONS):
                writer.copy(expressions=rows)
        return {split: self.tally.count(split, SYNTHETIC) for split in SPLITS}

    def _finish(
        self, survey: Survey, rules: Rules, feedback: dict[str, Any], before: dict[str, int], *, beyond: int
    ) -> None:
        folder, parent = self.work.folder, self.parent
        held: Held = {}
        for device in self.devices:
            held.setdefault(device.source, {})[device.name] = [list(device.recorded.series.span)]
        pieces = [*(parent.pieces if parent else []), *self.pieces]
        plan = {
            "pieces": [piece.to_dict() for piece in pieces],
            "held": joined(parent.held, held) if parent else held,
        }
        artifact.write_json(folder / DATASET.plan, plan)
        artifact.write_json(folder / DATASET.weights, rules.to_dict())
        growth = None
        if parent:
            self.work.data_delta_sha256 = self.delta.hexdigest()
            had, has = parent.metrics["counts"], self.tally.counts()
            growth = {
                "parent": parent.identity,
                "generation": parent.manifest.generation + 1,
                "data_delta_sha256": self.delta.hexdigest(),
                "kept": had,
                "added": {s: {kind: has[s][kind] - had[s][kind] for kind in has[s]} for s in SPLITS},
            }
        self.work.metrics = measure(
            self.tally,
            self.contents,
            survey,
            beyond=beyond,
            feedback=feedback,
            growth=growth,
            earlier=parent.metrics if parent else None,
        )
        self.work.facts = {name: self.work.metrics[name] for name in ("feedback", "dropped")}

    def _generation(self) -> tuple[int, ...]:
        return (self.parent.manifest.generation + 1,) if self.parent else ()

    def _generator(self, *purpose: int) -> np.random.Generator:
        """Randomness of one purpose; each generation has its own."""
        return np.random.default_rng([self.settings.seed, *purpose, *self._generation()])


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + "-scales")


def _listener(content: Content) -> Listener | None:
    """Places what was said while a source was recorded; None where nothing was."""
    return Listener(content.observed) if content.observed is not None and len(content.observed) else None


def _heard(device: Device, scale: Scale, batch: Batch) -> Heard:
    if device.listener is None or scale.name != NATIVE:
        return Heard.nothing(len(batch))
    return device.listener.heard(batch)


def _rows(
    tables: Sequence[tuple[Table, Heard]], rules: Rules, generator: np.random.Generator
) -> Iterator[Rows]:
    """The rows of each table, all classified together."""
    windows, start = Table.join([table for table, _ in tables]).windows(), 0
    robust, published = classify(windows), classify(windows, rules="published")
    for table, heard in tables:
        own = slice(start, start + len(table))
        yield Rows(table, robust[own], published[own], rules.sample(robust[own], generator), heard)
        start += len(table)


def say(text: str) -> None:
    """Tell the user what is being done."""
    print(f"dataset: {text}", file=sys.stderr, flush=True)
