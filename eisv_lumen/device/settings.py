"""What `device.json` says: where releases come from, which are wanted, and what a new one must hold to."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.versions import CHANNELS, Version

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_ADDRESS = re.compile(r"https?://[^\s/][^\s]*")


@dataclass(frozen=True)
class Limits:
    """What a new release must hold to while it is on probation.

    Attributes:
        expressions: Expressions after which it is judged, if `seconds` have passed too.
        seconds: Least time of listening before it is judged.
        failures: So many failures of the model to answer end the probation at once.
        starts: So many starts in a row that ended while the model was opened or first asked end it too, and
            after the probation the release is left for as many.
        latency_ms: An expression that takes longer is slow.
        slow_share: Largest share of slow expressions.
        rss_mb: Most resident memory of the service in MiB.
        model_share: Least share of expressions that the model speaks, confident enough for the gate.
    """

    expressions: int = 30
    seconds: float = 600.0
    failures: int = 3
    starts: int = 3
    latency_ms: float = 2000.0
    slow_share: float = 0.1
    rss_mb: float = 200.0
    model_share: float = 0.05

    def __post_init__(self) -> None:
        """Refuse limits that nothing or everything would break."""
        counts = (self.expressions, self.failures, self.starts)
        shares = (self.slow_share, self.model_share)
        whole = all(isinstance(count, int) and count >= 1 for count in counts)
        if not (
            whole
            and self.seconds >= 0
            and self.latency_ms > 0
            and self.rss_mb > 0
            and all(0 <= share <= 1 for share in shares)
        ):
            raise ConfigurationError(
                found=f"probation limits {asdict(self)}",
                expected="counts of at least 1, shares in [0, 1], positive times and memory",
                next='correct or remove "probation" in device.json',
            )


@dataclass(frozen=True)
class Settings:
    """Where releases come from, and which are wanted.

    Attributes:
        hub: Address of the Hub; None for the client's own default.
        repo_id: The student's repository.
        channel: `stable`, or `beta` for prereleases too.
        pin: The only version wanted; None: the newest.
        probation: What a new release must hold to.
    """

    repo_id: str
    hub: str | None = None
    channel: str = "stable"
    pin: str | None = None
    probation: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Settings from `device.json`.

        Raises:
            ConfigurationError: A value cannot be used.
            TypeError: A value is missing or unknown.
        """
        return cls(**{**values, "probation": Limits(**values.get("probation", {}))})

    def __post_init__(self) -> None:
        """Refuse what no Hub could answer."""
        if self.pin is not None:
            Version.parse(self.pin)
        wrong = None
        if not _REPOSITORY.fullmatch(self.repo_id):
            wrong = f"repository {self.repo_id!r}", "namespace/name"
        elif self.hub is not None and not _ADDRESS.fullmatch(self.hub):
            wrong = f"Hub address {self.hub!r}", "an address that starts with http:// or https://"
        elif self.channel not in CHANNELS:
            wrong = f"channel {self.channel!r}", " or ".join(CHANNELS)
        if wrong:
            raise ConfigurationError(found=wrong[0], expected=wrong[1], next="eisv-lumen pull --help")
