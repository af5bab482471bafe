"""The local Hub under requests that no honest client sends, and under headers that clients rely on."""

import base64
import contextlib
import gc
import hashlib
import http.client
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.local import LocalHub, start
from hub.local.accounts import Account
from hub.local.check import problems
from hub.local.commits import first_commit
from hub.local.files import find
from hub.local.names import RepoName
from hub.local.refusal import Refusal
from hub.local.repositories import Repositories
from hub.local.revisions import commit_of
from hub.local.signing import AddressSigner

ZEROS = b"\0" * 5000
KEYS = st.sampled_from(["path", "content", "encoding", "oid", "size", "algo", "summary"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[LocalHub]:
    with start(root) as running:
        yield running
    assert list(problems(root)) == []


class Client:
    """Requests with the token, and nothing of `huggingface_hub`."""

    def __init__(self, hub: LocalHub, repo: str) -> None:
        self.url, self.repo = hub.url, repo
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {hub.token}"

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=20, **options)

    def commit(self, *operations: tuple[str, object], parent: str | None = None) -> requests.Response:
        header = {"summary": "s", "description": ""} | ({"parentCommit": parent} if parent else {})
        lines = [json.dumps({"key": key, "value": value}) for key, value in (("header", header), *operations)]
        return self.post(f"/api/models/{self.repo}/commit/main", data="\n".join(lines).encode())

    def head(self) -> str:
        return str(self.session.get(f"{self.url}/api/models/{self.repo}").json()["sha"])

    def upload_address(self, content: bytes, size: int | None = None) -> str | None:
        body = {
            "operation": "upload",
            "transfers": ["basic", "multipart", "xet"],
            "objects": [{"oid": sha256(content), "size": len(content) if size is None else size}],
        }
        answer = self.post(f"/{self.repo}.git/info/lfs/objects/batch", json=body).json()["objects"][0]
        return answer["actions"]["upload"]["href"] if "actions" in answer else None

    def get(self, path: str, **headers: str) -> requests.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.get(
            f"{self.url}/{self.repo}/resolve/{path}", headers=headers, allow_redirects=False
        )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def regular(path: str, content: bytes) -> tuple[str, object]:
    return "file", {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


def large(path: str, content: bytes, **more: object) -> tuple[str, object]:
    return "lfsFile", {"path": path, "algo": "sha256", "oid": sha256(content), **more}


@pytest.fixture
def client(hub: LocalHub, request: pytest.FixtureRequest) -> Client:
    name = "".join(char if char.isalnum() else "-" for char in request.node.name.removeprefix("test_"))
    client = Client(hub, "hikewa/" + "-".join(filter(None, name.split("-")))[:90].strip("-"))
    created = client.post(
        "/api/repos/create", json={"name": client.repo.split("/")[1], "organization": "hikewa"}
    )
    assert created.status_code == 200, created.text
    return client


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/.",
        ".git/config",
        "a/.GIT/hooks/x",
        ".git./x",
    ]
    + [
        ".git /x",
        "GIT~1/x",
        ".g\u200cit/x",
        ".git::$INDEX_ALLOCATION/x",
        "a\\b",
        "a\0b",
        "a\nb",
        "\ud800",
        "x" * 256,
    ]
    + ["/".join("x" * 70), "x/" * 600 + "x"],
)
def test_odd_paths_are_refused(hub: LocalHub, path: str, root: Path) -> None:
    client = Client(hub, "hikewa/odd-paths")
    client.post("/api/repos/create", json={"name": "hikewa/odd-paths"})
    head = client.head()
    for operation in (regular(path, b"x"), ("deletedFile", {"path": path}), large(path, b"x")):
        assert client.commit(operation).status_code in (422, 404), operation
    answer = client.post(
        f"/api/models/{client.repo}/preupload/main", json={"files": [{"path": path, "size": 1, "sample": ""}]}
    )
    assert answer.status_code == 422
    assert client.head() == head


