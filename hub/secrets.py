"""What must never be published, and the search for it in the bytes that are to be."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eisv_lumen.errors import VerificationError
from eisv_lumen.signing import SigningKey

_SECRETS = re.compile(
    rb"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}(?![A-Za-z0-9])|gh[pousr]_[A-Za-z0-9]{36,}"
    rb"|sk-[A-Za-z0-9_-]{32,}|xox[abpr]-[A-Za-z0-9-]{20,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_RUN = bytes([1]) * 20
_NOT_ASCII, _FEW = np.uint64(0x8080_8080_8080_8080), 64
_IN_RUNS = bytes(int(chr(i).isascii() and (chr(i).isalnum() or chr(i) in "_-/+=\\ ")) for i in range(256))
_BLOCK, _OVERLAP = 1 << 20, 512


class Secrets:
    """What must never be published: this release's own keys and token, and whatever looks like any.

    Args:
        keys: The signing keys.
        token: The Hub token.
    """

    def __init__(self, keys: Sequence[SigningKey], token: str | None) -> None:
        self._keys, self._token = keys, token.encode() if token else None
        self._token_is_run = token is not None and _has_run(token.encode())

    def __repr__(self) -> str:
        """Names nothing of them."""
        return "Secrets()"

    def check(self, place: str | Path, content: bytes) -> None:
        """Refuse bytes to be published that hold a secret.

        Raises:
            VerificationError: They do; the message names the place alone.
        """
        # Every kind is a run of such characters; weights hold none, and the slow search is not for them.
        has_run = _has_run(content)
        if self._own(content, has_run) or (has_run and self._looks_like_one(content)):
            raise unfit(place, "something that looks like a token or a private key", "no secrets")

    def _own(self, content: bytes, has_run: bool) -> bool:
        if self._token is not None and (has_run or not self._token_is_run) and self._token in content:
            return True
        return any(key.appears_in(content, written=has_run) for key in self._keys)

    def _looks_like_one(self, content: bytes) -> bool:
        plain = content.replace(b"\\/", b"/")  # as some writers of JSON have it
        return _SECRETS.search(plain) is not None or self._own(plain, True)

    def check_stream(self, place: str | Path, stream: BinaryIO) -> None:
        """Refuse a file that holds a secret; read in blocks.

        Raises:
            VerificationError: It does; the message names the place alone.
        """
        overlap = b""
        while block := stream.read(_BLOCK):
            self.check(place, overlap + block)
            overlap = block[-_OVERLAP:]


def _has_run(content: bytes) -> bool:
    """Whether 20 characters of `_IN_RUNS` follow each other.

    Such a run holds eight of them at a multiple of eight, and among weights few eights are even ASCII. This
    is most of what reading large files costs.
    """
    eights = np.frombuffer(content, np.uint64, len(content) // 8)
    ascii_only = np.flatnonzero((eights & _NOT_ASCII) == 0)
    if len(ascii_only) * _FEW > len(eights):
        return _RUN in content.translate(_IN_RUNS)
    every = eights.view(np.uint8).reshape(-1, 8)
    near = ascii_only[np.frombuffer(_IN_RUNS, bool)[every[ascii_only]].all(axis=1)] * 8
    return any(_RUN in content[max(0, place - 12) : place + 20].translate(_IN_RUNS) for place in near)


def unfit(path: str | Path, found: str, expected: str) -> VerificationError:
    """Why something cannot be published."""
    return VerificationError(
        found=f"{path}: {found}",
        expected=expected,
        next="build the folder again without it; nothing was published",
    )
