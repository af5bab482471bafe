"""Units in which a log may give a channel: their words, and how each becomes the unit in the channel's name.

A unit is converted where the log's mapping declares it. One that a column's name states, or that its values
suggest, is pointed out and left to the user: nothing is guessed.
"""

import re
from typing import NamedTuple

import numpy as np

from eisv_lumen.sensors import BANDS, LOAD, PLAUSIBLE, TELEMETRY


class Conversion(NamedTuple):
    """Value in the channel's unit = (value - zero) * times / over: round values stay round."""

    zero: float = 0.0
    times: float = 1.0
    over: float = 1.0


_SAME = Conversion()
_TEMPERATURE = {
    "°C": _SAME,
    "°F": Conversion(zero=32.0, over=1.8),
    "K": Conversion(zero=273.15),
    "m°C": Conversion(over=1000.0),
}
_PRESSURE = {
    "hPa": _SAME,
    "inHg": Conversion(times=33.863886666667),
    "kPa": Conversion(times=10.0),
    "Pa": Conversion(over=100.0),
    "mmHg": Conversion(times=1.33322387415),
}
_PERCENT = {"%": _SAME, "fraction": Conversion(times=100.0)}
UNITS: dict[str, dict[str, Conversion]] = {
    "cpu_temp_c": _TEMPERATURE,
    "ambient_temp_c": _TEMPERATURE,
    "humidity_pct": _PERCENT,
    "light_lux": {"lux": _SAME, "klux": Conversion(times=1000.0)},
    "pressure_hpa": _PRESSURE,
    **dict.fromkeys(LOAD, _PERCENT),
    **{name: {"per second": _SAME} for name in TELEMETRY},
    **{name: {"fraction": _SAME, "%": Conversion(over=100.0)} for name in BANDS},
}
"""Per channel its units, the channel's own first."""
TIME_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Per unit of a time since the epoch: how many make a second."""

_WORDS = {
    "°C": "c degc degreec degreesc celsius degcelsius degreecelsius degreescelsius centigrade",
    "°F": "f degf degreef degreesf fahrenheit degfahrenheit degreesfahrenheit",
    "K": "k degk kelvin degreeskelvin",
    "m°C": "mc mdegc millic millidegc millidegree millidegrees millidegreec millidegreesc millidegreecelsius "
    "millidegreescelsius millicelsius mcelsius",
    "hPa": "hpa hectopascal hectopascals mbar mb millibar millibars",
    "Pa": "pa pascal pascals",
    "kPa": "kpa kilopascal kilopascals",
    "inHg": "inhg inchhg incheshg inchesofmercury inchofmercury",
    "mmHg": "mmhg torr millimetersofmercury millimetresofmercury",
    "%": "pct percent percentage percents pctrh percentrh rhpct",
    "fraction": "fraction frac ratio share 01 1",
    "lux": "lux lx",
    "klux": "klux klx kilolux",
    "per second": "pers persecond persec s ms mspers msper bytespers bpers hz",
}
_UNIT_OF = {word: unit for unit, words in _WORDS.items() for word in words.split()}
_TIME_WORDS = {
    "s": "s sec second seconds",
    "ms": "ms millisecond milliseconds",
    "us": "us µs microsecond microseconds",
    "ns": "ns nanosecond nanoseconds",
}
_TIME_OF = {word: unit for unit, words in _TIME_WORDS.items() for word in words.split()}

SUSPICIOUS = {
    "humidity_pct": (0.0, 1.0, "fraction"),
    "memory_pct": (0.0, 1.0, "fraction"),
    "disk_pct": (0.0, 1.0, "fraction"),
    "ambient_temp_c": (45.0, 85.0, "°F"),
}
"""Possible values that, when a log holds no others, more likely are of another unit."""
_ENOUGH_VALUES = 20
_NEARLY_ALL = 0.95


def unit_of(word: str, channel: str) -> str | None:
    """The unit of a channel (or of `time`) that a word such as `degF` or `mbar` means, if any."""
    text = word.lower().replace("%", "pct").replace("/", "per").replace("μ", "µ")
    text = re.sub(r"[^a-z0-9µ]", "", text)
    if channel == "time":
        return _TIME_OF.get(text)
    unit = _UNIT_OF.get(text)
    return unit if unit in UNITS[channel] else None


def own_unit(channel: str) -> str:
    """The unit in a channel's name; seconds of `time`."""
    return next(iter(TIME_UNITS if channel == "time" else UNITS[channel]))


def convert(values: np.ndarray, channel: str, unit: str | None) -> np.ndarray:
    """`[N]` values in the channel's own unit; None stands for that unit."""
    if unit is None or unit == own_unit(channel):
        return values
    zero, times, over = UNITS[channel][unit]
    return (values - zero) * times / over


class UnitWatch:
    """Sees whether the values of a channel look like another unit than its own, chunk by chunk."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._count = 0
        self._possible = dict.fromkeys(UNITS[channel], 0)
        self._low, self._high = np.inf, -np.inf

    def update(self, values: np.ndarray) -> None:
        """The next values `[N]`, NaN where missing."""
        known = values[~np.isnan(values)]
        if not len(known):
            return
        self._count += len(known)
        self._low, self._high = min(self._low, float(known.min())), max(self._high, float(known.max()))
        own, *others = self._possible
        impossible = known[~_possible(known, self._channel, own)]
        self._possible[own] += len(known) - len(impossible)
        for unit in others if len(impossible) else ():
            self._possible[unit] += int(_possible(impossible, self._channel, unit).sum())

    def suspicion(self) -> tuple[str, str] | None:
        """The unit that the values suggest, and why; None where they look right."""
        if self._count < _ENOUGH_VALUES:
            return None
        own, *others = self._possible
        if self._count - self._possible[own] >= _NEARLY_ALL * self._count:
            for unit in others:
                if self._possible[unit] >= _NEARLY_ALL * self._count:
                    return unit, f"its values ({self._low:g} to {self._high:g}) are impossible in {own}"
        low, high, unit = SUSPICIOUS.get(self._channel, (np.inf, -np.inf, ""))
        if low <= self._low < self._high <= high:
            return unit, f"its values lie between {self._low:g} and {self._high:g} {own}"
        return None


def _possible(values: np.ndarray, channel: str, unit: str) -> np.ndarray:
    low, high = PLAUSIBLE[channel]
    with np.errstate(invalid="ignore", over="ignore"):
        converted = convert(values, channel, unit)
        return (converted >= low) & (converted <= high)
