"""Names that come from outside: repositories, files inside them, revisions."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from hub.local.refusal import Refusal, repository_not_found

Kind = Literal["models", "datasets", "spaces"]
KINDS: tuple[Kind, ...] = ("models", "datasets", "spaces")
_SINGULAR: dict[str, Kind] = {"model": "models", "dataset": "datasets", "space": "spaces"}

# First segments of the server's own addresses, which a namespace would hide.
_RESERVED = frozenset({"api", "datasets", "spaces", "models", "lfs", "static", "login", "health"})
# As the client allows: underscores anywhere, dots and dashes only inside.
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_GIT_SHORT_NAME = re.compile(r"git~\d+")
_PATH_BYTES = 1024
_PART_BYTES = 255
_PATH_DEPTH = 64


@dataclass(frozen=True)
class RepoName:
    """A repository's kind, namespace and name, all valid.

    Raises:
        Refusal: RepoNotFound for a name that no repository can have.
    """

    kind: Kind
    namespace: str
    name: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not is_repo_part(self.namespace) or not is_repo_part(self.name):
            raise repository_not_found()
        if self.namespace.lower() in _RESERVED:
            raise repository_not_found()

    @property
    def id(self) -> str:
        """`namespace/name`, as clients write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def prefix(self) -> str:
        """What stands before the id in an address: nothing, `datasets/` or `spaces/`."""
        return "" if self.kind == "models" else f"{self.kind}/"

    @property
    def folder(self) -> str:
        """Where its bare git repository lies, relative to the folder of all repositories."""
        return f"{self.kind}/{self.namespace}/{self.name}.git"


def is_repo_part(part: str) -> bool:
    """Whether a namespace or repository name is one that the Hub allows."""
    is_plain = bool(_PART.fullmatch(part)) and "--" not in part and ".." not in part
    return is_plain and not part.lower().endswith(".git")


def kind_of(value: object) -> Kind:
    """The kind for `model`, `dataset`, `space` (or nothing: a model) in a JSON body.

    Raises:
        Refusal: For any other value.
    """
    if value is None:
        return "models"
    if not isinstance(value, str) or value not in _SINGULAR:
        raise Refusal(400, f"Invalid repo type: {value!r}; expected one of {', '.join(_SINGULAR)}")
    return _SINGULAR[value]


def checked_path(path: object) -> str:
    """A file or folder path inside a repository, refused unless every system can check it out safely.

    Raises:
        Refusal: For absolute paths, `.` and `..`, any spelling of `.git`, control characters,
            backslashes, over-long names.
    """
    if not isinstance(path, str) or not path:
        raise Refusal(422, "Invalid path: expected a non-empty text")
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise Refusal(422, "Invalid path: not valid Unicode") from None
    parts = path.split("/")
    if size > _PATH_BYTES or len(parts) > _PATH_DEPTH:
        raise Refusal(
            422, f"Invalid path: longer than {_PATH_BYTES} bytes or deeper than {_PATH_DEPTH} folders"
        )
    for part in parts:
        _check_part(part)
    return path


def checked_message(message: str) -> str:
    """A commit's or tag's message.

    Raises:
        Refusal: When it is not valid Unicode.
    """
    try:
        message.encode()
    except UnicodeEncodeError:
        raise Refusal(400, "Invalid message: not valid Unicode") from None
    return message.replace("\0", "")


def _check_part(part: str) -> None:
    if part in ("", ".", ".."):
        raise Refusal(422, "Invalid path: absolute, empty, '.' and '..' parts are not allowed")
    if len(part.encode("utf-8")) > _PART_BYTES:
        raise Refusal(422, f"Invalid path: a part is longer than {_PART_BYTES} bytes")
    if "\\" in part or any(unicodedata.category(char) in ("Cc", "Cs") for char in part):
        raise Refusal(422, "Invalid path: backslashes and control characters are not allowed")
    # Mac file systems drop ignorable characters, Windows trailing dots, spaces and streams (`.git::$DATA`).
    plain = "".join(char for char in part if unicodedata.category(char) != "Cf")
    plain = plain.split(":")[0].rstrip(". ").lower()
    if plain == ".git" or _GIT_SHORT_NAME.fullmatch(plain):
        raise Refusal(422, "Invalid path: cannot update files under a '.git/' folder")
