"""Releases that wait: what came to no end through nobody's proven fault is tried again, later each time.

A kill, a power cut and a busy machine look the same as a release that does harm. To refuse it for them would
leave a sound release out for ever; to try it at once, again and again, would let a harmful one go on. So it
waits: an hour, four, sixteen, then a day each time. `pull --retry` forgets that.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

PAUSES = "pauses"
"""Where `state.json` has them: `{version: {times, until, why}}`."""

_FIRST, _FACTOR, _LONGEST = timedelta(hours=1), 4, timedelta(days=1)


def with_pause(state: Mapping[str, Any], version: str, why: str) -> dict[str, Any]:
    """What is remembered of a repository, with one more pause of a version, which begins now."""
    known = state.get(PAUSES, {})
    times = int(known.get(version, {}).get("times", 0)) + 1
    length = min(_LONGEST, _FIRST * _FACTOR ** min(times - 1, 9))
    until = (now() + length).isoformat(timespec="seconds")
    return {**state, PAUSES: {**known, version: {"times": times, "until": until, "why": why}}}


def without_pause(state: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The same without any of a version, which has shown that it is sound."""
    return {
        **state,
        PAUSES: {name: entry for name, entry in state.get(PAUSES, {}).items() if name != version},
    }


def waiting(state: Mapping[str, Any]) -> dict[str, str]:
    """Why, and until when, versions are not tried at present."""
    found = {}
    for version, entry in state.get(PAUSES, {}).items():
        left = timedelta(0)
        with suppress(ValueError, KeyError, TypeError):  # a damaged entry holds nothing up
            left = datetime.fromisoformat(entry["until"]) - now()
        # No pause is longer: then the clock was wrong when it began.
        if timedelta(0) < left <= _LONGEST:
            found[version] = f"{entry['why']}; it is tried again after {entry['until']}"
    return found


def now() -> datetime:
    """This moment, by the machine's clock."""
    return datetime.now(UTC)
