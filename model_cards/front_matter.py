"""Front matter: the YAML head of a card, through an allow-list of the keys the Hub knows.

A key that is not a field here cannot reach a card, and what is None or empty is left out, because the Hub
refuses nulls and shows empty lists as defects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import yaml

from eisv_lumen.errors import ConfigurationError

_LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "bsd-3-clause", "llama3.2", "other")
_COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SHORT_DESCRIPTION_LENGTH = 60


@dataclass(frozen=True, kw_only=True)
class FrontMatter:
    """What every kind of repository may say of itself."""

    license: str
    tags: tuple[str, ...] = ()
    _spelled: ClassVar[dict[str, str]] = {"model_index": "model-index"}

    def __post_init__(self) -> None:
        """Refuse what the Hub would refuse."""
        _one_of("license", self.license, _LICENSES)
        if any(tag != tag.lower().strip() or " " in tag for tag in self.tags):
            raise _invalid("tags", self.tags, "lower-case words without spaces")

    def to_dict(self) -> dict[str, Any]:
        """The keys that have a value, in the order of the fields, as plain YAML types."""
        values = {self._spelled.get(f.name, f.name): _plain(getattr(self, f.name)) for f in fields(self)}
        return {key: value for key, value in values.items() if value not in (None, [], {}, "")}

    def to_yaml(self) -> str:
        """The YAML block without its `---` lines; ends with a newline."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True, kw_only=True)
class DatasetFrontMatter(FrontMatter):
    """Head of a dataset card.

    Attributes:
        configs: Per configuration `{config_name, default?, data_files: [{split, path}]}`.
    """

    pretty_name: str
    language: tuple[str, ...]
    size_categories: tuple[str, ...]
    task_categories: tuple[str, ...]
    annotations_creators: tuple[str, ...] = ()
    configs: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        """Refuse configurations that could not be loaded."""
        super().__post_init__()
        if sum(bool(config.get("default")) for config in self.configs) != 1:
            raise _invalid("configs", [c["config_name"] for c in self.configs], "exactly one default")


@dataclass(frozen=True, kw_only=True)
class ModelFrontMatter(FrontMatter):
    """Head of a model card.

    Attributes:
        base_model: Repository of the model it was made from; `base_model_relation` says how.
        model_index: Measured results, as `huggingface_hub.EvalResult` flattens to and parses from.
    """

    library_name: str
    pipeline_tag: str
    language: tuple[str, ...] = ()
    base_model: str | None = None
    base_model_relation: str | None = None
    datasets: tuple[str, ...] = ()
    model_index: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SpaceFrontMatter(FrontMatter):
    """Head of a Space's card, which is also its configuration on the Hub; spelled as there."""

    title: str
    emoji: str
    colorFrom: str
    colorTo: str
    sdk: str
    sdk_version: str
    python_version: str
    app_file: str
    pinned: bool = False
    short_description: str | None = None
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what the Hub would refuse at push time."""
        super().__post_init__()
        _one_of("colorFrom", self.colorFrom, _COLORS)
        _one_of("colorTo", self.colorTo, _COLORS)
        _one_of("sdk", self.sdk, ("gradio", "docker", "static"))
        if len(self.short_description or "") > _SHORT_DESCRIPTION_LENGTH:
            raise _invalid("short_description", self.short_description, "at most 60 characters")


def size_category(n: int) -> str:
    """The Hub's size category of a number of rows."""
    return next((name for limit, name in _SIZES if n < limit), "1M<n<10M")


def _plain(value: Any) -> Any:
    """Tuples to lists, and no None inside, at any depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if item is not None]
    return value


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _invalid(key, value, "one of " + ", ".join(allowed))


def _invalid(key: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(
        found=f"front matter {key}: {value!r}", expected=expected, next="correct the card's settings"
    )
