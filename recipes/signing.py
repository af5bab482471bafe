"""The release key of a recipe: made once, kept beside its artifacts, readable by its owner alone."""

import os
from pathlib import Path

from eisv_lumen.signing import KEY_VARIABLE, SigningKey, TrustedKeys, write_trusted

PRIVATE_KEY, TRUSTED_KEYS = "release-key.pem", "trusted-keys.json"


def ensure_keys(folder: Path) -> list[str | Path]:
    """Make a key where there is none, and write down the public half that the device trusts.

    Returns:
        How `hub.release` finds the private key: `--key FILE`, or nothing where EISV_SIGNING_KEY holds it.
    """
    path = folder / PRIVATE_KEY
    given = bool(os.environ.get(KEY_VARIABLE))
    if not given and not path.exists():
        SigningKey.generate().write(path)
    folder.mkdir(parents=True, exist_ok=True)
    key = SigningKey.read(None if given else path)
    write_trusted(folder / TRUSTED_KEYS, TrustedKeys([key.public]))
    return [] if given else ["--key", path]