@pytest.mark.parametrize(
    "name", ["../x", "..", ".git", "a/b/c", "a b", "-a", "a-", "a--b", "x" * 97, "x.git", "", "é"]
)
def test_odd_repository_names_are_refused(hub: LocalHub, name: str, root: Path) -> None:
    client = Client(hub, name)
    for body in ({"name": name}, {"name": "x", "organization": name}, {"name": "x", "organization": "api"}):
        assert client.post("/api/repos/create", json=body).status_code == 400
    assert not (root / "x.git").exists() and not (root / "repositories" / "x.git").exists()


@pytest.mark.parametrize(
    "path",
    ["/hikewa/%2e%2e/resolve/main/x", "/hikewa/raw-paths/resolve/main/../../../../tokens.json"]
    + ["/hikewa/raw-paths/resolve/main/..%2f..%2ftokens.json", "/hikewa/raw-paths/resolve/..%2f..%2fmain/x"]
    + [
        "/hikewa/raw-paths/resolve/main/%00",
        "/hikewa/raw-paths/resolve/%ff/x",
        "/%2e%2e/%2e%2e/resolve/main/x",
        "//",
        "/lfs/x",
    ]
    + [
        "/hikewa/raw-paths/blob/main/../../x",
        "/static/../app.py",
        "/api/models/hikewa/raw-paths/tree/main/..%2f..",
    ]
    + [
        "/api/models/hikewa/raw-paths/tree/main?cursor=!!",
        "/api/",
        "/api/models/x",
        "/datasets",
        "/a/b/c/d/e",
    ],
)
def test_odd_addresses_reach_nothing(hub: LocalHub, path: str) -> None:
    Client(hub, "").post("/api/repos/create", json={"name": "hikewa/raw-paths"})
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status in (400, 403, 404, 405) or path in ("//", "/datasets")
    assert hub.token.encode() not in body and b"Traceback" not in body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"{}",
        b"[]",
        b"nonsense",
        b'{"key": "header"}',
        b'{"key": "header", "value": []}',
        b"\xff\xfe",
    ]
    + [
        b'{"key": "header", "value": {"summary": ""}}',
        b'{"key": "header", "value": {"summary": 5}}',
        b"[" * 100_000,
    ]
    + [b'{"key": "file", "value": {"path": "a", "content": "", "encoding": "base64"}}']
    + [b'{"key": "header", "value": {"summary": "s", "parentCommit": "main"}}'],
)
def test_bad_commits_are_refused(hub: LocalHub, body: bytes) -> None:
    client = Client(hub, "hikewa/bad-commits")
    client.post("/api/repos/create", json={"name": "hikewa/bad-commits"})
    answer = client.post("/api/models/hikewa/bad-commits/commit/main", data=body)
    assert answer.status_code == 400 and answer.json()["error"] and answer.headers["X-Request-Id"]


def test_bad_operations_leave_nothing_of_a_commit(client: Client) -> None:
    head = client.head()
    bad: list[tuple[str, object]] = [
        ("file", {"path": "b", "content": "?", "encoding": "base64"}),
        ("file", {"path": "b", "content": "", "encoding": "rot13"}),
        ("file", {"path": "b"}),
        ("unknown", {"path": "b"}),
        ("header", {"summary": "again"}),
        ("lfsFile", {"path": "b", "algo": "sha256", "oid": "../../x"}),
        ("lfsFile", {"path": "b", "algo": "md5", "oid": "0" * 64}),
        regular("a/under-a-file", b""),
        regular("b", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"),
        regular("b", b"\0" * (11 << 20)),
    ]
    for operation in bad:
        answer = client.commit(regular("a", b"good"), operation)
        assert answer.status_code in (400, 413, 422), operation[0]
    assert client.head() == head


def test_half_characters_are_refused_or_not_found(client: Client) -> None:
    half = "\ud800"
    for path, body, status in (
        ("paths-info/main", {"paths": [half]}, 200),
        ("branch/b", {"startingPoint": half}, 404),
        ("tag/main", {"tag": "v1", "message": half}, 400),
        ("super-squash/main", {"message": half}, 400),
        ("preupload/main", {"files": [{"path": half, "size": 1}]}, 422),
    ):
        assert client.post(f"/api/models/{client.repo}/{path}", json=body).status_code == status, path
    card = '---\nlicense: mit\ntags: ["\\ud800"]\n---\n'
    assert client.commit(regular("README.md", card.encode())).status_code == 400
    assert client.post("/api/validate-yaml", json={"content": card, "repoType": "model"}).status_code == 400


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_JSON)
def test_no_json_makes_the_server_fail(hub: LocalHub, value: Any) -> None:
    client = Client(hub, "hikewa/any-json")
    client.post("/api/repos/create", json={"name": "hikewa/any-json"})
    for key in ("file", "lfsFile", "deletedFolder"):
        assert client.commit((key, value)).status_code in (200, 400, 404, 413, 422)
    body = (
        value
        if isinstance(value, dict)
        else {"files": value, "objects": value, "paths": value, "content": value}
    )
    bodies = (body, {"operation": "upload", "objects": [value]}, {"files": [value]}, {"tag": value})
    bodies += (
        {"startingPoint": value},
        {"paths": [value]},
        {"tag": "x", "message": value},
        {"content": value},
    )
    paths = ("/api/models/hikewa/any-json/preupload/main", "/hikewa/any-json.git/info/lfs/objects/batch")
    paths += (
        "/api/models/hikewa/any-json/paths-info/main",
        "/api/validate-yaml",
        "/api/models/hikewa/any-json/tag/main",
        "/api/models/hikewa/any-json/branch/x",
        "/api/models/hikewa/any-json/super-squash/main",
    )
    for path in paths:
        for each in bodies:
            assert client.post(path, json=each).status_code < 500


