"""Starts of the service that never came to speak: how often in a row, and where they ended.

`starts.json` says how far the start under way has come, so the next one knows where it ended. One that ended
while the model was opened, or gave its first answer, ended in the release's own code; some of these in a row
convict it. One that ended while states were waited for was most likely killed by a person, a power cut or
short memory: some more of these only have the release wait (see `pauses`), while something else speaks.
"""

from dataclasses import asdict, dataclass, replace
from typing import Self

from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.errors import ConfigurationError

STARTS = "starts.json"

WITH_MODEL, WAITING = "with the model", "waiting"
"""Where a start may be: the model is opened or asked; or states are waited for."""

LOST = 10
"""Starts in a row that ended while states were waited for, after which something else speaks."""


@dataclass(frozen=True)
class Starts:
    """Starts in a row, of the release that speaks, that never came to speak.

    Attributes:
        release: Its slot, its version, and since when it speaks.
        stage: Where the start under way is; None: it has come to speak, or ended in order.
        crashed: How many ended with the model.
        lost: How many ended elsewhere.
    """

    release: tuple[str, ...]
    stage: str | None = None
    crashed: int = 0
    lost: int = 0

    @classmethod
    def read(cls, home: Home) -> Self | None:
        """Those of what speaks now; None where the rules do."""
        current = Current.read(home)
        if current.speaks is None:
            return None
        release = (current.speaks.slot, current.speaks.version, current.since or "")
        try:
            values = home.read(STARTS)
            found = cls(**{**values, "release": tuple(values["release"])})
        except (ConfigurationError, TypeError, KeyError):
            return cls(release)
        return found if found.release == release else cls(release)

    @property
    def counted(self) -> Self:
        """With the last start among them, if that came to nothing."""
        if self.stage is None:
            return self
        crashed, lost = self.crashed + (self.stage == WITH_MODEL), self.lost + (self.stage == WAITING)
        return replace(self, stage=None, crashed=crashed, lost=lost)

    def write(self, home: Home) -> None:
        """Keep it.

        Raises:
            ResourceError: The folder is read-only or the disk is full.
        """
        home.write(STARTS, asdict(self))
