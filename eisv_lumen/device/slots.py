"""Three slots for students, and one file that says which of them speaks and which it may go back to.

A slot holds what a device needs of the student's repository at a release: `FILES`, `release.json` and its
signature; no weights for training and no code. The file `current` is replaced by one fsynced rename, so
whatever happens, it names the old or the new slot, and the slot it names is never written to.

One slot speaks, one holds the last good release, and the third takes the next download. With two, a release
on probation could only be replaced by overwriting the last good one, or not at all: a release that never
gets judged, because it crashes or nobody runs the service, would keep its own remedy out.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eisv_lumen import release
from eisv_lumen.artifact import MANIFEST, fsync_folder
from eisv_lumen.device.current import CURRENT as CURRENT
from eisv_lumen.device.current import NAMES, Current, Entry
from eisv_lumen.device.home import Home
from eisv_lumen.errors import ArtifactError, LumenError, ResourceError, VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import Release
from eisv_lumen.signing import TrustedKeys

SIGNED = (STUDENT.release, STUDENT.signature)
FILES = (MANIFEST, STUDENT.config, STUDENT.golden, STUDENT.int8)
"""What a device takes of a student."""


@dataclass(frozen=True)
class Slot:
    """A slot that holds a release, verified down to the last byte."""

    name: str
    folder: Path
    manifest: Release

    @property
    def version(self) -> str:
        """The release's version."""
        return self.manifest.version


def verify_slot(folder: Path, trusted: TrustedKeys) -> Release:
    """Check a folder's signature and every one of its files.

    Raises:
        VerificationError: Anything is missing, altered, or there in excess.
    """
    manifest = release.read(folder, trusted)
    release.verify_files(folder, needed_files(manifest), ignored=SIGNED)
    return manifest


def needed_files(manifest: Release) -> dict[str, dict[str, Any]]:
    """Entries of `FILES` in a release.

    Raises:
        VerificationError: The release lacks one.
    """
    missing = [name for name in FILES if name not in manifest.student.files]
    if missing:
        raise VerificationError(
            found=f"release {manifest.version} without {missing[0]}",
            expected="a student with " + ", ".join(FILES),
            next="do not use it; ask its publisher",
        )
    return {name: manifest.student.files[name] for name in FILES}


def open_slot(home: Home, name: str, trusted: TrustedKeys, seal: str | None = None) -> Slot:
    """A slot with its release, verified.

    Args:
        home: The device's home.
        name: The slot.
        trusted: Keys that may have signed.
        seal: See `Entry`; documents that fit it were believed before and need no signature any more.

    Raises:
        VerificationError: It does not hold a release exactly as it was signed.
    """
    folder = home.slots / name
    if seal is None or seal != _seal(folder):
        return Slot(name, folder, verify_slot(folder, trusted))
    manifest = Release.from_bytes((folder / STUDENT.release).read_bytes())
    release.verify_files(folder, needed_files(manifest), ignored=SIGNED)
    return Slot(name, folder, manifest)


def open_entry(home: Home, entry: Entry, trusted: TrustedKeys) -> Slot:
    """The slot of an entry, verified.

    Raises:
        VerificationError: It does not hold that release, exactly as it was signed.
    """
    slot = open_slot(home, entry.slot, trusted, entry.seal)
    if slot.version != entry.version:
        raise VerificationError(
            found=f"{slot.version} in slot {entry.slot}", expected=entry.version, next="eisv-lumen pull"
        )
    return slot


def open_current(home: Home, trusted: TrustedKeys) -> Slot:
    """The slot that speaks.

    Raises:
        ArtifactError: Nothing has been installed yet, or what was installed was left for the rules.
        VerificationError: It is damaged.
    """
    current = Current.read(home)
    if current.speaks is None:
        raise ArtifactError(
            found=current.left or f"no release in {home.folder}",
            expected="a release that has been pulled",
            next="eisv-lumen pull --repo hikewa/eisv-lumen-student --trust trusted-keys.json",
        )
    return open_entry(home, current.speaks, trusted)