def test_large_file_must_be_there_with_its_size(client: Client) -> None:
    content = b"one large file"
    assert client.commit(large("a.bin", content)).status_code == 400
    href = client.upload_address(content)
    assert href is not None
    assert requests.put(href, data=content).headers["ETag"] == f'"{sha256(content)}"'
    assert client.upload_address(content) is None  # nothing left to do
    assert client.commit(large("a.bin", content, size=3)).status_code == 400
    assert client.commit(large("a.bin", content, size=len(content))).status_code == 200
    assert client.get("main/a.bin").content == content


@pytest.mark.parametrize(
    "sent",
    [b"", b"x" * 99, b"x" * 101, b"y" * 100, b"x" * 99 + b"\0"],
    ids=["empty", "short", "long", "other", "last"],
)
def test_lying_uploads_are_refused(client: Client, sent: bytes, root: Path) -> None:
    content = b"x" * 100
    href = client.upload_address(content)
    assert href is not None

    def in_chunks() -> Iterator[bytes]:
        yield sent or b" "

    assert requests.put(href, data=sent).status_code == 400
    assert requests.put(href, data=in_chunks()).status_code == 400  # no Content-Length to compare
    folder = root / "repositories" / "models" / f"{client.repo}.git" / "lfs"
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert requests.put(href, data=content).status_code == 200  # the address is still good


