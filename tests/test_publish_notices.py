"""Yank, staged roll-out and key rotation: signed, atomic, told again harmlessly, refused to strangers."""

import subprocess
import sys

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from eisv_lumen import release
from eisv_lumen.device.home import Home
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import ConfigurationError, LumenError, VerificationError
from eisv_lumen.hub_client import HubUnreachableError
from eisv_lumen.notices import BRANCH, NOTICES, KeySet, Notices, keys_path
from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted
from hub import history, rollout, rotate, yank
from hub.notices import NoticeBoard, signed_keys, signed_notices
from hub.remote import Reader
from hub.retry import Asking
from tests.publishing import KEY, QUICK, Killed, publish
from tests.release_artifacts import recipe


@pytest.fixture
def run(hub, settings, tmp_path, monkeypatch, capsys):
    """Runs a command in this process; returns what it printed."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    path = recipe(tmp_path, namespace=settings.namespace)
    keys: dict[str, SigningKey] = {
        "first": KEY,
        "second": SigningKey.generate(),
        "third": SigningKey.generate(),
    }
    for name, key in keys.items():
        key.write(tmp_path / name)

    def run(module, *arguments: object, key: str | None = "first", yes: bool = True) -> str:
        options = ["--recipe", path, "--endpoint", hub.url]
        options += ["--key", tmp_path / key] if key else []
        options += ["--yes"] if yes else []
        monkeypatch.setattr(sys, "argv", ["hub", *map(str, [*arguments, *options])])
        module.main()
        return capsys.readouterr().out

    run.keys = keys
    return run


def board_of(api, settings, *trusted: SigningKey):
    keys = TrustedKeys([key.public for key in trusted or (KEY,)])
    return NoticeBoard(Reader(api, Asking(api.endpoint, patience=QUICK)), settings.repo_id("student"), keys)


def commits(api, settings) -> list[str]:
    titles = [c.title for c in api.list_repo_commits(settings.repo_id("student"), revision=BRANCH)]
    return [title for title in titles if title not in ("initial commit", "Release 0.1.0")]


class TestYank:
    def test_it_is_signed_told_once_and_can_be_undone(self, api, settings, folders, run):
        publish(api, settings, folders)
        assert "no such" not in run(yank, "0.1.0", "--reason", "speaks in circles")
        notices = board_of(api, settings).read().notices
        assert notices.yanked == {"0.1.0": "speaks in circles"} and notices.sequence == 1
        assert "nothing was changed" in run(yank, "0.1.0", "--reason", "speaks in circles")
        assert commits(api, settings) == ["Yank 0.1.0"]
        run(yank, "0.1.0", "--undo")
        notices = board_of(api, settings).read().notices
        assert notices.yanked == {} and notices.sequence == 2
        assert "nothing was changed" in run(yank, "0.1.0", "--undo")

    def test_a_dry_run_and_a_missing_yes_write_nothing(self, api, settings, folders, run):
        publish(api, settings, folders)
        assert "nothing was written" in run(yank, "0.1.0", "--reason", "x", "--dry-run", yes=False)
        with pytest.raises(ConfigurationError, match="--yes"):
            run(yank, "0.1.0", "--reason", "x", yes=False)
        assert board_of(api, settings).read().head is None

    @pytest.mark.parametrize("arguments", [("0.1.0",), ("0.1.0", "--reason", "a\nb"), ("nonsense",)])
    def test_what_makes_no_sense_is_refused(self, run, arguments):
        with pytest.raises(ConfigurationError):
            run(yank, *arguments)

    def test_a_version_that_does_not_exist_and_a_strangers_key_are_refused(self, api, settings, folders, run):
        publish(api, settings, folders)
        with pytest.raises(VerificationError, match=r"9\.9\.9"):
            run(yank, "9.9.9", "--reason", "x")
        run(yank, "0.1.0", "--reason", "x")
        with pytest.raises(VerificationError):
            run(yank, "0.1.0", "--undo", key="second")
        assert board_of(api, settings).read().notices.sequence == 1

    def test_notices_that_nobody_trusted_signed_are_not_built_upon(self, api, settings, folders, run):
        publish(api, settings, folders)
        run(yank, "0.1.0", "--reason", "x")
        repo = settings.repo_id("student")
        forged = signed_notices(Notices(repo, 2, "2026-01-01T00:00:00+00:00"), [SigningKey.generate()])
        operations = [CommitOperationAdd(name, content) for name, content in forged.items()]
        api.create_commit(repo, operations, commit_message="forged", revision=BRANCH)
        with pytest.raises(VerificationError):
            run(yank, "0.1.0", "--reason", "y")

    def test_two_writers_at_once_lose_nothing(self, hub, api, settings, folders):
        publish(api, settings, folders)
        publish(api, settings, folders, "0.2.0")
        repo = settings.repo_id("student")

        class Raced(HfApi):
            raced = False

            def create_commit(self, *args, **options):  # type: ignore[override]
                if not self.raced:
                    self.raced = True
                    change = rollout.change_share(repo, "0.2.0", 0.5, KEY)
                    board_of(HfApi(endpoint=hub.url, token=hub.token), settings).write("other", change)
                return super().create_commit(*args, **options)

        raced = board_of(Raced(endpoint=hub.url, token=hub.token), settings)
        raced.write("mine", rollout.change_share(repo, "0.1.0", 0.25, KEY))
        notices = board_of(api, settings).read().notices
        assert notices.rollout == {"0.1.0": 0.25, "0.2.0": 0.5} and notices.sequence == 2

    def test_a_lost_answer_makes_no_second_notice(self, hub, api, settings, folders):
        publish(api, settings, folders)

        class Lost(HfApi):
            lost = False

            def create_commit(self, *args, **options):  # type: ignore[override]
                info = super().create_commit(*args, **options)
                if not self.lost:
                    self.lost = True
                    raise ConnectionError("reset")
                return info

        board = board_of(Lost(endpoint=hub.url, token=hub.token), settings)
        board.write("once", rollout.change_share(settings.repo_id("student"), "0.1.0", 0.25, KEY))
        assert commits(api, settings) == ["once"]

    def test_after_a_lost_answer_the_number_that_stands_is_told(
        self, api, settings, folders, run, tmp_path, monkeypatch
    ):
        publish(api, settings, folders)
        sound = NoticeBoard._commit
        lost: list[str] = []

        def lose(board: NoticeBoard, title: str, *args: object) -> None:
            sound(board, title, *args)
            if title not in lost:
                lost.append(title)
                raise HubUnreachableError(found="no answer", expected="one", next="again")

        monkeypatch.setattr(NoticeBoard, "_commit", lose)
        assert "notice 1 signed" in run(yank, "0.1.0", "--reason", "x")
        assert "notice 2 signed" in run(rollout, "0.1.0", "0.5")
        assert "key set 1 signed" in run(rotate, "--new-key", tmp_path / "second")
        assert len(lost) == 3


class TestRollout:
    def test_a_share_is_announced_before_the_release_can_be_seen(self, hub, api, settings, folders):
        def stop(state: str) -> None:
            if state == "announced":
                raise Killed

        with pytest.raises(Killed):
            publish(api, settings, folders, rollout=0.25, at=stop)
        board = board_of(api, settings)
        assert board.read().notices.rollout == {"0.1.0": 0.25} and board.read().tags == frozenset()
        publish(api, settings, folders, rollout=0.25)
        stands = board.read()
        assert stands.tags == {"v0.1.0"} and stands.notices.sequence == 1

    def test_publishing_again_does_not_take_a_larger_share_back(self, api, settings, folders, run):
        publish(api, settings, folders, rollout=0.25)
        assert "from 25% to 50%" in run(rollout, "0.1.0", "0.5")
        assert not publish(api, settings, folders, rollout=0.25).changed
        assert board_of(api, settings).read().notices.rollout == {"0.1.0": 0.5}
        run(rollout, "0.1.0", "1")
        assert board_of(api, settings).read().notices.rollout == {}
        assert "nothing was changed" in run(rollout, "0.1.0", "1")

    @pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
    def test_other_numbers_are_refused(self, run, share):
        with pytest.raises(ConfigurationError):
            run(rollout, "0.1.0", share)


class TestRotation:
    def test_a_new_key_comes_in_the_old_one_goes_and_only_the_new_one_publishes(
        self, api, settings, folders, run, tmp_path
    ):
        publish(api, settings, folders)
        run(yank, "0.1.0", "--reason", "x")
        first, second = run.keys["first"], run.keys["second"]
        public = tmp_path / "trusted.json"
        run(rotate, "--new-key", tmp_path / "second", "--public", public)
        run(rotate, "--revoke", first.key_id, "--trust", public, key="second")
        stands = board_of(api, settings, first).read()  # as a device follows the chain
        assert stands.trusted == TrustedKeys([second.public]) and stands.keys_sequence == 2
        assert stands.notices.yanked == {"0.1.0": "x"} and stands.notices.sequence == 3
        with pytest.raises(VerificationError, match=first.key_id):
            publish(api, settings, folders, "0.2.0")
        assert publish(api, settings, folders, "0.2.0", second).changed
        listed = run(history, key="first", yes=False)
        assert "revoked since" in listed and second.key_id in listed

    def test_rotating_again_in_the_same_way_changes_nothing(self, api, settings, folders, run, tmp_path):
        publish(api, settings, folders)
        arguments = ("--new-key", tmp_path / "second", "--revoke", run.keys["first"].key_id)
        run(rotate, *arguments)
        before = commits(api, settings)
        assert "nothing was changed" in run(rotate, *arguments)
        assert commits(api, settings) == before == ["Change the keys"]

    def test_a_key_that_came_and_went_may_be_revoked_again(self, api, settings, folders, run, tmp_path):
        """The set is then what everybody was given, and the chain from it on names the key no more."""
        publish(api, settings, folders)
        run(rotate, "--new-key", tmp_path / "second")
        trusted = tmp_path / "first.json"
        write_trusted(trusted, TrustedKeys([run.keys["first"].public]))
        revoke = ("--revoke", run.keys["second"].key_id, "--trust", trusted)
        run(rotate, *revoke)
        before = commits(api, settings)
        assert "nothing was changed" in run(rotate, *revoke)
        assert commits(api, settings) == before

    def test_a_lone_key_is_not_revoked_and_a_misspelt_one_is_told(self, api, settings, folders, run):
        publish(api, settings, folders)
        with pytest.raises(ConfigurationError, match="at least one"):
            run(rotate, "--revoke", run.keys["first"].key_id)
        with pytest.raises(ConfigurationError, match="never believed"):
            run(rotate, "--revoke", "0123456789abcdef")
        with pytest.raises(ConfigurationError, match="nothing to change"):
            run(rotate)

    def test_a_revoked_or_strange_key_cannot_rotate(self, api, settings, folders, run, tmp_path):
        publish(api, settings, folders)
        run(rotate, "--new-key", tmp_path / "second", "--revoke", run.keys["first"].key_id)
        for key in ("first", "third"):
            with pytest.raises(VerificationError):
                run(rotate, "--new-key", tmp_path / "third", key=key)

    def test_links_that_no_key_of_the_chain_signed_are_refused(self, api, settings, folders, run, tmp_path):
        publish(api, settings, folders)
        run(rotate, "--new-key", tmp_path / "second")
        repo, thief = settings.repo_id("student"), SigningKey.generate()
        forged = KeySet(repo, 2, "2026-01-01T00:00:00+00:00", TrustedKeys([thief.public]).to_dict()["keys"])
        files = signed_keys(forged, [thief]) | signed_notices(
            Notices(repo, 9, "2026-01-01T00:00:00+00:00"), [thief]
        )
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repo, operations, commit_message="forged", revision=BRANCH)
        with pytest.raises(VerificationError):
            board_of(api, settings).read()

    def test_publishing_goes_on_from_the_set_for_new_devices(self, api, settings, folders, run, tmp_path):
        publish(api, settings, folders)
        run(rotate, "--new-key", tmp_path / "second", "--public", tmp_path / "trusted.json")
        trusted = TrustedKeys.read(tmp_path / "trusted.json")
        assert set(trusted.key_ids) == {run.keys[name].key_id for name in ("first", "second")}
        assert publish(api, settings, folders, "0.2.0", run.keys["second"], trusted=trusted).changed

    def test_a_release_by_two_keys_is_believed_by_devices_of_either(self, api, settings, folders, tmp_path):
        second = SigningKey.generate()
        publish(api, settings, folders, more_keys=[second])
        for name in ("release.json", "release.json.sig"):
            api.hf_hub_download(
                settings.repo_id("student"), name, revision="v0.1.0", local_dir=tmp_path / "r"
            )
        for key in (KEY, second):
            assert release.read(tmp_path / "r", TrustedKeys([key.public])).version == "0.1.0"
        assert not publish(api, settings, folders, more_keys=[second]).changed
        assert not publish(api, settings, folders).changed


def test_a_device_follows_all_of_it(api, settings, folders, run, tmp_path):
    home = Home(tmp_path / "home")
    home.write("trust.json", TrustedKeys([KEY.public]).to_dict())
    home.write("device.json", {"repo_id": settings.repo_id("student"), "hub": api.endpoint})

    def installed() -> str | None:
        return Updater(home).pull().version

    publish(api, settings, folders)
    assert installed() == "0.1.0"
    publish(api, settings, folders, "0.2.0", rollout=0.0)
    assert installed() == "0.1.0"
    run(rollout, "0.2.0", "1")
    assert installed() == "0.2.0"
    run(yank, "0.2.0", "--reason", "too loud")
    assert installed() == "0.1.0"
    run(rotate, "--new-key", tmp_path / "second", "--revoke", KEY.key_id)
    publish(api, settings, folders, "0.3.0", run.keys["second"])
    assert installed() == "0.3.0"


def test_the_branch_holds_what_the_contract_says(api, settings, folders, run, tmp_path):
    publish(api, settings, folders)
    run(rotate, "--new-key", tmp_path / "second")
    names = set(api.list_repo_files(settings.repo_id("student"), revision=BRANCH))
    assert names - {".gitattributes"} == {
        NOTICES,
        NOTICES + ".sig",
        keys_path(1),
        keys_path(1) + ".sig",
    }


def test_a_repository_that_does_not_exist_is_told(run):
    with pytest.raises(LumenError, match="publish a release first"):
        run(yank, "0.1.0", "--reason", "x")


def test_commands_say_what_they_take():
    for module in ("yank", "rollout", "rotate", "history"):
        shown = subprocess.run(
            [sys.executable, "-m", f"hub.{module}", "--help"], capture_output=True, text=True
        )
        assert shown.returncode == 0 and "--recipe" in shown.stdout
