"""Cards: the front matter of a README, what is wrong with it, and the page a person reads."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import nh3
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore

from hub.local.licences import LICENCES
from hub.local.names import Kind

_FRONT_MATTER = re.compile(
    r"\A\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_FRONT_MATTER_BYTES = 1 << 20
_REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WORD = re.compile(r"[a-z0-9][a-z0-9-]*")
_SIZES = re.compile(
    r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B|1B<n<10B|10B<n<100B|100B<n<1T|n>1T"
)
_SDKS = ("gradio", "docker", "static", "streamlit")
_COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")


def _align_cells(state: StateCore) -> None:
    """Columns aligned by an attribute: pages allow no styles inside them."""
    for token in state.tokens:
        style = token.attrs.pop("style", None) if token.type in ("th_open", "td_open") else None
        if style:
            token.attrSet("align", str(style).removeprefix("text-align:"))


_markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_markdown.core.ruler.push("align_cells", _align_cells)


@dataclass(frozen=True)
class Card:
    """A README taken apart.

    Attributes:
        data: Its front matter; None where there is none.
        text: The Markdown below it.
    """

    data: dict[str, Any] | None
    text: str


class CardError(ValueError):
    """A front matter that cannot be read at all."""


class _Loader(yaml.SafeLoader):
    """Reads YAML without aliases, which can grow without bound, and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise CardError("YAML aliases are not supported in metadata")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        repeated = (
            {key for key in keys if isinstance(key, str) and keys.count(key) > 1}
            if len(keys) < 1000
            else set()
        )
        if repeated:
            raise CardError(f"duplicated mapping key: {', '.join(sorted(repeated))}")
        return super().construct_mapping(node, deep)


