"""This process's memory, from /proc/self/status (Linux)."""

from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_mb() -> float | None:
    """Resident memory now, in MiB; None where the system does not tell."""
    return _field("VmRSS")


def peak_mb() -> float | None:
    """Largest resident memory of this program so far, in MiB; None where the system does not tell.

    Not `getrusage`: its figure survives exec, and so may be that of the process which started this one.
    """
    return _field("VmHWM")


def _field(name: str) -> float | None:
    try:
        lines = _STATUS.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return round(int(values[0]) / 1024, 1) if values else None
