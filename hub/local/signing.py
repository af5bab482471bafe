"""Signed addresses for large files: whoever holds one may move one object, one way, for a while."""

import hashlib
import hmac
import secrets
import time
from pathlib import Path
from urllib.parse import urlencode

from hub.local.durable import write_whole
from hub.local.names import RepoName
from hub.local.refusal import Refusal

_SECONDS = 3600


class AddressSigner:
    """Signs and checks the addresses of LFS objects with HMAC-SHA256.

    Args:
        secret_file: 32 random bytes, written on first use, so that addresses outlive a restart.
    """

    def __init__(self, secret_file: Path) -> None:
        if not secret_file.exists():
            write_whole(secret_file, secrets.token_bytes(32), private=True)
        self._secret = secret_file.read_bytes()

    def address(self, method: str, name: RepoName, oid: str, size: int) -> str:
        """Path and query under which an object can be sent (PUT) or fetched (GET) for an hour."""
        expires = int(time.time()) + _SECONDS
        signature = self._signature(method, name, oid, size, expires)
        query = urlencode({"size": size, "expires": expires, "signature": signature})
        return f"/lfs/{name.kind}/{name.id}/{oid}?{query}"

    def check(self, method: str, name: RepoName, oid: str, query: dict[str, str]) -> int:
        """The size that a signed address allows.

        Raises:
            Refusal: 403 when the signature does not fit or the time is over.
        """
        try:
            size, expires = int(query["size"]), int(query["expires"])
        except (KeyError, ValueError):
            raise Refusal(
                403, "Incomplete upload address: ask the LFS batch endpoint for a new one"
            ) from None
        expected = self._signature(method, name, oid, size, expires)
        if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
            raise Refusal(403, "Wrong signature: ask the LFS batch endpoint for a new address")
        if expires < time.time():
            raise Refusal(403, "Request has expired: ask the LFS batch endpoint for a new address")
        return size

    def _signature(self, method: str, name: RepoName, oid: str, size: int, expires: int) -> str:
        message = "\n".join((method, name.kind, name.id, oid, str(size), str(expires)))
        return hmac.new(self._secret, message.encode(), hashlib.sha256).hexdigest()
