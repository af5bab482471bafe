"""Publishing: validation, one commit per repository, tags last, and what happens when it is interrupted."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from huggingface_hub import HfApi

from eisv_lumen import artifact, release
from eisv_lumen.errors import (
    ArtifactError,
    ConfigurationError,
    GateError,
    HubError,
    LumenError,
    VerificationError,
)
from eisv_lumen.hub_client import HubUnreachableError
from eisv_lumen.signing import SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.onnx_opset import opset_of
from hub.remote import Reader
from hub.settings import ReleaseSettings
from hub.validation import validate
from tests.publishing import KEY, QUICK, TYPES, Killed, history, publish
from tests.release_artifacts import (
    CARD,
    NAMES,
    REPO_IDS,
    rebuild,
    recipe,
    small_graph,
)


class TestVersions:
    def test_precedence_is_that_of_semver(self):
        texts = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1"
        versions = [Version.parse(text) for text in (*texts.split(), "1.0.0", "1.0.1", "1.2.0", "1.10.0")]
        assert versions == sorted(versions, reverse=True)[::-1]
        assert all(a < b for a, b in pairwise(versions))
        assert [str(version) for version in versions][:2] == ["1.0.0-alpha", "1.0.0-alpha.1"]

    @pytest.mark.parametrize(
        "text", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+b", "1.0.0\n"]
    )
    def test_anything_else_is_refused(self, text):
        with pytest.raises(ConfigurationError):
            Version.parse(text)

    def test_channels_and_tags(self):
        beta, stable = Version.parse("0.2.0-beta.1"), Version.parse("0.2.0")
        assert (beta.channel, stable.channel) == ("beta", "stable")
        assert stable.on("beta") and not beta.on("stable")
        assert Version.of_tag(beta.tag) == beta and Version.of_tag("main") is None


class TestValidation:
    def test_sound_folders_pass(self, folders):
        manifests = validate(folders, REPO_IDS["base"], KEY, "hf_secret")
        assert {role: manifest.kind for role, manifest in manifests.items()} == {role: role for role in NAMES}

    @pytest.mark.parametrize(
        ("role", "metrics"),
        [
            ("teacher", {"gate_1": {"passed": False, "coherence": 0.7}}),
            ("teacher", {}),
            ("student", {"gate_2": {"passed": True}}),
            ("student", {"gate_2": {"passed": False}, "parity": {"passed": True}}),
            ("student", {"gate_2": {"passed": True}, "parity": {"passed": False}}),
        ],
    )
    def test_gates_must_be_passed(self, folders, role, metrics):
        rebuild(folders[role], {"metrics.json": json.dumps(metrics).encode()})
        with pytest.raises(GateError):
            validate(folders, REPO_IDS["base"], KEY, None)

    @pytest.mark.parametrize(
        ("role", "name", "content"),
        [
            ("base", "training_args.bin", b"x"),
            ("student", "weights.pkl", b"x"),
            ("dataset", "data/rows.dat", b"\x80\x04\x95rest"),
            ("dataset", "load.py", b"x"),
            ("student", "run.sh", b"x"),
            ("space", ".env", b"x"),
            ("base", "notes.txt", b"token hf_" + b"a" * 34),
            ("base", "notes.txt", b"-----BEGIN PRIVATE KEY-----"),
            ("base", "notes.txt", b"x" * ((1 << 20) - 3) + b"my-own-token" + b"y"),
        ],
    )
    def test_secrets_pickles_and_misplaced_code_are_refused(self, folders, role, name, content):
        rebuild(folders[role], {name: content})
        with pytest.raises(VerificationError) as refused:
            validate(folders, REPO_IDS["base"], KEY, "my-own-token")
        assert "my-own-token" not in str(refused.value)

    def test_the_signing_key_itself_is_found(self, folders, tmp_path):
        KEY.write(tmp_path / "key")
        lines = (tmp_path / "key").read_bytes().splitlines()
        rebuild(folders["dataset"], {"notes.txt": lines[1]})
        with pytest.raises(VerificationError, match="private key"):
            validate(folders, REPO_IDS["base"], KEY, None)

    @pytest.mark.parametrize(
        "card",
        [
            "# no front matter\n",
            "---\nlicense: [\n---\ntext\n",
            "---\nlicense:\n---\ntext\n",
            "---\ntags: [a]\n---\ntext\n",
            CARD.split("#")[0].format(extra=""),
        ],
    )
    def test_cards_must_be_valid(self, folders, card):
        (folders["dataset"] / "README.md").write_text(card)
        with pytest.raises(ArtifactError):
            validate(folders, REPO_IDS["base"], KEY, None)

    def test_damage_wrong_kinds_and_strange_bases_are_refused(self, folders):
        with pytest.raises(ArtifactError, match="is a dataset"):
            validate({**folders, "base": folders["dataset"]}, REPO_IDS["base"], KEY, None)
        with pytest.raises(ArtifactError, match="hikewa/eisv-lumen-base"):
            validate(folders, "someone/else", KEY, None)
        (folders["base"] / "config.json").write_text("{}")
        with pytest.raises(ArtifactError, match="altered"):
            validate(folders, REPO_IDS["base"], KEY, None)
        (folders["base"] / "config.json").unlink()
        with pytest.raises(ArtifactError, match="missing"):
            validate(folders, REPO_IDS["base"], KEY, None)


class TestOpset:
    def test_it_agrees_with_onnx(self, tmp_path):
        for number in (17, 18):
            model = small_graph()
            model.opset_import[0].version = number
            extra = model.opset_import.add()
            extra.domain, extra.version = "com.microsoft", 1
            onnx.save(model, tmp_path / "m.onnx")
            assert opset_of(tmp_path / "m.onnx") == number

    @pytest.mark.parametrize("content", [b"", b"text", b"\x42\xff\xff\xff\xff\x0f", b"\xff" * 64])
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(ArtifactError):
            opset_of(tmp_path / "m.onnx")


class TestPublishing:
    def test_a_release_stands_whole_and_signed(self, api, settings, folders, tmp_path):
        published = publish(api, settings, folders, out=tmp_path / "out")
        found = history(api, settings)
        assert all(titles == ["Release 0.1.0", "initial commit"] for titles, _, _ in found.values())
        assert all(tags == {"v0.1.0": published.commits[role]} for role, (_, tags, _) in found.items())
        # What a device will see, from the Hub alone.
        for name in ("release.json", "release.json.sig"):
            api.hf_hub_download(
                settings.repo_id("student"), name, revision="v0.1.0", local_dir=tmp_path / "seen"
            )
        seen = release.read(tmp_path / "seen", TrustedKeys([KEY.public]))
        assert seen.version == "0.1.0" and seen.compatibility.opset == 18
        for role, record in seen.repositories.items():
            assert record.commit == (None if role == "student" else published.commits[role])
            assert record.files == release.record_files(folders[role])
        assert seen.gates["1"]["passed"] and seen.gates["2"]["passed"]

    def test_the_record_says_where_everything_stands(self, api, settings, folders, tmp_path):
        published = publish(api, settings, folders, out=tmp_path / "out")
        artifact.verify(tmp_path / "out", kind="release")
        record = json.loads((tmp_path / "out" / "record.json").read_text())
        assert record["version"] == "0.1.0" and record["tag"] == "v0.1.0"
        assert record["commits"] == published.commits and record["tags"]["student"] == "v0.1.0"
        assert record["addresses"]["space"] == f"{api.endpoint}/spaces/{settings.repo_id('space')}"
        assert release.read(tmp_path / "out", TrustedKeys([KEY.public])) == published.manifest

    def test_published_again_changes_nothing(self, api, settings, folders, tmp_path, capsys):
        publish(api, settings, folders, out=tmp_path / "out")
        before, stamp = history(api, settings), (tmp_path / "out").stat().st_mtime_ns
        again = publish(api, settings, folders, out=tmp_path / "out")
        assert not again.changed and history(api, settings) == before
        assert (tmp_path / "out").stat().st_mtime_ns == stamp
        assert "nothing was changed" in capsys.readouterr().out

    def test_killed_after_every_single_write_it_still_finishes_once(self, hub, settings, folders):
        """Each run lands one more write and dies before it learns of it."""
        runs = 0
        while True:
            runs += 1
            try:
                publish(OneWrite(endpoint=hub.url, token=hub.token), settings, folders, workers=1)
            except Killed:
                assert runs < 40
                continue
            break
        found = history(HfApi(endpoint=hub.url, token=hub.token), settings)
        assert runs == 1 + 15  # create, commit and tag of five repositories, then a run with nothing to do
        for titles, tags, head in found.values():
            assert titles == ["Release 0.1.0", "initial commit"] and tags == {"v0.1.0": head}

    def test_the_students_tag_comes_last(self, hub, settings, folders):
        api = OneWrite(endpoint=hub.url, token=hub.token, writes=14)
        with pytest.raises(Killed):
            publish(api, settings, folders, workers=1)
        found = history(HfApi(endpoint=hub.url, token=hub.token), settings)
        assert found["student"][1] == {}
        assert all("v0.1.0" in found[role][1] for role in ("dataset", "base", "teacher", "space"))

    def test_only_what_changed_is_committed(self, api, settings, folders):
        first = publish(api, settings, folders)
        (folders["student"] / "README.md").write_text(CARD.format(extra="", title="New words"))
        (folders["dataset"] / "weights.json").unlink()
        rebuild(folders["dataset"], {"new.json": b"{}"})
        second = publish(api, settings, folders, "0.2.0")
        found = history(api, settings)
        assert {role for role in NAMES if first.commits[role] != second.commits[role]} == {
            "student",
            "dataset",
        }
        assert found["base"][1] == {"v0.1.0": first.commits["base"], "v0.2.0": first.commits["base"]}
        names = api.list_repo_files(settings.repo_id("dataset"), repo_type="dataset")
        assert "new.json" in names and "weights.json" not in names

    def test_a_version_with_other_content_is_refused(self, api, settings, folders):
        publish(api, settings, folders)
        before = history(api, settings)
        (folders["space"] / "README.md").write_text(CARD.format(extra="sdk: gradio\n", title="Other"))
        with pytest.raises(VerificationError, match="other content"):
            publish(api, settings, folders)
        assert history(api, settings) == before

    def test_a_version_by_another_key_or_below_the_newest_is_refused(self, api, settings, folders):
        publish(api, settings, folders, "0.2.0")
        before = history(api, settings)
        with pytest.raises(VerificationError, match="another key"):
            publish(api, settings, folders, "0.2.0", key=SigningKey.generate())
        with pytest.raises(VerificationError, match=r"0\.2\.0"):
            publish(api, settings, folders, "0.1.9")
        assert history(api, settings) == before

    def test_a_dry_run_writes_nothing(self, api, settings, folders, capsys):
        assert publish(api, settings, folders, dry_run=True) is None
        shown = capsys.readouterr().out
        assert "+ data/windows/train.parquet" in shown and "nothing was written" in shown
        assert not any(
            api.repo_exists(settings.repo_id(role), repo_type=kind) for role, kind in TYPES.items()
        )

    def test_a_commit_by_somebody_else_in_between_is_no_loss(self, hub, settings, folders):
        class Raced(HfApi):
            def create_commit(self, repo_id, operations, **options):  # type: ignore[override]
                other = HfApi(endpoint=hub.url, token=hub.token)
                other.upload_file(
                    path_or_fileobj=b"theirs",
                    path_in_repo="theirs.txt",
                    repo_id=repo_id,
                    repo_type=options["repo_type"],
                )
                return super().create_commit(repo_id, operations, **options)

        publish(Raced(endpoint=hub.url, token=hub.token), settings, folders, patience=QUICK)
        api = HfApi(endpoint=hub.url, token=hub.token)
        for role, repo_type in TYPES.items():
            names = set(api.list_repo_files(settings.repo_id(role), repo_type=repo_type, revision="v0.1.0"))
            assert {"theirs.txt", "README.md", "manifest.json"} <= names

    def test_an_answer_that_differs_stops_before_any_tag(self, hub, settings, folders, monkeypatch):
        sound = Reader._get
        monkeypatch.setattr(Reader, "_get", lambda *args: sound(*args)[:-1] + b"?")
        with pytest.raises(HubError, match="differs"):
            publish(HfApi(endpoint=hub.url, token=hub.token), settings, folders)
        refs = HfApi(endpoint=hub.url, token=hub.token).list_repo_refs(
            settings.repo_id("dataset"), repo_type="dataset"
        )
        assert refs.tags == []


class TestRefusals:
    def test_a_wrong_token(self, hub, settings, folders):
        with pytest.raises(HubError, match="token") as refused:
            publish(HfApi(endpoint=hub.url, token="hf_wrongwrongwrong"), settings, folders)
        assert "hf_wrong" not in str(refused.value) and refused.value.__cause__ is None

    def test_no_network(self, settings, folders):
        with pytest.raises(HubUnreachableError):
            publish(HfApi(endpoint="http://127.0.0.1:9", token="hf_x"), settings, folders, patience=QUICK)

    def test_the_command(self, hub, folders, tmp_path):
        KEY.write(tmp_path / "key")
        command = [sys.executable, "-m", "hub.release", "--recipe", recipe(tmp_path), "--version", "0.1.0"]
        command += ["--endpoint", hub.url, "--key", tmp_path / "key", "--out", tmp_path / "out", "--yes"]
        command += [part for role, folder in folders.items() for part in (f"--{role}", folder)]

        def run(**environment: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(part) for part in command],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[1],
            )

        refused = run()
        assert refused.returncode == 2 and "HF_TOKEN" in refused.stderr and not (tmp_path / "out").exists()
        done = run(HF_TOKEN=hub.token)
        assert done.returncode == 0, done.stderr
        assert "published and tagged" in done.stdout and hub.token not in done.stdout + done.stderr
        assert (tmp_path / "out" / "release.json").exists()
        assert "nothing was changed" in run(HF_TOKEN=hub.token).stdout

    @pytest.mark.parametrize(
        "change",
        [{"names": {"dataset": "x"}}, {"namespace": ""}, {"unknown": 1}, {"expires_days": 0}],
    )
    def test_recipes_that_cannot_be_used(self, tmp_path, change):
        with pytest.raises(ConfigurationError):
            ReleaseSettings.read(recipe(tmp_path, **change))

    def test_every_refusal_is_typed(self, tmp_path):
        with pytest.raises(LumenError):
            ReleaseSettings.read(tmp_path / "absent.yaml")


class OneWrite(HfApi):
    """A client whose process dies right after the given number of writes, before it hears of the last."""

    def __init__(self, *args, writes: int = 1, **options):
        super().__init__(*args, **options)
        self.left = writes

    def _write(self, name, *args, **options):
        result = getattr(super(), name)(*args, **options)
        self.left -= 1
        if self.left <= 0:
            raise Killed
        return result

    def create_repo(self, *args, **options):
        return self._write("create_repo", *args, **options)

    def create_commit(self, *args, **options):
        return self._write("create_commit", *args, **options)

    def create_tag(self, *args, **options):
        return self._write("create_tag", *args, **options)
