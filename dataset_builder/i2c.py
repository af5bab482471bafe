"""Sensors on the I2C bus as channels of a reading, through Adafruit's CircuitPython libraries.

The libraries are optional: without them, or without a bus, there are simply no such channels. A sensor that
fails while recording is missing until it answers again; nothing it does ends the recording.
"""

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

from eisv_lumen.errors import ConfigurationError, LumenError, MissingDependencyError, ResourceError
from eisv_lumen.sensors import PLAUSIBLE

MAX_HZ = 2.0
"""An AHT20 and a BME280 measure anew for each channel they are asked for: about 0.3 s for both."""
PATIENCE = 1.0
"""Seconds to wait for the bus; the drivers' own loops wait without end for a sensor that stays busy."""
BACKOFF = (1.0, 60.0)
"""First and longest pause in seconds before a sensor that failed is tried again."""
TRIES, TRY_PAUSE = 3, 0.1


@dataclass(frozen=True)
class Kind:
    """A kind of sensor and its driver.

    Attributes:
        name: As it is asked for.
        module: Module of the driver; `driver` is the class in it, made from the bus and an address.
        package: What pip installs.
        addresses: Where it may be on the bus.
        attributes: Channel -> attribute of the driver, in the unit of the channel.
        settle: Seconds after its start until a reading means something.
    """

    name: str
    module: str
    driver: str
    package: str
    addresses: tuple[int, ...]
    attributes: dict[str, str]
    settle: float = 0.0


KINDS = (
    Kind(
        "aht20",
        "adafruit_ahtx0",
        "AHTx0",
        "adafruit-circuitpython-ahtx0",
        (0x38,),
        {"ambient_temp_c": "temperature", "humidity_pct": "relative_humidity"},
    ),
    Kind(
        "bme280",
        "adafruit_bme280.basic",
        "Adafruit_BME280_I2C",
        "adafruit-circuitpython-bme280",
        (0x77, 0x76),
        {"ambient_temp_c": "temperature", "humidity_pct": "relative_humidity", "pressure_hpa": "pressure"},
    ),
    Kind(
        "bmp280",
        "adafruit_bmp280",
        "Adafruit_BMP280_I2C",
        "adafruit-circuitpython-bmp280",
        (0x77, 0x76),
        {"ambient_temp_c": "temperature", "pressure_hpa": "pressure"},
    ),
    # Not `autolux`: in the dark it takes seconds, and it changes the resolution from reading to reading.
    Kind(
        "veml7700",
        "adafruit_veml7700",
        "VEML7700",
        "adafruit-circuitpython-veml7700",
        (0x10,),
        {"light_lux": "lux"},
        settle=0.25,
    ),
)
"""In order of precedence: a channel is the first one's that has it (the more exact), and never changes hands,
because a change of sensor would look like a change of the room."""


def say(note: str) -> None:
    """Tell the person who records."""
    print(f"recording: {note}", file=sys.stderr, flush=True)


class Sensor:
    """One sensor that answers, and the channels that are read from it; `start` makes its driver or raises."""

    def __init__(self, kind: Kind, address: int, channels: tuple[str, ...], start: Callable[[], Any]) -> None:
        self.kind, self.address, self.channels = kind, address, channels
        self._start = start
        self._driver = start()
        self._failures = 0
        self._not_before = time.monotonic() + kind.settle

    def read(self, tell: Callable[[str], None] = say) -> dict[str, float]:
        """`{channel: value}` now, without what is missing; of a sensor that failed, nothing until it is back.

        A value that such a sensor cannot report is missing too.
        """
        if not self.channels or time.monotonic() < self._not_before:
            return {}
        try:
            if self._driver is None:  # after a dip of its supply it has lost its settings: start it anew
                self._driver = self._start()
                self._not_before = time.monotonic() + self.kind.settle
                if self.kind.settle:
                    return {}
            values = {name: self._value(name) for name in self.channels}
            values = {name: value for name, value in values.items() if _possible(name, value)}
            if not values:
                raise ValueError("no possible value")
        except Exception as error:  # drivers raise OSError, RuntimeError, ArithmeticError, TypeError, ...
            self._failed(error, tell)
            return {}
        if self._failures:
            tell(f"{self} answers again")
        self._failures = 0
        return values

    def _value(self, channel: str) -> float:
        value = getattr(self._driver, self.kind.attributes[channel])
        return float("nan") if value is None else float(value)

    def _failed(self, error: Exception, tell: Callable[[str], None]) -> None:
        if not self._failures:
            reason = str(error) or type(error).__name__
            tell(f"{self} fails ({reason}): {', '.join(self.channels)} missing until it answers")
        pause = min(BACKOFF[0] * 2.0 ** min(self._failures, 16), BACKOFF[1])
        self._driver, self._failures = None, self._failures + 1
        self._not_before = time.monotonic() + pause

    def __str__(self) -> str:
        return f"{self.kind.name} at 0x{self.address:02x}"


