"""Shared fixtures: isolation from the machine, and the real data that lies beside a checkout."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Several tests run side by side, and torch's waiting threads must not take the others' cores. Large pages of
# memory save scoring a quarter of its time, where the system gives them out.
os.environ.update({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "THP_MEM_ALLOC_ENABLE": "1"})

# How long a machine takes says nothing of the code; a new one first builds the tables of characters.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED_FOLDER = "FOLDER_OF_ALL_TEST_PROCESSES"

LONGEST_FIRST = ("demo", "teacher_training", "teacher_real_configurations")
"""Test files that take minutes. What begins last ends last: then the other processes would wait for it."""


def pytest_configure(config):
    """The processes that run tests side by side share a folder; the one that starts them makes it."""
    if not hasattr(config, "workerinput"):
        os.environ[SHARED_FOLDER] = tempfile.mkdtemp(prefix="tests-")


def pytest_unconfigure(config):
    """The one that made the folder removes it."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SHARED_FOLDER), ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Files in alphabetical order, but for the longest."""
    order = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path_factory, monkeypatch):
    """No test sees the user's Hub cache or token, nor asks a proxy for a Hub of its own."""
    home = tmp_path_factory.mktemp("hf-home")
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN", "EISV_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def memory_of_a_device(monkeypatch):
    """The process of the tests holds torch and more, which would convict every release on probation."""
    monkeypatch.setattr("eisv_lumen.device.probation.resident_mb", lambda: 80.0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; tests that need it say so when it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real recordings (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    """A small student folder that nobody changes: `folders` has a copy."""
    from tests.release_artifacts import small_student

    return small_student(tmp_path_factory.mktemp("student") / "student")


@pytest.fixture
def folders(tmp_path, student) -> dict[str, Path]:
    """An artifact folder for every role of a release."""
    from tests.release_artifacts import release_folders

    return release_folders(tmp_path / "artifacts", student)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A running local Hub, which the client takes for its own."""
    from tests.release_artifacts import running_hub

    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def api(hub):
    """A client of it with a token that may write."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def settings(request, folders):
    """Names on the Hub of this test's own."""
    from tests.publishing import own_names

    return own_names(folders, request.node.name)
