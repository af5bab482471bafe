"""One function per kind of artifact: what its folder holds, to the text of its README.md."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eisv_lumen import artifact
from eisv_lumen.artifact import Manifest
from eisv_lumen.device.awareness import GATE
from eisv_lumen.errors import ArtifactError
from eisv_lumen.layouts import ALL_SPLITS, DATASET, HELD_OUT_SYNTHETIC, SPLITS, STUDENT
from eisv_lumen.metrics import COLUMNS
from eisv_lumen.prompts import design_messages
from eisv_lumen.vocabulary import SHAPES
from model_cards.base_reference import BaseReference
from model_cards.dataset_grids import dropped_grid, growth_grid, share_grid, stability_grid
from model_cards.facts import facts, origin, source_line
from model_cards.figures import dataset_figures
from model_cards.front_matter import (
    DatasetFrontMatter,
    FrontMatter,
    ModelFrontMatter,
    SpaceFrontMatter,
    size_category,
)
from model_cards.grids import (
    cost_grid,
    early_grid,
    gate_grid,
    gate_notes,
    parity_grid,
    recall_grid,
    rough_grid,
)
from model_cards.measurements import METRIC_MEANINGS, PROVENANCES, Evaluation, required
from model_cards.names import ReleaseNames

HUB = "https://huggingface.co"
SPACE_SETTINGS = "space.json"
_TAGS = ("eisv", "lumen", "trajectory", "embodied-agent", "raspberry-pi")
_LICENSE = "apache-2.0"
_LANGUAGE = ("en",)
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Folders:
    """Artifact folders by kind; those that are not at hand are None."""

    dataset: Path | None = None
    base: Path | None = None
    teacher: Path | None = None
    student: Path | None = None
    evaluation: Path | None = None
    space: Path | None = None


def dataset_card(folders: Folders, names: ReleaseNames) -> str:
    """Card of a dataset folder.

    Raises:
        ArtifactError: The folder is no dataset, or lacks measurements that a card needs.
    """
    folder = _folder(folders, "dataset")
    manifest, metrics = Manifest.read(folder, kind="dataset"), artifact.read_metrics(folder)
    counts = required(metrics, "counts", folder)
    shape_counts = required(metrics, "shapes", folder)
    front_matter = DatasetFrontMatter(
        license=_LICENSE,
        pretty_name="UNITARES EISV trajectories",
        language=_LANGUAGE,
        size_categories=(size_category(sum(sum(split.values()) for split in counts.values())),),
        task_categories=("text-generation", "tabular-classification"),
        annotations_creators=("machine-generated",),
        tags=(*_TAGS, "time-series"),
        configs=dataset_configs(manifest, counts),
    )
    values = {
        "repo": names.repo("dataset"),
        "splits": {split: counts[split] for split in SPLITS if split in counts},
        "provenances": [p for p in PROVENANCES if any(p in split for split in counts.values())],
        "shapes": SHAPES,
        "shape_counts": shape_counts,
        "shapes_by_split": [
            (f"{split}, {provenance}", by_shape)
            for split, provenances in (metrics.get("shapes_by_split") or {}).items()
            for provenance, by_shape in provenances.items()
        ],
        "sources": [source_line(source) for source in metrics.get("sources") or ()],
        "labels_agree": metrics.get("labels_agree"),
        "stability": metrics.get("label_stability"),
        "stability_by_source": stability_grid(metrics.get("label_stability_by_source") or {}),
        "dropped": dropped_grid(metrics),
        "cut": share_grid(metrics.get("cut") or {}),
        "growth": metrics.get("growth"),
        "growth_table": growth_grid(metrics.get("growth") or {}),
        "figures": dataset_figures(folder, metrics),
        "feedback": _feedback(metrics.get("feedback") or {}),
        "origin": origin(manifest),
    }
    return _render("dataset", front_matter, values)


def dataset_configs(
    manifest: Manifest, counts: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, Any], ...]:
    """The `configs` of a dataset's front matter: per configuration the file of each split that has rows.

    `datasets` refuses to load a configuration with a split without rows.
    """
    paths: dict[str, Callable[[str], str]] = {"windows": DATASET.windows, "expressions": DATASET.expressions}
    configs: list[dict[str, Any]] = []
    for name, path in paths.items():
        held = [split for split in ALL_SPLITS if path(split) in manifest.files and _has_rows(split, counts)]
        files = [{"split": split, "path": path(split)} for split in held]
        if not files:
            raise ArtifactError(
                found=f"a dataset without any file of its {name} configuration",
                expected=", ".join(path(split) for split in SPLITS),
                next="build the dataset again",
            )
        default = {"default": True} if name == "windows" else {}
        configs.append({"config_name": name, **default, "data_files": files})
    if DATASET.legacy in manifest.files:
        legacy = [{"split": "train", "path": DATASET.legacy}]
        configs.append({"config_name": "legacy", "data_files": legacy})
    return tuple(configs)


def _has_rows(split: str, counts: Mapping[str, Mapping[str, int]]) -> bool:
    held_out = {made: real for real, made in HELD_OUT_SYNTHETIC.items()}
    if split in held_out:
        return counts.get(held_out[split], {}).get("synthetic", 0) > 0
    here = counts.get(split, {})
    return here.get("real", 0) + (here.get("synthetic", 0) if split == "train" else 0) > 0


def base_card(folders: Folders, names: ReleaseNames) -> str:
    """Card of a base model folder."""
    folder = _folder(folders, "base")
    manifest, metrics = Manifest.read(folder, kind="base"), artifact.read_metrics(folder)
    front_matter = ModelFrontMatter(
        license=_LICENSE,
        library_name="transformers",
        pipeline_tag="text-generation",
        language=_LANGUAGE,
        tags=(*_TAGS, "qwen3"),
    )
    values = {
        "repo": names.repo("base"),
        "hub": HUB,
        "teacher": names.repo("teacher"),
        "measured": facts(metrics),
        "settings": facts(manifest.configuration),
        "origin": origin(manifest),
    }
    return _render("base", front_matter, values)


def teacher_card(folders: Folders, names: ReleaseNames) -> str:
    """Card of a teacher folder; its table and `model-index` come from the evaluation folder.

    Without a base folder the base is the one that the adapter names.
    """
    folder, evaluation = _folder(folders, "teacher"), Evaluation.read(_folder(folders, "evaluation"))
    manifest, metrics = Manifest.read(folder, kind="teacher"), artifact.read_metrics(folder)
    gate = required(metrics, "gate_1", folder)
    base = BaseReference(names.repo("base"), own=True)
    if folders.base is None:
        base = BaseReference.of_adapter(folder, own_repo=base.repo)
    front_matter = ModelFrontMatter(
        license=base.binding_license or _LICENSE,
        library_name="peft",
        pipeline_tag="text-generation",
        language=_LANGUAGE,
        base_model=base.repo,
        base_model_relation="adapter",
        datasets=(names.repo("dataset"),),
        tags=(*_TAGS, "lora"),
        model_index=_model_index(evaluation, "Teacher", "text-generation", names, "teacher"),
    )
    values = {
        **_model_values(evaluation, names, manifest),
        "repo": names.repo("teacher"),
        "base": base,
        "gate_passed": required(metrics, "gate_1.passed", folder),
        "gate_table": gate_grid(gate),
        "gate_notes": gate_notes(gate),
        "settings": facts(manifest.configuration) + facts(metrics.get("training") or {}),
        "prompt": _example_prompt(),
    }
    return _render("teacher", front_matter, values)


def student_card(folders: Folders, names: ReleaseNames) -> str:
    """Card of a student folder, transformer or forest; table and `model-index` are the evaluation's."""
    folder, evaluation = _folder(folders, "student"), Evaluation.read(_folder(folders, "evaluation"))
    manifest, metrics = Manifest.read(folder, kind="student"), artifact.read_metrics(folder)
    forest = manifest.configuration.get("model") == "forest"
    voice = "Forest" if forest else "Student"
    gate = required(metrics, "gate_2", folder)
    measured, parity = metrics.get("evaluation") or {}, metrics.get("parity") or {}
    front_matter = ModelFrontMatter(
        license=_LICENSE,
        library_name="onnx" if forest else "transformers",
        pipeline_tag="tabular-classification",
        language=_LANGUAGE,
        datasets=(names.repo("dataset"),),
        tags=(*_TAGS, "onnx", "distillation", "time-series"),
        model_index=_model_index(evaluation, voice, "tabular-classification", names, "student"),
    )
    values = {
        **_model_values(evaluation, names, manifest),
        "repo": names.repo("student"),
        "forest": forest,
        "int8_path": STUDENT.int8,
        "gate_confidence": GATE,
        "parameters": metrics.get("parameters"),
        "gate_passed": required(metrics, "gate_2.passed", folder),
        "gate_table": gate_grid(gate),
        "gate_notes": gate_notes(gate),
        "early": early_grid(measured),
        "rough": rough_grid(measured),
        "recall": recall_grid(measured),
        "parity": parity_grid(parity, "the trees in Python" if forest else "torch"),
        "parity_passed": parity.get("passed"),
        "parity_n": parity.get("n"),
        "cost": cost_grid(metrics),
        "memory": facts(metrics.get("memory") or {}),
        "calibration": facts(metrics.get("calibration") or {}),
        "has_voice": "voice_temperature" in (metrics.get("calibration") or {}),
        "settings": facts(manifest.configuration) + facts(metrics.get("training") or {}),
    }
    return _render("student", front_matter, values)


