"""Following a repository's notices: believe each change only when it is signed and newer, keep the rest.

What a device knows of the notices never goes back: a document that is older, unsigned, of another repository
or out of reach changes nothing, is reported, and keeps new releases out until it can be checked, because it
may hide that one of them was yanked. A branch that vanished is out of reach, too.

What a device cannot notice is a Hub that goes on showing the branch as it once was. That hides later yanks
and key sets; only the date on which a release expires bounds for how long.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge
from eisv_lumen.device.source import Source
from eisv_lumen.errors import HubError, VerificationError
from eisv_lumen.notices import BRANCH, MAX_BYTES, NOTICES, SIGNATURE_SUFFIX, KeySet, Notices, keys_path
from eisv_lumen.signing import TrustedKeys

_FOLDER = ".notices"
T = TypeVar("T")
MAX_KEY_SETS = 500
"""Key sets followed at once."""


@dataclass(frozen=True)
class Followed:
    """What following came to.

    Attributes:
        problem: Why not everything could be believed, in one line; None where all is well.
        checked: Whether everything on the branch was checked; where not, no new release is installed.
    """

    problem: str | None = None
    checked: bool = True


def follow(home: Home, source: Source, commit: str | None, report: Callable[[str], None]) -> Followed:
    """Take up what is new on the notices branch.

    Args:
        home: The device's home; `state.json` and `trust.json` are changed there.
        source: The repository.
        commit: Where the branch points to; None: there is no such branch.
        report: Told of each step in one line.
    """
    folder = home.slots / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    known = Knowledge.read(home)
    if commit is None:
        if known.notices.sequence or home.keys_sequence(source.repo_id):
            problem = f"the notices of {source.repo_id} have vanished; what was known still holds"
            return Followed(problem, checked=False)
        return Followed()
    if commit == known.notices_commit:
        return Followed()
    try:
        return _Branch(home, source, commit, folder, report).follow(known)
    except (HubError, VerificationError) as error:
        return Followed(f"the notices of {source.repo_id} cannot be checked: {error.found}", checked=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Branch:
    """The notices branch at one commit."""

    def __init__(
        self, home: Home, source: Source, commit: str, folder: Path, report: Callable[[str], None]
    ) -> None:
        self.home, self.source, self.folder, self.report = home, source, folder, report
        self.commit, self.sizes = source.files(commit)
        if self.commit != commit:
            raise VerificationError(found=self.commit, expected=commit, next="pull again")

    def follow(self, known: Knowledge) -> Followed:
        broken = self._follow_keys()
        try:
            notices = self._notices(known.notices)
        except VerificationError as error:
            problem = "; ".join(filter(None, (broken, f"{NOTICES} is not believed: {error.found}")))
            return Followed(problem, checked=False)
        # The commit is remembered last, and only when nothing is left to check: a kill only repeats the work.
        done = {"notices_commit": None if broken else self.commit}
        self.home.update(STATE, **({"notices": asdict(notices)} if notices.sequence else {}), **done)
        return Followed(broken, checked=broken is None)

    def _notices(self, known: Notices) -> Notices:
        repo_id, trusted = self.source.repo_id, self.home.trusted()
        if NOTICES not in self.sizes:
            if known.sequence:
                raise VerificationError(found=f"no {NOTICES}", expected="it", next="ask the publisher")
            return known
        found = self._believed(
            NOTICES, lambda content, signature: Notices.verify(content, signature, trusted, repo_id)
        )
        if found.sequence < known.sequence or (found.sequence == known.sequence and found != known):
            raise VerificationError(
                found=f"notices {found.sequence}, though {known.sequence} were known here",
                expected="newer ones",
                next="ask the publisher",
            )
        if found.sequence > known.sequence:
            self.report(f"notices {found.sequence}: {len(found.yanked)} yanked")
        return found

    def _follow_keys(self) -> str | None:
        """Go along the chain of key sets as far as it holds; returns where it breaks.

        A person may have given the keys of a later set: then nothing before it can be checked, and the chain
        is joined where a set names exactly these keys.
        """
        repo_id, trusted = self.source.repo_id, self.home.trusted()
        start = self.home.keys_sequence(repo_id)
        broken = None
        for number in range(start + 1, start + 1 + MAX_KEY_SETS):
            if keys_path(number) not in self.sizes:
                break
            if broken is None:
                try:
                    trusted = self._key_set(number, trusted).trusted
                    self.home.trust_key_set(trusted, number, repo_id)
                    self.report(f"trusts key set {number}: {', '.join(trusted.key_ids)}")
                    start = number
                    continue
                except VerificationError as error:
                    broken = f"key set {number} is not believed: {error.found}"
            if start:
                break
            if self._named(number) == trusted.key_ids:
                broken = None
        return broken

    def _key_set(self, number: int, before: TrustedKeys) -> KeySet:
        repo_id = self.source.repo_id
        return self._believed(
            keys_path(number),
            lambda content, signature: KeySet.verify(content, signature, before, repo_id, number),
        )

    def _named(self, number: int) -> tuple[str, ...]:
        """The keys that a set names, whoever signed it."""
        try:
            named = KeySet.from_bytes(self._content(keys_path(number)))
        except VerificationError:
            return ()
        return named.trusted.key_ids if named.sequence == number else ()

    def _believed(self, name: str, verify: Callable[[bytes, bytes], T]) -> T:
        """A document and its signature; what was damaged on the way heals by fetching it again."""
        try:
            return verify(*self._pair(name))
        except VerificationError:
            return verify(*self._pair(name, force=True))

    def _pair(self, name: str, force: bool = False) -> tuple[bytes, bytes]:
        return self._content(name, force), self._content(name + SIGNATURE_SUFFIX, force)

    def _content(self, path: str, force: bool = False) -> bytes:
        size = self.sizes.get(path)
        if size is None or size > MAX_BYTES:
            raise VerificationError(
                found=f"{path} is missing" if size is None else f"{path} of {size} bytes",
                expected=f"a signed document on the branch {BRANCH}",
                next="ask the publisher",
            )
        fetched = self.source.download(self.commit, path, self.folder, largest=MAX_BYTES, force=force)
        return fetched.read_bytes()
