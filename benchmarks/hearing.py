"""The student on one core: INT8 beside FP32 and beside the roofline, and a whole process from start to voice.

python -m benchmarks.hearing STUDENT

Prints a JSON list. `on_one_core` starts a process of one thread, as `benchmarks.classification` does.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.classification import ONE_THREAD
from benchmarks.measurement import Measurement, rate, seconds
from benchmarks.roofline import Peaks, Work
from eisv_lumen.layouts import STUDENT
from eisv_lumen.student import Precision, TrajectoryModel
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES
from eisv_lumen.windows import Windows

N_HEARD = 2_000
N_BATCHED = 512
GRAPHS: dict[Precision, str] = {"fp32": STUDENT.fp32, "int8": STUDENT.int8}


def on_one_core(student: Path) -> list[Measurement]:
    """All figures of a student's folder, measured in a process of one thread."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.hearing", str(student)],
        env={**os.environ, **ONE_THREAD},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [Measurement(**figure) for figure in json.loads(found.stdout)]


def measure(folder: Path) -> list[Measurement]:
    """Latency, throughput, roofline, memory and start."""
    generator = np.random.default_rng(0)
    windows = generate(generator.integers(0, N_SHAPES, N_HEARD), generator, cadence=2.0)
    models = {name: TrajectoryModel.from_pretrained(folder, precision=name) for name in GRAPHS}
    taken = latencies(models, windows)
    batch = windows[np.arange(N_BATCHED)]
    batched = {name: seconds(partial(model.infer_batch, batch)) for name, model in models.items()}
    medians = {name: float(np.median(each)) for name, each in taken.items()}
    return [
        _beside("student, one window (median)", medians["int8"], medians["fp32"]),
        _beside(
            "student, one window (99th percentile)",
            float(np.percentile(taken["int8"], 99)),
            float(np.percentile(taken["fp32"], 99)),
        ),
        rate("student, batched", N_BATCHED, "windows/s", batched["int8"], batched["fp32"]),
        *rooflines(folder, medians),
        *whole_process(folder),
    ]


def latencies(models: dict[Precision, TrajectoryModel], windows: Windows) -> dict[Precision, list[float]]:
    """Seconds of each window by each model, in turn, so that a busy neighbour meets all."""
    taken: dict[Precision, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.infer(windows[0])
    for index in range(len(windows)):
        for name, model in models.items():
            taken[name].append(seconds(partial(model.infer, windows[index]), repeats=1))
    return taken


def rooflines(folder: Path, medians: dict[Precision, float]) -> list[Measurement]:
    """Each graph's median beside the least time its operations and bytes can take; the ratio is its share."""
    peaks = Peaks.measured()
    inputs = {
        "states": np.full((1, 20, 4), 0.2, np.float32),
        "times": np.arange(-19, 1, dtype=np.float32)[None],
        "mask": np.ones((1, 20), bool),
        "noise": np.zeros((1, 3, 17), np.float32),
    }
    found = []
    for name, graph in GRAPHS.items():
        work = Work.of(folder / graph, inputs)
        least = work.seconds(peaks)
        found += [
            Measurement(f"student {name}, operations", work.operations / 1e6, "Mflop", 1),
            Measurement(f"student {name}, bytes moved", work.traffic / 1e6, "MB", 1),
            Measurement(f"student {name}, nodes run", work.nodes, "nodes", 1),
            Measurement(
                f"student {name}, median beside the roofline",
                medians[name] * 1e3,
                "ms",
                N_HEARD,
                least * 1e3,
                least / medians[name],
            ),
        ]
    return found


def whole_process(folder: Path) -> list[Measurement]:
    """RSS and seconds from start to first expression of a fresh Python process."""
    code = (
        "import json, sys, numpy as np\n"
        "from eisv_lumen.student import Precision, TrajectoryModel\n"
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
    memory = float(np.median([json.loads(output) for output in outputs]))
    return [
        Measurement("student, process with the model loaded", memory, "MB RSS", 1),
        Measurement("student, start to first expression", fastest, "s", 1),
    ]


def _beside(name: str, value: float, baseline: float) -> Measurement:
    return Measurement(name, value * 1e3, "ms", N_HEARD, baseline * 1e3, baseline / value)


def main() -> None:
    """Measure and print the figures."""
    print(json.dumps([asdict(figure) for figure in measure(Path(sys.argv[1]))]))


if __name__ == "__main__":
    main()
