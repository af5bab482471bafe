"""Say which share of all devices a release goes to; the others wait.

    python -m hub.rollout 0.2.0 0.25 --key release-key.pem --endpoint URL

A device that is among a share is among every larger one. A new release starts with a share by
`python -m hub.release --rollout SHARE`, which says so before the release can be seen.
"""

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from eisv_lumen.errors import ConfigurationError, exit_with_reason
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.command import add_hub_options, add_signing_options, agreed, notice_board
from hub.yank import check_published

if TYPE_CHECKING:
    from hub.notices import Board


def main() -> None:
    """Write a signed notice."""
    parser = argparse.ArgumentParser(prog="python -m hub.rollout", description=main.__doc__)
    parser.add_argument("version", help="semantic version, such as 0.2.0")
    parser.add_argument("share", type=float, help="0 to 1; 1 is everybody")
    add_hub_options(parser)
    add_signing_options(parser)
    arguments = parser.parse_args()
    version, share = str(Version.parse(arguments.version)), check_share(arguments.share)
    key = SigningKey.read(arguments.key)
    board, repo_id = notice_board(arguments, key)
    change = change_share(repo_id, version, share, key)
    stands = board.read()
    check_published(stands.tags, version, repo_id)
    before = stands.notices.rollout.get(version, 1.0)
    if change(stands) is None:
        print(f"{version} of {repo_id}: goes to {share:.0%} already, nothing was changed")
        return
    print(f"{version} of {repo_id}: from {before:.0%} to {share:.0%} of all devices", flush=True)
    if agreed(arguments):
        stood, wrote = board.write(f"Roll {version} out to {share:g}", change)
        print(f"notice {stood.notices.sequence + int(wrote)} signed by {key.key_id}", flush=True)


def check_share(share: float) -> float:
    """A share between 0 and 1.

    Raises:
        ConfigurationError: It is another number, or none.
    """
    if not math.isfinite(share) or not 0 <= share <= 1:
        raise ConfigurationError(
            found=f"a share of {share:g}", expected="0 to 1", next="pass 0.25 for a quarter of all devices"
        )
    return share


def change_share(
    repo_id: str, version: str, share: float, key: SigningKey
) -> Callable[["Board"], dict[str, bytes] | None]:
    """The change of the notices that gives a version to a share of the devices, see `NoticeBoard.write`."""
    from hub.notices import check_key, signed_notices

    def change(stands: "Board") -> dict[str, bytes] | None:
        rollout = {**stands.notices.rollout, version: share}
        if share == 1:
            del rollout[version]
        if rollout == stands.notices.rollout:
            return None
        check_key(stands.trusted, key, repo_id)
        return signed_notices(stands.next_notices(rollout=rollout), [key])

    return change


if __name__ == "__main__":
    exit_with_reason(main)
