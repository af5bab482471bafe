"""HEAD and GET of a file: `resolve/R/path` gives its content, `raw/R/path` the pointer of a large one."""

import mimetypes
from functools import lru_cache
from urllib.parse import quote

import pygit2
from starlette.responses import Response

from hub.local.calls import Call
from hub.local.files import find_file
from hub.local.names import RepoName
from hub.local.recent import LARGEST, Found, RecentFiles
from hub.local.refusal import Refusal
from hub.local.repositories import StoredRepository
from hub.local.revisions import commit_of, loose_reference
from hub.local.serving import serve

_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"}
_TEXTS = ("application/json", "application/xml", "application/toml")
_TEXT_NAMES = (".md", ".yaml", ".yml", ".toml", ".jsonl", ".py", ".gitattributes")
# What people stored is shown, never run, even if a browser takes it for a page.
_INERT = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


class FileAnswers:
    """Answers requests for files, those asked for lately from memory."""

    def __init__(self) -> None:
        self._recent = RecentFiles()

    def at_once(self, call: Call, name: RepoName, rest: list[str]) -> Response | None:
        """A file's content, where the file is in memory; None: look it up.

        Args:
            call: The request.
            name: The repository.
            rest: Revision and path.

        Raises:
            Refusal: RepoNotFound.
        """
        repository = call.repository(name)
        commit = loose_reference(repository.path, rest[0])
        found = self._recent.get((repository.key, commit, "/".join(rest[1:]))) if commit else None
        return _answer(call, repository, found) if found else None

    def looked_up(self, call: Call, name: RepoName, rest: list[str], raw: bool) -> Response:
        """The same, read from the disk.

        Args:
            call: The request.
            name: The repository.
            rest: Revision and path.
            raw: Whether a large file's pointer is asked for.

        Raises:
            Refusal: RepoNotFound, RevisionNotFound, EntryNotFound.
        """
        repository = call.repository(name)
        repo, path = repository.git, "/".join(rest[1:])
        commit = commit_of(repo, rest[0])
        try:
            file = find_file(repo, commit, path)
        except Refusal as refusal:
            refusal.headers |= {"X-Repo-Commit": str(commit.id)}
            raise
        content = repo.odb.read(pygit2.Oid(hex=file.oid))[1] if raw or not file.pointer else None
        found = Found(str(commit.id), file, content)
        if not raw and (content is None or len(content) <= LARGEST):
            self._recent.put((repository.key, found.commit, path), found)
        return _answer(call, repository, found)


def _answer(call: Call, repository: StoredRepository, found: Found) -> Response:
    file = found.file
    headers = {"X-Repo-Commit": found.commit, **_INERT, **_described(file.path)}
    if found.content is not None:
        return serve(call.request, found.content, file.oid, headers)
    headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    path = repository.lfs.path(file.etag)
    if repository.lfs.size(file.etag) != file.size:
        raise OSError(f"the object of {file.path} is missing or damaged")
    return serve(call.request, path, file.etag, headers)


@lru_cache(1024)
def _described(path: str) -> dict[str, str]:
    """Headers that follow from a file's name."""
    guessed = mimetypes.guess_type(path)[0] or ""
    is_text = guessed.startswith("text/") or guessed in _TEXTS or path.endswith(_TEXT_NAMES)
    kind = "text/plain; charset=utf-8" if is_text else "application/octet-stream"
    return {
        "Content-Type": guessed if guessed in _IMAGES else kind,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}",
    }
