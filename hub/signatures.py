"""Signature documents by one key or several."""

from collections.abc import Sequence

from eisv_lumen.artifact import canonical_json
from eisv_lumen.signing import SigningKey


def signed_by(keys: Sequence[SigningKey], content: bytes, purpose: str) -> bytes:
    """The signature document of a document by every one of some keys; any of them is enough to believe it.

    Args:
        keys: At least one.
        content: The exact bytes to sign.
        purpose: What the document is, such as `signing.RELEASE_PURPOSE`.
    """
    documents = [key.sign(content, purpose) for key in keys]
    signatures = [entry for document in documents for entry in document["signatures"]]
    return canonical_json({**documents[0], "signatures": signatures}) + b"\n"
