"""Windows of EISV states, and the ways to cut and describe them.

One window is the N = 1 case of many, so building a dataset and hearing on a Pi run the same code.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from eisv_lumen.errors import WindowError
from eisv_lumen.vocabulary import STATE_MAX

WINDOW_LENGTH = 20
STRIDE = 10
MIN_STATES = 4
GAP_FACTOR = 10.0
"""A gap is a step longer than this many median steps (DOMAIN.md section 1)."""

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Windows:
    """N windows of up to T states.

    Attributes:
        states: `[N, T, 4]` float64, E, I, S, V; E, I, S in [0, 1], V in [0, 0.3].
        times: `[N, T]` float64 seconds, any origin, non-decreasing over the states present.
        mask: `[N, T]` bool, True where a state is present. Values elsewhere are ignored.
        ethical_drift: `[N, T]` float64 scalar per state, or None where nothing reports it.
    """

    states: np.ndarray
    times: np.ndarray
    mask: np.ndarray
    ethical_drift: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        states: np.ndarray,
        times: np.ndarray,
        mask: np.ndarray | None = None,
        ethical_drift: np.ndarray | None = None,
    ) -> Self:
        """Windows from arrays `[N, T, 4]` and `[N, T]`, or one window from `[T, 4]` and `[T]`.

        Raises:
            WindowError: When the arrays' shapes do not fit each other.
        """
        states = np.asarray(states, dtype=np.float64)
        times = np.asarray(times, dtype=np.float64)
        if states.ndim == 2:
            states, times = states[None], times[None]
            mask = None if mask is None else np.asarray(mask)[None]
            ethical_drift = None if ethical_drift is None else np.asarray(ethical_drift)[None]
        if states.ndim != 3 or states.shape[2] != 4 or times.shape != states.shape[:2]:
            raise WindowError(
                found=f"states of shape {states.shape} with times of shape {times.shape}",
                expected="states [N, T, 4] or [T, 4] with times [N, T] or [T]",
                next="pass one row of E, I, S, V per time stamp",
            )
        mask = np.ones(times.shape, bool) if mask is None else np.asarray(mask, bool)
        drift = None if ethical_drift is None else np.asarray(ethical_drift, np.float64)
        for name, array in (("mask", mask), ("ethical_drift", drift)):
            if array is not None and array.shape != times.shape:
                raise WindowError(
                    found=f"{name} of shape {array.shape} with times of shape {times.shape}",
                    expected=f"one {name} value per state",
                    next=f"pass {name} in the shape of times",
                )
        return cls(states, times, mask, drift)

    def __len__(self) -> int:
        """Number of windows, N."""
        return len(self.states)

    def __getitem__(self, index: int | slice | np.ndarray) -> Self:
        """The chosen windows; an integer gives the N = 1 case."""
        if isinstance(index, int | np.integer):
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        drift = None if self.ethical_drift is None else self.ethical_drift[index]
        return type(self)(self.states[index], self.times[index], self.mask[index], drift)

    @property
    def counts(self) -> np.ndarray:
        """`[N]` states present per window."""
        return self.mask.sum(axis=1)

    def validate(self, *, min_states: int = MIN_STATES) -> Self:
        """Refuse windows that nothing can be said about; returns self.

        Raises:
            WindowError: NaN or infinite values, values out of range, times that decrease,
                or fewer than `min_states` states.
        """
        states, times = self.states[self.mask], self.times[self.mask]
        if len(self) and self.counts.min() < min_states:
            raise _refused(f"a window of {self.counts.min()} states", f"at least {min_states} states")
        if not (np.isfinite(states).all() and np.isfinite(times).all()):
            raise _refused("NaN or infinite values", "finite states and times")
        if (states < -_ROUNDING).any() or (states > STATE_MAX + _ROUNDING).any():
            raise _refused(
                f"states between {states.min(axis=0).round(3)} and {states.max(axis=0).round(3)}",
                "E, I, S in [0, 1] and V in [0, 0.3]",
            )
        packed = self.packed()
        if (np.diff(packed.times, axis=1)[packed.mask[:, 1:]] < 0).any():
            raise _refused("times that decrease", "times in ascending order")
        return self

    def packed(self) -> Self:
        """The same windows with the states present moved to the front, in order.

        The room behind them repeats the last state and its time, masked out.
        """
        if self.mask.all() or not self.mask.size:
            return self
        order = np.argsort(~self.mask, axis=1, kind="stable")
        last = np.maximum(self.counts - 1, 0)[:, None]
        order = np.take_along_axis(order, np.minimum(np.arange(order.shape[1])[None], last), axis=1)
        drift = self.ethical_drift
        return type(self)(
            np.take_along_axis(self.states, order[..., None], axis=1),
            np.take_along_axis(self.times, order, axis=1),
            np.arange(order.shape[1])[None] < self.counts[:, None],
            None if drift is None else np.take_along_axis(drift, order, axis=1),
        )

    def seconds_before_last(self) -> np.ndarray:
        """`[N, T]` seconds before the last state present, >= 0; 0 where masked out."""
        last = np.where(self.mask, self.times, -np.inf).max(axis=1, keepdims=True)
        return np.where(self.mask, last - self.times, 0.0)


def concatenate(parts: list[Windows]) -> Windows:
    """Windows of equal length T, one after the other; drift is kept where any part has it (0 elsewhere)."""
    drift = None
    if any(part.ethical_drift is not None for part in parts):
        drift = np.concatenate(
            [
                np.zeros(part.times.shape) if part.ethical_drift is None else part.ethical_drift
                for part in parts
            ]
        )
    return Windows(
        np.concatenate([part.states for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.mask for part in parts]),
        drift,
    )


@dataclass(frozen=True)
class Derivatives:
    """First and second derivatives per interval between consecutive states present.

    Interval k lies between the k-th and the (k+1)-th state present. Where an interval is not usable,
    the values are 0.

    Attributes:
        first: `[N, T-1, 4]` change per second; usable where both states are present and time passed.
        second: `[N, T-1, 4]` change of `first` since the previous usable interval, per second.
        usable: `[N, T-1]` bool, intervals whose first derivative is defined.
        usable_second: `[N, T-1]` bool, intervals whose second derivative is defined.
    """

    first: np.ndarray
    second: np.ndarray
    usable: np.ndarray
    usable_second: np.ndarray


@dataclass(frozen=True)
class Summaries:
    """What the prompts say about a window.

    Attributes:
        n_states: `[N]` int64 states present.
        duration: `[N]` seconds from the first to the last state present.
        mean: `[N, 4]` mean state.
        first: `[N, 4]` plain mean of the first derivatives over usable intervals, 0 when there are none.
        second: `[N, 4]` the same of the second derivatives.
    """

    n_states: np.ndarray
    duration: np.ndarray
    mean: np.ndarray
    first: np.ndarray
    second: np.ndarray


def derivatives(windows: Windows) -> Derivatives:
    """Per-interval derivatives; intervals in which no time passes are skipped (DOMAIN.md section 2)."""
    packed = windows.packed()
    step = np.diff(packed.times, axis=1)
    usable = packed.mask[:, 1:] & (step > 0)
    per_second = np.divide(1.0, step, out=np.zeros_like(step), where=usable)[..., None]
    first = np.diff(packed.states, axis=1) * per_second
    previous, has_previous = _shifted(first), _shifted(usable)
    if not usable.all():
        first = np.where(usable[..., None], first, 0.0)
        latest = np.maximum.accumulate(np.where(usable, np.arange(usable.shape[1]), -1), axis=1)
        before = np.concatenate([np.full((len(latest), 1), -1), latest[:, :-1]], axis=1)[:, : latest.shape[1]]
        has_previous = before >= 0
        previous = np.take_along_axis(first, np.maximum(before, 0)[..., None], axis=1)
    usable_second = usable & has_previous
    second = np.where(usable_second[..., None], (first - previous) * per_second, 0.0)
    return Derivatives(first, second, usable, usable_second)


def summaries(windows: Windows) -> Summaries:
    """Counts, durations, mean states and mean derivatives of every window."""
    rates = derivatives(windows)
    present = windows.mask[..., None]
    counts = windows.counts
    total = np.where(present, windows.states, 0.0).sum(axis=1)
    return Summaries(
        n_states=counts,
        duration=windows.seconds_before_last().max(axis=1, initial=0.0),
        mean=total / np.maximum(counts, 1)[:, None],
        first=_mean_over(rates.first, rates.usable),
        second=_mean_over(rates.second, rates.usable_second),
    )


def _mean_over(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    return values.sum(axis=1) / np.maximum(usable.sum(axis=1), 1)[:, None]


def _shifted(array: np.ndarray) -> np.ndarray:
    """The array moved one interval later, zeros (False) in front."""
    moved = np.zeros_like(array)
    moved[:, 1:] = array[:, :-1]
    return moved


def _refused(found: str, expected: str) -> WindowError:
    return WindowError(found=found, expected=expected, next="clean or drop the window before it is heard")
