"""The updater's promises, against a real Hub: whatever arrives, a release that was signed speaks."""

import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi

from eisv_lumen import release
from eisv_lumen.device import runtime, selftest, slots, source, updater
from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge
from eisv_lumen.device.service import open_voice
from eisv_lumen.device.source import Source
from eisv_lumen.device.updater import Outcome, Updater, status
from eisv_lumen.errors import ConfigurationError, HubError, ResourceError, VerificationError
from eisv_lumen.hub_client import HubUnreachableError
from eisv_lumen.release import Release, RepositoryRecord
from eisv_lumen.signing import SigningKey, TrustedKeys
from tests.release_artifacts import Repository, describe, small_student, some_windows

ROOT = Path(__file__).parents[1]
KEY = SigningKey.generate()
TRUSTED = TrustedKeys([KEY.public])
GRAPH = "onnx/model_int8.onnx"
FILE_SIZE_LIMIT = resource.getrlimit(resource.RLIMIT_FSIZE)


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    return [small_student(folder / str(seed), seed) for seed in range(3)]


@pytest.fixture
def repository(hub, request):
    api = HfApi(endpoint=hub.url, token=hub.token)
    return Repository(api, f"hikewa/s{abs(hash(request.node.name)) % 10**9}", KEY)


@pytest.fixture
def home(tmp_path, repository):
    return repository.device(tmp_path / "home")


@pytest.fixture(scope="module")
def first_installed(hub, students, tmp_path_factory):
    """A home in which 0.1.0 speaks; tests take copies."""
    repository = Repository(HfApi(endpoint=hub.url, token=hub.token), "hikewa/first", KEY)
    repository.publish("0.1.0", students[0])
    home = repository.device(tmp_path_factory.mktemp("first") / "home")
    pull(home)
    return home.folder


@pytest.fixture
def old_home(tmp_path, first_installed, repository):
    """A home in which 0.1.0 speaks, and whose repository is this test's."""
    shutil.copytree(first_installed, tmp_path / "home")
    home = repository.device(tmp_path / "home")
    home.write("state.json", {**home.read("state.json"), "repo_id": repository.repo_id})
    return home


@pytest.fixture(scope="module")
def second_installed(hub, students, tmp_path_factory):
    """A home in which 0.2.0 speaks after 0.1.0, and whose repository has 0.3.0 as well; tests take copies."""
    repository = Repository(HfApi(endpoint=hub.url, token=hub.token), "hikewa/second", KEY)
    home = repository.device(tmp_path_factory.mktemp("second") / "home")
    for number, student in enumerate(students):
        repository.publish(f"0.{number + 1}.0", student)
        if number < 2:
            pull(home)
    return home.folder


def pull(home: Home, **options: bool) -> Outcome:
    return Updater(home).pull(**options)


def speaking(home: Home) -> str:
    """Version in the current slot, every byte of it verified."""
    return slots.open_current(home, TRUSTED).version


