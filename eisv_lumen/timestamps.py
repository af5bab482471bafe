"""Times as texts: ISO 8601 or seconds since the epoch, in a named time zone, a whole column at once.

`datetime.fromisoformat` defines what a text means. A column written by a program has one or two forms, so its
digits are read with array arithmetic, and a zone's offset is asked for once per hour of wall-clock time; any
text of another form is read on its own.
"""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from eisv_lumen.errors import ConfigurationError

_MILLISECONDS = 1e11
"""A number of seconds beyond the year 5000 is a number of milliseconds."""
_ISO = re.compile(r"0000-00-00(?:T00:00(?::00(?:[.,](0+))?)?(?:Z|[+-]00:00)?)?")
_FORMS = 4
"""Forms of one length read as columns; further ones are read text by text."""
_LONGEST = 64
_EXACT = 1 << 53
_SECOND, _HOUR = 1_000_000, 3_600_000_000
_EPOCH = datetime(1970, 1, 1)
_LAST_MOMENT = timedelta(minutes=59, seconds=59, microseconds=999_999)
_DAYS_IN_MONTH = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_FORM_OF = bytes.maketrans(b"\x00123456789 /", b"?000000000T-")


def time_zone(name: str) -> tzinfo:
    """The time zone of a name such as `UTC` or `Europe/Berlin`.

    Raises:
        ConfigurationError: No such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            found=f"time zone {name!r}",
            expected="a name such as UTC or Europe/Berlin",
            next="correct the time zone (on a bare system, install tzdata)",
        ) from error


def parse_times(texts: Sequence[str], zone: tzinfo) -> np.ndarray:
    """`[N]` seconds since the epoch of ISO 8601 texts or numbers; NaN where a text is neither.

    Args:
        texts: N texts. A number is seconds, or milliseconds beyond 1e11.
        zone: Zone of times that name none. A wall-clock time that occurs twice is the first of the two; one
            that daylight saving skips is read with the offset before the change.
    """
    if len(texts) and not _ISO.fullmatch(_form(texts[0])):
        try:
            return _numbers(np.fromiter(map(float, texts), np.float64, len(texts)))
        except ValueError:
            pass  # not all of them are numbers
    seconds = np.full(len(texts), np.nan)
    odd = np.ones(len(texts), np.bool_)
    for rows, form, block in _columns(texts):
        wall, offset, known = _moments(block, form, zone)
        total = wall - offset
        known &= np.abs(total) < _EXACT  # beyond, a float64 is rounded twice
        seconds[rows[known]] = total[known] / _SECOND
        odd[rows[known]] = False
    for row in np.flatnonzero(odd).tolist():
        seconds[row] = _time(texts[row], zone)
    return seconds


def epoch_seconds(numbers: np.ndarray) -> np.ndarray:
    """`[N]` seconds of numbers since the epoch in seconds, ms, µs or ns, told apart by their size."""
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    for _ in range(3):
        numbers = np.where(np.abs(numbers) > _MILLISECONDS, numbers / 1000.0, numbers)
    return np.where(np.abs(numbers) > _MILLISECONDS, np.nan, numbers)


def parse_written(texts: Sequence[str], form: str, zone: tzinfo) -> np.ndarray:
    """`[N]` seconds since the epoch of texts in one declared form; NaN where a text is not in it.

    Args:
        texts: N texts.
        form: Directives of `datetime.strptime`, such as `%d.%m.%Y %H:%M`.
        zone: Zone of times that name none.
    """
    return np.fromiter((_written(text.strip(), form, zone) for text in texts), np.float64, len(texts))


def check_form(form: str) -> None:
    """Refuse a form in which a moment cannot be written and read.

    Raises:
        ConfigurationError: A directive that there is not, or day, month, year or hour are not in it.
    """
    moment = datetime(2021, 2, 3, 16, tzinfo=UTC)
    try:
        whole = datetime.strptime(moment.strftime(form), form).replace(tzinfo=UTC) == moment
    except ValueError:
        whole = False
    if not whole:
        raise ConfigurationError(
            found=f"times written as {form!r}",
            expected="a form with day, month, year and hour, such as %d.%m.%Y %H:%M:%S",
            next="correct time_format in the mapping",
        )


def _written(text: str, form: str, zone: tzinfo) -> float:
    try:
        moment = datetime.strptime(text, form)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _numbers(seconds: np.ndarray) -> np.ndarray:
    seconds = np.where(np.isfinite(seconds), seconds, np.nan)
    return np.where(np.abs(seconds) > _MILLISECONDS, seconds / 1000.0, seconds)


def _time(text: str, zone: tzinfo) -> float:
    """One text, in seconds since the epoch; what the arrays are held to."""
    text = text.strip()
    try:
        number = float(text)  # first, because some numbers read as ISO 8601 basic dates too
        if not math.isfinite(number):
            return math.nan
        return number / 1000.0 if abs(number) > _MILLISECONDS else number
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.replace("/", "-"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _form(text: str) -> str:
    """The text with every digit as 0: texts of one form have their parts at the same places."""
    return text.encode("ascii", "replace").translate(_FORM_OF).decode("ascii")


def _columns(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, str, np.ndarray]]:
    """Per form that is ISO 8601: the rows `[n]`, the form, and their characters `[n, length]`."""
    raw = "".join(texts).encode("ascii", "replace")  # one byte per character
    characters = np.frombuffer(raw, np.uint8)
    forms = np.frombuffer(raw.translate(_FORM_OF), np.uint8)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    starts = np.cumsum(lengths) - lengths
    for length in np.flatnonzero(np.bincount(lengths[lengths <= _LONGEST])).tolist():
        rows = np.flatnonzero(lengths == length)
        at = slice(None) if len(rows) == len(texts) else starts[rows, None] + np.arange(length)
        block = characters[at].reshape(len(rows), length)
        written = np.ascontiguousarray(forms[at]).view(f"S{length}").ravel() if length else rows[:0]
        for _ in range(_FORMS):
            if not len(written):
                break
            same = written == written[0]
            form = written[0].decode("ascii")
            if _ISO.fullmatch(form):
                yield rows[same], form, block[same]
            rows, written, block = rows[~same], written[~same], block[~same]


def _moments(block: np.ndarray, form: str, zone: tzinfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wall-clock times and offsets `[n]` in microseconds, and which rows `[n]` are read for sure."""
    year = _pair(block, 0) * 100 + _pair(block, 2)
    month, day = _pair(block, 5), _pair(block, 8)
    known = (year >= 1) & (month >= 1) & (month <= 12)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = _DAYS_IN_MONTH[np.where(known, month, 0)] - ((month == 2) & ~leap)
    known &= (day >= 1) & (day <= last)
    hour, minute, second = (
        _pair(block, at) if len(form) > at else 0 * day for at in (11, 14, _seconds(form))
    )
    known &= (hour <= 23) & (minute <= 59) & (second <= 59)
    days = _days(np.where(known, year, 1970), np.where(known, month, 1), day)
    wall = (((days * 24 + hour) * 60 + minute) * 60 + second) * _SECOND + _fraction(block, form)
    if form.endswith("Z"):
        return wall, 0 * wall, known
    if len(form) > 16 and form[-6] in "+-":
        hours, minutes = _pair(block, -5), _pair(block, -2)
        offset = (hours * 60 + minutes) * (60 * _SECOND) * (1 if form[-6] == "+" else -1)
        return wall, offset, known & (hours <= 23) & (minutes <= 59)
    offset, sure = _offsets(np.where(known, wall, 0), zone)
    return wall, offset, known & sure


