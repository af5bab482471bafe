"""Does the wheel run on a Pi's processor and say there what it says here? On an emulated Cortex-A53.

python -m recipes.pi_emulated [--student artifacts/demo/student]

Debian's arm64 Python is unpacked into a folder (no root, no chroot, no arm64 kernel) and run by QEMU's user
emulation with the wheel and the aarch64 wheels it depends on. The processor is always named: under QEMU's
default, `max`, INT8 has given wrong results. Speed and memory of an emulation say nothing about a Pi.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from eisv_lumen.artifact import Manifest, write_json
from eisv_lumen.errors import ConfigurationError, ResourceError, VerificationError, exit_with_reason
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES
from eisv_lumen.windows import WINDOW_LENGTH
from recipes.pi_probe import PRECISIONS

PROCESSOR = "cortex-a53"
CORES = 4
TOLERANCE = {"fp32": 1e-4, "int8": 0.03}
"""Largest difference of a probability: INT8 rounds elsewhere where sums are added in another order."""
AGREEMENT = {"fp32": 1.0, "int8": 0.98}
"""Least share of windows with the same expression."""
WINDOWS = 54
WHEELS = [f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 26, 24, 17)] + ["manylinux2014_aarch64"]
_ROOT = Path(__file__).resolve().parents[1]
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")


def main() -> None:
    """Prepare what is missing, run both sides, compare, write the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--student", type=Path, default=Path("artifacts/demo/student"))
    parser.add_argument("--folder", type=Path, default=Path("artifacts/pi"), help="kept for the next run")
    options = parser.parse_args()
    Manifest.read(options.student, kind="student")
    emulator = _tools()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    root = system(folder)
    python = next(path for path in sorted((root / "usr/bin").glob("python3.*")) if path.name[8:].isdigit())
    kit = wheels(folder, python.name.removeprefix("python"))
    command = [emulator, "-L", str(root), str(python)]
    report = compare(command, kit, options.student.resolve(), folder)
    write_json(folder / "report.json", report)
    print(json.dumps(report, indent=1))
    judge(report)


def system(folder: Path) -> Path:
    """Debian's arm64 Python, unpacked; kept where it is complete.

    Raises:
        ResourceError: The packages cannot be fetched.
    """
    root, complete = folder / "root", folder / "root.complete"
    if complete.exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    print("pi: unpacking Debian's arm64 Python")
    apt = folder / "apt"
    for place in ("lists/partial", "cache/archives/partial"):
        (apt / place).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": apt,
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
    }
    told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *told, "update", "-qq"])
    wanted = ["--no-install-recommends", "--download-only", "-y", "-qq", "python3", "libstdc++6"]
    _run(["apt-get", *told, "install", *wanted])
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)])
    _describe_processor(root)
    complete.touch()
    return root


def wheels(folder: Path, version: str) -> list[Path]:
    """Folders with the wheel of this checkout, made anew, and with the pinned packages that it needs."""
    dependencies, kit = folder / f"python{version}", folder / "kit"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    shutil.rmtree(kit, ignore_errors=True)
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(kit / "wheel"), str(_ROOT)])
    wheel = next((kit / "wheel").glob("*.whl"))
    _run([*pip, "install", "--no-deps", "--target", str(kit / "site"), str(wheel)])
    if not (folder / f"python{version}.complete").exists():
        print("pi: fetching the wheels for aarch64")
        shutil.rmtree(dependencies, ignore_errors=True)
        platforms = [word for name in WHEELS for word in ("--platform", name)]
        foreign = ["--only-binary=:all:", "--python-version", version, *platforms]
        into = ["--target", str(dependencies), "-c", str(_ROOT / "constraints.txt")]
        _run([*pip, "install", *foreign, *into, str(wheel)])
        shutil.rmtree(dependencies / "eisv_lumen")
        (folder / f"python{version}.complete").touch()
    return [kit / "site", dependencies]


