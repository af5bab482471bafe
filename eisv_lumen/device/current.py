"""The file `current`: which slot speaks, whether it is on probation, and what it may go back to."""

from dataclasses import asdict, dataclass, field
from typing import Self

from eisv_lumen.device.home import Home
from eisv_lumen.errors import ConfigurationError

NAMES = ("a", "b", "c")
"""Names of the slots."""

CURRENT = "current"


@dataclass(frozen=True)
class Entry:
    """A slot and what was installed there.

    Attributes:
        slot: Its name.
        version: The release's version.
        seal: sha256 over the release manifest and its signature as they were believed when they were
            installed: a key that is revoked later signs nothing new, but does not silence what was installed.
        good: Whether it has passed its probation.
        repo_id: The student's repository that it came from: two repositories number their releases alike, and
            what is known of one version says nothing about the other. None: the one that is followed now.
    """

    slot: str
    version: str
    seal: str | None = None
    good: bool = field(default=False, compare=False)
    repo_id: str | None = None


@dataclass(frozen=True)
class Current:
    """What the file `current` says.

    Attributes:
        speaks: What speaks; None: nothing, or the rules alone.
        trial: Name of the probation that it is on; None: it has passed.
        since: When it was switched to, ISO 8601 in UTC.
        back: What to go back to, what spoke last first.
        left: Why the release before was left, where it was.
    """

    speaks: Entry | None = None
    trial: str | None = None
    since: str | None = None
    back: tuple[Entry, ...] = ()
    left: str | None = None

    @classmethod
    def read(cls, home: Home) -> Self:
        """As it stands in a home; nothing where nothing is installed or the file is damaged."""
        try:
            values = home.read(CURRENT)
            slot, speaks = values.get("slot"), None
            if slot in NAMES:
                # Homes of earlier packages know of no probation: what speaks there has long been kept.
                good = values.get("good", "trial" not in values)
                speaks = Entry(slot, str(values["version"]), values.get("seal"), good, values.get("repo_id"))
            back = tuple(Entry(**entry) for entry in values.get("back", ()) if entry["slot"] in NAMES)
            return cls(speaks, values.get("trial"), values.get("since"), back, values.get("left"))
        except (ConfigurationError, KeyError, TypeError):
            return cls()

    @property
    def last_good(self) -> tuple[Entry, ...]:
        """`back` in the order in which it replaces a failed release: what passed its probation first."""
        return tuple(sorted(self.back, key=lambda entry: not entry.good))

    def write(self, home: Home) -> None:
        """Replace the file in one fsynced rename; the caller holds `home.changing()`."""
        speaks = asdict(self.speaks) if self.speaks else {"slot": None, "version": None}
        back = [asdict(entry) for entry in self.back]
        rest = {"trial": self.trial, "since": self.since, "back": back, "left": self.left}
        home.write(CURRENT, {**speaks, **rest})
