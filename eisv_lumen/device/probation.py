"""Probation: a new release speaks under observation until it is kept, or left for the last good one.

The service counts; the verdict needs nothing but this machine. `probation.json` holds the counts of one
probation, so that they outlive a restart; it names that probation, and counts of another one are void.

Starts that never come to speak (see `starts`) are watched for ever: a release that was kept may still meet
what it cannot stand, and the service would be started again and again without a word.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from eisv_lumen.device import slots
from eisv_lumen.device.awareness import MODEL, Spoken
from eisv_lumen.device.current import Current, Entry
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge, judged, refuse, remember
from eisv_lumen.device.memory import resident_mb
from eisv_lumen.device.pauses import with_pause, without_pause
from eisv_lumen.device.settings import Limits
from eisv_lumen.device.starts import LOST, WAITING, WITH_MODEL, Starts
from eisv_lumen.errors import LumenError

COUNTS = "probation.json"


@dataclass(frozen=True)
class Counts:
    """What was seen of a release on probation.

    Attributes:
        trial: Name of the probation.
        expressions: Expressions said.
        by_model: Those of them that the model spoke.
        failures: Times that the model gave no answer.
        slow: Expressions slower than the limit.
        seconds: Time of listening.
        rss_mb: Most resident memory seen, MiB.
    """

    trial: str
    expressions: int = 0
    by_model: int = 0
    failures: int = 0
    slow: int = 0
    seconds: float = 0.0
    rss_mb: float = 0.0

    def after(self, spoken: Spoken, limits: Limits, seconds: float, rss_mb: float | None) -> "Counts":
        """The counts after one more expression."""
        answer = spoken.model_confidence
        return replace(
            self,
            expressions=self.expressions + 1,
            by_model=self.by_model + (spoken.source == MODEL),
            failures=self.failures + (answer is None or not math.isfinite(answer)),
            slow=self.slow + (spoken.latency_ms > limits.latency_ms),
            seconds=round(self.seconds + seconds, 3),
            rss_mb=max(self.rss_mb, rss_mb or 0.0),
        )

    def broken(self, limits: Limits) -> str | None:
        """Which limit has been broken for good; None: none so far."""
        if self.failures >= limits.failures:
            return f"the model failed {self.failures} times in {self.expressions} expressions"
        if self.rss_mb > limits.rss_mb:
            return f"{self.rss_mb:.0f} MB of memory, at most {limits.rss_mb:g} allowed"
        if not self.complete(limits):
            return None
        if self.slow > limits.slow_share * self.expressions:
            return f"{self.slow} of {self.expressions} expressions took over {limits.latency_ms:g} ms"
        if self.by_model < limits.model_share * self.expressions:
            return f"the model spoke {self.by_model} of {self.expressions} expressions"
        return None

    def complete(self, limits: Limits) -> bool:
        """Whether enough was seen for a judgement."""
        return self.expressions >= limits.expressions and self.seconds >= limits.seconds


class Probation:
    """Watches what a service says, in the name of the release that speaks.

    Nothing here silences the service: what cannot be read or written is reported, and speaking goes on.

    Args:
        home: The device's home.
        warn: Told in one line of each verdict, and of what cannot be kept.
        clock: Seconds that only grow.

    Attributes:
        speaks: The slot that was to speak at the last start.
    """

    def __init__(
        self, home: Home, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.home, self.warn, self._clock = home, warn, clock
        self.speaks: Entry | None = None
        self._counts: Counts | None = None
        self._starts: Starts | None = None
        self._heard = clock()

    def start(self) -> None:
        """Before a model is opened: count how the last start ended, and leave a release that loses too many.

        A release that takes the process with it when it is opened, or asked, would otherwise do so for ever.
        """
        self._counts, self._starts, self._heard = None, None, self._clock()
        try:
            line = leave_unwanted(self.home)
            if line is not None:
                self.warn(line)
            self._judge_starts()
            self._counts = read_counts(self.home)
            starts = Starts.read(self.home)
            self._starts = starts.counted if starts else None
            self._reached(WITH_MODEL)
        except (LumenError, OSError) as error:
            self._cannot(error)
        self.speaks = Current.read(self.home).speaks

    def opened(self) -> None:
        """The model is open, and states are waited for."""
        self._reached(WAITING)

    def asked(self) -> None:
        """The model is about to be asked; only the first time of a start matters."""
        self._reached(WITH_MODEL)

    def answered(self) -> None:
        """It has given an answer, whatever that is worth: this start has not come to nothing."""
        if self._starts is not None:
            self._starts = replace(self._starts, crashed=0, lost=0)
            self.end()

    def heard(self, spoken: Spoken) -> None:
        """Count one expression, and judge when it is time."""
        now = self._clock()
        seconds, self._heard = now - self._heard, now
        if self._counts is None:
            return
        try:
            self._counts = self._counts.after(spoken, self._limits(), seconds, resident_mb())
            self.home.write(COUNTS, asdict(self._counts))
            self._judge()
        except (LumenError, OSError) as error:
            self._cannot(error)

    def end(self) -> None:
        """An orderly end, however early, is no lost start."""
        self._reached(None)
        self._starts = None

    def _reached(self, stage: str | None) -> None:
        """Write down where this start is, as long as it has not come to speak."""
        if self._starts is None:
            return
        try:
            self._starts = replace(self._starts, stage=stage)
            self._starts.write(self.home)
        except (LumenError, OSError) as error:
            self._cannot(error)

    def _judge_starts(self) -> None:
        """First remember, then go back: a kill between the two is mended by the next start."""
        starts, current = Starts.read(self.home), Current.read(self.home)
        if starts is None or current.speaks is None:
            return
        counted, most = starts.counted, self._limits().starts
        if counted.crashed >= most:
            why = (
                f"{counted.crashed} starts never came to a first expression: the model took the process down"
            )
            self._leave(current, f"failed its probation: {why}" if current.trial else why)
        elif counted.lost >= LOST:
            why = f"{counted.lost} starts never came to a first expression"
            speaks = current.speaks
            remember(self.home, speaks.repo_id, lambda state: with_pause(state, speaks.version, why))
            self._go_back(current, why)

    def _judge(self) -> None:
        counts, limits, current = self._counts, self._limits(), Current.read(self.home)
        if counts is None:
            return
        why = counts.broken(limits)
        if why is not None:
            self._counts = None
            if current.trial == counts.trial:
                self._leave(current, f"failed its probation: {why}")
        elif counts.complete(limits):
            self._counts = None
            if slots.keep(self.home, counts.trial) and (speaks := current.speaks):
                remember(self.home, speaks.repo_id, lambda state: without_pause(state, speaks.version))
                self.warn(f"probation passed after {counts.expressions} expressions")

    def _leave(self, current: Current, why: str) -> None:
        """First remember, then go back: a kill between the two is mended by the next start or pull."""
        if current.speaks is not None:
            refuse(self.home, current.speaks.version, why, current.speaks.repo_id)
            self._go_back(current, why)

    def _go_back(self, current: Current, why: str) -> None:
        now = slots.go_back(self.home, self.home.trusted(), judged(self.home), why, only=current)
        if now is not None and current.speaks is not None:
            self.warn(f"{current.speaks.version} {why}; back to {describe(now)}")

    def _limits(self) -> Limits:
        try:
            return self.home.settings().probation
        except LumenError:
            return Limits()

    def _cannot(self, error: Exception) -> None:
        self.warn(f"probation is not kept: {getattr(error, 'found', None) or error}")


def read_counts(home: Home) -> Counts | None:
    """The counts of the probation that is under way; None when what speaks is on none."""
    trial = Current.read(home).trial
    if trial is None:
        return None
    try:
        counts = Counts(**home.read(COUNTS))
    except (LumenError, TypeError):
        return Counts(trial)
    return counts if counts.trial == trial else Counts(trial)


def leave_unwanted(home: Home) -> str | None:
    """Leave what speaks if it was yanked or refused; returns how, in one line, where it had to go."""
    speaks = Current.read(home).speaks
    if speaks is None:
        return None
    why = Knowledge.read(home, speaks.repo_id).condemned(speaks.version)
    if why is None:
        return None
    now = slots.go_back(home, home.trusted(), judged(home), why)
    return f"left {speaks.version} ({why}) for {describe(now)}"


def describe(current: Current | None) -> str:
    """What speaks, for people."""
    return current.speaks.version if current and current.speaks else "the rules"
