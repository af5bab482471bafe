"""Measure the local Hub: racing writers, many files, downloads, memory over many requests, and kills.

python -m benchmarks.local_hub --out artifacts/hub.json [--requests 100000]
"""

import argparse
import http.client
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks import file_servers
from benchmarks.faults.client import before_import, use_endpoint
from benchmarks.measurement import Measurement, rate, seconds
from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason
from hub.local import LocalHub, start
from hub.local.check import problems

WRITERS, EACH = 16, 6
FILES = 1000
LARGE_MIB = 256
KILLS = 8
_CONNECTIONS = 4
_LOOKS = 10


def main() -> int:
    """Run every measurement, print them, write them as a list.

    Returns:
        1 when anything was lost or damaged.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local_hub", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("artifacts/hub.json"))
    parser.add_argument(
        "--requests", type=int, default=5_000, help="for the memory's sake (100,000: minutes)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-hub-") as temporary:
        folder = Path(temporary)
        before_import(str(folder / "hf-home"))
        found = killing(folder / "killed")
        with start(folder / "hub") as hub:
            use_endpoint(hub.url)
            found += [
                *racing(hub),
                many_files(hub),
                *downloading(hub, folder),
                *asking(hub, options.requests),
            ]
        damage = [*problems(folder / "hub")]
    found.append(Measurement("repositories damaged", len(damage), "problems", 1))
    for figure in found:
        beside = f"   baseline {figure.baseline:.4g}, {figure.ratio:.2f} times" if figure.ratio else ""
        print(f"{figure.name:58} {figure.value:10.4g} {figure.unit:12} n={figure.n}{beside}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, [asdict(figure) for figure in found])
    return int(any(figure.value for figure in found if figure.unit in ("problems", "commits lost")))


def racing(hub: LocalHub) -> list[Measurement]:
    """Writers that each insist on the parent they read, and try again when another was faster."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    repo = HfApi(endpoint=hub.url, token=hub.token).create_repo("bench/raced").repo_id
    stale: list[int] = []

    def write(writer: int) -> None:
        api = HfApi(endpoint=hub.url, token=hub.token)
        for number in range(EACH):
            name = f"{writer}/{number}.txt"
            while True:
                head = api.list_repo_refs(repo).branches[0].target_commit
                try:
                    files = [CommitOperationAdd(name, name.encode())]
                    api.create_commit(repo, files, commit_message=name, parent_commit=head)
                    break
                except HfHubHTTPError as error:
                    if getattr(error.response, "status_code", None) != 412:
                        raise
                    stale.append(writer)

    begun = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    taken = time.perf_counter() - begun
    api, wanted = HfApi(endpoint=hub.url, token=hub.token), WRITERS * EACH
    kept = min(len(api.list_repo_commits(repo)) - 1, len(api.list_repo_files(repo)) - 1)
    return [
        Measurement(f"{WRITERS} writers racing on one branch, lost", wanted - kept, "commits lost", wanted),
        Measurement(f"{WRITERS} writers racing, stale parents refused", len(stale), "refusals", wanted),
        Measurement(f"{WRITERS} writers racing on one branch", wanted / taken, "commits/s", wanted),
    ]


def many_files(hub: LocalHub) -> Measurement:
    """One commit of many files, as the client sends it."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=hub.url, token=hub.token)
    repo = api.create_repo("bench/many").repo_id

    def commit(number: int) -> float:
        files = [
            CommitOperationAdd(f"{number}/{each % 10}/{each}.txt", b"%d %d" % (number, each))
            for each in range(FILES)
        ]
        begun = time.perf_counter()
        api.create_commit(repo, files, commit_message=f"{number}")
        return time.perf_counter() - begun

    return Measurement(f"{FILES:,} files in one commit", statistics.median(map(commit, range(5))), "s", 5)


def downloading(hub: LocalHub, folder: Path) -> list[Measurement]:
    """One large file and many small ones, beside plain file servers in the same run."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=hub.url, token=hub.token)
    repo = api.create_repo("bench/fetched").repo_id
    served = folder / "served"
    served.mkdir()
    generator = random.Random(0)
    block = generator.randbytes(1 << 20)
    (served / "large.bin").write_bytes(block * LARGE_MIB)
    (served / "small.txt").write_bytes(block[:3000])
    files = [CommitOperationAdd(name, served / name) for name in ("large.bin", "small.txt")]
    api.create_commit(repo, files, commit_message="files")
    found, small = [], 300
    for name in file_servers.NAMES:
        with file_servers.serving(name, served) as plain:
            for file, count, unit in (("large.bin", LARGE_MIB, "MiB/s"), ("small.txt", small, "files/s")):
                times = 1 if file == "large.bin" else small
                ours, theirs = _in_turn(
                    partial(_fetch, f"{hub.url}/{repo}/resolve/main/{file}", times),
                    partial(_fetch, f"{plain}/{file}", times),
                )
                found.append(rate(f"download of {file}, beside {name}", count, unit, ours, theirs))
    return found


