"""What the Hub answers when it refuses: a status, a reason, and the error code that its clients know."""

INVALID_CREDENTIALS = "Invalid credentials in Authorization header"


class Refusal(Exception):
    """A request that is refused; the application turns it into a response.

    Args:
        status: HTTP status, 4xx or 5xx.
        message: The reason, for the person who reads the client's exception.
        code: `X-Error-Code`; the client maps RepoNotFound, RevisionNotFound and EntryNotFound to exceptions.
        headers: Further response headers.
        body: Further members of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body or {}


def repository_not_found() -> Refusal:
    """The same answer for a repository that is absent and one that is private to others."""
    return Refusal(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> Refusal:
    """No branch, tag or commit has this name."""
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str | None = None) -> Refusal:
    """No such file or folder at a commit; naming the commit lets a client cache the absence."""
    headers = {"X-Repo-Commit": commit} if commit else {}
    return Refusal(404, f"Entry not found: {path}", "EntryNotFound", headers)
