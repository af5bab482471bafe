"""What a recipe says of its release: names on the Hub, expiry, and how far back a device may go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.release import OPTIONAL_ROLES, ROLES
from eisv_lumen.versions import Version


@dataclass(frozen=True)
class ReleaseSettings:
    """The `release:` section of a recipe.

    Attributes:
        namespace: User or organisation on the Hub.
        names: Repository name per role: dataset, base, teacher, student, space; the base's only where the
            release publishes one.
        first_version: Version of the first release; read by the recipe's runner.
        private: Whether repositories are created private.
        expires_days: Days after which no device installs the release any more; None: never.
        minimum_version: Oldest version that devices may still go back to.
    """

    namespace: str
    names: dict[str, str]
    first_version: str = "0.1.0"
    private: bool = False
    expires_days: int | None = None
    minimum_version: str = "0.0.0"

    def __post_init__(self) -> None:
        """Refuse missing or unknown names and unreadable versions."""
        named = isinstance(self.names, dict) and {*self.names, *OPTIONAL_ROLES} == set(ROLES)
        if not named or not self.namespace:
            raise _wrong(
                "release.namespace and release.names",
                f"a namespace and names of {', '.join(ROLES)} (the base's where one is published)",
            )
        if self.expires_days is not None and self.expires_days <= 0:
            raise _wrong(
                f"release.expires_days: {self.expires_days}", "a positive number of days, or nothing"
            )
        for version in (self.first_version, self.minimum_version):
            Version.parse(version)

    def repo_id(self, role: str) -> str:
        """`namespace/name` of a role's repository.

        Raises:
            ConfigurationError: It has no name.
        """
        if role not in self.names:
            raise _wrong(f"no release.names.{role}", f"the name of the {role}'s repository")
        return f"{self.namespace}/{self.names[role]}"

    @classmethod
    def read(cls, recipe: Path) -> Self:
        """Read the section from a recipe file.

        Raises:
            ConfigurationError: The file is unreadable, or the section is missing or has wrong fields.
        """
        try:
            content: Any = yaml.safe_load(recipe.read_text("utf-8"))
            return cls(**content["release"])
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise _wrong(f"{recipe}: {type(error).__name__}", "a readable YAML recipe") from error
        except (KeyError, TypeError) as error:
            raise _wrong(f"{recipe}: {error}", "a release section as in recipes/demo.yaml") from error


def _wrong(found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        found=found, expected=expected, next="correct the recipe, or start from recipes/demo.yaml"
    )
