"""The Hub itself killed while a release is being published to it, and started again."""

import os
import random
import signal
import time
from urllib.parse import urlsplit

from benchmarks.faults import publisher, stored
from benchmarks.faults.outcome import Trial
from benchmarks.faults.processes import die_with
from benchmarks.faults.publisher import PublisherWorld
from hub.local import start


def hub_kill_trial(world: PublisherWorld, generator: random.Random) -> Trial:
    """A Hub that is killed under a publisher: what is on its disk is whole, and the publisher can go on."""
    before = publisher.begin(world, generator)
    killer = _kill_later(world.hub.pid, generator.random() * world.seconds)
    ended = world.publish(patient=False)
    os.waitpid(killer, 0)
    losses = [] if ended.how in ("done", "refused") else [f"{ended.how}: {publisher.last(ended)}"]
    world.hub.stop()
    losses += publisher.half_seen(world, before)
    losses += stored.damage(world.root, world.settings.namespace)
    world.hub = start(world.root, token=world.hub.token, port=urlsplit(world.hub.url).port or 0)
    losses += publisher.finish(world, before, exact=True)
    return Trial("published" if ended.how == "done" else ended.how, tuple(losses), ("Hub killed",))


def _kill_later(pid: int, seconds: float) -> int:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with(parent)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    return child
