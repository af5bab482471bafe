"""Who may do what: tokens map to users with a role and the namespaces they may work in."""

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eisv_lumen.errors import InputError
from hub.local.durable import write_whole
from hub.local.names import is_repo_part
from hub.local.refusal import INVALID_CREDENTIALS, Refusal

Role = Literal["read", "write"]
_TOKEN = re.compile(r"[!-~]{8,256}")


@dataclass(frozen=True)
class Account:
    """One token's owner.

    Attributes:
        user: User name, which is also a namespace.
        role: `write` may change repositories, `read` may only look.
        namespaces: Namespaces besides the user's own; `*` stands for all.
    """

    user: str
    role: Role
    namespaces: frozenset[str] = frozenset()

    def belongs_to(self, namespace: str) -> bool:
        """Whether this account sees a namespace's private repositories."""
        return namespace == self.user or namespace in self.namespaces or "*" in self.namespaces

    def may_write(self, namespace: str) -> bool:
        """Whether this account may change a namespace's repositories."""
        return self.role == "write" and self.belongs_to(namespace)


class Accounts:
    """Accounts by token. Tokens are kept as hashes, so that no dump or exception shows one."""

    def __init__(self, by_token: dict[str, Account]) -> None:
        self._by_hash = {_hashed(token): account for token, account in by_token.items()}

    def with_token(self, token: str, account: Account) -> "Accounts":
        """These accounts and one more."""
        more = Accounts({})
        more._by_hash = {**self._by_hash, _hashed(_checked_token(token)): account}
        return more

    def of_header(self, authorization: str | None, basic: bool = False) -> Account | None:
        """The account behind an `Authorization` header; None without one.

        Args:
            authorization: The header's value.
            basic: Whether a Basic password may be the token (git and browsers send that).

        Raises:
            Refusal: 401 for a token that is not known.
        """
        if authorization is None:
            return None
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic" and basic:
            token = _basic_password(value)
        elif scheme.lower() == "bearer":
            token = value.strip()
        else:
            token = ""
        account = self._by_hash.get(_hashed(token))
        if account is None:
            raise Refusal(401, INVALID_CREDENTIALS)
        return account


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _basic_password(value: str) -> str:
    try:
        user, _, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return password or user


def _checked_token(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise InputError(
            found="a token with spaces, control or non-ASCII characters, or not 8 to 256 characters long",
            expected="8 to 256 printable ASCII characters",
            next="give another --token or EISV_HUB_TOKEN",
        )
    return token


def open_accounts(file: Path, given: str | None, user: str) -> Accounts:
    """Read the tokens file, or write one with a write and a read token where there is none.

    Args:
        file: JSON, `{"tokens": {TOKEN: {"user": …, "role": "read" | "write", "namespaces": […]}}}`.
        given: A write token that must be valid whatever the file says.
        user: The user that generated and given tokens belong to.

    Raises:
        InputError: When the file or the given token cannot be used.
    """
    owner = Account(user, "write", frozenset({"*"}))
    if given is not None:
        _checked_token(given)
    if not file.exists():
        first = given or f"hf_{secrets.token_hex(17)}"
        _write_tokens(
            file, {first: owner, f"hf_{secrets.token_hex(17)}": Account("reader", "read", frozenset({"*"}))}
        )
    accounts = Accounts(_read_tokens(file))
    return accounts.with_token(given, owner) if given is not None else accounts


def _write_tokens(file: Path, accounts: dict[str, Account]) -> None:
    tokens = {
        token: {"user": account.user, "role": account.role, "namespaces": sorted(account.namespaces)}
        for token, account in accounts.items()
    }
    write_whole(file, json.dumps({"tokens": tokens}, indent=2).encode() + b"\n", private=True)


def _read_tokens(file: Path) -> dict[str, Account]:
    expected = '{"tokens": {TOKEN: {"user": NAME, "role": "read" or "write", "namespaces": [...]}}}'
    try:
        entries = json.loads(file.read_bytes())["tokens"]
        accounts = {_checked_token(token): _account(**entry) for token, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Neither the text of the error nor its chain: they can quote a token.
        raise InputError(
            found=f"tokens file {file.name} that cannot be used ({type(error).__name__})",
            expected=expected,
            next="correct the file, or give another with --token-file",
        ) from None
    return accounts


def _account(user: str, role: Role, namespaces: Iterable[str] = ()) -> Account:
    names = frozenset(namespaces)
    if not is_repo_part(user) or role not in ("read", "write"):
        raise ValueError("user or role")
    if isinstance(namespaces, str) or not all(name == "*" or is_repo_part(name) for name in names):
        raise ValueError("namespaces")
    return Account(user, role, names)
