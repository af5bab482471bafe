"""Which release a device wants, of those that its repository has."""

from collections.abc import Iterable
from dataclasses import dataclass

from eisv_lumen.device.knowledge import Knowledge
from eisv_lumen.device.settings import Settings
from eisv_lumen.errors import HubError, VerificationError
from eisv_lumen.versions import Version


@dataclass(frozen=True)
class Choice:
    """What to do.

    Attributes:
        version: What to install; None: nothing, what speaks goes on.
        note: Why, in one line for people.
    """

    version: Version | None
    note: str


def choose(
    tags: Iterable[str], settings: Settings, known: Knowledge, device_id: str, running: str | None
) -> Choice:
    """Choose a release.

    The newest one on the channel that is neither yanked nor refused, allowed by the minimum version, rolled
    out to this device, and not waiting for another attempt; never one older than what was installed before.
    A pin is a person's decision: exactly that version, older or not, also before its roll-out comes here;
    only a yank, a refusal or the minimum version sets it aside.

    Args:
        tags: Names of the repository's tags.
        settings: Channel and pin.
        known: What is remembered.
        device_id: The device's random name.
        running: Version of this repository that speaks and may go on; None: none.

    Raises:
        HubError: There is nothing to install, and nothing that could go on.
        VerificationError: Only versions older than what was installed before are left.
    """
    versions = [version for tag in tags if (version := Version.of_tag(tag))]
    pin, aside = settings.pin, ""
    if pin is not None:
        why = known.unwanted(pin)
        if why is None:
            return _pinned(pin, versions, running, settings, known)
        aside = f"; the pin to {pin} is set aside ({why})"
    wanted = [v for v in versions if v.on(settings.channel) and known.unwanted(str(v)) is None]
    here = [version for version in wanted if known.notices.goes_to(device_id, str(version))]
    newest = max((version for version in here if str(version) not in known.waiting), default=None)
    if running is not None and (newest is None or newest <= Version.parse(running)):
        later = max((version for version in wanted if version > Version.parse(running)), default=None)
        waits = f"; {_why_not_yet(later, known)}" if later else ""
        return Choice(None, f"{running} is the newest release allowed here{waits}{aside}")
    if newest is None:
        raise _nothing(settings, known, versions)
    if known.barrier is not None and newest < known.barrier:
        raise VerificationError(
            found=f"{newest}, though {known.barrier} was installed here before",
            expected="a version that is not older",
            next=f"wait for a newer release, or decide to go back with: eisv-lumen pin {newest}",
        )
    return Choice(newest, f"{newest} is the newest release allowed here{aside}")


def _pinned(
    pin: str, versions: list[Version], running: str | None, settings: Settings, known: Knowledge
) -> Choice:
    if running == pin:
        return Choice(None, f"{pin} speaks, and this device is pinned to it")
    if Version.parse(pin) not in versions:
        raise HubError(
            found=f"no release {pin} in {settings.repo_id}, to which this device is pinned",
            expected=f"a tag v{pin}",
            next="eisv-lumen unpin",
        )
    if pin not in known.waiting:
        return Choice(Version.parse(pin), f"this device is pinned to {pin}")
    if running is None:
        raise _nothing(settings, known, versions)
    return Choice(None, f"this device is pinned to {pin}, which waits: {known.waiting[pin]}")


def _why_not_yet(version: Version, known: Knowledge) -> str:
    if str(version) in known.waiting:
        return f"{version} waits: {known.waiting[str(version)]}"
    return f"{version} is being rolled out, and not to this device yet"


def _nothing(settings: Settings, known: Knowledge, versions: list[Version]) -> HubError:
    left_out = [str(version) for version in versions if known.unwanted(str(version))]
    waiting = [f"{version} waits ({why})" for version, why in known.waiting.items()]
    return HubError(
        found=f"no {settings.channel} release among {len(versions)} of {settings.repo_id}"
        + (f", {', '.join(left_out)} refused" if left_out else "")
        + "".join(f", {one}" for one in waiting),
        expected="a tag such as v0.1.0",
        next="check --repo and --channel; pull --retry tries refused releases again",
    )
