"""The Hub that a recipe publishes to: a local one that it starts, or the one that HUB= names."""

import argparse
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from eisv_lumen.errors import HubError, exit_with_reason
from eisv_lumen.hub_client import client, hub_errors
from hub.local import start
from recipes.configuration import LocalHub, Recipe


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
        HubError: No token for a Hub elsewhere, one it refuses, no answer, or the local Hub did not start
            (a port in use, say).
    """
    if url:
        token = os.environ.get("HF_TOKEN") or huggingface_hub.get_token()
        if not token:
            raise HubError(
                found=f"no token for {url}", expected="HF_TOKEN or a login", next="run: hf auth login"
            )
        with hub_errors("check the token", url):
            client(url, token).whoami()
        yield Hub(url.rstrip("/"), token, local=False)
        return
    bypass_proxy(settings.host)
    root = Path(settings.root)
    root.mkdir(parents=True, exist_ok=True)
    token = _token(root / "client-token")
    running = _running(root, token)
    if running:
        yield running
        return
    ready = root / "ready.json"
    with start(root, token=token, port=settings.port, host=settings.host, ready_file=ready) as server:
        try:
            yield Hub(server.url, token, local=True)
        finally:
            ready.unlink(missing_ok=True)


def bypass_proxy(host: str) -> None:
    """This process, and those it starts, reach a Hub of this machine without the proxy of its network."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [entry for entry in os.environ.get(name, "").split(",") if entry]
        if host not in known:
            os.environ[name] = ",".join([*known, host])


def serve(settings: LocalHub) -> None:
    """Keep the local Hub running until Ctrl-C."""
    with open_hub(settings, None) as hub:
        print(f"the local Hub: {hub.url} (Ctrl-C stops it)", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _running(root: Path, token: str) -> Hub | None:
    """A Hub that serves this very root already (a `make hub` in another terminal)."""
    try:
        url = json.loads((root / "ready.json").read_text())["url"]
        with hub_errors("find the local Hub", url):
            client(url, token).whoami()
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
