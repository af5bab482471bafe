"""What a device has and knows, read anew: nothing is changed, and damage is reported, not raised."""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from eisv_lumen.device import attempts, slots
from eisv_lumen.device.current import CURRENT, NAMES, Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.pauses import waiting
from eisv_lumen.device.probation import read_counts
from eisv_lumen.device.starts import Starts
from eisv_lumen.errors import LumenError


def status(home: Home) -> dict[str, Any]:
    """What the device has and knows, as plain JSON."""
    return {
        "home": os.fspath(home.folder),
        "device_id": _told(home.device_id),
        "settings": _told(lambda: asdict(home.settings())),
        "trusted_keys": _told(lambda: list(home.trusted().key_ids)),
        "keys_sequence": _told(lambda: home.keys_sequence(home.settings().repo_id)),
        "current": _told(lambda: home.read(CURRENT) or None),
        "probation": _told(lambda: _probation(home)),
        "starts": _told(lambda: _starts(home)),
        "notices": _told(lambda: asdict(Knowledge.read(home).notices)),
        "memory": _told(lambda: home.read(STATE)),
        "slots": {name: _slot(home, name) for name in NAMES},
    }


def lines(described: dict[str, Any]) -> list[str]:
    """The same for people."""
    memory, settings = described["memory"], described["settings"]
    shown = [
        f"home      {described['home']}",
        f"device    {_or_problem(described['device_id'])}",
        f"speaks    {_speaks(described)}",
        f"source    {settings.get('repo_id') or settings.get('problem')}",
        f"channel   {settings.get('channel', '-')}, "
        + (f"pinned to {settings['pin']}" if settings.get("pin") else "not pinned"),
        f"trusts    {_or_problem(described['trusted_keys'])}"
        f" (key set {_or_problem(described['keys_sequence'])})",
        f"notices   {described['notices'].get('sequence', '-')}",
    ]
    starts = described["starts"]
    if starts and "crashed" in starts:
        shown.append(f"starts    lost in a row: {starts['crashed']} with the model, {starts['lost']} waiting")
    for name, slot in described["slots"].items():
        detail = slot.get("version") or slot.get("problem") or ""
        shown.append(f"slot {name}    {slot['state']} {slot.get('role') or ''} {detail}".rstrip())
    if memory.get("last_pull"):
        shown.append(f"last pull {memory['last_pull']['time']}: {memory['last_pull']['result']}")
    shown += [
        f"yanked    {version}: {why}" for version, why in described["notices"].get("yanked", {}).items()
    ]
    shown += [f"untested  {line}" for line in attempts.described(memory)]
    shown += [f"waits     {version}: {why}" for version, why in waiting(memory).items()]
    shown += [f"refused   {version}: {why}" for version, why in memory.get("refused", {}).items()]
    return shown


def _speaks(described: dict[str, Any]) -> str:
    current, trial = described["current"] or {}, described["probation"]
    if not current.get("version"):
        return f"the rules ({current.get('left') or current.get('problem') or 'nothing installed yet'})"
    text = f"{current['version']} (slot {current['slot']})"
    if trial and "expressions" in trial:
        limits = trial["limits"]
        text += (
            f", on probation: {trial['expressions']} of {limits['expressions']} expressions, "
            f"{trial['seconds']:.0f} of {limits['seconds']:.0f} s, {trial['failures']} failures"
        )
    return text + (f"; {current['left']}" if current.get("left") else "")


def _probation(home: Home) -> dict[str, Any] | None:
    counts = read_counts(home)
    if counts is None:
        return None
    return {**asdict(counts), "limits": asdict(home.settings().probation)}


def _starts(home: Home) -> dict[str, Any] | None:
    """Starts that came to nothing; None where the last one did not."""
    starts = Starts.read(home)
    return asdict(starts) if starts and starts.crashed + starts.lost else None


def _slot(home: Home, name: str) -> dict[str, Any]:
    current = Current.read(home)
    speaks = current.speaks
    backs = {entry.slot: entry for entry in current.back}
    role = "speaks" if speaks and speaks.slot == name else "to go back to" if name in backs else None
    if not (home.slots / name).exists():
        return {"state": "empty", "role": role}
    entry = speaks if speaks and speaks.slot == name else backs.get(name)
    try:
        slot = slots.open_slot(home, name, home.trusted(), entry.seal if entry else None)
    except LumenError as error:
        return {"state": "damaged", "role": role, "problem": error.found}
    return {
        "state": "verified",
        "role": role,
        "version": slot.version,
        "expires": slot.manifest.expires,
        "repositories": {
            name: {"repo_id": record.repo_id, "commit": record.commit}
            for name, record in slot.manifest.repositories.items()
        },
    }


def _told(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except LumenError as error:
        return {"problem": error.found}


def _or_problem(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["problem"])
    return ", ".join(value) if isinstance(value, list) else str(value)
