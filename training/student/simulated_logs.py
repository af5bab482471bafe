"""Windows of devices that nobody has: simulated sensor logs, converted by the kit's own sensor code.

Each device has its own channels, resolutions, noise, cadence and surroundings. Its readings take the same way
to states as real ones (`eisv_lumen.sensors`), so that the states have the texture which that way gives them:
the momentum, the roughness of clarity, the steps of a coarse sensor, the jump when a channel falls out.
"""

from collections.abc import Callable

import numpy as np

from eisv_lumen.sensors import AnimaFilter, Readings, to_eisv
from eisv_lumen.series import sliding
from eisv_lumen.windows import Windows, concatenate

READINGS = 400
"""Readings per simulated log."""

WINDOWS_PER_DEVICE = 50
"""Windows of one log, about: the mean over many."""

_CADENCES = (0.5, 60.0)
_COARSEST = 30
"""Most readings that a state is the mean of, as logs are binned to coarser time scales."""

_PRESENT = {
    ("ambient_temp_c", "humidity_pct", "pressure_hpa"): 0.8,
    ("cpu_temp_c",): 0.6,
    ("light_lux",): 0.35,
    ("cpu_pct", "memory_pct", "disk_pct"): 0.5,
    ("context_switches_per_s", "interrupts_per_s", "disk_busy_ms_per_s", "network_bytes_per_s"): 0.3,
}
"""Share of devices that have each group of channels."""
_LACKING = 0.15
"""Share of the channels of such a group that a device lacks nevertheless."""
_FALLING_OUT = 0.15
"""Share of devices one of whose channels falls out for a while."""

_RESOLUTIONS = {
    "ambient_temp_c": (0.01, 0.05, 0.1, 0.25, 0.5, 1.0),
    "cpu_temp_c": (0.01, 0.1, 0.5, 1.0),
    "humidity_pct": (0.01, 0.1, 0.5, 1.0),
    "pressure_hpa": (0.01, 0.1, 1.0),
    "cpu_pct": (0.1, 1.0),
    "memory_pct": (0.01, 0.1, 1.0),
    "disk_pct": (0.01, 0.1, 1.0),
}

Course = Callable[[int, np.random.Generator], np.ndarray]


def simulated(devices: int, generator: np.random.Generator) -> Windows:
    """Complete windows of as many logs, about 10 to 80 of each, in the order recorded.

    Args:
        devices: Number of logs; at least 1.
        generator: Source of all randomness; the same state gives the same windows.
    """
    return concatenate([_windows_of_one(generator) for _ in range(devices)])


def _windows_of_one(generator: np.random.Generator) -> Windows:
    cadence = _log_uniform(*_CADENCES, generator)
    steps = cadence * generator.uniform(1 - 0.5 * generator.random(), 1.0, READINGS)
    times = np.cumsum(steps)
    states = to_eisv(AnimaFilter().update(readings(times, generator)))
    size = round(_log_uniform(1, _COARSEST, generator)) if generator.random() < 0.6 else 1
    whole = len(times) // size * size
    times = times[:whole].reshape(-1, size).mean(axis=1)
    states = states[:whole].reshape(-1, size, 4).mean(axis=1)
    stride = int(generator.integers(2, 6)) if size > 1 else 5
    return sliding(states, times, stride=stride)


def readings(times: np.ndarray, generator: np.random.Generator) -> Readings:
    """One device's readings at the times `[N]`, in seconds."""
    channels = _surroundings(len(times), generator) | _machine(len(times), generator)
    if "cpu_temp_c" in channels:
        channels["cpu_temp_c"] += channels["ambient_temp_c"]
    have = [
        name
        for group, share in _PRESENT.items()
        if generator.random() < share
        for name in group
        if generator.random() >= _LACKING
    ] or ["ambient_temp_c"]
    seen = {name: _sensed(name, channels[name], generator) for name in have}
    if generator.random() < _FALLING_OUT:
        start, stop = np.sort(generator.integers(0, len(times), 2))
        seen[have[int(generator.integers(len(have)))]][start:stop] = np.nan
    return Readings.of(times, seen)


