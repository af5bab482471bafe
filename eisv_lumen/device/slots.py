"""Two slots for two students, and one file that says which of them speaks.

A slot holds what a device needs of the student's repository at a release: `FILES`, `release.json` and its
signature; no weights for training and no code. The file `current` is replaced by one fsynced rename, so
whatever happens, it names the old or the new slot, and the slot it names is never written to.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eisv_lumen import release
from eisv_lumen.artifact import MANIFEST, fsync_folder
from eisv_lumen.device.home import Home
from eisv_lumen.errors import ArtifactError, ConfigurationError, ResourceError, VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import Release
from eisv_lumen.signing import TrustedKeys

NAMES = ("a", "b")
CURRENT = "current"
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


def current_name(home: Home) -> str | None:
    """Name of the slot that speaks; None when nothing is installed or `current` is damaged."""
    try:
        name = home.read(CURRENT).get("slot")
    except ConfigurationError:
        return None
    return name if name in NAMES else None


def open_slot(home: Home, name: str, trusted: TrustedKeys) -> Slot:
    """A slot with its release, verified.

    Raises:
        VerificationError: It does not hold a release exactly as it was signed.
    """
    folder = home.slots / name
    return Slot(name, folder, verify_slot(folder, trusted))


def open_current(home: Home, trusted: TrustedKeys) -> Slot:
    """The slot that speaks.

    Raises:
        ArtifactError: Nothing has been installed yet.
        VerificationError: It is damaged.
    """
    name = current_name(home)
    if name is None:
        raise ArtifactError(
            found=f"no release in {home.folder}",
            expected="a release that has been pulled",
            next="eisv-lumen pull --repo hikewa/eisv-lumen-student --trust trusted-keys.json",
        )
    return open_slot(home, name, trusted)


def free_name(home: Home) -> str:
    """Name of the slot that does not speak."""
    return NAMES[1] if current_name(home) == NAMES[0] else NAMES[0]


def incoming_folder(home: Home, commit: str) -> Path:
    """Where a release is downloaded to; leftovers of other commits are removed."""
    folder = home.slots / f".incoming-{commit}"
    for path in home.slots.glob(".incoming-*"):
        if path != folder:
            shutil.rmtree(path, ignore_errors=True)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(
            found=f"{folder}: {error.strerror}",
            expected="a writable home folder",
            next="mend its permissions",
        ) from None
    return folder


def install(home: Home, incoming: Path) -> str:
    """Move a complete, verified folder into the free slot; it does not speak yet. Returns the slot's name."""
    name = free_name(home)
    for path in [*incoming.rglob("*"), incoming]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    if (home.slots / name).exists():
        shutil.rmtree(home.slots / name)
    incoming.replace(home.slots / name)
    fsync_folder(home.slots)
    return name


def switch(home: Home, name: str, version: str) -> None:
    """Let a slot speak: one fsynced rename."""
    home.write(CURRENT, {"slot": name, "version": version})


def previous(home: Home, trusted: TrustedKeys) -> Slot:
    """The slot that spoke before.

    Raises:
        VerificationError: It is empty or damaged.
    """
    name = free_name(home)
    if current_name(home) is None or not (home.slots / name).is_dir():
        raise VerificationError(
            found="no earlier release on this device",
            expected="a release to go back to",
            next="eisv-lumen status",
        )
    return open_slot(home, name, trusted)
