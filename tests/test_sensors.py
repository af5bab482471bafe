"""Readings to EISV: the formulas against a reading-by-reading reference, and the properties of the filter."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eisv_lumen import frozen as frozen_module
from eisv_lumen import sensors
from eisv_lumen.errors import InputError
from eisv_lumen.frozen import FrozenChannels
from eisv_lumen.logs import read_log
from eisv_lumen.recurrence import BLOCK, MovingAverage, Recurrence
from eisv_lumen.sensors import CHANNELS, AnimaFilter, Readings, from_eisv, momentary_anima, to_eisv


def telemetry(n, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    channels = {}
    for name in CHANNELS:
        low, high = sensors.PLAUSIBLE[name]
        values = rng.uniform(low, min(high, 8000.0), n)
        values[rng.random(n) < missing] = np.nan
        channels[name] = values
    for band in sensors.BANDS:
        channels[band][rng.random(n) < 0.7] = np.nan
    return Readings.of(1.7e9 + np.cumsum(rng.exponential(3.0, n)), channels)


def mean(parts):
    parts = [(value, weight) for value, weight in parts if value is not None]
    return sum(v * w for v, w in parts) / sum(w for _, w in parts) if parts else None


def clamp(x):
    return min(1.0, max(0.0, x))


class Plain:
    """The same formulas, one reading at a time, in the simplest words."""

    def __init__(self, site=1013.25):
        self.site, self.gamma, self.theta, self.recent = site, None, None, []
        self.past = {}
        self.state, self.last = None, None

    def bands(self, r):
        get = r.get
        cpu = get("cpu_pct")
        out = {"beta": None if cpu is None else cpu / 100, "alpha": None if cpu is None else 1 - cpu / 100}
        ctx, irq = get("context_switches_per_s"), get("interrupts_per_s")
        raw = mean([(None if x is None else min(1, x / 5000), w) for x, w in ((ctx, 0.6), (irq, 0.4))])
        if raw is not None:
            self.gamma = raw if self.gamma is None else 0.8 * self.gamma + 0.2 * raw
        out["gamma"] = None if raw is None else self.gamma
        disk, net = get("disk_busy_ms_per_s"), get("network_bytes_per_s")
        parts = [min(1, x / full) for x, full in ((disk, 2000), (net, 512_000)) if x is not None]
        if parts:
            raw = 0.7 * max(parts) + 0.3 * min(parts)
            self.theta = raw if self.theta is None else 0.7 * self.theta + 0.3 * raw
        out["theta"] = self.theta if parts else None
        self.recent = [*self.recent, r][-10:]
        loads = [x["cpu_pct"] for x in self.recent if x.get("cpu_pct") is not None]
        temps = [x["cpu_temp_c"] for x in self.recent if x.get("cpu_temp_c") is not None]
        steady = None if cpu is None else max(0, 1 - (max(loads) - min(loads)) / 40)
        t = get("cpu_temp_c")
        cool = None if t is None else max(0, 1 - abs(t - sum(temps) / len(temps)) / 10)
        out["delta"] = mean([(steady, 0.7), (cool, 0.3)])
        return {k: v if get(k) is None else get(k) for k, v in out.items()}

    def accuracy(self, r):
        ratios = []
        for name in sensors.PredictionAccuracy.CHANNELS:
            x = r.get(name)
            if x is None:
                continue
            p = self.past.get(name)
            if p is None:
                self.past[name] = {"ema": x, "n": 1, "mean": x, "error": 0.0, "var": 0.0}
                continue
            k = p["n"]
            p["error"] += max(sensors.ERROR_ALPHA, 1 / k) * (abs(x - p["ema"]) - p["error"])
            p["var"] += max(sensors.SPREAD_ALPHA, 1 / k) * ((x - p["mean"]) ** 2 - p["var"])
            p["ema"] += sensors.PREDICTION_ALPHA * (x - p["ema"])
            p["n"] = k + 1
            p["mean"] += max(sensors.SPREAD_ALPHA, 1 / (k + 1)) * (x - p["mean"])
            if k >= sensors.PREDICTION_WARM_UP:
                ratios.append(p["error"] / max(math.sqrt(p["var"]), sensors.SPREAD_FLOOR[name]))
        return 1 - min(1, sum(ratios) / len(ratios)) if ratios else 0.5

    def update(self, t, r):
        b, accuracy, get = self.bands(r), self.accuracy(r), r.get
        share = sum(get(name) is not None for name in sensors.ENVIRONMENT) / 5

        def scale(name, f):
            return None if get(name) is None else f(get(name))

        def pair(one, other):
            return mean([(b[one], 0.5), (b[other], 0.5)])

        neural = pair("theta", "delta")
        dims = [
            mean(
                [
                    (scale("cpu_temp_c", lambda x: clamp((x - 40) / 40)), 0.35),
                    (scale("ambient_temp_c", lambda x: clamp((x - 15) / 20)), 0.45),
                    (pair("beta", "gamma"), 0.20),
                ]
            ),
            mean(
                [
                    (accuracy, 0.5),
                    (share, 0.15),
                    (scale("light_lux", lambda x: clamp(math.log10(max(x, 1)) / 3)), 0.15),
                    (b["alpha"], 0.3),
                ]
            ),
            mean(
                [
                    (scale("humidity_pct", lambda x: min(1, abs(x - 45) / 45)), 0.25),
                    (scale("memory_pct", lambda x: x / 100), 0.30),
                    (1 - share, 0.20),
                    (scale("pressure_hpa", lambda x: min(1, abs(x - self.site) / 20)), 0.15),
                    (None if neural is None else 1 - neural, 0.10),
                ]
            ),
            mean(
                [
                    (scale("disk_pct", lambda x: x / 100), 0.25),
                    (scale("memory_pct", lambda x: x / 100), 0.30),
                    (scale("cpu_pct", lambda x: x / 100), 0.25),
                    (b["gamma"], 0.20),
                ]
            ),
        ]
        anima = [d if d is None or i < 2 else 1 - d for i, d in enumerate(dims)]
        anima = [0.5 if a is None or not r else a for a in anima]
        if self.state is None or t < self.last:
            self.state = anima
        else:
            factor = [1 - (1 - alpha) ** ((t - self.last) / 2) for alpha in (0.08, 0.15, 0.08, 0.25)]
            self.state = [s + f * (a - s) for s, f, a in zip(self.state, factor, anima, strict=True)]
        self.last = t
        return self.state


@pytest.mark.parametrize(("seed", "missing"), [(0, 0.0), (1, 0.2), (2, 0.85)])
def test_the_filter_equals_the_formulas_read_one_reading_at_a_time(seed, missing):
    readings = telemetry(700, seed, missing)
    readings.times[400:] -= 5000.0  # a reboot: the clock steps back
    plain = Plain(site=830.0)
    expected = [
        plain.update(
            readings.times[i],
            {n: float(v[i]) for n, v in readings.channels.items() if not np.isnan(v[i])},
        )
        for i in range(len(readings))
    ]
    np.testing.assert_allclose(AnimaFilter(site_pressure=830.0).update(readings), expected, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 600), max_size=8), seed=st.integers(0, 5))
def test_chunks_change_nothing(cuts, seed):
    readings = telemetry(600, seed)
    whole = AnimaFilter().update(readings)
    fed = AnimaFilter()
    edges = sorted([0, *cuts, 600])
    parts = [fed.update(readings[a:b]) for a, b in pairwise(edges)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_one_reading_at_a_time_and_across_the_inner_pieces(monkeypatch):
    readings = telemetry(3 * BLOCK + 7)
    whole = AnimaFilter().update(readings)
    fed = AnimaFilter()
    assert np.array_equal(
        np.concatenate([fed.update(readings[i : i + 1]) for i in range(len(readings))]), whole
    )
    monkeypatch.setattr(sensors, "_PIECE", 100)
    assert np.array_equal(AnimaFilter().update(readings), whole)


def test_recurrence_is_the_recurrence():
    rng = np.random.default_rng(3)
    a, b = rng.random((900, 2)), rng.normal(size=(900, 2))
    y, expected = np.zeros(2), []
    for row in range(900):
        y = a[row] * y + b[row]
        expected.append(y)
    solver = Recurrence(2)
    np.testing.assert_allclose(
        np.concatenate([solver.run(a[:300], b[:300]), solver.run(a[300:], b[300:])]), expected
    )
    np.testing.assert_allclose(solver.value, expected[-1])


def test_moving_average_starts_with_its_first_value_and_holds_over_gaps():
    average = MovingAverage(1, 0.5)
    after, before, count = average.run(np.array([[np.nan], [4.0], [np.nan], [8.0]]))
    assert after[1:, 0].tolist() == [4.0, 4.0, 6.0]
    assert before[2:, 0].tolist() == [4.0, 4.0]
    assert count[:, 0].tolist() == [0, 0, 1, 1]


def only(**channels):
    return Readings.of(np.zeros(1), {name: [value] for name, value in channels.items()})


def momentary(**channels):
    bands = {name: np.array([channels.get(name, np.nan)]) for name in sensors.BANDS}
    accuracy = np.array([channels.pop("accuracy", 0.5)])
    return momentary_anima(only(**channels), bands, accuracy)[0]


def test_known_values():
    warmth, clarity, stability, presence = momentary(cpu_temp_c=60.0)
    assert warmth == pytest.approx(0.5)
    assert clarity == pytest.approx((0.5 * 0.5 + 0.15 * 0.2) / 0.65)
    assert stability == pytest.approx(1 - 0.8)
    assert presence == 0.5
    warmth, _, stability, presence = momentary(
        ambient_temp_c=25.0, humidity_pct=90.0, pressure_hpa=1013.25, memory_pct=40.0, disk_pct=80.0
    )
    assert warmth == pytest.approx(0.5)
    assert stability == pytest.approx(1 - (0.25 + 0.3 * 0.4 + 0.2 * 0.4) / 0.9)
    assert presence == pytest.approx(1 - (0.25 * 0.8 + 0.3 * 0.4) / 0.55)
    assert momentary(light_lux=1000.0)[1] == pytest.approx((0.25 + 0.15 * 0.2 + 0.15) / 0.8)
    assert momentary(light_lux=0.5)[1] == pytest.approx((0.25 + 0.15 * 0.2) / 0.8)


def test_a_reading_of_nothing_is_one_half_everywhere():
    assert AnimaFilter().update(only())[0].tolist() == [0.5] * 4
    assert AnimaFilter().update(only(cpu_temp_c=np.nan))[0].tolist() == [0.5] * 4


@settings(max_examples=50, deadline=None)
@given(
    channels=st.dictionaries(
        st.sampled_from(CHANNELS),
        st.floats(allow_nan=True, allow_infinity=True),
        max_size=len(CHANNELS),
    )
)
def test_any_reading_gives_a_state_in_range(channels):
    anima = AnimaFilter().update(Readings.of(np.arange(4.0), {n: [v] * 4 for n, v in channels.items()}))
    assert np.isfinite(anima).all() and (anima >= 0).all() and (anima <= 1).all()
    states = to_eisv(anima)
    assert (states[:, 3] <= 0.3).all()
    np.testing.assert_allclose(from_eisv(states), anima, atol=1e-12)


def test_impossible_values_are_missing_and_counted():
    heard = AnimaFilter(smooth=False)
    faulty = heard.update(only(pressure_hpa=0.0, ambient_temp_c=394.0, cpu_pct=np.inf, memory_pct=50.0))
    assert heard.implausible == {"pressure_hpa": 1, "ambient_temp_c": 1, "cpu_pct": 1}
    assert np.array_equal(faulty, AnimaFilter(smooth=False).update(only(memory_pct=50.0)))


def test_momentum_does_not_depend_on_cadence():
    steps = {}
    for step in (1.0, 2.0, 10.0):
        times = np.arange(0, 61, step)
        level = np.where(times < 1, 0.0, 1.0)
        readings = Readings.of(times, {"beta": level, "gamma": level})
        steps[step] = AnimaFilter().update(readings)[-1, 0]
    assert steps[1.0] == pytest.approx(steps[2.0], abs=1e-9) == pytest.approx(steps[10.0], abs=1e-9)
    assert steps[2.0] == pytest.approx(1 - 0.92**30)


def test_a_steady_signal_is_predicted_and_noise_is_not():
    n = 400
    rng = np.random.default_rng(0)
    steady = sensors.PredictionAccuracy().update(Readings.of(np.arange(n), {"cpu_temp_c": np.full(n, 50.0)}))
    noise = sensors.PredictionAccuracy().update(
        Readings.of(np.arange(n), {"cpu_temp_c": rng.normal(50, 8, n)})
    )
    assert steady[:3].tolist() == [0.5] * 3
    assert steady[-1] == pytest.approx(1.0)
    assert noise[-100:].max() < 0.45


def test_refusals():
    with pytest.raises(InputError, match="kitchen"):
        Readings.of([0.0], {"kitchen": [1.0]})
    with pytest.raises(InputError, match="one value per time"):
        Readings.of([0.0, 1.0], {"cpu_pct": [1.0]})
    with pytest.raises(InputError, match="finite"):
        AnimaFilter().update(Readings.of([0.0, np.nan], {"cpu_pct": [1.0, 1.0]}))
    with pytest.raises(InputError, match="site pressure"):
        AnimaFilter(site_pressure=83.0)


def test_a_long_log_takes_little_time():
    readings = telemetry(200_000)
    start = time.perf_counter()
    AnimaFilter().update(readings)
    assert time.perf_counter() - start < 5.0


def judged(values, name="humidity_pct"):
    """Which of a channel's values are taken as frozen."""
    channels, _ = FrozenChannels().update({name: np.asarray(values, np.float64)})
    return np.isnan(channels[name]) & ~np.isnan(values)


