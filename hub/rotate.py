"""Change the keys that devices believe: bring a new one in, take an old one out.

    python -m hub.rotate --key old.pem --new-key new.pem --public trusted-keys.json --endpoint URL
    python -m hub.rotate --key new.pem --revoke KEY_ID --trust trusted-keys.json --endpoint URL

The set that counts now is replaced by one that a key of it has signed, in one commit together with the
notices, signed anew. Releases that only a revoked key has signed are not installed any more: publish a
release by the new key first, then revoke the old one; a stolen key is revoked at once.
"""

import argparse
from pathlib import Path

from eisv_lumen.errors import ConfigurationError, exit_with_reason
from eisv_lumen.notices import KeySet
from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted
from hub.command import add_hub_options, add_signing_options, agreed, notice_board


def main() -> None:
    """Write the next key set, signed by a key of the last one."""
    arguments = _arguments()
    old = SigningKey.read(arguments.key)
    new = SigningKey.read(arguments.new_key) if arguments.new_key else None
    if new is None and not arguments.revoke:
        raise ConfigurationError(
            found="nothing to change",
            expected="a key to bring in or to take out",
            next="pass --new-key FILE or --revoke KEY_ID",
        )
    from hub.notices import Board, check_key, now, signed_keys, signed_notices

    board, repo_id = notice_board(arguments, old)

    def change(stands: Board) -> dict[str, bytes] | None:
        keys = next_keys(stands.trusted, new, arguments.revoke)
        if keys == stands.trusted:
            return None
        check_key(stands.trusted, old, repo_id)
        signer = new or old
        if signer.key_id not in keys.key_ids:
            raise ConfigurationError(
                found=f"{signer.key_id}, which is to be revoked, as the only key at hand",
                expected="a key of the new set, to sign the notices with",
                next="pass --new-key FILE, or sign with another --key of the set",
            )
        key_set = KeySet(repo_id, stands.keys_sequence + 1, now(), keys.to_dict()["keys"])
        return {**signed_keys(key_set, [old]), **signed_notices(stands.next_notices(), [signer])}

    stands = board.read()
    _check_revoked(arguments.revoke, stands.named)
    keys = next_keys(stands.trusted, new, arguments.revoke)
    if change(stands) is None:
        print(f"keys of {repo_id}: {_listed(keys)} already, nothing was changed")
    else:
        print(f"keys of {repo_id}: from {_listed(stands.trusted)} to {_listed(keys)}", flush=True)
        if not agreed(arguments):
            return
        stood, wrote = board.write("Change the keys", change)
        print(f"key set {stood.keys_sequence + int(wrote)} signed by {old.key_id}", flush=True)
    if arguments.public:
        write_trusted(arguments.public, keys)
        print(f"for devices that are set up from now on: {arguments.public}", flush=True)


def next_keys(trusted: TrustedKeys, new: SigningKey | None, revoked: list[str]) -> TrustedKeys:
    """The set after a rotation.

    Raises:
        ConfigurationError: Nothing would be left of it.
    """
    entries = [entry for entry in trusted.to_dict()["keys"] if entry["key_id"] not in revoked]
    if new is not None:
        entries += TrustedKeys([new.public]).to_dict()["keys"]
    if not entries:
        raise ConfigurationError(
            found="a set without any key", expected="at least one", next="bring one in with --new-key FILE"
        )
    return TrustedKeys.from_dict({"keys": entries})


def _check_revoked(revoked: list[str], known: frozenset[str]) -> None:
    if strange := [name for name in revoked if name not in known]:
        raise ConfigurationError(
            found=f"key {strange[0]}, which devices never believed",
            expected=f"one of {', '.join(sorted(known))}",
            next="pass --revoke with one of these",
        )


def _listed(keys: TrustedKeys) -> str:
    return ", ".join(keys.key_ids)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.rotate", description=main.__doc__)
    parser.add_argument("--new-key", type=Path, help="private key to bring in; signs the notices from now on")
    parser.add_argument("--revoke", action="append", default=[], metavar="KEY_ID", help="key to take out")
    parser.add_argument("--public", type=Path, help="file for the new set, for devices to come")
    add_hub_options(parser)
    add_signing_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
