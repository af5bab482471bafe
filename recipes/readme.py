"""Put the measured figures into README.md: `make readme`, after `make demo`, `make bench` and `make faults`.

    python -m recipes.readme --out artifacts/demo --bench artifacts/bench.json

The figures are kept in docs/measured/, and the README's tables are rendered from there and nowhere else.
"""

import argparse
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import limits
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import ArtifactError, exit_with_reason
from eisv_lumen.metrics import table_markdown
from training import ablate

MEASURED = Path("docs/measured")
README = Path("README.md")


def main() -> None:
    """Copy what a run measured to docs/measured/ and render the README's tables from it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("artifacts/demo"))
    parser.add_argument("--bench", type=Path, default=Path("artifacts/bench.json"))
    arguments = parser.parse_args()
    MEASURED.mkdir(parents=True, exist_ok=True)
    write_json(MEASURED / "demo.json", without_addresses(_read(arguments.out / "summary.json", "make demo")))
    write_json(MEASURED / "bench.json", _read(arguments.bench, "make bench"))
    for name, command in (("hub", "make bench"), ("publishing", "make bench"), ("faults", "make faults")):
        write_json(MEASURED / f"{name}.json", _read(arguments.bench.parent / f"{name}.json", command))
    README.write_text(filled(README.read_text("utf-8")), "utf-8")


def filled(text: str) -> str:
    """The README with each measured section rendered from docs/measured/."""
    demo = _read(MEASURED / "demo.json", "make demo")
    bench = _read(MEASURED / "bench.json", "make bench")
    sections = {
        "voice": voice(demo),
        "table": evaluation(demo),
        "student": student(demo),
        "time": times(demo),
        "bench": benchmarks(bench),
        "hub": benchmarks(_read(MEASURED / "hub.json", "make bench")),
        "publishing": publishing(_read(MEASURED / "publishing.json", "make bench")),
        "faults": faults(_read(MEASURED / "faults.json", "make faults")),
        "building": building(_read(MEASURED / "building.json", "make bench")),
        "limits": limits.markdown(
            [
                limits.Limit(**entry)
                for entry in _read(MEASURED / "limits.json", "python -m benchmarks.limits")["limits"]
                if entry["part"] in ("synthetic, fresh", "real")
            ]
        ),
        "ablations": ablate.markdown(
            _read(MEASURED / "ablations.json", "python -m training.ablate")["students"]
        ),
    }
    for name, content in sections.items():
        pattern = rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)"
        text, found = re.subn(pattern, partial(_between, content), text, flags=re.DOTALL)
        if found != 1:
            raise ArtifactError(
                found=f"{found} sections 'measured: {name}' in README.md",
                expected="one of each",
                next="restore the markers in README.md",
            )
    return text


def without_addresses(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary without what belongs to one run on one machine only, or to the folder's own tables."""
    release = {key: value for key, value in summary["release"].items() if key == "version"}
    table = {
        part: {
            row: {name: cell for name, cell in cells.items() if name != "per_shape"}
            for row, cells in rows.items()
        }
        for part, rows in summary["table"].items()
    }
    return {**summary, "release": release, "table": table}


def voice(demo: dict[str, Any]) -> str:
    """What the device said."""
    device = demo["device"]
    words = " ".join(device["lumen_words"])
    return (
        f"```\n[{device['source']}] {device['expression']}   ({words})   {device['shape']}   "
        f"confidence {device['confidence']:.2f}   {device['version']}\n```\n"
    )


def evaluation(demo: dict[str, Any]) -> str:
    """The evaluation table, real and synthetic windows apart."""
    return "\n".join(
        f"Held-out {provenance} windows:\n\n{table_markdown(rows)}"
        for provenance, rows in demo["table"].items()
    )


def student(demo: dict[str, Any]) -> str:
    """The student's sizes and its parity."""
    made = demo["student"]
    rows = [("parameters", f"{made['parameters']:,}")]
    rows += [(f"{name} file", f"{size / 1e6:.2f} MB") for name, size in made["sizes"].items()]
    device = demo["device"]
    rows += [
        ("device process, model loaded", f"{device['rss_mb']:.0f} MB RSS"),
        ("device, one expression", f"{device['latency_ms']:.1f} ms"),
    ]
    return _table(("student", "measured"), rows)


