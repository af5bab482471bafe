"""The proxy that lets requests fail, seen by an ordinary HTTP client and by the Hub's."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

from benchmarks.faults.proxy import FaultProxy, ProxyProcess
from benchmarks.faults.schedule import KINDS, Fault, random_schedule
from hub.local import LocalHub, start
from tests.release_artifacts import as_if_imported_with, running_hub

CONTENT = b"what the Hub holds " * 100
PATH = "/hikewa/proxied/resolve/main/a.txt"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        api = HfApi(endpoint=running.url, token=running.token)
        api.create_repo("hikewa/proxied")
        api.upload_file(path_or_fileobj=CONTENT, path_in_repo="a.txt", repo_id="hikewa/proxied")
        yield running


@pytest.fixture
def proxy(hub: LocalHub) -> Iterator[FaultProxy]:
    with FaultProxy(hub.url) as running:
        yield running


def get(proxy: FaultProxy, path: str = PATH) -> requests.Response:
    return requests.get(proxy.url + path, timeout=(2, 0.5))


def test_without_faults_it_is_not_noticed(proxy: FaultProxy, hub: LocalHub) -> None:
    through, direct = get(proxy), requests.get(hub.url + PATH)
    assert through.content == direct.content == CONTENT
    for name in ("ETag", "X-Repo-Commit", "Content-Length", "Accept-Ranges", "Content-Type"):
        assert through.headers[name] == direct.headers[name]
    head = requests.head(proxy.url + PATH)
    assert head.headers["Content-Length"] == str(len(CONTENT))
    part = requests.get(proxy.url + PATH, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, CONTENT[5:10])
    assert get(proxy, "/api/models/hikewa/absent").headers["X-Error-Code"] == "RepoNotFound"
    assert proxy.applied == [] and proxy.requests == 4


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("status", ["429", "500", "503"])
def test_refusals(proxy: FaultProxy, status: str, late: bool) -> None:
    proxy.load({0: Fault(status, late)})
    answer = get(proxy)
    assert answer.status_code == int(status) and answer.headers.get("Retry-After") == (
        "1" if status == "429" else None
    )
    assert get(proxy).content == CONTENT
    assert [(fault.number, fault.kind) for fault in proxy.applied] == [(0, status)]


@pytest.mark.parametrize("late", [False, True])
def test_a_reset_is_a_reset(proxy: FaultProxy, late: bool) -> None:
    proxy.load({0: Fault("reset", late)})
    with pytest.raises(requests.RequestException, match="reset by peer|104"):
        get(proxy)
    assert get(proxy).content == CONTENT


@pytest.mark.parametrize("late", [False, True])
def test_a_stall_lasts_until_the_client_gives_up(proxy: FaultProxy, late: bool) -> None:
    proxy.load({0: Fault("stall", late)})
    with pytest.raises((requests.Timeout, requests.ConnectionError), match="timed out"):
        get(proxy)
    assert get(proxy).content == CONTENT


def test_a_truncated_answer_ends_before_its_announced_length(proxy: FaultProxy) -> None:
    proxy.load({0: Fault("truncated", place=0.5)})
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        get(proxy)


def test_a_short_answer_hides_that_something_is_missing(proxy: FaultProxy) -> None:
    proxy.load({0: Fault("short", place=0.5)})
    assert get(proxy).content == CONTENT[: len(CONTENT) // 2]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_wrong_bytes_have_the_right_length(proxy: FaultProxy, place: float) -> None:
    proxy.load({0: Fault("wrong", place=place)})
    content = get(proxy).content
    assert len(content) == len(CONTENT)
    assert sum(a != b for a, b in zip(content, CONTENT, strict=True)) == 1


def test_a_fault_of_bodies_waits_for_an_answer_that_has_one(proxy: FaultProxy) -> None:
    proxy.load({0: Fault("wrong")})
    assert requests.head(proxy.url + PATH).status_code == 200 and proxy.applied == []
    assert get(proxy).content != CONTENT and len(proxy.applied) == 1


@pytest.mark.parametrize("kind", ["duplicate", "500", "reset", "stall"])
def test_the_hub_has_carried_out_what_the_client_does_not_hear_of(
    proxy: FaultProxy, hub: LocalHub, kind: str
) -> None:
    name = f"made-by-{kind}"
    proxy.load({0: Fault(kind, late=True)})
    options = {"json": {"name": f"hikewa/{name}"}, "headers": {"Authorization": f"Bearer {hub.token}"}}
    if kind in ("duplicate", "500"):
        answer = requests.post(f"{proxy.url}/api/repos/create", **options)
        assert answer.status_code == (409 if kind == "duplicate" else 500)  # taken, by its own first self
    else:
        with pytest.raises(requests.RequestException):
            requests.post(f"{proxy.url}/api/repos/create", timeout=0.5, **options)
    assert requests.get(f"{hub.url}/api/models/hikewa/{name}").status_code == 200


def test_large_files_and_pages_pass_it_too(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ProxyProcess(hub.url) as proxy:
        as_if_imported_with(proxy.url, monkeypatch)
        api = HfApi(endpoint=proxy.url, token=hub.token)
        repo = api.create_repo("hikewa/large").repo_id
        proxy.load({})
        files = [CommitOperationAdd(f"{number}.txt", b"%d" % number) for number in range(1200)]
        api.create_commit(repo, [*files, CommitOperationAdd("m.onnx", CONTENT)], commit_message="many")
        sent = proxy.seen()[0]
        assert sent >= 4  # what to send, where to, the large file itself, the commit
        assert len(api.list_repo_files(repo)) == 1202
        assert len(list(api.list_repo_tree(repo))) == 1202
        assert proxy.seen()[0] >= sent + 3  # one for the list, two pages of the tree
        path = hf_hub_download(repo, "m.onnx", endpoint=proxy.url, cache_dir=tmp_path)
        assert Path(path).read_bytes() == CONTENT


def test_a_wrong_byte_on_the_way_to_large_file_storage_is_refused(proxy: FaultProxy, hub: LocalHub) -> None:
    oid = hashlib.sha256(CONTENT).hexdigest()
    body = {"operation": "upload", "objects": [{"oid": oid, "size": len(CONTENT)}]}
    options = {"json": body, "headers": {"Authorization": f"Bearer {hub.token}"}}
    answer = requests.post(f"{proxy.url}/hikewa/proxied.git/info/lfs/objects/batch", **options).json()
    address = answer["objects"][0]["actions"]["upload"]["href"]
    assert address.startswith(proxy.url)
    proxy.load({0: Fault("wrong")})
    refused = requests.put(address, data=CONTENT)
    assert refused.status_code == 400 and "sha256" in refused.json()["error"]
    assert requests.put(address, data=iter([CONTENT])).status_code == 200  # sent in chunks, and whole


def test_a_hub_that_is_gone_ends_the_connection(tmp_path: Path) -> None:
    with start(tmp_path) as hub, FaultProxy(hub.url) as proxy:
        hub.kill()
        with pytest.raises(requests.ConnectionError):
            get(proxy)


def test_schedules_come_from_their_seed_and_know_every_kind() -> None:
    drawn = [random_schedule(random.Random(seed), 20) for seed in range(300)]
    assert drawn == [random_schedule(random.Random(seed), 20) for seed in range(300)]
    assert {fault.kind for schedule in drawn for fault in schedule.values()} == set(KINDS)
    assert any(len(schedule) >= 5 for schedule in drawn) and all(drawn)
