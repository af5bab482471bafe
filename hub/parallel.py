"""The same work for several repositories at a time; mostly it is waiting for the Hub."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """Threads that live as long as this context, and keep their connections.

    Args:
        count: How many; with 1 everything is done in the caller's thread, one thing after the other.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """The results of some work for each of some items, in their order.

        Raises:
            Exception: What the first of the works that failed raised.
        """
        return self.begin(work, items)()

    def begin(self, work: Callable[[A], B], items: Iterable[A]) -> Callable[[], list[B]]:
        """The same, while the caller goes on with something else.

        Returns:
            Waits for the results; raises what the first of the works that failed raised. With one worker
            everything is done already.
        """
        found = map(work, items) if self._pool is None else self._pool.map(work, items)
        if self._pool is not None:
            return lambda: list(found)
        done = list(found)
        return lambda: done
