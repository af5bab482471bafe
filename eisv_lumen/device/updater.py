"""The updater: find the newest release, fetch it by commit, believe nothing, switch in one step.

Whatever goes wrong, the release that spoke before goes on speaking. Nothing from a repository is executed;
only JSON and ONNX are read, and those after their signature and hashes have been checked.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eisv_lumen import release
from eisv_lumen.device import slots
from eisv_lumen.device.home import Home, Settings
from eisv_lumen.device.selftest import SelfTest, run_selftest
from eisv_lumen.errors import HubError, LumenError, ResourceError, VerificationError
from eisv_lumen.hub_client import HubUnreachableError, client, hub_errors
from eisv_lumen.release import Release
from eisv_lumen.signing import TrustedKeys
from eisv_lumen.versions import Version

if TYPE_CHECKING:
    from huggingface_hub import HfApi

STATE = "state.json"
_SPARE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """What a pull came to.

    Attributes:
        action: `installed`, `unchanged`, or `offline`.
        version: The release that speaks now.
        previous: The one that spoke before, where it was replaced.
        note: One line for people.
        selftest: What the new student's self-test measured.
    """

    action: str
    version: str
    note: str
    previous: str | None = None
    selftest: SelfTest | None = None


class Updater:
    """Pulls releases into a home folder.

    Args:
        home: The device's home folder.
        token: Hub token for private repositories; sent to the configured Hub only.
        report: Told of each step in one line.
    """

    def __init__(
        self, home: Home, token: str | None = None, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self.home, self.token, self.report = home, token, report

    def pull(self, *, retry: bool = False) -> Outcome:
        """Install the newest release that is allowed here, if it is newer than the one that speaks.

        Args:
            retry: Forget which releases were refused or rolled back.

        Raises:
            HubError: The Hub refuses; or it cannot be reached and nothing is installed yet.
            VerificationError: The newest release is not what it should be; the old one goes on.
            ResourceError: No space, or another updater is at work.
        """
        with self.home.updating():
            settings, trusted = self.home.settings(), self.home.trusted()
            if retry:
                self._remember(refused={})
            running = self._running(trusted)
            try:
                outcome = self._pull(settings, trusted, running)
            except HubUnreachableError as error:
                self._remember_result(f"offline: {error.found}")
                if running is None:
                    raise
                note = f"offline ({error.found}): goes on with {running}"
                return Outcome("offline", running, note)
            except LumenError as error:
                self._remember_result(f"{type(error).__name__}: {error.found}")
                raise
            self._remember_result(outcome.note)
            return outcome

    def rollback(self) -> Outcome:
        """Go back to the release in the other slot; the one that is left is not installed again.

        Raises:
            VerificationError: There is none, it is damaged, or a newer release forbids it.
        """
        with self.home.updating():
            slot = slots.previous(self.home, self.home.trusted())
            state = self.home.read(STATE)
            minimum = state.get("minimum_version", "0.0.0")
            if Version.parse(slot.version) < Version.parse(minimum):
                raise VerificationError(
                    found=f"{slot.version} in the other slot",
                    expected=f"at least {minimum}, as a later release asks",
                    next="eisv-lumen pull",
                )
            left = self.home.read(slots.CURRENT).get("version")
            if left is not None and left != slot.version:
                self._remember(refused={**state.get("refused", {}), left: "rolled back by a person"})
            slots.switch(self.home, slot.name, slot.version)
            note = f"back to {slot.version}; {left} will not be installed again (pull --retry forgets that)"
            self._remember_result(note)
            return Outcome("installed", slot.version, note, previous=left)

    def _running(self, trusted: TrustedKeys) -> str | None:
        """Version that speaks now; a damaged slot counts as none, so that it is replaced."""
        try:
            return slots.open_current(self.home, trusted).version
        except LumenError:
            return None

    def _pull(self, settings: Settings, trusted: TrustedKeys, running: str | None) -> Outcome:
        api = client(settings.hub, self.token)
        self._forget_other_repository(settings)
        newest = self._newest(api, settings)
        if running is not None and newest <= Version.parse(running):
            return Outcome("unchanged", running, f"{running} is the newest release allowed here")
        with hub_errors(f"resolve {newest.tag} of {settings.repo_id}", api.endpoint):
            commit = str(api.model_info(settings.repo_id, revision=newest.tag).sha)
        _check_commit(commit)
        self.report(f"{settings.repo_id} {newest.tag} is {commit}")
        incoming = slots.incoming_folder(self.home, commit)
        manifest = self._fetch(api, settings.repo_id, commit, newest, trusted, incoming)
        measured = self._selftest(incoming, manifest)
        name = slots.install(self.home, incoming)
        state = self.home.read(STATE)
        floor = max(
            Version.parse(state.get("minimum_version", "0.0.0")), Version.parse(manifest.minimum_version)
        )
        # The highest version is remembered before the switch: a kill between the two only repeats the pull.
        self._remember(highest_version=manifest.version, minimum_version=str(floor))
        slots.switch(self.home, name, manifest.version)
        note = f"installed {manifest.version}" + (f" after {running}" if running else "")
        return Outcome("installed", manifest.version, note, running, measured)

    def _newest(self, api: "HfApi", settings: Settings) -> Version:
        with hub_errors(f"list the releases of {settings.repo_id}", api.endpoint):
            refs = api.list_repo_refs(settings.repo_id)
        state = self.home.read(STATE)
        refused = state.get("refused", {})
        versions = [version for tag in refs.tags if (version := Version.of_tag(tag.name))]
        allowed = [v for v in versions if v.on(settings.channel) and str(v) not in refused]
        if not allowed:
            left_out = f", {', '.join(refused)} refused" if refused else ""
            raise HubError(
                found=f"no {settings.channel} release among {len(versions)} of {settings.repo_id}{left_out}",
                expected="a tag such as v0.1.0",
                next="check --repo and --channel; pull --retry tries refused releases again",
            )
        return max(allowed)

    def _fetch(
        self,
        api: "HfApi",
        repo_id: str,
        commit: str,
        version: Version,
        trusted: TrustedKeys,
        incoming: Path,
    ) -> Release:
        """Download a release's files and check each; nothing else before the manifest is believed."""
        self._check_sizes(api, repo_id, commit)
        for name in slots.SIGNED:
            self._download(api, repo_id, commit, name, incoming)
        manifest = release.read(incoming, trusted)
        self._check_manifest(manifest, version)
        files = slots.needed_files(manifest)
        self._check_space(sum(entry["size"] for entry in files.values()))
        for name, entry in files.items():
            path = self._download(api, repo_id, commit, name, incoming)
            try:
                release.check_file(path, name, entry)
            except VerificationError:
                # A damaged download heals by fetching again; a damaged repository does not.
                path.unlink()
                path = self._download(api, repo_id, commit, name, incoming, force=True)
                self._check_or_remove(path, name, entry)
        self.report(f"downloaded {len(files)} files, signature and every hash fit")
        shutil.rmtree(incoming / ".cache", ignore_errors=True)
        slots.verify_slot(incoming, trusted)
        return manifest

    def _check_manifest(self, manifest: Release, version: Version) -> None:
        if manifest.version != str(version):
            raise VerificationError(
                found=f"a manifest of {manifest.version} under the tag {version.tag}",
                expected=f"a manifest of {version}",
                next="do not use it; ask the publisher",
            )
        highest = self.home.read(STATE).get("highest_version", "0.0.0")
        known_floor = self.home.read(STATE).get("minimum_version", "0.0.0")
        if version < Version.parse(known_floor) or (
            version < Version.parse(highest) and str(highest) not in self.home.read(STATE).get("refused", {})
        ):
            raise VerificationError(
                found=f"{version}, though {highest} was installed here before",
                expected="a version that is not older",
                next="wait for a newer release, or go back with: eisv-lumen rollback",
            )
        manifest.check_time()
        manifest.compatibility.check()

    def _check_sizes(self, api: "HfApi", repo_id: str, commit: str) -> None:
        """The manifest is downloaded before anything is believed, so its size is looked at first."""
        with hub_errors(f"look at the release manifest of {repo_id}", api.endpoint):
            infos = api.get_paths_info(repo_id, list(slots.SIGNED), revision=commit)
        sizes: dict[str, Any] = {info.path: getattr(info, "size", None) for info in infos}
        for name in slots.SIGNED:
            size = sizes.get(name)
            if size is None or size > release.MAX_MANIFEST_BYTES:
                raise VerificationError(
                    found=f"{name} is missing" if size is None else f"{name} of {size} bytes",
                    expected="a signed release manifest",
                    next="pull from a repository that python -m hub.release has published",
                )

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.home.slots).free
        if free < needed + _SPARE_BYTES:
            raise ResourceError(
                found=f"{free >> 20} MiB free in {self.home.folder}",
                expected=f"at least {(needed + _SPARE_BYTES) >> 20} MiB",
                next="free some space, then run the same command again",
            )

    def _download(
        self, api: "HfApi", repo_id: str, commit: str, name: str, folder: Path, force: bool = False
    ) -> Path:
        from huggingface_hub import hf_hub_download

        with hub_errors(f"download {name} of {repo_id}", api.endpoint):
            path = hf_hub_download(
                repo_id,
                name,
                revision=commit,
                local_dir=folder,
                endpoint=api.endpoint,
                token=self.token or False,
                force_download=force,
            )
        return Path(path)

    def _check_or_remove(self, path: Path, name: str, entry: dict[str, Any]) -> None:
        try:
            release.check_file(path, name, entry)
        except VerificationError:
            path.unlink()
            raise

    def _selftest(self, incoming: Path, manifest: Release) -> SelfTest:
        try:
            measured = run_selftest(incoming)
        except VerificationError as error:
            refused = self.home.read(STATE).get("refused", {})
            self._remember(refused={**refused, manifest.version: error.found})
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        self.report(
            f"self-test: {measured.windows} golden windows, largest difference {measured.difference:.4f}, "
            f"{measured.latency_ms:.1f} ms each, {measured.peak_rss_mb or 0:.0f} MB"
        )
        return measured

    def _forget_other_repository(self, settings: Settings) -> None:
        """What was remembered of another repository's versions says nothing about this one's."""
        state = self.home.read(STATE)
        if state.get("repo_id") not in (None, settings.repo_id):
            state = {}
        if state.get("repo_id") != settings.repo_id:
            self.home.write(STATE, {**state, "repo_id": settings.repo_id})

    def _remember(self, **values: object) -> None:
        self.home.write(STATE, {**self.home.read(STATE), **values})

    def _remember_result(self, result: str) -> None:
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        self._remember(last_pull={"time": now, "result": result.splitlines()[0]})


