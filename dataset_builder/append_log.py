"""A CSV log that lines are only ever appended to, and that a kill or a power cut leaves readable."""

import mmap
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from eisv_lumen import artifact
from eisv_lumen.errors import ResourceError, SourceError
from eisv_lumen.sensors import CHANNELS

TIME = "timestamp"
SYNC_SECONDS = 3.0
_LONGEST_HEADER = 1 << 12


class Log:
    """A CSV of readings that lines are only ever appended to, open for it.

    A line is handed to the system whole, at once, and synced with the disk after `sync` seconds at most or
    with the next line: a killed process loses nothing, and a power cut no line that is older.

    Raises:
        SourceError: The file holds something else.
        ResourceError: The place is not writable, or the disk is full; what was written before is kept.
    """

    def __init__(self, path: Path, channels: Sequence[str], *, sync: float = SYNC_SECONDS) -> None:
        self.path, self._sync_seconds = path, sync
        self.columns = mend(path) or [TIME, *channels]
        with self._told():
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self.synced = time.monotonic()
            if not os.fstat(self._file).st_size:
                self._write(_line(self.columns))
                self.sync()
                artifact.fsync_folder(path.parent)

    def append(self, moment: str, values: Mapping[str, float]) -> None:
        """One line; a channel without a column is left out, one without a value is empty."""
        cells = [moment, *(f"{values[c]:.6g}" if c in values else "" for c in self.columns[1:])]
        with self._told():
            self._write(_line(cells))
            if time.monotonic() - self.synced >= self._sync_seconds:
                self.sync()

    def sync(self) -> None:
        """Wait until what was appended is on the disk."""
        os.fsync(self._file)
        self.synced = time.monotonic()

    @property
    def stands(self) -> bool:
        """Is the file still there under its name? A person may have moved it away."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def close(self) -> None:
        """Sync and close."""
        with self._told():
            try:
                self.sync()
            finally:
                os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:
            os.ftruncate(self._file, size)  # a full disk takes a part of the line
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from error


def mend(path: Path) -> list[str]:
    """Columns of a log, [] where none was begun; what a power cut or a full disk left of a line is removed.

    Raises:
        SourceError: The file is no log of this recorder; nothing is changed.
        ResourceError: It cannot be read or written.
    """
    try:
        if not path.exists():
            return []
        with path.open("r+b") as file:
            header = file.readline(_LONGEST_HEADER)
            columns = _columns(path, header)
            size = os.fstat(file.fileno()).st_size
            end = _end_of_last_whole_line(file.fileno(), len(header), len(columns)) if columns else 0
            if end < size:
                file.truncate(end)
                os.fsync(file.fileno())
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        raise _unwritable(path, error) from error
    return columns


def _columns(path: Path, header: bytes) -> list[str]:
    """The columns that a first line names, [] where it was cut off."""
    whole = header.endswith(b"\n")
    *names, last = header.decode("utf-8", "replace").rstrip("\n\0").split(",")
    known = CHANNELS if names else (TIME,)
    ends = last in known if whole else any(name.startswith(last) for name in known)
    begins = names[0] == TIME and set(names[1:]) <= set(CHANNELS) if names else not whole
    if not (begins and ends and len(header) < _LONGEST_HEADER):
        raise SourceError(
            found=f"{path}: begins with {header[:60].decode('utf-8', 'replace').strip()!r}",
            expected="a log of this recorder, whose first line names timestamp and channels, or no file",
            next="choose another file",
        )
    return [*names, last] if whole else []


def _end_of_last_whole_line(file: int, header: int, columns: int) -> int:
    """Where to go on: a power cut can leave a line cut off, or zeros instead of what was not synced."""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as text:
        end = text.rfind(b"\n") + 1
        while end > header:
            start = text.rfind(b"\n", 0, end - 1) + 1
            line = text[start:end]
            if b"\0" not in line and line.count(b",") == columns - 1:
                break
            end = start
    return end


def place(path: Path, channels: Sequence[str]) -> Path:
    """The last of NAME.csv, NAME-2.csv, ... that has a column for every channel, or the next one.

    A channel that is gone, such as of a sensor that does not answer today, is no reason for another log.
    """
    numbered = {1: path} if path.exists() else {}
    for other in path.parent.iterdir():
        match = re.fullmatch(rf"{re.escape(path.stem)}-([2-9]|[1-9]\d+)\.csv", other.name)
        if match:
            numbered[int(match[1])] = other
    for number in sorted(numbered, reverse=True):
        columns = mend(numbered[number])
        if not columns or set(channels) <= set(columns):
            return numbered[number]
    return path.with_stem(f"{path.stem}-{max(numbered) + 1}") if numbered else path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep two processes from appending to the logs of one name."""
    import fcntl  # Windows has none

    lock = path.with_name(f".{path.name}.lock")
    try:
        while True:
            file = lock.open("w")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before deletes it on leaving: then this is no longer the file that others lock.
            if lock.exists() and os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                break
            file.close()
    except BlockingIOError as error:
        raise ResourceError(
            found=f"another process records to {path.name}",
            expected="one recorder per log",
            next="stop it, or choose another file (--log)",
        ) from error
    except OSError as error:
        raise _unwritable(lock, error) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def _unwritable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        found=f"{path}: {error.strerror or type(error).__name__}",
        expected="a writable file, its folder, and free space; what was recorded before is kept",
        next="mend its permissions or free some space, then run the same command again",
    )


def _line(cells: Sequence[str]) -> bytes:
    return (",".join(cells) + "\n").encode()  # times and numbers need no quotes
