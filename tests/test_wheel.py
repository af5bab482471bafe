"""The wheel: eisv_lumen alone, installed without torch, does a device's work in an empty environment."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted
from tests.release_artifacts import Repository, running_hub, small_student

ROOT = Path(__file__).parents[1]
NOT_ON_A_DEVICE = {
    "torch",
    "transformers",
    "peft",
    "datasets",
    "pandas",
    "pyarrow",
    "gradio",
    "starlette",
    "onnx",
}
NO_INDEX = ("Failed to establish", "Connection", "Temporary failure", "timed out")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def device(wheel, tmp_path_factory):
    """The `bin` folder of an environment with nothing but the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    venv.create(folder, with_pip=True)
    constraints = ["-c", str(ROOT / "constraints.txt")] if (ROOT / "constraints.txt").exists() else []
    command = [
        folder / "bin" / "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *constraints,
        wheel,
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode and any(words in done.stderr for words in NO_INDEX):
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def on(device: Path, command: str, *arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [str(device / command), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home,
        env=environment,
    )


def test_it_contains_the_ground_floor_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"eisv_lumen"}
    assert "eisv_lumen/device/updater.py" in names
    assert not [name for name in names if name.endswith((".pyc", ".onnx", ".parquet", ".csv", ".gz"))]


def test_an_empty_environment_stays_small(device, tmp_path):
    listed = on(device, "pip", "list", "--format", "json", "--disable-pip-version-check", home=tmp_path)
    packages = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"eisv-lumen", "numpy", "onnxruntime", "cryptography"} <= packages
    assert not packages & NOT_ON_A_DEVICE


def test_a_student_folder_speaks(device, tmp_path):
    student = small_student(tmp_path / "student")
    log = tmp_path / "log.csv"
    log.write_text("timestamp,cpu_pct\n" + "".join(f"{1e9 + 2 * i:.0f},{i % 50}\n" for i in range(60)))
    assert "express" in on(device, "eisv-lumen", "--help", home=tmp_path).stdout
    arguments = ("express", "--log", log, "--student", student, "--gate", 0, "--json")
    done = on(device, "eisv-lumen", *arguments, home=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["source"] == "M" and record["rss_mb"] < 200


def test_a_release_is_pulled_and_speaks(device, tmp_path):
    key = SigningKey.generate()
    write_trusted(tmp_path / "keys.json", TrustedKeys([key.public]))
    with running_hub(tmp_path / "hub") as hub:
        repository = Repository(HfApi(endpoint=hub.url, token=hub.token), "hikewa/student", key)
        repository.publish("0.1.0", small_student(tmp_path / "student"))
        arguments = ("pull", "--hub", hub.url, "--repo", "hikewa/student", "--trust", tmp_path / "keys.json")
        pulled = on(device, "eisv-lumen", *arguments, home=tmp_path)
        assert pulled.returncode == 0, pulled.stderr
        assert "installed 0.1.0" in pulled.stdout and "golden windows" in pulled.stderr
    express = ("express", "--live", "--states", 5, "--every", 0.05, "--gate", 0, "--json")
    record = json.loads(on(device, "eisv-lumen", *express, home=tmp_path).stdout)
    assert (record["source"], record["version"]) == ("M", "0.1.0") and record["rss_mb"] < 200
    assert "offline" in on(device, "eisv-lumen", "pull", home=tmp_path).stdout
