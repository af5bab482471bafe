"""Starting the local Hub as a process of its own."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from eisv_lumen.errors import HubError

_CHECKOUT = Path(__file__).resolve().parents[2]
_READY = "hub ready "


class LocalHub:
    """A running local Hub; as a context manager it is stopped on leaving.

    Attributes:
        url: Its address, for `HfApi(endpoint=…)` or `HF_ENDPOINT`.
        token: A token with the write role in every namespace.
        pid: Its process id.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, token: str, messages: IO[str]) -> None:
        self._process, self._messages = process, messages
        self.url, self.token, self.pid = url, token, process.pid

    def __enter__(self) -> "LocalHub":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Ask it to stop, and wait.

        Returns:
            Its exit code, 0 when it stopped as asked.
        """
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._messages.close()
        return code

    def kill(self) -> None:
        """End it without warning, as a power cut would."""
        self._process.kill()
        self._process.wait()


def start(root: Path, *, token: str | None = None, port: int = 0, **options: object) -> LocalHub:
    """Start the local Hub on this machine and wait until it listens. It ends with this process.

    Args:
        root: Folder of all that it stores; made when it is absent.
        token: A write token that is to be valid; otherwise one is made up.
        port: 0 takes a free one.
        **options: Further options of the command, `verbose=True`, `user="name"`, `min_free_mib=0`.

    Raises:
        HubError: When it does not start; the reason is in the error.
    """
    token = token or f"hf_{secrets.token_hex(17)}"
    path = os.pathsep.join(filter(None, (str(_CHECKOUT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "hub.local", "--root", str(root.resolve()), "--port", str(port)]
    for name, value in {"with_parent": True, **options}.items():
        option = f"--{name.replace('_', '-')}"
        if value is not None and value is not False:
            command += [option] if value is True else [option, str(value)]
    messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path, "EISV_HUB_TOKEN": token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if options.get("verbose") else messages,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line.startswith(_READY):
        return LocalHub(process, line.removeprefix(_READY), token, messages)
    code = process.wait()
    messages.seek(0)
    reason = messages.read().strip() or "no reason given"
    messages.close()
    process.stdout.close()
    raise HubError(
        found=f"a local Hub that ended with code {code} while starting: {reason}",
        expected=f"a line '{_READY}URL'",
        next=f"python -m hub.local --root {root} --port {port}",
    )
