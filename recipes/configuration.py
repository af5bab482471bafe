"""The recipe file: which configuration each stage uses, and under which names the result is published."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import yaml

from eisv_lumen.errors import ConfigurationError
from hub.settings import ReleaseSettings

REPOSITORIES = ("dataset", "base", "teacher", "student", "space")
_TRAINED = ("dataset", "base", "teacher", "student", "forest")
_BASE = "base"


@dataclass(frozen=True)
class Record:
    """How long and how often this machine's telemetry is recorded."""

    seconds: float = 60
    hz: float = 2

    def __post_init__(self) -> None:
        """Refuse a recording too short to cut a window from."""
        if self.seconds * self.hz < 20 or self.hz <= 0:
            raise _wrong(f"record: {self.seconds} s at {self.hz} Hz", "at least 20 readings")


@dataclass(frozen=True)
class LocalHub:
    """Where the local Hub keeps its repositories and listens."""

    root: str = "artifacts/hub"
    host: str = "127.0.0.1"
    port: int = 8700


@dataclass(frozen=True)
class Device:
    """How the demo's device listens: that many states, that many seconds apart."""

    states: int = 20
    every: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """A recipe file, checked.

    Attributes:
        path: The file.
        configurations: Configuration file per trained stage. Without one for the base, none is trained and
            published: the teacher's base is the public one that its configuration names.
        release: Names and conditions of the release.
        record: How this machine is recorded.
        hub: The local Hub.
        device: How the demo's device listens.
        sources: Logs that are always read.
    """

    path: Path
    configurations: dict[str, str]
    release: ReleaseSettings
    record: Record = field(default_factory=Record)
    hub: LocalHub = field(default_factory=LocalHub)
    device: Device = field(default_factory=Device)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Every trained stage needs a configuration file that exists, and every repository a name."""
        for stage in _TRAINED:
            name = self.configurations.get(stage)
            if stage == _BASE and stage not in self.configurations:
                continue
            if name is None or not Path(name).is_file():
                raise _wrong(f"{self.path}: configuration of {stage} is {name}", "an existing YAML file")
        for repository in self.repositories:
            self.release.repo_id(repository)

    @property
    def trains_base(self) -> bool:
        """Whether the base model is made, and published, by this recipe."""
        return _BASE in self.configurations

    @property
    def repositories(self) -> tuple[str, ...]:
        """What is published, of `REPOSITORIES`."""
        return tuple(name for name in REPOSITORIES if name != _BASE or self.trains_base)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe.

        Raises:
            ConfigurationError: The file is missing, no YAML mapping, or has unknown or wrong fields.
        """
        try:
            content = yaml.safe_load(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise _wrong(f"{path}: {type(error).__name__}", "a readable YAML recipe") from error
        sections: dict[str, Any] = {
            "record": Record,
            "hub": LocalHub,
            "release": ReleaseSettings,
            "device": Device,
        }
        known = {f.name for f in fields(cls)} - {"path"}
        if not isinstance(content, dict) or set(content) - known:
            raise _wrong(f"{path}: {set(content or ()) - known or 'no mapping'}", ", ".join(sorted(known)))
        try:
            values = {
                name: sections[name](**value) if name in sections else value
                for name, value in content.items()
            }
            values["configurations"] = dict(values.get("configurations") or {})
            values["sources"] = tuple(values.get("sources") or ())
            return cls(path=Path(path), **values)
        except TypeError as error:
            raise _wrong(f"{path}: {error}", "the fields of recipes/demo.yaml") from error


def _wrong(found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        found=found, expected=expected, next="correct the recipe, or start from recipes/demo.yaml"
    )
