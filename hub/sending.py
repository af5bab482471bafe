"""Files on their way into a commit, hashed once."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd
from huggingface_hub.lfs import UploadInfo

from eisv_lumen.errors import ArtifactError
from hub.contents import LocalFile

_SAMPLE = 512
_SMALL = 10 << 20
"""Bytes up to which a file may travel within the commit itself, where the Hub compares nothing."""


class _Hashed(CommitOperationAdd):
    """A file whose hash is known: the client reads all of it once more to hash it otherwise.

    Where a large file's bytes are no longer those that were hashed, the Hub refuses them; a small one is
    compared here.
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


def _unchanged(name: str, file: LocalFile, path: Path) -> bytes | str:
    """The bytes of a file that was validated, or its path where it is large: the Hub compares hashes then.

    Raises:
        ArtifactError: It is another one by now.
    """
    if file.size > _SMALL:
        return str(path)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ArtifactError(
            found=f"{name}: changed while it was published",
            expected="the file that was validated",
            next="leave the folder alone, then run the same command again",
        )
    return content


def _addition(name: str, file: LocalFile) -> CommitOperationAdd:
    source = file.source if isinstance(file.source, bytes) else _unchanged(name, file, file.source)
    operation = _Hashed(name, source)
    operation.upload_info = UploadInfo(
        size=file.size, sha256=bytes.fromhex(file.sha256), sample=file.head(_SAMPLE)
    )
    return operation
