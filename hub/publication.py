"""One release from start to record: validate, plan, publish, and write down where everything stands."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi

from eisv_lumen import artifact
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.notices import BRANCH
from eisv_lumen.release import ROLES
from eisv_lumen.signing import SigningKey, TrustedKeys
from eisv_lumen.versions import Version
from hub.contents import folder_files
from hub.notices import NoticeBoard, check_key
from hub.openssf import BUNDLE, ModelSigner
from hub.parallel import Workers
from hub.plan import Planner, RepositoryPlan, plan_release
from hub.publish import ORDER, STATES, Published, Publisher
from hub.remote import Reader
from hub.retry import Asking, Patience
from hub.rollout import change_share
from hub.secrets import Secrets
from hub.settings import ReleaseSettings
from hub.transport import limit_silence
from hub.validation import validate

RECORD = "record.json"
WORKERS = 5
ALL_STATES = ("validated", *STATES, "recorded")
"""States that `at` of `publish_release` is told of, in order."""


def publish_release(
    api: HfApi,
    settings: ReleaseSettings,
    version: Version,
    key: SigningKey,
    token: str | None,
    folders: Mapping[str, Path],
    out: Path | None,
    *,
    more_keys: Sequence[SigningKey] = (),
    trusted: TrustedKeys | None = None,
    models: ModelSigner | None = None,
    rollout: float | None = None,
    dry_run: bool = False,
    agree: Callable[[], bool] | None = None,
    at: Callable[[str], None] = lambda state: None,
    patience: Patience | None = None,
    workers: int = WORKERS,
) -> Published | None:
    """Publish folders as one release and record it in `out`; see the modules `validation`, `plan`, `publish`.

    Args:
        api: Client of the Hub.
        settings: Names and conditions.
        version: The version.
        key: The signing key.
        token: The Hub token.
        folders: Artifact folder per role; without the base where the adapter names somebody else's.
        out: Folder for the record; None writes none.
        more_keys: Keys that sign beside it.
        trusted: Keys that devices were given, where that is not the signing key alone.
        models: Makes OpenSSF bundles.
        rollout: Share of the devices that get a new version; None: all.
        dry_run: Show the difference and write nothing.
        agree: Asked before anything is written, with the difference shown; None: nobody is asked.
        at: Told of each state reached, see `ALL_STATES`.
        patience: How long a Hub that does not answer is asked again.
        workers: How many repositories at a time.

    Returns:
        What stands on the Hub; None after a dry run, or where nobody agreed.
    """
    limit_silence()
    _check_minimum(settings, version)
    repo_ids = {role: settings.repo_id(role) for role in ROLES if role in folders}
    own_base = settings.repo_id("base") if "base" in settings.names else None
    reader = Reader(api, Asking(api.endpoint, _report, patience))
    planner = Planner(reader, version, Secrets((key, *more_keys), token).check)
    board = NoticeBoard(reader, repo_ids["student"], trusted or TrustedKeys([key.public]))

    def announce() -> bool:
        if rollout is None:
            return False
        change = change_share(repo_ids["student"], str(version), rollout, key)
        return board.write(f"Roll {version} out to {rollout:g}", change)[1]

    with Workers(workers) as threads:
        # Read once: what is validated is what is sent, and what changes afterwards is refused.
        read = threads.begin(lambda role: folder_files(folders[role]), repo_ids)
        # The Hub looks up what it has while the folders are read.
        looked_up = threads.begin(lambda role: reader.remote(repo_ids[role], ROLES[role]), repo_ids)
        files = dict(zip(repo_ids, read(), strict=True))
        manifests = validate(folders, own_base, key, token, *more_keys, files=files, workers=threads)
        print(
            f"validated {len(folders)} folders: complete, gates passed, cards present, no secrets", flush=True
        )
        at("validated")
        remotes = dict(zip(repo_ids, looked_up(), strict=True))
        plans = plan_release(planner, repo_ids, files, remotes, threads)
        _check_key(board, plans["student"], key)
        asked = agree if not _stands(plans) else None
        if dry_run or asked:
            _print_plans(plans, version, models is not None, rollout)
        if dry_run:
            print("dry run: nothing was written", flush=True)
            return None
        _check_token(token)
        if asked and not asked():
            return None
        publisher = Publisher(
            planner,
            settings,
            (key, *more_keys),
            threads,
            models=models,
            announce=announce,
            report=_report,
            at=at,
        )
        published = publisher.publish(plans, folders, manifests)
    if out is not None:
        write_record(out, published, api.endpoint, folders)
    at("recorded")
    state = "published and tagged" if published.changed else "stands already, nothing was changed"
    print(f"release {version} at {api.endpoint}: {state}; signed by {key.key_id}", flush=True)
    return published


def write_record(out: Path, published: Published, endpoint: str, folders: Mapping[str, Path]) -> None:
    """Write the release folder: the signed manifest, and where everything stands (`record.json`)."""
    manifest = published.manifest
    order = [role for role in ORDER if role in manifest.repositories]
    repo_ids = {role: manifest.repositories[role].repo_id for role in order}
    record = {
        "version": manifest.version,
        "tag": manifest.tag,
        "endpoint": endpoint,
        "repositories": repo_ids,
        "commits": {role: published.commits[role] for role in order},
        "tags": dict.fromkeys(order, manifest.tag),
        "addresses": {role: _address(endpoint, repo_ids[role], ROLES[role]) for role in order},
    }
    with artifact.build(
        out, kind="release", configuration=record, inputs=folders, metrics_required=False
    ) as work:
        if work is not None:
            (work.folder / STUDENT.release).write_bytes(published.content)
            (work.folder / STUDENT.signature).write_bytes(published.signature)
            artifact.write_json(work.folder / RECORD, record)


def _check_minimum(settings: ReleaseSettings, version: Version) -> None:
    """A device that knew such a release could not even stay with it."""
    if Version.parse(settings.minimum_version) > version:
        raise ConfigurationError(
            found=f"release.minimum_version {settings.minimum_version} for version {version}",
            expected="the version itself, or an older one",
            next="lower release.minimum_version in the recipe, or publish a higher --version",
        )


def _check_token(token: str | None) -> None:
    if token is None:
        raise ConfigurationError(
            found="no Hub token",
            expected="a token that may write, in HF_TOKEN or a file",
            next="set HF_TOKEN or pass --token-file",
        )


def _check_key(board: NoticeBoard, student: RepositoryPlan, key: SigningKey) -> None:
    """A new release must be signed by a key that counts; one that stands needs no signature any more."""
    if not student.tagged:
        rotated = BRANCH in student.remote.heads
        check_key(board.read().trusted if rotated else board.anchor, key, board.repo_id)


def _stands(plans: Mapping[str, RepositoryPlan]) -> bool:
    return all(plan.tagged for plan in plans.values())


def _address(endpoint: str, repo_id: str, repo_type: str) -> str:
    prefix = {"dataset": "datasets/", "space": "spaces/"}.get(repo_type, "")
    return f"{endpoint}/{prefix}{repo_id}"


def _print_plans(
    plans: Mapping[str, RepositoryPlan], version: Version, bundles: bool, rollout: float | None
) -> None:
    for repository in (plans[role] for role in ORDER if role in plans):
        role = repository.role
        if repository.tagged:
            print(f"{role} {repository.repo_id}: {version.tag} stands already at {repository.tagged[:12]}")
            continue
        new = "" if repository.remote.exists else " (new repository)"
        difference = repository.payload_difference
        print(f"{role} {repository.repo_id}{new}: {difference}, then tag {version.tag}")
        for line in (*difference.lines(), *repository.notes):
            print(f"    {line}")
        if bundles and repository.repo_type == "model":
            print(f"    + {BUNDLE} (OpenSSF bundle)")
        if role == "student":
            print(f"    + {STUDENT.release}, {STUDENT.signature} (signed)")
            if rollout is not None:
                print(f"    goes to {rollout:.0%} of all devices")


def _report(line: str) -> None:
    print(f"  {line}", flush=True)
