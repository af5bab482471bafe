"""Channels that freeze: a sensor whose values always changed, and which then repeats one value and no other.

Most sensors repeat a value now and then, coarse ones for minutes, so a channel is held to its own past. What
is judged are the five sensors alone: the load of a machine that idles stands still for hours and is right.
"""

from collections.abc import Mapping

import numpy as np

SENSORS = ("cpu_temp_c", "ambient_temp_c", "humidity_pct", "light_lux", "pressure_hpa")
RUNS_KNOWN = 30
"""Runs of equal values that a channel must have ended before it can freeze."""
COARSE = 0.5
"""A channel of which every value is a multiple of this is too coarse to be judged."""
SHORTEST_FREEZE = 300
"""Readings that may always repeat."""
MEAN_RUNS, LONGEST_RUNS = 100, 4
"""A freeze is longer than so many of the channel's mean runs, and than so many of its longest one."""
END_OF_RANGE = {"light_lux": (-np.inf, 1.0), "humidity_pct": (0.0, 100.0)}
"""A value at or beyond these is at the end of what a sensor can say (dark night, fog) and may stay there."""


class FrozenChannels:
    """Takes frozen values as missing, reading by reading, with what is known until then.

    A run is a stretch of equal values of one channel, missing ones left out. From the reading on that makes
    the run longer than the limits above, the channel is frozen until its value changes. A frozen run, and one
    at the end of the range, counts as no run. A channel that only ever reported whole or half numbers is not
    judged. All is counted in integers, so chunks of any size give the same result; applied again to what it
    returned, it takes out nothing more.

    Attributes:
        frozen: Values per channel taken as missing so far.
    """

    def __init__(self) -> None:
        self.frozen: dict[str, int] = {}
        self._runs = {name: _Runs(END_OF_RANGE.get(name, (-np.inf, np.inf))) for name in SENSORS}

    def update(self, channels: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The next readings.

        Args:
            channels: `[N]` possible values per channel, NaN where missing.

        Returns:
            The channels with frozen values missing, and their number per channel that froze.
        """
        kept, found = dict(channels), {}
        for name in SENSORS:
            values = channels.get(name)
            if values is None:
                continue
            rows = self._runs[name].frozen(values)
            if len(rows):
                kept[name] = values.copy()
                kept[name][rows] = np.nan
                found[name] = len(rows)
                self.frozen[name] = self.frozen.get(name, 0) + len(rows)
        return kept, found


class _Runs:
    """The runs of one channel: those that ended, in numbers, and the one that goes on."""

    def __init__(self, ends: tuple[float, float]) -> None:
        self._low, self._high = ends
        self._value = np.nan
        self._length = 0
        self._limit: int | None = None
        self._ended = 0
        self._readings = 0
        self._longest = 0
        self._coarse = True

    def frozen(self, values: np.ndarray) -> np.ndarray:
        """Rows of the next values `[N]` that are frozen."""
        rows = np.flatnonzero(~np.isnan(values))
        if not len(rows):
            return rows
        present = values[rows]
        begins = np.flatnonzero(present[1:] != present[:-1]) + 1
        if present[0] != self._value:
            begins = np.concatenate([[0], begins])
        stops = np.append(begins[1:], len(rows))
        frozen = [self._go_on(0, begins[0] if len(begins) else len(rows))]
        at = 0
        # Only a run as long as the shortest freeze, or the last one, needs a limit of its own.
        for long in [*np.flatnonzero(stops[:-1] - begins[:-1] >= SHORTEST_FREEZE).tolist(), len(begins) - 1]:
            if at > long:
                continue
            self._end()
            self._count(present[begins[at:long]], stops[at:long] - begins[at:long])
            self._begin(float(present[begins[long]]))
            frozen.append(self._go_on(int(begins[long]), int(stops[long])))
            at = long + 1
        return rows[np.concatenate(frozen)]

    def _begin(self, value: float) -> None:
        self._value, self._length, self._limit = value, 0, None
        self._coarse &= value % COARSE == 0
        if self._ended >= RUNS_KNOWN and not self._coarse and self._low < value < self._high:
            mean = MEAN_RUNS * self._readings // self._ended
            self._limit = max(SHORTEST_FREEZE, mean, LONGEST_RUNS * self._longest)

    def _go_on(self, start: int, stop: int) -> np.ndarray:
        """The present run takes these places; those beyond its limit are frozen."""
        first = stop if self._limit is None else max(start, start + self._limit - self._length)
        self._length += stop - start
        return np.arange(first, stop)

    def _end(self) -> None:
        if self._length and (self._limit is None or self._length < self._limit):
            self._count(np.array([self._value]), np.array([self._length]))
        self._length = 0

    def _count(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """Runs that have ended, none of them frozen."""
        self._coarse = self._coarse and bool((np.mod(values, COARSE) == 0).all())
        lengths = lengths[(values > self._low) & (values < self._high)]
        self._ended += len(lengths)
        self._readings += int(lengths.sum())
        self._longest = max(self._longest, int(lengths.max(initial=0)))
