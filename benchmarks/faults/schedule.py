"""Which requests of a run fail, and how: drawn from a seed, so that a schedule can be played again."""

import random
from dataclasses import dataclass

KINDS = ("429", "500", "503", "reset", "stall", "truncated", "short", "wrong", "duplicate")
"""What the proxy can do to a request.

429, 500, 503: such an answer (429 with Retry-After). reset: of the connection. stall: nothing more comes.
truncated: the connection ends before the announced length. short: a shorter answer that announces its own
length. wrong: one byte of the right length is another. duplicate: the Hub gets the request twice.
"""

_LATE = ("500", "503", "reset", "stall")
_OUTAGE = ("429", "500", "503", "reset")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: One of `KINDS`.
        late: The Hub carries the request out, and only its answer is lost; for 5xx, reset and stall.
        place: Where in the body it strikes, 0 to 1.
    """

    kind: str
    late: bool = False
    place: float = 0.5


Schedule = dict[int, Fault]
"""Fault by number of the request."""


def random_schedule(generator: random.Random, requests: int) -> Schedule:
    """One to six faults at random requests; in one of eight schedules an outage over many in a row.

    Args:
        generator: Source of chance.
        requests: How many requests a run without faults takes.
    """
    if generator.random() < 1 / 8:
        first = generator.randrange(requests)
        kind = generator.choice(_OUTAGE)
        return {first + i: Fault(kind) for i in range(generator.randint(5, 60))}
    schedule = {}
    for _ in range(generator.randint(1, 6)):
        kind = generator.choice(KINDS)
        late = kind in _LATE and generator.random() < 0.5
        schedule[generator.randrange(requests)] = Fault(kind, late, generator.random())
    return schedule
