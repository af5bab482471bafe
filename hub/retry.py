"""A publisher's patience with a Hub that does not always answer: again, later each time, but not for ever."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from eisv_lumen import retry
from eisv_lumen.errors import HubError
from eisv_lumen.hub_client import HubUnreachableError
from hub.transport import ended_within

T = TypeVar("T")


@dataclass(frozen=True)
class Patience(retry.Patience):
    """How long a publisher tries: a person is waiting, and half a release helps nobody.

    `most` holds also where the Hub asks for more (Retry-After); `seconds` is the time for one request that
    sends no files.
    """

    attempts: int = 7
    offline: int = 3
    first: float = 0.5
    seconds: float = 60.0


class Backoff:
    """Waits between the attempts at one thing.

    Args:
        patience: How long.
        report: Told of each wait in one line.
    """

    def __init__(self, patience: Patience, report: Callable[[str], None]) -> None:
        self.patience, self.report, self.failures = patience, report, 0

    def wait(self, error: HubError) -> None:
        """Wait before another attempt.

        Args:
            error: Why the last one failed; raised again where it was the last one allowed.
        """
        self.failures += 1
        seconds = self.patience.wait(error, self.failures)
        if seconds is None:
            raise error
        seconds = min(self.patience.most, seconds)
        self.report(f"{error.found.splitlines()[0]}: again in {seconds:.1f} s")
        time.sleep(seconds)


class Asking:
    """Requests to one Hub.

    Args:
        endpoint: Address shown in messages.
        report: Told of each wait in one line.
        patience: How long to try.
    """

    def __init__(
        self,
        endpoint: str,
        report: Callable[[str], None] = lambda line: None,
        patience: Patience | None = None,
    ) -> None:
        self.endpoint, self.report, self.patience = endpoint, report, patience or Patience()

    def __call__(self, what: str, request: Callable[[], T], extra_seconds: float = 0.0) -> T:
        """Do something that may be done twice: read, or write what changes nothing the second time.

        Args:
            what: Such as "list the files of hikewa/eisv-lumen-student".
            request: The call of the client.
            extra_seconds: Time for each attempt beside that for a request without files.

        Raises:
            HubError: The Hub refused, or did not answer for as long as the patience lasts.
        """
        backoff = self.backoff()
        while True:
            try:
                return self.once(what, request, extra_seconds)
            except HubUnreachableError as error:
                backoff.wait(error)

    def once(self, what: str, request: Callable[[], T], extra_seconds: float = 0.0) -> T:
        """Do it once.

        Args:
            what: As above.
            request: As above.
            extra_seconds: As above.

        Raises:
            HubUnreachableError: No answer in time, or none that makes sense: worth another attempt.
            HubError: The Hub refused.
        """
        patience = retry.Patience(attempts=1, seconds=self.patience.seconds + extra_seconds)
        with ended_within(patience.seconds):
            return retry.Retries(self.endpoint, patience).call(what, request)

    def backoff(self) -> Backoff:
        """The waits between attempts at one thing."""
        return Backoff(self.patience, self.report)