def lively(n, seed=0, places=2):
    return np.round(50 + np.random.default_rng(seed).normal(0, 1, n), places)


def test_a_frozen_channel_is_missing_until_it_changes():
    values = np.concatenate([lively(1000), [51.234] * 2000, lively(1000, 1)])
    frozen = judged(values)
    assert np.flatnonzero(frozen).tolist() == list(range(1000 + frozen_module.SHORTEST_FREEZE, 3000))
    heard = AnimaFilter()
    heard.update(Readings.of(np.arange(4000), {"humidity_pct": values, "cpu_pct": np.full(4000, 5.0)}))
    assert heard.frozen == {"humidity_pct": 1700}


def test_a_frozen_channel_is_the_same_as_a_missing_one():
    values = np.concatenate([lively(1000), [51.234] * 2000, lively(100, 1)])
    others = {"cpu_temp_c": lively(3100, 3), "memory_pct": lively(3100, 4)}
    times = np.arange(3100.0)
    stuck = AnimaFilter().update(Readings.of(times, others | {"humidity_pct": values}))
    values[1300:3000] = np.nan
    dead = AnimaFilter().update(Readings.of(times, others | {"humidity_pct": values}))
    assert np.array_equal(stuck, dead)


def test_a_second_freeze_is_found_as_the_first_and_values_between_missing_ones_are_neighbours():
    once = np.concatenate([lively(500), [51.234] * 1000])
    frozen = judged(np.concatenate([once, once]))
    assert frozen.reshape(2, -1).sum(axis=1).tolist() == [700, 700]
    sparse = np.full(6000, np.nan)
    sparse[::2] = np.concatenate([once, once])
    assert np.array_equal(judged(sparse)[::2], frozen)


