"""Signed notices and key sets: what is believed, and what is not."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen.errors import VerificationError
from eisv_lumen.notices import (
    KEYS_PURPOSE,
    NOTICES_PURPOSE,
    KeySet,
    Notices,
    in_rollout,
    keys_path,
)
from eisv_lumen.signing import SigningKey, TrustedKeys

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
TRUSTED = TrustedKeys([KEY.public])
REPO = "hikewa/eisv-lumen-student"
CREATED = "2026-01-01T00:00:00+00:00"
NOTICES = Notices(REPO, 3, CREATED, {"0.2.0": "says one word only"}, {"0.3.0": 0.25})
KEYS = KeySet(REPO, 1, CREATED, TrustedKeys([OTHER.public]).to_dict()["keys"])


def signature(content: bytes, purpose: str, key: SigningKey = KEY) -> bytes:
    return json.dumps(key.sign(content, purpose)).encode()


def changed(document: Notices | KeySet, **values: object) -> bytes:
    return json.dumps({**json.loads(document.to_bytes()), **values}).encode()


def test_notices_come_back_as_they_were_signed():
    content = NOTICES.to_bytes()
    assert Notices.verify(content, signature(content, NOTICES_PURPOSE), TRUSTED, REPO) == NOTICES


def test_a_key_set_is_believed_when_the_set_before_signed_it():
    content = KEYS.to_bytes()
    believed = KeySet.verify(content, signature(content, KEYS_PURPOSE), TRUSTED, REPO, 1)
    assert believed.trusted == TrustedKeys([OTHER.public]) and keys_path(1) == "keys/0001.json"


@pytest.mark.parametrize("purpose", [KEYS_PURPOSE, "release"])
def test_a_signature_for_something_else_does_not_count(purpose):
    content = NOTICES.to_bytes()
    with pytest.raises(VerificationError):
        Notices.verify(content, signature(content, purpose), TRUSTED, REPO)


def test_another_key_another_repository_another_number():
    content, key_set = NOTICES.to_bytes(), KEYS.to_bytes()
    with pytest.raises(VerificationError, match="signed by"):
        Notices.verify(content, signature(content, NOTICES_PURPOSE, OTHER), TRUSTED, REPO)
    with pytest.raises(VerificationError, match="a/b"):
        Notices.verify(content, signature(content, NOTICES_PURPOSE), TRUSTED, "a/b")
    # A key set signed by a key that only it names itself is nobody's successor.
    with pytest.raises(VerificationError, match="signed by"):
        KeySet.verify(key_set, signature(key_set, KEYS_PURPOSE, OTHER), TRUSTED, REPO, 1)
    with pytest.raises(VerificationError, match="key set 1 as keys/0002.json"):
        KeySet.verify(key_set, signature(key_set, KEYS_PURPOSE), TRUSTED, REPO, 2)
    with pytest.raises(VerificationError, match=REPO):
        KeySet.verify(key_set, signature(key_set, KEYS_PURPOSE), TRUSTED, "a/b", 1)


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2},
        {"sequence": 0},
        {"sequence": True},
        {"sequence": "4"},
        {"created": "2026-01-01"},
        {"created": "yesterday"},
        {"repo_id": 5},
        {"yanked": ["0.2.0"]},
        {"yanked": {"two": "x"}},
        {"yanked": {"0.2.0": "two\nlines"}},
        {"yanked": {"0.2.0": None}},
        {"rollout": {"0.2.0": 1.5}},
        {"rollout": {"0.2.0": -0.1}},
        {"rollout": {"0.2.0": "half"}},
        {"rollout": {"0.2.0": True}},
        {"surprise": 1},
    ],
)
def test_malformed_notices_are_refused(values):
    with pytest.raises(VerificationError):
        Notices.from_bytes(changed(NOTICES, **values))


@pytest.mark.parametrize(
    "keys", [[], [{}], "x", [{"public_key": "AAAA"}], KEYS.keys * 2, KEYS.keys * 20, [{"key_id": "0"}]]
)
def test_malformed_key_sets_are_refused(keys):
    with pytest.raises(VerificationError):
        KeySet.from_bytes(changed(KEYS, keys=keys))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b" " * 2_000_000])
def test_what_is_no_document_is_refused(content):
    for kind in (Notices, KeySet):
        with pytest.raises(VerificationError):
            kind.from_bytes(content)


def test_a_share_that_is_no_number_is_refused():
    content = NOTICES.to_bytes().replace(b"0.25", b"NaN")
    with pytest.raises(VerificationError, match=r"share of 0\.3\.0"):
        Notices.from_bytes(content)


@settings(deadline=None)
@given(device=st.text(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_device_that_is_in_stays_in_at_every_larger_share(device, shares):
    smaller, larger = sorted(shares)
    assert in_rollout(device, "0.3.0", 1.0) and not in_rollout(device, "0.3.0", 0.0)
    assert in_rollout(device, "0.3.0", larger) or not in_rollout(device, "0.3.0", smaller)


def test_the_share_of_devices_is_the_share_asked_for_and_another_one_per_version():
    first = {n for n in range(10_000) if in_rollout(str(n), "0.3.0", 0.2)}
    second = {n for n in range(10_000) if in_rollout(str(n), "0.4.0", 0.2)}
    assert abs(len(first) - 2000) < 200 and abs(len(second) - 2000) < 200
    assert abs(len(first & second) - 400) < 120


def test_a_version_without_a_share_goes_to_everybody():
    assert NOTICES.goes_to("any", "9.9.9")
    assert not replace(NOTICES, rollout={"0.3.0": 0.0}).goes_to("any", "0.3.0")
