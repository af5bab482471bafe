"""Put the explorer together as a folder that the Hub can serve: app, wheel, assets, settings.

    python -m hub.build_space --wheel dist/eisv_lumen-0.1.0-py3-none-any.whl --out artifacts/space

With --dataset the Space offers windows of its test split and speaks by the rules that labelled it; with
--evaluation it shows the measured table.
"""

import argparse
import email
import json
import re
import shutil
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from eisv_lumen import artifact
from eisv_lumen.artifact import CARD, Manifest
from eisv_lumen.errors import (
    ArtifactError,
    ConfigurationError,
    InputError,
    MissingDependencyError,
    exit_with_reason,
)
from eisv_lumen.layouts import DATASET, HELD_OUT_SYNTHETIC
from eisv_lumen.vocabulary import SHAPES, STATE_MAX

APP = Path(__file__).resolve().parents[1] / "spaces" / "explorer"
SETTINGS, ASSETS = "space.json", "assets"
PYTHON = "3.11"
EXAMPLES_PER_SHAPE = 6
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COLUMNS = (
    "window_id",
    "source",
    "provenance",
    "scale",
    "cadence_s",
    "times",
    "states",
    "ethical_drift",
    "shape",
)


def build(
    wheel: Path,
    out: Path,
    *,
    student: str,
    revision: str | None = None,
    dataset: Path | None = None,
    evaluation: Path | None = None,
) -> bool:
    """Build the Space's artifact folder; returns False where it stood already.

    Args:
        wheel: Pure-Python wheel of `eisv_lumen`, laid beside the app.
        out: The folder.
        student: Repository of the student that the Space loads.
        revision: Tag or commit of it; the newest where None.
        dataset: Dataset folder to take example windows and the rules' weights from.
        evaluation: Evaluation folder to show.

    Raises:
        LumenError: The wheel is none, a folder is of another kind or unreadable, or `out` is not writable.
    """
    requirements = wheel_requirements(wheel)
    front_matter = _front_matter(student)
    settings: dict[str, Any] = {"student": student, "revision": revision, "front_matter": front_matter}
    if not _REPOSITORY.fullmatch(student):
        raise ConfigurationError(
            found=f"student {student!r}", expected="a repository namespace/name", next="correct --student"
        )
    for folder, kind in ((dataset, "dataset"), (evaluation, "evaluation")):
        if folder is not None:
            Manifest.read(folder, kind=kind)
    app = [path for path in sorted(APP.iterdir()) if path.suffix in (".py", ".css")]
    folders = {name: path for name, path in (("dataset", dataset), ("evaluation", evaluation)) if path}
    with artifact.build(
        out,
        kind="space",
        configuration={
            **settings,
            "examples_per_shape": EXAMPLES_PER_SHAPE,
            "app": {path.name: artifact.sha256_file(path) for path in app},
        },
        inputs={"wheel": wheel, **folders},
        metrics_required=False,
    ) as work:
        if work is None:
            return False
        for path in app:
            shutil.copy(path, work.folder / path.name)
        shutil.copy(wheel, work.folder / wheel.name)
        (work.folder / "requirements.txt").write_text("\n".join(requirements) + "\n", "utf-8")
        settings["examples"] = _write_assets(work.folder / ASSETS, dataset, evaluation)
        artifact.write_json(work.folder / SETTINGS, settings)
        (work.folder / CARD).write_text(_first_card(front_matter), "utf-8")
    return True


def wheel_requirements(wheel: Path) -> list[str]:
    """What a wheel of `eisv_lumen` needs to be installed with, without its extras.

    Raises:
        InputError: The file is no pure-Python wheel of `eisv_lumen`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            fields = email.message_from_bytes(archive.read(metadata))
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise _no_wheel(wheel, type(error).__name__) from error
    if str(fields["Name"]).replace("-", "_") != "eisv_lumen" or not wheel.name.endswith("-none-any.whl"):
        raise _no_wheel(wheel, f"{fields['Name']} in {wheel.name}")
    return [line for line in fields.get_all("Requires-Dist", []) if "extra ==" not in line]


def example_windows(dataset: Path) -> list[dict[str, Any]]:
    """Rows of a dataset's test split to show: a few of every shape, real before synthetic.

    Within a shape the sources and time scales take turns, so that no log crowds out the others.

    Raises:
        ArtifactError: The test split is missing or lacks columns.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            found="no pyarrow", expected="pyarrow, to read a dataset", next="pip install 'eisv-lumen[build]'"
        ) from error
    path = dataset / DATASET.windows("test")
    made = dataset / DATASET.windows(HELD_OUT_SYNTHETIC["test"])
    try:
        rows = [
            row
            for file in (path, *([made] if made.is_file() else []))
            for row in parquet.read_table(file, columns=list(_COLUMNS)).to_pylist()
        ]
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            found=f"{path}: {str(error).splitlines()[0]}",
            expected="the test split of a dataset",
            next="build the dataset again",
        ) from error
    shown = [_rounded(row) for shape in SHAPES for row in _in_turns([r for r in rows if r["shape"] == shape])]
    # What a visitor sees first should be real, and moving.
    return sorted(shown, key=lambda row: (row["provenance"] != "real", -_movement(row)))


