"""Fetching a release: the signed manifest first, and nothing that it does not vouch for."""

import shutil
from collections.abc import Callable
from pathlib import Path

from eisv_lumen import release
from eisv_lumen.device import slots
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import Knowledge
from eisv_lumen.device.source import Source, check_space
from eisv_lumen.errors import VerificationError
from eisv_lumen.release import Release
from eisv_lumen.versions import Version


class Download:
    """One release on its way into a folder.

    A file that was damaged on the way heals by fetching it again; a damaged repository does not.

    Args:
        home: The device's home.
        source: The repository.
        commit: The release's commit.
        folder: Where the files go; what was fetched before a kill lies there already.
        at: Told of `manifest`, `downloaded` and `verified`.
    """

    def __init__(
        self, home: Home, source: Source, commit: str, folder: Path, at: Callable[[str], None]
    ) -> None:
        self.home, self.source, self.commit, self.folder, self.at = home, source, commit, folder, at

    def manifest(self, sizes: dict[str, int], version: Version) -> Release:
        """Fetch the manifest and decide whether the release may be installed here.

        Nothing is believed yet, so the sizes are looked at before anything is fetched.

        Args:
            sizes: Size of each file of the repository in bytes.
            version: What the tag promises.

        Raises:
            VerificationError: Not signed by a trusted key, malformed, another release than the tag promises,
                expired, or not for this device.
            HubError: The Hub does not deliver it.
        """
        for name in slots.SIGNED:
            size = sizes.get(name)
            if size is None or size > release.MAX_MANIFEST_BYTES:
                raise VerificationError(
                    found=f"{name} is missing" if size is None else f"{name} of {size} bytes",
                    expected="a signed release manifest",
                    next="pull from a repository that python -m hub.release has published",
                )
            self._fetch(name, release.MAX_MANIFEST_BYTES)
        trusted = self.home.trusted()
        try:
            manifest = release.read(self.folder, trusted)
        except VerificationError:
            for name in slots.SIGNED:
                self._fetch(name, release.MAX_MANIFEST_BYTES, force=True)
            manifest = release.read(self.folder, trusted)
        self._check(manifest, version)
        self.at("manifest")
        return manifest

    def files(self, manifest: Release) -> None:
        """Fetch and check what a device needs of a release.

        Raises:
            VerificationError: A file is not what the manifest says.
            ResourceError: There is no space for it.
            HubError: The Hub does not deliver it.
        """
        files = slots.needed_files(manifest)
        check_space(self.home, sum(entry["size"] for entry in files.values()))
        for name, entry in files.items():
            try:
                release.check_file(self._fetch(name, entry["size"]), name, entry)
            except VerificationError:
                release.check_file(self._fetch(name, entry["size"], force=True), name, entry)
        self.at("downloaded")
        shutil.rmtree(self.folder / ".cache", ignore_errors=True)
        for path in self.folder.rglob("tmp_*"):  # the client's own, left where it was killed in between
            path.unlink()
        slots.verify_slot(self.folder, self.home.trusted())
        self.at("verified")

    def _fetch(self, name: str, largest: int, force: bool = False) -> Path:
        return self.source.download(self.commit, name, self.folder, largest=largest, force=force)

    def _check(self, manifest: Release, version: Version) -> None:
        wrong, repo_id = None, self.source.repo_id
        if manifest.version != str(version):
            wrong = f"a manifest of {manifest.version} under the tag {version.tag}", f"one of {version}"
        elif manifest.student.repo_id != repo_id:
            wrong = f"a manifest of {manifest.student.repo_id} in {repo_id}", f"one of {repo_id}"
        if wrong:
            raise VerificationError(
                found=wrong[0], expected=wrong[1], next="do not use it; ask the publisher"
            )
        manifest.check_time(newest_known=Knowledge.read(self.home).newest_time)
        manifest.compatibility.check()
