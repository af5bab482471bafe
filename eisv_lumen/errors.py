"""Typed errors, each worded as what was found, what was expected, and the next command to run."""

import errno
import sys
from collections.abc import Callable

PLACE_UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
"""Errors of the operating system that a person can mend: no space, no permission, no such folder."""


class LumenError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        found: What was found, in one clause.
        expected: What was expected instead.
        next: What to do about it, preferably a command.
    """

    exit_code = 2

    def __init__(self, *, found: str, expected: str, next: str) -> None:
        self.found = found
        self.expected = expected
        self.next = next
        super().__init__(f"found: {found}\nexpected: {expected}\nnext: {next}")


class InputError(LumenError, ValueError):
    """A value, a file's content or an option cannot be used."""


class SourceError(InputError):
    """A sensor log or database is missing, unreadable, or holds nothing usable."""


class WindowError(InputError):
    """A window of states is malformed: shape, range, order, or too few states."""


class ExpressionError(InputError):
    """A text or an id sequence is no expression."""


class ConfigurationError(InputError):
    """A configuration file or option is unknown, missing, or contradicts another."""


class ArtifactError(LumenError):
    """An artifact folder is incomplete, damaged, or of the wrong kind."""


class GateError(LumenError):
    """An artifact did not reach a gate that it needs for the next step."""


class VerificationError(LumenError):
    """A signature, hash, version or compatibility check refused a release."""


class HubError(LumenError, OSError):
    """The Hub cannot be reached, refused a request, or answered wrongly."""


class ResourceError(LumenError, OSError):
    """The machine lacks something: disk space, a free port, a writable folder, memory."""


class MissingDependencyError(LumenError, ImportError):
    """An optional library is not installed."""


def exit_with_reason(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and leave the process with its exit code.

    A `LumenError` is printed as found / expected / next and leaves with its exit code (2);
    Ctrl-C leaves with 130. Anything else is a bug and keeps its traceback.
    """
    try:
        code = main()
    except LumenError as error:
        code = _say(error)
    except OSError as error:
        if error.errno not in PLACE_UNUSABLE:
            raise
        code = _say(
            ResourceError(
                found=f"{error.filename or 'a file'}: {error.strerror}",
                expected="a writable place with free space",
                next="mend its permissions or free some space, then run the same command again",
            )
        )
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def _say(error: LumenError) -> int:
    print(f"error: {type(error).__name__}\n{error}", file=sys.stderr)
    return error.exit_code
