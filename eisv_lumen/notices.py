"""Signed documents that may change after a release: what is yanked, who gets what, whose keys count.

They lie on a branch of their own in the student's repository, so that one look at its tags and branches tells
a device whether anything is new. `notices.json` has one newest state and a sequence number that only grows;
`keys/0001.json`, `keys/0002.json`, … are a chain in which each key set is signed by a key of the set before.
Whoever adds a key set signs `notices.json` anew with one of its keys, in the same commit: devices check it
against the newest set. The publishing side (`hub`) writes them, the device verifies them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

from eisv_lumen.artifact import canonical_json
from eisv_lumen.errors import VerificationError
from eisv_lumen.signing import TrustedKeys
from eisv_lumen.versions import Version

BRANCH = "notices"
NOTICES = "notices.json"
SIGNATURE_SUFFIX = ".sig"
NOTICES_PURPOSE, KEYS_PURPOSE = "notices", "keys"
FORMAT = 1
MAX_BYTES = 1024 * 1024
MAX_KEYS = 16
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Notices:
    """What `notices.json` says.

    Attributes:
        repo_id: The student's repository that it speaks of.
        sequence: Grows by one with each change, from 1; 0 only in `empty`.
        created: When it was written, ISO 8601 with a time zone.
        yanked: Reason by version; devices leave these versions.
        rollout: Share in [0, 1] of the devices that get a version; a version that is not named goes to all.
    """

    repo_id: str
    sequence: int
    created: str
    yanked: dict[str, str] = field(default_factory=dict)
    rollout: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def empty(cls, repo_id: str) -> Self:
        """What holds where nothing has been published: nothing is yanked, everything goes to everybody."""
        return cls(repo_id, 0, "1970-01-01T00:00:00+00:00")

    def to_bytes(self) -> bytes:
        """The canonical bytes that are signed and published."""
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a document whose signature has been checked already.

        Raises:
            VerificationError: It is malformed or of a newer format.
        """
        try:
            notices = cls(**_of_format(content))
            notices._check()
        except _MALFORMED as error:
            raise _malformed(NOTICES, error) from None
        return notices

    @classmethod
    def verify(cls, content: bytes, signature: bytes, trusted: TrustedKeys, repo_id: str) -> Self:
        """Read a document as it was received.

        Raises:
            VerificationError: No trusted key signed it, it is malformed, or it speaks of another repository.
        """
        trusted.check(content, signature, NOTICES_PURPOSE)
        notices = cls.from_bytes(content)
        _check_repository(NOTICES, notices.repo_id, repo_id)
        return notices

    def goes_to(self, device_id: str, version: str) -> bool:
        """Whether a device gets a version now, as far as its roll-out goes."""
        return in_rollout(device_id, version, self.rollout.get(version, 1.0))

    def _check(self) -> None:
        _check_head(self.repo_id, self.sequence, self.created)
        for version, reason in self.yanked.items():
            Version.parse(version)
            if not isinstance(reason, str) or not reason.isprintable() or len(reason) > 1000:
                raise ValueError(f"the reason for {version}")
        for version, share in self.rollout.items():
            Version.parse(version)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"the share of {version}")


@dataclass(frozen=True)
class KeySet:
    """What `keys/0001.json` and its successors say: the only keys that count from here on.

    Attributes:
        repo_id: The student's repository that it speaks of.
        sequence: Its number in the chain, from 1.
        created: When it was written, ISO 8601 with a time zone.
        keys: As in `TrustedKeys.to_dict()["keys"]`; a key that is not named any more is revoked.
    """

    repo_id: str
    sequence: int
    created: str
    keys: list[dict[str, str]]
    format: int = FORMAT

    @property
    def trusted(self) -> TrustedKeys:
        """The keys as a device believes them."""
        return TrustedKeys.from_dict({"keys": self.keys})

    def to_bytes(self) -> bytes:
        """The canonical bytes that are signed and published."""
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a document whose signature has been checked already.

        Raises:
            VerificationError: It is malformed or of a newer format.
        """
        try:
            key_set = cls(**_of_format(content))
            _check_head(key_set.repo_id, key_set.sequence, key_set.created)
            if not 0 < len(key_set.keys) <= MAX_KEYS or key_set.trusted.to_dict()["keys"] != key_set.keys:
                raise ValueError("its keys")
        except _MALFORMED as error:
            raise _malformed("a key set", error) from None
        return key_set

    @classmethod
    def verify(
        cls, content: bytes, signature: bytes, before: TrustedKeys, repo_id: str, sequence: int
    ) -> Self:
        """Read the next key set of the chain as it was received.

        Args:
            content: The bytes of `keys_path(sequence)`.
            signature: The bytes of its signature file.
            before: The keys trusted until now; one of them must have signed.
            repo_id: The student's repository.
            sequence: The number that it must have.

        Raises:
            VerificationError: No key of the set before signed it, or it is not this link of this chain.
        """
        before.check(content, signature, KEYS_PURPOSE)
        key_set = cls.from_bytes(content)
        name = keys_path(sequence)
        _check_repository(name, key_set.repo_id, repo_id)
        if key_set.sequence != sequence:
            raise VerificationError(
                found=f"key set {key_set.sequence} as {name}",
                expected=f"key set {sequence}",
                next="do not use it; ask the publisher",
            )
        return key_set


def keys_path(sequence: int) -> str:
    """Path of a key set on the branch."""
    return f"keys/{sequence:04d}.json"


def in_rollout(device_id: str, version: str, share: float) -> bool:
    """Whether a device is among the first share of all devices to get a version.

    The first 8 bytes of sha256("{device_id} {version}") are a fraction of 2^64: a device that is in at one
    share stays in at every larger one, and another version has other devices first.

    Args:
        device_id: The device's random name.
        version: The version.
        share: In [0, 1].
    """
    digest = hashlib.sha256(f"{device_id} {version}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _of_format(content: bytes) -> Mapping[str, Any]:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content)} bytes")
    values = json.loads(content)
    if values["format"] != FORMAT:
        raise VerificationError(
            found=f"a notice of format {values['format']}",
            expected=f"format {FORMAT}",
            next="update the package: pip install --upgrade eisv-lumen",
        )
    return values


def _check_head(repo_id: Any, sequence: Any, created: Any) -> None:
    if not isinstance(repo_id, str):
        raise ValueError("its repository")
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 < sequence < 10**9:
        raise ValueError("its sequence")
    if datetime.fromisoformat(created).tzinfo is None:
        raise ValueError("a time without a zone")


def _check_repository(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise VerificationError(
            found=f"{name} of {found[:200]}",
            expected=f"one of {expected}",
            next="do not use it; ask the publisher",
        )


def _malformed(name: str, error: Exception) -> VerificationError:
    reason = str(error).splitlines()
    return VerificationError(
        found=f"malformed: {name} ({reason[0][:200] if reason else type(error).__name__})",
        expected="a notice as python -m hub writes it",
        next="do not use it; ask the publisher",
    )