@pytest.mark.parametrize(("first", "limit"), [(299, 4 * 299), (300, 300), (301, 300)])
@pytest.mark.parametrize("chunk", [100, 650, 10_000])
def test_a_run_that_reaches_its_limit_counts_no_more(first, limit, chunk):
    values = np.concatenate([lively(500), [51.234] * first, lively(500, 1), [51.234] * 2000])
    fed = FrozenChannels()
    for at in range(0, len(values), chunk):
        fed.update({"humidity_pct": values[at : at + chunk]})
    assert fed.frozen == {"humidity_pct": max(first - 300, 0) + 2000 - limit}


def held(values, times):
    return np.repeat(values, times)


def slow_humidity(n):
    """Whole percents of a closed room over a week: half an hour or a whole night at the same value."""
    rng = np.random.default_rng(5)
    return np.concatenate([np.full(k, 40 + i % 3) for i, k in enumerate(rng.geometric(1 / 900, n // 900))])


def night_and_day(days=3):
    """Light at one reading per 5 s: noise by day, exactly nothing by night."""
    day = np.round(300 + np.random.default_rng(1).normal(0, 30, 8640), 2)
    return np.tile(np.concatenate([day, np.full(8640, 0.0)]), days)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("disk_pct", np.concatenate([lively(1000), np.full(9000, 24.1)])),
        ("memory_pct", np.concatenate([lively(1000), np.full(9000, 34.2)])),
        ("cpu_pct", np.concatenate([lively(1000), np.full(9000, 0.0)])),
        ("humidity_pct", np.full(20_000, 45.3)),
        ("humidity_pct", slow_humidity(300_000)),
        ("humidity_pct", np.concatenate([lively(1000, places=0), np.full(20_000, 45.0)])),
        ("ambient_temp_c", np.concatenate([np.round(2 * lively(1000)) / 2, np.full(20_000, 20.5)])),
        ("humidity_pct", np.concatenate([lively(1000), np.full(20_000, 100.0)])),
        ("ambient_temp_c", held(lively(3000, places=1), 6)),
        ("ambient_temp_c", np.concatenate([held(lively(300, places=1), 6), np.full(599, 20.25)])),
        ("pressure_hpa", np.concatenate([lively(29), np.full(20_000, 1001.5)])),
        ("light_lux", night_and_day()),
    ],
    ids=[
        "disk",
        "memory",
        "idle processor",
        "constant",
        "whole percents, slow",
        "whole percents, lively",
        "half degrees",
        "saturated",
        "three-second cache at 2 Hz",
        "a hundred mean runs",
        "too little known",
        "dark nights",
    ],
)
def test_what_stands_still_by_nature_is_not_frozen(name, values):
    assert not judged(values, name).any()


@st.composite
def sensor_pasts(draw):
    """A channel of lively, coarse, missing and stuck stretches, and where it is cut into chunks."""
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    parts = []
    for kind, length in draw(
        st.lists(
            st.tuples(st.sampled_from(["lively", "coarse", "stuck", "missing", "end"]), st.integers(1, 900)),
            min_size=1,
            max_size=8,
        )
    ):
        parts.append(
            {
                "lively": np.round(rng.normal(50, 5, length), 2),
                "coarse": np.round(rng.normal(50, 0.5, length), 0),
                "stuck": np.full(length, 50 + draw(st.sampled_from([0.0, 0.25]))),
                "missing": np.full(length, np.nan),
                "end": np.full(length, 100.0),
            }[kind]
        )
    values = np.concatenate(parts)
    cuts = draw(st.lists(st.integers(0, len(values)), max_size=12))
    return values, sorted([0, *cuts, len(values)])


def plainly_frozen(values):
    """The rule, one reading at a time, in the simplest words."""
    lengths, coarse, last, length, limit, out = [], True, None, 0, None, []
    for value in values.tolist():
        if math.isnan(value):
            out.append(False)
            continue
        if value != last:
            if last is not None and 0 < last < 100 and (limit is None or length < limit):
                lengths.append(length)
            coarse = coarse and value * 2 == int(value * 2)
            last, length, limit = value, 0, None
            if len(lengths) >= 30 and not coarse and 0 < value < 100:
                limit = max(300, 100 * sum(lengths) // len(lengths), 4 * max(lengths))
        length += 1
        out.append(limit is not None and length > limit)
    return np.array(out)


@settings(max_examples=150, deadline=None)
@given(sensor_pasts())
def test_freezing_is_causal_the_same_in_any_chunks_and_final(past):
    values, edges = past
    whole = judged(values)
    assert np.array_equal(whole, plainly_frozen(values))
    fed = FrozenChannels()
    parts = [fed.update({"humidity_pct": values[a:b]})[0]["humidity_pct"] for a, b in pairwise(edges)]
    kept = np.concatenate(parts)
    assert np.array_equal(np.isnan(kept) & ~np.isnan(values), whole)
    assert sum(fed.frozen.values()) == whole.sum()
    assert not judged(kept).any()  # taken out once, nothing more is taken out


@settings(max_examples=15, deadline=None)
@given(past=sensor_pasts(), piece=st.sampled_from([16, 100, 16_384]))
def test_the_filter_with_a_freezing_channel_does_not_depend_on_chunks(past, piece):
    values, edges = past
    readings = Readings.of(
        np.arange(len(values)) * 2.0, {"humidity_pct": values, "cpu_temp_c": lively(len(values), 9)}
    )
    whole = AnimaFilter().update(readings)
    fed = AnimaFilter()
    parts = [fed.update(readings[a:b]) for a, b in pairwise(edges)]
    assert np.array_equal(np.concatenate(parts), whole)
    again = AnimaFilter()
    pieces = [again.update(readings[a : a + piece]) for a in range(0, len(values), piece)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_real_sensors_do_not_freeze(shared_data):
    for name in ("astropi_ground_2015", "astropi_iss_mk2_ir", "piweather_sensehat.raw_order"):
        (readings,) = read_log(shared_data / f"{name}.csv.gz").devices.values()
        heard = AnimaFilter()
        heard.update(readings)
        assert heard.frozen == {}


@pytest.mark.parametrize("channel", ["cpu_temp_c", "ambient_temp_c", "humidity_pct", "pressure_hpa"])
def test_a_real_sensor_that_is_made_to_freeze_is_found(shared_data, channel):
    (readings,) = read_log(shared_data / "astropi_ground_2015.csv.gz").devices.values()
    values = readings.channels[channel].copy()
    values[10_000:15_000] = values[10_000]
    heard = AnimaFilter()
    heard.update(Readings(readings.times, {**readings.channels, channel: values}))
    assert list(heard.frozen) == [channel]
    assert 4600 <= heard.frozen[channel] <= 4710
