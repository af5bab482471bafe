"""Ed25519 signatures: who may sign a release, and whom a device believes.

A signature covers a purpose and the exact bytes of a canonical JSON document, so that a signed document of
one kind can never be passed off as another. Private keys appear in no message, representation or traceback.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from eisv_lumen.artifact import canonical_json
from eisv_lumen.errors import ConfigurationError, ResourceError, VerificationError

# cryptography is imported where it is used: 7 MB that a service which opens what it has verified before,
# and so only compares hashes, never needs.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "EISV_SIGNING_KEY"
ALGORITHM = "ed25519"
RELEASE_PURPOSE = "release"
_KEYGEN = "make one with: python -m hub.keygen --out signing.key"


class SigningKey:
    """A private Ed25519 key that signs and otherwise keeps silent.

    Args:
        private: The key; read or make one with the class methods.
    """

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private

    def __repr__(self) -> str:
        """Names the public half only."""
        return f"SigningKey(public {self.key_id})"

    def __reduce__(self) -> NoReturn:
        """A private key is never pickled or copied."""
        raise TypeError("a signing key cannot be serialised")

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """The key in a file, or in the environment variable EISV_SIGNING_KEY where no file is given.

        Args:
            path: A PEM (PKCS#8) file or one with the 32 raw bytes in base64.

        Raises:
            ConfigurationError: No key, not an Ed25519 private key, or a file that others may read.
        """
        if path is None:
            text = os.environ.get(KEY_VARIABLE, "")
            if not text.strip():
                raise ConfigurationError(
                    found="no signing key", expected=f"--key FILE or {KEY_VARIABLE}", next=_KEYGEN
                )
            return cls._parse(text.encode(), f"the key in {KEY_VARIABLE}")
        try:
            mode, content = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                found=f"{path}: {error.strerror}", expected="a readable signing key", next=_KEYGEN
            ) from None
        if mode & 0o077:
            raise ConfigurationError(
                found=f"{path} may be read by others (mode {mode & 0o777:o})",
                expected="mode 600",
                next=f"chmod 600 {path}",
            )
        return cls._parse(content, str(path))

    @classmethod
    def _parse(cls, content: bytes, place: str) -> Self:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        # The cause is dropped: a parser's message may quote what it was given.
        key: object = None
        try:
            if b"-----BEGIN" in content:
                key = serialization.load_pem_private_key(content, password=None)
            else:
                key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(content.strip(), validate=True))
        except Exception:
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(
                found=f"{place} is no Ed25519 private key",
                expected="PEM (PKCS#8, no password) or 32 raw bytes in base64",
                next=_KEYGEN,
            )
        return cls(key)

    def write(self, path: Path) -> None:
        """Write the key as PEM, readable by its owner only; an existing file is never replaced.

        Raises:
            ResourceError: The file exists or cannot be written.
        """
        from cryptography.hazmat.primitives import serialization

        pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise ResourceError(
                found=f"{path}: {error.strerror}",
                expected="a new file in a writable folder",
                next="choose another --out; a key that signed releases is worth keeping",
            ) from None

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public half."""
        return self._private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The short name of the key, see `key_id`."""
        return key_id(self.public)

    def appears_in(self, content: bytes, *, written: bool = True) -> bool:
        """Whether bytes to be published hold this private key, raw, in base64, in hex or as PEM.

        Args:
            content: The bytes.
            written: False where they hold no 40 characters of base64 in a row, and so only the raw key.
        """
        raw, *texts = self._forms
        return raw in content or (written and any(form in content for form in texts))

    @cached_property
    def _forms(self) -> tuple[bytes, ...]:
        from cryptography.hazmat.primitives import serialization

        raw = self._private.private_bytes_raw()
        der = self._private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # A PEM file is the DER form in base64; its last bytes are the key's.
        return raw, raw.hex().encode(), base64.b64encode(raw)[:42], base64.b64encode(der)[-40:]

    def sign(self, document: bytes, purpose: str) -> dict[str, Any]:
        """The signature document that `TrustedKeys.check` reads."""
        signature = base64.b64encode(self._private.sign(_signed_bytes(document, purpose))).decode()
        return {
            "algorithm": ALGORITHM,
            "purpose": purpose,
            "signatures": [{"key_id": self.key_id, "signature": signature}],
        }


class TrustedKeys:
    """The public keys that may sign.

    Args:
        keys: The 32 bytes of each public key.
    """

    def __init__(self, keys: Mapping[str, bytes] | list[bytes]) -> None:
        values = keys.values() if isinstance(keys, Mapping) else keys
        self._keys = {key_id(value): value for value in values}

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._keys)

    def __eq__(self, other: object) -> bool:
        """Equal sets of keys."""
        return isinstance(other, TrustedKeys) and self._keys == other._keys

    def __hash__(self) -> int:
        """By the names of the keys."""
        return hash(frozenset(self._keys))

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Short names of the keys, sorted."""
        return tuple(sorted(self._keys))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The keys in a file: the JSON that `to_dict` gives, or a single public key as PEM or base64.

        Raises:
            ConfigurationError: The file is missing or holds no public key.
        """
        try:
            keys = cls(_public_keys(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                found=f"{path}: {getattr(error, 'strerror', None) or 'no public key in it'}",
                expected='a key set {"keys": [...]} or an Ed25519 public key (PEM or base64)',
                next="take the .pub file that python -m hub.keygen wrote beside the private key",
            ) from None
        return keys

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The keys that `to_dict` gave.

        Raises:
            ValueError: There is none, or one that cannot be read; also KeyError and TypeError.
        """
        return cls(_keys_of_dict(values))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: `{"keys": [{"key_id", "algorithm", "public_key"}]}`."""
        return {
            "keys": [
                {"key_id": name, "algorithm": ALGORITHM, "public_key": base64.b64encode(key).decode()}
                for name, key in sorted(self._keys.items())
            ]
        }

    def check(self, document: bytes, signature: bytes, purpose: str) -> str:
        """Check that a trusted key signed exactly these bytes for this purpose.

        Args:
            document: The bytes as received; nothing of them is parsed before they are believed.
            signature: The signature document of `SigningKey.sign`, as JSON.
            purpose: What the document is supposed to be.

        Returns:
            The name of the key that signed.

        Raises:
            VerificationError: No valid signature by a trusted key.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        names = []
        for name, value in _signatures(signature, purpose):
            names.append(name)
            if name not in self._keys:
                continue
            try:
                Ed25519PublicKey.from_public_bytes(self._keys[name]).verify(
                    value, _signed_bytes(document, purpose)
                )
            except InvalidSignature:
                raise VerificationError(
                    found=f"a signature by {name} that does not fit the {purpose}",
                    expected="the signed bytes, unaltered",
                    next="do not use it; ask its publisher",
                ) from None
            return name
        raise VerificationError(
            found=f"a {purpose} signed by {', '.join(names) or 'nobody'}",
            expected=f"a signature by one of the trusted keys {', '.join(self.key_ids)}",
            next="do not use it; where the publisher's key is new, trust it with --trust FILE",
        )


def key_id(public: bytes) -> str:
    """The first 16 hex digits of the sha256 of a public key's 32 bytes."""
    return hashlib.sha256(public).hexdigest()[:16]


def _signed_bytes(document: bytes, purpose: str) -> bytes:
    return f"eisv-lumen {purpose}\n".encode() + document


def _signatures(signature: bytes, purpose: str) -> list[tuple[str, bytes]]:
    try:
        content = json.loads(signature)
        if content["algorithm"] != ALGORITHM or content["purpose"] != purpose:
            raise ValueError("of another kind")
        return [
            (str(entry["key_id"]), _only_form(entry["signature"])) for entry in content["signatures"][:16]
        ]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise VerificationError(
            found="a signature file that cannot be read",
            expected=f"an {ALGORITHM} signature of a {purpose}",
            next="do not use it; ask its publisher",
        ) from None


def _only_form(text: str) -> bytes:
    """Base64 decoded; the bits that its last letter leaves unused must be as they are written."""
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise ValueError("another form of the same bytes")
    return value


def _public_keys(content: bytes) -> list[bytes]:
    if b"-----BEGIN" in content:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        key = serialization.load_pem_public_key(content)
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not Ed25519")
        return [key.public_bytes_raw()]
    if content.lstrip().startswith(b"{"):
        return _keys_of_dict(json.loads(content))
    return _of_32_bytes([base64.b64decode(content.strip(), validate=True)])


def _keys_of_dict(values: Mapping[str, Any]) -> list[bytes]:
    return _of_32_bytes([base64.b64decode(entry["public_key"], validate=True) for entry in values["keys"]])


def _of_32_bytes(keys: list[bytes]) -> list[bytes]:
    if not keys or any(len(key) != 32 for key in keys):
        raise ValueError("no keys of 32 bytes")
    return keys


def write_trusted(path: Path, keys: TrustedKeys) -> None:
    """Write a key set for devices to trust: one that is there already stays whole until the new one is."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(canonical_json(keys.to_dict()) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
