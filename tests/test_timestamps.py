"""Columns of times are read as `datetime` reads each of them."""

import math
import re
import time
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.timestamps import parse_times, time_zone

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Denver",
    "America/St_Johns",  # changed its clocks at 00:01
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kathmandu",
    "Africa/Monrovia",  # an offset of seconds until 1972
    "Pacific/Apia",  # left out a whole day
)


def one_by_one(texts, zone):
    """What each text means, by the standard library alone."""

    def seconds(text):
        text = text.strip()
        try:
            number = float(text)
        except ValueError:
            pass
        else:
            if not math.isfinite(number):
                return math.nan
            return number / 1000 if abs(number) > 1e11 else number
        try:
            moment = datetime.fromisoformat(text.replace("/", "-"))
            return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
        except (ValueError, OverflowError):
            return math.nan

    return np.array([seconds(text) for text in texts], np.float64)


def agree(texts, zone):
    np.testing.assert_array_equal(parse_times(texts, zone), one_by_one(texts, zone))


moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
recent = st.datetimes(datetime(1965, 1, 1), datetime(2040, 1, 1))
suffixes = st.sampled_from(["", "", "", "Z", "+00:00", "-00:00", "+05:30", "-23:59", "+0100", "+01", " UTC"])


@st.composite
def written(draw):
    moment = draw(st.one_of(recent, moments))
    parts = draw(st.sampled_from(["auto", "hours", "minutes", "seconds", "milliseconds", "microseconds"]))
    text = moment.isoformat(sep=draw(st.sampled_from("T T  _")), timespec=parts)
    if draw(st.integers(0, 9)) == 0:
        text = text.replace("-", "/", 2)
    if "." in text and draw(st.booleans()):
        text = text.replace(".", draw(st.sampled_from(".,"))) + draw(st.sampled_from(["", "7", "123"]))
    return text + draw(suffixes)


odd = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "never",
            "24",
            "2024",
            "20240102",
            "2024-W05-1",
            "2024-02-30",
            "2023-02-29",
            "0000-01-01",
            "2024-01-01T24:00:00",
            "2024-01-01T23:59:60",
            "2024-13-01",
            "2024-00-10",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T12:00\0",
            "2024-01-01T12:00:00é",
            "\ud8002024-01-01",
            " 2024-01-01 12:00:00 ",
            "2024-01-01T12:00:00.",
            "２０２４-01-01T12:00:00",
            "1_000",
            "17e8",
        ]
    ),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.integers(-(10**16), 10**16).map(str),
    st.text(max_size=30),
    st.text("0123456789-:T.+Z ", min_size=8, max_size=28),
    st.dates().map(date.isoformat),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(written(), written(), written(), odd), max_size=40), st.sampled_from(ZONES))
@example(["2024-03-31T02:30:00", "2024-10-27T02:30:00", "2024-10-27T03:00:00"], "Europe/Berlin")
@example(["2005-04-03T00:00:30", "2005-04-03T00:30:00", "2005-10-30T00:00:30"], "America/St_Johns")
@example(["2011-12-30T12:00:00", "2011-12-29T23:59:59.999999"], "Pacific/Apia")
@example(["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"], "Australia/Lord_Howe")
@example(["1.7e9", "1700000000000", "1e12"], "UTC")
def test_columns_are_read_as_single_texts_are(texts, name):
    agree(texts, time_zone(name))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ZONES),
    recent,
    st.lists(st.integers(-5_400_000_000, 5_400_000_000), min_size=1, max_size=60),
    st.sampled_from(["%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%d"]),
)
def test_runs_of_one_form(name, start, steps, form):
    walls = [start + timedelta(microseconds=sum(steps[: i + 1])) for i in range(len(steps))]
    agree([wall.strftime(form) for wall in walls], time_zone(name))


@pytest.mark.parametrize("name", ZONES)
def test_the_hours_around_every_change_of_the_clocks(name):
    zone = time_zone(name)
    hour, texts = datetime(1969, 1, 1), []
    offset = hour.replace(tzinfo=zone).utcoffset()
    while hour < datetime(2027, 1, 1):
        hour += timedelta(hours=1)
        before, offset = offset, hour.replace(tzinfo=zone).utcoffset()
        if before != offset:
            texts += [(hour + timedelta(minutes=m)).isoformat() for m in range(-150, 150)]
    agree(texts + ["2020-06-01T00:00:00"], zone)
    if name in ("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"):
        assert len(texts) > 40 * 300


class Odd(tzinfo):
    """A zone that the fast way knows nothing about: its offset depends on the minute."""

    def utcoffset(self, moment):
        return None if moment is None else timedelta(minutes=moment.minute)

    def dst(self, moment):
        return None


def test_any_tzinfo_will_do():
    texts = [f"2024-05-05T12:{minute:02}:00" for minute in range(60)]
    agree(texts, Odd())
    agree(texts, timezone(timedelta(hours=-3, minutes=-30, seconds=-7)))


def test_what_is_no_time_is_nan_and_the_rest_stands():
    texts = ["2024-01-01T00:00:00Z", "soon", "", "1704067201", "2024-01-01 00:00:02"]
    times = parse_times(texts, UTC)
    assert times[[0, 3, 4]].tolist() == [1704067200.0, 1704067201.0, 1704067202.0]
    assert np.isnan(times[[1, 2]]).all()
    assert parse_times([], UTC).shape == (0,)


def test_a_far_year_is_no_number_of_milliseconds():
    assert parse_times(["6000-01-01T00:00:00Z"], UTC)[0] == datetime(6000, 1, 1, tzinfo=UTC).timestamp()


def test_a_zone_that_does_not_exist():
    for name in ("Mars/Olympus", "", "../UTC", "Europe/"):
        with pytest.raises(ConfigurationError, match=re.escape(repr(name))):
            time_zone(name)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("form", ["uniform", "now and then without microseconds"])
def test_a_column_of_a_database_costs_little(name, form):
    """Less than a quarter of what `datetime` takes for the same texts, measured beside it."""
    start, every = datetime(2026, 1, 5), 1_999_987
    n = 50_000
    texts = [(start + timedelta(microseconds=every * i + 1)).isoformat() for i in range(n)]
    if form != "uniform":
        texts[::97] = [text[:19] for text in texts[::97]]
    zone = time_zone(name)

    def seconds(work):
        best = math.inf
        for _ in range(3):
            begun = time.process_time()
            work(texts, zone)
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(parse_times) * 4 < seconds(one_by_one)
