"""Requests to a Hub that does not always answer: again, later each time, and not for ever."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from eisv_lumen.errors import HubError, LumenError
from eisv_lumen.hub_client import HubUnreachableError, hub_errors

T = TypeVar("T")
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, AssertionError, NameError)
"""What the client stumbles with over an answer that is no Hub's."""


@dataclass(frozen=True)
class Patience:
    """How long one waits for a Hub.

    Attributes:
        attempts: How often one request is tried.
        offline: How often where no connection can be made at all.
        first: Mean wait in seconds before the second attempt; doubled with each further one.
        most: Longest mean wait in seconds between two attempts; where the Hub asks for more, one gives up.
        seconds: Time for everything together, downloads too.
    """

    attempts: int = 5
    offline: int = 1
    first: float = 1.0
    most: float = 60.0
    seconds: float = 900.0

    def wait(self, error: HubError, failures: int) -> float | None:
        """Seconds to wait before another attempt, at least as many as the Hub asks for; None: no other.

        Args:
            error: Why the last attempt failed.
            failures: How many have failed by now.
        """
        unreachable = error if isinstance(error, HubUnreachableError) else None
        if failures >= (self.offline if unreachable and unreachable.offline else self.attempts):
            return None
        # Jitter: clients that failed together do not come back together.
        wait = min(self.most, self.first * 2 ** (failures - 1)) * random.uniform(0.5, 1.5)
        return max(wait, (unreachable and unreachable.retry_after) or 0.0)


class Retries:
    """Requests to one Hub, together bounded in time.

    Args:
        endpoint: Address shown in messages.
        patience: How long to try; the time runs from now.
        report: Told of each wait in one line.
    """

    def __init__(
        self,
        endpoint: str,
        patience: Patience | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.endpoint, self.patience, self.report = endpoint, patience or Patience(), report
        self._end = time.monotonic() + self.patience.seconds

    def call(self, what: str, request: Callable[[], T]) -> T:
        """Make a request that may be made twice.

        Args:
            what: Such as "list the releases of hikewa/eisv-lumen-student".
            request: The call of the client.

        Raises:
            HubError: The Hub refused.
            HubUnreachableError: It gave no usable answer for as long as the patience lasts.
        """
        failures = 0
        while True:
            try:
                return self._once(what, request)
            except HubUnreachableError as error:
                failures += 1
                wait = self._wait(error, failures)
                if wait is None:
                    raise
                self.report(f"{error.found.splitlines()[0]}: again in {wait:.1f} s")
                time.sleep(wait)

    def _once(self, what: str, request: Callable[[], T]) -> T:
        try:
            with _limit(self._end - time.monotonic()), hub_errors(what, self.endpoint):
                return request()
        except _TooLong:
            reason = f"no whole answer within {self.patience.seconds:g} s from {self.endpoint}, to {what}"
        except LumenError:
            raise
        except _NONSENSE as error:
            reason = f"an answer from {self.endpoint} that makes no sense ({type(error).__name__}), to {what}"
        raise HubUnreachableError(
            found=reason, expected="a Hub's answer", next="check the network, then run the same command again"
        )

    def _wait(self, error: HubUnreachableError, failures: int) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        wait = self.patience.wait(error, failures)
        if wait is None or wait > min(1.5 * self.patience.most, self._end - time.monotonic()):
            return None
        return wait


class _TooLong(BaseException):
    """The time is up; no library in between catches it as a failure of its own."""


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """End what takes too long, also an answer that drips in byte by byte and so never times out.

    Only a process's main thread can be interrupted: elsewhere, and where somebody else's alarm comes first,
    the client's own time limits for each read are all there is.
    """
    if seconds <= 0:
        raise _TooLong
    earlier = signal.getitimer(signal.ITIMER_REAL)[0]
    if threading.current_thread() is not threading.main_thread() or 0 < earlier <= seconds:
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    # Repeated, because an exception raised inside a destructor is lost.
    _, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if earlier:
            left = max(0.001, earlier - (time.monotonic() - started))
            signal.setitimer(signal.ITIMER_REAL, left, interval)
