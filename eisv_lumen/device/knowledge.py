"""What a device must not forget of a repository's releases, in `state.json`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from eisv_lumen.device.current import Entry
from eisv_lumen.device.home import Home
from eisv_lumen.device.pauses import waiting
from eisv_lumen.errors import ConfigurationError, VerificationError
from eisv_lumen.notices import Notices
from eisv_lumen.versions import Version

STATE = "state.json"
State = dict[str, Any]
_FLOOR = "0.0.0"


@dataclass(frozen=True)
class Knowledge:
    """What is remembered.

    Attributes:
        installed: Versions that have been installed here, outside the slots: no older one is taken unasked.
        refused: Why a version is not installed again.
        waiting: Why, and until when, a version is not tried at present; see `pauses`.
        minimum_version: Oldest version that any release seen here allows.
        notices: What was last believed of the repository's notices.
        notices_commit: The commit of their branch at which all of it was checked.
        newest_time: Newest moment that a signed document has named, for clocks that stand still.
        last_pull: `{"time", "result"}`.
    """

    installed: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    minimum_version: str = _FLOOR
    notices: Notices = field(default_factory=lambda: Notices.empty(""))
    notices_commit: str | None = None
    newest_time: str | None = None
    last_pull: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, home: Home, repo_id: str | None = None) -> Self:
        """As it stands in a home.

        Args:
            home: The device's home.
            repo_id: The repository whose releases it is about; None: the one that is followed now.

        Raises:
            ConfigurationError: `state.json` is damaged: what must not be forgotten is not guessed.
        """
        state = home.read(STATE)
        try:
            values = state if _is_of(state, repo_id) else state.get("others", {}).get(repo_id, {})
            # Homes of earlier packages remember the highest version only.
            installed = [*values.get("installed", []), *filter(None, [values.get("highest_version")])]
            notices = values.get("notices")
            knowledge = cls(
                tuple(str(Version.parse(version)) for version in installed),
                dict(values.get("refused", {})),
                waiting(values),
                str(Version.parse(values.get("minimum_version", _FLOOR))),
                Notices(**notices) if notices else Notices.empty(values.get("repo_id", "")),
                values.get("notices_commit"),
                values.get("newest_time"),
                dict(values.get("last_pull", {})),
            )
        except (TypeError, ValueError, AttributeError, VerificationError):
            raise ConfigurationError(
                found=f"{home.folder / STATE}: damaged",
                expected="what this program wrote there",
                next=f"remove {home.folder / STATE} and run the command again",
            ) from None
        return knowledge

    @property
    def barrier(self) -> Version | None:
        """The highest version that was installed here and is still wanted: nothing older is taken unasked."""
        wanted = [version for version in self.installed if self.unwanted(version) is None]
        return max(map(Version.parse, wanted), default=None)

    def condemned(self, version: str) -> str | None:
        """Why a version may not even go on speaking; None where it may.

        The minimum version is no such reason: it is remembered before the release that asks for it speaks,
        and a kill between the two must leave the old one.
        """
        if version in self.notices.yanked:
            return f"yanked by its publisher: {self.notices.yanked[version]}"
        return self.refused.get(version)

    def unwanted(self, version: str) -> str | None:
        """Why a version may neither be installed nor gone back to; None where it may."""
        why = self.condemned(version)
        if why is not None:
            return why
        if Version.parse(version) < Version.parse(self.minimum_version):
            return f"older than {self.minimum_version}, the least that a later release asks for"
        return None

    def after_install(self, version: str, minimum_version: str, created: str) -> dict[str, Any]:
        """Values of `state.json` that change when a release is installed."""
        installed = sorted({*self.installed, version}, key=Version.parse)[-200:]
        floor = max(Version.parse(self.minimum_version), Version.parse(minimum_version))
        newest = max(filter(None, (self.newest_time, created)), key=datetime.fromisoformat)
        return {
            "installed": installed,
            "highest_version": installed[-1],
            "minimum_version": str(floor),
            "newest_time": newest,
        }


def refuse(home: Home, version: str, why: str, repo_id: str | None = None) -> None:
    """Remember that a version of a repository, or of the one that is followed now, is not installed again."""
    remember(home, repo_id, lambda state: with_refusal(state, version, why))


def remember(home: Home, repo_id: str | None, change: Callable[[State], State]) -> None:
    """Change what is remembered of a repository, or of the one that is followed now, in one step."""
    with home.changing():
        state = home.read(STATE)
        if _is_of(state, repo_id):
            home.write(STATE, change(state))
        else:
            others = state.get("others", {})
            other = change(others.get(repo_id, {"repo_id": repo_id}))
            home.write(STATE, {**state, "others": {**others, repo_id: other}})


def judged(home: Home) -> Callable[[Entry], str | None]:
    """Why a release in a slot may not be gone back to, by what is known of the repository it came from."""
    return lambda entry: Knowledge.read(home, entry.repo_id).unwanted(entry.version)


def _is_of(state: State, repo_id: str | None) -> bool:
    return repo_id is None or state.get("repo_id") in (None, repo_id)


def with_refusal(state: State, version: str, why: str) -> State:
    """What is remembered of a repository, with one more version refused."""
    return {**state, "refused": {**state.get("refused", {}), version: why}}
