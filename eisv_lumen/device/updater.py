"""The updater: find the newest release, fetch it by commit, believe nothing, switch in one step.

Whatever goes wrong, the release that spoke before goes on speaking. Nothing from a repository is executed;
only JSON and ONNX are read, and those after their signature and hashes have been checked.
"""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from eisv_lumen.device import attempts, slots
from eisv_lumen.device.choice import Choice, choose
from eisv_lumen.device.current import Current
from eisv_lumen.device.download import Download
from eisv_lumen.device.follow import follow
from eisv_lumen.device.home import Home
from eisv_lumen.device.knowledge import STATE, Knowledge, refuse
from eisv_lumen.device.probation import leave_unwanted
from eisv_lumen.device.runtime import check_onnxruntime, check_word_size
from eisv_lumen.device.selftest import SelfTest, run_selftest
from eisv_lumen.device.settings import Settings
from eisv_lumen.device.source import Source
from eisv_lumen.device.status import status as status
from eisv_lumen.errors import PLACE_UNUSABLE, LumenError, ResourceError, VerificationError
from eisv_lumen.hub_client import HubUnreachableError
from eisv_lumen.notices import BRANCH
from eisv_lumen.release import Release
from eisv_lumen.retry import Patience
from eisv_lumen.versions import Version

STATES = (
    "locked",
    "listed",
    "noticed",
    "left",
    "resolved",
    "manifest",
    "downloaded",
    "verified",
    "testing",
    "tested",
    "installed",
    "remembered",
    "switched",
    "finished",
)
"""Where a pull may be killed, in order; each is announced when it has been reached. `left` comes only where
what spoke had to go."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Outcome:
    """What a pull or rollback came to.

    Attributes:
        action: `installed`; `left` for an earlier release or the rules; `unchanged`; `held`: what is newer
            waits until the notices can be checked; or `offline`.
        version: The release that speaks now; None: the rules alone.
        note: One line for people.
        previous: The one that spoke before, where it was replaced.
        selftest: What the new student's self-test measured.
        problem: Why the repository's notices could not be believed, where they could not.
    """

    action: str
    version: str | None
    note: str
    previous: str | None = None
    selftest: SelfTest | None = None
    problem: str | None = None


class Updater:
    """Pulls releases into a home folder.

    Args:
        home: The device's home folder.
        token: Hub token for private repositories; sent to the configured Hub only.
        report: Told of each step in one line.
        patience: How long the Hub is waited for.
        at: Told of each of `STATES` as it is reached.
    """

    def __init__(
        self,
        home: Home,
        token: str | None = None,
        report: Callable[[str], None] = lambda line: None,
        *,
        patience: Patience | None = None,
        at: Callable[[str], None] = lambda state: None,
    ) -> None:
        self.home, self.token, self.report, self.at = home, token, report, at
        self.patience = patience or Patience()

    def pull(self, *, retry: bool = False) -> Outcome:
        """Install the release that is wanted here, if it is another than the one that speaks.

        Args:
            retry: Forget which releases were refused or rolled back.

        Raises:
            HubError: The Hub refuses; or it cannot be reached and nothing is installed yet.
            VerificationError: The newest release is not what it should be; the old one goes on.
            ResourceError: No space, an unusable runtime, or another updater is at work.
        """
        check_word_size()
        check_onnxruntime()
        with self.home.updating(), _full_disk(self.home):
            self.at("locked")
            settings = self.home.settings()
            self.home.trusted()
            self._turn_to_repository(settings.repo_id)
            if retry:
                self.home.update(STATE, refused={}, **attempts.FORGOTTEN)
            attempts.settle(self.home)
            try:
                outcome = self._pull(settings)
            except HubUnreachableError as error:
                self._remember_result(f"offline: {error.found}")
                running = self._running()
                if running is None:
                    raise
                note = f"offline ({error.found}): goes on with {running.version}"
                outcome = Outcome("offline", running.version, note)
            except LumenError as error:
                self._remember_result(f"{type(error).__name__}: {error.found}")
                raise
            else:
                self._remember_result(outcome.note)
            self.at("finished")
            return outcome

    def rollback(self) -> Outcome:
        """Go back to the release that spoke before; the one that is left is not installed again.

        Raises:
            VerificationError: There is none, it is damaged, or it may not be used any more.
        """
        with self.home.updating(), _full_disk(self.home):
            slot = slots.previous(self.home, self.home.trusted())
            repo_id = slot.manifest.student.repo_id
            known = Knowledge.read(self.home, repo_id)
            why = known.unwanted(slot.version)
            if why is not None:
                raise VerificationError(
                    found=f"{slot.version} to go back to: {why}",
                    expected=f"a release of at least {known.minimum_version}, neither yanked nor refused",
                    next="eisv-lumen pull",
                )
            speaks = Current.read(self.home).speaks
            left = speaks.version if speaks else None
            if speaks and (speaks.version, speaks.repo_id or repo_id) != (slot.version, repo_id):
                refuse(self.home, speaks.version, "rolled back by a person", speaks.repo_id)
            slots.return_to(self.home, slot)
            note = f"back to {slot.version}; {left} will not be installed again (pull --retry forgets that)"
            self._remember_result(note)
            return Outcome("installed", slot.version, note, previous=left)

    def _pull(self, settings: Settings) -> Outcome:
        source = Source(settings, self.token, self.patience, self.report)
        self._leave_unwanted()
        refs = source.refs()
        self.at("listed")
        followed = follow(self.home, source, refs.branches.get(BRANCH), self.report)
        if followed.problem:
            self.report(followed.problem)
        self.at("noticed")
        left = self._leave_unwanted()
        slot = self._running()
        running = slot.version if slot else None
        ours = running if slot and slot.manifest.student.repo_id == settings.repo_id else None
        try:
            choice = choose(refs.tags, settings, Knowledge.read(self.home), self.home.device_id(), ours)
            outcome = self._follow_choice(
                source, choice, running, None if followed.checked else followed.problem
            )
        except LumenError as error:
            if left is None:
                raise
            outcome = Outcome("left", running, f"{left}; {error.found}")
        if left is not None and outcome.action in ("unchanged", "held"):
            outcome = replace(outcome, action="left", note=f"{left}; {outcome.note}")
        problem = followed.problem
        return replace(outcome, problem=problem, note=outcome.note + (f"; {problem}" if problem else ""))

    def _follow_choice(
        self, source: Source, choice: Choice, running: str | None, doubt: str | None
    ) -> Outcome:
        if choice.version is None:
            slots.remove_leftovers(self.home)
            return Outcome("unchanged", running, choice.note)
        if doubt is not None:
            if running is None:
                raise VerificationError(
                    found=doubt, expected="notices that can be checked", next="pull again; ask the publisher"
                )
            return Outcome("held", running, f"{choice.version} waits until the notices can be checked")
        return self._install(source, choice.version, running)

    def _install(self, source: Source, version: Version, running: str | None) -> Outcome:
        commit, sizes = source.files(version.tag)
        self.report(f"{source.repo_id} {version.tag} is {commit}")
        self.at("resolved")
        incoming = slots.incoming_folder(self.home, commit)
        try:
            download = Download(self.home, source, commit, incoming, self.at)
            manifest = download.manifest(sizes, version)
            download.files(manifest)
            self.report(f"downloaded {version}, signature and every hash fit")
            measured = self._selftest(incoming, manifest)
        except (VerificationError, OSError) as error:
            # Not to be found, and believed to be downloaded already, by the next pull; nor to fill the disk.
            if isinstance(error, VerificationError) or error.errno in _FULL:
                shutil.rmtree(incoming, ignore_errors=True)
            raise
        self.at("tested")
        name = slots.install(self.home, incoming)
        self.at("installed")
        # Remembered before the switch: a kill between the two only repeats the pull.
        known = Knowledge.read(self.home)
        minimum = manifest.minimum_version
        self.home.update(STATE, **known.after_install(manifest.version, minimum, manifest.created))
        self.at("remembered")
        origin = manifest.student.repo_id
        slots.switch(self.home, name, manifest.version, repo_id=origin, keep=running is not None)
        self.at("switched")
        note = f"installed {manifest.version}" + (f" after {running}" if running else "")
        if datetime.now(UTC) < datetime.fromisoformat(manifest.created):
            note += f"; this machine's clock is wrong: the release was made {manifest.created}"
        return Outcome("installed", manifest.version, note, running, measured)

    def _selftest(self, incoming: Path, manifest: Release) -> SelfTest:
        measured = attempts.tested(self.home, manifest.version, lambda: run_selftest(incoming), self.at)
        self.report(
            f"self-test: {measured.windows} golden windows, largest difference {measured.difference:.4f}, "
            f"{measured.latency_ms:.1f} ms each, {measured.peak_rss_mb or 0:.0f} MB"
        )
        return measured

    def _running(self) -> slots.Slot | None:
        """What speaks now; a damaged slot counts as none, so that it is replaced."""
        try:
            return slots.open_current(self.home, self.home.trusted())
        except LumenError:
            return None

    def _leave_unwanted(self) -> str | None:
        """Leave what may not speak any more; returns how, in one line, where something had to go.

        It may have been refused by a judgement that was killed before it could go back.
        """
        line = leave_unwanted(self.home)
        if line is not None:
            self.report(line)
            self.at("left")
        return line

    def _turn_to_repository(self, repo_id: str) -> None:
        """What is remembered of one repository says nothing about another's versions, but is kept."""
        with self.home.changing():
            state = self.home.read(STATE)
            known = state.get("repo_id")
            if known == repo_id:
                return
            others = state.pop("others", {})
            if known is not None:
                others[known] = state
                state = others.pop(repo_id, {})
            self.home.write(STATE, {**state, "repo_id": repo_id, "others": others})

    def _remember_result(self, result: str) -> None:
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        self.home.update(STATE, last_pull={"time": now, "result": result.splitlines()[0]})


@contextmanager
def _full_disk(home: Home) -> Iterator[None]:
    try:
        yield
    except LumenError:
        raise
    except OSError as error:
        if error.errno not in PLACE_UNUSABLE:
            raise
        full = error.errno in _FULL
        raise ResourceError(
            found=f"{error.filename or home.folder}: {error.strerror}",
            expected="free disk space" if full else "a writable home folder",
            next="free some space" if full else "mend the permissions of the home folder",
        ) from None