def incoming_folder(home: Home, commit: str) -> Path:
    """Where a release is downloaded to; leftovers of other commits are removed."""
    folder = home.slots / f".incoming-{commit}"
    remove_leftovers(home, keep=folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(
            found=f"{folder}: {error.strerror}",
            expected="a writable home folder",
            next="mend its permissions",
        ) from None
    return folder


def remove_leftovers(home: Home, keep: Path | None = None) -> None:
    """Remove what downloads left that were killed, but for one folder, in which one is to be continued.

    The Hub's client leaves files of its own where it is killed, beside the folder that it writes to.
    """
    for path in home.slots.glob(".incoming-*"):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in home.slots.glob("tmp_*"):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.unlink()


def install(home: Home, incoming: Path) -> str:
    """Move a complete, verified folder into the free slot; it does not speak yet. Returns the slot's name.

    What speaks and the last good release stay untouched.
    """
    for path in [*incoming.rglob("*"), incoming]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    with home.changing():
        current = Current.read(home)
        kept = {entry.slot for entry in (current.speaks, *current.last_good[:1]) if entry}
        older = [entry.slot for entry in reversed(current.back) if entry.slot not in kept]
        name = next(iter([slot for slot in NAMES if slot not in kept.union(older)] or older))
        if name in older:
            back = tuple(entry for entry in current.back if entry.slot != name)
            replace(current, back=back).write(home)
        if (home.slots / name).exists():
            shutil.rmtree(home.slots / name)
        incoming.replace(home.slots / name)
        fsync_folder(home.slots)
    return name


def switch(home: Home, name: str, version: str, *, repo_id: str | None = None, keep: bool = True) -> None:
    """Let a slot speak, on probation: one fsynced rename.

    Args:
        home: The device's home.
        name: The slot.
        version: Its release.
        repo_id: The repository that it came from.
        keep: Whether what spoke until now is sound, and so something to go back to.
    """
    with home.changing():
        now = Current.read(home)
        sound = (now.speaks,) if now.speaks and keep else ()
        back = tuple(entry for entry in (*sound, *now.back) if entry.slot != name)
        entry = Entry(name, version, _seal(home.slots / name), repo_id=repo_id)
        _speak(entry, back).write(home)


def keep(home: Home, trial: str) -> bool:
    """End a probation well; False when another release speaks by now."""
    with home.changing():
        now = Current.read(home)
        if now.trial != trial:
            return False
        speaks = replace(now.speaks, good=True) if now.speaks else None
        Current(speaks, None, now.since, now.back).write(home)
    return True


def go_back(
    home: Home,
    trusted: TrustedKeys,
    unwanted: Callable[[Entry], str | None],
    why: str,
    only: Current | None = None,
) -> Current | None:
    """Leave what speaks: for the last good release that is sound and wanted, else for the rules.

    Nothing is needed but this machine. What is left stays in its slot until another release needs it.

    Args:
        home: The device's home.
        trusted: Keys that may have signed.
        unwanted: Why a release may not speak; None where it may.
        why: Why the release is left.
        only: Leave it only while the same speaks as here, on the same probation.

    Returns:
        What the file `current` says now; None when another release speaks by now.
    """
    with home.changing():
        now = Current.read(home)
        if only is not None and (now.speaks, now.trial, now.since) != (only.speaks, only.trial, only.since):
            return None
        left = f"left {now.speaks.version}: {why}" if now.speaks else why
        entry = last_good(home, now, trusted, unwanted)
        back = tuple(other for other in now.back if other != entry)
        found = _speak(entry, back, left) if entry else Current(since=_now(), back=back, left=left)
        found.write(home)
        return found


def last_good(
    home: Home, current: Current, trusted: TrustedKeys, unwanted: Callable[[Entry], str | None]
) -> Entry | None:
    """The release to go back to: the first that is wanted and sound, every byte verified; None: none is."""
    usable = (entry for entry in current.last_good if unwanted(entry) is None)
    return next((entry for entry in usable if _sound(home, entry, trusted)), None)


def return_to(home: Home, slot: Slot) -> None:
    """Let an earlier release speak again, because a person wants it."""
    with home.changing():
        now = Current.read(home)
        entry = next(entry for entry in now.back if entry.slot == slot.name)
        left = f"left {now.speaks.version}: rolled back by a person" if now.speaks else None
        _speak(entry, tuple(other for other in now.back if other != entry), left).write(home)


def previous(home: Home, trusted: TrustedKeys) -> Slot:
    """The release that spoke before.

    Raises:
        VerificationError: It is empty or damaged.
    """
    back = Current.read(home).back
    if not back:
        raise VerificationError(
            found="no earlier release on this device",
            expected="a release to go back to",
            next="eisv-lumen status",
        )
    return open_entry(home, back[0], trusted)


def _speak(entry: Entry, back: tuple[Entry, ...], left: str | None = None) -> Current:
    """A release that has passed a probation before is on none."""
    return Current(entry, None if entry.good else os.urandom(8).hex(), _now(), back, left)


def _sound(home: Home, entry: Entry, trusted: TrustedKeys) -> bool:
    try:
        open_entry(home, entry, trusted)
    except (LumenError, OSError):
        return False
    return True


def _seal(folder: Path) -> str | None:
    """None where the documents cannot be read, or are too large to be what was installed."""
    digest = hashlib.sha256()
    try:
        for name in SIGNED:
            if (folder / name).stat().st_size > release.MAX_MANIFEST_BYTES:
                return None
            digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    except OSError:
        return None
    return digest.hexdigest()


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat()
