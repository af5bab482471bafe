"""The Hub's client in this process: which Hub it believes in, and how long it waits."""

import os
import threading

VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
}
"""Read when the client is imported."""

_SILENCE = 0.5
"""Seconds after which a process in a hurry gives up a silent Hub; keeps a thousand stalls within minutes."""


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
    from tqdm import tqdm

    # Its own lock is shared by forked processes, and whoever is killed while holding it stops all others.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    constants.ENDPOINT = url
    file_download.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"


def hurry() -> None:
    """Let this process wait for a silent Hub as briefly as a thousand trials need.

    Only where the network fails on purpose: on a sound one a busy machine must not pass for a stalled Hub.
    """
    from huggingface_hub import constants

    from hub.transport import limit_silence

    constants.HF_HUB_DOWNLOAD_TIMEOUT = constants.HF_HUB_ETAG_TIMEOUT = _SILENCE  # type: ignore[assignment]
    limit_silence(_SILENCE)
