"""Measure the kit against plain baselines in the same run: `make bench`.

python -m benchmarks.run --out artifacts/bench.json [--student artifacts/demo/student]
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import plain_builder
from benchmarks.classification import on_one_core, plain_states, walk
from benchmarks.measurement import Measurement, rate, seconds
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.rules import Rules
from eisv_lumen.series import sliding
from eisv_lumen.shapes import classify
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES

N_STATES = 50_000
N_VOICES = 21_449
N_HEARD = 500


def main() -> None:
    """Run every benchmark, print them, write them as a list."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench.json"))
    parser.add_argument("--student", type=Path, default=Path("artifacts/demo/student"))
    arguments = parser.parse_args()
    found = [cutting(), *on_one_core(), voicing()]
    if arguments.student.is_dir():
        found += hearing(arguments.student)
    else:
        print(f"no student at {arguments.student}: its benchmarks are left out (make demo builds one)")
    for figure in found:
        beside = f"   baseline {figure.baseline:.4g}, {figure.ratio:.1f} times" if figure.ratio else ""
        print(f"{figure.name:42} {figure.value:12.4g} {figure.unit:12} n={figure.n}{beside}")
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


def hearing(folder: Path) -> list[Measurement]:
    """The student on one core: INT8 against FP32, and a whole process from start to first expression."""
    generator = np.random.default_rng(0)
    windows = generate(generator.integers(0, N_SHAPES, N_HEARD), generator, cadence=2.0)
    median: dict[str, float] = {}
    batched: dict[str, float] = {}
    for precision in ("fp32", "int8"):
        model = TrajectoryModel.from_pretrained(folder, precision=precision)
        model.infer(windows[0])
        each = [seconds(partial(model.infer, windows[i]), repeats=1) for i in range(N_HEARD)]
        median[precision] = float(np.median(each))
        batched[precision] = seconds(partial(model.infer_batch, windows))
    memory, start = whole_process(folder)
    return [
        Measurement(
            "student, one window (median)",
            median["int8"] * 1e3,
            "ms",
            N_HEARD,
            median["fp32"] * 1e3,
            median["fp32"] / median["int8"],
        ),
        rate("student, batched", N_HEARD, "windows/s", batched["int8"], batched["fp32"]),
        Measurement("student, process with the model loaded", memory, "MB RSS", 1),
        Measurement("student, start to first expression", start, "s", 1),
    ]


def whole_process(folder: Path) -> tuple[float, float]:
    """RSS in MB and seconds from start to first expression of a fresh Python process."""
    code = (
        "import json, sys, numpy as np\n"
        "from eisv_lumen.student import TrajectoryModel\n"
        "from eisv_lumen.windows import Windows\n"
        "model = TrajectoryModel.from_pretrained(sys.argv[1])\n"
        "model.infer(Windows.of(np.full((20, 4), 0.2), np.arange(20.0)))\n"
        "rss = [line for line in open('/proc/self/status') if line.startswith('VmRSS')][0]\n"
        "print(json.dumps(int(rss.split()[1]) / 1000))\n"
    )
    outputs: list[str] = []

    def start() -> None:
        command = [sys.executable, "-c", code, str(folder)]
        outputs.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    fastest = seconds(start)
    return float(np.median([json.loads(output) for output in outputs])), fastest


if __name__ == "__main__":
    exit_with_reason(main)