def space_card(folders: Folders, names: ReleaseNames) -> str:
    """Card of a Space folder: its settings are in the folder's `space.json`."""
    folder = _folder(folders, "space")
    manifest = Manifest.read(folder, kind="space")
    try:
        settings = json.loads((folder / SPACE_SETTINGS).read_text("utf-8"))
        shown_with = {"models": (settings["student"],), "datasets": (names.repo("dataset"),)}
        front_matter = SpaceFrontMatter(**{**settings["front_matter"], **shown_with})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            found=f"{folder}/{SPACE_SETTINGS}: {type(error).__name__}",
            expected="the settings that python -m hub.build_space writes",
            next="build the Space again",
        ) from error
    values = {
        "title": front_matter.title,
        "hub": HUB,
        "student": settings["student"],
        "revision": settings.get("revision"),
        "examples": settings.get("examples"),
        "sdk_version": front_matter.sdk_version,
        "gate_confidence": GATE,
        "origin": origin(manifest),
    }
    return _render("space", front_matter, values)


CARDS: dict[str, Callable[[Folders, ReleaseNames], str]] = {
    "dataset": dataset_card,
    "base": base_card,
    "teacher": teacher_card,
    "student": student_card,
    "space": space_card,
}
"""What renders the card of each kind of artifact that is published."""


