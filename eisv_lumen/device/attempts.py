"""How often a release's self-test came to no end: one that takes its test down is not tried for ever.

A test that crashed or took too long, or during which the machine itself went down, counts against the
release, though each alone proves nothing: short memory, a busy processor and a power cut look the same. Three
of them refuse it. An updater that was killed while the machine went on is hardly the release's doing: a
person or a service manager did it, and only a great many of these in a row refuse it. A test that ends, well
or badly, settles the matter; `pull --retry` forgets it.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, with_refusal
from eisv_lumen.device.selftest import SelfTest, UnansweredError
from eisv_lumen.errors import VerificationError

CRASHES = 3
"""Tests without an answer after which a release is refused."""

KILLS = 20
"""Updaters killed during the test, the machine going on, after which it is refused."""

TESTING, ATTEMPTS = "testing", "attempts"
FORGOTTEN: dict[str, Any] = {TESTING: None, ATTEMPTS: {}}
"""Values of `state.json` as if nothing had ever been tested."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
State = dict[str, Any]


def tested(home: Home, version: str, test: Callable[[], SelfTest], at: Callable[[str], None]) -> SelfTest:
    """Run a release's self-test, and remember what came of it.

    Args:
        home: The device's home.
        version: The release's.
        test: The self-test.
        at: Told of `testing`, when it is on record that the test is about to begin.

    Raises:
        VerificationError: It failed, or gave no answer too often; the release is refused from now on.
        ResourceError: It gave no answer, or cannot be run here.
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
        if _change(home, lambda state: _counted(state, version, "crashes", why)):
            raise VerificationError(
                found=why, expected=f"an answer in one of {CRASHES} attempts", next=error.next
            ) from None
        raise
    except BaseException:
        _change(home, lambda state: {**state, TESTING: None})
        raise
    _change(home, lambda state: _settled(state, version))
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
        _change(home, lambda state: _counted(state, version, "crashes", "the machine went down during it"))


def described(state: State) -> list[str]:
    """The releases whose test has given no answer yet, in one line each."""
    return [
        f"{version}: crashed in {entry.get('crashes', 0)} of {CRASHES} self-tests ({entry['last']})"
        for version, entry in state.get(ATTEMPTS, {}).items()
    ]


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


def _counted(state: State, version: str, kind: str, why: str) -> State:
    known = state.get(ATTEMPTS, {}).get(version, {})
    entry = {**known, kind: known.get(kind, 0) + 1, "last": why}
    crashes, kills = entry.get("crashes", 0), entry.get("kills", 0)
    if crashes >= CRASHES or kills >= KILLS:
        times = crashes if crashes >= CRASHES else kills
        return with_refusal(_settled(state, version), version, f"no answer in {times} self-tests; {why}")
    return {**state, TESTING: None, ATTEMPTS: {**state.get(ATTEMPTS, {}), version: entry}}


def _boot() -> str | None:
    """Another one after each start of the machine; None where the system does not tell."""
    with suppress(OSError):
        return _BOOT.read_text("ascii").strip()
    return None
