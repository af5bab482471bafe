"""Mark a bad release, so that devices leave it and no other installs it; or take the mark away again.

    python -m hub.yank 0.2.0 --reason "speaks in circles" --key release-key.pem --endpoint URL [--undo]

The release itself stays where it is: tags are never moved, and history stays honest.
"""

import argparse

from eisv_lumen.errors import ConfigurationError, VerificationError, exit_with_reason
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.command import add_hub_options, add_signing_options, agreed, notice_board

MAX_REASON = 500


def main() -> None:
    """Write a signed notice."""
    arguments = _arguments()
    version = str(Version.parse(arguments.version))
    reason = _reason(arguments.reason, undo=arguments.undo)
    key = SigningKey.read(arguments.key)
    from hub.notices import Board, check_key, signed_notices

    board, repo_id = notice_board(arguments, key)

    def change(stands: Board) -> dict[str, bytes] | None:
        check_published(stands.tags, version, repo_id)
        yanked = {name: why for name, why in stands.notices.yanked.items() if name != version}
        if not arguments.undo:
            yanked[version] = reason
        if yanked == stands.notices.yanked:
            return None
        check_key(stands.trusted, key, repo_id)
        return signed_notices(stands.next_notices(yanked=yanked), [key])

    stands = board.read()
    what = f"{version} of {repo_id}"
    if change(stands) is None:
        print(f"{what}: {'not yanked' if arguments.undo else 'yanked already'}, nothing was changed")
        return
    print(f"{what}: {'is no longer yanked' if arguments.undo else f'yanked: {reason}'}", flush=True)
    if agreed(arguments):
        stood, wrote = board.write(f"{'Undo yank of' if arguments.undo else 'Yank'} {version}", change)
        print(f"notice {stood.notices.sequence + int(wrote)} signed by {key.key_id}", flush=True)


def check_published(tags: frozenset[str], version: str, repo_id: str) -> None:
    """Refuse to speak of a release that is not there.

    Raises:
        VerificationError: The repository has no tag of the version.
    """
    if Version.parse(version).tag not in tags:
        raise VerificationError(
            found=f"no release {version} of {repo_id}",
            expected="a version that was published",
            next="python -m hub.history lists them",
        )


def _reason(reason: str | None, *, undo: bool) -> str:
    reason = (reason or "").strip()
    if not undo and (not reason or len(reason) > MAX_REASON or not reason.isprintable()):
        raise ConfigurationError(
            found="no reason" if not reason else "a reason that is too long or not one line",
            expected=f"one line of at most {MAX_REASON} characters, shown on every device",
            next="pass --reason TEXT",
        )
    return reason


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.yank", description=main.__doc__)
    parser.add_argument("version", help="semantic version, such as 0.2.0")
    parser.add_argument("--reason", help="why, in one line")
    parser.add_argument("--undo", action="store_true", help="take the mark away")
    add_hub_options(parser)
    add_signing_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
