"""Which version a run publishes: the planned one while unfinished, else the one after the newest tag."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from eisv_lumen.artifact import CARD, canonical_json, hash_files, sha256_file, write_json
from eisv_lumen.hub_client import HubNotFoundError, client, hub_errors
from eisv_lumen.versions import Version
from recipes.configuration import Recipe
from recipes.local_hub import Hub


def plan_version(recipe: Recipe, out: Path, hub: Hub) -> str:
    """The version under which the folders as they are now are or will be published.

    The plan is written down before anything is pushed, so that a killed release is finished, not repeated.
    """
    content = {name: [hash_files(out / name), sha256_file(out / name / CARD)] for name in recipe.repositories}
    digest = hashlib.sha256(canonical_json([hub.url if not hub.local else "local", content])).hexdigest()
    path = out / "version.json"
    plan = json.loads(path.read_text()) if path.exists() else {}
    if plan.get("content") == digest:
        return plan["version"]
    version = next_version(_tags(hub, recipe.release.repo_id("student")), recipe.release.first_version)
    write_json(path, {"version": version, "content": digest})
    return version


def next_version(tags: list[str], first: str) -> str:
    """The patch version after the newest release's tag, or `first` when there is none."""
    versions = [version for tag in tags if (version := Version.of_tag(tag))]
    if not versions:
        return first
    newest = max(versions)
    return str(newest if newest.prerelease else replace(newest, patch=newest.patch + 1)).split("-")[0]


def _tags(hub: Hub, repo_id: str) -> list[str]:
    try:
        with hub_errors(f"list the releases of {repo_id}", hub.url):
            refs = client(hub.url, hub.token).list_repo_refs(repo_id)
    except HubNotFoundError:
        return []
    return [tag.name for tag in refs.tags]