def times(demo: dict[str, Any]) -> str:
    """Seconds per stage."""
    rows = [(name, f"{seconds:.0f} s") for name, seconds in demo["stages"].items()]
    rows.append(("all", f"{demo['wall_seconds']:.0f} s, at most {demo['peak_memory_mb']:.0f} MB"))
    return _table(("stage", "time"), rows)


def benchmarks(bench: list[dict[str, Any]]) -> str:
    """The benchmarks with their baselines."""
    return _table(
        ("benchmark", "measured", "n", "baseline", "ratio"),
        [
            (
                figure["name"],
                f"{figure['value']:,.4g} {figure['unit']}",
                f"{figure['n']:,}",
                "–" if figure["baseline"] is None else f"{figure['baseline']:,.4g} {figure['unit']}",
                "–" if figure["ratio"] is None else f"{figure['ratio']:,.1f}×",
            )
            for figure in bench
        ],
    )


def publishing(measured: dict[str, Any]) -> str:
    """A release beside bare `create_commit` calls."""
    names = {"bare": "`create_repo` and `create_commit` alone", "release": "a release"}
    rows = [
        (
            names.get(name, name),
            str(entry["n"]),
            f"{entry['median']:.2f} s ({entry['least']:.2f} to {entry['most']:.2f})",
            str(measured["requests"].get(name, "–")),
        )
        for name, entry in measured["seconds"].items()
    ]
    rows.append(("overhead, median of the rounds", "–", f"{measured['overhead']:+.1%}", "–"))
    return _table((f"publishing {measured['bytes'] / 1e6:.0f} MB", "rounds", "time", "requests"), rows)


def faults(measured: dict[str, Any]) -> str:
    """What was made to fail, how often, and what was lost."""
    names = {
        "pulls": "pulls through a failing network",
        "releases": "releases through a failing network",
        "pull-kills": "updaters killed",
        "service-kills": "services killed that judge a new release",
        "release-kills": "publishers killed",
        "notice-kills": "yanks, roll-outs and rotations killed",
        "hub-kills": "Hubs killed under a publisher",
        "corruptions": "single bytes changed in a release",
        "under-kill": "lives of one device under kill",
    }
    rows = [
        (
            words,
            f"{measured[name]['trials']:,}",
            ", ".join(f"{count:,} {outcome}" for outcome, count in measured[name]["outcomes"].items()),
            str(measured[name]["losses"]),
        )
        for name, words in names.items()
        if measured[name]["trials"]
    ]
    return _table((f"seed {measured['seed']}", "trials", "outcomes", "losses"), rows)


def building(measured: dict[str, Any]) -> str:
    """The dataset builder beside the plain one, and how it takes longer logs."""
    beside = measured["side_by_side"]
    names = {"plain": "plain loops over dicts", "default": "the kit", "full": "the kit, `full.yaml`"}

    def row(name: str, states: int, entry: dict[str, Any], seconds: str) -> tuple[str, ...]:
        size = f"{entry['bytes']['all'] / 1e6:,.1f} MB"
        return name, f"{states:,}", str(entry["n"]), seconds, f"{entry['peak_rss_mb']:.0f} MB", size

    rows = []
    for name, entry in beside["builders"].items():
        ratio = beside["ratios"].get(name)
        times = f" ({ratio['seconds']:.1f}× faster)" if ratio else ""
        rows.append(row(names[name], beside["states"], entry, f"{entry['seconds']:.2f} s{times}"))
    rows += [
        row(names[entry["configuration"]], entry["states"], entry, f"{entry['seconds']:.1f} s")
        for entry in measured.get("curve", [])
    ]
    return _table(("builder", "states", "runs", "whole process", "peak memory", "on disk"), rows)


def _between(content: str, markers: re.Match[str]) -> str:
    return markers[1] + content + markers[2]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _read(path: Path, command: str) -> Any:
    if not path.exists():
        raise ArtifactError(found=f"no {path}", expected="the figures of a run", next=command)
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    exit_with_reason(main)