def compare(command: list[str], kit: list[Path], student: Path, folder: Path) -> dict[str, Any]:
    """The device's own self-test on the emulated processor, and both sides' answers to the same windows."""
    shapes = np.arange(WINDOWS) % N_SHAPES
    generator = np.random.default_rng(0)
    windows = generate(shapes, generator, cadence=generator.uniform(1, 60, WINDOWS))
    lengths = np.where(generator.random(WINDOWS) < 0.5, WINDOW_LENGTH, generator.integers(4, 21, WINDOWS))
    mask = windows.mask & (np.arange(windows.mask.shape[1]) < lengths[:, None])
    np.savez(folder / "windows.npz", states=windows.states, times=windows.times, mask=mask)
    probe = str(Path(__file__).with_name("pi_probe.py"))
    paths = {"here": kit[:1], "there": kit}
    sides = {}
    for side, python in (("here", [sys.executable]), ("there", command)):
        out = folder / f"{side}.npz"
        given = [probe, str(student), str(folder / "windows.npz"), str(out)]
        _run([*python, *given], environment=_environment(paths[side]))
        with np.load(out) as arrays:
            sides[side] = dict(arrays)
    golden = _run([*command, "-m", "eisv_lumen.device.selftest", str(student)], environment=_environment(kit))
    return {
        "processor": PROCESSOR,
        "n": WINDOWS,
        "selftest": json.loads(golden),
        **{name: _difference(name, sides["here"], sides["there"]) for name in PRECISIONS},
    }


def _difference(precision: str, here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> dict[str, Any]:
    probabilities = [f"{precision}_{name}" for name in ("shape_probs", "pattern_probs", "confidence")]
    ids = f"{precision}_token_ids"
    return {
        "same_expression": float((here[ids] == there[ids]).all(axis=1).mean()),
        "largest_difference": float(max(np.abs(here[name] - there[name]).max() for name in probabilities)),
        "needed": {"same_expression": AGREEMENT[precision], "largest_difference": TOLERANCE[precision]},
    }


def judge(report: dict[str, Any]) -> None:
    """Refuse a student that says something else on the emulated processor.

    Raises:
        VerificationError: Expressions or probabilities differ by more than is tolerated.
    """
    for precision in PRECISIONS:
        found, needed = report[precision], report[precision]["needed"]
        # Written so that NaN fails.
        if not (
            found["same_expression"] >= needed["same_expression"]
            and found["largest_difference"] <= needed["largest_difference"]
        ):
            raise VerificationError(
                found=f"{precision} on {PROCESSOR}: {found['same_expression']:.3f} of the expressions are "
                f"the same, probabilities differ by up to {found['largest_difference']:.4f}",
                expected=f"{needed['same_expression']}, and {needed['largest_difference']}",
                next="do not release this student for devices; compare the graphs node by node",
            )


def _describe_processor(root: Path) -> None:
    """A Pi's /proc and /sys: onnxruntime looks there, and dies of what it finds of another processor."""
    cpus = root / "sys/devices/system/cpu"
    everyone = f"0-{CORES - 1}"
    for name in ("possible", "present"):
        _write(cpus / name, everyone)
    _write(cpus / "kernel_max", str(CORES - 1))
    for core in range(CORES):
        topology = cpus / f"cpu{core}/topology"
        _write(topology / "physical_package_id", "0")
        _write(topology / "core_id", str(core))
        _write(topology / "thread_siblings_list", str(core))
        for name in ("core_siblings_list", "package_cpus_list", "cluster_cpus_list"):
            _write(topology / name, everyone)
    lines = "processor\t: {}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    lines += "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n"
    _write(root / "proc/cpuinfo", "\n".join(lines.format(core) for core in range(CORES)))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", "utf-8")


def _environment(paths: list[Path]) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "QEMU_CPU": PROCESSOR,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _tools() -> str:
    """The emulator's name.

    Raises:
        ConfigurationError: A program is missing.
    """
    emulator = next((name for name in _EMULATORS if shutil.which(name)), None)
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if emulator is None or missing:
        raise ConfigurationError(
            found=f"no {', '.join(missing or _EMULATORS[:1])}",
            expected="Debian or a relative of it, with QEMU's user emulation",
            next="sudo apt-get install qemu-user-static",
        )
    return emulator


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no words").splitlines()[-1]
        raise ResourceError(
            found=f"{Path(command[0]).name} ended with {done.returncode}: {last}",
            expected="success",
            next="try it by hand: " + " ".join(command),
        )
    return done.stdout


if __name__ == "__main__":
    exit_with_reason(main)