class TestPulling:
    def test_the_newest_release_is_installed_and_speaks(self, home, repository, students):
        commit = repository.publish("0.1.0", students[0])
        outcome = pull(home)
        assert (outcome.action, outcome.version, speaking(home)) == ("installed", "0.1.0", "0.1.0")
        assert outcome.selftest and outcome.selftest.windows == 4 and outcome.selftest.difference < 1e-5
        spoken = open_voice(home, gate=0.0, generator=np.random.default_rng(0)).speak(some_windows(1))
        assert (spoken.source, spoken.version) == ("M", "0.1.0")
        assert not list(home.slots.glob(".incoming*")) and commit

    def test_only_what_a_device_needs_is_fetched_and_no_code(self, home, repository, students):
        repository.publish("0.1.0", students[0], sent=lambda files: files.update({"extra.py": b"raise 1"}))
        pull(home)
        present = {p.relative_to(home.slots / "a").as_posix() for p in (home.slots / "a").rglob("*")}
        assert present == {*slots.FILES, *slots.SIGNED, "onnx"}

    def test_a_pull_with_nothing_new_changes_nothing(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        pull(home)
        before = {p: p.stat().st_mtime_ns for p in home.slots.rglob("*")}
        assert pull(home).action == "unchanged"
        assert {p: p.stat().st_mtime_ns for p in home.slots.rglob("*")} == before

    def test_two_slots_take_turns(self, home, repository, students):
        for number, student in enumerate(students):
            repository.publish(f"0.{number + 1}.0", student)
            pull(home)
        assert speaking(home) == "0.3.0" and slots.previous(home, TRUSTED).version == "0.2.0"

    def test_versions_are_compared_as_numbers_and_channels_respected(self, home, repository, students):
        for version in ("0.9.0", "0.10.0", "0.11.0-beta.1"):
            repository.publish(version, students[0])
        repository.api.create_tag(repository.repo_id, tag="latest")
        assert pull(home).version == "0.10.0"
        home.write("device.json", {**home.read("device.json"), "channel": "beta"})
        assert pull(home).version == "0.11.0-beta.1"

    def test_a_damaged_slot_is_noticed_and_replaced(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        pull(home)
        flip(home.slots / "a" / "onnx" / "model_int8.onnx")
        spoken = open_voice(home).speak(some_windows(1))
        assert spoken.source == "R" and "model_int8.onnx" in (spoken.reason or "")
        assert pull(home).action == "installed" and speaking(home) == "0.1.0"
        (home.folder / "current").write_text("{")
        assert pull(home).action == "installed" and speaking(home) == "0.1.0"

    def test_status_tells_the_truth(self, home, repository, students):
        assert {slot["state"] for slot in status(home)["slots"].values()} == {"empty"}
        repository.publish("0.1.0", students[0])
        pull(home)
        assert status(home)["slots"]["a"]["version"] == "0.1.0"
        (home.slots / "a" / "golden.json").unlink()
        assert "golden.json" in status(home)["slots"]["a"]["problem"]


class TestGoingBack:
    def test_rollback_is_a_decision_that_is_remembered(self, home, repository, students):
        for number, student in enumerate(students[:2]):
            repository.publish(f"0.{number + 1}.0", student)
            pull(home)
        outcome = Updater(home).rollback()
        assert (outcome.version, outcome.previous, speaking(home)) == ("0.1.0", "0.2.0", "0.1.0")
        assert pull(home).action == "unchanged"
        repository.publish("0.3.0", students[2])
        assert pull(home).version == "0.3.0"

    def test_retry_forgets_it(self, home, repository, students):
        for number, student in enumerate(students[:2]):
            repository.publish(f"0.{number + 1}.0", student)
            pull(home)
        Updater(home).rollback()
        assert pull(home, retry=True).version == "0.2.0"

    def test_there_must_be_something_to_go_back_to(self, home, repository, students):
        with pytest.raises(VerificationError):
            Updater(home).rollback()
        repository.publish("0.1.0", students[0])
        pull(home)
        with pytest.raises(VerificationError):
            Updater(home).rollback()
        assert speaking(home) == "0.1.0"

    def test_a_later_release_may_forbid_it(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        pull(home)
        repository.publish("0.2.0", students[1], change=lambda m: replace(m, minimum_version="0.2.0"))
        pull(home)
        with pytest.raises(VerificationError, match="at least 0.2.0"):
            Updater(home).rollback()
        assert speaking(home) == "0.2.0"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def altered(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        content = bytearray(files[name])
        content[len(content) // 2] ^= 1
        files[name] = bytes(content)

    return change


def replaced(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: change(files[name])})


def removed(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.pop(name) and None


def with_student(change: Callable[[RepositoryRecord], RepositoryRecord]) -> Callable[[Release], Release]:
    return lambda m: replace(m, repositories={**m.repositories, "student": change(m.student)})


def without_file(name: str) -> Callable[[Release], Release]:
    return with_student(lambda r: replace(r, files={k: v for k, v in r.files.items() if k != name}))


def with_file(name: str) -> Callable[[Release], Release]:
    return with_student(lambda r: replace(r, files={**r.files, name: {"sha256": "0" * 64, "size": 1}}))


def needing(**wanted: object) -> Callable[[Release], Release]:
    return lambda m: replace(m, compatibility=replace(m.compatibility, **wanted))


HOSTILE: dict[str, tuple[str, dict]] = {
    "wrong key": ("a release signed by", {"key": SigningKey.generate()}),
    "altered manifest": ("does not fit", {"sent": altered("release.json")}),
    "altered signature": ("signature", {"sent": altered("release.json.sig")}),
    "unsigned": ("release.json.sig is missing", {"sent": removed("release.json.sig")}),
    "no manifest": ("release.json is missing", {"sent": removed("release.json")}),
    "huge manifest": ("5242880 bytes", {"sent": replaced("release.json", lambda old: b" " * (5 << 20))}),
    "altered graph": ("model_int8.onnx: altered", {"sent": altered(GRAPH)}),
    "altered config": ("config.json: altered", {"sent": altered("config.json")}),
    "truncated graph": ("model_int8.onnx: .* bytes instead", {"sent": replaced(GRAPH, lambda old: old[:-1])}),
    "missing graph": ("404.*model_int8.onnx", {"sent": removed(GRAPH)}),
    "missing golden windows": ("404.*golden.json", {"sent": removed("golden.json")}),
    "graph not in the manifest": ("without onnx/model_int8.onnx", {"change": without_file(GRAPH)}),
    "path out of the folder": ("the path", {"change": with_file("../../weights.json")}),
    "absolute path": ("the path", {"change": with_file("/etc/passwd")}),
    "hidden path": ("the path", {"change": with_file(".cache/x")}),
    "other version than its tag": ("manifest of 0.2.0 under the tag v0.3.0", {"tag": "v0.3.0"}),
    "expired": ("expired", {"change": lambda m: replace(m, expires="2020-01-01T00:00:00+00:00")}),
    "other vocabulary": ("another vocabulary", {"change": needing(vocabulary_sha256="0" * 64)}),
    "newer operator set": ("operator set 99", {"change": needing(opset=99)}),
    "newer schema": ("schema 99", {"change": needing(schema_version=99)}),
    "newer package": ("eisv-lumen 99.0.0", {"change": needing(min_package="99.0.0")}),
    "newer format": ("format 2", {"change": lambda m: replace(m, format=2)}),
    "of another repository": (
        "manifest of someone/else",
        {"change": with_student(lambda r: replace(r, repo_id="someone/else"))},
    ),
    "a minimum version above its own": (
        "malformed.*minimum_version",
        {"change": lambda m: replace(m, minimum_version="0.2.1")},
    ),
    "made at no time": ("malformed", {"change": lambda m: replace(m, created="once")}),
    "no student": ("malformed", {"change": lambda m: replace(m, repositories={})}),
}


class TestHostileReleases:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_it_is_refused_and_the_old_one_goes_on(self, old_home, repository, students, name):
        reason, options = HOSTILE[name]
        repository.publish("0.2.0", students[1], **options)
        with pytest.raises((VerificationError, HubError), match=reason) as refused:
            pull(old_home)
        assert refused.value.exit_code == 2
        assert speaking(old_home) == "0.1.0"
        assert open_voice(old_home, gate=0.0).speak(some_windows(1)).source == "M"

    def test_a_good_release_after_a_bad_one_is_taken(self, old_home, repository, students):
        repository.publish("0.2.0", students[1], sent=altered(GRAPH))
        with pytest.raises(VerificationError):
            pull(old_home)
        repository.publish("0.2.1", students[1])
        assert pull(old_home).version == "0.2.1"

    def test_an_old_release_under_a_new_tag_is_refused(self, home, repository, students):
        old = repository.publish("0.1.0", students[0])
        repository.publish("0.2.0", students[1])
        pull(home)
        repository.api.create_tag(repository.repo_id, tag="v0.3.0", revision=old)
        with pytest.raises(VerificationError, match="manifest of 0.1.0"):
            pull(home)
        assert speaking(home) == "0.2.0"

    def test_a_hub_that_shows_only_an_old_release_downgrades_nobody(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        repository.publish("0.2.0", students[1])
        pull(home)
        repository.api.delete_tag(repository.repo_id, tag="v0.2.0")
        assert pull(home).action == "unchanged" and speaking(home) == "0.2.0"
        flip(home.slots / "a" / "config.json")  # not even when the newer one is damaged
        with pytest.raises(VerificationError, match="0.2.0 was installed"):
            pull(home)

    def test_old_configuration_with_new_weights_is_refused(self, old_home, repository, students):
        old = (students[0] / "golden.json").read_bytes()
        repository.publish("0.2.0", students[1], sent=lambda files: files.update({"golden.json": old}))
        with pytest.raises(VerificationError, match="golden.json"):
            pull(old_home)
        assert speaking(old_home) == "0.1.0"

    def test_a_failed_self_test_is_remembered_and_not_tried_again(self, home, repository, students, tmp_path):
        repository.publish("0.1.0", students[0])
        pull(home)
        broken = tmp_path / "broken"
        shutil.copytree(students[1], broken)
        shutil.copy(students[2] / "golden.json", broken / "golden.json")
        repository.publish("0.2.0", broken)
        with pytest.raises(VerificationError, match="golden window"):
            pull(home)
        assert pull(home).action == "unchanged" and speaking(home) == "0.1.0"
        assert "golden window" in status(home)["memory"]["refused"]["0.2.0"]
        with pytest.raises(VerificationError):
            pull(home, retry=True)

    def test_a_minimum_version_above_its_own_leaves_no_trace(self, old_home, repository, students):
        repository.publish("0.2.0", students[1], change=lambda m: replace(m, minimum_version="9.0.0"))
        with pytest.raises(VerificationError):
            pull(old_home)
        repository.publish("0.2.1", students[1])
        assert pull(old_home).version == "0.2.1" and Knowledge.read(old_home).minimum_version == "0.0.0"


class TestAnotherRepository:
    """What speaks counts only where it came from the repository that is followed now."""

    @pytest.mark.parametrize("version", ["0.0.9", "0.1.0"])
    def test_its_versions_say_nothing_about_this_one(
        self, first_installed, repository, students, tmp_path, version
    ):
        shutil.copytree(first_installed, tmp_path / "home")
        home = repository.device(tmp_path / "home")
        repository.publish(version, students[1])
        outcome = pull(home)
        assert (outcome.action, outcome.version, outcome.previous) == ("installed", version, "0.1.0")
        assert slots.open_current(home, TRUSTED).manifest.student.repo_id == repository.repo_id
        assert slots.previous(home, TRUSTED).manifest.student.repo_id == "hikewa/first"
        assert pull(home).action == "unchanged"

    def test_until_then_it_goes_on_also_offline(self, first_installed, repository, tmp_path):
        shutil.copytree(first_installed, tmp_path / "home")
        home = repository.device(tmp_path / "home")
        with pytest.raises(HubError, match="no stable release"):
            pull(home)
        home.update("device.json", hub="http://127.0.0.1:9")
        outcome = pull(home)
        assert (outcome.action, outcome.version, speaking(home)) == ("offline", "0.1.0", "0.1.0")


class TestLyingHub:
    """Simulated: a Hub whose sizes are made up."""

    def understate(self, monkeypatch) -> list[int]:
        """Let it understate all sizes; returns the largest file in the home after each download."""
        files, download, largest = Source.files, Source.download, []

        def lying(self, revision):
            commit, sizes = files(self, revision)
            return commit, {name: min(size, 100) for name, size in sizes.items()}

        def watched(self, commit, name, folder, **options):
            try:
                return download(self, commit, name, folder, **options)
            finally:
                largest.append(max(path.stat().st_size for path in folder.rglob("*") if path.is_file()))

        monkeypatch.setattr(Source, "files", lying)
        monkeypatch.setattr(Source, "download", watched)
        return largest

    @pytest.mark.parametrize("name", ["release.json", "release.json.sig", GRAPH])
    def test_a_file_is_cut_off_where_it_must_end(self, old_home, repository, students, monkeypatch, name):
        limit = (students[1] / GRAPH).stat().st_size if name == GRAPH else release.MAX_MANIFEST_BYTES
        endless = replaced(name, lambda content: content + bytes(limit + 3 * source.SLACK_BYTES))
        repository.publish("0.2.0", students[1], sent=endless)
        largest = self.understate(monkeypatch)
        with pytest.raises(VerificationError, match=f"{name}.* more than"):
            pull(old_home)
        assert resource.getrlimit(resource.RLIMIT_FSIZE) == FILE_SIZE_LIMIT
        assert max(largest) <= limit + source.SLACK_BYTES
        assert speaking(old_home) == "0.1.0" and not list(old_home.slots.glob(".incoming*"))

    def test_honest_files_pass(self, old_home, repository, students, monkeypatch):
        repository.publish("0.2.0", students[1])
        self.understate(monkeypatch)
        assert pull(old_home).version == "0.2.0"

    @pytest.mark.parametrize("size", [None, -1, "5"])
    def test_no_size_is_no_answer(self, old_home, repository, students, monkeypatch, size):
        repository.publish("0.2.0", students[1])
        real = HfApi.model_info

        def without(self, *arguments, **options):
            found = real(self, *arguments, **options)
            next(file for file in found.siblings if file.rfilename == "release.json").size = size
            return found

        monkeypatch.setattr(HfApi, "model_info", without)
        with pytest.raises(VerificationError, match="size of release.json"):
            pull(old_home)
        assert speaking(old_home) == "0.1.0"


class TestClock:
    """A Pi without a battery behind its clock believes in 1970 until a network tells it better."""

    EXPIRES = "2026-06-01T00:00:00+00:00"

    def manifest(self) -> Release:
        return replace(describe("0.1.0", "a/b", ROOT / "absent"), expires=self.EXPIRES)

    @pytest.mark.parametrize(
        ("now", "known", "refused"),
        [
            ("2026-05-01", None, False),
            ("2026-06-02", None, True),
            ("1970-01-01", None, False),
            ("1970-01-01", "2026-05-01T00:00:00+00:00", False),
            ("1970-01-01", "2026-06-02T00:00:00+00:00", True),
            ("2026-05-01", "2099-01-01T00:00:00+00:00", False),
        ],
    )
    def test_expiry_is_judged_by_the_best_that_is_known(self, now, known, refused):
        moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
        if refused:
            with pytest.raises(VerificationError, match="expired"):
                self.manifest().check_time(moment, known)
        else:
            self.manifest().check_time(moment, known)

    def test_the_newest_signed_moment_is_remembered(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        pull(home)
        assert home.read("state.json")["newest_time"] == "2026-01-01T00:00:00+00:00"


class TestSelfTest:
    def test_it_has_a_time_limit(self, students):
        with pytest.raises(ResourceError, match="no result after"):
            selftest.run_selftest(students[0], seconds=0.01)

    @pytest.mark.parametrize(
        ("first", "reason"),
        [
            ("import os; os.kill(os.getpid(), 9); ", "signal 9"),
            ("import os; os.kill(os.getpid(), 4); ", "signal 4"),
            ("import sys; sys.modules['onnxruntime'] = None; ", "onnxruntime"),
            ("import sys; sys.modules['numpy'] = None; ", "numpy"),
        ],
    )
    def test_a_machine_that_cannot_run_it_proves_nothing(self, students, monkeypatch, first, reason):
        monkeypatch.setattr(selftest, "_START", first + selftest._START)
        with pytest.raises(ResourceError, match=reason):
            selftest.run_selftest(students[0])

    def test_so_the_release_is_tried_again_at_the_next_pull(
        self, old_home, repository, students, monkeypatch
    ):
        repository.publish("0.2.0", students[1])
        with monkeypatch.context() as patch:
            patch.setattr(updater, "run_selftest", lambda it: selftest.run_selftest(it, seconds=0.01))
            with pytest.raises(ResourceError, match="no result after"):
                pull(old_home)
        assert Knowledge.read(old_home).refused == {} and speaking(old_home) == "0.1.0"
        assert pull(old_home).version == "0.2.0"

    def test_it_has_a_memory_limit(self, students):
        with pytest.raises(VerificationError, match="MB of memory"):
            selftest.run_selftest(students[0], rss_mb=10)

    def test_a_runaway_is_stopped_while_it_grows(self):
        grows = "import resource; from eisv_lumen.device import selftest as s; s._limit_this_process(); "
        grows += "bytearray(2 << 30)"
        done = subprocess.run([sys.executable, "-c", grows], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1 and "MemoryError" in done.stderr

    @pytest.mark.parametrize("content", ["{", "[]", '{"windows": []}'])
    def test_it_needs_golden_windows(self, students, tmp_path, content):
        shutil.copytree(students[0], tmp_path / "s")
        (tmp_path / "s" / "golden.json").write_text(content)
        with pytest.raises(VerificationError, match="golden"):
            selftest.run_selftest(tmp_path / "s")

    def test_a_file_that_is_no_graph_fails(self, students, tmp_path):
        shutil.copytree(students[0], tmp_path / "s")
        (tmp_path / "s" / "manifest.json").unlink()
        (tmp_path / "s" / "onnx" / "model_int8.onnx").write_bytes(b"no graph")
        with pytest.raises(VerificationError, match="cannot load"):
            selftest.run_selftest(tmp_path / "s")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing may catch it."""


class TestInterruptions:
    STEPS = (
        (slots, "incoming_folder"),
        (release, "read"),
        (slots, "needed_files"),
        (slots, "verify_slot"),
        (updater, "run_selftest"),
        (slots, "install"),
        (slots, "switch"),
        (slots.shutil, "rmtree"),
        (slots, "fsync_folder"),
    )

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
    def test_killed_at_a_step_the_old_or_the_new_one_speaks(
        self, second_installed, tmp_path, monkeypatch, module, name, after
    ):
        shutil.copytree(second_installed, tmp_path / "home")
        home = Home(tmp_path / "home")
        real = getattr(module, name)

        def dies(*arguments, **options):
            if after:
                real(*arguments, **options)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(Killed):
                pull(home)
        assert speaking(home) in ("0.2.0", "0.3.0")
        pull(home)
        assert speaking(home) == "0.3.0"

    def test_killed_between_downloads_it_goes_on_where_it_was(self, home, repository, students, monkeypatch):
        repository.publish("0.1.0", students[0])
        real, calls = Source.download, []

        def dies(self, commit, name, *rest, **options):
            if len(calls) == 3:
                raise Killed
            calls.append(name)
            return real(self, commit, name, *rest, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Source, "download", dies)
            with pytest.raises(Killed):
                pull(home)
        (incoming,) = home.slots.glob(".incoming-*")
        kept = (incoming / calls[-1]).stat().st_mtime_ns
        # What the client leaves of its own where it is killed while it moves a file to its place.
        for folder in (incoming, home.slots):
            (folder / "tmp_e6699558-c1c7-483c-a6c7-be7c46bab461").touch()
        assert Current.read(home).speaks is None
        seen = {}

        def watches(self, *arguments, **options):
            path = real(self, *arguments, **options)
            seen[path.name] = path.stat().st_mtime_ns
            return path

        monkeypatch.setattr(Source, "download", watches)
        assert pull(home).version == "0.1.0"
        assert seen[Path(calls[-1]).name] == kept and not list(home.slots.rglob("tmp_*"))

    @pytest.mark.parametrize("content", ["", "0123\n", "x\ny\nz\n"])
    def test_killed_over_a_note_of_the_client(self, home, repository, students, monkeypatch, content):
        repository.publish("0.1.0", students[0])
        with monkeypatch.context() as patch:
            patch.setattr(slots, "verify_slot", lambda *_: pytest.fail("not so far"))
            patch.setattr(release, "check_file", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pull(home)
        (incoming,) = home.slots.glob(".incoming-*")
        notes = list((incoming / ".cache").rglob("*.metadata"))
        assert notes
        for note in notes:
            note.write_text(content)
        assert pull(home).version == "0.1.0"

    def test_a_check_that_finds_nothing_new_tidies_up_too(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        pull(home)
        (home.slots / "tmp_of_the_client").touch()
        (home.slots / f".incoming-{'0' * 40}").mkdir()
        assert pull(home).action == "unchanged"
        assert {path.name for path in home.slots.iterdir()} <= set(slots.NAMES)

    def test_two_updaters_exclude_each_other(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        with home.updating(), pytest.raises(ResourceError, match="another updater"):
            pull(home)
        context = multiprocessing.get_context("spawn")
        ready, leave = context.Event(), context.Event()
        holder = context.Process(target=hold_lock, args=(home.folder, ready, leave))
        holder.start()
        try:
            assert ready.wait(30)
            with pytest.raises(ResourceError, match="another updater"):
                pull(home)
            holder.kill()  # a killed updater's lock is gone
            holder.join()
            assert pull(home).version == "0.1.0"
        finally:
            holder.kill()
            holder.join()


def hold_lock(folder: Path, ready, leave) -> None:
    with Home(folder).updating():
        ready.set()
        leave.wait(60)


class TestSurroundings:
    def test_offline_it_goes_on_and_says_so(self, home, repository, students):
        with pytest.raises(HubUnreachableError):
            home.write("device.json", {"repo_id": repository.repo_id, "hub": "http://127.0.0.1:9"})
            pull(home)
        home.write("device.json", {"repo_id": repository.repo_id, "hub": repository.api.endpoint})
        repository.publish("0.1.0", students[0])
        pull(home)
        home.write("device.json", {"repo_id": repository.repo_id, "hub": "http://127.0.0.1:9"})
        outcome = pull(home)
        assert outcome.action == "offline" and "goes on with 0.1.0" in outcome.note
        assert "offline" in status(home)["memory"]["last_pull"]["result"]

    def test_no_space(self, home, repository, students, monkeypatch):
        repository.publish("0.1.0", students[0])
        usage = shutil.disk_usage(home.folder)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        with pytest.raises(ResourceError, match="1 MiB free"):
            pull(home)
        assert Current.read(home).speaks is None

    @pytest.mark.parametrize("step", ["incoming", "slots"])
    def test_a_disk_that_fills_up_meanwhile(self, old_home, repository, students, monkeypatch, step):
        """Simulated: the file system says that it is full."""
        repository.publish("0.2.0", students[1])

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "somewhere")

        with monkeypatch.context() as patch:
            if step == "incoming":
                patch.setattr("huggingface_hub.file_download.http_get", full)
            else:
                patch.setattr(slots, "install", full)
            with pytest.raises(ResourceError, match="No space left"):
                pull(old_home)
        assert speaking(old_home) == "0.1.0"
        assert step == "slots" or not list(old_home.slots.glob(".incoming*"))
        assert pull(old_home).version == "0.2.0"

    @pytest.mark.parametrize("found", ["1.21.0", "1.9.1", "nightly", None])
    def test_an_onnxruntime_that_dies_on_a_pi_is_refused_before_anything_else(self, home, monkeypatch, found):
        def version(name: str) -> str:
            if found is None:
                raise runtime.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(runtime, "version", version)
        with pytest.raises(ResourceError, match="onnxruntime"):
            pull(home)

    def test_a_32_bit_system_is_told(self, home, monkeypatch):
        monkeypatch.setattr(runtime.struct, "calcsize", lambda _: 4)
        with pytest.raises(ResourceError, match="64-bit"):
            pull(home)

    def test_no_repository_no_release_no_trust(self, home, repository, tmp_path):
        with pytest.raises(HubError, match="no stable release"):
            pull(home)
        home.write("device.json", {**home.read("device.json"), "repo_id": "hikewa/absent"})
        with pytest.raises(HubError, match="404"):
            pull(home)
        bare = Home(tmp_path / "bare")
        with pytest.raises(ConfigurationError, match="no repository configured"):
            pull(bare)
        bare.write("device.json", {"repo_id": "hikewa/absent"})
        with pytest.raises(ConfigurationError, match="no trusted keys"):
            pull(bare)

    def test_a_damaged_memory_is_no_licence_to_forget(self, home, repository, students):
        repository.publish("0.1.0", students[0])
        pull(home)
        (home.folder / "state.json").write_text("{")
        with pytest.raises(ConfigurationError, match="state.json"):
            pull(home)
        assert speaking(home) == "0.1.0"

    def test_a_home_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ResourceError):
            Home(tmp_path / "file" / "home")

    def test_files_are_replaced_whole(self, tmp_path):
        home = Home(tmp_path)
        home.write("x.json", {"a": 1})
        with pytest.raises(ValueError):
            home.write("x.json", {"a": float("nan")})
        assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
