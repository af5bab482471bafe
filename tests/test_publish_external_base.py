"""A release whose adapter stands on a public base model of somebody else: four repositories, no base."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from eisv_lumen import release
from eisv_lumen.device import slots
from eisv_lumen.device.home import Home
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import ArtifactError, ConfigurationError, VerificationError
from eisv_lumen.release import Release
from eisv_lumen.signing import TrustedKeys
from hub.history import as_text, history
from hub.notices import NoticeBoard
from hub.remote import Reader
from hub.retry import Asking
from hub.settings import ReleaseSettings
from hub.validation import validate
from tests.publishing import KEY, QUICK, TYPES, own_names, publish
from tests.release_artifacts import (
    NAMES,
    REPO_IDS,
    describe,
    rebuild,
    recipe,
    release_folders,
)

PUBLIC, REVISION = "Qwen/Qwen3-4B", "0123456789abcdef0123456789abcdef01234567"
PUBLISHED = {role: kind for role, kind in TYPES.items() if role != "base"}
TRUSTED = TrustedKeys([KEY.public])
ROOT = Path(__file__).parents[1]


@pytest.fixture
def folders(folders):
    """Everything but a base; the adapter names a public one and the commit it was trained on."""
    del folders["base"]
    name_base(folders, PUBLIC, revision=REVISION)
    return folders


@pytest.fixture
def settings(request):
    """Names of this test's own, without one for a base."""
    return ReleaseSettings(
        namespace=f"x{abs(hash(request.node.name)) % 10**9}", names={role: NAMES[role] for role in PUBLISHED}
    )


def name_base(folders: dict[str, Path], repo: object, **more: object) -> None:
    config = json.dumps({"base_model_name_or_path": repo, **more}).encode()
    rebuild(folders["teacher"], {"adapter_config.json": config})


def stands(api: HfApi, settings: ReleaseSettings) -> dict[str, tuple[str, dict[str, str]]]:
    """Head and tags of each repository."""
    found = {}
    for role, kind in PUBLISHED.items():
        refs = api.list_repo_refs(settings.repo_id(role), repo_type=kind)
        found[role] = refs.branches[0].target_commit, {tag.name: tag.target_commit for tag in refs.tags}
    return found


