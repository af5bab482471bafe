"""What a publisher says after a release, and what devices make of it: yanks, staged roll-outs, new keys."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from eisv_lumen.device import slots, updater
from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge, refuse
from eisv_lumen.device.probation import Probation
from eisv_lumen.device.selftest import SelfTest
from eisv_lumen.device.service import open_voice
from eisv_lumen.device.status import lines, status
from eisv_lumen.device.updater import Outcome, Updater
from eisv_lumen.device.wishes import set_channel, set_pin
from eisv_lumen.errors import ConfigurationError, HubError, VerificationError
from eisv_lumen.notices import NOTICES, in_rollout
from eisv_lumen.signing import SigningKey, TrustedKeys
from tests.release_artifacts import Branch, Repository, some_windows

KEY, NEW, NEWER, STRANGER = (SigningKey.generate() for _ in range(4))
ROOT = TrustedKeys([KEY.public])


@pytest.fixture(autouse=True)
def no_self_test(monkeypatch):
    """Simulated: the self-test has tests of its own, and takes a second."""
    monkeypatch.setattr(updater, "run_selftest", lambda folder: SelfTest(4, 0.0, 1.0, 60.0))


@pytest.fixture
def repository(hub, request):
    api = HfApi(endpoint=hub.url, token=hub.token)
    return Repository(api, f"hikewa/n{abs(hash(request.node.name)) % 10**9}", KEY)


@pytest.fixture
def branch(repository):
    return Branch(repository)


@pytest.fixture
def home(tmp_path, repository):
    return repository.device(tmp_path / "home")


def pull(home: Home, **options: bool) -> Outcome:
    return Updater(home).pull(**options)


def speaking(home: Home) -> str:
    return slots.open_current(home, home.trusted()).version


def named(home: Home, version: str, share: float, inside: bool) -> None:
    """Give the device a name that is inside or outside a share."""
    name = next(str(n) for n in range(1000) if in_rollout(str(n), version, share) == inside)
    home.write("identity.json", {"device_id": name})


class TestYanks:
    def test_a_yanked_release_is_never_installed(self, home, repository, branch, student):
        for version in ("0.1.0", "0.2.0"):
            repository.publish(version, student)
        branch.say(yanked={"0.2.0": "says one word only"})
        assert pull(home).version == "0.1.0"
        assert "says one word only" in "\n".join(lines(status(home)))

    def test_a_device_leaves_it_for_the_newest_allowed_one(self, home, repository, branch, student):
        for version in ("0.1.0", "0.2.0"):
            repository.publish(version, student)
            pull(home)
        repository.publish("0.2.1", student)
        branch.say(yanked={"0.2.0": "bad"})
        outcome = pull(home)
        assert (outcome.action, speaking(home)) == ("installed", "0.2.1")
        assert "0.2.0" not in [entry.version for entry in Current.read(home).back if entry.good]

    def test_or_for_the_last_one_that_spoke_and_says_so(self, home, repository, branch, student):
        for version in ("0.1.0", "0.2.0"):
            repository.publish(version, student)
            pull(home)
        branch.say(yanked={"0.2.0": "bad"})
        outcome = pull(home)
        assert (outcome.action, outcome.version, speaking(home)) == ("left", "0.1.0", "0.1.0")
        assert "left 0.2.0" in outcome.note and "bad" in "\n".join(lines(status(home)))
        assert pull(home).action == "unchanged" and speaking(home) == "0.1.0"

    def test_or_for_the_rules(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        pull(home)
        branch.say(yanked={"0.1.0": "bad"})
        outcome = pull(home)
        assert (outcome.action, outcome.version) == ("left", None) and "the rules" in outcome.note
        spoken = open_voice(home).speak(some_windows(1))
        assert spoken.source == "R" and "yanked by its publisher: bad" in (spoken.reason or "")
        assert "speaks    the rules (left 0.1.0: yanked by its publisher: bad)" in lines(status(home))
        repository.publish("0.1.1", student)
        assert pull(home).version == "0.1.1" == speaking(home)

    def test_or_for_an_older_one_that_was_never_here(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        repository.publish("0.2.0", student)
        pull(home)
        branch.say(yanked={"0.2.0": "bad"})
        assert pull(home).version == "0.1.0" == speaking(home)

    def test_minimum_version_holds_even_then(self, home, repository, branch, student):
        from dataclasses import replace

        repository.publish("0.1.0", student)
        repository.publish("0.2.0", student, change=lambda m: replace(m, minimum_version="0.2.0"))
        pull(home)
        branch.say(yanked={"0.2.0": "bad"})
        assert pull(home).version is None

    def test_a_release_that_was_known_to_be_good_is_no_way_around_the_no_downgrade_rule(
        self, home, repository, branch, student
    ):
        for version in ("0.1.0", "0.2.0", "0.3.0"):
            repository.publish(version, student)
            pull(home)
        branch.say(yanked={"0.3.0": "bad"})
        shutil.rmtree(home.slots / "b")  # 0.2.0 is lost, and the Hub hides it
        shutil.rmtree(home.slots / "a")
        repository.api.delete_tag(repository.repo_id, tag="v0.2.0")
        pull(home)
        assert Current.read(home).speaks is None

    def test_offline_what_is_known_to_be_yanked_stays_away(self, home, repository, branch, student):
        for version in ("0.1.0", "0.2.0"):
            repository.publish(version, student)
            pull(home)
        branch.say(yanked={"0.2.0": "bad"})
        pull(home)
        home.write("device.json", {"repo_id": repository.repo_id, "hub": "http://127.0.0.1:9"})
        assert pull(home).version == "0.1.0" == speaking(home)


class TestRollOut:
    def test_it_reaches_only_its_share_and_later_everybody(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        branch.say(rollout={"0.2.0": 0.3})
        repository.publish("0.2.0", student)
        named(home, "0.2.0", 0.3, inside=False)
        assert pull(home).version == "0.1.0"
        outcome = pull(home)
        assert outcome.action == "unchanged" and "0.2.0 is being rolled out" in outcome.note
        branch.say(rollout={"0.2.0": 1.0})
        assert pull(home).version == "0.2.0"

    def test_a_device_inside_the_share_gets_it(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        branch.say(rollout={"0.2.0": 0.3})
        repository.publish("0.2.0", student)
        named(home, "0.2.0", 0.3, inside=True)
        assert pull(home).version == "0.2.0"

    def test_the_name_of_a_device_is_made_once(self, home, tmp_path):
        name = home.device_id()
        assert name == Home(home.folder).device_id() == status(home)["device_id"]
        assert name != Home(tmp_path / "other").device_id()


class TestKeys:
    def test_a_rotation_is_followed(self, home, repository, branch, student):
        branch.rotate([KEY, NEW], signer=KEY)
        repository.publish("0.1.0", student, key=NEW)
        assert pull(home).version == "0.1.0" and home.keys_sequence(repository.repo_id) == 1

    def test_two_rotations_missed_are_made_up_for(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        pull(home)
        branch.rotate([KEY, NEW], signer=KEY)
        branch.rotate([NEW], signer=NEW)
        branch.rotate([NEWER], signer=NEW)
        repository.publish("0.2.0", student, key=NEWER)
        assert pull(home).version == "0.2.0"
        assert home.trusted() == TrustedKeys([NEWER.public])
        assert status(home)["keys_sequence"] == 3

    def test_a_revoked_key_signs_nothing_new_but_silences_nothing(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        pull(home)
        branch.rotate([NEW], signer=KEY)
        repository.publish("0.2.0", student)
        with pytest.raises(VerificationError, match="a release signed by"):
            pull(home)
        assert speaking(home) == "0.1.0"
        assert open_voice(home, gate=0.0).speak(some_windows(1)).source == "M"

    @pytest.mark.parametrize("signer", [STRANGER, NEW])
    def test_a_broken_link_stops_it(self, home, repository, branch, student, signer):
        repository.publish("0.1.0", student)
        pull(home)
        branch.rotate([NEW], signer=signer, notices=False)
        branch.rotate([KEY, NEWER], signer=KEY, notices=False)
        repository.publish("0.2.0", student)
        outcome = pull(home)
        assert outcome.action == "held" and "key set 1 is not believed" in (outcome.problem or "")
        assert home.trusted() == ROOT and speaking(home) == "0.1.0"

    def test_a_link_signed_by_a_revoked_key_stops_it(self, home, repository, branch, student):
        branch.rotate([NEW], signer=KEY)
        repository.publish("0.1.0", student, key=NEW)
        pull(home)
        branch.rotate([STRANGER], signer=KEY)
        branch.rotate([NEW], signer=STRANGER)  # once on the chain, nobody joins it further on
        outcome = pull(home)
        assert "key set 2 is not believed" in (outcome.problem or "")
        assert home.trusted() == TrustedKeys([NEW.public]) and home.keys_sequence(repository.repo_id) == 1

    def test_a_device_set_up_late_begins_in_the_middle_of_the_chain(self, home, repository, branch, student):
        branch.rotate([KEY, NEW], signer=KEY)
        branch.rotate([NEW], signer=KEY)
        repository.publish("0.1.0", student, key=NEW)
        home.give_trust(TrustedKeys([NEW.public]))
        outcome = pull(home)
        assert (outcome.version, outcome.problem) == ("0.1.0", None)
        branch.rotate([NEWER], signer=NEW)
        repository.publish("0.2.0", student, key=NEWER)
        assert pull(home).version == "0.2.0"

    def test_the_first_keys_given_again_do_not_come_back(self, home, repository, branch, student):
        home.give_trust(ROOT)
        branch.rotate([NEW], signer=KEY)
        repository.publish("0.1.0", student, key=NEW)
        pull(home)
        home.give_trust(ROOT)
        assert home.trusted() == TrustedKeys([NEW.public])
        home.give_trust(TrustedKeys([STRANGER.public]))
        assert home.trusted() == TrustedKeys([STRANGER.public])

    @pytest.mark.parametrize("killed_at", [1, 2])
    def test_keys_given_again_lead_to_the_newest_set_wherever_it_is_killed(
        self, home, repository, branch, student, monkeypatch, killed_at
    ):
        """Simulated: the process is gone instead of writing the first or the second file."""
        repository.publish("0.1.0", student)
        pull(home)
        branch.rotate([NEW], signer=KEY)
        pull(home)
        given, written, real = TrustedKeys([KEY.public, NEWER.public]), [], Home.write

        def dies(self, name, content):
            written.append(name)
            if len(written) == killed_at:
                raise KeyboardInterrupt
            real(self, name, content)

        with monkeypatch.context() as patch:
            patch.setattr(Home, "write", dies)
            with pytest.raises(KeyboardInterrupt):
                home.give_trust(given)
        pull(home)
        home.give_trust(given)
        pull(home)
        assert home.trusted() == TrustedKeys([NEW.public])


class TestHostileNotices:
    @pytest.fixture
    def settled(self, home, repository, branch, student):
        """0.1.0 speaks, 0.2.0 is out, and notices 2 are known."""
        repository.publish("0.1.0", student)
        branch.say()
        branch.say(yanked={"0.0.9": "old"})
        pull(home)
        repository.publish("0.2.0", student)
        return home

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"sequence": 1}, "notices 1, though 2 were known"),
            ({"sequence": 2}, "notices 2, though 2 were known"),
            ({"key": STRANGER}, "notices signed by"),
            ({"repo_id": "hikewa/another"}, "hikewa/another"),
        ],
    )
    def test_they_change_nothing_and_keep_new_releases_out(self, settled, branch, options, reason):
        branch.say(**options)
        for _ in range(2):
            outcome = pull(settled)
            assert outcome.action == "held" and reason in (outcome.problem or ""), outcome
            assert speaking(settled) == "0.1.0"
            assert Knowledge.read(settled).notices.yanked == {"0.0.9": "old"}
        branch.sequence = 2
        branch.say()
        assert pull(settled).version == "0.2.0"

    @pytest.mark.parametrize("content", [b"{", b"[]", b" " * 3_000_000])
    def test_damaged_notices(self, settled, branch, content):
        branch.put({NOTICES: content})
        assert pull(settled).action == "held" and speaking(settled) == "0.1.0"

    def test_a_new_device_is_told_in_an_error(self, home, repository, branch, student):
        repository.publish("0.1.0", student)
        branch.say(key=STRANGER)
        with pytest.raises(VerificationError, match="notices signed by"):
            pull(home)
        assert Current.read(home).speaks is None

    def test_notices_that_vanished(self, settled, repository):
        repository.api.delete_branch(repository.repo_id, branch="notices")
        for _ in range(2):  # they may have held a yank
            outcome = pull(settled)
            assert outcome.action == "held" and "have vanished" in (outcome.problem or "")
        assert speaking(settled) == "0.1.0"
        assert Knowledge.read(settled).notices.yanked == {"0.0.9": "old"}

    def test_notices_that_came_back(self, settled, repository, branch):
        repository.api.delete_branch(repository.repo_id, branch="notices")
        pull(settled)
        branch.say()
        assert pull(settled).version == "0.2.0"

    def test_notices_that_cannot_be_fetched(self, settled, branch, monkeypatch):
        branch.say()
        real = updater.Source.files

        def fails(self, revision):
            if not revision.startswith("v"):
                raise HubError(found="a lost answer", expected="x", next="y")
            return real(self, revision)

        with monkeypatch.context() as patch:
            patch.setattr(updater.Source, "files", fails)
            outcome = pull(settled)
        assert outcome.action == "held" and "a lost answer" in (outcome.problem or "")
        assert pull(settled).version == "0.2.0"

    def test_what_is_known_of_one_repository_is_not_believed_of_another(self, settled, hub, student):
        first = settled.settings().repo_id
        other = Repository(HfApi(endpoint=hub.url, token=hub.token), "hikewa/other-notices", KEY)
        other.publish("0.0.9", student)
        settled.update("device.json", repo_id=other.repo_id)
        assert Knowledge.read(settled).notices.sequence == 2
        # 0.1.0 of the first repository speaks and 0.0.9 was yanked there: neither says anything here.
        assert pull(settled).version == "0.0.9"
        assert Knowledge.read(settled).notices.sequence == 0
        settled.update("device.json", repo_id="hikewa/absent")
        with pytest.raises(HubError):
            pull(settled)
        settled.update("device.json", repo_id=first)
        pull(settled)
        assert Knowledge.read(settled).notices.yanked == {"0.0.9": "old"}


class TestAnotherRepository:
    """The device is told to follow another repository, whose versions have the same numbers."""

    @pytest.fixture
    def moved(self, home, hub, repository, student, request):
        """0.2.0 of the first repository speaks after 0.1.0; the second one has yanked its own of both."""
        for version in ("0.1.0", "0.2.0"):
            repository.publish(version, student)
            pull(home)
            assert slots.keep(home, str(Current.read(home).trial))
        api = HfApi(endpoint=hub.url, token=hub.token)
        other = Repository(api, f"hikewa/o{abs(hash(request.node.name)) % 10**9}", KEY)
        for version in ("0.1.0", "0.2.0"):
            other.publish(version, student)
        Branch(other).say(yanked={"0.1.0": "theirs", "0.2.0": "theirs"})
        home.update("device.json", repo_id=other.repo_id)
        with pytest.raises(HubError, match="no stable release"):
            pull(home)
        return home

    def test_its_yank_of_the_same_number_is_no_reason_to_leave(self, moved):
        assert speaking(moved) == "0.2.0"
        with pytest.raises(HubError):
            pull(moved)
        assert speaking(moved) == "0.2.0"

    def test_nor_not_to_go_back(self, moved):
        assert Updater(moved).rollback().version == "0.1.0"

    def test_a_damaged_one_is_stood_in_for(self, moved):
        (slots.open_current(moved, moved.trusted()).folder / "config.json").write_text("{}")
        assert open_voice(moved).model.version == "0.1.0"

    def test_what_is_left_is_remembered_of_its_own_repository(self, moved, repository):
        theirs = moved.settings().repo_id
        Updater(moved).rollback()
        assert "0.2.0" not in Knowledge.read(moved).refused
        moved.update("device.json", repo_id=repository.repo_id)
        pull(moved)
        assert "rolled back" in Knowledge.read(moved).refused["0.2.0"] and speaking(moved) == "0.1.0"
        assert Knowledge.read(moved, theirs).notices.yanked.keys() == {"0.1.0", "0.2.0"}
        assert Knowledge.read(moved, "hikewa/never-followed") == Knowledge()

    def test_a_failed_probation_too(self, home, repository, student, moved):
        ours = Knowledge.read(home, repository.repo_id)
        assert ours.refused == {} and set(ours.installed) == {"0.1.0", "0.2.0"}
        refuse(home, "0.2.0", "failed its probation", repository.repo_id)
        watch = Probation(home, lambda line: None)
        watch.start()
        watch.end()
        assert speaking(home) == "0.1.0"


class TestWishes:
    @pytest.fixture
    def three(self, home, repository, student):
        for version in ("0.1.0", "0.2.0", "0.3.0-beta.1"):
            repository.publish(version, student)
        return home

    def test_a_pinned_version_is_installed_and_stays(self, three, repository, student):
        set_pin(three, "0.1.0")
        assert pull(three).version == "0.1.0"
        repository.publish("0.4.0", student)
        assert pull(three).action == "unchanged" and speaking(three) == "0.1.0"
        set_pin(three, None)
        assert pull(three).version == "0.4.0"

    def test_an_older_version_may_be_pinned(self, three):
        assert pull(three).version == "0.2.0"
        set_pin(three, "v0.1.0")
        assert pull(three).version == "0.1.0" == speaking(three)
        set_pin(three, None)
        assert pull(three).version == "0.2.0"

    def test_a_pin_comes_before_channel_and_roll_out(self, three, branch):
        branch.say(rollout={"0.3.0-beta.1": 0.0})
        set_pin(three, "0.3.0-beta.1")
        assert pull(three).version == "0.3.0-beta.1"

    def test_yanked_or_refused_versions_cannot_be_pinned(self, three, branch):
        pull(three)
        branch.say(yanked={"0.1.0": "bad"})
        pull(three)
        with pytest.raises(VerificationError, match="yanked"):
            set_pin(three, "0.1.0")
        three.update("state.json", refused={"0.2.0": "crashes"})
        with pytest.raises(VerificationError, match="crashes"):
            set_pin(three, "0.2.0")
        assert three.settings().pin is None

    def test_a_pin_to_what_is_yanked_later_is_set_aside(self, three, branch):
        set_pin(three, "0.1.0")
        pull(three)
        branch.say(yanked={"0.1.0": "bad"})
        outcome = pull(three)
        assert (outcome.version, speaking(three)) == ("0.2.0", "0.2.0")
        assert "pin to 0.1.0 is set aside" in pull(three).note

    def test_a_pin_to_nothing(self, three):
        pull(three)
        set_pin(three, "7.7.7")
        with pytest.raises(HubError, match=r"no release 7\.7\.7"):
            pull(three)
        assert speaking(three) == "0.2.0"
        with pytest.raises(ConfigurationError):
            set_pin(three, "seven")

    def test_channels(self, three, tmp_path):
        assert pull(three).version == "0.2.0"
        set_channel(three, "beta")
        assert pull(three).version == "0.3.0-beta.1"
        set_channel(three, "stable")
        assert pull(three).action == "unchanged" and speaking(three) == "0.3.0-beta.1"
        with pytest.raises(ConfigurationError):
            set_channel(three, "nightly")
        with pytest.raises(ConfigurationError, match="no repository"):
            set_channel(Home(Path(tmp_path / "bare")), "beta")


def test_a_check_that_finds_nothing_new_is_one_request(home, repository, branch, student, monkeypatch):
    repository.publish("0.1.0", student)
    branch.rotate([KEY, NEW], signer=KEY)
    pull(home)
    import requests

    asked: list[str] = []
    real = requests.Session.send

    def counted(self, request, **options):
        asked.append(request.url)
        return real(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", counted)
    assert pull(home).action == "unchanged"
    assert len(asked) == 1 and asked[0].endswith("/refs")
