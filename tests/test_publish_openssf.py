"""OpenSSF bundles beside the models of a release, where the library that makes them is installed."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from huggingface_hub import HfApi, snapshot_download

from eisv_lumen.errors import ConfigurationError
from hub.local import start
from tests.publishing import own_names, publish
from tests.release_artifacts import as_if_imported_with, rebuild, release_folders, small_student

pytest.importorskip("model_signing", reason="pip install '.[openssf]'")
openssf = pytest.importorskip("hub.openssf")

MODELS = ("base", "teacher", "student")


def written(key, path: Path) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def key(tmp_path):
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pub").write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return written(private, tmp_path / "ec.pem")


def verified(folder: Path, public: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", "verify", "key", folder, "--signature"]
    command += [folder / "model.sig", "--public_key", public]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_every_model_carries_a_bundle_that_the_library_itself_verifies(key, tmp_path, monkeypatch):
    folders = release_folders(tmp_path / "artifacts", small_student(tmp_path / "student"))
    settings = own_names(folders, "openssf")
    with start(tmp_path / "hub") as hub:
        as_if_imported_with(hub.url, monkeypatch)
        api = HfApi(endpoint=hub.url, token=hub.token)
        first = publish(api, settings, folders, models=openssf.ModelSigner(key))
        assert "model.sig" in first.manifest.repositories["student"].files
        again = publish(api, settings, folders, models=openssf.ModelSigner(key))
        assert not again.changed and not publish(api, settings, folders).changed
        for role in MODELS:
            folder = snapshot_download(
                settings.repo_id(role),
                revision="v0.1.0",
                endpoint=hub.url,
                token=hub.token,
                cache_dir=tmp_path / "cache",
                local_dir=tmp_path / "seen" / settings.names[role],
            )
            for cached in sorted((Path(folder) / ".cache").rglob("*"), reverse=True):
                cached.rmdir() if cached.is_dir() else cached.unlink()
            (Path(folder) / ".cache").rmdir()
            done = verified(Path(folder), tmp_path / "ec.pub")
            assert done.returncode == 0, done.stdout + done.stderr
            (Path(folder) / "manifest.json").write_text("{}")
            assert verified(Path(folder), tmp_path / "ec.pub").returncode != 0
        rebuild(folders["student"], {"more.json": b"{}"})
        second = publish(api, settings, folders, "0.2.0", models=openssf.ModelSigner(key))
        assert second.commits["base"] == first.commits["base"]  # an unchanged model keeps its bundle
        assert second.commits["student"] != first.commits["student"]


def test_other_keys_are_refused_without_a_word_of_them(tmp_path):
    path = written(ed25519.Ed25519PrivateKey.generate(), tmp_path / "ed.pem")
    for file in (path, tmp_path / "absent"):
        with pytest.raises(ConfigurationError, match="P-256") as refused:
            openssf.ModelSigner(file)
        assert refused.value.__cause__ is None
