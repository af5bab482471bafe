"""Making a key pair harms no file that is there, and neither half harms the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted


def keygen(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub.keygen", *options],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


@pytest.mark.parametrize("options", [("--out", "key.pub"), ("--out", "key", "--public", "../here/key")])
def test_the_public_half_never_replaces_the_private_one(tmp_path, options):
    folder = tmp_path / "here"
    folder.mkdir()
    done = keygen(folder, *options)
    assert done.returncode == 2 and "found: " in done.stderr and list(folder.iterdir()) == []


def test_a_key_set_that_is_there_is_never_replaced(tmp_path):
    trusted = TrustedKeys([SigningKey.generate().public])
    write_trusted(tmp_path / "set.json", trusted)
    done = keygen(tmp_path, "--out", "key", "--public", "set.json")
    assert done.returncode == 2 and "found: " in done.stderr and not (tmp_path / "key").exists()
    assert TrustedKeys.read(tmp_path / "set.json") == trusted


def test_the_two_halves_lie_where_they_were_asked_for(tmp_path):
    assert keygen(tmp_path, "--out", "key", "--public", "set.json").returncode == 0
    trusted = TrustedKeys.read(tmp_path / "set.json")
    assert trusted == TrustedKeys([SigningKey.read(tmp_path / "key").public])