def test_upload_addresses_are_signed_and_expire(
    client: Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, name = b"signed", RepoName("models", *client.repo.split("/"))
    href = client.upload_address(content)
    assert href is not None
    forged = [
        href.replace("size=6", "size=7"),
        href[:-1] + ("0" if href[-1] != "0" else "1"),
        href.split("?")[0],
    ]
    forged += [href.replace(sha256(content), sha256(b"other")), href.replace(client.repo, "hikewa/other")]
    for each in forged:
        assert requests.put(each, data=content).status_code == 403
    assert requests.get(href).status_code == 403  # an address to send is none to fetch
    signer = AddressSigner(root / "signing.key")
    monkeypatch.setattr("time.time", lambda: 1_000_000_000)
    late = signer.address("PUT", name, sha256(content), len(content))
    monkeypatch.undo()
    assert "expired" in requests.put(client.url + late, data=content).json()["error"]


def test_objects_of_one_repository_are_not_anothers(client: Client) -> None:
    client.post("/api/repos/create", json={"name": "hikewa/others-objects", "private": True})
    other = Client.__new__(Client)
    other.url, other.session, other.repo = client.url, client.session, "hikewa/others-objects"
    href = other.upload_address(b"theirs")
    assert href is not None and requests.put(href, data=b"theirs").status_code == 200
    assert client.upload_address(b"theirs") is not None
    assert client.commit(large("a.bin", b"theirs")).status_code == 400


def test_git_lfs_can_download(client: Client) -> None:
    href = client.upload_address(ZEROS)
    assert href is not None
    requests.put(href, data=ZEROS)
    body = {
        "operation": "download",
        "objects": [{"oid": sha256(ZEROS), "size": len(ZEROS)}, {"oid": "0" * 64, "size": 1}],
    }
    answer = requests.post(f"{client.url}/{client.repo}.git/info/lfs/objects/batch", json=body)
    found, absent = answer.json()["objects"]
    assert requests.get(found["actions"]["download"]["href"]).content == ZEROS
    assert absent["error"]["code"] == 404
    assert answer.headers["Content-Type"] == "application/vnd.git-lfs+json"


def test_resolve_has_the_headers_that_clients_need(client: Client) -> None:
    href = client.upload_address(ZEROS)
    assert href is not None
    requests.put(href, data=ZEROS)
    client.commit(regular("a.txt", b"0123456789"), large("b.bin", ZEROS))
    for path, size in (("main/a.txt", 10), ("main/b.bin", 5000)):
        url = f"{client.url}/{client.repo}/resolve/{path}"
        head = requests.head(url, headers={"Accept-Encoding": "gzip"})
        assert head.status_code == 200 and head.headers["X-Repo-Commit"] == client.head()
        assert head.headers["Content-Length"] == str(size) and "Content-Encoding" not in head.headers
        assert head.headers["Accept-Ranges"] == "bytes"
    assert head.headers["ETag"] == head.headers["X-Linked-Etag"] == f'"{sha256(ZEROS)}"'
    assert head.headers["X-Linked-Size"] == "5000"
    git_sha1 = hashlib.sha1(b"blob 10\x000123456789").hexdigest()
    assert client.get("main/a.txt").headers["ETag"] == f'"{git_sha1}"'
    missing = client.get("main/absent")
    assert (
        missing.headers["X-Error-Code"] == "EntryNotFound"
        and missing.headers["X-Repo-Commit"] == client.head()
    )
    assert client.get("absent/a.txt").headers["X-Error-Code"] == "RevisionNotFound"


def test_ranges(client: Client) -> None:
    client.commit(regular("a.txt", b"0123456789"))
    cases = {
        "bytes=2-4": b"234",
        "bytes=7-": b"789",
        "bytes=-2": b"89",
        "bytes=0-99": b"0123456789",
        "bytes=-99": b"0123456789",
    }
    for asked, content in cases.items():
        answer = client.get("main/a.txt", Range=asked)
        assert (answer.status_code, answer.content) == (206, content)
        assert answer.headers["Content-Length"] == str(len(content))
    assert client.get("main/a.txt", Range="bytes=2-4").headers["Content-Range"] == "bytes 2-4/10"
    for asked in ("bytes=10-", "bytes=99-100", "bytes=-0"):
        answer = client.get("main/a.txt", Range=asked)
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10")
    for asked in (
        "bytes=4-2",
        "bytes=",
        "lines=1-2",
        "bytes=0-1,3-4",
        "bytes=x-y",
        "bytes=" + "9" * 5000 + "-",
    ):
        assert client.get("main/a.txt", Range=asked).status_code == 200
    etag = client.get("main/a.txt").headers["ETag"]
    assert client.get("main/a.txt", Range="bytes=2-4", If_Range='"other"').status_code == 200
    assert client.get("main/a.txt", Range="bytes=2-4", If_Range=etag).status_code == 206
    assert client.get("main/a.txt", If_None_Match=etag).status_code == 304


def test_addresses_are_built_from_the_host_that_was_asked(client: Client) -> None:
    body = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}]}
    path = f"/{client.repo}.git/info/lfs/objects/batch"
    answer = client.post(path, json=body, headers={"Host": "pi.local:8700"}).json()
    assert answer["objects"][0]["actions"]["upload"]["href"].startswith("http://pi.local:8700/lfs/models/")
    assert client.post(path, json=body, headers={"Host": "evil/path"}).status_code == 400


