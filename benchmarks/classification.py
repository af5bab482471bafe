"""Windows labelled per second on one core, beside plain loops over dicts.

python -m benchmarks.classification

Prints a JSON list. One thread fills one core; that numpy's libraries start no others has to be settled before
they are loaded, so `on_one_core` starts a process with `ONE_THREAD` in its environment.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial

import numpy as np

from benchmarks import plain_builder
from benchmarks.measurement import Measurement, rate, seconds
from eisv_lumen.series import sliding
from eisv_lumen.shapes import classify
from eisv_lumen.vocabulary import DIMENSIONS
from eisv_lumen.windows import STRIDE, WINDOW_LENGTH

N_WINDOWS = 100_000
N_LOOPED = 2_000
"""Windows that the loops label; their time is scaled to all."""
REPEATS = 5
"""The shortest counts: what the work costs without its neighbours."""
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")}


def on_one_core() -> list[Measurement]:
    """Both rule sets, measured in a process of one thread."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.classification"],
        env={**os.environ, **ONE_THREAD},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [Measurement(**figure) for figure in json.loads(found.stdout)]


def measure() -> list[Measurement]:
    """Labels of cut windows, by both rule sets; the loops apply the published rules."""
    states, times = walk(N_WINDOWS * STRIDE + WINDOW_LENGTH - STRIDE)
    windows = sliding(states, times)
    looped = plain_states(states, times)[: N_LOOPED * STRIDE + WINDOW_LENGTH - STRIDE]
    loop = seconds(lambda: plain_builder.labelled(looped)) * len(windows) / N_LOOPED
    return [
        rate(
            f"classification, {rules} rules",
            len(windows),
            "windows/s",
            seconds(partial(classify, windows, rules), repeats=REPEATS),
            loop,
        )
        for rules in ("published", "robust")
    ]


def walk(n: int) -> tuple[np.ndarray, np.ndarray]:
    """`[n, 4]` states of a slow random walk and their `[n]` times, 2 s apart."""
    generator = np.random.default_rng(0)
    steps = generator.normal(0, 0.004, (n, 4)).cumsum(axis=0)
    return np.clip(0.5 + 0.3 * np.sin(steps), 0, 1) * [1, 1, 1, 0.3], np.arange(n) * 2.0


def plain_states(states: np.ndarray, times: np.ndarray) -> list[plain_builder.State]:
    """States `[n, 4]` and times `[n]` as the baseline holds them."""
    return [
        {"t": time, **dict(zip(DIMENSIONS, state, strict=True))}
        for time, state in zip(times.tolist(), states.tolist(), strict=True)
    ]


def main() -> None:
    """Measure and print the figures."""
    print(json.dumps([asdict(figure) for figure in measure()]))


if __name__ == "__main__":
    main()