def test_four_repositories_are_published_and_tagged(api, settings, folders, tmp_path):
    published = publish(api, settings, folders, out=tmp_path / "out")
    assert set(published.commits) == set(PUBLISHED) == set(published.manifest.repositories)
    assert stands(api, settings) == {
        role: (commit, {"v0.1.0": commit}) for role, commit in published.commits.items()
    }
    assert release.read(tmp_path / "out", TRUSTED) == published.manifest
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    for listed in ("repositories", "commits", "tags", "addresses"):
        assert set(record[listed]) == set(PUBLISHED)
    assert not api.repo_exists(f"{settings.namespace}/{NAMES['base']}")
    # The adapter on the Hub names its base at the commit that it was trained on, vouched for by the manifest.
    path = api.hf_hub_download(
        settings.repo_id("teacher"), "adapter_config.json", local_dir=tmp_path / "seen"
    )
    config = json.loads(Path(path).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (PUBLIC, REVISION)
    assert "adapter_config.json" in published.manifest.repositories["teacher"].files


def test_a_dry_run_writes_nothing(api, settings, folders, capsys):
    assert publish(api, settings, folders, dry_run=True) is None
    shown = capsys.readouterr().out
    assert "validated 4 folders" in shown and "nothing was written" in shown and "\nbase " not in shown
    assert not any(
        api.repo_exists(settings.repo_id(role), repo_type=kind) for role, kind in PUBLISHED.items()
    )


def test_published_again_changes_nothing(api, settings, folders):
    publish(api, settings, folders)
    before = stands(api, settings)
    assert not publish(api, settings, folders).changed
    assert stands(api, settings) == before


def test_a_device_pulls_it_and_the_history_lists_it(api, settings, folders, tmp_path):
    published = publish(api, settings, folders)
    home = Home(tmp_path / "home")
    home.write("trust.json", TRUSTED.to_dict())
    home.write("device.json", {"repo_id": settings.repo_id("student"), "hub": api.endpoint})
    Updater(home).pull()
    assert slots.open_current(home, TRUSTED).version == "0.1.0"
    reader = Reader(api, Asking(api.endpoint, patience=QUICK))
    (entry,) = history(NoticeBoard(reader, settings.repo_id("student"), TRUSTED))
    assert entry.version == "0.1.0" and entry.problem is None
    assert entry.data["commit"] == published.commits["dataset"]
    assert "gate 1: passed" in "\n".join(as_text([entry]))


def test_a_later_release_may_leave_its_own_base_for_a_public_one(api, tmp_path, student):
    folders = release_folders(tmp_path / "both", student)
    settings = own_names(folders, "leaving")
    first = publish(api, settings, folders)
    del folders["base"]
    with pytest.raises(ArtifactError, match="this release's own"):
        publish(api, settings, folders, "0.2.0")
    name_base(folders, PUBLIC)
    with pytest.raises(VerificationError, match="other content"):
        publish(api, settings, folders)
    second = publish(api, settings, folders, "0.2.0")
    assert second.commits["dataset"] == first.commits["dataset"]
    tags = api.list_repo_refs(settings.repo_id("base")).tags
    assert {tag.name: tag.target_commit for tag in tags} == {"v0.1.0": first.commits["base"]}


@pytest.mark.parametrize(
    "named", ["artifacts/a/base", "/home/someone/base", "./base", "../base", "gpt2", "", None, 3, "a/b\n"]
)
def test_a_base_that_is_no_repository_is_refused(folders, named):
    name_base(folders, named)
    with pytest.raises(ArtifactError, match="no base folder"):
        validate(folders, REPO_IDS["base"], KEY, None)


def test_the_releases_own_base_must_lie_beside_it(folders):
    name_base(folders, REPO_IDS["base"])
    with pytest.raises(ArtifactError, match="this release's own"):
        validate(folders, REPO_IDS["base"], KEY, None)
    # A release that has no name for a base may build on one that was published before.
    assert set(validate(folders, None, KEY, None)) == set(PUBLISHED)


def test_a_base_folder_without_a_name_is_refused_before_anything_is_sent(api, settings, tmp_path, student):
    folders = release_folders(tmp_path / "both", student)
    with pytest.raises(ConfigurationError, match=r"release\.names\.base"):
        publish(api, settings, folders)
    assert not api.repo_exists(settings.repo_id("student"))


def test_no_other_repository_may_be_missing_from_a_manifest(student):
    whole = describe("0.1.0", "someone/student", student)

    def without(role: str) -> bytes:
        kept = {name: record for name, record in whole.repositories.items() if name != role}
        return replace(whole, repositories=kept).to_bytes()

    assert set(Release.from_bytes(without("base")).repositories) == set(PUBLISHED)
    for role in PUBLISHED:
        with pytest.raises(VerificationError, match="malformed"):
            Release.from_bytes(without(role))


def test_the_command_needs_no_base(hub, folders, tmp_path):
    KEY.write(tmp_path / "key")
    names = {role: NAMES[role] for role in PUBLISHED}
    command = [sys.executable, "-m", "hub.release", "--recipe", recipe(tmp_path, names=names)]
    command += [
        "--version",
        "0.1.0",
        "--endpoint",
        hub.url,
        "--key",
        tmp_path / "key",
        "--out",
        tmp_path / "o",
    ]
    command += [part for role, folder in folders.items() for part in (f"--{role}", folder)]
    done = subprocess.run(
        [str(part) for part in (*command, "--dry-run")],
        env={**os.environ, "HF_TOKEN": hub.token},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "dry run" in done.stdout
