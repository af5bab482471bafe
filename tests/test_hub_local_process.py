"""The local Hub as a process: how it starts, refuses to start, stops, and survives being killed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from huggingface_hub import CommitOperationAdd, HfApi

from eisv_lumen.errors import HubError
from hub.local import LocalHub, start
from hub.local.check import main as check_main
from hub.local.check import problems

CHECKOUT = Path(__file__).resolve().parents[1]
TOKEN = "hf_a_token_that_must_not_be_logged"


def serve(*options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; for starts that are refused."""
    command = [sys.executable, "-m", "hub.local", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], error: str, found: str) -> None:
    assert done.returncode == 2, done.stderr
    assert (
        error in done.stderr
        and found in done.stderr
        and "expected:" in done.stderr
        and "next:" in done.stderr
    )
    assert "Traceback" not in done.stderr and TOKEN not in done.stderr and done.stdout == ""


def test_an_occupied_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert_refused(serve("--root", tmp_path, "--port", taken.getsockname()[1]), "ResourceError", "in use")


def test_folders_without_room_or_rights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(
        serve("--root", tmp_path / "file" / "hub", "--port", 0), "ResourceError", "cannot be written"
    )
    if Path("/proc/sys").is_dir():  # read-only even for root
        assert_refused(serve("--root", "/proc/sys/hub", "--port", 0), "ResourceError", "cannot be written")
    ready = tmp_path / "file" / "ready.json"
    done = serve("--root", tmp_path / "hub", "--port", 0, "--ready-file", ready)
    assert_refused(done, "ResourceError", "ready file")
    assert_refused(
        serve("--root", tmp_path / "hub", "--port", 0, "--min-free-mib", 1 << 40), "ResourceError", "MiB free"
    )


def test_bad_accounts_are_refused_without_showing_a_token(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps({"tokens": {TOKEN: {"user": "x", "role": "admin"}}}))
    assert_refused(
        serve("--root", tmp_path / "hub", "--port", 0, "--token-file", accounts), "InputError", "tokens file"
    )
    assert_refused(
        serve("--root", tmp_path / "hub", "--port", 0, EISV_HUB_TOKEN=f"{TOKEN} x"),
        "InputError",
        "a token with",
    )


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with start(tmp_path), pytest.raises(HubError, match="another local Hub"):
        start(tmp_path)


