"""What the publishing commands have in common: which Hub, by whom, and whether a person agrees."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.hub_client import client, read_token
from eisv_lumen.signing import SigningKey, TrustedKeys

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub.notices import NoticeBoard

RECIPE = Path("recipes/demo.yaml")


def add_hub_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that talks to a Hub."""
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="names on the Hub")
    parser.add_argument("--endpoint", help="address of the Hub (default: HF_ENDPOINT, or the public Hub)")
    parser.add_argument("--token-file", type=Path, help="file with the Hub token (default: HF_TOKEN)")


def add_signing_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that signs and writes."""
    parser.add_argument("--key", type=Path, help="signing key (default: EISV_SIGNING_KEY)")
    parser.add_argument(
        "--trust", type=Path, help="key set given to devices, to follow its rotations from (default: --key's)"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the difference, write nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before writing")


def connect(arguments: argparse.Namespace) -> tuple["HfApi", str | None]:
    """The Hub that the options name, and the token to it."""
    token = read_token(arguments.token_file)
    if arguments.endpoint:
        # Read when the client is imported; it checks the addresses of commits against it.
        os.environ["HF_ENDPOINT"] = arguments.endpoint.rstrip("/")
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    from hub.transport import limit_silence

    limit_silence()
    return client(arguments.endpoint, token), token


def notice_board(arguments: argparse.Namespace, key: SigningKey | None) -> tuple["NoticeBoard", str]:
    """The branch of notices of the recipe's student, and the student's repository."""
    from hub.notices import NoticeBoard
    from hub.remote import Reader
    from hub.retry import Asking
    from hub.settings import ReleaseSettings

    repo_id = ReleaseSettings.read(arguments.recipe).repo_id("student")
    api, _ = connect(arguments)
    reader = Reader(api, Asking(api.endpoint, say))
    return NoticeBoard(reader, repo_id, trusted_keys(arguments, key)), repo_id


def trusted_keys(arguments: argparse.Namespace, key: SigningKey | None) -> TrustedKeys:
    """The key set of --trust, or the signing key's public half.

    Raises:
        ConfigurationError: Neither is given, or a file is unreadable.
    """
    if arguments.trust is not None:
        return TrustedKeys.read(arguments.trust)
    if key is not None:
        return TrustedKeys([key.public])
    raise ConfigurationError(
        found="no keys to verify with", expected="the key set that devices trust", next="pass --trust FILE"
    )


def agreed(arguments: argparse.Namespace) -> bool:
    """Whether to write: after --yes, or a person's yes; never in a dry run.

    Raises:
        ConfigurationError: There is nobody to ask.
    """
    if arguments.dry_run:
        print("dry run: nothing was written", flush=True)
        return False
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(
            found="nobody to ask whether to write",
            expected="a terminal, or --yes",
            next="look at the difference with --dry-run, then add --yes",
        )
    if input("write this? [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("nothing was written", flush=True)
    return False


def say(line: str) -> None:
    """Tell of a step."""
    print(f"  {line}", flush=True)
