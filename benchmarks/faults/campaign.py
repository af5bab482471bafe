"""All trials of a run, shared between workers that each have a Hub, a device and a publisher of their own."""

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import device, notice_kills, publisher, service_kills
from benchmarks.faults.corruption import SignedRelease
from benchmarks.faults.device import DeviceWorld
from benchmarks.faults.hub_kills import hub_kill_trial
from benchmarks.faults.notice_kills import NoticeWorld
from benchmarks.faults.outcome import UNDER_KILL, Tally, Trial
from benchmarks.faults.processes import Kill, die_with, random_kill
from benchmarks.faults.publisher import PublisherWorld
from benchmarks.faults.schedule import random_schedule
from benchmarks.faults.service_kills import ServiceWorld
from benchmarks.faults.siege import Siege, calm, under_kill
from hub.local import start

_REAL_SELFTESTS = 0.1
"""Share of the pulls, beside the kills at named states, whose self-test runs as on a device."""

_EVERY = 60.0
"""Seconds between two lines of progress."""

Try = Callable[[random.Random], Trial]


@dataclass(frozen=True)
class Share:
    """One worker's part of a run.

    Attributes:
        folder: For all that it makes.
        counts: Trials of the whole run by section.
        minutes: How long the device is under kill.
        seed: Of the whole run.
        worker: Its number.
        workers: How many there are; a worker takes the trials whose number leaves its own as remainder.
    """

    folder: Path
    counts: Mapping[str, int]
    minutes: float
    seed: int
    worker: int
    workers: int


def run(
    folder: Path, counts: Mapping[str, int], seed: int, workers: int, minutes: float = 0.0
) -> dict[str, Any]:
    """Run so many trials of each section, and one kill at every named state.

    Args:
        folder: For Hubs, homes and artifacts.
        counts: Trials by section: pulls, releases, pull-kills, service-kills, release-kills, notice-kills,
            hub-kills, corruptions.
        seed: Every trial draws from it, its section and its number alone.
        workers: Processes side by side.
        minutes: How long each worker keeps a device under kill; see `siege`.

    Returns:
        `Tally.to_dict` by section, the seed, the workers and the states at which was killed.
    """
    started = time.perf_counter()
    shares = [
        Share(folder / str(number), counts, minutes, seed, number, workers) for number in range(workers)
    ]
    if workers == 1:
        parts = [_work(shares[0])]
    else:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, context, die_with, (os.getpid(),)) as pool:
            parts = list(pool.map(_work, shares))
    tallies = {name: Tally(name, seed) for name in (*counts, UNDER_KILL)}
    seconds, seen = dict.fromkeys(tallies, 0.0), Counter[str]()
    for part in parts:
        seen.update(part["seen"])
        for name, trials in part["trials"].items():
            seconds[name] = max(seconds[name], part["seconds"].get(name, 0.0))
            for number, trial in trials:
                tallies[name].add(number, trial)
    return {
        "seed": seed,
        "workers": workers,
        "seconds": round(time.perf_counter() - started, 1),
        "states": parts[0]["states"],
        **{name: tally.to_dict(seconds[name]) for name, tally in tallies.items()},
        "seen": dict(sorted(seen.items())),
    }


def _work(share: Share) -> dict[str, Any]:
    share.folder.mkdir(parents=True)
    names = (*share.counts, UNDER_KILL)
    found: dict[str, Any] = {"trials": dict.fromkeys(names, ()), "seconds": {}, "states": {}, "seen": {}}
    with ExitStack() as stack:
        for make in (_of_device, _of_service, _of_publisher, _of_notices, _of_bytes):
            sections, states = make(share, stack)
            found["states"].update(states)
            for name, numbered in sections.items():
                begun = time.perf_counter()
                found["trials"][name] = _run_section(share, name, numbered)
                found["seconds"][name] = time.perf_counter() - begun
        if share.minutes:
            begun = time.perf_counter()
            siege = _siege(share, stack)
            found["trials"][UNDER_KILL] = _run_section(share, UNDER_KILL, _until(share, siege))
            found["seconds"][UNDER_KILL] = time.perf_counter() - begun
            found["seen"] = dict(siege.seen)
    return found


Sections = tuple[dict[str, Iterator[tuple[int, Try]]], dict[str, list[str]]]
"""Trials by section, and the named states at which processes are killed."""


def _of_device(share: Share, stack: ExitStack) -> Sections:
    if not share.counts["pulls"] + share.counts["pull-kills"]:
        return {}, {}
    hub = stack.enter_context(start(share.folder / "device-hub"))
    world = stack.enter_context(DeviceWorld(hub, share.folder / "device"))
    at_states: list[Try] = [partial(_kill_pull_at, world, case, state) for case, state in world.points]
    return {
        "pulls": _numbered(share, "pulls", partial(_pull, world)),
        "pull-kills": _kills(share, "pull-kills", partial(_kill_pull, world), at_states),
    }, {"updater": [" ".join(point) for point in world.points]}


def _of_service(share: Share, stack: ExitStack) -> Sections:
    if not share.counts["service-kills"]:
        return {}, {}
    world = stack.enter_context(ServiceWorld(share.folder / "service"))
    at_states: list[Try] = [partial(_kill_service_at, world, case, state) for case, state in world.points]
    return {"service-kills": _kills(share, "service-kills", partial(_kill_service, world), at_states)}, {
        "service": [", ".join(point) for point in world.points]
    }


