"""Run the local Hub: `python -m hub.local --root artifacts/hub`."""

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from eisv_lumen.errors import InputError, ResourceError, exit_with_reason
from hub.local.accounts import open_accounts
from hub.local.app import HubApplication
from hub.local.calls import Hub
from hub.local.durable import free_bytes, write_whole
from hub.local.limits import MIB, Limits
from hub.local.names import is_repo_part
from hub.local.repositories import Repositories
from hub.local.signing import AddressSigner

TOKEN_VARIABLE = "EISV_HUB_TOKEN"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hub.local", description="A Hugging Face Hub on this machine."
    )
    parser.add_argument(
        "--root", type=Path, default=Path("artifacts/hub"), help="folder of all that it stores"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8700, help="0 takes a free one (default: 8700)")
    parser.add_argument("--token-file", type=Path, help="accounts (default: tokens.json in the root folder)")
    parser.add_argument("--token", help=f"a write token that is valid; better given as {TOKEN_VARIABLE}")
    parser.add_argument(
        "--user", default="hikewa", help="owner of given and generated tokens (default: hikewa)"
    )
    parser.add_argument("--ready-file", type=Path, help="written when it listens: JSON of url and pid")
    parser.add_argument("--max-upload-mib", type=int, default=50 * 1024, help="largest file (default: 51200)")
    parser.add_argument(
        "--min-free-mib", type=int, default=64, help="room on disk to start with (default: 64)"
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when the process that started it is gone"
    )
    parser.add_argument("--verbose", action="store_true", help="a line for each request on stderr")
    return parser


def main() -> int:
    """Serve until interrupted or terminated.

    Raises:
        ResourceError: For a port in use, a folder that cannot be written, no room on disk.
        InputError: For options and token files that cannot be used.
    """
    options = arguments().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("hub.local").setLevel(logging.INFO if options.verbose else logging.WARNING)
    if not is_repo_part(options.user):
        raise InputError(
            found=f"user {options.user!r}", expected="letters, digits, '-', '_', '.'", next="--user NAME"
        )
    limits = Limits(lfs_bytes=options.max_upload_mib * MIB, min_free_bytes=options.min_free_mib * MIB)
    with _root_held(options.root, limits), _listening(options.host, options.port) as listener:
        hub = _open_hub(options, limits)
        return asyncio.run(_serve(hub, listener, options))


def _open_hub(options: argparse.Namespace, limits: Limits) -> Hub:
    root: Path = options.root
    given = options.token or os.environ.get(TOKEN_VARIABLE) or None
    try:
        accounts = open_accounts(options.token_file or root / "tokens.json", given, options.user)
        return Hub(Repositories(root), accounts, AddressSigner(root / "signing.key"), limits)
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        raise _unwritable(root, error) from None


@contextlib.contextmanager
def _root_held(root: Path, limits: Limits) -> Iterator[None]:
    """The root folder, writable, with room, and used by no other server."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("a")
        write_whole(root / "writable", b"")
        (root / "writable").unlink()
    except OSError as error:
        raise _unwritable(root, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                found=f"another local Hub that uses the folder {root}",
                expected="one server for each root folder",
                next="stop the other one, or choose another --root",
            ) from None
        if free_bytes(root) < limits.min_free_bytes:
            raise ResourceError(
                found=f"{free_bytes(root) // MIB} MiB free on the disk of {root}",
                expected=f"at least {limits.min_free_bytes // MIB} MiB",
                next="free some space, choose another --root, or lower --min-free-mib",
            )
        yield


def _unwritable(root: Path, error: OSError) -> ResourceError:
    return ResourceError(
        found=f"root folder {root} that cannot be written: {error.strerror or type(error).__name__}",
        expected="a folder this user may write in",
        next="choose another: python -m hub.local --root FOLDER",
    )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # With the protocol named, asyncio sends small answers at once instead of 40 ms later.
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise _unusable_address(host, port, error) from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
        except (OSError, OverflowError) as error:
            raise _unusable_address(host, port, error) from None
        yield listener


def _unusable_address(host: str, port: int, error: Exception) -> ResourceError:
    reason = getattr(error, "strerror", None) or error
    return ResourceError(
        found=f"address {host}:{port} that cannot be listened on: {reason}",
        expected="a free port on this machine",
        next="stop what uses it, or choose another: python -m hub.local --port 0",
    )


async def _serve(hub: Hub, listener: socket.socket, options: argparse.Namespace) -> int:
    config = uvicorn.Config(
        HubApplication(hub),
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # Before uvicorn listens to signals, and after: it raises them again once it has stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    watching = asyncio.create_task(_announce_and_watch(server, listener, options))
    watching.add_done_callback(stop)
    await server.serve(sockets=[listener])
    if watching.done():
        watching.result()  # raises what went wrong
    watching.cancel()
    if options.ready_file is not None:
        options.ready_file.unlink(missing_ok=True)
    return 0


def _write_ready(file: Path, url: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"url": url, "pid": os.getpid()}).encode())
    except OSError as error:
        raise ResourceError(
            found=f"ready file {file} that cannot be written: {error.strerror}",
            expected="a file in a folder this user may write in",
            next="choose another --ready-file",
        ) from None


async def _announce_and_watch(
    server: uvicorn.Server, listener: socket.socket, options: argparse.Namespace
) -> None:
    parent = os.getppid()
    while not server.started:
        await asyncio.sleep(0.01)
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{port}"
    if options.ready_file is not None:
        _write_ready(options.ready_file, url)
    print(f"hub ready {url}", flush=True)
    while os.getppid() == parent or not options.with_parent:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    exit_with_reason(main)
