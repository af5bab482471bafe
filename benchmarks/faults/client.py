"""The Hub's client in this process: which Hub it believes in, and how long it waits."""

import os

VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    "HF_HUB_ETAG_TIMEOUT": "1",
}
"""Read when the client is imported. The short timeouts keep a thousand stalled answers within minutes."""


def before_import(home: str) -> None:
    """Set what the client reads when it is imported.

    Args:
        home: Its cache; no token of this machine is seen.
    """
    os.environ.update(VARIABLES, HF_HOME=home)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "EISV_SIGNING_KEY"):
        os.environ.pop(name, None)


def use_endpoint(url: str) -> None:
    """What HF_ENDPOINT would have set: the client checks the addresses of commits against it."""
    from huggingface_hub import constants, file_download

    constants.ENDPOINT = url
    file_download.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
