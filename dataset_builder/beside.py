"""Work that a process of its own does beside this one, so that two cores are busy.

`with Beside(work) as beside:` begins `work(receive)` there. What `beside.finish(last)` hands over is what
`receive()` returns there, and what `work` returns is what `finish` waits for.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from eisv_lumen.errors import LumenError, ResourceError

_AHEAD = 1 << 20
"""Bytes of items that lie ready; as much as Linux gives every user."""

Receive = Callable[[], Any]
Work = Callable[[Receive], Any]


class Beside:
    """A forked process, which knows all that is known when it begins, and what it is handed at the end.

    It ends with the context at the latest, or when the process that began it dies.

    Args:
        work: What is done there; it is called with a function that waits for what `finish` hands over.
    """

    def __init__(self, work: Work) -> None:
        fork = multiprocessing.get_context("fork")
        self._here, there = fork.Pipe()
        self._process = fork.Process(target=_run, args=(work, there, self._here), daemon=True)
        self._process.start()
        there.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.give_up()
        self._process.join()
        self._here.close()

    def give_up(self) -> None:
        """End the work: nobody waits for it."""
        self._process.terminate()

    def finish(self, last: object = None) -> Any:
        """Hand over the last of what the work needs, wait until it is done, and give what it returned.

        Raises:
            LumenError: As the work raised it.
            OSError: As the work raised it.
            RuntimeError: The work failed otherwise; its traceback is in the message.
            ResourceError: The process was killed.
        """
        with contextlib.suppress(OSError):  # it has ended; why is what it said last
            self._here.send(last)
        try:
            failed, result = self._here.recv()
        except (EOFError, OSError):
            self._process.join()
            raise _killed(self._process.exitcode) from None
        if failed is not None:
            kind, positional, named = failed
            raise kind(*positional, **named)
        return result


def ahead(items: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """The items, which a process of its own makes while those before are worked on.

    Raises:
        LumenError: As the making of an item raised it; all else as of `Beside.finish`.
    """
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    with contextlib.suppress(OSError, AttributeError):  # a few items lie ready, where the system allows
        fcntl.fcntl(there.fileno(), fcntl.F_SETPIPE_SZ, _AHEAD)

    def make(_: Receive) -> None:
        here.close()
        for item in items():
            there.send(item)
        there.close()

    with here, Beside(make) as beside:
        there.close()  # the other process holds its other end: it ends with that
        while True:
            try:
                item = here.recv()
            except (EOFError, OSError):  # done, or dead; `finish` knows
                break
            yield item
        beside.finish()


def _run(work: Work, there: Connection, here: Connection) -> None:
    """The forked process, from its beginning to its end."""
    here.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that began, which then ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    failed, result = None, None
    try:
        result = work(there.recv)
    except BaseException as error:
        failed = _described(error)
    there.send((failed, result))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _described(error: BaseException) -> tuple[type[Exception], tuple[Any, ...], dict[str, Any]]:
    """What the other process makes the same error of: its class and arguments."""
    if isinstance(error, LumenError):
        return type(error), (), {"found": error.found, "expected": error.expected, "next": error.next}
    if isinstance(error, OSError):
        return OSError, (error.errno, error.strerror or str(error), error.filename), {}
    return RuntimeError, ("".join(traceback.format_exception(error)),), {}


def _killed(code: int | None) -> ResourceError:
    return ResourceError(
        found=f"a process of the build ended with code {code}",
        expected="to finish; one that the system kills (-9) ran out of memory",
        next="free some memory, then run the same command again",
    )
