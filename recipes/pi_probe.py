"""What a student says to recorded windows, by both of its graphs; run here and on the emulated Pi.

python pi_probe.py STUDENT WINDOWS.npz OUT.npz

Imports nothing but what the wheel brings.
"""

import sys
from pathlib import Path

import numpy as np

from eisv_lumen.student import Precision, TrajectoryModel
from eisv_lumen.windows import Windows

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
OUTPUTS = ("shape_probs", "pattern_probs", "token_ids", "confidence")


def main() -> None:
    """Hear every window alone, as a device does."""
    student, recorded, out = map(Path, sys.argv[1:])
    with np.load(recorded) as arrays:
        windows = Windows(states=arrays["states"], times=arrays["times"], mask=arrays["mask"])
    said = {}
    for precision in PRECISIONS:
        model = TrajectoryModel.from_pretrained(student, precision=precision)
        heard = [model.infer_batch(windows[index]) for index in range(len(windows))]
        for name in OUTPUTS:
            said[f"{precision}_{name}"] = np.concatenate([getattr(one, name) for one in heard])
    np.savez(out, **said)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
