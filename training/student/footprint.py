"""What the student costs where it runs: memory, start, latency and throughput."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import eisv_lumen
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.windows import Windows

_PROGRAM = """
import json, sys, time
import numpy as np
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.windows import Windows
folder, window, began = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
model = TrajectoryModel.from_pretrained(folder)
heard = Windows.of(np.array(window["states"]), np.array(window["times"]))
model.infer(heard)
started = time.time() - began
for _ in range(100):
    model.infer(heard)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"rss_mb": int(status["VmRSS"].split()[0]) / 1024,
                  "peak_rss_mb": int(status["VmHWM"].split()[0]) / 1024,
                  "start_s": started,
                  "torch": "torch" in sys.modules}))
"""


def process_memory(folder: Path, window: Windows) -> dict[str, Any]:
    """Memory and start of a fresh Python process that loads the INT8 student and hears one window 101 times.

    Returns:
        `rss_mb` at the end and `peak_rss_mb` (VmRSS and VmHWM of /proc/self/status, MiB of the whole
        process), `start_s` from the launch of the interpreter to the first expression, `torch` whether torch
        was loaded.
    """
    present = window.mask[0]
    content = {"states": window.states[0][present].tolist(), "times": window.times[0][present].tolist()}
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(eisv_lumen.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    arguments = [sys.executable, "-c", _PROGRAM, str(folder), json.dumps(content), repr(time.time())]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def latency(models: dict[str, TrajectoryModel], windows: Windows, *, runs: int = 300) -> dict[str, Any]:
    """Milliseconds per window heard alone, and windows per second in batches of 64, on one thread.

    The precisions take turns, so that a busy machine slows both alike.

    Args:
        models: By precision.
        windows: At least 64.
        runs: Windows heard alone.
    """
    taken: dict[str, list[float]] = {name: [] for name in models}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for run in range(runs + 20):
        window = windows[run % len(windows)]
        for name, model in models.items():
            began = time.perf_counter()
            model.infer_batch(window)
            taken[name].append(1e3 * (time.perf_counter() - began))
    batch = windows[:64]
    for _ in range(8):
        for name, model in models.items():
            began = time.perf_counter()
            model.infer_batch(batch)
            rates[name].append(len(batch) / (time.perf_counter() - began))
    report: dict[str, Any] = {
        name: {
            "p50_ms": float(np.percentile(times[20:], 50)),
            "p99_ms": float(np.percentile(times[20:], 99)),
            "windows_per_s": float(np.median(rates[name])),
            "n": runs,
        }
        for name, times in taken.items()
    }
    report["int8_to_fp32_p50"] = report["int8"]["p50_ms"] / report["fp32"]["p50_ms"]
    return report
