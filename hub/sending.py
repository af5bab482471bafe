"""Files on their way into a commit, hashed once."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd
from huggingface_hub.lfs import UploadInfo

from hub.contents import SMALL, LocalFile

_SAMPLE = 512


class _Hashed(CommitOperationAdd):
    """A file whose hash is known: the client reads all of it once more to hash it otherwise.

    Where a large file's bytes are no longer those that were hashed, the Hub refuses them; a small one's are
    compared when they are read.
    """

    def __post_init__(self) -> None:
        """Nothing is left to check: the folder's names and files have been validated."""


def additions(files: Mapping[str, LocalFile], names: Iterable[str]) -> list[CommitOperationAdd]:
    """Operations that add some of the files.

    Args:
        files: By path in the repository.
        names: Which of them.
    """
    return [_addition(name, files[name]) for name in names]


def _addition(name: str, file: LocalFile) -> CommitOperationAdd:
    large = isinstance(file.source, Path) and file.size > SMALL
    operation = _Hashed(name, str(file.source) if large else file.read())
    operation.upload_info = UploadInfo(
        size=file.size, sha256=bytes.fromhex(file.sha256), sample=file.head(_SAMPLE)
    )
    return operation
