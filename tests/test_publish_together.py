"""Publishing beside other writers, through a Hub that fails, and killed at every named state."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from eisv_lumen import release
from eisv_lumen.errors import ArtifactError, ConfigurationError, HubError, VerificationError
from eisv_lumen.hub_client import HubUnreachableError
from eisv_lumen.signing import TrustedKeys
from hub import contents
from hub.publication import ALL_STATES
from hub.retry import Asking, Backoff, Patience
from tests.publishing import KEY, LONG_CARD, TYPES, Killed, history, own_names, publish, put, read
from tests.release_artifacts import rebuild, recipe

PNG = b"\x89PNG\r\n\x1a\n" + bytes(50) + b"\x00\x00\x00\x00IEND\xaeB`\x82"


@pytest.fixture
def folders(folders):
    for role in ("dataset", "student"):
        (folders[role] / "README.md").write_text(LONG_CARD.format(extra="", title=role.title()))
    return folders


def seen_release(api, settings, version, folder):
    """The signed manifest of a version as the Hub has it."""
    for name in ("release.json", "release.json.sig"):
        api.hf_hub_download(settings.repo_id("student"), name, revision=f"v{version}", local_dir=folder)
    return release.read(folder, TrustedKeys([KEY.public]))


class TestPeople:
    def test_an_edited_card_survives_releases_and_the_manifest_names_what_stands(
        self, api, settings, folders, tmp_path, capsys
    ):
        publish(api, settings, folders)
        repo = settings.repo_id("student")
        card = (folders["student"] / "README.md").read_text().replace("Load it.", "Ask Ada first.")
        put(api, repo, "model", {"README.md": card.encode()})
        for version in ("0.2.0", "0.3.0"):
            rebuild(folders["student"], {"config.json": (folders["student"] / "config.json").read_bytes()})
            words = LONG_CARD.format(extra="", title="Student " + version)
            (folders["student"] / "README.md").write_text(words)
            publish(api, settings, folders, version)
            stands = read(api, repo, "model", "README.md", f"v{version}", tmp_path).decode()
            assert "Ask Ada first." in stands and f"# Student {version}" in stands
            seen = seen_release(api, settings, version, tmp_path / f"m{version}")
            assert seen.student.files["README.md"]["size"] == len(stands.encode())
            assert "kept as edited on the Hub: Use" in capsys.readouterr().out
        before = history(api, settings)
        assert not publish(api, settings, folders, "0.3.0").changed and history(api, settings) == before

    def test_a_persons_secret_in_the_card_stops_the_release(self, api, settings, folders):
        publish(api, settings, folders)
        card = (folders["dataset"] / "README.md").read_text().replace("Load it.", "token: hf_" + "a" * 34)
        put(api, settings.repo_id("dataset"), "dataset", {"README.md": card.encode()})
        with pytest.raises(VerificationError, match="token") as refused:
            publish(api, settings, folders, "0.2.0", dry_run=False, at=lambda state: None)
        assert "hf_aaa" not in str(refused.value)

    def test_a_persons_file_is_left_alone_by_every_release(self, api, settings, folders):
        publish(api, settings, folders)
        repo = settings.repo_id("dataset")
        put(api, repo, "dataset", {"notes/by-hand.txt": b"mine", "figures/own.png": b"png"})
        for version in ("0.2.0", "0.3.0"):
            rebuild(folders["dataset"], {"new.json": version.encode()})
            publish(api, settings, folders, version)
            names = api.list_repo_files(repo, repo_type="dataset", revision=f"v{version}")
            assert {"notes/by-hand.txt", "figures/own.png", "new.json"} <= set(names)

    @pytest.mark.parametrize("wanted", [False, True], ids=["shown by nobody", "shown by a person"])
    def test_a_released_picture_that_the_folder_lacks_goes_unless_a_person_shows_it(
        self, api, settings, folders, wanted
    ):
        card, figure = folders["dataset"] / "README.md", folders["dataset"] / "figures" / "shapes.png"
        words = card.read_text()
        shown = words.replace("Load it.", "![shapes](figures/shapes.png)")
        card.write_text(shown)
        figure.parent.mkdir()
        figure.write_bytes(PNG)
        publish(api, settings, folders)
        repo = settings.repo_id("dataset")
        if wanted:
            theirs = shown.replace("Apache.", "![mine](figures/shapes.png)")
            put(api, repo, "dataset", {"README.md": theirs.encode()})
        card.write_text(words)
        figure.unlink()
        publish(api, settings, folders, "0.2.0")
        assert ("figures/shapes.png" in api.list_repo_files(repo, repo_type="dataset")) == wanted

    def test_a_card_written_before_the_first_release_is_kept(self, api, settings, folders, tmp_path, capsys):
        repo = settings.repo_id("dataset")
        api.create_repo(repo, repo_type="dataset")
        card = b"---\nlicense: mit\n---\n\n# Mine\n\nFor a year.\n\n## Use\n\nNot for cats.\n"
        put(api, repo, "dataset", {"README.md": card})
        for version in ("0.1.0", "0.2.0"):
            rebuild(folders["dataset"], {"new.json": version.encode()})
            publish(api, settings, folders, version)
            stands = read(api, repo, "dataset", "README.md", f"v{version}", tmp_path).decode()
            for words in ("license: mit", "For a year.", "Not for cats.", "Apache."):
                assert words in stands
        assert "kept as edited on the Hub: Use" in capsys.readouterr().out

    def test_front_matter_that_cannot_be_kept_is_told(self, api, settings, folders, capsys):
        publish(api, settings, folders)
        card = (folders["student"] / "README.md").read_text()
        theirs = "---\n{license: mit}\n---\n" + card.split("---\n", 2)[2]  # YAML, but not line by line
        put(api, settings.repo_id("student"), "model", {"README.md": theirs.encode()})
        rebuild(folders["student"], {"more.json": b"{}"})
        publish(api, settings, folders, "0.2.0")
        assert "not kept, the card would be unreadable: front matter: {license" in capsys.readouterr().out

    def test_a_picture_that_a_persons_words_show_stays_with_them(self, api, settings, folders):
        publish(api, settings, folders)
        repo = settings.repo_id("dataset")
        card = (folders["dataset"] / "README.md").read_text()
        shown = card.replace("Load it.", "![own](figures/own.png)").encode()
        put(api, repo, "dataset", {"README.md": shown, "figures/own.png": b"a picture"})
        for version in ("0.2.0", "0.3.0"):
            rebuild(folders["dataset"], {"new.json": version.encode()})
            publish(api, settings, folders, version)
            names = api.list_repo_files(repo, repo_type="dataset", revision=f"v{version}")
            assert "figures/own.png" in names
        put(api, repo, "dataset", {"README.md": card.replace("Load it.", "No picture.").encode()})
        rebuild(folders["dataset"], {"new.json": b"0.4.0"})
        publish(api, settings, folders, "0.4.0")
        assert "figures/own.png" in api.list_repo_files(repo, repo_type="dataset")

    @pytest.mark.parametrize("change", ["changed", "added", "to be deleted"])
    def test_a_persons_change_of_the_payload_is_never_overwritten(self, api, settings, folders, change):
        publish(api, settings, folders)
        repo = settings.repo_id("dataset")
        name = "new.json" if change == "added" else "weights.json"
        put(api, repo, "dataset", {name: b'{"by": "hand"}'})
        if change == "to be deleted":
            (folders["dataset"] / "weights.json").unlink()
        rebuild(folders["dataset"], {"new.json": b"{}"})
        if change == "changed":
            rebuild(folders["dataset"], {"weights.json": b'{"of": "the next release"}'})
        before = history(api, settings)
        with pytest.raises(VerificationError, match=name):
            publish(api, settings, folders, "0.2.0")
        assert history(api, settings) == before

    def test_a_tag_set_by_somebody_else_is_never_moved(self, hub, api, settings, folders):
        class Raced(HfApi):
            def create_tag(self, repo_id, **options):  # type: ignore[override]
                first = self.list_repo_commits(repo_id, repo_type=options["repo_type"])[-1].commit_id
                super().create_tag(repo_id, **{**options, "revision": first})
                return super().create_tag(repo_id, **options)

        with pytest.raises(VerificationError, match="never moved"):
            publish(Raced(endpoint=hub.url, token=hub.token), settings, folders)
        assert history(api, settings)["student"][1] == {}


class TestFoldersThatChange:
    @pytest.mark.parametrize("name", ["data/windows/train.parquet", "weights.json"])
    def test_a_file_changed_after_it_was_validated_is_never_tagged(self, api, settings, folders, name):
        path = folders["dataset"] / name

        def meddle(state: str) -> None:
            if state == "validated":
                path.write_bytes(bytes(path.stat().st_size))

        with pytest.raises((ArtifactError, HubError), match="changed while|refused the bytes"):
            publish(api, settings, folders, at=meddle)
        for role in folders:
            repo = settings.repo_id(role)
            if api.repo_exists(repo, repo_type=TYPES[role]):
                assert api.list_repo_refs(repo, repo_type=TYPES[role]).tags == []

    @pytest.mark.parametrize("name", ["README.md", "manifest.json", "config.json"])
    def test_a_secret_written_after_the_search_for_secrets_is_not_sent(
        self, api, settings, folders, tmp_path, name
    ):
        path, secret = folders["student"] / name, b"hf_" + 34 * b"A"

        def meddle(state: str) -> None:
            if state == "validated":
                path.write_bytes(path.read_bytes() + secret)

        with pytest.raises(ArtifactError, match="changed while it was published"):
            publish(api, settings, folders, at=meddle)
        repo = settings.repo_id("student")
        for commit in api.list_repo_commits(repo) if api.repo_exists(repo) else ():
            for file in api.list_repo_files(repo, revision=commit.commit_id):
                found = api.hf_hub_download(
                    repo, file, revision=commit.commit_id, cache_dir=tmp_path / "seen"
                )
                assert secret not in Path(found).read_bytes()

    def test_what_is_sent_is_what_was_searched_though_the_file_looks_untouched(
        self, api, settings, folders, tmp_path
    ):
        name, secret = "data/windows/train.parquet", b"hf_" + 34 * b"A"
        path = folders["dataset"] / name
        before, content = path.stat(), path.read_bytes()

        def meddle(state: str) -> None:
            if state == "validated":
                path.write_bytes(secret + content[len(secret) :])
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        publish(api, settings, folders, at=meddle)
        stands = read(api, settings.repo_id("dataset"), "dataset", name, "v0.1.0", tmp_path)
        assert stands == content

    def test_files_for_which_no_memory_is_left_are_read_again_and_compared(
        self, api, settings, folders, monkeypatch
    ):
        monkeypatch.setattr(contents, "_KEPT", 0)
        publish(api, settings, folders)
        path = folders["dataset"] / "weights.json"
        rebuild(folders["dataset"], {"weights.json": b"{}"})

        def meddle(state: str) -> None:
            if state == "validated":
                path.write_bytes(b"[]")

        with pytest.raises(ArtifactError, match="changed while it was published"):
            publish(api, settings, folders, "0.2.0", at=meddle)


class TestConcurrentWriters:
    def test_an_edit_between_reading_and_writing_is_merged(self, hub, api, settings, folders, tmp_path):
        publish(api, settings, folders)

        class Raced(HfApi):
            raced = False

            def create_commit(self, repo_id, operations, **options):  # type: ignore[override]
                if repo_id == settings.repo_id("student") and not self.raced:
                    self.raced = True
                    card = (folders["student"] / "README.md").read_text()
                    edited = card.replace("Apache.", "Be kind.").encode()
                    put(api, repo_id, "model", {"README.md": edited, "theirs.txt": b"x"})
                return super().create_commit(repo_id, operations, **options)

        rebuild(folders["student"], {"more.json": b"{}"})
        publish(Raced(endpoint=hub.url, token=hub.token), settings, folders, "0.2.0")
        repo = settings.repo_id("student")
        assert b"Be kind." in read(api, repo, "model", "README.md", "v0.2.0", tmp_path)
        names = api.list_repo_files(repo, revision="v0.2.0")
        assert {"theirs.txt", "more.json"} <= set(names)
        seen = seen_release(api, settings, "0.2.0", tmp_path / "m")
        assert "theirs.txt" not in seen.student.files  # signed is only what was built and validated
        assert history(api, settings)["student"][0][:2] == ["Release 0.2.0", "by hand"]

    def test_a_higher_version_published_meanwhile_is_not_overwritten(
        self, hub, api, settings, folders, tmp_path
    ):
        publish(api, settings, folders)
        shutil.copytree(tmp_path / "artifacts", tmp_path / "others")
        others = {role: tmp_path / "others" / role for role in folders}
        rebuild(others["dataset"], {"weights.json": b'{"of": "0.3.0"}'})
        rebuild(folders["dataset"], {"weights.json": b'{"of": "0.2.0"}'})

        class Raced(HfApi):
            raced = False

            def create_commit(self, *args, **options):  # type: ignore[override]
                if not self.raced:
                    self.raced = True
                    publish(api, settings, others, "0.3.0")
                return super().create_commit(*args, **options)

        with pytest.raises(VerificationError, match=r"nothing newer than 0\.2\.0"):
            raced = Raced(endpoint=hub.url, token=hub.token)
            publish(raced, settings, folders, "0.2.0", workers=1)
        for titles, tags, _ in history(api, settings).values():
            assert "Release 0.2.0" not in titles and set(tags) == {"v0.1.0", "v0.3.0"}

    def test_a_higher_version_of_any_repository_is_not_overwritten(self, api, settings, folders):
        publish(api, settings, folders)
        api.create_tag(settings.repo_id("dataset"), tag="v0.3.0", repo_type="dataset")
        before = history(api, settings)
        with pytest.raises(VerificationError, match=r"nothing newer than 0\.2\.0"):
            publish(api, settings, folders, "0.2.0")
        assert history(api, settings) == before

    @pytest.mark.parametrize("state", ["committed dataset", "committed student", "tagged dataset"])
    def test_a_higher_version_that_was_only_begun_is_not_overwritten(self, api, settings, folders, state):
        publish(api, settings, folders)
        older = (folders["dataset"] / "weights.json").read_bytes()
        rebuild(folders["dataset"], {"weights.json": b'{"of": "0.3.0"}'})

        def killed(reached: str) -> None:
            if reached == state:
                raise Killed

        with pytest.raises(Killed):
            publish(api, settings, folders, "0.3.0", at=killed, workers=1)
        before = history(api, settings)
        rebuild(folders["dataset"], {"weights.json": older})
        with pytest.raises(VerificationError, match=r"release 0\.3\.0(?s:.*)newer than 0\.2\.0"):
            publish(api, settings, folders, "0.2.0")
        assert history(api, settings) == before
        publish(api, settings, folders, "0.3.1")

    def test_a_title_alone_is_no_higher_version(self, api, settings, folders):
        publish(api, settings, folders)
        note = CommitOperationAdd("note.txt", b"from somebody else")
        repo = settings.repo_id("dataset")
        api.create_commit(repo, [note], commit_message="Release 999.0.0", repo_type="dataset")
        publish(api, settings, folders, "0.2.0")
        assert "v0.2.0" in {tag.name for tag in api.list_repo_refs(repo, repo_type="dataset").tags}

    def test_a_minimum_above_the_version_is_refused_before_anything_is_written(self, api, folders):
        settings = own_names(folders, "minimum", minimum_version="0.2.0")
        with pytest.raises(ConfigurationError, match="minimum_version"):
            publish(api, settings, folders, "0.1.0")
        assert not api.repo_exists(settings.repo_id("dataset"), repo_type="dataset")

    def test_a_writer_who_never_stops_ends_in_a_clear_refusal(self, hub, settings, folders):
        class Raced(HfApi):
            count = 0

            def create_commit(self, repo_id, operations, **options):  # type: ignore[override]
                self.count += 1
                other = HfApi(endpoint=hub.url, token=hub.token)
                put(other, repo_id, options["repo_type"], {"theirs.txt": str(self.count).encode()})
                return super().create_commit(repo_id, operations, **options)

        api = Raced(endpoint=hub.url, token=hub.token)
        with pytest.raises(OSError, match="412"):
            publish(api, settings, folders, patience=Patience(attempts=3, first=0.01), workers=1)
        assert api.count == 3


class Flaky(HfApi):
    """A client whose every kind of request fails first, before or after it has reached the Hub."""

    def __init__(self, *args, failures, after, **options):
        super().__init__(*args, **options)
        self.failures, self.after, self.failed = failures, after, {}

    def _through(self, name, *args, **options):
        error = self.failures[len(self.failed) % len(self.failures)]
        count = self.failed.get((name, args), 0)
        if count == 0:
            self.failed[name, args] = 1
            if self.after:
                getattr(super(), name)(*args, **options)
            raise error
        return getattr(super(), name)(*args, **options)

    def create_repo(self, *args, **options):
        return self._through("create_repo", *args, **options)

    def create_commit(self, repo_id, operations, **options):
        if repo_id in self.failed:
            return super().create_commit(repo_id, operations, **options)
        self.failed[repo_id] = 1
        if self.after:
            super().create_commit(repo_id, operations, **options)
        raise self.failures[len(self.failed) % len(self.failures)]

    def create_tag(self, *args, **options):
        return self._through("create_tag", *args, **options)

    def list_repo_refs(self, *args, **options):
        return self._through("list_repo_refs", *args, **options)

    def hf_hub_download(self, *args, **options):
        return self._through("hf_hub_download", *args, **options)


def answered(status: int, **headers: str) -> HfHubHTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return HfHubHTTPError(f"{status} with a token hf_secret", response=response)


class TestAHubThatFails:
    @pytest.mark.parametrize("after", [False, True], ids=["requests lost", "answers lost"])
    def test_every_request_fails_once_and_the_release_stands_once(self, hub, api, settings, folders, after):
        failures = [
            answered(429, **{"Retry-After": "0"}),
            answered(503),
            requests.ConnectionError("reset"),
            requests.Timeout("slow"),
            ValueError("no JSON"),
        ]
        publish(Flaky(endpoint=hub.url, token=hub.token, failures=failures, after=after), settings, folders)
        found = history(api, settings)
        for titles, tags, head in found.values():
            assert [title for title in titles if title.startswith("Release")] == ["Release 0.1.0"]
            assert tags == {"v0.1.0": head}

    def test_it_gives_up_in_the_end_and_says_no_secret(self, hub, settings, folders):
        class Broken(HfApi):
            def create_commit(self, *args, **options):  # type: ignore[override]
                raise answered(500)

        with pytest.raises(HubUnreachableError, match="500") as failed:
            publish(
                Broken(endpoint=hub.url, token=hub.token),
                settings,
                folders,
                patience=Patience(attempts=3, first=0.001),
            )
        assert "hf_secret" not in str(failed.value) and failed.value.__cause__ is None

    def test_refusals_are_not_repeated(self):
        count = []

        def forbidden():
            count.append(1)
            raise answered(403)

        with pytest.raises(OSError, match="403"):
            Asking("http://hub", patience=Patience(first=0.001))("write", forbidden)
        assert len(count) == 1

    def test_waits_grow_are_drawn_at_random_and_respect_retry_after(self, monkeypatch):
        waited: list[float] = []
        monkeypatch.setattr("hub.retry.time.sleep", waited.append)
        error = HubUnreachableError(found="503", expected="an answer", next="wait")
        backoff = Backoff(Patience(attempts=6, first=1.0, most=10.0), lambda line: None)
        for _ in range(5):
            backoff.wait(error)
        with pytest.raises(HubUnreachableError):
            backoff.wait(error)
        for seconds, mean in zip(waited, (1, 2, 4, 8, 10), strict=True):
            assert 0.5 * mean <= seconds <= min(1.5 * mean, 10.0)
        error.retry_after = 7.0
        Backoff(Patience(first=0.001, most=10.0), lambda line: None).wait(error)
        error.retry_after = 7000.0
        Backoff(Patience(first=0.001, most=10.0), lambda line: None).wait(error)
        assert waited[-2:] == [7.0, 10.0]


class TestKilled:
    def test_at_every_named_state_in_turn(self, hub, api, settings, folders, tmp_path):
        """One run after the other dies at the next state; the last one has nothing left to do."""
        reached: list[str] = []

        def kill_at_the_next(state: str) -> None:
            if state not in reached:
                reached.append(state)
                raise Killed

        runs = 0
        while True:
            runs += 1
            assert runs <= len(ALL_STATES) + 1
            try:
                publish(api, settings, folders, out=tmp_path / "out", at=kill_at_the_next, workers=1)
            except Killed:
                continue
            break
        assert tuple(reached) == ALL_STATES
        for titles, tags, head in history(api, settings).values():
            assert [title for title in titles if title.startswith("Release")] == ["Release 0.1.0"]
            assert tags == {"v0.1.0": head}
        assert json.loads((tmp_path / "out" / "record.json").read_text())["version"] == "0.1.0"

    @pytest.mark.parametrize("state", ["committed teacher", "committed student", "tagged dataset"])
    def test_a_real_process_by_sigkill(self, hub, api, settings, folders, tmp_path, state):
        KEY.write(tmp_path / "key")
        script = (
            "import os, signal, sys\n"
            "from hub import publication\n"
            "publish, state = publication.publish_release, sys.argv.pop(1)\n"
            "def at(name):\n"
            "    if name == state: os.kill(os.getpid(), signal.SIGKILL)\n"
            "publication.publish_release = lambda *a, **k: publish(*a, **k, at=at)\n"
            "from hub.release import main\n"
            "main()\n"
        )
        path = recipe(tmp_path, namespace=settings.namespace)
        command = ["--recipe", path, "--version", "0.1.0", "--endpoint", hub.url, "--key", tmp_path / "key"]
        command += [part for role, folder in folders.items() for part in (f"--{role}", folder)]
        command += ["--out", tmp_path / "out", "--yes"]

        def run(die_at: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", script, die_at, *map(str, command)],
                env={**os.environ, "HF_TOKEN": hub.token},
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
            )

        assert run(state).returncode == -signal.SIGKILL
        if api.repo_exists(settings.repo_id("student")):
            assert api.list_repo_refs(settings.repo_id("student")).tags == []
        done = run("")
        assert done.returncode == 0, done.stderr
        for titles, tags, head in history(api, settings).values():
            assert [title for title in titles if title.startswith("Release")] == ["Release 0.1.0"]
            assert tags == {"v0.1.0": head}
