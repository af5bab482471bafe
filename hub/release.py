"""Publish artifact folders to the Hub as one signed release.

    python -m hub.release --recipe recipes/demo.yaml --version 0.1.0 --key release-key.pem --endpoint URL \
        --dataset DIR [--base DIR] --teacher DIR --student DIR --space DIR --out DIR [--dry-run] [--yes]

Without --base the adapter must name a base model that somebody else has published.
The Hub's address comes from --endpoint or HF_ENDPOINT (the public Hub by default), the token from
--token-file or HF_TOKEN, the signing key from --key or EISV_SIGNING_KEY.
"""

import argparse
from functools import partial
from pathlib import Path

from eisv_lumen.errors import exit_with_reason
from eisv_lumen.release import OPTIONAL_ROLES, ROLES
from eisv_lumen.signing import SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.command import add_hub_options, add_signing_options, agreed, connect
from hub.rollout import check_share
from hub.settings import ReleaseSettings


def main() -> None:
    """Validate, commit, read back, tag."""
    arguments = _arguments()
    settings = ReleaseSettings.read(arguments.recipe)
    version = Version.parse(arguments.version)
    key = SigningKey.read(arguments.key)
    more_keys = [SigningKey.read(path) for path in arguments.also_key]
    rollout = None if arguments.rollout is None else check_share(arguments.rollout)
    api, token = connect(arguments)
    from hub.openssf import ModelSigner
    from hub.publication import publish_release

    publish_release(
        api,
        settings,
        version,
        key,
        token,
        {role: folder for role in ROLES if (folder := getattr(arguments, role)) is not None},
        arguments.out,
        more_keys=more_keys,
        trusted=TrustedKeys.read(arguments.trust) if arguments.trust else None,
        models=ModelSigner(arguments.openssf_key) if arguments.openssf_key else None,
        rollout=rollout,
        dry_run=arguments.dry_run,
        agree=None if arguments.yes else partial(agreed, arguments),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.release", description=main.__doc__)
    parser.add_argument("--version", required=True, help="semantic version, such as 0.1.0")
    for role in ROLES:
        required = role not in OPTIONAL_ROLES
        parser.add_argument(f"--{role}", type=Path, required=required, help=f"the {role} folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the record of the release")
    parser.add_argument("--rollout", type=float, help="share of all devices that get it at first, 0 to 1")
    parser.add_argument(
        "--also-key", type=Path, action="append", default=[], help="a further key that signs beside --key"
    )
    parser.add_argument("--openssf-key", type=Path, help="elliptic-curve key for an OpenSSF bundle per model")
    add_hub_options(parser)
    add_signing_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
