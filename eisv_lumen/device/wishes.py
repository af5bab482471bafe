"""What a person wants of the updater: a pinned version, a channel. The next pull honours it."""

from dataclasses import replace

from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge
from eisv_lumen.errors import VerificationError
from eisv_lumen.versions import Version


def set_pin(home: Home, version: str | None) -> str:
    """Pin a version, or none; returns what that means, for people.

    An older version than the installed one is a person's decision, and allowed.

    Raises:
        ConfigurationError: No version, or no repository has been configured yet.
        VerificationError: The version was yanked or refused, or a later release forbids it.
    """
    home.settings()
    if version is None:
        home.update("device.json", pin=None)
        return "not pinned; eisv-lumen pull takes the newest release allowed here"
    wanted = str(Version.parse(version.removeprefix("v")))
    why = Knowledge.read(home).unwanted(wanted)
    if why is not None:
        raise VerificationError(
            found=f"{wanted}: {why}",
            expected="a version that is neither yanked nor refused",
            next="pin another one; eisv-lumen pull --retry forgets what was refused here",
        )
    home.update("device.json", pin=wanted)
    return f"pinned to {wanted}; eisv-lumen pull installs it, eisv-lumen unpin takes the newest again"


def set_channel(home: Home, channel: str) -> str:
    """Follow a channel from now on; returns what that means, for people.

    Raises:
        ConfigurationError: No such channel, or no repository has been configured yet.
    """
    replace(home.settings(), channel=channel)  # refuses an unknown one
    home.update("device.json", channel=channel)
    return f"channel {channel}; eisv-lumen pull takes its newest release, never one older than before"