def test_lookups_keep_nothing_in_memory(tmp_path: Path) -> None:
    # pygit2 1.21 leaks the names given to lookup_reference() and tree[path]: 64 bytes each, for ever.
    repositories, name = Repositories(tmp_path), RepoName("models", "a", "b")
    with repositories.creating(name, private=False, sdk=None) as repository:
        first_commit(repository, {"a.txt": b"a"}, Account("a", "write"))
    git = repositories.open(name).git

    def look_up(numbers: range) -> int:
        for number in numbers:
            commit = commit_of(git, "main")
            assert find(git, commit, f"absent/{number}") is None
            with contextlib.suppress(Refusal):
                commit_of(git, f"absent-{number}")
        gc.collect()
        return psutil.Process().memory_info().rss

    sizes = [look_up(range(5000 * round_number, 5000 * (round_number + 1))) for round_number in range(5)]
    growths = [after - before for before, after in pairwise(sizes)]
    assert min(growths) < 100_000, growths  # a leak shows in each round, a new arena only in some


def test_a_hundred_thousand_files_are_listed_in_pages(tmp_path: Path) -> None:
    repositories, name = Repositories(tmp_path), RepoName("models", "a", "b")
    wanted = {f"all/{number:05}.txt": b"%d" % (number % 10) for number in range(100_000)}
    with repositories.creating(name, private=False, sdk=None) as repository:
        first_commit(repository, wanted, Account("a", "write"))
    with start(tmp_path) as hub, requests.Session() as session:
        address, listed = f"{hub.url}/api/models/a/b/tree/main?recursive=true", []
        while address:
            answer = session.get(address)
            assert answer.status_code == 200 and len(answer.json()) <= 1000
            listed += [row["path"] for row in answer.json() if row["type"] == "file"]
            address = answer.links.get("next", {}).get("url")
        assert listed == sorted(wanted)
        assert session.get(f"{hub.url}/a/b/tree/main/all", headers={"Accept": "text/html"}).status_code == 200
        assert psutil.Process(hub.pid).memory_info().rss < 400e6


def test_a_name_without_a_namespace_is_no_repository(client: Client) -> None:
    for path in ("/api/models/absent/revision/main", "/api/datasets/absent/tree/main", "/api/models/a/refs"):
        answer = client.session.get(client.url + path)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_deleting_needs_not_know_files_from_folders(client: Client) -> None:
    assert client.commit(regular("d/a.txt", b"1"), regular("d/e/b.txt", b"2"), regular("f", b"3")).ok
    assert client.commit(("deletedFile", {"path": "d"})).ok
    listed = client.session.get(f"{client.url}/api/models/{client.repo}/tree/main?recursive=true").json()
    assert [row["path"] for row in listed] == [".gitattributes", "f"]
    gone = client.commit(("deletedFile", {"path": "d"}))
    assert (gone.status_code, gone.headers["X-Error-Code"]) == (404, "EntryNotFound")


def test_newer_clients_are_told_to_leave_xet(client: Client) -> None:
    answer = client.session.get(f"{client.url}/api/models/{client.repo}/xet-write-token/main")
    assert answer.status_code == 404 and "HF_HUB_DISABLE_XET=1" in answer.json()["error"]


def test_nothing_can_be_pushed_with_git(client: Client) -> None:
    assert (
        client.session.get(f"{client.url}/{client.repo}.git/info/refs?service=git-receive-pack").status_code
        == 403
    )
    assert client.post(f"/{client.repo}.git/git-receive-pack", data=b"0000").status_code == 403


def test_too_large_requests_are_refused(client: Client) -> None:
    assert client.post("/api/validate-yaml", data=b" " * (17 << 20)).status_code == 413
    many = [("deletedFile", {"path": "a"})] * 25_001
    assert client.commit(*many).status_code == 413
    body = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1 << 60}]}
    assert client.post(f"/{client.repo}.git/info/lfs/objects/batch", json=body).status_code == 413


