"""Readings -> anima state -> EISV (DOMAIN.md section 1).

Every mean is taken over what is present: a channel that is missing is missing, and nothing stands in for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from eisv_lumen.errors import InputError
from eisv_lumen.frozen import FrozenChannels
from eisv_lumen.recurrence import MovingAverage, Recurrence
from eisv_lumen.vocabulary import VOID_MAX

ENVIRONMENT = ("cpu_temp_c", "ambient_temp_c", "humidity_pct", "light_lux", "pressure_hpa")
"""The five channels whose presence counts in clarity and stability."""
LOAD = ("cpu_pct", "memory_pct", "disk_pct")
TELEMETRY = ("context_switches_per_s", "interrupts_per_s", "disk_busy_ms_per_s", "network_bytes_per_s")
"""Rates from which the neural bands gamma and theta are computed."""
BANDS = ("beta", "alpha", "gamma", "theta", "delta")
"""Neural bands in [0, 1]; a log that gives one directly overrides the computed one."""
CHANNELS = ENVIRONMENT + LOAD + TELEMETRY + BANDS

ANIMA = ("warmth", "clarity", "stability", "presence")
STANDARD_PRESSURE = 1013.25

_RATE = (0.0, 1e13)
PLAUSIBLE: dict[str, tuple[float, float]] = {
    "cpu_temp_c": (-40.0, 125.0),
    "ambient_temp_c": (-40.0, 85.0),
    "humidity_pct": (0.0, 100.0),
    "light_lux": (0.0, 200_000.0),
    "pressure_hpa": (300.0, 1100.0),
    **dict.fromkeys(LOAD, (0.0, 100.0)),
    **dict.fromkeys(TELEMETRY, _RATE),
    **dict.fromkeys(BANDS, (0.0, 1.0)),
}
"""Lowest and highest value that the sensors of a Pi can report; anything else is a fault, and missing."""

MOMENTUM = (0.08, 0.15, 0.08, 0.25)
"""Smoothing factor of warmth, clarity, stability, presence per `MOMENTUM_STEP` seconds."""
MOMENTUM_STEP = 2.0

PREDICTION_ALPHA = 0.3
"""Factor of the moving average that predicts a channel's next value (about the last three readings)."""
ERROR_ALPHA = 0.05
"""Factor of the mean absolute error of those predictions (about the last twenty readings)."""
SPREAD_ALPHA = 0.01
"""Factor of a channel's longer-run mean and standard deviation (about the last hundred readings)."""
PREDICTION_WARM_UP = 3
"""Predictions a channel must have made before its accuracy is known."""
UNKNOWN_ACCURACY = 0.5
SPREAD_FLOOR = {
    "cpu_temp_c": 1.0,
    "ambient_temp_c": 0.25,
    "humidity_pct": 1.0,
    "light_lux": 5.0,
    "pressure_hpa": 0.5,
    **dict.fromkeys(LOAD, 2.5),
}
"""Errors are scaled by at least this much: a smaller spread is the noise of the sensor itself."""

GAMMA_ALPHA, THETA_ALPHA = 0.2, 0.3
EVENTS_FULL_SCALE = 5000.0
DISK_FULL_SCALE = 2000.0
NETWORK_FULL_SCALE = 512_000.0
DELTA_READINGS = 10

_PIECE = 1 << 14
"""Rows worked on at once; bounds memory and changes no result."""


