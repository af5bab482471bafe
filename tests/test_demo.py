"""The main job as a user runs it: interrupted once, resumed, and run again when done."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from eisv_lumen.artifact import sha256_file, verify
from recipes.configuration import REPOSITORIES

ROWS = {"Random", "Rules", "Rules + feedback", "Teacher", "Student"}
STAGE_TO_KILL = "teacher"
LESS: dict[str, dict[str, Any]] = {
    "dataset": {"train": {"windows": 2000}},
    "base": {"documents": {"short": 3600, "card": 1600, "design": 1300}, "warmup_steps": 40},
    "teacher": {"run": {"examples_per_epoch": 5000}},
    "student": {"steps": 200, "supplement": 20000, "listening": {"windows": 131_072}},
    "forest": {"trees": [10], "min_samples_leaf": [5]},
}
"""Two thirds of the demo's work and less; the gates are the demo's own."""


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "recipes.run", "--recipe", str(recipe), "--out", str(out)]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "EISV_"))}
    return {**kept, "HF_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with some changed, also within their sections."""
    inner = {name: settings[name] for name, value in changes.items() if isinstance(value, dict)}
    return {**settings, **changes, **{name: merged(inner[name], changes[name]) for name in inner}}


def free_port() -> int:
    """A port for all runs of one folder: the addresses that a release records name it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_during(arguments: list[str], variables: dict[str, str], stage: str) -> int:
    """Start a run, kill it some seconds after a stage began, and return its exit code."""
    process = subprocess.Popen(arguments, env=variables, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if f"] {stage}:" in line:
            time.sleep(6)
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    return process.wait(timeout=60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished run in a folder of its own, with what its last, complete pass printed."""
    folder = tmp_path_factory.mktemp("demo")
    settings = yaml.safe_load(Path("recipes/demo.yaml").read_text())
    settings["record"] = {"seconds": 15, "hz": 2}
    settings["hub"] = {"root": str(folder / "hub"), "port": free_port()}
    settings["device"]["every"] = 0.1
    for name, less in LESS.items():
        whole = yaml.safe_load(Path(settings["configurations"][name]).read_text())
        settings["configurations"][name] = str(folder / f"{name}.yaml")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(merged(whole, less)))
    recipe, out = folder / "recipe.yaml", folder / "out"
    recipe.write_text(yaml.safe_dump(settings))
    variables = environment(folder / "hf")
    code = kill_during(command(recipe, out), variables, STAGE_TO_KILL)
    finished_before = json.loads((out / "stages.json").read_text())["seconds"]
    done = subprocess.run(
        command(recipe, out), env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return {
        "recipe": recipe,
        "out": out,
        "hub": folder / "hub",
        "variables": variables,
        "killed_with": code,
        "finished_before": finished_before,
        "printed": done.stdout,
        "summary": json.loads((out / "summary.json").read_text()),
    }


@pytest.mark.slow
@pytest.mark.timeout(2400)
class TestDemo:
    """Each test looks at the one finished run."""

    def test_a_killed_run_goes_on_where_it_was(self, demo):
        assert demo["killed_with"] == 130
        assert set(demo["finished_before"]) == {"recording", "base", "dataset"}
        for name in ("recording", "base", "dataset"):
            assert f"{name}: stands already" in demo["printed"]

    def test_both_gates_are_passed_on_held_out_windows(self, demo):
        gates = demo["summary"]["gates"]
        assert gates["1"]["passed"] and gates["2"]["passed"]

    def test_every_artifact_is_complete_and_has_its_card(self, demo):
        for name in REPOSITORIES:
            verify(demo["out"] / name)
            assert (demo["out"] / name / "README.md").read_text().startswith("---\n")

    def test_the_table_has_every_row_measured_with_n(self, demo):
        table = demo["summary"]["table"]
        assert set(table) == {"real", "synthetic"}
        for rows in table.values():
            assert set(rows) >= ROWS
            for name in ROWS:
                assert rows[name]["coherence"]["n"] > 0, name
                assert 0 <= rows[name]["coherence"]["value"] <= 1

    def test_the_device_speaks_without_torch(self, demo):
        device = demo["summary"]["device"]
        assert device["source"] in ("M", "R")
        assert device["expression"].startswith("~")
        assert device["version"] == demo["summary"]["release"]["version"]
        assert device["rss_mb"] < 200
        installed = {name.lower().replace("_", "-") for name in device["packages"]}
        assert "eisv-lumen" in installed
        assert not installed & {"torch", "transformers", "peft", "datasets", "pandas", "pyarrow", "psutil"}

    def test_the_community_loads_what_was_pushed(self, demo):
        community = demo["summary"]["community"]
        assert sum(community["dataset"]["rows"]["windows"].values()) > 1000
        assert "PATTERN:" in community["teacher"]["answer"]
        assert community["student"]["golden_windows"] >= 9

    def test_the_release_names_a_commit_a_tag_and_an_address_for_every_repository(self, demo):
        release = demo["summary"]["release"]
        assert release["version"] == "0.1.0"
        assert set(release["addresses"]) == set(REPOSITORIES)

    def test_a_second_run_changes_nothing_and_says_so(self, demo):
        def state():
            refs = {
                str(path): path.read_text()
                for path in sorted(demo["hub"].rglob("refs/**/*"))
                if path.is_file()
            }
            files = {str(path): sha256_file(path) for path in sorted(demo["out"].glob("*/manifest.json"))}
            return refs, files, (demo["out"] / "version.json").read_text()

        before = state()
        done = subprocess.run(
            command(demo["recipe"], demo["out"]), env=demo["variables"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "nothing was changed" in done.stdout
        assert state() == before

    def test_no_token_and_no_private_key_is_printed_or_published(self, demo):
        token = (demo["hub"] / "client-token").read_text().strip()
        key = (demo["out"] / "keys" / "release-key.pem").read_text().splitlines()[1]
        assert token not in demo["printed"] and key not in demo["printed"]
        for name in (*REPOSITORIES, "release"):
            for path in (demo["out"] / name).rglob("*"):
                if path.is_file():
                    content = path.read_bytes()
                    assert token.encode() not in content and key.encode() not in content, path