def test_ready_file_roles_and_clean_stop(tmp_path: Path) -> None:
    root, ready = tmp_path / "hub", tmp_path / "deep" / "ready.json"
    command = [
        sys.executable,
        "-m",
        "hub.local",
        "--root",
        root,
        "--port",
        "0",
        "--ready-file",
        ready,
        "--verbose",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "EISV_HUB_TOKEN": TOKEN}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    facts = json.loads(ready.read_text())
    assert line == f"hub ready {facts['url']}" and facts["pid"] == process.pid
    tokens = json.loads((root / "tokens.json").read_text())["tokens"]
    assert tokens[TOKEN]["role"] == "write" and (root / "tokens.json").stat().st_mode & 0o077 == 0
    reader = next(token for token, account in tokens.items() if account["role"] == "read")
    for token, status in ((TOKEN, 200), (reader, 403), (None, 401)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        created = requests.post(
            f"{facts['url']}/api/repos/create", json={"name": "hikewa/x"}, headers=headers
        )
        assert created.status_code == status
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 0 and not ready.exists()
    assert "POST /api/repos/create 200" in messages and TOKEN not in messages and reader not in messages


def test_accounts_write_only_in_their_namespaces(tmp_path: Path) -> None:
    accounts = {"hf_alice_alice": {"user": "alice", "role": "write", "namespaces": ["team"]}}
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": accounts}))
    with start(tmp_path) as hub:
        alice = {"Authorization": "Bearer hf_alice_alice"}
        for name, status in (("alice/x", 200), ("team/x", 200), ("hikewa/x", 403)):
            answer = requests.post(f"{hub.url}/api/repos/create", json={"name": name}, headers=alice)
            assert answer.status_code == status
        owner = {"Authorization": f"Bearer {hub.token}"}
        requests.post(
            f"{hub.url}/api/repos/create", json={"name": "hikewa/p", "private": True}, headers=owner
        )
        assert requests.get(f"{hub.url}/api/models/hikewa/p", headers=alice).status_code == 404
        assert requests.get(f"{hub.url}/api/models/hikewa/p", headers=owner).status_code == 200


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = "import sys, pathlib, hub.local; print(hub.local.start(pathlib.Path(sys.argv[1])).pid)"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    pid = int(
        subprocess.check_output([sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=30)
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rsplit(")")[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the Hub outlived its parent")


def write_until_killed(hub: LocalHub, number: int, promised: list[tuple[str, str]]) -> None:
    """Commit small and large files until the server is gone; note what it confirmed."""
    api = HfApi(endpoint=hub.url, token=hub.token)
    for step in range(1000):
        content = f"{number} {step}".encode() * 2000
        files = [
            CommitOperationAdd(f"{number}/{step}.bin", content),
            CommitOperationAdd(f"{number}/{step}.txt", content),
        ]
        files += [
            CommitOperationAdd(f"{number}/{step}/{each}.txt", b"%d" % each) for each in range(60 * (step % 2))
        ]
        try:
            commit = api.create_commit("hikewa/killed", files, commit_message=f"{number} {step}").oid
        except Exception:
            return
        promised.append((commit, f"{number}/{step}.bin"))


def test_killed_in_the_middle_of_writing_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client would go on knocking at a dead server for a minute.
    monkeypatch.setattr("huggingface_hub.lfs.http_backoff", requests.request)
    promised: list[tuple[str, str]] = []
    chance = random.Random(0)
    for round_number in range(4):
        hub = start(tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        HfApi(endpoint=hub.url, token=hub.token).create_repo("hikewa/killed", exist_ok=True)
        numbers = range(10 * round_number, 10 * round_number + 3)
        writers = [
            threading.Thread(target=write_until_killed, args=(hub, number, promised)) for number in numbers
        ]
        for writer in writers:
            writer.start()
        time.sleep(0.4 + chance.random() * 0.4)
        hub.kill()
        for writer in writers:
            writer.join()
        hub.stop()
    # What a kill between two system calls leaves behind, in case the rounds above missed it.
    repository = tmp_path / "repositories" / "models" / "hikewa" / "killed.git"
    for leftover in ("refs/heads/main.lock", "objects/pack/tmp_pack_x", "lfs/incoming/x", "HEAD.lock"):
        (repository / leftover).write_text("left over")
    (tmp_path / "unfinished" / "new" / "objects").mkdir(parents=True)
    with start(tmp_path) as hub:
        assert list(problems(tmp_path)) == []
        api = HfApi(endpoint=hub.url, token=hub.token)
        commits = {commit.commit_id for commit in api.list_repo_commits("hikewa/killed")}
        files = set(api.list_repo_files("hikewa/killed"))
        assert len(promised) > 8
        assert all(commit in commits and path in files for commit, path in promised)
        before = len(commits)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        api.upload_file(path_or_fileobj=b"on", path_in_repo="on.bin", repo_id="hikewa/killed")
        assert len(api.list_repo_commits("hikewa/killed")) == before + 1
    assert not list((tmp_path / "unfinished").iterdir()) and not list(
        (repository / "lfs" / "incoming").iterdir()
    )


def test_the_check_finds_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(tmp_path) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("hikewa/damaged")
        files = [CommitOperationAdd("a.bin", b"1" * 50), CommitOperationAdd("b.bin", b"2" * 50)]
        api.create_commit("hikewa/damaged", files, commit_message="two")
    first, second = sorted((tmp_path / "repositories").rglob("lfs/objects/*/*/*"))
    monkeypatch.setattr("sys.argv", ["check", "--root", str(tmp_path)])
    assert check_main() == 0
    first.write_bytes(b"3" * 50)
    second.unlink()
    assert check_main() == 1
    output = capsys.readouterr().out
    assert "has other content" in output and "is missing" in output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_goes_on(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.lfs.http_backoff", requests.request)
    with start(small_disk, min_free_mib=0) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("hikewa/full")
        noise = random.Random(0).randbytes(4_000_000)
        pieces = [
            CommitOperationAdd(f"{at}.txt", noise[at : at + 40_000]) for at in range(0, 4_000_000, 40_000)
        ]
        for files in ([CommitOperationAdd("a.txt", noise)], pieces, [CommitOperationAdd("a.bin", noise)]):
            with pytest.raises((OSError, RuntimeError)) as refused:
                api.create_commit("hikewa/full", files, commit_message="too much")
            assert "507" in str(refused.value) or "507" in str(refused.value.__cause__)
        api.upload_file(path_or_fileobj=b"small", path_in_repo="b.txt", repo_id="hikewa/full")
        assert set(api.list_repo_files("hikewa/full")) == {".gitattributes", "b.txt"}
        assert list(problems(small_disk)) == []