def _render(kind: str, front_matter: FrontMatter, values: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("model_cards"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML; cells are escaped by their own filter.
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.globals.update(columns=COLUMNS, meanings=METRIC_MEANINGS)
    body = environment.get_template(f"{kind}.md.jinja").render(values)
    return f"---\n{front_matter.to_yaml()}---\n{_BLANK_LINES.sub(chr(10) * 2, body)}"


def _model_values(evaluation: Evaluation, names: ReleaseNames, manifest: Manifest) -> dict[str, Any]:
    return {
        "hub": HUB,
        "dataset": names.repo("dataset"),
        "student": names.repo("student"),
        "evaluation": evaluation,
        "origin": origin(manifest),
    }


def _model_index(
    evaluation: Evaluation, voice: str, task_type: str, names: ReleaseNames, kind: str
) -> tuple[dict[str, Any], ...]:
    if not any(voice in rows for rows in evaluation.tables.values()):
        raise ArtifactError(
            found=f"an evaluation without a row named {voice}",
            expected="one in which this model was measured",
            next="run python -m training.evaluate again, with --forest for a forest",
        )
    index = evaluation.model_index(
        voice, model_name=getattr(names, kind), task_type=task_type, dataset=names.repo("dataset")
    )
    return tuple(index)


def _folder(folders: Folders, kind: str) -> Path:
    folder = getattr(folders, kind)
    if folder is None:
        raise ArtifactError(
            found=f"no {kind} folder",
            expected=f"the {kind} folder that this card speaks of",
            next=f"pass --{kind} DIR",
        )
    return Path(folder)


def _feedback(feedback: Mapping[str, Any]) -> str:
    """How the labelling rules learned, in half a sentence; empty where that was not recorded."""
    observed = feedback.get("n_observed")
    parts = [
        str(feedback.get("kind") or ""),
        f"{feedback['n_updates']:,} updates" if "n_updates" in feedback else "",
        f"{observed:,} recorded utterances" if observed else "",
    ]
    return ", ".join(part for part in parts if part)


def _example_prompt() -> str:
    """Messages of the design's prompt for an energy that falls, as Python source."""
    window = SimpleNamespace(
        n_states=20,
        duration=38.0,
        mean=[0.6, 0.6, 0.3, 0.1],
        first=[-0.0079, 0.0, 0.0, 0.0],
        second=[0.0, 0.0, 0.0, 0.0],
    )
    lines = [f"    {message!r}," for message in design_messages("falling_energy", window)]
    return "\n".join(["[", *lines, "]"]).replace("'", '"')