@dataclass(frozen=True)
class Readings:
    """N readings of any subset of the channels.

    Attributes:
        times: `[N]` float64 seconds since the epoch, in the order recorded.
        channels: Per name from `CHANNELS`: `[N]` float64, NaN where missing.
    """

    times: np.ndarray
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, times: object, channels: Mapping[str, object]) -> Self:
        """Readings from anything array-like.

        Raises:
            InputError: An unknown channel, or one whose length is not that of `times`.
        """
        array = np.atleast_1d(np.asarray(times, np.float64))
        columns = {name: np.atleast_1d(np.asarray(values, np.float64)) for name, values in channels.items()}
        for name, values in columns.items():
            if name not in PLAUSIBLE or values.shape != array.shape:
                raise InputError(
                    found=f"channel {name!r} of shape {values.shape} with {array.shape} times",
                    expected="one value per time, of one of " + " ".join(CHANNELS),
                    next="rename or cut the channel",
                )
        return cls(array, columns)

    def __len__(self) -> int:
        """Number of readings, N."""
        return len(self.times)

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The chosen readings."""
        return type(self)(self.times[rows], {name: values[rows] for name, values in self.channels.items()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Readings of the same channels, one part after the other; at least one."""
        return cls(
            np.concatenate([part.times for part in parts]),
            {name: np.concatenate([part.channels[name] for part in parts]) for name in parts[0].channels},
        )

    def column(self, name: str) -> np.ndarray:
        """`[N]` values of a channel, all NaN where nothing recorded it."""
        values = self.channels.get(name)
        return np.full(len(self), np.nan) if values is None else values

    def columns(self, names: tuple[str, ...]) -> np.ndarray:
        """`[N, len(names)]` values of several channels."""
        return np.stack([self.column(name) for name in names], axis=1)

    def present(self) -> np.ndarray:
        """`[N]` bool: does the reading hold any value at all."""
        present = np.zeros(len(self), bool)
        for values in self.channels.values():
            present |= ~np.isnan(values)
        return present

    def plausible(self) -> tuple[Self, dict[str, int]]:
        """The readings with impossible values (out of `PLAUSIBLE`) missing, and their number per channel."""
        cleaned, dropped = {}, {}
        for name, values in self.channels.items():
            low, high = PLAUSIBLE[name]
            with np.errstate(invalid="ignore"):
                bad = (values < low) | (values > high)
            if bad.any():
                dropped[name] = int(bad.sum())
                values = np.where(bad, np.nan, values)
            cleaned[name] = values
        return type(self)(self.times, cleaned), dropped


@dataclass(frozen=True)
class AnimaWeights:
    """Weight of each input of each anima dimension; stability and presence weigh what speaks against them."""

    warmth_cpu_temperature: float = 0.35
    warmth_ambient_temperature: float = 0.45
    warmth_neural: float = 0.20
    clarity_prediction: float = 0.50
    clarity_coverage: float = 0.15
    clarity_light: float = 0.15
    clarity_alpha: float = 0.30
    instability_humidity: float = 0.25
    instability_memory: float = 0.30
    instability_missing: float = 0.20
    instability_pressure: float = 0.15
    instability_neural: float = 0.10
    absence_disk: float = 0.25
    absence_memory: float = 0.30
    absence_cpu: float = 0.25
    absence_gamma: float = 0.20