def test_yaml_validation_answers_like_the_hub(client: Client) -> None:
    def check(content: str, kind: str = "model") -> tuple[int, list[str], list[str]]:
        answer = client.post("/api/validate-yaml", json={"content": content, "repoType": kind})
        rows = answer.json()
        return answer.status_code, *([row["message"] for row in rows[key]] for key in ("errors", "warnings"))

    assert check("---\nlicense: mit\n---\n# Card") == (200, [], [])
    assert check("# Card") == (200, [], ["empty or missing yaml metadata in repo card"])
    index = "---\nlicense: mit\nmodel-index:\n- name: m\n  results:\n  - task: {type: t}\n"
    index += "    dataset: {type: d, name: D}\n    metrics:\n    - {type: f1, value: %s}\n---\n"
    assert check(index % "0.5")[0] == 200
    assert check(index % "null")[1] == ['"model-index[0].results[0].metrics[0].value" is required']
    assert check(index % ".nan")[1] == ["NaN and infinite numbers are not allowed in metadata"]
    assert check("---\nbase_model: ./local/path/x\n---\n")[0] == 400
    assert check("---\nlicense: mit\n---\n", "space")[1] == [
        '"sdk" must be one of [gradio, docker, static, streamlit]'
    ]
    assert check("---\na: &a [1]\nb: *a\n---\n")[0] == 400
    form = client.post("/api/validate-yaml", data={"content": "---\nlicense: x\n---\n", "repoType": "model"})
    assert form.status_code == 400 and '"license"' in form.text


def test_a_card_cannot_run_anything(client: Client) -> None:
    card = b"# Hi <script>alert(1)</script>\n<img src=x onerror=alert(1)> ![p](plot.png)\n"
    card += b"[a](javascript:alert(1)) <iframe src=/></iframe>\n"
    client.commit(regular("README.md", card), regular("page.html", b"<script>alert(1)</script>"))
    page = requests.get(f"{client.url}/{client.repo}")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    for forbidden in ("<script", "onerror", 'href="javascript:', "<iframe"):
        assert forbidden not in page.text
    assert f'src="/{client.repo}/resolve/main/plot.png"' in page.text
    served = client.get("main/page.html")
    assert (
        served.headers["Content-Type"].startswith("text/plain")
        and "sandbox" in served.headers["Content-Security-Policy"]
    )


def test_pages_show_card_files_history_and_tags(client: Client, hub: LocalHub) -> None:
    card = b"---\nlicense: mit\ntags: [eisv, lumen]\n---\n# The card's title\n\n|a|b|\n|-|-|\n|1|2|\n"
    oid = client.commit(regular("README.md", card), regular("d e/f<g>.txt", b"text & more")).json()[
        "commitOid"
    ]
    client.post(f"/api/models/{client.repo}/tag/main", json={"tag": "v9"})
    home = f"{client.url}/{client.repo}"
    front = requests.get(home).text
    for expected in ("<h1>The card", "<td>1</td>", "license", "lumen", "d e/f&lt;g&gt;.txt", "v9", oid[:8]):
        assert expected in front, expected
    assert "f&lt;g&gt;.txt" in requests.get(f"{home}/tree/v9/d%20e").text
    assert "text &amp; more" in requests.get(f"{home}/blob/main/d%20e/f%3Cg%3E.txt").text
    assert "initial commit" in requests.get(f"{home}/commits/main").text
    assert client.repo.split("/")[1] in requests.get(client.url).text
    missing = requests.get(f"{home}/tree/absent", headers={"Accept": "text/html"})
    assert missing.status_code == 404 and "<h1>404</h1>" in missing.text


def test_private_pages_need_a_token(client: Client, hub: LocalHub) -> None:
    client.session.put(f"{client.url}/api/models/{client.repo}/settings", json={"private": True})
    assert requests.get(f"{client.url}/{client.repo}").status_code == 404
    assert client.repo.split("/")[1] not in requests.get(client.url).text
    assert requests.get(f"{client.url}/{client.repo}", auth=("hikewa", hub.token)).status_code == 200
    asked = requests.get(f"{client.url}/login")
    assert asked.status_code == 401 and asked.headers["WWW-Authenticate"].startswith("Basic")
    # A browser adds its password to forms of other sites too: it must not be good for changes.
    body = {"name": "forged"}
    assert (
        requests.post(f"{client.url}/api/repos/create", json=body, auth=("hikewa", hub.token)).status_code
        == 401
    )
