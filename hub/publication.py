"""One release from start to record: validate, plan, publish, and write down where everything stands."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi

from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import ROLES
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.plan import RepositoryPlan, plan
from hub.publish import ORDER, Published, Publisher
from hub.settings import ReleaseSettings
from hub.validation import validate

RECORD = "record.json"


def publish_release(
    api: HfApi,
    settings: ReleaseSettings,
    version: Version,
    key: SigningKey,
    token: str | None,
    folders: Mapping[str, Path],
    out: Path | None,
    *,
    dry_run: bool = False,
) -> Published | None:
    """Publish folders as one release and record it in `out`; see the modules `validation`, `plan`, `publish`.

    Returns:
        What stands on the Hub; None after a dry run.
    """
    manifests = validate(folders, settings.repo_id("base"), key, token)
    print(f"validated {len(folders)} folders: complete, gates passed, cards present, no secrets", flush=True)
    plans = plan(api, {role: settings.repo_id(role) for role in ROLES}, folders, version)
    if dry_run:
        _print_plans(plans, version)
        return None
    if token is None:
        raise ConfigurationError(
            found="no Hub token",
            expected="a token that may write, in HF_TOKEN or a file",
            next="set HF_TOKEN or pass --token-file",
        )
    published = Publisher(api, settings, version, key, _report).publish(plans, manifests)
    if out is not None:
        write_record(out, published, api.endpoint, folders)
    state = "published and tagged" if published.changed else "stands already, nothing was changed"
    print(f"release {version} at {api.endpoint}: {state}; signed by {key.key_id}", flush=True)
    return published


def write_record(out: Path, published: Published, endpoint: str, folders: Mapping[str, Path]) -> None:
    """Write the release folder: the signed manifest, and where everything stands (`record.json`)."""
    manifest = published.manifest
    repo_ids = {role: manifest.repositories[role].repo_id for role in ORDER}
    record = {
        "version": manifest.version,
        "tag": manifest.tag,
        "endpoint": endpoint,
        "repositories": repo_ids,
        "commits": {role: published.commits[role] for role in ORDER},
        "tags": dict.fromkeys(ORDER, manifest.tag),
        "addresses": {role: _address(endpoint, repo_ids[role], ROLES[role]) for role in ORDER},
    }
    with artifact.build(
        out, kind="release", configuration=record, inputs=folders, metrics_required=False
    ) as work:
        if work is not None:
            (work.folder / STUDENT.release).write_bytes(published.content)
            (work.folder / STUDENT.signature).write_bytes(published.signature)
            artifact.write_json(work.folder / RECORD, record)


def _address(endpoint: str, repo_id: str, repo_type: str) -> str:
    prefix = {"dataset": "datasets/", "space": "spaces/"}.get(repo_type, "")
    return f"{endpoint}/{prefix}{repo_id}"


def _print_plans(plans: Mapping[str, RepositoryPlan], version: Version) -> None:
    for role in ORDER:
        repository = plans[role]
        if repository.tagged:
            print(f"{role} {repository.repo_id}: {version.tag} stands already at {repository.tagged[:12]}")
            continue
        new = "" if repository.remote.exists else " (new repository)"
        print(f"{role} {repository.repo_id}{new}: {repository.difference}, then tag {version.tag}")
        for line in repository.difference.lines():
            print(f"    {line}")
    if not plans["student"].tagged:
        print(f"    + {STUDENT.release}, {STUDENT.signature} (student, signed)")
    print("dry run: nothing was written", flush=True)


def _report(line: str) -> None:
    print(f"  {line}", flush=True)
