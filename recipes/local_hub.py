"""The Hub that a recipe publishes to: a local one that it starts, or the one that HUB= names."""

import argparse
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from eisv_lumen.errors import HubError, ResourceError, exit_with_reason
from recipes.configuration import LocalHub, Recipe

_SECONDS_TO_START = 60.0


@dataclass(frozen=True)
class Hub:
    """A Hub's address, and the token to write to it (never printed)."""

    url: str
    token: str
    local: bool

    def __repr__(self) -> str:
        """The address alone: a token must not reach a log."""
        return f"Hub({self.url})"

    @property
    def environment(self) -> dict[str, str]:
        """What a client process needs to talk to this Hub and to no other."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HUB_DISABLE_XET": "1"}


@contextmanager
def open_hub(settings: LocalHub, url: str | None) -> Iterator[Hub]:
    """The Hub to publish to.

    Args:
        settings: Root, host and port of the local Hub.
        url: A Hub elsewhere; its token is HF_TOKEN or the one that `hf auth login` stored.

    Raises:
        HubError: No token for a Hub elsewhere.
        ResourceError: The local Hub did not start.
    """
    if url:
        token = os.environ.get("HF_TOKEN") or huggingface_hub.get_token()
        if not token:
            raise HubError(
                found=f"no token for {url}", expected="HF_TOKEN or a login", next="run: hf auth login"
            )
        yield Hub(url.rstrip("/"), token, local=False)
        return
    root = Path(settings.root)
    root.mkdir(parents=True, exist_ok=True)
    token = _token(root / "client-token")
    running = _running(root, token)
    if running:
        yield running
        return
    ready = root / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hub.local", "--root", root, "--host", settings.host]
    command += ["--port", settings.port, "--ready-file", ready]
    log = (root / "server.log").open("wb")
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "EISV_HUB_TOKEN": token},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches the stages first; the Hub is stopped afterwards
    )
    try:
        yield _wait_until_ready(process, ready, token)
    finally:
        process.terminate()
        process.wait(timeout=20)
        ready.unlink(missing_ok=True)
        log.close()


def serve(settings: LocalHub) -> None:
    """Keep the local Hub running until Ctrl-C."""
    with open_hub(settings, None) as hub:
        print(f"the local Hub: {hub.url} (Ctrl-C stops it)", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, token: str) -> Hub:
    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        if ready.exists():
            return Hub(json.loads(ready.read_text())["url"], token, local=True)
        time.sleep(0.1)
    if process.poll() is None:
        process.kill()
    reason = "; ".join((ready.parent / "server.log").read_text(errors="replace").strip().splitlines()[-4:])
    raise ResourceError(
        found=f"the local Hub did not start: {reason or 'no answer'}",
        expected="a free port and a writable root folder",
        next="stop what uses the port, or set hub.port in the recipe",
    )


def _running(root: Path, token: str) -> Hub | None:
    """A Hub that serves this very root already (a `make hub` in another terminal)."""
    try:
        url = json.loads((root / "ready.json").read_text())["url"]
        huggingface_hub.HfApi(endpoint=url, token=token).whoami()
    except (OSError, ValueError, KeyError):
        return None
    return Hub(url, token, local=True)


def _token(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text("hf_" + secrets.token_hex(20))
    return path.read_text().strip()


def main() -> None:
    """Serve what the recipe has published: `make hub`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    serve(Recipe.read(parser.parse_args().recipe).hub)


if __name__ == "__main__":
    exit_with_reason(main)
