"""Files answered from memory are those that the disk would give, whatever happened meanwhile."""

import pytest
import requests
from huggingface_hub import CommitOperationAdd, HfApi

from hub.local.files import File
from hub.local.recent import Found, RecentFiles

LARGE = bytes(range(256)) * 64


@pytest.fixture
def repo(api, request) -> str:
    """A repository with a small file and a large one."""
    made = api.create_repo(f"hikewa/recent-{abs(hash(request.node.name)) % 10**9}").repo_id
    put(api, made, {"a.txt": b"first", "deep/a.txt": b"deep", "large.bin": LARGE})
    return made


def put(api: HfApi, repo: str, files: dict[str, bytes]) -> str:
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return str(api.create_commit(repo, operations, commit_message="files").oid)


def get(api: HfApi, repo: str, rest: str, kind: str = "resolve", **options) -> requests.Response:
    """Asked twice: the second answer may come from memory, and is the same."""
    answers = [requests.get(f"{api.endpoint}/{repo}/{kind}/{rest}", timeout=20, **options) for _ in range(2)]
    told = [
        {name: value for name, value in each.headers.items() if name not in ("date", "x-request-id")}
        for each in answers
    ]
    assert told[0] == told[1] and answers[0].content == answers[1].content
    assert answers[0].status_code == answers[1].status_code
    return answers[1]


def test_a_branch_that_moved_gives_its_new_files(api, repo):
    assert get(api, repo, "main/a.txt").content == b"first"
    commit = put(api, repo, {"a.txt": b"second"})
    found = get(api, repo, "main/a.txt")
    assert found.content == b"second" and found.headers["x-repo-commit"] == commit
    api.delete_file("a.txt", repo)
    assert get(api, repo, "main/a.txt").headers["x-error-code"] == "EntryNotFound"
    assert get(api, repo, f"{commit}/a.txt").content == b"second"


def test_a_repository_made_again_has_nothing_of_the_one_before(api, repo):
    commit = api.repo_info(repo).sha
    assert get(api, repo, f"{commit}/a.txt").status_code == 200
    api.delete_repo(repo)
    assert get(api, repo, f"{commit}/a.txt").headers["x-error-code"] == "RepoNotFound"
    api.create_repo(repo)
    assert get(api, repo, f"{commit}/a.txt").headers["x-error-code"] == "RevisionNotFound"
    put(api, repo, {"a.txt": b"another"})
    assert get(api, repo, "main/a.txt").content == b"another"


def test_a_moved_repository_answers_under_its_new_name_alone(api, repo):
    get(api, repo, "main/a.txt")
    api.move_repo(repo, f"{repo}-moved")
    assert get(api, f"{repo}-moved", "main/a.txt").content == b"first"
    assert get(api, repo, "main/a.txt").headers["x-error-code"] == "RepoNotFound"


def test_what_became_private_is_hidden_at_once(hub, api, repo):
    assert get(api, repo, "main/a.txt").status_code == 200
    api.update_repo_settings(repo, private=True)
    assert get(api, repo, "main/a.txt").headers["x-error-code"] == "RepoNotFound"
    known = get(api, repo, "main/a.txt", headers={"Authorization": f"Bearer {hub.token}"})
    assert known.content == b"first"


def test_revisions_of_every_kind(api, repo):
    first = api.repo_info(repo).sha
    api.create_tag(repo, tag="plain", revision=first)
    api.create_tag(repo, tag="annotated", tag_message="with a message", revision=first)
    api.create_branch(repo, branch="side/way", revision=first)
    put(api, repo, {"a.txt": b"second"})
    for revision in (first, first[:8], "plain", "annotated", "side%2Fway", "refs%2Ftags%2Fplain"):
        found = get(api, repo, f"{revision}/a.txt")
        assert (found.content, found.headers["x-repo-commit"]) == (b"first", first), revision
    annotated = next(tag for tag in api.list_repo_refs(repo).tags if tag.name == "annotated")
    assert annotated.target_commit == first
    for revision in ("side", "absent", "..%2Fmain", "0" * 40):
        assert get(api, repo, f"{revision}/a.txt").headers["x-error-code"] == "RevisionNotFound", revision


@pytest.mark.parametrize("first", ["resolve", "raw"])
def test_a_large_files_pointer_is_not_taken_for_its_content(api, repo, first):
    for kind in (first, "raw", "resolve"):
        content = get(api, repo, "main/large.bin", kind).content
        assert (content == LARGE) if kind == "resolve" else content.startswith(b"version https://git-lfs")
    assert get(api, repo, "main/a.txt", "raw").content == b"first"


def test_ranges_and_etags_of_what_is_in_memory(api, repo):
    etag = get(api, repo, "main/a.txt").headers["etag"]
    assert get(api, repo, "main/a.txt", headers={"If-None-Match": etag}).status_code == 304
    part = get(api, repo, "main/a.txt", headers={"Range": "bytes=1-2"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"ir", "bytes 1-2/5")
    assert get(api, repo, "main/a.txt", headers={"Range": "bytes=9-"}).status_code == 416
    head = requests.head(f"{api.endpoint}/{repo}/resolve/main/a.txt", timeout=20)
    assert head.headers["content-length"] == "5" and head.content == b""
    assert get(api, repo, "main/deep/a.txt").content == b"deep"
    assert get(api, repo, "main/deep").headers["x-error-code"] == "EntryNotFound"


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    recent = RecentFiles(limit=100_000)
    files = {
        number: Found("c", File(str(number), "o", 10_000, 10_000, None), bytes(10_000))
        for number in range(50)
    }
    for number, found in files.items():
        recent.put(number, found)
        assert recent.get(0) is files[0]  # asked for again and again, so it stays
    kept = [number for number in files if recent.get(number)]
    assert kept == [0, *range(50 - len(kept) + 1, 50)] and 5 <= len(kept) <= 10
