"""A device's home folder: where its settings, memory and models lie, and how they survive a power cut.

device.json    where releases come from       state.json      what the updater must not forget
trust.json     public keys that may sign      current         which slot speaks (see `slots`)
weights.json   what the rules have learned    probation.json  how a new release does (see `probation`)
identity.json  the device's random name       journal.sqlite

Two locks keep an updater and a running service apart: `updating` is held for a whole pull and refuses a
second one; `changing` is held for the moment in which a file that both write is read, changed and replaced.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eisv_lumen.artifact import fsync_folder
from eisv_lumen.device.settings import Settings
from eisv_lumen.errors import ConfigurationError, ResourceError
from eisv_lumen.rules import Rules
from eisv_lumen.signing import TrustedKeys

HOME_VARIABLE = "EISV_LUMEN_HOME"
_IDENTITY = "identity.json"
_LOCK_SECONDS = 30.0
"""Longest wait for `changing`; it is held for milliseconds."""


class Home:
    """A device's home folder.

    Args:
        folder: Created where it does not exist.

    Raises:
        ResourceError: It cannot be created or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _place(folder):
            self.slots.mkdir(parents=True, exist_ok=True)

    @property
    def slots(self) -> Path:
        """Folder of the slots."""
        return self.folder / "slots"

    @property
    def journal(self) -> Path:
        """The journal's database."""
        return self.folder / "journal.sqlite"

    def settings(self) -> Settings:
        """Where releases come from.

        Raises:
            ConfigurationError: Nothing has been configured yet, or the file is damaged.
        """
        try:
            return Settings.of(self.read("device.json"))
        except TypeError:
            raise ConfigurationError(
                found=f"no repository configured in {self.folder}",
                expected="a repository to pull from",
                next="eisv-lumen pull --repo hikewa/eisv-lumen-student --trust trusted-keys.json",
            ) from None

    def device_id(self) -> str:
        """The device's random name, made once; it decides when a staged roll-out reaches it.

        Raises:
            ConfigurationError: The file is damaged.
            ResourceError: It cannot be written.
        """
        known = self.read(_IDENTITY).get("device_id")
        if isinstance(known, str) and known:
            return known
        with self.changing():
            if "device_id" not in self.read(_IDENTITY):
                self.write(_IDENTITY, {"device_id": os.urandom(8).hex()})
        return str(self.read(_IDENTITY)["device_id"])

    def trusted(self) -> TrustedKeys:
        """The public keys this device believes.

        Raises:
            ConfigurationError: None have been given yet.
        """
        if not self.knows_trust:
            raise ConfigurationError(
                found=f"no trusted keys in {self.folder}",
                expected="the publisher's public key",
                next="eisv-lumen pull --trust trusted-keys.json",
            )
        return TrustedKeys.read(self.folder / "trust.json")

    @property
    def knows_trust(self) -> bool:
        """Whether any trusted keys have been given."""
        return (self.folder / "trust.json").exists()

    def keys_sequence(self, repo_id: str) -> int:
        """Number of the key set in `trust.json` in a repository's chain; 0: the one a person gave."""
        stored = self.read("trust.json")
        sequence = stored.get("sequence") if stored.get("repo_id") == repo_id else None
        return sequence if isinstance(sequence, int) else 0

    def give_trust(self, keys: TrustedKeys) -> None:
        """Believe the keys that a person gives, and the key sets that follow on them.

        Giving the same keys again changes nothing: they may have been rotated out since.
        """
        given = list(keys.key_ids)
        if self.knows_trust and self.read("trust.json").get("given") == given:
            return
        # The other way round, a kill between the two would leave the chain of key sets unread.
        if (self.folder / "state.json").exists():
            self.update("state.json", notices_commit=None)
        self.write("trust.json", {**keys.to_dict(), "given": given})

    def trust_key_set(self, keys: TrustedKeys, sequence: int, repo_id: str) -> None:
        """Believe the next key set of a repository's chain, and no other keys, from now on."""
        given = self.read("trust.json").get("given")
        self.write("trust.json", {**keys.to_dict(), "given": given, "sequence": sequence, "repo_id": repo_id})

    def rules(self) -> tuple[Rules, str | None]:
        """The rules with what they have learned here, and why they start afresh where they do."""
        try:
            learned = self.read("weights.json")
            return (Rules.from_dict(learned), None) if learned else (Rules(), None)
        except ValueError as error:
            return Rules(), f"{self.folder / 'weights.json'} is damaged: {str(error).splitlines()[0]}"

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object in the home folder; empty where there is no such file.

        Raises:
            ConfigurationError: The file is damaged or unreadable.
        """
        try:
            content = json.loads((self.folder / name).read_text("utf-8"))
            if not isinstance(content, dict):
                raise ValueError("no object")
            return content
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                found=f"{self.folder / name}: {getattr(error, 'strerror', None) or 'damaged'}",
                expected="what this program wrote there",
                next=f"remove {self.folder / name} and run the command again",
            ) from None

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replace a JSON file so that after a power cut either the old or the new one is there.

        Raises:
            ResourceError: The folder is read-only or the disk is full.
        """
        partial, final = self.folder / f".{name}.partial", self.folder / name
        with _place(final):
            with partial.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=1, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(final)
            fsync_folder(self.folder)

    def update(self, name: str, **values: object) -> dict[str, Any]:
        """Change some values of a JSON file that several processes write; returns all of them."""
        with self.changing():
            content = {**self.read(name), **values}
            self.write(name, content)
        return content

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Hold the updater's lock; it is released even when the process is killed.

        Raises:
            ResourceError: Another updater holds it.
        """
        with self._locked("update.lock", 0.0, "another updater is working"):
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock under which a file that several processes write is read, changed and replaced.

        Raises:
            ResourceError: Somebody has held it for very long.
        """
        with self._locked("change.lock", _LOCK_SECONDS, "another process is writing"):
            yield

    @contextmanager
    def _locked(self, name: str, seconds: float, held: str) -> Iterator[None]:
        with _place(self.folder):
            descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + seconds
        try:
            while not _taken(descriptor):
                if time.monotonic() >= end:
                    raise ResourceError(
                        found=f"{held} in {self.folder}",
                        expected="one at a time",
                        next="wait until it has finished",
                    )
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def default_folder() -> Path:
    """$EISV_LUMEN_HOME, or `eisv-lumen` in the user's data folder."""
    if os.environ.get(HOME_VARIABLE):
        return Path(os.environ[HOME_VARIABLE])
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "eisv-lumen"


@contextmanager
def _place(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ResourceError(
            found=f"{path}: {error.strerror or type(error).__name__}",
            expected="free disk space" if full else "a writable home folder",
            next="free some space" if full else "pass another --home, or mend the folder's permissions",
        ) from None
