"""YAML settings into frozen dataclasses, checked while they are read.

Every stage has one dataclass for its settings; nested dataclasses become nested mappings in the file, and a
dataclass checks its own values in `__post_init__` by raising `ConfigurationError`.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from eisv_lumen.errors import ConfigurationError

Settings = TypeVar("Settings")


def load(path: Path, settings: type[Settings], overrides: Sequence[str] = ()) -> Settings:
    """The settings in a YAML file.

    Args:
        path: File that holds one mapping.
        settings: Frozen dataclass whose fields may be int, float, bool, str, `X | None`, `Literal`,
            `tuple[X, ...]`, `dict[str, X]` and further dataclasses.
        overrides: Settings that replace those of the file, each `NAME=VALUE` with dots between nested names
            and the value in YAML: `run.epochs=1`.

    Raises:
        ConfigurationError: The file is missing or no YAML mapping, a setting is unknown, missing,
            of another type, or refused by the dataclass itself; or an override is not of that form.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            found=f"{path}: {_first_line(error)}",
            expected="a readable YAML file",
            next="pass an existing file as --config, e.g. one of training/configs/",
        ) from error
    content = content if content is not None else {}
    for override in overrides:
        _override(content, override)
    return from_mapping(content, settings, where=path.name)


def _override(content: Any, override: str) -> None:
    """Put one `NAME=VALUE` into the nested mappings of a file; what they mean is checked afterwards."""
    name, equals, text = override.partition("=")
    *above, last = name.strip().split(".")
    if not (equals and all([*above, last])):
        raise _refused("--set", repr(override), "NAME=VALUE, e.g. run.epochs=1")
    for step in above:
        if isinstance(content, dict) and content.get(step) is None:
            content[step] = {}
        content = content[step] if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise _refused("--set", repr(override), "the name of a setting")
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _refused("--set", repr(override), "a value in YAML") from error


def from_mapping(content: Any, settings: type[Settings], *, where: str = "settings") -> Settings:
    """The settings in a plain mapping, as `load` reads them; `where` names the place in messages."""
    if not isinstance(content, Mapping):
        raise _refused(where, f"{type(content).__name__} {content!r}", "a mapping of settings")
    known = {field.name: field for field in fields(settings)}  # type: ignore[arg-type]
    hints = get_type_hints(settings)
    unknown = [str(name) for name in content if name not in known]
    if unknown:
        raise _refused(where, f"unknown setting {unknown[0]!r}", "one of " + ", ".join(sorted(known)))
    missing = [
        name
        for name, field in known.items()
        if name not in content and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise _refused(where, f"no setting {missing[0]!r}", "a value for it")
    return settings(**{name: _value(content[name], hints[name], f"{where}: {name}") for name in content})


def as_plain(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values, for manifests."""
    return {name: _plain(value) for name, value in asdict(settings).items()}


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Refuse a value in a dataclass's `__post_init__`.

    Raises:
        ConfigurationError: When `condition` does not hold.
    """
    if not condition:
        raise _refused(name, repr(value), expected)


def _value(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        chosen = next(argument for argument in arguments if argument is not type(None))
        return _value(value, chosen, where)
    if origin is Literal:
        if value not in arguments:
            raise _refused(where, repr(value), "one of " + ", ".join(map(repr, arguments)))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _refused(where, repr(value), "a list")
        return tuple(_value(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _refused(where, repr(value), "a mapping")
        return {str(key): _value(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        return from_mapping(value, hint, where=where)  # type: ignore[type-var, arg-type]
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 2e-4 as text.
        try:
            value = float(value)
        except ValueError:
            raise _refused(where, repr(value), "a number") from None
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise _refused(where, repr(value), names.get(hint, str(hint)))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _refused(where: str, found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(found=f"{where}: {found}", expected=expected, next="correct the configuration")


def _first_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__
