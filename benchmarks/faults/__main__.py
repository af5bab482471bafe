"""Let networks, processes, Hubs and bytes fail, and count what is lost: `make faults`.

python -m benchmarks.faults --schedules 1000 --kills 500 --workers 2 --seed 0 --out artifacts/faults.json
python -m benchmarks.faults --schedules 0 --kills 0 --minutes 60     # a device under kill for an hour
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults.client import before_import
from benchmarks.faults.outcome import UNDER_KILL
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason

_QUARTER_OF = {
    "releases": "schedules",
    "service-kills": "kills",
    "release-kills": "kills",
    "notice-kills": "kills",
}
"""Sections that have, unless told otherwise, a quarter as many trials as an option names."""


def main() -> int:
    """Run the trials, print and write the counts.

    Returns:
        1 when anything was lost.
    """
    options = _arguments()
    counts = {"pulls": options.schedules, "pull-kills": options.kills}
    for name, whole in _QUARTER_OF.items():
        given = getattr(options, name.replace("-", "_"))
        counts[name] = getattr(options, whole) // 4 if given is None else given
    counts |= {"hub-kills": options.hub_kills, "corruptions": options.corruptions}
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        before_import(f"{temporary}/hf-home")
        from benchmarks.faults.campaign import run

        found = run(Path(temporary), counts, options.seed, options.workers, options.minutes)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, found)
    return _show(found, [*counts, UNDER_KILL])


def _show(found: dict[str, Any], sections: list[str]) -> int:
    for name in sections:
        section = found[name]
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in section["outcomes"].items())
        print(
            f"{name:14} {section['trials']:5} trials  {section['losses']:3} losses  "
            f"{section['seconds']:7.1f} s   {outcomes}"
        )
        for loss in section["lost"]:
            print(f"    lost in trial {loss['trial']}: {json.dumps(loss['losses'])} {loss['kinds']}")
    lost = sum(found[name]["losses"] for name in sections)
    print(f"seed {found['seed']}: {lost} losses")
    return 1 if lost else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=main.__doc__)
    parser.add_argument("--schedules", type=int, default=40, help="pulls through a failing network")
    parser.add_argument("--releases", type=int, help="releases through one (a quarter as many)")
    parser.add_argument("--kills", type=int, default=20, help="updaters killed at random points")
    parser.add_argument("--release-kills", type=int, help="publishers killed (a quarter as many)")
    parser.add_argument("--service-kills", type=int, help="services that judge a release killed (too)")
    parser.add_argument("--notice-kills", type=int, help="yanks, roll-outs, rotations killed (too)")
    parser.add_argument("--hub-kills", type=int, default=3, help="Hubs killed under a publisher")
    parser.add_argument("--corruptions", type=int, default=1000, help="single bytes changed")
    parser.add_argument("--minutes", type=float, default=0.0, help="each worker keeps a device under kill")
    parser.add_argument("--seed", type=int, default=0, help="what chance is drawn from")
    parser.add_argument("--workers", type=int, default=1, help="Hubs and devices side by side")
    parser.add_argument("--out", type=Path, help="file for the counts, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
