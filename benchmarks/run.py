"""Measure the kit against plain baselines in the same run: `make bench`.

python -m benchmarks.run --out artifacts/bench.json [--made artifacts/demo]
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks import forest, hearing, labelling, plain_builder
from benchmarks.classification import on_one_core, plain_states, walk
from benchmarks.measurement import Measurement, rate, seconds
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.rules import Rules
from eisv_lumen.series import sliding
from eisv_lumen.shapes import classify
from eisv_lumen.vocabulary import N_SHAPES

N_STATES = 50_000
N_VOICES = 21_449
N_LABELLED = 256


def main() -> None:
    """Run every benchmark, print them, write them as a list."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench.json"))
    parser.add_argument("--made", type=Path, default=Path("artifacts/demo"), help="base, teacher, student")
    arguments = parser.parse_args()
    found = [cutting(), *on_one_core(), voicing()]
    made = {name: arguments.made / name for name in ("base", "teacher", "student", "forest")}
    missing = [name for name, folder in made.items() if not folder.is_dir()]
    if missing:
        print(f"no {', '.join(missing)} in {arguments.made}: their benchmarks are left out (make demo first)")
    if "student" not in missing:
        found += hearing.on_one_core(made["student"])
    if "forest" not in missing:
        found += forest.on_one_core(made["forest"])
    if not {"base", "teacher"} & set(missing):
        found += labelling.measure(*labelling.speaker(made["base"], made["teacher"]), N_LABELLED)
    for figure in found:
        beside = f"   baseline {figure.baseline:.4g}, {figure.ratio:.1f} times" if figure.ratio else ""
        print(f"{figure.name:64} {figure.value:12.4g} {figure.unit:12} n={figure.n}{beside}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, [asdict(figure) for figure in found])


def cutting() -> Measurement:
    """Cutting and labelling windows, against loops over dicts."""
    states, times = walk(N_STATES)
    plain = plain_states(states, times)
    fast = seconds(lambda: classify(sliding(states, times), "published"))
    slow = seconds(lambda: plain_builder.labelled(plain), repeats=1)
    return rate("windows cut and labelled", N_STATES, "states/s", fast, slow)


def voicing() -> Measurement:
    """Speaking with exact draws, against drawing one expression after the other with feedback."""
    shapes = np.random.default_rng(0).integers(0, N_SHAPES, N_VOICES)
    rules = Rules()
    fast = seconds(lambda: rules.sample(shapes, np.random.default_rng(1)))
    slow = seconds(lambda: Rules().speak_and_learn(shapes, np.random.default_rng(1)), repeats=1)
    return rate("rules voiced", N_VOICES, "windows/s", fast, slow)


if __name__ == "__main__":
    exit_with_reason(main)
