"""Replay a student's golden windows in a process of its own, under limits, before it is trusted to speak.

Run by the updater; the process prints one line of JSON and leaves with 0, or says why not.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eisv_lumen.device.memory import peak_mb
from eisv_lumen.errors import ResourceError, VerificationError, exit_with_reason
from eisv_lumen.layouts import STUDENT

SECONDS = 60
ADDRESS_SPACE_MB, DATA_MB = 3072, 768
"""Stop a runaway while it grows; onnxruntime reserves far more addresses than it uses."""

RSS_MB = 200
"""What a device may spend on the student."""

# Isolated (-I): neither the working folder nor the environment decides what is imported.
_START = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module({!r}, run_name='__main__')"


_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that no library raises: a person sent them, a service manager, or the kernel for want of memory."""


class UnansweredError(ResourceError):
    """A self-test that came to no end: it crashed."""


class TimedOutError(UnansweredError):
    """It took too long: the release's fault, or that of a machine which had other things to do."""


class KilledError(UnansweredError):
    """It was killed from outside."""


@dataclass(frozen=True)
class SelfTest:
    """What the replay measured.

    Attributes:
        windows: Golden windows replayed.
        difference: Largest difference of a probability from the recorded one.
        latency_ms: Mean time per window, after a first replay.
        peak_rss_mb: Largest resident memory in MiB, None where the system does not tell.
    """

    windows: int
    difference: float
    latency_ms: float
    peak_rss_mb: float | None


def run_selftest(folder: Path, *, seconds: float = SECONDS, rss_mb: float = RSS_MB) -> SelfTest:
    """Test a student folder in a separate process.

    Raises:
        VerificationError: It failed, took too much memory, or its outputs differ.
        UnansweredError: It was killed, crashed or took too long, which proves nothing yet.
        ResourceError: It cannot be run here: the installation is broken.
    """
    package = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-I", "-c", _START.format(__name__), str(package), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=_environment())
    except subprocess.TimeoutExpired:
        raise _unanswered(TimedOutError, f"no result after {seconds:g} s") from None
    if done.returncode < 0:
        number = -done.returncode
        kind = KilledError if number in _FROM_OUTSIDE else UnansweredError
        raise _unanswered(kind, f"ended by signal {number} ({signal.strsignal(number)})")
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        found = next((line.split("found: ", 1)[1] for line in reason if line.startswith("found: ")), None)
        if done.returncode == os.EX_UNAVAILABLE:
            raise ResourceError(
                found=f"the student's self-test cannot be run here: {found or 'a library is missing'}",
                expected="an installation with numpy and onnxruntime",
                next="mend the installation; the next pull tries it again",
            )
        raise _failed(
            found or f"exit code {done.returncode}: {reason[-1] if reason else 'no words'}", "success"
        )
    try:
        measured = SelfTest(**json.loads(done.stdout))
    except (ValueError, TypeError):
        raise _failed("an answer that cannot be read", "one line of JSON") from None
    if measured.peak_rss_mb is not None and measured.peak_rss_mb > rss_mb:
        raise _failed(f"{measured.peak_rss_mb:.0f} MB of memory", f"at most {rss_mb:g} MB")
    return measured


def main() -> int:
    """Replay the golden windows of the folder named on the command line.

    Returns:
        The exit code: 0, or EX_UNAVAILABLE where a library cannot be imported.
    """
    _limit_this_process()
    try:
        measured = _replay(Path(sys.argv[1]))
    except ImportError as error:
        print(f"found: {str(error).splitlines()[0]}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    print(json.dumps(vars(measured)))
    return 0


def _replay(folder: Path) -> SelfTest:
    from eisv_lumen.student import TrajectoryModel

    golden = _golden(folder)
    model = TrajectoryModel.from_pretrained(folder)
    model.check_golden(golden)
    started = time.perf_counter()
    difference = model.check_golden(golden)
    seconds = time.perf_counter() - started
    windows = len(golden["windows"])
    return SelfTest(windows, difference, 1000 * seconds / windows, peak_mb())


def _limit_this_process() -> None:
    """Limits that hold also when the updater is gone."""
    mib = 1024 * 1024
    for kind, limit in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_MB * mib),
        (resource.RLIMIT_DATA, DATA_MB * mib),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    # Told apart from a kill: the lower limit ends it as a crash.
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    signal.alarm(SECONDS + 5)  # also while it waits for something without using the processor
    # Where memory runs out all the same, this process goes first, and not the one that speaks.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _environment() -> dict[str, str]:
    """What a Python needs to start; no token or key is handed on."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}


def _golden(folder: Path) -> dict:
    try:
        golden = json.loads((folder / STUDENT.golden).read_text("utf-8"))
        if not golden["windows"]:
            raise ValueError("no windows")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _failed(f"{STUDENT.golden}: {type(error).__name__}", "recorded windows") from None
    return golden


def _failed(found: str, expected: str) -> VerificationError:
    return VerificationError(
        found=f"the student's self-test failed: {found}",
        expected=expected,
        next="the version that spoke before goes on; report this release to its publisher",
    )


def _unanswered(kind: type[UnansweredError], found: str) -> UnansweredError:
    return kind(
        found=f"the student's self-test could not be run to its end: {found}",
        expected="an answer, right or wrong",
        next="free memory; a later pull tries it again, and eisv-lumen status says when",
    )


if __name__ == "__main__":
    exit_with_reason(main)
