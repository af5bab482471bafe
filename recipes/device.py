"""A device's first hour: the wheel alone in an empty environment, then pull, verify, listen, speak.

    python -m recipes.device --hub URL --wheel FILE --trust KEYS --release release.json --out device.json

Nothing of the checkout is importable there: what runs is what a Raspberry Pi would run.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from eisv_lumen.artifact import sha256_file, write_json
from eisv_lumen.errors import HubError, LumenError, exit_with_reason
from eisv_lumen.hub_client import read_token
from recipes.configuration import Recipe

_SECONDS_TO_INSTALL, _SECONDS_TO_ACT = 600, 180


class DeviceError(LumenError):
    """A command of the device failed; its own words are in `found`."""


def main() -> None:
    """Set up a device's environment, pull the release and voice a live window."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--trust", type=Path, required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = Recipe.read(arguments.recipe)
    release = sha256_file(arguments.release)
    if arguments.out.exists() and json.loads(arguments.out.read_text())["release_sha256"] == release:
        return
    folder = arguments.out.parent / "device"
    install(folder, arguments.wheel)
    device = Device(folder, read_token() if recipe.release.private else None)
    repo = recipe.release.repo_id("student")
    device.lumen("pull", "--hub", arguments.hub, "--repo", repo, "--trust", arguments.trust.resolve())
    every, states = recipe.device.every, recipe.device.states
    print(f"listening: {states} states, {every:g} s apart", flush=True)
    heard = json.loads(
        device.lumen(
            "express", "--live", "--states", str(states), "--every", str(every), "--json", quiet=True
        )
    )
    print(
        "[{mark}] {expression}   ({words})   confidence {confidence:.2f}".format(
            mark=heard["source"],
            words=" ".join(heard["lumen_words"]),
            **{k: heard[k] for k in ("expression", "confidence")},
        )
    )
    write_json(arguments.out, {"release_sha256": release, **heard, "packages": device.packages()})


class Device:
    """The environment and home folder of one simulated device on this machine."""

    def __init__(self, folder: Path, token: str | None = None) -> None:
        """Everything the device has lies in `folder`; a token reads private repositories."""
        self.python = (folder / "venv" / "bin" / "python").absolute()
        self.home = (folder / "home").absolute()
        self.home.mkdir(parents=True, exist_ok=True)
        self._token = {"HF_TOKEN": token} if token else {}

    def lumen(self, *arguments: str | Path, quiet: bool = False) -> str:
        """Run `eisv-lumen` there; returns what it printed.

        Raises:
            DeviceError: When it fails.
        """
        return self._run([self.python.with_name("eisv-lumen"), *arguments], quiet=quiet)

    def packages(self) -> dict[str, str]:
        """Versions of everything that is installed there."""
        listed = self._run([self.python, "-m", "pip", "list", "--format", "json"], quiet=True)
        return {package["name"]: package["version"] for package in json.loads(listed)}

    def _run(self, command: list[str | Path], *, quiet: bool) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "HF_HUB_DISABLE_XET": "1"}
        environment |= self._token
        try:
            done = subprocess.run(
                [str(part) for part in command],
                env=environment,
                cwd=self.home,
                capture_output=True,
                text=True,
                timeout=_SECONDS_TO_ACT,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(
                found=f"{Path(command[0]).name} {command[1]} took longer than {_SECONDS_TO_ACT} s",
                expected="an answer",
                next="set a smaller device.every in the recipe, or run the same command again",
            ) from None
        if done.returncode:
            raise DeviceError(
                found=f"{Path(command[0]).name} {command[1]} failed: {done.stderr.strip()[-1000:]}",
                expected="exit code 0",
                next="run the same command again",
            )
        if not quiet:
            print(done.stdout.strip(), flush=True)
        return done.stdout


def install(folder: Path, wheel: Path) -> None:
    """Install the wheel with its base dependencies into an empty environment, once per wheel.

    Raises:
        HubError: The package index cannot be reached.
    """
    stamp = folder / "installed-wheel"
    digest = sha256_file(wheel)
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"installing {wheel.name} alone (no torch, no transformers)", flush=True)
    venv.create(folder / "venv", clear=True, with_pip=True)
    pip: list[str | Path] = [folder / "venv" / "bin" / "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", "-c", "constraints.txt", wheel],
        capture_output=True,
        text=True,
        timeout=_SECONDS_TO_INSTALL,
    )
    if done.returncode:
        raise HubError(
            found=f"pip: {done.stderr.strip()[-500:]}",
            expected="the wheel's base dependencies from the package index",
            next="check the network, then run the same command again",
        )
    stamp.write_text(digest)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_with_reason(main)
