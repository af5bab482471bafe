"""Publish artifact folders to the Hub as one signed release.

    python -m hub.release --recipe recipes/demo.yaml --version 0.1.0 --key release-key.pem --endpoint URL \
        --dataset DIR --base DIR --teacher DIR --student DIR --space DIR --out DIR [--dry-run]

The Hub's address comes from --endpoint or HF_ENDPOINT (the public Hub by default), the token from
--token-file or HF_TOKEN, the signing key from --key or EISV_SIGNING_KEY.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars

from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError, exit_with_reason
from eisv_lumen.hub_client import client, read_token
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import ROLES
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from hub.plan import RepositoryPlan, plan
from hub.publish import ORDER, Published, Publisher
from hub.settings import ReleaseSettings
from hub.validation import validate

RECORD = "record.json"


def main() -> None:
    """Validate, commit, read back, tag."""
    arguments = _arguments()
    settings = ReleaseSettings.read(arguments.recipe)
    version = Version.parse(arguments.version)
    key = SigningKey.read(arguments.key)
    token = read_token(arguments.token_file)
    folders = {role: getattr(arguments, role) for role in ROLES}
    api = client(arguments.endpoint, token)
    if not sys.stderr.isatty():
        disable_progress_bars()
    publish_release(api, settings, version, key, token, folders, arguments.out, dry_run=arguments.dry_run)


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
    record = {
        "version": manifest.version,
        "tag": manifest.tag,
        "endpoint": endpoint,
        "repositories": {
            role: {
                "repo_id": manifest.repositories[role].repo_id,
                "repo_type": manifest.repositories[role].repo_type,
                "commit": published.commits[role],
                "tag": manifest.tag,
                "address": _address(endpoint, manifest.repositories[role].repo_id, ROLES[role]),
            }
            for role in ORDER
        },
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.release", description=main.__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"), help="names on the Hub")
    parser.add_argument("--version", required=True, help="semantic version, such as 0.1.0")
    for role in ROLES:
        parser.add_argument(f"--{role}", type=Path, required=True, help=f"the {role} folder")
    parser.add_argument("--endpoint", help="address of the Hub (default: HF_ENDPOINT, or the public Hub)")
    parser.add_argument("--key", type=Path, help="signing key (default: EISV_SIGNING_KEY)")
    parser.add_argument("--token-file", type=Path, help="file with the Hub token (default: HF_TOKEN)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the record of the release")
    parser.add_argument("--dry-run", action="store_true", help="show the difference, write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_reason(main)
