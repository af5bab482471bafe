"""A release to publish and a Hub to publish it to, for the tests of everything that publishes."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.publication import publish_release
from hub.publish import Published
from hub.retry import Patience
from hub.settings import ReleaseSettings
from tests.release_artifacts import CARD, NAMES, rebuild

TYPES = {"dataset": "dataset", "base": "model", "teacher": "model", "student": "model", "space": "space"}
QUICK = Patience(first=0.01, most=0.05)
KEY = SigningKey.generate()
LONG_CARD = CARD + "\n## Use\n\nLoad it.\n\n## Licence\n\nApache.\n"


class Killed(BaseException):
    """Stands for a SIGKILL: nothing may catch it."""


def own_names(folders: dict[str, Path], name: str, **options: Any) -> ReleaseSettings:
    """Names on the Hub that no other test uses; the adapter's base is renamed with them."""
    settings = ReleaseSettings(namespace=f"t{abs(hash(name)) % 10**9}", names=NAMES, **options)
    config = json.dumps({"base_model_name_or_path": settings.repo_id("base")}).encode()
    rebuild(folders["teacher"], {"adapter_config.json": config})
    return settings


def publish(
    api: HfApi,
    settings: ReleaseSettings,
    folders: dict[str, Path],
    version: str = "0.1.0",
    key: SigningKey = KEY,
    **options: Any,
) -> Published | None:
    """Publish without waiting long between attempts."""
    options = {"patience": QUICK, "out": None, **options}
    return publish_release(
        api, settings, Version.parse(version), key, "hf_token", folders, options.pop("out"), **options
    )


def history(api: HfApi, settings: ReleaseSettings) -> dict[str, tuple[list[str], dict[str, str], str]]:
    """Titles of the commits, tags and head of every repository."""
    found = {}
    for role, repo_type in TYPES.items():
        commits = api.list_repo_commits(settings.repo_id(role), repo_type=repo_type)
        refs = api.list_repo_refs(settings.repo_id(role), repo_type=repo_type)
        titles = [commit.title for commit in commits]
        found[role] = (titles, {tag.name: tag.target_commit for tag in refs.tags}, commits[0].commit_id)
    return found


def put(api: HfApi, repo_id: str, repo_type: str, files: dict[str, bytes]) -> str:
    """Commit files as a person would."""
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return api.create_commit(repo_id, operations, commit_message="by hand", repo_type=repo_type).oid


def read(api: HfApi, repo_id: str, repo_type: str, name: str, revision: str, folder: Path) -> bytes:
    """A file as the Hub has it at a revision."""
    path = api.hf_hub_download(
        repo_id, name, repo_type=repo_type, revision=revision, local_dir=folder / revision
    )
    return Path(path).read_bytes()
