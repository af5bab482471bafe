"""The EISV-Lumen explorer: pick or shape a window, see and hear what the student and the rules make of it.

    python spaces/explorer/app.py [--port 7860]

`EISV_STUDENT` names a student folder or repository (default: the one the Space was built for),
`EISV_ASSETS` the folder of examples, rule weights and evaluation (default: `assets` beside this file).
"""

import argparse
import json
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # A Space's folder is an artifact: nothing is added to it.


def _find_package() -> None:
    """Make `eisv_lumen` importable from the wheel beside this file where it is not installed.

    The Hub installs requirements before it copies the repository, so a wheel inside it cannot be one of them;
    a wheel of pure Python can be imported as it is.
    """
    try:
        import eisv_lumen  # noqa: F401
    except ImportError:
        sys.path[:0] = [str(wheel) for wheel in sorted(HERE.glob("eisv_lumen-*.whl"))]


_find_package()

import explorer  # noqa: E402

warnings.filterwarnings("ignore", message=".*HTTP_422_UNPROCESSABLE_ENTITY.*")  # Gradio's own, per request

import gradio as gr  # noqa: E402
import look  # noqa: E402
from voices import Voices  # noqa: E402

from eisv_lumen.errors import ResourceError, exit_with_reason  # noqa: E402

DEFAULT_SETTINGS = {"student": "hikewa/eisv-lumen-student"}
DEFAULT_PORT = 7860


def build() -> gr.Blocks:
    """The whole page."""
    assets = Path(os.environ.get("EISV_ASSETS") or HERE / "assets")
    settings = HERE / "space.json"
    loaded: dict[str, Any] = (
        json.loads(settings.read_text("utf-8")) if settings.is_file() else DEFAULT_SETTINGS
    )
    return explorer.page(Voices.load(loaded, assets), assets)


def main() -> None:
    """Start the server and stay."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT") or DEFAULT_PORT))
    parser.add_argument("--host", default=_host())
    options = parser.parse_args()
    _check_port(options.host, options.port)
    build().launch(
        server_name=options.host,
        server_port=options.port,
        theme=look.theme(),
        css_paths=[HERE / "style.css"],
        footer_links=[],
        ssr_mode=False,
    )


def _host() -> str:
    """Loopback, unless the environment says otherwise or this is the Hub, which serves from a container."""
    return os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1")


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ResourceError(
                found=f"port {port} of {host} cannot be used: {getattr(error, 'strerror', None) or error}",
                expected="a free port",
                next="stop what uses it, or choose another with --port or GRADIO_SERVER_PORT",
            ) from error


if __name__ == "__main__":
    exit_with_reason(main)
