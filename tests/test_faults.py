"""The harness that kills and fails things: that it runs, and above all that it would see a loss."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from huggingface_hub import HfApi

from benchmarks.faults import stored
from benchmarks.faults.corruption import SignedRelease
from benchmarks.faults.device import Case
from benchmarks.faults.notice_kills import COMMANDS, NoticeWorld, notice_kill_trial
from benchmarks.faults.outcome import Tally, Trial
from benchmarks.faults.processes import Kill, forked, random_kill
from benchmarks.faults.selftest import forked_selftest
from benchmarks.faults.service_kills import ServiceWorld, service_kill_trial
from benchmarks.faults.siege import Siege
from eisv_lumen.device.current import Current
from eisv_lumen.errors import ResourceError, VerificationError
from eisv_lumen.signing import SigningKey, TrustedKeys
from hub.local import start
from hub.settings import ReleaseSettings
from tests.release_artifacts import (
    NAMES,
    NAMESPACE,
    REPO_IDS,
    Branch,
    Repository,
    as_if_imported_with,
    running_hub,
    small_student,
)

CHECKOUT = Path(__file__).resolve().parents[1]


def run(out: Path, seed: int, **counts: float) -> dict[str, Any]:
    """A run of so many trials; the counts that it wrote."""
    command = [sys.executable, "-m", "benchmarks.faults", "--seed", seed, "--out", out / "faults.json"]
    names = ("schedules", "releases", "kills", "service-kills", "release-kills", "notice-kills", "hub-kills")
    for name in (*names, "corruptions", "minutes"):
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


def test_nothing_goes_on_when_a_run_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--workers", "2", "--minutes", "5"]
    for name in ("schedules", "kills", "hub-kills", "corruptions"):
        command += [f"--{name}", "0"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(command, cwd=CHECKOUT, env={**os.environ, "TMPDIR": str(tmp_path)}, **quiet)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("faults-*/1/siege/diary")) and time.monotonic() < end:
        time.sleep(0.05)
    family = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    for process in alive:
        process.kill()
    # Two workers, each with a Hub and a publisher of its own, and a device that lives now and then.
    assert len(family) >= 6 and alive == []


def test_releases_through_a_failing_network_lose_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, seed=5, releases=1, hub_kills=1)
    assert (found["releases"]["trials"], found["hub-kills"]["trials"]) == (1, 1)
    assert found["releases"]["losses"] == found["hub-kills"]["losses"] == 0
    assert found["releases"]["by_kind"] and "tagged student" in found["states"]["publisher"]


def test_a_device_under_kill_loses_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, seed=5, minutes=0.05)
    assert found["under-kill"]["trials"] >= 2 and found["under-kill"]["losses"] == 0
    assert found["under-kill"]["outcomes"]["calm"] == 1 and found["seen"]["releases good"] >= 2


class TestServiceKills:
    @pytest.fixture(scope="class")
    def world(self, tmp_path_factory: pytest.TempPathFactory) -> ServiceWorld:
        return ServiceWorld(tmp_path_factory.mktemp("service") / "world")

    @pytest.mark.parametrize("state", ["started", "spoke 6", "decided"])
    @pytest.mark.parametrize("case", ["does well", "does badly"])
    def test_killed_there_the_verdict_still_falls(self, world: ServiceWorld, case: str, state: str) -> None:
        trial = service_kill_trial(world, world.cases[case], [Kill(state=state), Kill(state="opened")])
        assert trial.losses == () and trial.kinds == ("state",)

    def test_killed_while_a_person_rolls_back(self, world: ServiceWorld) -> None:
        case = world.cases["is rolled back"]
        outcomes = {service_kill_trial(world, case, [Kill(act=act)]) for act in range(0, case.acts, 2)}
        assert {trial.losses for trial in outcomes} == {()}
        assert {trial.outcome for trial in outcomes} == {"killed, on probation", "killed, left"}

    def test_a_verdict_that_is_not_remembered_is_a_loss(
        self, world: ServiceWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eisv_lumen.device.probation.refuse", lambda *_: None)
        trial = service_kill_trial(world, world.cases["does badly"], [Kill(state="opened")])
        assert "0.2.0 was left, and is not remembered as bad" in trial.losses[0]

    def test_a_release_that_goes_on_speaking_is_a_loss(
        self, world: ServiceWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eisv_lumen.device.slots.go_back", lambda *_, **__: None)
        trial = service_kill_trial(world, world.cases["does badly"], [Kill(state="opened")])
        assert "0.2.0 speaks at last, and not 0.1.0" in trial.losses[0]


class TestNoticeKills:
    @pytest.fixture(scope="class")
    def world(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoticeWorld]:
        root, folder = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("notices")
        with running_hub(root) as hub:
            yield NoticeWorld(hub, root, folder / "world")

    @pytest.mark.parametrize("command", ["yank", "rollout", "rotate"])
    @pytest.mark.parametrize(("state", "stands"), [("commit asked", "old"), ("commit answered", "new")])
    def test_killed_there_it_is_finished(
        self, world: NoticeWorld, command: str, state: str, stands: str
    ) -> None:
        trial = notice_kill_trial(world, random.Random(command), (command, f"POST {state}"))
        assert (trial.outcome, trial.losses) == (f"killed, {stands}", ())

    def test_half_a_change_is_a_loss(self, world: NoticeWorld) -> None:
        world.renew()
        branch = Branch(world.repository)
        branch.say()
        branch.rotate([SigningKey.generate()], world.key, notices=False)
        trial = notice_kill_trial(world, random.Random(0), ("yank", "GET refs asked"))
        assert "half a change: VerificationError" in trial.losses[0]

    def test_a_command_that_does_nothing_is_a_loss(
        self, world: NoticeWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.renew()
        monkeypatch.setitem(COMMANDS, "yank", lambda: None)
        trial = notice_kill_trial(world, random.Random(0), ("yank", "GET refs asked"))
        assert trial.outcome == "done, old" and "instead of" in trial.losses[0]


class TestUnderKill:
    @pytest.fixture(scope="class")
    def siege(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
        root, folder = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("siege")
        with running_hub(root) as hub, Siege(hub, root, folder / "world", random.Random(0)) as siege:
            siege.stream.stop()
            _, told = siege.live(None, 4.0)
            assert siege.check(told) == []
            yield siege

    def ledger(self, siege: Siege, kind: str) -> None:
        lines = [f'["{version}", "{kind}"]\n' for version in siege.stream.kinds()]
        (siege.folder / "ledger").write_text("".join(lines))

    def test_what_must_not_speak_and_does_is_a_loss(self, siege: Siege) -> None:
        _, told = siege.live(Kill(state="opened"), 4.0)
        assert siege.check(told) == []
        self.ledger(siege, "altered")
        assert {loss.split()[0] for loss in siege.check(told)} <= {"opened", *siege.stream.kinds()}
        assert siege.check(told)
        self.ledger(siege, "good")

    def test_what_is_forgotten_is_a_loss(self, siege: Siege) -> None:
        siege.home.update("state.json", refused={"0.9.0": "bad"})
        self.ledger(siege, "good")
        (siege.folder / "ledger").open("a").write('["0.9.0", "crashes"]\n')
        assert siege.check([]) == []
        siege.home.update("state.json", refused={})
        assert siege.check([]) == ["refused no more: ['0.9.0']"]

    def test_a_file_that_no_pull_removes_is_a_loss(self, siege: Siege) -> None:
        (siege.home.slots / "tmp_of_a_client").touch()
        assert siege.check([]) == []  # no pull has had time for it
        assert "tmp_of_a_client" in siege.check([{"what": "pulled", "action": "unchanged"}])[0]
        (siege.home.slots / "tmp_of_a_client").unlink()

    def test_a_damaged_slot_is_a_loss(self, siege: Siege) -> None:
        slot = siege.home.slots / Current.read(siege.home).speaks.slot / "config.json"
        content = slot.read_bytes()
        slot.write_bytes(content + b" ")
        assert "nothing speaks" in siege.check([])[0]
        slot.write_bytes(content)


def test_the_forked_self_test_knows_a_wrong_graph(tmp_path: Path) -> None:
    student, other = small_student(tmp_path / "a", 1), small_student(tmp_path / "b", 2)
    assert forked_selftest(student).windows == 4
    shutil.copy(other / "onnx/model_int8.onnx", student / "onnx/model_int8.onnx")
    with pytest.raises(VerificationError):
        forked_selftest(student)


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

    def test_what_cannot_be_told_ends_there_too(self) -> None:
        assert forked(lambda at: object()).how == "crashed"  # no JSON

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


def test_a_device_may_take_an_earlier_release_only_where_the_newest_was_hidden() -> None:
    case = Case("second", Path(), "0.1.0")
    assert case.allows("0.1.0") and case.allows("0.3.0") and not case.allows(None)
    assert not case.allows("0.2.0") and case.allows("0.2.0", misread=True)
    assert not replace(case, old="0.2.0").allows("0.1.0", misread=True)


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
