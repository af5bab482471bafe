"""Tokens and private keys reach no repository, no message and no card."""

import io
import json
import re

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from eisv_lumen.errors import VerificationError
from eisv_lumen.signing import SigningKey
from hub.secrets import Secrets, _has_run
from hub.validation import validate
from tests.publishing import KEY, LONG_CARD
from tests.release_artifacts import REPO_IDS, rebuild

TOKEN = "hf_" + "AbCdEfGhIj" * 3 + "KLMN"


def pem_of(key, form=serialization.PrivateFormat.PKCS8) -> str:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
SECRETS = {
    "token": TOKEN,
    "Ed25519": pem_of(ed25519.Ed25519PrivateKey.generate()),
    "EC": pem_of(ec.generate_private_key(ec.SECP256R1()), TRADITIONAL),
    "RSA": pem_of(rsa.generate_private_key(65537, 2048), TRADITIONAL),
    "OpenSSH": pem_of(ed25519.Ed25519PrivateKey.generate(), serialization.PrivateFormat.OpenSSH),
    "AWS": "AKIA" + "ABCDEFGH12345678",
    "GitHub": "ghp_" + "a1B2" * 9,
}


@pytest.fixture
def secrets():
    return Secrets((KEY,), "my-own-odd-token")


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "written",
    [
        lambda s: s,
        lambda s: json.dumps({"deep": [{"value": s}]}),
        lambda s: json.dumps({"environment": f"HF_TOKEN={s}"}),
        lambda s: json.dumps(s).replace("/", "\\/"),
        lambda s: f"my_{s}",
        lambda s: f"https://user:{s}@hub/repo",
        lambda s: "x" * ((1 << 20) - 20) + "\n" + s,
    ],
    ids=["bare", "JSON", "in a JSON text", "slashes escaped", "prefixed", "in an address", "over two blocks"],
)
def test_every_kind_is_found_however_it_is_written(secrets, tmp_path, secret, written):
    (tmp_path / "file.json").write_text(written(secret))
    with pytest.raises(VerificationError) as refused:
        secrets.check_stream("file.json", io.BytesIO((tmp_path / "file.json").read_bytes()))
    body = secret.strip().splitlines()[len(secret.strip().splitlines()) // 2]
    assert body not in str(refused.value)


@pytest.mark.parametrize(
    "innocent",
    ["hf_hub_download", "hf_" + "a" * 12, "-----BEGIN PUBLIC KEY-----", "wolf_" + "a" * 34, "risk-free" * 9],
)
def test_what_only_looks_alike_passes(secrets, innocent):
    secrets.check("text", innocent.encode())


def test_this_releases_own_key_and_token_are_found_in_every_form(secrets, tmp_path):
    KEY.write(tmp_path / "key")
    body = (tmp_path / "key").read_text().splitlines()[1]
    for text in (body, json.dumps({"k": body}).replace("/", "\\/"), json.dumps(["my-own-odd-token"])):
        with pytest.raises(VerificationError):
            secrets.check("a file", text.encode())
    Secrets((SigningKey.generate(),), None).check("a file", body.encode())


@pytest.mark.parametrize("place", ["card", "metrics", "payload"])
def test_wherever_it_lies_in_a_release_nothing_is_sent(folders, tmp_path, place):
    teacher = folders["teacher"]
    if place == "card":
        (teacher / "README.md").write_text(LONG_CARD.format(extra="", title=TOKEN))
    elif place == "metrics":
        metrics = json.loads((teacher / "metrics.json").read_text())
        rebuild(teacher, {"metrics.json": json.dumps({**metrics, "command": f"--token {TOKEN}"}).encode()})
    else:
        rebuild(teacher, {"trainer_state.json": json.dumps({"log": [TOKEN]}).encode()})
    with pytest.raises(VerificationError, match="token") as refused:
        validate(folders, REPO_IDS["base"], KEY, None)
    assert TOKEN not in str(refused.value)


def test_nothing_that_holds_a_secret_shows_it():
    assert "my-own" not in repr(Secrets((KEY,), "my-own-odd-token"))


@given(
    st.lists(
        st.one_of(st.binary(max_size=24), st.text("aB9_-/+= ", max_size=24).map(str.encode)), max_size=9
    ),
    st.integers(0, 40),
    st.sampled_from([0, 8000]),
)
def test_the_quick_look_misses_no_run(parts, before, after):
    content = b"\xff" * before + b"".join(parts) + b"\xff" * after
    assert _has_run(content) == bool(re.search(rb"[A-Za-z0-9_\-/+=\\ ]{20}", content))


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("length", [19, 20])
def test_the_shortest_run_is_seen_wherever_it_lies(offset, length):
    weights = b"\xff" * 4000
    assert _has_run(weights + b"\xff" * offset + b"a" * length + weights) == (length == 20)


@pytest.mark.parametrize("token", ["short", "hf_" + "a" * 34, "odd:!" * 9])
def test_a_token_of_any_form_is_found_among_weights(token):
    noise = np.random.default_rng(0).bytes(100_000)
    secrets = Secrets((KEY,), token)
    secrets.check("weights", noise)
    with pytest.raises(VerificationError):
        secrets.check("weights", noise[:50_003] + token.encode() + noise[50_003:])


def test_the_raw_key_is_found_among_weights(tmp_path):
    noise = np.random.default_rng(0).bytes(100_000)
    with pytest.raises(VerificationError):
        Secrets((KEY,), None).check("weights", noise + KEY._private.private_bytes_raw() + noise)
