"""Shared fixtures: isolation from the machine, and the real data that lies beside a checkout."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