class NeuralBands:
    """Band powers from machine telemetry, fed chunk by chunk.

    beta = cpu/100 and alpha = 1 - beta; gamma from context switches and interrupts; theta from disk and
    network; delta from how steady cpu load and cpu temperature were over the last ten readings. A band whose
    parts are partly missing is made from the others; one without any part is missing.
    """

    def __init__(self) -> None:
        self._gamma = MovingAverage(1, GAMMA_ALPHA)
        self._theta = MovingAverage(1, THETA_ALPHA)
        self._recent = np.full((DELTA_READINGS - 1, 2), np.nan)

    def update(self, readings: Readings) -> dict[str, np.ndarray]:
        """`{band: [N]}` in [0, 1], NaN where missing."""
        beta = readings.column("cpu_pct") / 100.0
        computed = {
            "beta": beta,
            "alpha": 1.0 - beta,
            "gamma": _smoothed(self._gamma, _events(readings)),
            "theta": _smoothed(self._theta, _traffic(readings)),
            "delta": self._delta(readings),
        }
        for name in BANDS:
            given = readings.column(name)
            computed[name] = np.where(np.isnan(given), computed[name], given)
        return computed

    def _delta(self, readings: Readings) -> np.ndarray:
        values = np.concatenate([self._recent, readings.columns(("cpu_pct", "cpu_temp_c"))])
        self._recent = values[-(DELTA_READINGS - 1) :]
        recent = np.lib.stride_tricks.sliding_window_view(values, DELTA_READINGS, axis=0)
        known = ~np.isnan(recent)
        load, load_known = recent[:, 0], known[:, 0]
        spread = np.where(load_known, load, -np.inf).max(axis=1) - np.where(load_known, load, np.inf).min(
            axis=1
        )
        temperature, count = recent[:, 1], known[:, 1].sum(axis=1)
        mean = np.where(known[:, 1], temperature, 0.0).sum(axis=1) / np.maximum(count, 1)
        parts = np.stack(
            [
                np.where(np.isnan(load[:, -1]), np.nan, np.maximum(0.0, 1.0 - spread / 40.0)),
                np.maximum(0.0, 1.0 - np.abs(temperature[:, -1] - mean) / 10.0),
            ],
            axis=1,
        )
        return weighted_mean(parts, (0.7, 0.3))


class PredictionAccuracy:
    """How well each channel's next value was predicted by its own moving average, fed chunk by chunk.

    Per channel the running mean absolute error is divided by the channel's longer-run standard deviation;
    accuracy is 1 - min(1, mean over the channels present).
    """

    CHANNELS = ENVIRONMENT + LOAD

    def __init__(self) -> None:
        columns = len(self.CHANNELS)
        self._floor = np.array([SPREAD_FLOOR[name] for name in self.CHANNELS])
        self._prediction = MovingAverage(columns, PREDICTION_ALPHA)
        self._error = MovingAverage(columns, ERROR_ALPHA, warm_up=True)
        self._mean = MovingAverage(columns, SPREAD_ALPHA, warm_up=True)
        self._variance = MovingAverage(columns, SPREAD_ALPHA, warm_up=True)

    def update(self, readings: Readings) -> np.ndarray:
        """`[N]` accuracy in [0, 1], `UNKNOWN_ACCURACY` where no channel has a past."""
        values = readings.columns(self.CHANNELS)
        _, predicted, predicted_from = self._prediction.run(values)
        error, _, errors_before = self._error.run(
            np.where(predicted_from > 0, np.abs(values - predicted), np.nan)
        )
        _, mean, mean_of = self._mean.run(values)
        variance, _, _ = self._variance.run(np.where(mean_of > 0, (values - mean) ** 2, np.nan))
        relative = error / np.maximum(np.sqrt(variance), self._floor)
        known = ~np.isnan(values) & (predicted_from > 0) & (errors_before + 1 >= PREDICTION_WARM_UP)
        count = known.sum(axis=1)
        total = np.where(known, relative, 0.0).sum(axis=1) / np.maximum(count, 1)
        return np.where(count > 0, 1.0 - np.minimum(1.0, total), UNKNOWN_ACCURACY)


