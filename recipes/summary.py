"""What a run made, measured and published: `summary.json`, and the same for a person to read."""

import json
from pathlib import Path
from typing import Any

from eisv_lumen.artifact import Manifest, read_metrics, write_json
from recipes.stages import Stages


def write_summary(out: Path, stages: Stages, peak_mb: float) -> dict[str, Any]:
    """Collect what the stages wrote; every figure is copied from a file of theirs."""
    metrics = {name: read_metrics(out / name) for name in ("dataset", "teacher", "student", "evaluation")}
    release = json.loads((out / "release" / "record.json").read_text())
    device = json.loads((out / "device.json").read_text())
    previous = out / "summary.json"
    if previous.exists():
        peak_mb = max(peak_mb, json.loads(previous.read_text())["peak_memory_mb"])
    summary = {
        "stages": stages.seconds,
        "wall_seconds": stages.wall,
        "peak_memory_mb": peak_mb,
        "dataset": metrics["dataset"]["counts"],
        "teacher": {
            "size_bytes": _size(out / "teacher"),
            **metrics["teacher"]["training"],
        },
        "student": {
            "parameters": metrics["student"]["parameters"],
            "size_bytes": _size(out / "student"),
            "sizes": metrics["student"]["sizes"],
            "parity": metrics["student"]["parity"],
        },
        "table": metrics["evaluation"]["table"],
        "gates": {"1": metrics["teacher"]["gate_1"], "2": metrics["student"]["gate_2"]},
        "release": release,
        "device": device,
        "community": json.loads((out / "community.json").read_text()),
    }
    write_json(previous, summary)
    return summary


def print_summary(summary: dict[str, Any], out: Path, *, local: bool) -> None:
    """The evaluation table, the gates, what the device said, and the addresses to open."""
    print("\n" + (out / "evaluation" / "table.md").read_text())
    for number, gate in summary["gates"].items():
        print(f"Gate {number}: {'passed' if gate['passed'] else 'not passed'}")
    device = summary["device"]
    words = " ".join(device["lumen_words"])
    print(f"\nthe device says: [{device['source']}] {device['expression']}   ({words})")
    print("\npublished:" + ("   (make hub serves it, make space opens the explorer)" if local else ""))
    for name, address in summary["release"]["addresses"].items():
        print(f"  {name:8} {address}")
    seconds = summary["wall_seconds"]
    print(f"\n{seconds:.0f} s in all, at most {summary['peak_memory_mb']:.0f} MB; see {out / 'summary.json'}")


def _size(folder: Path) -> int:
    return sum(file["size"] for file in Manifest.read(folder).files.values())
