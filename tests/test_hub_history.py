"""The list of releases: what was measured, where it comes from, what was marked, and whom one may believe."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from eisv_lumen import artifact
from eisv_lumen.artifact import MANIFEST
from eisv_lumen.errors import VerificationError
from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted
from hub import history as command
from hub.history import as_text, history
from hub.notices import NoticeBoard, signed_notices
from hub.remote import Reader
from hub.retry import Asking
from hub.rollout import change_share
from tests.publishing import KEY, QUICK, own_names, publish
from tests.release_artifacts import rebuild, recipe, release_folders, small_student


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """Two releases: the second with more data, yanked, and for a tenth of the devices."""
    folder = tmp_path_factory.mktemp("published")
    folders = release_folders(folder / "artifacts", small_student(folder / "student"))
    api = HfApi(endpoint=hub.url, token=hub.token)
    settings = own_names(folders, "history")
    counts = {"train": {"real": 900, "synthetic": 100}, "test": {"real": 40, "synthetic": 10}}
    rebuild(folders["dataset"], {"metrics.json": json.dumps({"counts": counts}).encode()})
    publish(api, settings, folders)
    more = {"train": {"real": 1000, "synthetic": 100}, "test": {"real": 40, "synthetic": 10}}
    growth = {"added": {"train": {"real": 100, "synthetic": 0}, "test": {"real": 0, "synthetic": 0}}}
    rebuild(folders["dataset"], {"metrics.json": json.dumps({"counts": more, "growth": growth}).encode()})
    for role, changes in (
        ("dataset", {"data_delta_sha256": "d" * 64}),
        ("student", {"generation": 1, "parent": "0.1.0"}),
    ):
        manifest = json.loads((folders[role] / MANIFEST).read_text())
        artifact.write_json(folders[role] / MANIFEST, {**manifest, **changes})
    publish(api, settings, folders, "0.2.0")
    board = board_of(api, settings, KEY)
    board.write("share", change_share(board.repo_id, "0.2.0", 0.1, KEY))
    board.write("yank", lambda b: signed_notices(b.next_notices(yanked={"0.2.0": "too loud"}), [KEY]))
    return api, settings


def board_of(api, settings, key):
    reader = Reader(api, Asking(api.endpoint, patience=QUICK))
    return NoticeBoard(reader, settings.repo_id("student"), TrustedKeys([key.public]))


def test_releases_are_listed_newest_first_with_what_is_known(published):
    newest, oldest = history(board_of(*published, KEY))
    assert (newest.version, oldest.version) == ("0.2.0", "0.1.0")
    assert newest.signed_by == oldest.signed_by == KEY.key_id and not newest.revoked
    assert newest.gates["1"]["coherence"] == 0.95 and newest.gates["2"]["coherence"] == 0.9
    assert (newest.generation, newest.parent, oldest.parent) == (1, "0.1.0", None)
    assert newest.data["windows"] == 1150 and newest.data["added"] == 100 and oldest.data["windows"] == 1050
    assert newest.data["delta_sha256"] == "d" * 64
    assert (newest.yanked, newest.rollout) == ("too loud", 0.1) and oldest.yanked is None
    assert newest.created and newest.commit != oldest.commit


def test_a_person_reads_the_same(published):
    text = "\n".join(as_text(history(board_of(*published, KEY))))
    for words in (
        "YANKED: too loud",
        "goes to 10%",
        "grown from 0.1.0",
        "coherence 0.95",
        "1,150 windows, +100 since 0.1.0",
        "delta dddddddddddd of 100 windows",
    ):
        assert words in text
    assert text.index("0.2.0  ") < text.index("0.1.0  ")


def test_the_command_gives_json(published, hub, tmp_path, monkeypatch, capsys):
    _, settings = published
    write_trusted(tmp_path / "trusted.json", TrustedKeys([KEY.public]))
    path = recipe(tmp_path, namespace=settings.namespace)
    options = ["--recipe", path, "--trust", tmp_path / "trusted.json", "--endpoint", hub.url, "--json"]
    monkeypatch.setattr(sys, "argv", ["hub", *map(str, options)])
    command.main()
    assert [entry["version"] for entry in json.loads(capsys.readouterr().out)] == ["0.2.0", "0.1.0"]


def test_without_the_right_key_nothing_is_believed(published):
    with pytest.raises(VerificationError):  # the notices first
        history(board_of(*published, SigningKey.generate()))


def test_a_tag_with_a_forged_manifest_is_shown_as_that(published):
    api, settings = published
    repo = settings.repo_id("student")
    content = Path(api.hf_hub_download(repo, "release.json", revision="v0.2.0")).read_bytes()
    forged = content.replace(b'"0.2.0"', b'"0.9.0"')
    api.create_branch(repo, branch="elsewhere", revision="v0.2.0")
    commit = api.create_commit(
        repo, [CommitOperationAdd("release.json", forged)], commit_message="x", revision="elsewhere"
    )
    api.create_tag(repo, tag="v0.9.0", revision=commit.oid)
    entry = history(board_of(api, settings, KEY))[0]
    assert entry.version == "0.9.0" and entry.problem and entry.gates is None
    assert "NOT BELIEVED" in "\n".join(as_text([entry]))
    api.delete_tag(repo, tag="v0.9.0")
