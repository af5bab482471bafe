"""The command `eisv-lumen`, run as a user runs it: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eisv_lumen import __version__, cli
from eisv_lumen.device import slots
from eisv_lumen.device.current import Current
from eisv_lumen.device.home import Home
from eisv_lumen.device.starts import Starts
from eisv_lumen.errors import SourceError
from eisv_lumen.signing import SigningKey, TrustedKeys, write_trusted
from tests.release_artifacts import small_student

ROOT = Path(__file__).parents[1]


def lumen(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eisv_lumen.cli", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return small_student(tmp_path_factory.mktemp("student") / "student")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("timestamp,cpu_pct\n" + "".join(f"{1e9 + 2 * i:.0f},{i % 50}\n" for i in range(60)))
    return path


def test_the_version_costs_no_imports():
    probe = (
        "import sys; sys.argv = ['eisv-lumen', '--version']\n"
        "from eisv_lumen.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'huggingface_hub', 'cryptography', 'sqlite3'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split("\n")[:2] == [f"eisv-lumen {__version__}", "[]"]


def test_help_names_every_command():
    shown = lumen("--help").stdout
    assert all(
        name in shown for name in ("pull", "express", "run", "status", "rollback", "pin", "unpin", "channel")
    )


def test_express_with_a_student_folder_and_a_log(student, log, tmp_path):
    done = lumen("express", "--log", log, "--student", student, "--json", "--seed", 1, "--gate", 0)
    record = json.loads(done.stdout)
    assert done.returncode == 0 and record["source"] == "M" and record["n_states"] == 20
    assert record["expression"].startswith("~") and record["lumen_words"] and 0 <= record["confidence"] <= 1
    assert 20 < record["rss_mb"] <= record["peak_rss_mb"] and record["latency_ms"] > 0
    again = json.loads(
        lumen("express", "--log", log, "--student", student, "--json", "--seed", 1, "--gate", 0).stdout
    )
    assert again["expression"] == record["expression"]


def test_express_live_without_a_model_says_so_and_remembers(tmp_path):
    done = lumen("express", "--live", "--states", 4, "--every", 0.02, "--home", tmp_path / "home")
    assert done.returncode == 0 and done.stdout.startswith("[R] ~") and "trusted keys" in done.stdout
    weights = json.loads((tmp_path / "home" / "weights.json").read_text())
    assert sum(weights["updates"].values()) == 1


def test_the_home_may_come_from_the_environment(tmp_path):
    assert (
        lumen("status", EISV_LUMEN_HOME=str(tmp_path / "h"))
        .stdout.splitlines()[0]
        .endswith(str(tmp_path / "h"))
    )
    described = json.loads(lumen("status", "--json", XDG_DATA_HOME=str(tmp_path)).stdout)
    assert described["home"] == str(tmp_path / "eisv-lumen")


def test_run_speaks_until_it_is_told_to_stop(tmp_path):
    done = lumen("run", "--home", tmp_path, "--every", 0.01, "--count", 2, "--stride", 3, "--json")
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == ["R", "R"]
    command = [sys.executable, "-m", "eisv_lumen.cli", "run", "--home", str(tmp_path), "--every", "0.01"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline().startswith("[R]")
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in words


def test_a_damaged_journal_does_not_silence_it(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 500)
    done = lumen("run", "--home", tmp_path, "--every", 0.01, "--count", 2, "--stride", 3)
    assert done.returncode == 0 and done.stdout.count("[R] ~") == 2, done.stderr
    assert "not kept" in done.stderr and "journal.sqlite" in done.stderr


@pytest.mark.parametrize("fails", ["live.LiveTelemetry", "service.Service", "service.open_voice"])
def test_a_machine_that_cannot_listen_convicts_no_release(tmp_path, student, monkeypatch, fails):
    """Simulated: a step between the start of the probation and the first state fails."""
    home = Home(tmp_path)
    slots.switch(home, "a", "0.1.0")

    def broken(*_: object, **__: object) -> None:
        raise SourceError(found="no /proc/stat", expected="x", next="y")

    monkeypatch.setattr(f"eisv_lumen.device.{fails}", broken)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["eisv-lumen", "run", "--home", str(tmp_path)])
    for _ in range(5):
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
    starts = Starts.read(home)
    assert starts and starts.counted == starts and starts.crashed + starts.lost == 0
    assert Current.read(home).speaks is not None


def test_wishes_are_remembered_and_shown(tmp_path):
    (tmp_path / "device.json").write_text('{"repo_id": "a/b"}')
    assert "pinned to 0.1.0" in lumen("pin", "0.1.0", "--home", tmp_path).stdout
    assert lumen("channel", "beta", "--home", tmp_path).returncode == 0
    shown = lumen("status", "--home", tmp_path).stdout
    assert "channel   beta, pinned to 0.1.0" in shown and "the rules (nothing installed yet)" in shown
    described = json.loads(lumen("status", "--home", tmp_path, "--json").stdout)
    assert f"device    {described['device_id']}" in shown
    for words in (["unpin"], ["pin", "--none"]):
        lumen("pin", "0.2.0", "--home", tmp_path)
        assert json.loads(lumen(*words, "--home", tmp_path, "--json").stdout) == {"pin": None}
    assert json.loads((tmp_path / "device.json").read_text()) == {
        "repo_id": "a/b",
        "pin": None,
        "channel": "beta",
    }


def test_a_version_that_was_refused_cannot_be_pinned(tmp_path):
    (tmp_path / "device.json").write_text('{"repo_id": "a/b"}')
    (tmp_path / "state.json").write_text('{"refused": {"0.1.0": "failed its probation"}}')
    done = lumen("pin", "0.1.0", "--home", tmp_path)
    assert done.returncode == 2 and "failed its probation" in done.stderr
    assert json.loads((tmp_path / "device.json").read_text()) == {"repo_id": "a/b"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pin", "0.1.0"], "no repository configured"),
        (["pin"], "VERSION"),
        (["channel", "nightly"], "nightly"),
        (["express"], "--live --log"),
        (["express", "--live", "--states", "3"], "number from 4 to 20"),
        (["express", "--live", "--every", "-1"], "number above 0"),
        (["express", "--log", "absent.csv"], "absent.csv"),
        (["sing"], "sing"),
        (["rollback"], "no trusted keys"),
        (["pull"], "no repository configured"),
        (["pull", "--repo", "a/b"], "no trusted keys"),
        (["pull", "--repo", "a/b", "--trust", "absent.json"], "absent.json"),
        (["pull", "--hub", "ftp://x", "--repo", "a/b", "--trust", "KEYS"], "ftp://x"),
        (["pull", "--hub", "http://127.0.0.1:9", "--repo", "a/b", "--trust", "KEYS"], "no answer"),
        (["pull", "--hub", "http://127.0.0.1:9", "--repo", "a b", "--trust", "KEYS"], "namespace/name"),
        (["pull", "--repo", "a/b", "--channel", "nightly"], "nightly"),
    ],
)
def test_bad_input_is_refused_in_words(tmp_path, arguments, words):
    write_trusted(tmp_path / "keys.json", TrustedKeys([SigningKey.generate().public]))
    given = [str(tmp_path / "keys.json") if part == "KEYS" else part for part in arguments]
    done = lumen(*given, EISV_LUMEN_HOME=str(tmp_path / "home"))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in ("found: ", "expected: ", "next: "))
    assert not list((tmp_path / "home").glob("slots/*"))
    if "no answer" not in words and "KEYS" in arguments:
        assert not list((tmp_path / "home").glob("*.json"))


def test_a_read_only_home(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file where the folder should be")
    done = lumen("status", "--home", tmp_path / "home" / "x")
    assert done.returncode == 2 and "found: " in done.stderr


def test_interrupted_it_leaves_with_130(tmp_path):
    command = [sys.executable, "-m", "eisv_lumen.cli", "express", "--live", "--home", str(tmp_path)]
    # A shell's background job ignores Ctrl-C, and its children inherit that.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr and "listening" in process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in words