class AnimaFilter:
    """Readings in, anima states out; keeps its past, so that a log may arrive in any number of chunks.

    Args:
        site_pressure: Usual pressure of the place in hPa (Lumen's own site: about 830).
        smooth: Give the state its momentum. Off, each state is that of its reading alone.
        weights: Weights of the inputs.

    Attributes:
        implausible: Values per channel that were impossible and taken as missing so far.
        frozen: Values per channel that a frozen sensor repeated and that were taken as missing so far.
    """

    def __init__(
        self,
        site_pressure: float = STANDARD_PRESSURE,
        smooth: bool = True,
        weights: AnimaWeights | None = None,
    ) -> None:
        if not PLAUSIBLE["pressure_hpa"][0] <= site_pressure <= PLAUSIBLE["pressure_hpa"][1]:
            raise InputError(
                found=f"a site pressure of {site_pressure} hPa",
                expected="300 to 1100 hPa",
                next="pass the usual pressure of the place in hPa",
            )
        self.site_pressure = site_pressure
        self.smooth = smooth
        self.weights = weights or AnimaWeights()
        self.implausible: dict[str, int] = {}
        self._unfrozen = FrozenChannels()
        self.frozen = self._unfrozen.frozen
        self._bands = NeuralBands()
        self._prediction = PredictionAccuracy()
        self._momentum = Recurrence(len(ANIMA))
        self._last_time = np.nan

    def update(self, readings: Readings) -> np.ndarray:
        """`[N, 4]` warmth, clarity, stability, presence, each in [0, 1], after each reading.

        A step of the clock backwards (a reboot) starts the momentum afresh. A reading without any channel
        is 0.5 in each dimension.

        Raises:
            InputError: A time that is NaN or infinite.
        """
        if not np.isfinite(readings.times).all():
            raise InputError(
                found="readings with times that are not finite",
                expected="a time in seconds for every reading",
                next="drop the readings without a time",
            )
        pieces = (readings[row : row + _PIECE] for row in range(0, len(readings), _PIECE))
        found = [self._piece(self.cleaned(piece)[0]) for piece in pieces]
        return np.concatenate(found) if found else np.zeros((0, len(ANIMA)))

    def cleaned(self, readings: Readings) -> tuple[Readings, dict[str, int], dict[str, int]]:
        """The next readings with impossible values and those of frozen sensors missing.

        Returns:
            The readings, and how many values per channel were impossible, and frozen.
        """
        readings, impossible = readings.plausible()
        for name, count in impossible.items():
            self.implausible[name] = self.implausible.get(name, 0) + count
        channels, frozen = self._unfrozen.update(readings.channels)
        return Readings(readings.times, channels), impossible, frozen

    def follow(self, readings: Readings) -> np.ndarray:
        """`[N, 4]` anima states of readings that `cleaned` gave, or of some of them; all with a time."""
        pieces = [self._piece(readings[row : row + _PIECE]) for row in range(0, len(readings), _PIECE)]
        return np.concatenate(pieces) if pieces else np.zeros((0, len(ANIMA)))

    def _piece(self, readings: Readings) -> np.ndarray:
        bands = self._bands.update(readings)
        accuracy = self._prediction.update(readings)
        anima = momentary_anima(readings, bands, accuracy, self.weights, self.site_pressure)
        return self._smoothed(readings.times, anima) if self.smooth else anima

    def _smoothed(self, times: np.ndarray, anima: np.ndarray) -> np.ndarray:
        steps = np.diff(times, prepend=self._last_time)
        self._last_time = times[-1]
        fresh = ~(steps >= 0)
        keep = (1.0 - np.array(MOMENTUM)) ** (np.where(fresh, 0.0, steps)[:, None] / MOMENTUM_STEP)
        keep[fresh] = 0.0
        return np.clip(self._momentum.run(keep, (1.0 - keep) * anima), 0.0, 1.0)