def read_card(content: str) -> Card:
    """Take a README apart.

    Raises:
        CardError: When there is a front matter that is no YAML mapping of plain values.
    """
    match = _FRONT_MATTER.match(content)
    if match is None:
        return Card(None, content)
    if len(match[1]) > _FRONT_MATTER_BYTES:
        raise CardError(f"metadata of more than {_FRONT_MATTER_BYTES} characters")
    try:
        data = yaml.load(match[1], Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        raise CardError(f"bad YAML: {getattr(error, 'problem', None) or 'cannot be read'}{where}") from None
    except RecursionError:
        raise CardError("bad YAML: nested too deeply") from None
    except ValueError as error:  # CardError, or a date that does not exist
        raise CardError(str(error)) from None
    if data is not None and not isinstance(data, dict):
        raise CardError("metadata must be a mapping of names to values")
    return Card(_plain(data) if data else None, content[match.end() :])


def card_data(content: bytes | None) -> dict[str, Any]:
    """The front matter of a README as a repository lists it; empty where it has none that can be read."""
    try:
        return read_card((content or b"").decode("utf-8", "replace")).data or {}
    except CardError:
        return {}


def _plain(value: Any) -> Any:
    """The value as JSON can carry it: dates as text, keys as text."""
    if isinstance(value, dict):
        return {_valid_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise CardError("NaN and infinite numbers are not allowed in metadata")
    if isinstance(value, str):
        return _valid_text(value)
    return value if value is None or isinstance(value, int | float | bool) else str(value)


def _valid_text(text: str) -> str:
    """The text, unless escapes in it make up half a character, which no answer could carry."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise CardError("metadata with text that is not valid Unicode")
    return text


def card_problems(content: str, kind: Kind) -> tuple[list[str], list[str]]:
    """What is wrong with a README's metadata.

    Returns:
        Errors, for which the Hub refuses a commit, and warnings.
    """
    try:
        data = read_card(content).data
    except CardError as error:
        return [str(error)], []
    if not data:
        if kind == "spaces":
            return ["missing configuration in README: a Space needs at least its sdk"], []
        return [], ["empty or missing yaml metadata in repo card"]
    checks = [
        _check_common,
        {"models": _check_model, "datasets": _check_dataset, "spaces": _check_space}[kind],
    ]
    errors = [error for check in checks for error in check(data)]
    warnings = [] if kind == "spaces" or "license" in data else ['"license" is missing']
    return errors, warnings


def _check_common(data: dict[str, Any]) -> Iterator[str]:
    yield from _texts(data, "license", lambda value: value in LICENCES, "a license identifier of the Hub")
    yield from _texts(data, "tags", lambda value: 0 < len(value) <= 128, "of 1 to 128 characters")
    yield from _texts(
        data, "language", lambda value: bool(re.fullmatch(r"[a-zA-Z-]{2,20}", value)), "a language code"
    )
    yield from _texts(data, "datasets", lambda value: bool(_REPO_ID.fullmatch(value)), "a dataset id")
    if data.get("license") == "other" and "license_name" not in data:
        yield '"license_name" is needed when "license" is "other"'
    if "tags" in data and not isinstance(data["tags"], list):
        yield '"tags" must be an array'


def _check_model(data: dict[str, Any]) -> Iterator[str]:
    yield from _texts(
        data, "pipeline_tag", lambda value: bool(_WORD.fullmatch(value)), "a task of the Hub", one=True
    )
    yield from _texts(
        data, "library_name", lambda value: bool(re.fullmatch(r"[\w.+-]+", value)), "a name", one=True
    )
    yield from _texts(
        data, "base_model", lambda value: bool(_REPO_ID.fullmatch(value)), "a model id on the Hub"
    )
    yield from _texts(data, "metrics", lambda value: bool(value), "a metric's name")
    if "model-index" in data:
        yield from _check_model_index(data["model-index"])


def _check_model_index(index: object) -> Iterator[str]:
    if not isinstance(index, list) or not index:
        yield '"model-index" must be an array of models with their results'
        return
    for number, model in enumerate(index):
        place = f'"model-index[{number}]'
        if not isinstance(model, dict) or not isinstance(model.get("name"), str) or not model["name"]:
            yield f'{place}.name" must be a text'
        elif not isinstance(model.get("results"), list):
            yield f'{place}.results" must be an array'
        else:
            for result_number, result in enumerate(model["results"]):
                yield from _check_result(result, f"{place}.results[{result_number}]")
            try:
                model_index_to_eval_results([model])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                yield f'{place}" cannot be read as evaluation results: {type(error).__name__} {error}'


def _check_result(result: object, place: str) -> Iterator[str]:
    if not isinstance(result, dict):
        yield f'{place}" must be an object'
        return
    for part, members in (("task", ("type",)), ("dataset", ("type", "name"))):
        for member in members:
            value = result[part].get(member) if isinstance(result.get(part), dict) else None
            if not isinstance(value, str) or not value:
                yield f'{place}.{part}.{member}" is required'
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield f'{place}.metrics" must be an array with at least one metric'
        return
    for number, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str):
            yield f'{place}.metrics[{number}].type" is required'
        elif metric.get("value") is None:
            yield f'{place}.metrics[{number}].value" is required'


def _check_dataset(data: dict[str, Any]) -> Iterator[str]:
    yield from _texts(
        data, "task_categories", lambda value: bool(_WORD.fullmatch(value)), "a task of the Hub"
    )
    yield from _texts(data, "size_categories", lambda value: bool(_SIZES.fullmatch(value)), "like 1K<n<10K")
    yield from _texts(data, "pretty_name", lambda value: bool(value.strip()), "not empty", one=True)
    configs = data.get("configs", [])
    if not isinstance(configs, list):
        yield '"configs" must be an array'
        return
    for number, config in enumerate(configs):
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            yield f'"configs[{number}].config_name" is required'


def _check_space(data: dict[str, Any]) -> Iterator[str]:
    if data.get("sdk") not in _SDKS:
        yield f'"sdk" must be one of [{", ".join(_SDKS)}]'
    for name in ("colorFrom", "colorTo"):
        if name in data and data[name] not in _COLOURS:
            yield f'"{name}" must be one of [{", ".join(_COLOURS)}]'
    yield from _texts(data, "title", lambda value: bool(value.strip()), "not empty", one=True)
    yield from _texts(
        data, "short_description", lambda value: len(value) <= 60, "of at most 60 characters", one=True
    )
    yield from _texts(
        data, "app_file", lambda value: not value.startswith("/"), "a file of the repository", one=True
    )
    yield from _texts(data, "models", lambda value: bool(_REPO_ID.fullmatch(value)), "a model id")
    if "sdk_version" in data and not isinstance(data["sdk_version"], str):
        yield '"sdk_version" must be a text: put it in quotes'
    if not isinstance(data.get("pinned", False), bool):
        yield '"pinned" must be true or false'


def _texts(
    data: dict[str, Any], name: str, allowed: Callable[[str], bool], expected: str, one: bool = False
) -> Iterator[str]:
    """Errors of a member that holds a text, or several unless there may be only one."""
    if name not in data:
        return
    values = data[name] if isinstance(data[name], list) and not one else [data[name]]
    for value in values:
        if not isinstance(value, str):
            form = "a text" if one else "a text or an array of texts"
            yield f'"{name}" must be {form}, not {json.dumps(value)[:60]}'
        elif not allowed(value):
            yield f'"{name}" with value "{value[:60]}" is not valid: it must be {expected}'


def render_markdown(text: str, base: str) -> str:
    """Markdown as safe HTML: no scripts, styles, forms or frames.

    Args:
        text: Markdown, possibly with HTML in it.
        base: Address that relative links and images are relative to, ending in a slash.
    """

    def absolute(_tag: str, attribute: str, value: str) -> str | None:
        if attribute in ("href", "src") and not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|[/#]", value):
            return base + value.removeprefix("./")
        return value

    return nh3.clean(
        _markdown.render(text),
        attribute_filter=absolute,
        url_schemes={"http", "https", "mailto"},
        clean_content_tags={"script", "style"},
        link_rel="noopener noreferrer nofollow",
    )
