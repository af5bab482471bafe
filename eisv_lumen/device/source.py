"""A student's repository on a Hub, as the updater asks for it: patiently, by commit, within limits."""

import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eisv_lumen.device.home import Home
from eisv_lumen.device.settings import Settings
from eisv_lumen.errors import ResourceError, VerificationError
from eisv_lumen.hub_client import Refs, client, read_refs
from eisv_lumen.retry import Patience, Retries

SPARE_BYTES = 16 * 1024 * 1024
"""Space that a download must leave free."""

CHUNK_BYTES = 64 * 1024
"""What is lost at most of a download that breaks off."""

SLACK_BYTES = 1024 * 1024
"""How far a file may outgrow its size before it is cut off; the client writes small files of its own, too."""


class Source:
    """One repository for the time of one pull.

    Args:
        settings: The Hub and the repository.
        token: Hub token for private repositories; sent to that Hub only.
        patience: How long the Hub is waited for in all.
        report: Told of each step in one line.
    """

    def __init__(
        self, settings: Settings, token: str | None, patience: Patience, report: Callable[[str], None]
    ) -> None:
        self.repo_id, self._token = settings.repo_id, token
        self._api = client(settings.hub, token)
        self._retries = Retries(self._api.endpoint, patience, report)

    def refs(self) -> Refs:
        """Tags and branches, in one request."""
        return self._retries.call(
            f"list the releases of {self.repo_id}",
            lambda: read_refs(self._api.endpoint, self._token, self.repo_id),
        )

    def files(self, revision: str) -> tuple[str, dict[str, int]]:
        """The commit that a tag or commit names, and the size of each of its files, in one request.

        Raises:
            VerificationError: What comes back is no commit, or no sizes.
        """
        from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT as SECONDS

        found = self._retries.call(
            f"look up {revision} of {self.repo_id}",
            lambda: self._api.model_info(
                self.repo_id, revision=revision, files_metadata=True, timeout=SECONDS
            ),
        )
        commit = str(found.sha)
        if len(commit) != 40 or set(commit) - set("0123456789abcdef"):
            raise VerificationError(
                found=f"{commit[:60]!r} as a commit",
                expected="40 hexadecimal digits",
                next="check that --hub is the address of a Hub",
            )
        return commit, {file.rfilename: _size(file.rfilename, file.size) for file in found.siblings or []}

    def download(self, commit: str, name: str, folder: Path, *, largest: int, force: bool = False) -> Path:
        """A file as it is at a commit; a part that lies there already is completed.

        Args:
            commit: 40 hex digits.
            name: Path inside the repository.
            folder: Where it goes.
            largest: Most bytes that it may have, whatever the Hub sends.
            force: Fetch it anew, whatever lies there.

        Raises:
            VerificationError: The Hub sends more.
        """
        from huggingface_hub import hf_hub_download

        def ask() -> str:
            with _small_chunks(), _no_larger(largest, name):
                return hf_hub_download(
                    self.repo_id,
                    name,
                    revision=commit,
                    local_dir=folder,
                    endpoint=self._api.endpoint,
                    token=self._token or False,
                    force_download=force,
                )

        def fetch() -> str:
            try:
                return ask()
            except UnboundLocalError:
                # The client stumbles over a note of its own that it was killed over, or the power failed.
                shutil.rmtree(folder / ".cache", ignore_errors=True)
                return ask()

        return Path(self._retries.call(f"download {name} of {self.repo_id}", fetch))


def _size(name: str, size: object) -> int:
    if not isinstance(size, int) or size < 0:
        raise VerificationError(
            found=f"{size!r} as the size of {name[:80]}",
            expected="a number of bytes",
            next="check that --hub is the address of a Hub",
        )
    return size


@contextmanager
def _no_larger(largest: int, name: str) -> Iterator[None]:
    """Let the system stop any file that this process writes meanwhile from growing beyond a size.

    The sizes that a Hub announces, with a file too, are promises; only the writer sees what really comes.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = [largest + SLACK_BYTES, *(other for other in (before, hard) if other != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(limits), hard))
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise VerificationError(
            found=f"{name} of more than {largest} bytes",
            expected="a file no larger than announced",
            next="do not use it; ask its publisher",
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


@contextmanager
def _small_chunks() -> Iterator[None]:
    """Let the client write what arrives in small pieces.

    It keeps whole chunks of 10 MB only, so that nothing of a student of 1.5 MB would be left to resume.
    """
    from huggingface_hub import constants

    usual = constants.DOWNLOAD_CHUNK_SIZE
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = usual


def check_space(home: Home, needed: int) -> None:
    """Look whether so many bytes fit into a home.

    Raises:
        ResourceError: They do not.
    """
    free = shutil.disk_usage(home.slots).free
    if free < needed + SPARE_BYTES:
        raise ResourceError(
            found=f"{free >> 20} MiB free in {home.folder}",
            expected=f"at least {(needed + SPARE_BYTES) >> 20} MiB",
            next="free some space, then run the same command again",
        )
