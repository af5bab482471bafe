"""How often a release's self-test came to no end: one that takes its test down is not tried for ever.

What a test that ends says, settles the matter. What one says that does not end depends on whose doing it was:

- It crashed: that is an answer, too. Three of them refuse the release.
- It took too long, or the machine went down: a busy processor and a power cut look like that as well. From
  the second time on the release waits before it is tried again (see `pauses`), and only what goes on so for
  most of a day is refused.
- It was killed, or the updater was: a person, a service manager or short memory did it. However often, that
  refuses nothing; after some in a row the release waits.

`pull --retry` forgets all of it.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, State, with_refusal
from eisv_lumen.device.pauses import PAUSES, with_pause
from eisv_lumen.device.selftest import KilledError, SelfTest, TimedOutError, UnansweredError
from eisv_lumen.errors import VerificationError
from eisv_lumen.versions import Version

CRASHES = 3
"""Crashed tests after which a release is refused."""

STALLS = 5
"""Tests that took too long, or with which the machine went down, after which it is refused; with the waits
between them they span most of a day."""

FREE = {"stalls": 1, "kills": 5}
"""How many of them the next pull tries again; after each further one the release waits."""

TESTING, ATTEMPTS = "testing", "attempts"
FORGOTTEN: dict[str, Any] = {TESTING: None, ATTEMPTS: {}, PAUSES: {}}
"""Values of `state.json` as if nothing had ever been tested."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def tested(home: Home, version: str, test: Callable[[], SelfTest], at: Callable[[str], None]) -> SelfTest:
    """Run a release's self-test, and remember what came of it.

    Args:
        home: The device's home.
        version: The release's.
        test: The self-test.
        at: Told of `testing`, when it is on record that the test is about to begin.

    Raises:
        VerificationError: It failed, or came to no end too often; the release is refused from now on.
        ResourceError: It came to no end, or cannot be run here.
    """
    home.update(STATE, **{TESTING: {"version": version, "boot": _boot()}})
    at("testing")
    try:
        measured = test()
    except VerificationError as error:
        why = error.found
        _change(home, lambda state: with_refusal(_settled(state, version), version, why))
        raise
    except UnansweredError as error:
        why = error.found
        kind = _kind(error)
        if _change(home, lambda state: _counted(state, version, kind, why)):
            raise VerificationError(
                found=why, expected=f"an answer in one of {_LIMITS[kind]} attempts", next=error.next
            ) from None
        raise
    except BaseException:
        _change(home, lambda state: {**state, TESTING: None})
        raise
    _change(home, lambda state: _passed(state, version))
    return measured


def settle(home: Home) -> None:
    """Count the test that was under way when the last pull was killed, if one was."""
    interrupted = home.read(STATE).get(TESTING)
    if not isinstance(interrupted, dict):
        return
    version, boot = str(interrupted.get("version")), interrupted.get("boot")
    if boot == _boot():
        _change(home, lambda state: _counted(state, version, "kills", "the updater was killed during it"))
    else:
        _change(home, lambda state: _counted(state, version, "stalls", "the machine went down during it"))


def described(state: State) -> list[str]:
    """The releases whose test has come to no end yet, in one line each."""
    return [
        f"{version}: {'; '.join(_words(kind, entry[kind]) for kind in _WORDS if entry.get(kind))} "
        f"({entry['last']})"
        for version, entry in state.get(ATTEMPTS, {}).items()
    ]


_LIMITS = {"crashes": CRASHES, "stalls": STALLS}
_WORDS = {"crashes": "crashed in", "stalls": "came to no end in", "kills": "was killed in"}


def _words(kind: str, times: int) -> str:
    most = f" of {_LIMITS[kind]}" if kind in _LIMITS else ""
    return f"{_WORDS[kind]} {times}{most} self-tests"


def _kind(error: UnansweredError) -> str:
    if isinstance(error, KilledError):
        return "kills"
    return "stalls" if isinstance(error, TimedOutError) else "crashes"


def _change(home: Home, change: Callable[[State], State]) -> bool:
    """Replace what is remembered in one step; True where a release was refused by it."""
    with home.changing():
        before = home.read(STATE)
        after = change(before)
        home.write(STATE, after)
    return after.get("refused", {}) != before.get("refused", {})


def _settled(state: State, version: str) -> State:
    attempts = {name: entry for name, entry in state.get(ATTEMPTS, {}).items() if name != version}
    return {**state, TESTING: None, ATTEMPTS: attempts}


def _passed(state: State, version: str) -> State:
    """What is older than a release that passed is not tried any more."""
    state, least = _settled(state, version), Version.parse(version)
    for name in (ATTEMPTS, PAUSES):
        newer = {
            known: entry for known, entry in state.get(name, {}).items() if Version.parse(known) >= least
        }
        state = {**state, name: newer}
    return state


def _counted(state: State, version: str, kind: str, why: str) -> State:
    known = state.get(ATTEMPTS, {}).get(version, {})
    entry = {**known, kind: known.get(kind, 0) + 1, "last": why}
    if entry[kind] >= _LIMITS.get(kind, entry[kind] + 1):
        return with_refusal(
            _settled(state, version), version, f"no answer in {entry[kind]} self-tests; {why}"
        )
    if entry[kind] > FREE.get(kind, CRASHES):
        state = with_pause(state, version, f"its self-test came to no end: {why}")
    return {**state, TESTING: None, ATTEMPTS: {**state.get(ATTEMPTS, {}), version: entry}}


def _boot() -> str | None:
    """Another one after each start of the machine; None where the system does not tell."""
    with suppress(OSError):
        return _BOOT.read_text("ascii").strip()
    return None
