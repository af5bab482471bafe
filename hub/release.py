"""Publish artifact folders to the Hub as one signed release.

    python -m hub.release --recipe recipes/demo.yaml --version 0.1.0 --key release-key.pem --endpoint URL \
        --dataset DIR --base DIR --teacher DIR --student DIR --space DIR --out DIR [--dry-run]

The Hub's address comes from --endpoint or HF_ENDPOINT (the public Hub by default), the token from
--token-file or HF_TOKEN, the signing key from --key or EISV_SIGNING_KEY.
"""

import argparse
import os
import sys
from pathlib import Path

from eisv_lumen.errors import exit_with_reason
from eisv_lumen.hub_client import client, read_token
from eisv_lumen.release import ROLES
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.settings import ReleaseSettings


def main() -> None:
    """Validate, commit, read back, tag."""
    arguments = _arguments()
    settings = ReleaseSettings.read(arguments.recipe)
    version = Version.parse(arguments.version)
    key = SigningKey.read(arguments.key)
    token = read_token(arguments.token_file)
    folders = {role: getattr(arguments, role) for role in ROLES}
    if arguments.endpoint:
        # Read when the client is imported; it checks the addresses of commits against it.
        os.environ["HF_ENDPOINT"] = arguments.endpoint.rstrip("/")
    from huggingface_hub.utils import disable_progress_bars

    from hub.publication import publish_release

    api = client(arguments.endpoint, token)
    if not sys.stderr.isatty():
        disable_progress_bars()
    publish_release(api, settings, version, key, token, folders, arguments.out, dry_run=arguments.dry_run)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.release", description=main.__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"), help="names on the Hub")
    parser.add_argument("--version", required=True, help="semantic version, such as 0.1.0")
    for role in ROLES:
        parser.add_argument(f"--{role}", type=Path, required=True, help=f"the {role} folder")
    parser.add_argument("--endpoint", help="address of the Hub (default: HF_ENDPOINT, or the public Hub)")
    parser.add_argument("--key", type=Path, help="signing key (default: EISV_SIGNING_KEY)")
    parser.add_argument("--token-file", type=Path, help="file with the Hub token (default: HF_TOKEN)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the record of the release")
    parser.add_argument("--dry-run", action="store_true", help="show the difference, write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