def _of_notices(share: Share, stack: ExitStack) -> Sections:
    if not share.counts["notice-kills"]:
        return {}, {}
    root = share.folder / "notices-hub"
    world = stack.enter_context(NoticeWorld(stack.enter_context(start(root)), root, share.folder / "notices"))
    at_states: list[Try] = [partial(_kill_notice, world, point) for point in world.points]
    return {"notice-kills": _kills(share, "notice-kills", partial(_kill_notice, world, None), at_states)}, {
        "notices": [" ".join(point) for point in world.points]
    }


def _of_publisher(share: Share, stack: ExitStack) -> Sections:
    if not share.counts["releases"] + share.counts["release-kills"] + share.counts["hub-kills"]:
        return {}, {}
    root = share.folder / "hub"
    world = stack.enter_context(PublisherWorld(start(root), root, share.folder / "publisher"))
    states = list(dict.fromkeys(world.states))
    at_states: list[Try] = [partial(_kill_release, world, state) for state in states]
    return {
        "releases": _numbered(share, "releases", partial(_release, world)),
        "release-kills": _kills(share, "release-kills", partial(_kill_release, world, None), at_states),
        "hub-kills": _numbered(share, "hub-kills", partial(hub_kill_trial, world)),
    }, {"publisher": states}


def _of_bytes(share: Share, stack: ExitStack) -> Sections:
    release = SignedRelease(share.folder / "signed")
    release.check()
    return {"corruptions": _numbered(share, "corruptions", release.trial)}, {}


def _siege(share: Share, stack: ExitStack) -> Siege:
    root, generator = share.folder / "siege-hub", random.Random(f"{share.seed} siege {share.worker}")
    hub = stack.enter_context(start(root))
    return stack.enter_context(Siege(hub, root, share.folder / "siege", generator))


def _until(share: Share, siege: Siege) -> Iterator[tuple[int, Try]]:
    """Lives under kill until the time is up; behind them one that ends in peace."""
    end, number = time.monotonic() + 60 * share.minutes, share.worker
    while time.monotonic() < end:
        yield number, partial(under_kill, siege)
        number += share.workers
    yield number, lambda _: calm(siege)


def _run_section(share: Share, name: str, numbered: Iterator[tuple[int, Try]]) -> list[tuple[int, Trial]]:
    trials: list[tuple[int, Trial]] = []
    told = time.perf_counter()
    for number, attempt in numbered:
        trial = attempt(random.Random(f"{share.seed} {name} {number}"))
        trials.append((number, trial))
        if trial.losses:
            print(f"{name} {number}: {'; '.join(trial.losses)} {trial.kinds}", flush=True)
        if time.perf_counter() - told > _EVERY:
            told = time.perf_counter()
            lost = sum(1 for _, each in trials if each.losses)
            print(f"worker {share.worker}: {name} {number}, {lost} losses so far", flush=True)
    return trials


def _numbered(share: Share, name: str, attempt: Try) -> Iterator[tuple[int, Try]]:
    for number in range(share.worker, share.counts[name], share.workers):
        yield number, attempt


def _kills(share: Share, name: str, at_random: Try, at_states: list[Try]) -> Iterator[tuple[int, Try]]:
    """Kills at random points, and behind them one at every named state."""
    yield from _numbered(share, name, at_random)
    if share.counts[name]:
        for number, attempt in enumerate(at_states, share.counts[name]):
            if number % share.workers == share.worker:
                yield number, attempt


def _pull(world: DeviceWorld, generator: random.Random) -> Trial:
    case = generator.choice(list(world.cases.values()))
    world.warm = generator.random() >= _REAL_SELFTESTS
    return device.network_trial(world, case, random_schedule(generator, case.requests))


def _release(world: PublisherWorld, generator: random.Random) -> Trial:
    return publisher.network_trial(world, generator, random_schedule(generator, world.requests))


def _kill_pull(world: DeviceWorld, generator: random.Random) -> Trial:
    case = generator.choice(list(world.cases.values()))
    world.warm = generator.random() >= _REAL_SELFTESTS
    return device.kill_trial(world, case, random_kill(generator, case.seconds, case.acts))


def _kill_pull_at(world: DeviceWorld, case: str, state: str, generator: random.Random) -> Trial:
    world.warm = False
    return device.kill_trial(world, world.cases[case], Kill(state=state))


def _kill_release(world: PublisherWorld, state: str | None, generator: random.Random) -> Trial:
    kill = Kill(state=state) if state else random_kill(generator, world.seconds, world.acts)
    return publisher.kill_trial(world, generator, kill)


def _kill_service(world: ServiceWorld, generator: random.Random) -> Trial:
    case = generator.choice(list(world.cases.values()))
    return service_kills.service_kill_trial(world, case, service_kills.random_kills(generator, case))


def _kill_service_at(world: ServiceWorld, case: str, state: str, generator: random.Random) -> Trial:
    return service_kills.service_kill_trial(world, world.cases[case], [Kill(state=state)])


def _kill_notice(world: NoticeWorld, point: tuple[str, str] | None, generator: random.Random) -> Trial:
    return notice_kills.notice_kill_trial(world, generator, point)
