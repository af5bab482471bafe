"""Listening and speaking: once for `express`, on and on for `run`."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from eisv_lumen import artifact
from eisv_lumen.device import slots
from eisv_lumen.device.awareness import GATE, RULES, Cadence, Hears, Spoken, StateBuffer, Voice
from eisv_lumen.device.current import CURRENT, Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.journal import Journal
from eisv_lumen.device.knowledge import judged
from eisv_lumen.device.probation import Probation
from eisv_lumen.errors import LumenError, ResourceError, SourceError, VerificationError
from eisv_lumen.rules import Rules
from eisv_lumen.sensors import AnimaFilter, Readings, to_eisv
from eisv_lumen.windows import MIN_STATES, WINDOW_LENGTH, Windows

WARM_UP = 5
"""Readings before the first state that counts: prediction accuracy and rates need a past."""


def open_voice(
    home: Home | None,
    student: Path | None = None,
    *,
    gate: float = GATE,
    generator: np.random.Generator | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Voice:
    """The voice of a student folder, or of the release in a home; the rules where there is neither.

    The files are verified before they are opened: a home's by the release's signature, a folder's by its
    manifest. Where the release that should speak is damaged, the last good one stands in for it.

    Args:
        home: Where the rules' weights and the installed release lie; None forgets what the rules learn.
        student: A student folder that takes the place of the installed release.
        gate: See `Voice`.
        generator: See `Voice`.
        warn: Told in one line when another release than the installed one has to speak.
    """
    rules, reason = (Rules(), None) if home is None else home.rules()
    model = None
    try:
        model = _open_model(home, student, warn)
    except LumenError as error:
        reason = error.found
    except Exception as error:  # a broken installation of the runtime must not silence the device
        reason = f"the model cannot be opened: {type(error).__name__}"
    return Voice(model, rules, reason=reason, gate=gate, generator=generator)


def live_states(
    readings: Iterable[Readings], *, warm_up: int = WARM_UP, site_pressure: float | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Times and EISV states `[4]` of a stream of readings, the first few left out."""
    listener = AnimaFilter() if site_pressure is None else AnimaFilter(site_pressure=site_pressure)
    for number, reading in enumerate(readings):
        states = to_eisv(listener.update(reading))
        if number >= warm_up:
            for moment, state in zip(reading.times, states, strict=True):
                yield float(moment), state


def collect(states: Iterator[tuple[float, np.ndarray]], count: int) -> Windows:
    """Wait for `count` states in a row.

    Raises:
        SourceError: The stream ends before.
    """
    buffer = StateBuffer(count)
    for moment, state in states:
        buffer.add(moment, state)
        if buffer.full:
            return buffer.window()
    raise SourceError(
        found=f"{len(buffer)} states",
        expected=f"{count} in a row",
        next="listen for longer, or to fewer states",
    )


def newest_window(path: Path, *, count: int = WINDOW_LENGTH, timezone: str = "UTC") -> Windows:
    """The newest states of a log that lie together, at most `count` of them.

    Raises:
        SourceError: The log is unreadable or too short.
    """
    from eisv_lumen.logs import read_states

    series, _ = read_states(path, timezone=timezone)
    long_enough = [part for part in series.segments if part.stop - part.start >= MIN_STATES]
    if not long_enough:
        raise SourceError(
            found=f"{path.name}: no {MIN_STATES} states without a gap between them",
            expected="a stretch of regular readings",
            next="record at a steady rate, or pass another log",
        )
    newest = slice(max(long_enough[-1].start, long_enough[-1].stop - count), long_enough[-1].stop)
    times = series.times[newest]
    return Windows.of(series.states[newest], times - times[0]).validate()


class Service:
    """`run`: hears state after state, speaks at its cadence, and keeps a journal.

    Args:
        home: The device's home; a newly installed release is taken up while running.
        voice: The voice to begin with.
        stride: States between two expressions.
        told: Called with everything that is said.
        warn: Told in one line when something cannot be kept or opened; neither a full disk nor a damaged
            journal silences the device.
        probation: Started before `voice` was opened, so that a model which takes the process with it is
            counted; None starts one now.
    """

    def __init__(
        self,
        home: Home,
        voice: Voice,
        *,
        stride: int,
        told: Callable[[Spoken], None] = lambda spoken: None,
        warn: Callable[[str], None] = lambda line: None,
        probation: Probation | None = None,
    ) -> None:
        self.home, self.voice, self.told, self.warn = home, voice, told, warn
        self._buffer, self._cadence = StateBuffer(), Cadence(stride)
        self._journal: Journal | None = None
        if probation is None:
            probation = Probation(home, warn)
            probation.start()
        self._probation = probation
        self._current = home.folder / CURRENT
        self._seen: tuple[int, int] | None = None

    def run(self, states: Iterator[tuple[float, np.ndarray]], count: int | None = None) -> int:
        """Go on until the stream ends or `count` expressions were said; returns how many were."""
        said = 0
        self._probation.opened()
        try:
            for moment, state in states:
                self._buffer.add(moment, state)
                if not self._cadence.due(self._buffer):
                    continue
                self._take_up_new_release()
                window = self._buffer.window()
                self._probation.asked()
                spoken = self.voice.speak(window)
                self._probation.answered()
                self.told(spoken)
                self._keep(spoken, window)
                self._probation.heard(spoken)
                said += 1
                if count is not None and said >= count:
                    break
        finally:
            self._probation.end()
        return said

    def _keep(self, spoken: Spoken, window: Windows) -> None:
        """What was said and learned; a journal that could not be opened is tried again each time."""
        try:
            if self._journal is None:
                self._journal = Journal(self.home.journal)
            self._journal.append(spoken, window)
        except ResourceError as error:
            self.warn(f"not kept: {error.found}")
        try:
            remember_rules(self.home, self.voice, spoken)
        except ResourceError as error:
            self.warn(f"not kept: {error.found}")

    def _take_up_new_release(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        if Current.read(self.home).speaks == self._probation.speaks:
            return  # only its probation has ended
        self.voice.model = None  # two models at once are too much for a small machine
        self._probation.start()
        self.voice = open_voice(self.home, gate=self.voice.gate, warn=self.warn)
        self._probation.opened()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._current.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def remember_rules(home: Home, voice: Voice, spoken: Spoken) -> None:
    """Keep what the rules have learned, where they spoke."""
    if spoken.source == RULES:
        home.write("weights.json", voice.rules.to_dict())


def _open_model(home: Home | None, student: Path | None, warn: Callable[[str], None]) -> Hears | None:
    if student is not None:
        artifact.verify(student, kind="student")
        folder = student
    elif home is not None:
        folder = _verified_slot(home, warn)
    else:
        return None
    from eisv_lumen.student import TrajectoryModel

    return TrajectoryModel.from_pretrained(folder)


def _verified_slot(home: Home, warn: Callable[[str], None]) -> Path:
    """Folder of the release that speaks, or of the last good one while it is damaged; `current` stays.

    On probation nothing stands in: the damage is the verdict, and one release must not pass for another.
    """
    trusted = home.trusted()
    try:
        return slots.open_current(home, trusted).folder
    except (VerificationError, OSError) as error:  # a dying card gives no wrong bytes, but errors
        current = Current.read(home)
        entry = None
        if current.trial is None:
            entry = slots.last_good(home, current, trusted, judged(home))
        if entry is None:
            raise
        found = error.found if isinstance(error, VerificationError) else error
        warn(
            f"the installed release is damaged ({found}); {entry.version} speaks instead until the next pull"
        )
        return home.slots / entry.slot
