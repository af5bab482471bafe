"""What the Hub has of a repository: its branches, tags, files and releases. Nothing here writes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from eisv_lumen.artifact import MANIFEST
from eisv_lumen.hub_client import HubNotFoundError
from eisv_lumen.versions import Version
from hub.contents import Content
from hub.retry import Asking

KEPT_FILES = {".gitattributes"}
"""Files that belong to the Hub, not to the release: neither compared nor deleted."""

_TITLE = "Release {}"
_FIRST = "initial commit"
_RELEASE = re.compile(r"Release (\S+)")


@dataclass(frozen=True)
class Remote:
    """A repository as the Hub has it.

    Attributes:
        exists: Whether the repository exists.
        heads: Commit per branch.
        tags: Commit per tag.
    """

    exists: bool
    heads: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str | None:
        """Commit of the main branch; None while there is no commit or no repository."""
        return self.heads.get("main")

    @property
    def versions(self) -> list[Version]:
        """Versions that are tagged, oldest first."""
        return sorted(version for tag in self.tags if (version := Version.of_tag(tag)))


@dataclass(frozen=True)
class LastRelease:
    """What a release last left in a repository.

    Attributes:
        commit: By which it last wrote main, or the Hub's own first one; None: neither.
        version: The highest that is tagged or was begun; None: there is none.
    """

    commit: str | None
    version: Version | None


class Reader:
    """Reads repositories, patiently.

    Args:
        api: Client of the Hub.
        ask: How requests are made.
    """

    def __init__(self, api: HfApi, ask: Asking) -> None:
        self.api, self.ask = api, ask

    def remote(self, repo_id: str, repo_type: str) -> Remote:
        """Branches and tags of a repository, which need not exist."""
        try:
            refs = self.ask(f"read {repo_id}", lambda: self.api.list_repo_refs(repo_id, repo_type=repo_type))
        except HubNotFoundError:
            return Remote(exists=False)
        return Remote(
            True,
            {branch.name: branch.target_commit for branch in refs.branches},
            {tag.name: tag.target_commit for tag in refs.tags},
        )

    def tree(self, repo_id: str, repo_type: str, revision: str | None) -> dict[str, Content]:
        """Every file of a repository at a revision; nothing at revision None."""
        if revision is None:
            return {}
        entries = self.ask(
            f"list the files of {repo_id}",
            lambda: list(
                self.api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=repo_type)
            ),
        )
        return {
            entry.path: Content(entry.lfs.sha256 if entry.lfs else None, None if entry.lfs else entry.blob_id)
            for entry in entries
            if isinstance(entry, RepoFile) and entry.path not in KEPT_FILES
        }

    def newest(self, repo_id: str, repo_type: str) -> tuple[str, dict[str, Content]]:
        """The newest commit of a repository and its files, in one request; meant for a few files."""
        info = self.ask(
            f"read {repo_id}",
            lambda: self.api.repo_info(repo_id, repo_type=repo_type, files_metadata=True),
        )
        files = {
            entry.rfilename: Content(
                entry.lfs.sha256 if entry.lfs else None, None if entry.lfs else entry.blob_id
            )
            for entry in info.siblings or ()
            if entry.rfilename not in KEPT_FILES
        }
        return str(info.sha), files

    def resolve(self, repo_id: str, repo_type: str, tag: str) -> str:
        """The commit that a tag points to."""
        return str(
            self.ask(
                f"resolve {tag} of {repo_id}",
                lambda: self.api.repo_info(repo_id, repo_type=repo_type, revision=tag).sha,
            )
        )

    def file(self, repo_id: str, repo_type: str, commit: str, name: str) -> bytes:
        """The bytes of one file at a commit."""
        what = f"download {name} of {repo_id}"
        return self.ask(what, lambda: self._get(repo_id, repo_type, commit, name))

    def _get(self, repo_id: str, repo_type: str, commit: str, name: str) -> bytes:
        """One request, where `hf_hub_download` makes two; nothing of it is kept."""
        url = hf_hub_url(repo_id, name, repo_type=repo_type, revision=commit, endpoint=self.api.endpoint)
        response = get_session().get(url, headers=build_hf_headers(token=self.api.token))
        hf_raise_for_status(response)
        return bytes(response.content)

    def _manifest(self, repo_id: str, repo_type: str, commit: str) -> Content | None:
        return self.tree(repo_id, repo_type, commit).get(MANIFEST)

    def last_release(self, repo_id: str, repo_type: str, remote: Remote) -> LastRelease:
        """The commit by which a release last wrote main, or the Hub's own first one, or neither.

        A release that was killed before its tags counts too, so commits are told by their titles; where
        somebody has rewritten the history, the newest tag tells.
        """
        newest = remote.versions[-1] if remote.versions else None
        if remote.head is None or remote.head in [remote.tags[version.tag] for version in remote.versions]:
            return LastRelease(remote.head, newest)
        commits = self.ask(
            f"list the commits of {repo_id}",
            lambda: self.api.list_repo_commits(repo_id, repo_type=repo_type),
        )
        for commit, before in zip(commits, [*commits[1:], None], strict=True):
            match = _RELEASE.fullmatch(commit.title)
            if match and (version := Version.of_tag(f"v{match[1]}")):
                # A title alone, which anybody may choose, makes no release.
                began = self._manifest(repo_id, repo_type, commit.commit_id) != (
                    self._manifest(repo_id, repo_type, before.commit_id) if before else None
                )
                known = [found for found in (newest, version if began else None) if found]
                return LastRelease(commit.commit_id, max(known, default=None))
        if newest:
            return LastRelease(remote.tags[newest.tag], newest)
        # What the Hub itself put into a new repository is nobody's work.
        first = commits[-1].commit_id if commits and commits[-1].title == _FIRST else None
        return LastRelease(first, None)


def commit_title(version: Version) -> str:
    """Title of the commits of a release."""
    return _TITLE.format(version)
