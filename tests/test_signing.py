"""Ed25519 signatures: what is believed, what is refused, and that private keys keep silent."""

import base64
import copy
import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisv_lumen.errors import ConfigurationError, ResourceError, VerificationError
from eisv_lumen.signing import KEY_VARIABLE, SigningKey, TrustedKeys, write_trusted

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
DOCUMENT = b'{"version":"0.1.0"}\n'


def secret_of(key: SigningKey) -> bytes:
    return key._private.private_bytes_raw()


def signed(key: SigningKey = KEY, document: bytes = DOCUMENT, purpose: str = "release") -> bytes:
    return json.dumps(key.sign(document, purpose)).encode()


def test_a_trusted_signature_is_believed():
    assert TrustedKeys([OTHER.public, KEY.public]).check(DOCUMENT, signed(), "release") == KEY.key_id


def test_signing_is_deterministic():
    assert signed() == signed()


@given(st.integers(0, len(DOCUMENT) - 1), st.integers(1, 255))
def test_any_altered_byte_is_refused(position, flip):
    altered = bytearray(DOCUMENT)
    altered[position] ^= flip
    with pytest.raises(VerificationError):
        TrustedKeys([KEY.public]).check(bytes(altered), signed(), "release")


@given(st.binary(max_size=200))
def test_arbitrary_signature_files_are_refused(content):
    with pytest.raises(VerificationError):
        TrustedKeys([KEY.public]).check(DOCUMENT, content, "release")


def test_another_key_is_refused_even_under_a_trusted_name():
    with pytest.raises(VerificationError, match=OTHER.key_id):
        TrustedKeys([KEY.public]).check(DOCUMENT, signed(OTHER), "release")
    forged = OTHER.sign(DOCUMENT, "release")
    forged["signatures"][0]["key_id"] = KEY.key_id
    with pytest.raises(VerificationError, match="does not fit"):
        TrustedKeys([KEY.public]).check(DOCUMENT, json.dumps(forged).encode(), "release")


def test_a_signature_for_another_purpose_is_refused():
    relabelled = KEY.sign(DOCUMENT, "keys")
    with pytest.raises(VerificationError):
        TrustedKeys([KEY.public]).check(DOCUMENT, json.dumps(relabelled).encode(), "release")
    with pytest.raises(VerificationError, match="does not fit"):
        content = json.dumps({**relabelled, "purpose": "release"}).encode()
        TrustedKeys([KEY.public]).check(DOCUMENT, content, "release")


def test_key_files_are_private_and_never_replaced(tmp_path):
    path = tmp_path / "new" / "release.key"
    KEY.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.read(path).key_id == KEY.key_id
    with pytest.raises(ResourceError):
        OTHER.write(path)
    assert SigningKey.read(path).key_id == KEY.key_id
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SigningKey.read(path)


def test_the_key_may_come_from_the_environment(monkeypatch, tmp_path):
    with pytest.raises(ConfigurationError, match="keygen"):
        SigningKey.read()
    monkeypatch.setenv(KEY_VARIABLE, base64.b64encode(secret_of(KEY)).decode())
    assert SigningKey.read().key_id == KEY.key_id
    KEY.write(tmp_path / "pem")
    monkeypatch.setenv(KEY_VARIABLE, (tmp_path / "pem").read_text())
    assert SigningKey.read().key_id == KEY.key_id


def test_private_keys_stay_out_of_words(monkeypatch):
    secret = base64.b64encode(secret_of(KEY)).decode()
    monkeypatch.setenv(KEY_VARIABLE, secret[:-8] + "!")
    try:
        SigningKey.read()
    except ConfigurationError as error:
        words = "".join(traceback.format_exception(error, chain=True))
        assert secret[:12] not in words
    else:
        pytest.fail("a broken key was accepted")
    assert secret[:12] not in repr(KEY) + str(KEY)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(KEY)


@pytest.mark.parametrize("form", ["raw", "base64", "hex", "pem"])
def test_a_key_is_recognised_in_what_would_be_published(form, tmp_path):
    KEY.write(tmp_path / "pem")
    raw = secret_of(KEY)
    content = {
        "raw": raw,
        "base64": base64.b64encode(raw),
        "hex": raw.hex().encode(),
        "pem": (tmp_path / "pem").read_bytes(),
    }[form]
    assert KEY.appears_in(b"before " + content + b" after")
    assert not OTHER.appears_in(content)


def test_keygen_makes_a_pair_that_fits(tmp_path):
    command = [sys.executable, "-m", "hub.keygen", "--out", tmp_path / "release.key"]
    root = Path(__file__).parents[1]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=root)
    assert done.returncode == 0 and "PRIVATE" not in done.stdout + done.stderr
    key, trusted = SigningKey.read(tmp_path / "release.key"), TrustedKeys.read(tmp_path / "release.pub")
    assert trusted.check(DOCUMENT, signed(key), "release") == key.key_id
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=root)
    assert again.returncode == 2 and "found: " in again.stderr
    assert SigningKey.read(tmp_path / "release.key").key_id == key.key_id


def test_trusted_key_files(tmp_path):
    from cryptography.hazmat.primitives import serialization as s

    write_trusted(tmp_path / "set.json", TrustedKeys([KEY.public, OTHER.public]))
    assert TrustedKeys.read(tmp_path / "set.json") == TrustedKeys([OTHER.public, KEY.public])
    (tmp_path / "raw").write_bytes(base64.b64encode(KEY.public) + b"\n")
    pem = KEY._private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pem").write_bytes(pem)
    for name in ("raw", "pem"):
        assert TrustedKeys.read(tmp_path / name) == TrustedKeys([KEY.public])


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"public_key": "AAAA"}]}', b"\xff"]
)
def test_unusable_trusted_keys_are_refused(tmp_path, content):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(ConfigurationError):
        TrustedKeys.read(tmp_path / "keys")
    with pytest.raises(ConfigurationError):
        TrustedKeys.read(tmp_path / "absent")
