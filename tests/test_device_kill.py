"""SIGKILL at every named state of a pull, in a process of its own: old or new speaks, whole."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from eisv_lumen.device import slots
from eisv_lumen.device.home import Home
from eisv_lumen.device.probation import Probation
from eisv_lumen.device.updater import STATES, Updater
from eisv_lumen.release import Release
from eisv_lumen.signing import SigningKey
from tests.release_artifacts import Branch, Repository, as_if_imported_with, running_hub, small_student

KEY, NEXT = SigningKey.generate(), SigningKey.generate()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home in which 0.2.0 speaks after 0.1.0; meanwhile 0.2.0 was yanked, keys rotated, and 0.3.0 came.

    0.3.0 forbids everything older, also what speaks until it does.
    """
    folder = tmp_path_factory.mktemp("world")
    with running_hub(folder / "hub") as hub:
        repository = Repository(HfApi(endpoint=hub.url, token=hub.token), "hikewa/kill", KEY)
        home = repository.device(folder / "home")
        for number in (1, 2):
            repository.publish(f"0.{number}.0", small_student(folder / str(number), number))
            Updater(home).pull()
        branch = Branch(repository)
        branch.rotate([KEY, NEXT], signer=KEY)
        branch.say(yanked={"0.2.0": "bad"}, key=NEXT)
        repository.publish("0.3.0", small_student(folder / "3", 3), key=NEXT, change=forbids_older)
        yield home, hub.url


def forbids_older(manifest: Release) -> Release:
    return replace(manifest, minimum_version=manifest.version)


def started(home: Home) -> str:
    """Version that speaks after a start of the service."""
    watch = Probation(home, lambda line: None)
    watch.start()
    watch.end()
    return slots.open_current(home, home.trusted()).version


def pull_and_die(folder: Path, url: str, state: str) -> None:
    def at(reached: str) -> None:
        if reached == state:
            os.kill(os.getpid(), signal.SIGKILL)

    as_if_imported_with(url, pytest.MonkeyPatch())
    Updater(Home(folder), at=at).pull()


@pytest.mark.parametrize("state", STATES)
def test_killed_there_it_goes_on(world, tmp_path, state, monkeypatch):
    template, url = world
    shutil.copytree(template.folder, tmp_path / "home")
    home = Home(tmp_path / "home")
    monkeypatch.setenv("HF_ENDPOINT", url)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=pull_and_die, args=(home.folder, url, state))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert started(home) in ("0.1.0", "0.2.0", "0.3.0")
    outcome = Updater(home).pull()
    assert outcome.version == "0.3.0" == started(home)
    assert {path.name for path in home.slots.iterdir()} <= set(slots.NAMES)
    assert home.keys_sequence("hikewa/kill") == 1
    assert not list(home.folder.glob(".*.partial"))