def _check_commit(commit: str) -> None:
    if len(commit) != 40 or set(commit) - set("0123456789abcdef"):
        raise VerificationError(
            found=f"{commit[:60]!r} as a commit",
            expected="40 hexadecimal digits",
            next="check that --hub is the address of a Hub",
        )


def status(home: Home) -> dict[str, Any]:
    """What the device has and knows, as plain JSON; damage is reported, not raised."""
    described: dict[str, Any] = {"home": os.fspath(home.folder)}
    for name, read in (
        ("settings", lambda: vars(home.settings())),
        ("trusted_keys", lambda: list(home.trusted().key_ids)),
        ("current", lambda: home.read(slots.CURRENT) or None),
        ("memory", lambda: home.read(STATE)),
    ):
        try:
            described[name] = read()
        except LumenError as error:
            described[name] = {"problem": error.found}
    described["slots"] = {name: _slot_status(home, name) for name in slots.NAMES}
    return described


def _slot_status(home: Home, name: str) -> dict[str, Any]:
    if not (home.slots / name).exists():
        return {"state": "empty"}
    try:
        slot = slots.open_slot(home, name, home.trusted())
    except LumenError as error:
        return {"state": "damaged", "problem": error.found}
    manifest = slot.manifest
    return {
        "state": "verified",
        "version": slot.version,
        "expires": manifest.expires,
        "repositories": {
            role: {"repo_id": record.repo_id, "commit": record.commit}
            for role, record in manifest.repositories.items()
        },
    }
