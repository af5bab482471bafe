"""What publishing a folder would change in its repository: read, compare, merge; nothing is written."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from eisv_lumen.artifact import CARD, FIGURES, MANIFEST
from eisv_lumen.errors import VerificationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.release import ROLES
from eisv_lumen.versions import Version
from hub.card_merge import generated, merge
from hub.contents import Content, Difference, LocalFile, compare
from hub.openssf import BUNDLE
from hub.parallel import Workers
from hub.remote import Reader, Remote

SIGNED_FILES = {STUDENT.release, STUDENT.signature, BUNDLE}
"""What publishing adds to a folder: signatures, and the manifest that names every other repository."""


@dataclass(frozen=True)
class RepositoryPlan:
    """What to do with one repository.

    Attributes:
        role: See `release.ROLES`.
        repo_id: `namespace/name`.
        own: The folder's files.
        files: What the repository is to hold of the release: the folder's files, its card merged.
        remote: What the Hub has now, and `tree` the files of its main branch (or of the version's tag).
        kept: Files that a person added there; they stay and are no part of the release.
        tagged: Commit that carries this version's tag already.
        notes: What a person changed and is kept, in lines.
    """

    role: str
    repo_id: str
    own: Mapping[str, LocalFile]
    files: Mapping[str, LocalFile]
    remote: Remote
    tree: Mapping[str, Content]
    kept: frozenset[str] = frozenset()
    tagged: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def repo_type(self) -> str:
        """Type on the Hub."""
        return ROLES[self.role]

    @property
    def difference(self) -> Difference:
        """What a commit would change."""
        return compare(
            self.files, {name: content for name, content in self.tree.items() if name not in self.kept}
        )

    @property
    def payload_difference(self) -> Difference:
        """The same, whatever the signatures say."""
        found = self.difference
        return Difference(
            *(
                tuple(name for name in names if name not in SIGNED_FILES)
                for names in (found.added, found.changed, found.deleted)
            )
        )

    def with_files(self, files: Mapping[str, LocalFile]) -> "RepositoryPlan":
        """The same with files that only publishing can make."""
        return replace(self, files={**self.files, **files})


class Planner:
    """Compares folders with repositories.

    Args:
        reader: Reads the Hub.
        version: The release to be.
        guard: Refuses text that must not be published: called with a name and the bytes.
    """

    def __init__(self, reader: Reader, version: Version, guard: Callable[[str, bytes], None]) -> None:
        self.reader, self.version, self.guard = reader, version, guard

    def repository(
        self, role: str, repo_id: str, own: Mapping[str, LocalFile], remote: Remote | None = None
    ) -> RepositoryPlan:
        """Compare a folder with its repository.

        Args:
            role: See `release.ROLES`.
            repo_id: `namespace/name`.
            own: The folder's files.
            remote: The repository's branches and tags, where they have been read this moment.

        Raises:
            HubError: The Hub cannot be read.
            VerificationError: The version exists with other content, a newer one exists, or somebody else
                changed files there.
        """
        remote = remote or self.reader.remote(repo_id, ROLES[role])
        if self.version.tag in remote.tags:
            return self._tagged(role, repo_id, own, remote)
        last = self.reader.last_release(repo_id, ROLES[role], remote)
        if last.version and last.version > self.version:
            begun = "" if last.version.tag in remote.tags else ", begun and not tagged,"
            finish = "finish that one by its own command, or " if begun else ""
            raise VerificationError(
                found=f"release {last.version}{begun} of {repo_id}",
                expected=f"nothing newer than {self.version}",
                next=f"{finish}publish under a higher --version; devices never go back to a lower one",
            )
        tree = self.reader.tree(repo_id, ROLES[role], remote.head)
        plan = RepositoryPlan(role, repo_id, own, own, remote, tree)
        if not plan.payload_difference:
            return plan
        return self._merged(plan, last.commit)

    def fresh(self, plan: RepositoryPlan) -> RepositoryPlan:
        """The plan for a repository that was made this moment: what lies in it is the Hub's own."""
        head, tree = self.reader.newest(plan.repo_id, plan.repo_type)
        return replace(plan, remote=Remote(True, {"main": head}), tree=tree)

    def _tagged(
        self, role: str, repo_id: str, own: Mapping[str, LocalFile], remote: Remote
    ) -> RepositoryPlan:
        commit = self.reader.resolve(repo_id, ROLES[role], self.version.tag)
        tree = self.reader.tree(repo_id, ROLES[role], commit)
        plan = RepositoryPlan(role, repo_id, own, own, remote, tree, tagged=commit)
        if plan.payload_difference:
            plan = self._with_persons_part(plan, commit, tree)
        if plan.payload_difference:
            raise VerificationError(
                found=f"{self.version.tag} of {repo_id} with other content "
                f"({plan.payload_difference}: {plan.payload_difference.lines()[0]})",
                expected="a version that is new, or published with exactly these files",
                next="publish under a higher --version; a tag is never moved",
            )
        return plan

    def _merged(self, plan: RepositoryPlan, base: str | None) -> RepositoryPlan:
        before = plan.tree
        if base != plan.remote.head:
            before = self.reader.tree(plan.repo_id, plan.repo_type, base)
        theirs = {name for name, content in plan.tree.items() if name != CARD and before.get(name) != content}
        plan = self._with_persons_part(plan, base, before)
        touched = {*plan.difference.changed, *plan.difference.deleted} & theirs
        if touched:
            names = sorted(touched)
            raise VerificationError(
                found=f"files of {plan.repo_id} that somebody else changed: {', '.join(names[:5])}",
                expected="only the card edited by hand; a release never overwrites somebody's files",
                next="take their change into the folder, or undo it on the Hub, then run the command again",
            )
        return plan

    def _with_persons_part(
        self, plan: RepositoryPlan, base: str | None, before: Mapping[str, Content]
    ) -> RepositoryPlan:
        """The plan with what a person wrote in the card and which files a person added."""
        plan = self._with_card(plan, base, before)
        strange = set(plan.tree) - set(plan.files) - SIGNED_FILES - {CARD}
        if not strange:
            return plan
        released = self._released_files(plan, base, before)
        kept = {name for name in strange if name not in released or _named_by_hand(name, plan)}
        notes = tuple(f"{name}: somebody else's file, left alone" for name in sorted(kept))
        return replace(plan, kept=frozenset(kept), notes=plan.notes + notes)

    def _with_card(
        self, plan: RepositoryPlan, base: str | None, before: Mapping[str, Content]
    ) -> RepositoryPlan:
        card = plan.own.get(CARD)
        if card is None or CARD not in plan.tree or card.same(plan.tree[CARD]):
            return plan
        revision = plan.tagged or plan.remote.head or ""
        theirs = self._text(plan, revision, CARD)
        old: str | None = theirs
        if before.get(CARD) != plan.tree[CARD]:
            old = None if base is None else self._text(plan, base, CARD) if CARD in before else ""
        merged = merge(old, theirs, card.read().decode("utf-8"))
        if not merged.kept and not merged.dropped:
            return plan
        content = merged.text.encode()
        self.guard(f"{CARD} of {plan.repo_id}", content)
        notes = [f"{CARD}: kept as edited on the Hub: {name}" for name in merged.kept]
        notes += [f"{CARD}: the text generated for it has changed: {name}" for name in merged.conflicts]
        notes += [f"{CARD}: not kept, the card would be unreadable: {name}" for name in merged.dropped]
        return replace(plan, files={**plan.own, CARD: LocalFile.of(content)}, notes=plan.notes + tuple(notes))

    def _released_files(
        self, plan: RepositoryPlan, base: str | None, before: Mapping[str, Content]
    ) -> set[str]:
        """Files that the last release put there itself, as its manifest and the generated card say."""
        if base is None or MANIFEST not in before:
            return set()
        try:
            named = set(json.loads(self._text(plan, base, MANIFEST))["files"])
        except (ValueError, KeyError, TypeError):
            return set()
        figures = {name for name in before if name.startswith(FIGURES)}
        shown = generated(self._text(plan, base, CARD)) if figures and CARD in before else ""
        return {MANIFEST} | (named & set(before)) | {name for name in figures if name in shown}

    def _text(self, plan: RepositoryPlan, commit: str, name: str) -> str:
        content = self.reader.file(plan.repo_id, plan.repo_type, commit, name)
        return content.decode("utf-8", "replace")


def _named_by_hand(name: str, plan: RepositoryPlan) -> bool:
    """Whether a picture is shown by what a person wrote in the card."""
    if not name.startswith(FIGURES) or CARD not in plan.files:
        return False
    return name.encode() in plan.files[CARD].read() and name.encode() not in plan.own[CARD].read()


def plan_release(
    planner: Planner,
    repo_ids: Mapping[str, str],
    files: Mapping[str, Mapping[str, LocalFile]],
    remotes: Mapping[str, Remote],
    workers: Workers,
) -> dict[str, RepositoryPlan]:
    """Compare every folder of a release with its repository, whose branches and tags have just been read.

    Raises:
        HubError: The Hub cannot be read.
        VerificationError: As for `Planner.repository`.
    """
    found = workers.each(
        lambda role: planner.repository(role, repo_ids[role], files[role], remotes[role]), repo_ids
    )
    return {plan.role: plan for plan in found}