def _in_turns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Up to `EXAMPLES_PER_SHAPE` rows: real ones first, their sources and scales one after the other."""
    turn: dict[tuple[str, str], int] = {}
    ranked = []
    for row in sorted(rows, key=lambda r: r["window_id"]):
        group = (row["source"], row["scale"])
        turn[group] = turn.get(group, 0) + 1
        ranked.append((row["provenance"] != "real", turn[group], group, row["window_id"], row))
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])[:EXAMPLES_PER_SHAPE]]


def _movement(row: dict[str, Any]) -> float:
    """How far E, S or V went in a window, as a share of their ranges."""
    ranges = [(max(values) - min(values)) for values in zip(*row["states"], strict=True)]
    return max(ranges[i] / STATE_MAX[i] for i in (0, 2, 3))


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "cadence_s": round(row["cadence_s"], 3),
        "times": [round(t, 3) for t in row["times"]],
        "states": [[round(v, 5) for v in state] for state in row["states"]],
    }


def _write_assets(assets: Path, dataset: Path | None, evaluation: Path | None) -> int:
    """Write what the app reads; returns the number of example windows."""
    assets.mkdir()
    examples: list[dict[str, Any]] = []
    if dataset is not None:
        examples = example_windows(dataset)
        (assets / "examples.json").write_text(json.dumps(examples), "utf-8")
        shutil.copy(dataset / DATASET.weights, assets / "rules.json")
    if evaluation is not None:
        table = {"table": artifact.read_metrics(evaluation)["table"]}
        (assets / "evaluation.json").write_text(json.dumps(table), "utf-8")
    return len(examples)


def _front_matter(student: str) -> dict[str, Any]:
    try:
        gradio = version("gradio")
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            found="no gradio", expected="the version the Space is tested with", next="pip install '.[space]'"
        ) from error
    return {
        "license": "apache-2.0",
        "title": "EISV-Lumen explorer",
        "emoji": "🌀",
        "colorFrom": "indigo",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": gradio,
        "python_version": PYTHON,
        "app_file": "app.py",
        "short_description": "Hear the shape of an agent's inner trajectory",
        "models": [student],
        "tags": ["eisv", "lumen", "trajectory", "embodied-agent"],
    }


def _first_card(front_matter: dict[str, Any]) -> str:
    """A card that the Hub can serve the Space by, until `model_cards.render` writes the full one."""
    head = yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n# {front_matter['title']}\n\n{front_matter['short_description']}.\n"


def _no_wheel(wheel: Path, reason: str) -> InputError:
    return InputError(
        found=f"{wheel}: {reason}",
        expected="a pure-Python wheel of eisv_lumen",
        next="python -m build --wheel, then pass dist/eisv_lumen-*.whl as --wheel",
    )


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m hub.build_space", description="Build the Space's folder."
    )
    parser.add_argument("--wheel", type=Path, required=True, help="wheel of eisv_lumen")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", default="hikewa/eisv-lumen-student", help="repository of the student")
    parser.add_argument("--revision", help="tag or commit of the student (default: the newest)")
    parser.add_argument("--dataset", type=Path, help="dataset folder, for examples and the rules' weights")
    parser.add_argument("--evaluation", type=Path, help="evaluation folder, for the comparison")
    options = vars(parser.parse_args())
    out = options["out"]
    built = build(**options)
    count = json.loads((out / SETTINGS).read_text("utf-8"))["examples"]
    print(f"space {out}: {'built' if built else 'stands already'}, {count} example windows", flush=True)


if __name__ == "__main__":
    exit_with_reason(main)
