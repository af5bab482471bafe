"""What a release costs over the bare calls that send the same files: `python -m benchmarks.publishing`.

    python -m benchmarks.publishing --rounds 9 --out artifacts/publishing.json

A local Hub takes folders of the demo's sizes by turns: bare, as one `create_repo` and one `create_commit` per
repository; and as a release, which validates, compares, commits, reads back, signs and tags. The bytes are
new in every round, since a Hub does not take what it has already.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, configure_http_backend
from huggingface_hub.utils import disable_progress_bars

from eisv_lumen.artifact import write_json
from eisv_lumen.errors import exit_with_reason
from eisv_lumen.release import ROLES
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.local import start
from hub.publication import publish_release
from hub.publish import ORDER
from hub.settings import ReleaseSettings
from tests.release_artifacts import NAMES, as_if_imported_with, rebuild, release_folders, small_student

SIZES = {
    "dataset": {"data/windows/train.parquet": 3_000_000},
    "base": {"model.safetensors": 10_000_000},
    "teacher": {"adapter_model.safetensors": 2_000_000},
    "student": {"model.safetensors": 5_300_000},
    "space": {},
}
"""Bytes of the large files, about those of the demo."""

STAGES = {
    "folders read, the Hub asked": "validated",
    "compared with the Hub": "planned",
    "sent and committed": "committed student",
    "read back": "compared student",
    "tagged": "tagged student",
}
"""Parts of a release, each with the state that ends it."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("artifacts/publishing.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(Path(temporary), arguments.rounds)
    for name, entry in found["seconds"].items():
        span = f"n={entry['n']}, {entry['least']:.3f} to {entry['most']:.3f}"
        print(f"{name:28} {entry['median']:7.3f} s  ({span})")
    for name, taken in found["stages"].items():
        print(f"  of a release: {name:28} {taken:7.3f} s")
    print(f"a release over bare calls: {found['overhead']:+.1%}   requests: {found['requests']}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, found)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Times of several rounds of everything."""
    disable_progress_bars()
    generator = np.random.default_rng(0)
    folders = release_folders(folder / "artifacts", small_student(folder / "student"))
    times: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {}
    requests: dict[str, int] = {}
    with start(folder / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        as_if_imported_with(hub.url, patch)
        api = HfApi(endpoint=hub.url, token=hub.token)
        for number in range(rounds):
            # By turns, so that neither has the warmer Hub or the quieter machine.
            kinds = [("bare", bare), ("release", partial(release, stages=stages))]
            for kind, send in kinds if number % 2 else reversed(kinds):
                settings = ReleaseSettings(namespace=f"{kind}{number}", names=NAMES)
                renew(folders, settings, generator)
                configure_http_backend()  # a release sets its own connections up
                with counted(patch) as count:
                    timed(times, kind, lambda: send(api, settings, folders))  # noqa: B023 - called at once
                requests[kind] = count.total()
            timed(times, "release, nothing to do", lambda: release(api, settings, folders))  # noqa: B023
    seconds = {
        name: {
            "median": statistics.median(values),
            "least": min(values),
            "most": max(values),
            "n": len(values),
        }
        for name, values in times.items()
    }
    # Paired: a round's two runs share the machine's mood.
    ratios = [a / b for a, b in zip(times["release"], times["bare"], strict=True)]
    return {
        "seconds": seconds,
        "overhead": statistics.median(ratios) - 1,
        "overhead_of_rounds": [round(ratio - 1, 4) for ratio in ratios],
        "stages": {name: statistics.median(values) for name, values in stages.items()},
        "requests": requests,
        "bytes": sum(size for files in SIZES.values() for size in files.values()),
    }


def bare(api: HfApi, settings: ReleaseSettings, folders: dict[str, Path]) -> None:
    """One repository and one commit per folder."""
    for role in ORDER:
        repo_id, repo_type = settings.repo_id(role), ROLES[role]
        api.create_repo(repo_id, repo_type=repo_type, space_sdk="gradio" if repo_type == "space" else None)
        operations = [
            CommitOperationAdd(path.relative_to(folders[role]).as_posix(), path)
            for path in sorted(folders[role].rglob("*"))
            if path.is_file()
        ]
        api.create_commit(repo_id, operations, commit_message="bare", repo_type=repo_type)


def release(
    api: HfApi,
    settings: ReleaseSettings,
    folders: dict[str, Path],
    stages: dict[str, list[float]] | None = None,
) -> None:
    """A whole release; the seconds of its stages are added to `stages`."""
    reached = {"": time.perf_counter()}

    def at(state: str) -> None:
        reached[state] = time.perf_counter()

    with redirect_stdout(io.StringIO()):
        publish_release(api, settings, Version.parse("0.1.0"), KEY, str(api.token), folders, None, at=at)
    if stages is not None:
        for name, (before, state) in zip(STAGES, pairwise(("", *STAGES.values())), strict=True):
            stages.setdefault(name, []).append(reached[state] - reached[before])


def renew(folders: dict[str, Path], settings: ReleaseSettings, generator: np.random.Generator) -> None:
    """New bytes for every large file, and the names of this round."""
    named = json.dumps({"base_model_name_or_path": settings.repo_id("base")}).encode()
    for role, files in SIZES.items():
        changes = {name: generator.bytes(size) for name, size in files.items()}
        rebuild(folders[role], changes | ({"adapter_config.json": named} if role == "teacher" else {}))


def timed(times: dict[str, list[float]], name: str, work: Callable[[], None]) -> None:
    """Add the seconds of one run."""
    started = time.perf_counter()
    work()
    times.setdefault(name, []).append(time.perf_counter() - started)


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the requests that are sent meanwhile, by method and kind."""
    import requests as library

    count: Counter[str] = Counter()
    send = library.Session.send

    def counting(self: Any, request: Any, **options: Any) -> Any:
        count[f"{request.method} {request.path_url.split('?')[0]}"] += 1
        return send(self, request, **options)

    with patch.context() as inner:
        inner.setattr(library.Session, "send", counting)
        yield count


KEY = SigningKey.generate()

if __name__ == "__main__":
    exit_with_reason(main)