def _fetch(url: str, times: int) -> None:
    for _ in range(times):
        file_servers.fetch(url)


def _in_turn(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Shortest times of both, taken in turn, so that a busy machine slows both alike."""
    times = [(seconds(one, repeats=1), seconds(other, repeats=1)) for _ in range(7)]
    return min(first for first, _ in times), min(second for _, second in times)


def asking(hub: LocalHub, requests: int) -> list[Measurement]:
    """Memory of the server over many requests of every common kind, half of them for what is not there."""
    process = psutil.Process(hub.pid)
    parts = urlsplit(hub.url)
    paths = [
        ("HEAD", "/bench/many/resolve/main/{n}/{m}/{n}.txt"),
        ("GET", "/bench/many/resolve/main/0/{m}/{n}.txt"),
        ("GET", "/bench/fetched/resolve/main/small.txt"),
        ("GET", "/api/models/bench/raced/refs"),
        ("GET", "/api/models/bench/raced"),
        ("GET", "/api/models/bench/raced/tree/main/{m}"),
        ("GET", "/api/models/bench/absent-{n}"),
        ("GET", "/bench/fetched/resolve/absent-{n}/x"),
    ]

    def ask(count: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        for number in range(count):
            method, path = paths[number % len(paths)]
            connection.request(method, path.format(n=number, m=number % 10))
            connection.getresponse().read()
        connection.close()

    def ask_side_by_side(count: int) -> None:
        threads = [threading.Thread(target=ask, args=(count // _CONNECTIONS,)) for _ in range(_CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    sizes = [_resident(process)]
    begun = time.perf_counter()
    for _ in range(_LOOKS):
        ask_side_by_side(requests // _LOOKS)
        sizes.append(_resident(process))
    taken = time.perf_counter() - begun
    # At first Python's own pools fill; what grows later would grow for ever.
    grown = sizes[-1] - sizes[_LOOKS // 2]
    return [
        Measurement("requests of every kind", requests / taken, "requests/s", requests),
        Measurement("server's memory after them", sizes[-1], "MB RSS", requests),
        Measurement("grown by over the second half of them", grown, "MB", requests // 2),
    ]


def _resident(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


def killing(folder: Path) -> list[Measurement]:
    """The server killed again and again under writers; what it had confirmed must be there."""
    import requests
    from huggingface_hub import CommitOperationAdd, HfApi, lfs
    from huggingface_hub.utils import tqdm

    tqdm.set_lock(threading.RLock())  # the client's own bars are not made for threads
    lfs.http_backoff = requests.request  # type: ignore[assignment]  # it would go on knocking at a dead server for half a minute
    promised: list[tuple[str, str]] = []
    chance = random.Random(0)

    def write(hub: LocalHub, number: int) -> None:
        api = HfApi(endpoint=hub.url, token=hub.token)
        for step in range(10_000):
            name = f"{number}/{step}"
            content = name.encode() * 3000
            pair = [CommitOperationAdd(f"{name}.bin", content), CommitOperationAdd(f"{name}.txt", content)]
            try:
                promised.append((api.create_commit("bench/killed", pair, commit_message=name).oid, name))
            except (OSError, requests.RequestException, RuntimeError):
                return

    for round_number in range(KILLS):
        hub = start(folder)
        use_endpoint(hub.url)
        HfApi(endpoint=hub.url, token=hub.token).create_repo("bench/killed", exist_ok=True)
        writers = [
            threading.Thread(target=write, args=(hub, round_number * WRITERS + number)) for number in range(4)
        ]
        for writer in writers:
            writer.start()
        time.sleep(0.5 + chance.random())
        hub.kill()
        for writer in writers:
            writer.join()
        hub.stop()
    with start(folder) as hub:
        damage = len(list(problems(folder)))
        api = HfApi(endpoint=hub.url, token=hub.token)
        present = set(api.list_repo_files("bench/killed"))
        known = {commit.commit_id for commit in api.list_repo_commits("bench/killed")}
    lost = sum(f"{name}.bin" not in present or commit not in known for commit, name in promised)
    return [
        Measurement(f"Hub killed {KILLS} times under 4 writers, lost", lost, "commits lost", len(promised)),
        Measurement(f"Hub killed {KILLS} times under 4 writers, damaged", damage, "problems", KILLS),
    ]


if __name__ == "__main__":
    exit_with_reason(main)