def momentary_anima(
    readings: Readings,
    bands: Mapping[str, np.ndarray],
    accuracy: np.ndarray,
    weights: AnimaWeights | None = None,
    site_pressure: float = STANDARD_PRESSURE,
) -> np.ndarray:
    """The anima state of each reading on its own, without momentum.

    Args:
        readings: N plausible readings.
        bands: `{band: [N]}` of `BANDS`, NaN where missing.
        accuracy: `[N]` prediction accuracy in [0, 1].
        weights: Weights of the inputs.
        site_pressure: Usual pressure of the place in hPa.

    Returns:
        `[N, 4]` warmth, clarity, stability, presence in [0, 1].
    """
    w = weights or AnimaWeights()
    get = readings.column
    coverage = (~np.isnan(readings.columns(ENVIRONMENT))).mean(axis=1)
    memory = get("memory_pct") / 100.0
    warmth = [
        (_scaled(get("cpu_temp_c"), 40.0, 80.0), w.warmth_cpu_temperature),
        (_scaled(get("ambient_temp_c"), 15.0, 35.0), w.warmth_ambient_temperature),
        (_mean_of(bands["beta"], bands["gamma"]), w.warmth_neural),
    ]
    clarity = [
        (accuracy, w.clarity_prediction),
        (coverage, w.clarity_coverage),
        (_light(get("light_lux")), w.clarity_light),
        (bands["alpha"], w.clarity_alpha),
    ]
    instability = [
        (np.minimum(1.0, np.abs(get("humidity_pct") - 45.0) / 45.0), w.instability_humidity),
        (memory, w.instability_memory),
        (1.0 - coverage, w.instability_missing),
        (np.minimum(1.0, np.abs(get("pressure_hpa") - site_pressure) / 20.0), w.instability_pressure),
        (1.0 - _mean_of(bands["theta"], bands["delta"]), w.instability_neural),
    ]
    absence = [
        (get("disk_pct") / 100.0, w.absence_disk),
        (memory, w.absence_memory),
        (get("cpu_pct") / 100.0, w.absence_cpu),
        (bands["gamma"], w.absence_gamma),
    ]
    means = [
        weighted_mean(np.stack([values for values, _ in part], axis=1), tuple(weight for _, weight in part))
        for part in (warmth, clarity, instability, absence)
    ]
    anima = np.stack([means[0], means[1], 1.0 - means[2], 1.0 - means[3]], axis=1)
    nothing = ~readings.present()
    return np.clip(np.where(np.isnan(anima) | nothing[:, None], 0.5, anima), 0.0, 1.0)


def weighted_mean(values: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """`[N]` weighted mean of `[N, K]` values, renormalised over those present; NaN where none is."""
    present = ~np.isnan(values)
    weight = present * np.array(weights)
    total = weight.sum(axis=1)
    summed = (np.where(present, values, 0.0) * weight).sum(axis=1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)


def to_eisv(anima: np.ndarray) -> np.ndarray:
    """`[..., 4]` E, I, S, V of anima states: warmth, clarity, 1 - stability, 0.3 (1 - presence)."""
    anima = np.asarray(anima, np.float64)
    return np.stack(
        [anima[..., 0], anima[..., 1], 1.0 - anima[..., 2], VOID_MAX * (1.0 - anima[..., 3])], axis=-1
    )


def from_eisv(states: np.ndarray) -> np.ndarray:
    """`[..., 4]` anima states of E, I, S, V `[..., 4]`; the inverse of `to_eisv`."""
    states = np.asarray(states, np.float64)
    return np.stack(
        [states[..., 0], states[..., 1], 1.0 - states[..., 2], 1.0 - states[..., 3] / VOID_MAX], axis=-1
    )


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _light(lux: np.ndarray) -> np.ndarray:
    return np.clip(np.log10(np.maximum(lux, 1.0)) / 3.0, 0.0, 1.0)


def _mean_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return weighted_mean(np.stack([one, other], axis=1), (0.5, 0.5))


def _events(readings: Readings) -> np.ndarray:
    rates = readings.columns(("context_switches_per_s", "interrupts_per_s"))
    return weighted_mean(np.minimum(1.0, rates / EVENTS_FULL_SCALE), (0.6, 0.4))


def _traffic(readings: Readings) -> np.ndarray:
    rates = readings.columns(("disk_busy_ms_per_s", "network_bytes_per_s"))
    disk, network = np.minimum(1.0, rates / (DISK_FULL_SCALE, NETWORK_FULL_SCALE)).T
    return 0.7 * np.fmax(disk, network) + 0.3 * np.fmin(disk, network)


def _smoothed(average: MovingAverage, values: np.ndarray) -> np.ndarray:
    after, _, _ = average.run(values[:, None])
    return np.where(np.isnan(values), np.nan, after[:, 0])