def _surroundings(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Temperature, humidity, pressure and light; relative humidity falls where the air warms."""
    warming = _log_uniform(0.05, 30, generator) * _course(count, generator)
    humidity = generator.uniform(20, 80) - generator.uniform(0, 3) * warming
    humidity += _log_uniform(0.1, 20, generator) * _course(count, generator)
    sea_level = generator.random() < 0.8
    pressure = generator.uniform(980, 1035) if sea_level else generator.uniform(800, 980)
    light = generator.uniform(-0.5, 3) + generator.uniform(0.0, 1.5) * _course(count, generator)
    return {
        "ambient_temp_c": generator.uniform(0, 40) + warming,
        "humidity_pct": np.clip(humidity, 0, 100),
        "pressure_hpa": pressure + _log_uniform(0.02, 6, generator) * _wander(count, generator),
        "light_lux": 10 ** np.clip(light, -2, 4.5),
    }


def _machine(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Load, and what follows it: the processor's temperature above the room's, and the rates of events."""
    busy = generator.uniform(0, 60) + _log_uniform(1, 60, generator) * _course(count, generator)
    cpu = np.clip(busy + generator.normal(0, _log_uniform(0.2, 12, generator), count), 0, 100)
    memory = generator.uniform(10, 85) + _log_uniform(0.05, 20, generator) * _course(count, generator)
    disk = generator.uniform(5, 95) + _log_uniform(1e-3, 2, generator) * _course(count, generator)
    heat = generator.uniform(5, 30) + generator.uniform(0, 20) / 100 * _delayed(cpu, generator)
    activity = np.exp(generator.normal(0, _log_uniform(0.05, 0.8, generator), count)) * (1 + cpu / 50)
    return {
        "cpu_temp_c": heat,
        "cpu_pct": cpu,
        "memory_pct": np.clip(memory, 0, 100),
        "disk_pct": np.clip(disk, 0, 100),
        "context_switches_per_s": _log_uniform(100, 5000, generator) * activity,
        "interrupts_per_s": _log_uniform(100, 5000, generator) * activity,
        "disk_busy_ms_per_s": _log_uniform(0.1, 500, generator) * _bursts(count, generator),
        "network_bytes_per_s": _log_uniform(10, 5e5, generator) * _bursts(count, generator),
    }


def _sensed(name: str, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """What a sensor of some noise and resolution makes of the true values."""
    resolutions = _RESOLUTIONS.get(name)
    if resolutions is None:
        return values * np.exp(generator.normal(0, _log_uniform(1e-3, 0.05, generator), len(values)))
    resolution = generator.choice(resolutions)
    noisy = values + generator.normal(0, resolution * _log_uniform(0.1, 5, generator), len(values))
    return np.rint(noisy / resolution) * resolution


def _course(count: int, generator: np.random.Generator) -> np.ndarray:
    """`[count]` a sum of some courses, about 1 in size, on time scales of a few to a thousand readings."""
    parts: tuple[Course, ...] = (_cycle, _wander, _events, _pulses)
    chosen = generator.random(len(parts)) < 0.4
    chosen[generator.integers(len(parts))] = True
    total = np.zeros(count)
    for part, there in zip(parts, chosen, strict=True):
        if there:
            total += generator.uniform(0.2, 1.0) * part(count, generator)
    return total


def _cycle(count: int, generator: np.random.Generator) -> np.ndarray:
    """Days, or a thermostat: a wave, its corners as a switch with some inertia gives them."""
    period = _log_uniform(8, 2000, generator)
    turns = np.arange(count) / period + generator.random()
    wave = np.sin(2 * np.pi * turns)
    if generator.random() < 0.5:
        return wave
    return _followed(
        np.sign(wave + generator.uniform(-0.8, 0.8)), _log_uniform(0.02, 0.5, generator) * period
    )


def _wander(count: int, generator: np.random.Generator) -> np.ndarray:
    """A random walk that is drawn back to where it began."""
    memory = _log_uniform(3, 1000, generator)
    return _followed(generator.standard_normal(count), memory) * np.sqrt(2 * memory)


def _events(count: int, generator: np.random.Generator) -> np.ndarray:
    """Steps to a new level now and then, each approached with inertia."""
    happens = generator.random(count) < 1 / _log_uniform(10, 400, generator)
    level = np.where(happens, generator.standard_normal(count), np.nan)
    last = np.maximum.accumulate(np.where(happens, np.arange(count), 0))
    return _followed(np.nan_to_num(level[last]), _log_uniform(0.2, 60, generator))


def _pulses(count: int, generator: np.random.Generator) -> np.ndarray:
    """Departures that die down."""
    happens = generator.random(count) < 1 / _log_uniform(10, 400, generator)
    kicks = happens * generator.standard_normal(count) * generator.choice([1, 1, 3])
    decay = _log_uniform(0.5, 40, generator)
    rising = _followed(kicks * decay, decay)
    return _followed(rising, _log_uniform(0.2, 10, generator))


def _bursts(count: int, generator: np.random.Generator) -> np.ndarray:
    """Rates that are mostly low and at times high."""
    return np.exp(_log_uniform(0.1, 2.0, generator) * _course(count, generator))


def _delayed(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return _followed(values - values[0], _log_uniform(1, 60, generator)) + values[0]


def _followed(target: np.ndarray, inertia: float) -> np.ndarray:
    """What follows a target `[N]` from 0 with an inertia in readings: an exponential moving average."""
    kernel = np.exp(-np.arange(len(target)) / inertia)
    size = 2 * len(target)
    followed = np.fft.irfft(np.fft.rfft(target, size) * np.fft.rfft(kernel / kernel.sum(), size), size)
    return followed[: len(target)]


def _log_uniform(low: float, high: float, generator: np.random.Generator) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))