class Sensors:
    """All sensors of the bus.

    Attributes:
        channels: What they measure together, each channel from one of them.
    """

    def __init__(self, sensors: Sequence[Sensor] = (), tell: Callable[[str], None] = say) -> None:
        self._sensors, self._tell = tuple(sensors), tell
        self._reader: Thread | None = None
        self.channels = tuple(channel for sensor in self._sensors for channel in sensor.channels)

    def read(self) -> dict[str, float]:
        """`{channel: value}` now, without what is missing, within `PATIENCE` seconds; never raises.

        A driver that hangs holds the whole bus: until it returns, all of its channels are missing.
        """
        if not self._sensors or (self._reader is not None and self._reader.is_alive()):
            return {}
        found: dict[str, float] = {}
        self._reader = Thread(target=self._read, args=(found,), daemon=True)
        self._reader.start()
        self._reader.join(PATIENCE)
        if self._reader.is_alive():
            self._tell("the I2C bus hangs: its channels are missing until it answers")
        return dict(found)

    def _read(self, found: dict[str, float]) -> None:
        for sensor in self._sensors:
            found.update(sensor.read(self._tell))

    def describe(self) -> list[dict[str, Any]]:
        """Per sensor its name, address and channels, and those it has but another one is read for."""
        return [
            {
                "name": sensor.kind.name,
                "address": f"0x{sensor.address:02x}",
                "channels": list(sensor.channels),
                "left_to_others": [c for c in sensor.kind.attributes if c not in sensor.channels],
            }
            for sensor in self._sensors
        ]

    def __str__(self) -> str:
        parts = []
        for sensor in self._sensors:
            others = [channel for channel in sensor.kind.attributes if channel not in sensor.channels]
            left = f" ({', '.join(others)} left to another)" if others else ""
            parts.append(f"{sensor}: {', '.join(sensor.channels) or 'nothing'}{left}")
        return "; ".join(parts) or "no I2C sensors"


def installed() -> bool:
    """Is Blinka there, which every driver needs?"""
    return importlib.util.find_spec("adafruit_blinka") is not None


def probe(wanted: Sequence[str] | None = None, tell: Callable[[str], None] = say) -> Sensors:
    """Find the sensors that answer.

    Args:
        wanted: Names from `KINDS`, each of which must answer; None for whatever answers.
        tell: Where notes go while recording.

    Raises:
        ConfigurationError: A name that is no sensor.
        MissingDependencyError: The library of a wanted sensor is not installed.
        ResourceError: There is no I2C bus, or a wanted sensor does not answer.
    """
    _check_names(wanted or ())
    kinds = [kind for kind in KINDS if wanted is None or kind.name in wanted]
    drivers = {}
    for kind in kinds:
        try:
            drivers[kind.name] = _load(kind)
        except LumenError:
            if wanted is not None:
                raise
    if not drivers:
        return Sensors()
    try:
        bus = _bus()
    except LumenError:
        if wanted is not None:
            raise
        return Sensors()
    found: list[Sensor] = []
    for kind in kinds:
        if kind.name in drivers:
            found += _find(kind, drivers[kind.name], bus, found, required=wanted is not None)
    return Sensors(found, tell)


def _find(kind: Kind, driver: Any, bus: Any, before: list[Sensor], required: bool) -> list[Sensor]:
    """The sensor at one of its addresses, with the channels that no sensor before it has; or nothing."""
    taken = {sensor.address for sensor in before}
    free = [address for address in kind.addresses if address not in taken]
    known = {channel for sensor in before for channel in sensor.channels}
    channels = tuple(channel for channel in kind.attributes if channel not in known)
    reason: Exception | None = None
    for attempt in range(TRIES if free else 0):
        time.sleep(TRY_PAUSE if attempt else 0.0)
        for address in free:
            try:
                return [Sensor(kind, address, channels, partial(driver, bus, address))]
            except Exception as error:  # nothing there, another chip there, or a bus that fails
                reason = error
    if required:
        raise ResourceError(
            found=f"no {kind.name} ({reason or 'its addresses belong to another sensor'})",
            expected="an answer at " + " or ".join(f"0x{address:02x}" for address in kind.addresses),
            next="check the wiring with i2cdetect -y 1, or leave the sensor out of --sensors",
        ) from reason
    return []


def _load(kind: Kind) -> Any:
    """The driver's class."""
    try:
        return getattr(importlib.import_module(kind.module), kind.driver)
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            found=f"no library for the sensor {kind.name} ({error})",
            expected=kind.package,
            next=f"pip install {kind.package}, or leave the sensor out of --sensors",
        ) from error
    except Exception as error:  # Blinka, beneath it, refuses boards it does not know in several ways
        raise _no_bus(error) from error


def _bus() -> Any:
    """The board's I2C bus."""
    try:
        return importlib.import_module("board").I2C()
    except Exception as error:  # ImportError, NotImplementedError, AttributeError, OSError, ValueError
        raise _no_bus(error) from error


def _no_bus(error: Exception) -> ResourceError:
    return ResourceError(
        found=f"no I2C bus ({str(error) or type(error).__name__})",
        expected="a board whose I2C bus is switched on",
        next="sudo raspi-config nonint do_i2c 0, or record without: --sensors none",
    )


def _check_names(wanted: Sequence[str]) -> None:
    names = [kind.name for kind in KINDS]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigurationError(
            found=f"sensor {', '.join(unknown)}",
            expected="some of " + ", ".join(names),
            next="correct --sensors (auto takes whatever answers, none leaves all out)",
        )


def _possible(channel: str, value: float) -> bool:
    low, high = PLAUSIBLE[channel]
    return low <= value <= high  # False for NaN
