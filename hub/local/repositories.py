"""The repositories on disk: created, moved and deleted each by one rename."""

import contextlib
import json
import secrets
import shutil
import threading
from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path

import pygit2

from hub.local.durable import read_bytes, sync_folder, write_whole
from hub.local.lfs import LfsStore
from hub.local.names import KINDS, Kind, RepoName
from hub.local.refusal import Refusal, repository_not_found

_FACTS = "hub.json"


@dataclass(frozen=True)
class Facts:
    """What is known of a repository beside its git content.

    Attributes:
        private: Visible only to accounts of its namespace.
        created: UTC, ISO 8601.
        sdk: A Space's sdk.
    """

    private: bool
    created: str
    sdk: str | None = None


class StoredRepository:
    """One repository: its name, its facts, its git objects and its large files.

    Attributes:
        key: Tells it from every repository that had or will have its name.
    """

    def __init__(self, name: RepoName, path: Path, facts: Facts, key: Hashable = None) -> None:
        self.name, self.path, self.facts, self.key = name, path, facts, key

    @cached_property
    def lfs(self) -> LfsStore:
        """Its large files."""
        return LfsStore(self.path)

    @property
    def git(self) -> pygit2.Repository:
        """The git repository, opened anew: cheap, and safe in every thread.

        Raises:
            Refusal: RepoNotFound when it has been deleted meanwhile.
        """
        try:
            return pygit2.Repository(str(self.path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)
        except pygit2.GitError:
            raise repository_not_found() from None


class Repositories:
    """All repositories under a root folder. Opening it removes what a killed server left unfinished.

    Args:
        root: The Hub's folder; the caller holds its lock.
    """

    def __init__(self, root: Path) -> None:
        self._repositories = root / "repositories"
        self._unfinished = root / "unfinished"
        self._names = threading.Lock()
        self._gone = 0
        self._writers: dict[RepoName, threading.Lock] = {}
        self._repositories.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir()
        for name in self.names():
            _remove_leftovers(self._repositories / name.folder)

    def names(self, kind: Kind | None = None, namespace: str | None = None) -> Iterator[RepoName]:
        """The names of all repositories, of one kind, or of one namespace."""
        for each in KINDS if kind is None else (kind,):
            for path in sorted((self._repositories / each).glob(f"{namespace or '*'}/*.git")):
                with contextlib.suppress(Refusal):
                    yield RepoName(each, path.parent.name, path.name.removesuffix(".git"))

    def open(self, name: RepoName) -> StoredRepository:
        """One repository.

        Raises:
            Refusal: RepoNotFound.
        """
        path = Path(f"{self._repositories}/{name.folder}")
        key = (name, self._gone)  # before anything is read: what is deleted now gets no later key
        try:
            facts = _facts(read_bytes(f"{path}/{_FACTS}"))
        except (FileNotFoundError, NotADirectoryError):
            raise repository_not_found() from None
        return StoredRepository(name, path, facts, key)

    @contextlib.contextmanager
    def writing(self, name: RepoName) -> Iterator[StoredRepository]:
        """Hold a repository for a change of its references, its facts or its name.

        Raises:
            Refusal: RepoNotFound.
        """
        with self._names:
            lock = self._writers.setdefault(name, threading.Lock())
        with lock:
            yield self.open(name)

    @contextlib.contextmanager
    def creating(self, name: RepoName, private: bool, sdk: str | None) -> Iterator[StoredRepository]:
        """An unfinished repository to fill; it appears under its name when the block ends well.

        Raises:
            Refusal: 409 when the name is taken.
        """
        self._refuse_taken(name)
        path = self._unfinished / secrets.token_hex(16)
        facts = Facts(private, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"), sdk)
        try:
            pygit2.init_repository(str(path), bare=True, initial_head="main")
            (path / "lfs" / "objects").mkdir(parents=True)
            (path / "lfs" / "incoming").mkdir()
            write_whole(path / _FACTS, json.dumps(asdict(facts)).encode())
            yield StoredRepository(name, path, facts)
            self._rename(path, name)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def delete(self, name: RepoName) -> None:
        """Remove a repository: it is gone with one rename, its files follow.

        Raises:
            Refusal: RepoNotFound.
        """
        grave = self._unfinished / secrets.token_hex(16)
        with self.writing(name) as repository:
            with self._names:  # nobody makes one of its name before it is known to be gone
                repository.path.rename(grave)
                self._gone += 1
            sync_folder(repository.path.parent)
        shutil.rmtree(grave, ignore_errors=True)

    def move(self, old: RepoName, new: RepoName) -> None:
        """Give a repository another name.

        Raises:
            Refusal: RepoNotFound, or 409 when the new name is taken.
        """
        with self.writing(old) as repository:
            self._rename(repository.path, new, leaves=1)
            sync_folder(repository.path.parent)

    def change_facts(self, name: RepoName, private: bool) -> None:
        """Make a repository private or public.

        Raises:
            Refusal: RepoNotFound.
        """
        with self.writing(name) as repository:
            facts = replace(repository.facts, private=private)
            write_whole(repository.path / _FACTS, json.dumps(asdict(facts)).encode())

    def _refuse_taken(self, name: RepoName) -> None:
        if (self._repositories / name.folder).exists():
            raise Refusal(409, f"A {name.kind[:-1]} repository called {name.id} already exists")

    def _rename(self, path: Path, name: RepoName, leaves: int = 0) -> None:
        final = self._repositories / name.folder
        with self._names:
            self._refuse_taken(name)
            final.parent.mkdir(parents=True, exist_ok=True)
            path.rename(final)
            self._gone += leaves
        for folder in (final.parent, final.parent.parent, self._repositories):
            sync_folder(folder)


@lru_cache(1024)
def _facts(content: bytes) -> Facts:
    return Facts(**json.loads(content))


def _remove_leftovers(path: Path) -> None:
    """Remove the locks and temporary files of a server that was killed; nobody else writes here."""
    leftovers = [
        *path.glob("*.lock"),
        *path.glob("*.tmp"),
        *path.glob(".*.tmp"),
        *(path / "refs").rglob("*.lock"),
        *(path / "objects" / "pack").glob("tmp_*"),
        *(path / "objects").glob("??/tmp_*"),
        *(path / "lfs" / "incoming").glob("*"),
    ]
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            leftover.unlink()
