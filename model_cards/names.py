"""The names under which a recipe publishes: namespace and repositories."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import yaml

from eisv_lumen.errors import ConfigurationError

_REPOSITORY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@dataclass(frozen=True)
class ReleaseNames:
    """The `release` section of a recipe.

    Attributes:
        namespace: User or organisation that owns the repositories.
        dataset: Name of the dataset repository, without namespace; likewise the others.
    """

    namespace: str = "hikewa"
    dataset: str = "unitares-eisv-trajectories"
    base: str = "eisv-lumen-base"
    teacher: str = "eisv-lumen-teacher"
    student: str = "eisv-lumen-student"
    space: str = "eisv-lumen-explorer"

    def __post_init__(self) -> None:
        """Refuse names that no Hub accepts."""
        for field in fields(self):
            name = getattr(self, field.name)
            if not isinstance(name, str) or not name or not _REPOSITORY_CHARACTERS.issuperset(name):
                raise ConfigurationError(
                    found=f"release name {field.name}: {name!r}",
                    expected="letters, digits, '-', '_' and '.'",
                    next="correct the release section of the recipe",
                )

    @classmethod
    def read(cls, recipe: Path) -> Self:
        """The names in a recipe's `release` section; those it leaves out keep their defaults.

        Raises:
            ConfigurationError: The recipe is unreadable, or names something unknown.
        """
        release = _release_section(recipe)
        names = release.get("names") or {}
        unknown = sorted(set(names) - {field.name for field in fields(cls)} - {"namespace"})
        if unknown or "namespace" in names:
            raise ConfigurationError(
                found=f"{recipe}: release.names has {unknown or ['namespace']}",
                expected="dataset, base, teacher, student, space (and namespace beside names)",
                next="correct the recipe",
            )
        namespace = {"namespace": release["namespace"]} if release.get("namespace") else {}
        return cls(**namespace, **names)

    def repo(self, kind: str) -> str:
        """`namespace/name` of the repository of an artifact kind."""
        return f"{self.namespace}/{getattr(self, kind)}"


def _release_section(recipe: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(recipe).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(
            found=f"{recipe}: {type(error).__name__}",
            expected="a recipe in YAML",
            next="pass --recipe recipes/demo.yaml",
        ) from error
    release = content.get("release") if isinstance(content, dict) else None
    if not isinstance(release, dict):
        raise ConfigurationError(
            found=f"{recipe} has no release section",
            expected="release: {namespace: ..., names: {...}}",
            next="add it, as in recipes/demo.yaml",
        )
    return release
