"""Settings of a dataset, read from YAML and checked on construction."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.sensors import STANDARD_PRESSURE
from eisv_lumen.windows import STRIDE, WINDOW_LENGTH

NATIVE = "native"
MOST_PURGED = 10_000
Section = TypeVar("Section")


@dataclass(frozen=True)
class SplitSettings:
    """How real windows are divided.

    Attributes:
        validation: Share of each device's time.
        test: Share of each device's time.
        purge_states: States left out between two splits.
    """

    validation: float = 0.1
    test: float = 0.1
    purge_states: int = 20

    def __post_init__(self) -> None:
        """Shares must leave something to train on."""
        shares = (self.validation, self.test)
        if not (min(shares) >= 0 and sum(shares) <= 0.5 and 1 <= self.purge_states <= MOST_PURGED):
            raise _refused(
                f"splits {asdict(self)}",
                f"shares of at most half together, and a purge of 1 to {MOST_PURGED} states",
            )


@dataclass(frozen=True)
class TrainSettings:
    """What the train split is blended from.

    Attributes:
        windows: Windows in all; None takes every real window.
        real_share: Share of real windows where there are enough; synthetic ones fill the rest.
    """

    windows: int | None = 4000
    real_share: float = 0.5

    def __post_init__(self) -> None:
        """A share is a share."""
        if not 0 < self.real_share <= 1 or (self.windows is not None and self.windows < 1):
            raise _refused(f"train {asdict(self)}", "a positive number of windows, and a share in (0, 1]")


@dataclass(frozen=True)
class HeldOutSettings:
    """Size of a held-out split: at most so many real windows, exactly so many synthetic ones."""

    real: int | None = 400
    synthetic: int = 270

    def __post_init__(self) -> None:
        """Sizes are not negative."""
        if min(self.real or 0, self.synthetic) < 0:
            raise _refused(f"a held-out split of {asdict(self)}", "sizes of 0 or more")


@dataclass(frozen=True)
class SyntheticSettings:
    """Synthetic trajectories: seconds between states; every shape is generated at every cadence."""

    cadences: tuple[float, ...] = (0.5, 1.0, 2.0, 10.0, 30.0, 60.0, 300.0)

    def __post_init__(self) -> None:
        """Cadences are positive."""
        if not self.cadences or not all(0 < cadence < math.inf for cadence in self.cadences):
            raise _refused(f"cadences {list(self.cadences)}", "one or more positive numbers of seconds")


@dataclass(frozen=True)
class DatasetSettings:
    """Everything that shapes a dataset besides its sources.

    Attributes:
        seed: Seed of the split, the synthetic trajectories and the labelled expressions.
        site_pressure: Usual pressure where the logs were recorded, in hPa.
        length: States per window.
        stride: States between the beginnings of two windows.
        scales: `native`, or seconds per bin such as `30s`.
    """

    seed: int = 0
    site_pressure: float = STANDARD_PRESSURE
    length: int = WINDOW_LENGTH
    stride: int = STRIDE
    scales: tuple[str, ...] = (NATIVE, "30s", "300s")
    splits: SplitSettings = field(default_factory=SplitSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    validation: HeldOutSettings = field(default_factory=HeldOutSettings)
    test: HeldOutSettings = field(default_factory=HeldOutSettings)
    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)

    def __post_init__(self) -> None:
        """Scales must be readable, windows not empty."""
        if not 4 <= self.length <= WINDOW_LENGTH or not self.stride >= 1:
            raise _refused(
                f"windows of {self.length} every {self.stride} states",
                f"4 to {WINDOW_LENGTH} states, and a stride of at least 1",
            )
        if self.seed < 0 or not math.isfinite(self.site_pressure):
            raise _refused(
                f"seed {self.seed}, site_pressure {self.site_pressure}", "a seed of 0 or more, hPa"
            )
        if not self.scales or len({scale_cadence(scale) for scale in self.scales}) < len(self.scales):
            raise _refused(f"scales {list(self.scales)}", "one or more different scales")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        plain = asdict(self)
        plain["scales"] = list(self.scales)
        plain["synthetic"]["cadences"] = list(self.synthetic.cadences)
        return plain

    @classmethod
    def read(cls, path: Path) -> Self:
        """Settings from a YAML file.

        Raises:
            ConfigurationError: The file is missing, no YAML mapping, or has unknown or wrong fields.
        """
        import yaml  # not needed, nor waited for, where the defaults are used

        try:
            content = yaml.safe_load(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise _refused(f"{path}: {type(error).__name__}", "a readable YAML file") from error
        return _section(cls, content or {}, Path(path).name)


def scale_cadence(scale: str) -> float | None:
    """Seconds per bin of a scale's name; None for `native`.

    Raises:
        ConfigurationError: The name is neither `native` nor seconds such as `30s`.
    """
    if scale == NATIVE:
        return None
    number = scale.removesuffix("s")
    if number == scale or not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise _refused(f"scale {scale!r}", "native, or seconds per bin such as 30s")
    return float(number)


_SECTIONS: dict[str, type] = {
    "splits": SplitSettings,
    "train": TrainSettings,
    "validation": HeldOutSettings,
    "test": HeldOutSettings,
    "synthetic": SyntheticSettings,
}
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "int | None": (int, type(None))}


def _section(kind: type[Section], content: Any, where: str) -> Section:
    if not isinstance(content, Mapping):
        raise _refused(f"{where}: {type(content).__name__}", "a mapping of settings")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in known:
            raise _refused(f"{where}: unknown setting {name!r}", "one of " + ", ".join(known))
        if kind is DatasetSettings and name in _SECTIONS:
            value = _section(_SECTIONS[name], value, f"{where}: {name}")
        elif isinstance(value, list):
            value = tuple(value)
        values[name] = _checked(value, known[name].type, f"{where}: {name}")
    return kind(**values)


def _checked(value: Any, annotation: Any, where: str) -> Any:
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if name.startswith("tuple") or str(annotation).startswith("tuple"):
        wanted: tuple[type, ...] = (str,) if "str" in str(annotation) else (int, float)
        fits = isinstance(value, tuple) and all(
            isinstance(item, wanted) and not isinstance(item, bool) for item in value
        )
    else:
        kinds = _KINDS.get(str(annotation), _KINDS.get(name))
        fits = kinds is None or (isinstance(value, kinds) and not isinstance(value, bool))
    if not fits:
        raise _refused(f"{where}: {value!r}", f"a value of type {name}")
    return value


def _refused(found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        found=found,
        expected=expected,
        next="correct the configuration, or start from dataset_builder/configs/default.yaml",
    )
