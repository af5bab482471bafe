"""A device's home folder: where its settings, memory and models lie, and how they survive a power cut.

device.json   where releases come from        state.json    what the updater must not forget
trust.json    public keys that may sign       current       which slot speaks (see `slots`)
weights.json  what the rules have learned     journal.sqlite
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eisv_lumen.artifact import fsync_folder
from eisv_lumen.errors import ConfigurationError, ResourceError
from eisv_lumen.rules import Rules
from eisv_lumen.signing import TrustedKeys
from eisv_lumen.versions import CHANNELS

HOME_VARIABLE = "EISV_LUMEN_HOME"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_ADDRESS = re.compile(r"https?://[^\s/][^\s]*")


@dataclass(frozen=True)
class Settings:
    """Where releases come from.

    Attributes:
        hub: Address of the Hub; None for the client's own default.
        repo_id: The student's repository.
        channel: `stable`, or `beta` for prereleases too.
    """

    repo_id: str
    hub: str | None = None
    channel: str = "stable"

    def __post_init__(self) -> None:
        """Refuse what no Hub could answer."""
        wrong = None
        if not _REPOSITORY.fullmatch(self.repo_id):
            wrong = f"repository {self.repo_id!r}", "namespace/name"
        elif self.hub is not None and not _ADDRESS.fullmatch(self.hub):
            wrong = f"Hub address {self.hub!r}", "an address that starts with http:// or https://"
        elif self.channel not in CHANNELS:
            wrong = f"channel {self.channel!r}", " or ".join(CHANNELS)
        if wrong:
            raise ConfigurationError(found=wrong[0], expected=wrong[1], next="eisv-lumen pull --help")


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
        """Folder of the two slots."""
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
            return Settings(**self.read("device.json"))
        except TypeError:
            raise ConfigurationError(
                found=f"no repository configured in {self.folder}",
                expected="a repository to pull from",
                next="eisv-lumen pull --repo hikewa/eisv-lumen-student --trust trusted-keys.json",
            ) from None

    def trusted(self) -> TrustedKeys:
        """The public keys this device believes.

        Raises:
            ConfigurationError: None have been given yet.
        """
        if not (self.folder / "trust.json").exists():
            raise ConfigurationError(
                found=f"no trusted keys in {self.folder}",
                expected="the publisher's public key",
                next="eisv-lumen pull --trust trusted-keys.json",
            )
        return TrustedKeys.read(self.folder / "trust.json")

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

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Hold the updater's lock; it is released even when the process is killed.

        Raises:
            ResourceError: Another updater holds it.
        """
        with _place(self.folder):
            descriptor = os.open(self.folder / "update.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResourceError(
                    found=f"another updater is working in {self.folder}",
                    expected="one updater at a time",
                    next="wait until it has finished",
                ) from None
            yield
        finally:
            os.close(descriptor)


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
