"""The branch of signed notices in a student's repository: read along its chain of keys, written whole."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from huggingface_hub import CommitOperationAdd

from eisv_lumen.errors import VerificationError
from eisv_lumen.hub_client import HubConflictError, HubNotFoundError, HubUnreachableError
from eisv_lumen.notices import (
    BRANCH,
    KEYS_PURPOSE,
    NOTICES,
    NOTICES_PURPOSE,
    SIGNATURE_SUFFIX,
    KeySet,
    Notices,
    keys_path,
)
from eisv_lumen.signing import SigningKey, TrustedKeys
from hub.remote import Reader
from hub.signatures import signed_by

_KEY_SET = re.compile(r"keys/(\d{4,9})\.json")


@dataclass(frozen=True)
class Board:
    """The branch as it stands, verified.

    Attributes:
        head: Its commit; None where there is no such branch yet.
        tags: Names of the repository's tags.
        notices: The newest notices; empty ones where none were written.
        keys_sequence: Number of the newest key set, 0 where no rotation has happened.
        trusted: The keys that count now.
        key_sets: Every set of the chain from the trusted one on, oldest first.
        named: Every key that any set of the branch names, verified or not.
    """

    head: str | None
    tags: frozenset[str]
    notices: Notices
    keys_sequence: int
    trusted: TrustedKeys
    key_sets: tuple[TrustedKeys, ...]
    named: frozenset[str]

    def next_notices(self, **changes: Any) -> Notices:
        """The notices that follow these, with changes."""
        return replace(self.notices, sequence=self.notices.sequence + 1, created=now(), **changes)


class NoticeBoard:
    """Reads and writes the branch.

    Args:
        reader: Reads the Hub.
        repo_id: The student's repository.
        trusted: Keys to begin with: what devices were given, or one of the later sets.
    """

    def __init__(self, reader: Reader, repo_id: str, trusted: TrustedKeys) -> None:
        self.reader, self.repo_id, self.anchor = reader, repo_id, trusted

    def read(self) -> Board:
        """The branch as it stands.

        Raises:
            HubNotFoundError: The repository does not exist.
            VerificationError: A link of the chain of keys is broken, or the notices are not signed by the
                newest set.
        """
        remote = self.reader.remote(self.repo_id, "model")
        if not remote.exists:
            raise HubNotFoundError(
                found=f"no repository {self.repo_id}",
                expected="the repository of a student that was published",
                next="publish a release first: python -m hub.release",
            )
        head = remote.heads.get(BRANCH)
        tags = frozenset(remote.tags)
        if head is None:
            empty = Notices.empty(self.repo_id)
            return Board(None, tags, empty, 0, self.anchor, (self.anchor,), frozenset(self.anchor.key_ids))
        names = set(self.reader.tree(self.repo_id, "model", head))
        sequence, key_sets, named = self._chain(head, names)
        trusted = key_sets[-1]
        notices = Notices.empty(self.repo_id)
        if NOTICES in names:
            notices = Notices.verify(*self._signed(head, NOTICES), trusted, self.repo_id)
        return Board(head, tags, notices, sequence, trusted, tuple(key_sets), named)

    def write(self, title: str, change: Callable[[Board], Mapping[str, bytes] | None]) -> tuple[Board, bool]:
        """Change the branch in one commit.

        Args:
            title: Title of the commit.
            change: What to write, given what stands; None where that is as it should be. It is asked again
                when somebody else wrote in between.

        Returns:
            What stood when it was last read, and whether this changed it since. After an answer that was
            lost the change stands in what was read already.
        """
        backoff = self.reader.ask.backoff()
        while True:
            board = self.read()
            files = change(board)
            if files is None:
                return board, False
            try:
                self._commit(title, files, board.head or self._create_branch())
                return board, True
            except (HubUnreachableError, HubConflictError) as error:
                # It may have arrived all the same; then the next reading finds nothing to change.
                backoff.wait(error)

    def _commit(self, title: str, files: Mapping[str, bytes], parent: str) -> None:
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        self.reader.ask.once(
            f"commit to {BRANCH} of {self.repo_id}",
            lambda: self.reader.api.create_commit(
                self.repo_id, operations, commit_message=title, revision=BRANCH, parent_commit=parent
            ),
        )

    def _create_branch(self) -> str:
        """Begin the branch at the oldest commit, which holds the least; returns that commit."""
        api = self.reader.api
        commits = self.reader.ask(
            f"list the commits of {self.repo_id}", lambda: api.list_repo_commits(self.repo_id)
        )
        oldest = commits[-1].commit_id
        self.reader.ask(
            f"make the branch {BRANCH} of {self.repo_id}",
            lambda: api.create_branch(self.repo_id, branch=BRANCH, revision=oldest, exist_ok=True),
        )
        return oldest

    def _chain(self, head: str, names: set[str]) -> tuple[int, list[TrustedKeys], frozenset[str]]:
        """Number of the newest key set, the sets from the anchor on, and the keys that any set names."""
        numbers = sorted(int(match[1]) for name in names if (match := _KEY_SET.fullmatch(name)))
        if numbers != list(range(1, len(numbers) + 1)):
            raise VerificationError(
                found=f"key sets {numbers} on {BRANCH} of {self.repo_id}",
                expected="1, 2, 3 and so on, without a gap",
                next="restore the branch; devices stop at the gap",
            )
        documents = {number: self._signed(head, keys_path(number)) for number in numbers}
        start, named = 0, set(self.anchor.key_ids)
        for number, (content, _) in documents.items():
            found = KeySet.from_bytes(content).trusted
            named.update(found.key_ids)
            if found == self.anchor:
                start = number
        sets = [self.anchor]
        for number in numbers[start:]:
            key_set = KeySet.verify(*documents[number], sets[-1], self.repo_id, number)
            sets.append(key_set.trusted)
        return len(numbers), sets, frozenset(named)

    def _signed(self, head: str, name: str) -> tuple[bytes, bytes]:
        content, signature = (
            self.reader.file(self.repo_id, "model", head, path) for path in (name, name + SIGNATURE_SUFFIX)
        )
        return content, signature


def signed_notices(notices: Notices, keys: Sequence[SigningKey]) -> dict[str, bytes]:
    """Notices and their signature as files of the branch."""
    content = notices.to_bytes()
    Notices.from_bytes(content)
    return {NOTICES: content, NOTICES + SIGNATURE_SUFFIX: signed_by(keys, content, NOTICES_PURPOSE)}


def signed_keys(key_set: KeySet, keys: Sequence[SigningKey]) -> dict[str, bytes]:
    """A key set and its signature as files of the branch."""
    content, name = key_set.to_bytes(), keys_path(key_set.sequence)
    KeySet.from_bytes(content)
    return {name: content, name + SIGNATURE_SUFFIX: signed_by(keys, content, KEYS_PURPOSE)}


def check_key(trusted: TrustedKeys, key: SigningKey, repo_id: str) -> None:
    """Refuse to sign with a key that devices do not believe any more.

    Raises:
        VerificationError: The key is not in the newest set.
    """
    if key.key_id not in trusted.key_ids:
        raise VerificationError(
            found=f"signing key {key.key_id}, which devices that follow {repo_id} do not believe",
            expected=f"one of {', '.join(trusted.key_ids)}",
            next="sign with the key that the last rotation brought in (--key)",
        )


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()
