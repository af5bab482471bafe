"""Let networks, processes, Hubs and bytes fail, and count what is lost: `make faults`.

python -m benchmarks.faults --schedules 1000 --kills 500 --seed 0 --out artifacts/faults.json
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults.client import before_import
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason

_SECTIONS = ("pulls", "releases", "pull-kills", "release-kills", "hub-kills", "corruptions")


def main() -> int:
    """Run the trials, print and write the counts.

    Returns:
        1 when anything was lost.
    """
    options = _arguments()
    counts = {
        "pulls": options.schedules,
        "releases": options.schedules // 4 if options.releases is None else options.releases,
        "pull-kills": options.kills,
        "release-kills": options.kills // 4 if options.release_kills is None else options.release_kills,
        "hub-kills": options.hub_kills,
        "corruptions": options.corruptions,
    }
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        before_import(f"{temporary}/hf-home")
        from benchmarks.faults.campaign import run

        found = run(
            Path(temporary), {name: counts[name] for name in _SECTIONS}, options.seed, options.workers
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, found)
    return _show(found)


def _show(found: dict[str, Any]) -> int:
    for name in _SECTIONS:
        section = found[name]
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in section["outcomes"].items())
        print(
            f"{name:14} {section['trials']:5} trials  {section['losses']:3} losses  "
            f"{section['seconds']:7.1f} s   {outcomes}"
        )
        for loss in section["lost"]:
            print(f"    lost in trial {loss['trial']}: {json.dumps(loss['losses'])} {loss['kinds']}")
    lost = sum(found[name]["losses"] for name in _SECTIONS)
    print(f"seed {found['seed']}: {lost} losses")
    return 1 if lost else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=main.__doc__)
    parser.add_argument("--schedules", type=int, default=40, help="pulls through a failing network")
    parser.add_argument("--releases", type=int, help="releases through one (default: a quarter as many)")
    parser.add_argument("--kills", type=int, default=20, help="updaters killed at random points")
    parser.add_argument("--release-kills", type=int, help="publishers killed (default: a quarter as many)")
    parser.add_argument("--hub-kills", type=int, default=3, help="Hubs killed under a publisher")
    parser.add_argument("--corruptions", type=int, default=1000, help="single bytes changed")
    parser.add_argument("--seed", type=int, default=0, help="what chance is drawn from")
    parser.add_argument("--workers", type=int, default=1, help="Hubs and devices side by side")
    parser.add_argument("--out", type=Path, help="file for the counts, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