def _pair(block: np.ndarray, at: int) -> np.ndarray:
    """The number of the two digits that begin at a place; int64."""
    return block[:, at].astype(np.int64) * 10 + block[:, at + 1] - 11 * ord("0")


def _seconds(form: str) -> int:
    """Where the seconds stand; beyond the end where there are none."""
    return 17 if form[16:17] == ":" else len(form)


def _fraction(block: np.ndarray, form: str) -> np.ndarray:
    """Microseconds; further digits are cut off, as `datetime` does."""
    match = _ISO.fullmatch(form)
    digits = len(match[1] or "") if match else 0
    micro = np.zeros(len(block), np.int64)
    for place in range(min(digits, 6)):
        micro += (block[:, 20 + place].astype(np.int64) - ord("0")) * 10 ** (5 - place)
    return micro


def _days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01 of dates of the Gregorian calendar (H. Hinnant, days_from_civil)."""
    year = year - (month <= 2)
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _offsets(wall: np.ndarray, zone: tzinfo) -> tuple[np.ndarray, np.ndarray]:
    """The zone's offsets `[n]` in microseconds, and for which rows `[n]` they hold the whole hour around."""
    fixed = zone.utcoffset(None) if isinstance(zone, ZoneInfo | timezone) else None
    if fixed is not None:
        return np.full(len(wall), _micro(fixed)), np.ones(len(wall), np.bool_)
    hours = wall // _HOUR
    runs = np.flatnonzero(np.diff(hours, prepend=hours[:1] - 1))  # times mostly ascend: few runs
    distinct, inverse = np.unique(hours[runs], return_inverse=True)
    offsets, sure = np.zeros(len(distinct), np.int64), np.zeros(len(distinct), np.bool_)
    for at, hour in enumerate(distinct.tolist()):
        first = (_EPOCH + timedelta(hours=hour)).replace(tzinfo=zone)
        begins, ends = first.utcoffset(), (first + _LAST_MOMENT).utcoffset()
        if begins is not None and begins == ends:  # else the clocks change within this hour
            offsets[at], sure[at] = _micro(begins), True
    lengths = np.diff(runs, append=len(wall))
    return np.repeat(offsets[inverse], lengths), np.repeat(sure[inverse], lengths)


def _micro(offset: timedelta) -> int:
    return offset // timedelta(microseconds=1)
