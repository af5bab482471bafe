"""How much of anything one request may bring."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds beyond which a request is refused with 413.

    Attributes:
        json_bytes: Body of an ordinary request.
        regular_file_bytes: A file that git itself holds; larger ones are large-file storage's.
        line_bytes: One line of a commit: such a file in base64, its path, its key.
        commit_bytes: A whole commit request.
        commit_operations: Files added and removed by one commit.
        lfs_bytes: One large file.
        stall_seconds: Silence in the middle of a request after which it is given up.
        min_free_bytes: Room on disk below which the server does not start.
    """

    json_bytes: int = 16 * MIB
    regular_file_bytes: int = 10 * MIB
    line_bytes: int = 14 * MIB
    commit_bytes: int = 1024 * MIB
    commit_operations: int = 25_000
    lfs_bytes: int = 50 * 1024 * MIB
    stall_seconds: float = 60.0
    min_free_bytes: int = 64 * MIB
