"""OpenSSF model signatures beside the release's own: `model.sig`, a bundle that other people's tools verify.

    model_signing verify key DIR --signature DIR/model.sig --public_key release-ec.pub

It covers every file of a model but the release manifest, which names the bundle itself. Only elliptic-curve
keys (P-256, P-384, P-521) sign such bundles; devices never read them.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from eisv_lumen.errors import ConfigurationError, MissingDependencyError
from eisv_lumen.layouts import STUDENT
from hub.contents import LocalFile

BUNDLE = "model.sig"
_LEFT_OUT = (BUNDLE, STUDENT.release, STUDENT.signature)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


class ModelSigner:
    """Signs models with an elliptic-curve key.

    Args:
        key: File of the private key, PEM without a password.

    Raises:
        ConfigurationError: The file is unreadable or holds another kind of key.
        MissingDependencyError: model-signing is not installed.
    """

    def __init__(self, key: Path) -> None:
        self._library = _library()
        self._key = key
        self._public = _public_half(key)

    def sign(self, name: str, files: Mapping[str, LocalFile]) -> bytes:
        """The bundle over a model's files.

        Args:
            name: What the bundle calls the model.
            files: By path in its repository.
        """
        with TemporaryDirectory() as temporary:
            folder = _laid_out(Path(temporary) / name, files)
            bundle = Path(temporary) / BUNDLE
            config = self._library.signing.Config().use_elliptic_key_signer(private_key=self._key)
            config.set_hashing_config(self._hashing()).sign(folder, bundle)
            return bundle.read_bytes()

    def fits(self, name: str, files: Mapping[str, LocalFile], bundle: bytes) -> bool:
        """Whether a bundle was made with this key over exactly these files."""
        with TemporaryDirectory() as temporary:
            folder = _laid_out(Path(temporary) / name, files)
            signature, public = Path(temporary) / BUNDLE, Path(temporary) / "public.pem"
            signature.write_bytes(bundle)
            public.write_bytes(self._public)
            try:
                config = self._library.verifying.Config().use_elliptic_key_verifier(public_key=public)
                config.verify(folder, signature)
            except Exception:  # whatever a bundle of unknown origin makes the library stumble over
                return False
            return True

    def _hashing(self) -> Any:
        return self._library.hashing.Config().set_ignored_paths(paths=_LEFT_OUT)


def _laid_out(folder: Path, files: Mapping[str, LocalFile]) -> Path:
    """A folder of the files as the repository will have them; links where the file system allows."""
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(file.source, bytes):
            path.write_bytes(file.source)
            continue
        try:
            os.link(file.source, path)
        except OSError:
            shutil.copyfile(file.source, path)
    return folder


def _public_half(path: Path) -> bytes:
    # The cause is dropped: a parser's message may quote what it was given.
    key: object = None
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except Exception:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise ConfigurationError(
            found=f"{path} is no private key on a curve of OpenSSF's",
            expected="P-256, P-384 or P-521 as PEM without a password",
            next="openssl ecparam -name prime256v1 -genkey -noout -out release-ec.pem",
        )
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _library() -> Any:
    try:
        import model_signing
        from model_signing import hashing, signing, verifying  # noqa: F401 - as attributes of the package
    except ImportError as error:
        raise MissingDependencyError(
            found=f"no model-signing ({error})",
            expected="the library that makes OpenSSF bundles",
            next="pip install '.[openssf]', or leave --openssf-key out",
        ) from error
    return model_signing
