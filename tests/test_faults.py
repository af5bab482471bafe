"""The harness that kills and fails things: that it runs, and above all that it would see a loss."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from benchmarks.faults import stored
from benchmarks.faults.corruption import SignedRelease
from benchmarks.faults.outcome import Tally, Trial
from benchmarks.faults.processes import Kill, forked, random_kill
from eisv_lumen.errors import ResourceError
from eisv_lumen.signing import SigningKey, TrustedKeys
from hub.local import start
from hub.settings import ReleaseSettings
from tests.release_artifacts import (
    NAMES,
    NAMESPACE,
    REPO_IDS,
    Repository,
    as_if_imported_with,
    small_student,
)

CHECKOUT = Path(__file__).resolve().parents[1]


def run(out: Path, seed: int, **counts: int) -> dict[str, Any]:
    """A run of so many trials; the counts that it wrote."""
    command = [sys.executable, "-m", "benchmarks.faults", "--seed", seed, "--out", out / "faults.json"]
    for name in ("schedules", "releases", "kills", "release-kills", "hub-kills", "corruptions"):
        command += [f"--{name}", counts.get(name.replace("-", "_"), 0)]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(out)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "faults.json").read_text())


def test_pulls_through_a_failing_network_lose_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, seed=5, schedules=3, corruptions=50)
    assert (found["pulls"]["trials"], found["corruptions"]["trials"], found["seed"]) == (3, 50, 5)
    assert found["pulls"]["losses"] == found["corruptions"]["losses"] == found["releases"]["trials"] == 0
    assert found["pulls"]["by_kind"] and "yanked left" in found["states"]["updater"]


def test_releases_through_a_failing_network_lose_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, seed=5, releases=1, hub_kills=1)
    assert (found["releases"]["trials"], found["hub-kills"]["trials"]) == (1, 1)
    assert found["releases"]["losses"] == found["hub-kills"]["losses"] == 0
    assert found["releases"]["by_kind"] and "tagged student" in found["states"]["publisher"]


class TestProcesses:
    def test_how_they_end(self) -> None:
        def refuse(at: object) -> None:
            raise ResourceError(found="no space", expected="some", next="free some")

        def crash(at: object) -> None:
            raise KeyError("branches")

        assert forked(lambda at: {"a": 1}).value == {"a": 1}
        refused, crashed = forked(refuse), forked(crash)
        assert (refused.how, refused.value) == ("refused", "ResourceError: no space")
        assert crashed.how == "crashed" and "KeyError: 'branches'" in crashed.value

    def test_killed_after_a_time(self) -> None:
        ended = forked(lambda at: time.sleep(60), Kill(after=0.05))
        assert ended.how == "killed" and ended.seconds < 30

    def test_killed_before_an_act(self, tmp_path: Path) -> None:
        def write(at: object) -> None:
            for number in range(5):
                (tmp_path / str(number)).write_text("x")

        assert forked(write).acts == 5
        for path in tmp_path.iterdir():
            path.unlink()
        assert forked(write, Kill(act=3)).how == "killed"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]

    def test_killed_at_a_named_state(self, tmp_path: Path) -> None:
        def pass_through(at) -> list[str]:
            for state in ("one", "two", "three"):
                at(state)
                (tmp_path / state).write_text("passed")
            return at.seen

        assert forked(pass_through).value == ["one", "two", "three"]
        (tmp_path / "two").unlink()
        assert forked(pass_through, Kill(state="two")).how == "killed" and not (tmp_path / "two").exists()

    def test_waits_can_be_shortened(self) -> None:
        def wait(at: object) -> float:
            begun = time.monotonic()
            time.sleep(600)
            return time.monotonic() - begun

        ended = forked(wait, patient=False)
        assert ended.value >= 600 and ended.seconds < 60

    def test_kills_come_from_their_seed(self) -> None:
        drawn = [random_kill(random.Random(seed), 1.0, 100) for seed in range(50)]
        assert drawn == [random_kill(random.Random(seed), 1.0, 100) for seed in range(50)]
        assert {kill.after is None for kill in drawn} == {True, False}


def test_a_changed_byte_that_is_accepted_is_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = SignedRelease(tmp_path)
    assert signed.check().version == "0.1.0"
    generator = random.Random(0)
    assert all(signed.trial(generator).outcome == "refused" for _ in range(40))
    assert signed.check().version == "0.1.0"  # every byte was put back
    monkeypatch.setattr("benchmarks.faults.corruption.slots.verify_slot", lambda *_: None)
    monkeypatch.setattr("benchmarks.faults.corruption.release.verify_files", lambda *_: None)
    trial = signed.trial(generator)
    assert trial.outcome == "accepted" and "byte" in trial.losses[0]


def test_a_release_that_names_what_is_not_there_is_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, settings = SigningKey.generate(), ReleaseSettings(namespace=NAMESPACE, names=NAMES)
    with start(tmp_path / "hub") as hub:
        as_if_imported_with(hub.url, monkeypatch)
        student = Repository(HfApi(endpoint=hub.url, token=hub.token), REPO_IDS["student"], key)
        found = stored.repositories(tmp_path / "hub", settings)
        assert stored.half_releases(found, TrustedKeys([key.public])) == []
        student.publish("0.1.0", small_student(tmp_path / "student"))
        (loss,) = stored.half_releases(found, TrustedKeys([key.public]))
        assert "v0.1.0 is visible and not whole" in loss and "is not at" in loss
        (loss,) = stored.half_releases(found, TrustedKeys([SigningKey.generate().public]))
        assert "VerificationError" in loss
        assert (found["student"].commits(), found["student"].empty_commits()) == (1, 0)
    assert stored.damage(tmp_path / "hub", NAMESPACE) == []
    for path in (tmp_path / "hub").rglob("lfs/objects/*/*/*"):
        path.unlink()
    assert any("missing" in problem for problem in stored.damage(tmp_path / "hub", NAMESPACE))


def test_losses_are_counted_with_what_replays_them() -> None:
    tally = Tally("pulls", 7)
    tally.add(0, Trial("installed", (), ("429", "429", "reset")))
    tally.add(3, Trial("crashed", ("crashed: KeyError",), ("wrong",)))
    found = tally.to_dict(1.0)
    assert (found["trials"], found["losses"], found["outcomes"]) == (2, 1, {"crashed": 1, "installed": 1})
    assert found["by_kind"]["429"] == {"faults": 2, "trials": 1, "losses": 0}
    assert found["by_kind"]["wrong"]["losses"] == 1 and found["lost"][0]["trial"] == 3
