"""What was committed, read back and compared before anything is tagged."""

from collections.abc import Callable, Iterable

from eisv_lumen import artifact
from eisv_lumen.hub_client import HubError
from eisv_lumen.layouts import STUDENT
from hub.contents import compare
from hub.parallel import Workers
from hub.plan import RepositoryPlan
from hub.remote import Reader

_DOWNLOADED = (artifact.MANIFEST, STUDENT.release, STUDENT.signature)


class ReadBack:
    """Compares commits with what was sent.

    Args:
        reader: Reads the Hub.
        workers: Make several requests at a time.
        at: Told of each role that was compared.
    """

    def __init__(self, reader: Reader, workers: Workers, at: Callable[[str], None]) -> None:
        self.reader, self.workers, self.at = reader, workers, at

    def begin(self, landed: Iterable[tuple[RepositoryPlan, str]]) -> Callable[[], None]:
        """Compare every hash that the Hub lists, and download the manifests.

        Args:
            landed: What each repository is to hold, and its commit; what is tagged already is left out.

        Returns:
            Waits until it is done; raises a `HubError` where anything differs.
        """
        landed = [(plan, commit) for plan, commit in landed if not plan.tagged]
        listed = self.workers.begin(lambda each: self._check_list(*each), landed)
        downloaded = self.workers.begin(
            lambda each: self._check_file(*each),
            [(plan, commit, name) for plan, commit in landed for name in _DOWNLOADED if name in plan.files],
        )

        def finish() -> None:
            listed()
            downloaded()
            for plan, _ in landed:
                self.at(f"compared {plan.role}")

        return finish

    def _check_list(self, plan: RepositoryPlan, commit: str) -> None:
        stands = self.reader.tree(plan.repo_id, plan.repo_type, commit)
        found = {name: content for name, content in stands.items() if name not in plan.kept}
        if wrong := compare(plan.files, found):
            raise _different(plan, commit, ", ".join(wrong.lines()[:3]))

    def _check_file(self, plan: RepositoryPlan, commit: str, name: str) -> None:
        if self.reader.file(plan.repo_id, plan.repo_type, commit, name) != plan.files[name].read():
            raise _different(plan, commit, f"~ {name} as downloaded")


def _different(plan: RepositoryPlan, commit: str, what: str) -> HubError:
    return HubError(
        found=f"{plan.repo_id} at {commit[:12]} differs from what was sent: {what}",
        expected="the very files that were committed",
        next="run the same command again; nothing has been tagged",
    )
