"""Files that were asked for lately, kept in memory: what a commit holds at a path never changes."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from hub.local.files import File

LARGEST = 64 << 10
"""Bytes of a content that is kept."""

_OVERHEAD = 1 << 10


@dataclass(frozen=True)
class Found:
    """A file at a commit.

    Attributes:
        commit: Id of the commit.
        file: The file.
        content: The bytes to send; None where they lie in large-file storage.
    """

    commit: str
    file: File
    content: bytes | None


class RecentFiles:
    """The files found last, up to a number of bytes; safe in every thread.

    Args:
        limit: Bytes of all that is kept.
    """

    def __init__(self, limit: int = 8 << 20) -> None:
        self._found: OrderedDict[Hashable, Found] = OrderedDict()
        self._limit, self._bytes, self._lock = limit, 0, threading.Lock()

    def get(self, key: Hashable) -> Found | None:
        """What was found under a key."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
            return found

    def put(self, key: Hashable, found: Found) -> None:
        """Keep what was found; what was not asked for longest is forgotten."""
        with self._lock:
            if key in self._found:
                return
            self._found[key] = found
            self._bytes += _bytes(found)
            while self._bytes > self._limit:
                self._bytes -= _bytes(self._found.popitem(last=False)[1])


def _bytes(found: Found) -> int:
    return _OVERHEAD + len(found.content or b"")
