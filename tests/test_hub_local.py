"""The local Hub as the unmodified `huggingface_hub` client sees it: a real server process, real git."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hub.local import LocalHub, start

LARGE = bytes(range(256)) * 4096  # 1 MiB that goes to large-file storage by its name


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with start(tmp_path_factory.mktemp("hub")) as running, pytest.MonkeyPatch.context() as patch:
        # What HF_ENDPOINT sets on import: client 0.36 reads commit addresses by it, not by `endpoint=`.
        patch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@pytest.fixture(scope="module")
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    """A new model repository for one test."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").removeprefix("test-")[:90]
    return api.create_repo(f"hikewa/{name}").repo_id


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def test_whoami_names_user_and_role(api: HfApi) -> None:
    account = api.whoami()
    assert (account["name"], account["auth"]["accessToken"]["role"]) == ("hikewa", "write")


def test_create_repo_answers_with_its_address(api: HfApi, hub: LocalHub) -> None:
    url = api.create_repo("hikewa/created", repo_type="dataset")
    assert (str(url), url.repo_id, url.repo_type) == (
        f"{hub.url}/datasets/hikewa/created",
        "hikewa/created",
        "dataset",
    )
    assert api.create_repo("hikewa/created", repo_type="dataset", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("hikewa/created", repo_type="dataset")
    assert refused.value.response.status_code == 409
    assert not api.repo_exists("hikewa/created")  # a model of that name is another repository


def test_commit_and_read_back_regular_and_large_files(
    api: HfApi, repo: str, tmp_path: Path, hub: LocalHub
) -> None:
    info = api.create_commit(
        repo,
        [add("a.txt", b"small"), add("deep/er/model.safetensors", LARGE), add("empty.bin", b"")],
        commit_message="two",
        commit_description="with a description",
    )
    assert info.oid == api.model_info(repo).sha
    assert info.commit_url == f"{hub.url}/{repo}/commit/{info.oid}"
    for path, content in (("a.txt", b"small"), ("deep/er/model.safetensors", LARGE), ("empty.bin", b"")):
        file = hf_hub_download(repo, path, endpoint=hub.url, cache_dir=tmp_path, token=False)
        assert Path(file).read_bytes() == content
        assert Path(file).parts[-2 - path.count("/")] == info.oid
    newest = api.list_repo_commits(repo)[0]
    assert (newest.title, newest.message, newest.authors) == ("two", "with a description", ["hikewa"])


def test_a_revision_keeps_its_bytes_and_its_etag(
    api: HfApi, repo: str, tmp_path: Path, hub: LocalHub
) -> None:
    commits = [
        api.upload_file(path_or_fileobj=content, path_in_repo="model.onnx", repo_id=repo).oid
        for content in (b"first", b"second")
    ]
    api.create_tag(repo, tag="v1", revision=commits[0], tag_message="the first")
    for revision, content in (
        (commits[0], b"first"),
        ("v1", b"first"),
        ("main", b"second"),
        (commits[1][:8], b"second"),
    ):
        file = hf_hub_download(repo, "model.onnx", revision=revision, endpoint=hub.url, cache_dir=tmp_path)
        assert Path(file).read_bytes() == content
    assert api.model_info(repo, revision="v1").sha == commits[0]
    refs = api.list_repo_refs(repo)
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", commits[0])]


def test_tree_and_paths_tell_sizes_hashes_and_last_commits(api: HfApi, repo: str) -> None:
    first = api.create_commit(
        repo, [add("d/x.txt", b"x"), add("d/e/y.bin", LARGE)], commit_message="both"
    ).oid
    second = api.create_commit(repo, [add("d/x.txt", b"xx")], commit_message="one").oid
    rows = {row.path: row for row in api.list_repo_tree(repo, recursive=True, expand=True)}
    assert set(rows) == {".gitattributes", "d", "d/e", "d/e/y.bin", "d/x.txt"}
    assert (rows["d/x.txt"].size, rows["d/x.txt"].last_commit.oid) == (2, second)
    assert (rows["d/e/y.bin"].lfs.size, rows["d/e/y.bin"].last_commit.oid) == (len(LARGE), first)
    assert [row.path for row in api.list_repo_tree(repo, "d")] == ["d/e", "d/x.txt"]
    assert {row.path for row in api.get_paths_info(repo, ["d", "d/x.txt", "absent"])} == {"d", "d/x.txt"}
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "absent"))
    info = api.model_info(repo, files_metadata=True)
    sibling = next(each for each in info.siblings or [] if each.rfilename == "d/e/y.bin")
    assert (
        sibling.size == len(LARGE)
        and sibling.lfs is not None
        and sibling.lfs["sha256"] == rows["d/e/y.bin"].lfs.sha256
    )


def test_long_listings_come_in_pages_without_gaps(api: HfApi, repo: str) -> None:
    paths = [f"{folder}/{number:04}.txt" for folder in ("a", "a-b", "a.b", "b/c") for number in range(600)]
    api.create_commit(repo, [add(path, path.encode()) for path in paths], commit_message="many")
    listed = [row.path for row in api.list_repo_tree(repo, recursive=True)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {*paths, ".gitattributes", "a", "a-b", "a.b", "b", "b/c"}
    assert [row.path for row in api.list_repo_tree(repo, "a.b")] == [
        p for p in sorted(paths) if p.startswith("a.b/")
    ]


def test_a_folders_own_folders_come_before_its_files(hub: LocalHub, api: HfApi, repo: str) -> None:
    names = [f"{letter}{number}" for letter in "abc" for number in range(3)]
    files = [add(f"top/{name}/x", b"x") for name in names] + [add(f"top/{name}.txt", b"x") for name in names]
    api.create_commit(repo, [*files, add("top/a0-", b"x")], commit_message="mixed")
    wanted = [f"top/{name}" for name in names] + sorted(["top/a0-", *(f"top/{name}.txt" for name in names)])
    assert [row.path for row in api.list_repo_tree(repo, "top")] == wanted
    for limit in range(1, 8):
        address, listed = f"{hub.url}/api/models/{repo}/tree/main/top?limit={limit}", []
        while address:
            answer = requests.get(address, timeout=20)
            listed += [row["path"] for row in answer.json()]
            address = answer.links.get("next", {}).get("url")
        assert listed == wanted, limit


def test_only_the_properties_asked_for_are_listed_and_unknown_ones_refused(api: HfApi, repo: str) -> None:
    author = repo.split("/")[0]
    found = next(each for each in api.list_models(author=author, expand=["sha"]) if each.id == repo)
    assert found.sha == api.model_info(repo).sha and found.downloads is None and found.tags is None
    for ask in (
        lambda: list(api.list_models(expand=["foo"])),  # type: ignore[list-item]
        lambda: api.model_info(repo, expand=["foo"]),  # type: ignore[list-item]
    ):
        with pytest.raises(HfHubHTTPError, match="must be one of") as refused:
            ask()
        assert refused.value.response.status_code == 400
    assert list(api.list_models(author=author, gated=True)) == []


def test_stale_parent_is_refused_and_changes_nothing(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    head = api.create_commit(repo, [add("a", b"1")], commit_message="1", parent_commit=parent).oid
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit(repo, [add("b", b"2")], commit_message="2", parent_commit=parent)
    assert refused.value.response.status_code == 412
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(repo, [add("b", b"2")], commit_message="2", parent_commit="0" * 40)
    assert api.model_info(repo).sha == head
    api.create_commit(repo, [add("b", b"2")], commit_message="2", parent_commit=head[:7])


def test_a_repeated_request_is_answered_with_the_commit_it_made(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    made = [
        api.create_commit(repo, [add("a", b"1")], commit_message="1", parent_commit=parent).oid,
        api.create_commit(repo, [add("a", b"1")], commit_message="1", parent_commit=parent).oid,
    ]
    assert made[0] == made[1] and len(api.list_repo_commits(repo)) == 2


def test_deleting_and_copying_in_a_commit(api: HfApi, repo: str) -> None:
    api.create_commit(repo, [add("a", b"1"), add("d/b.bin", LARGE), add("d/c", b"3")], commit_message="fill")
    operations = [
        CommitOperationCopy("d/b.bin", "copy.bin"),
        CommitOperationDelete("a"),
        CommitOperationDelete("d/"),
    ]
    api.create_commit(repo, operations, commit_message="change")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "copy.bin"}
    for missing in ("a", "d/"):
        with pytest.raises(EntryNotFoundError):
            api.create_commit(repo, [CommitOperationDelete(missing)], commit_message="again")


def test_large_files_outside_the_known_patterns_are_added_to_gitattributes(
    api: HfApi, repo: str, hub: LocalHub
) -> None:
    api.upload_file(path_or_fileobj=b"x" * (11 << 20), path_in_repo="a b/big[1].txt", repo_id=repo)
    with HfFileSystem(endpoint=hub.url, token=hub.token).open(f"{repo}/.gitattributes") as file:
        last = file.read().splitlines()[-1]
    assert last == rb'"/a b/big\\[1\\].txt" filter=lfs diff=lfs merge=lfs -text'
    assert next(iter(api.get_paths_info(repo, "a b/big[1].txt"))).lfs is not None


def test_branches_and_tags_are_created_once_and_deleted(api: HfApi, repo: str) -> None:
    first = api.model_info(repo).sha
    api.create_branch(repo, branch="try/one")
    head = api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=repo, revision="try/one").oid
    assert api.model_info(repo).sha == first and api.model_info(repo, revision="try/one").sha == head
    api.create_tag(repo, tag="v1", revision="try/one")
    for again in (lambda: api.create_tag(repo, tag="v1"), lambda: api.create_branch(repo, branch="try/one")):
        with pytest.raises(HfHubHTTPError) as refused:
            again()
        assert refused.value.response.status_code == 409
    assert api.list_repo_refs(repo).tags[0].target_commit == head
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="try/one")
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(repo, tag="v1")
    for call in (
        lambda: api.delete_branch(repo, branch="main"),
        lambda: api.create_tag(repo, tag="bad..name"),
    ):
        with pytest.raises(HfHubHTTPError):
            call()


def test_super_squash_keeps_the_files(api: HfApi, repo: str) -> None:
    for content in (b"1", b"2", b"3"):
        api.upload_file(path_or_fileobj=content, path_in_repo="a", repo_id=repo)
    api.super_squash_history(repo, commit_message="one")
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["one"]
    assert set(api.list_repo_files(repo)) == {".gitattributes", "a"}


def test_history_comes_in_pages(api: HfApi, repo: str) -> None:
    for number in range(60):
        api.upload_file(
            path_or_fileobj=b"%d" % number, path_in_repo="a", repo_id=repo, commit_message=f"{number}"
        )
    assert [commit.title for commit in api.list_repo_commits(repo)] == [
        *map(str, range(59, -1, -1)),
        "initial commit",
    ]


def test_moved_and_deleted_repositories_are_gone_under_the_old_name(api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=LARGE, path_in_repo="a.bin", repo_id=repo)
    api.create_repo("hikewa/taken")
    with pytest.raises(HfHubHTTPError):
        api.move_repo(repo, "hikewa/taken")
    api.move_repo(repo, "hikewa/moved")
    assert not api.repo_exists(repo) and api.file_exists("hikewa/moved", "a.bin")
    api.delete_repo("hikewa/moved")
    assert not api.repo_exists("hikewa/moved")
    api.delete_repo("hikewa/moved", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("hikewa/moved")


def test_missing_things_have_the_errors_that_clients_know(
    api: HfApi, repo: str, tmp_path: Path, hub: LocalHub
) -> None:
    download = {"endpoint": hub.url, "cache_dir": tmp_path}
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo, "absent", **download)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo, "absent", local_files_only=True, **download)  # the absence is cached
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repo, "absent", revision="absent", **download)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("hikewa/absent", "absent", **download)
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id=repo, revision="absent")


def test_private_repositories_do_not_exist_for_others(api: HfApi, hub: LocalHub, tmp_path: Path) -> None:
    repo = api.create_repo("hikewa/secret", private=True).repo_id
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=repo)
    others = HfApi(endpoint=hub.url, token=False)
    with pytest.raises(RepositoryNotFoundError):
        others.model_info(repo)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(repo, "a", endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert repo not in [model.id for model in others.list_models(author="hikewa")]
    assert repo in [model.id for model in api.list_models(author="hikewa")]
    api.update_repo_settings(repo, private=False)
    assert others.model_info(repo).private is False


def test_strangers_cannot_write(hub: LocalHub, repo: str) -> None:
    with pytest.raises(HfHubHTTPError):
        HfApi(endpoint=hub.url, token=False).upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id=repo)
    with pytest.raises(HfHubHTTPError) as refused:
        HfApi(endpoint=hub.url, token="hf_unknown_token").model_info(repo)
    assert refused.value.response.status_code == 401 and "hf_unknown" not in str(refused.value)


def test_bad_metadata_is_refused_before_anything_is_written(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    for card in (
        b"---\nlicense: nonsense\n---\n",
        b"---\ntags: [1\n---\n",
        b"---\n- a\n---\n",
        b"---\na: 1\na: 2\n---\n",
    ):
        with pytest.raises(ValueError, match="Invalid metadata"):
            api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    assert api.model_info(repo).sha == head
    card = b"---\nlicense: mit\ntags: [eisv]\nlibrary_name: onnx\n---\n# Card\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    info = api.model_info(repo)
    assert (
        info.card_data is not None and info.card_data.license == "mit" and "license:mit" in (info.tags or [])
    )


def test_uploading_a_folder_twice_makes_one_commit(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(LARGE)
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "c.log").write_text("c")
    (tmp_path / ".gitignore").write_text("*.log\n")
    first = api.upload_folder(repo_id=repo, folder_path=tmp_path).oid
    assert set(api.list_repo_files(repo)) == {".gitattributes", ".gitignore", "sub/a.bin", "b.txt"}
    assert api.upload_folder(repo_id=repo, folder_path=tmp_path).oid == first
    target = tmp_path / "down"
    api.snapshot_download(repo, revision=first, local_dir=target, cache_dir=tmp_path / "cache")
    assert (target / "sub" / "a.bin").read_bytes() == LARGE


def test_sixteen_writers_on_one_branch_lose_nothing(api: HfApi, repo: str) -> None:
    def write(number: int) -> None:
        api.create_commit(repo, [add(f"{number}.bin", b"%d" % number)], commit_message=f"{number}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(48)))
    assert len(api.list_repo_files(repo)) == 49 and len(api.list_repo_commits(repo)) == 49


def test_a_thousand_files_in_one_commit(api: HfApi, repo: str, tmp_path: Path, hub: LocalHub) -> None:
    operations = [add(f"{number % 10}/{number}.txt", b"%d" % number) for number in range(1000)]
    api.create_commit(repo, operations, commit_message="many")
    assert len(api.list_repo_files(repo)) == 1001
    clone(hub.url, repo, tmp_path / "clone")
    assert (tmp_path / "clone" / "7" / "997.txt").read_bytes() == b"997"


def clone(url: str, repo: str, target: Path) -> None:
    command = ["git", "-c", "credential.helper=", "clone", "--quiet", f"{url}/{repo}", str(target)]
    environment = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(target.parent),
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run(command, check=True, capture_output=True, env=environment | {"GIT_LFS_SKIP_SMUDGE": "1"})


def test_git_clone_sees_the_same_history(api: HfApi, repo: str, tmp_path: Path, hub: LocalHub) -> None:
    head = api.create_commit(repo, [add("a.txt", b"1"), add("b.bin", LARGE)], commit_message="both").oid
    api.create_tag(repo, tag="v1")
    clone(hub.url, repo, tmp_path / "clone")
    read = ["git", "-C", str(tmp_path / "clone"), "rev-parse", "HEAD", "v1"]
    assert subprocess.check_output(read, text=True).split() == [head, head]
    pointer = (tmp_path / "clone" / "b.bin").read_bytes()
    assert pointer.startswith(b"version https://git-lfs") and b"size 1048576" in pointer


def test_private_git_clone_needs_the_token(api: HfApi, tmp_path: Path, hub: LocalHub) -> None:
    repo = api.create_repo("hikewa/secret-git", private=True, repo_type="dataset").repo_id
    with pytest.raises(subprocess.CalledProcessError):
        clone(hub.url, f"datasets/{repo}", tmp_path / "refused")
    url = hub.url.replace("http://", f"http://hikewa:{hub.token}@")
    clone(url, f"datasets/{repo}.git", tmp_path / "clone")
    assert (tmp_path / "clone" / ".gitattributes").exists()


def test_file_system_reads_ranges_and_writes(api: HfApi, repo: str, hub: LocalHub) -> None:
    files = HfFileSystem(endpoint=hub.url, token=hub.token)
    with files.open(f"{repo}/d/a.bin", "wb") as file:
        file.write(LARGE)
    with files.open(f"{repo}/d/a.bin", "rb", block_size=1000) as file:
        file.seek(70_000)
        assert file.read(10) == LARGE[70_000:70_010]
    assert files.cat_file(f"{repo}/d/a.bin", start=-3) == LARGE[-3:]
    assert [Path(path).name for path in files.glob(f"{repo}/d/*")] == ["a.bin"]
    files.rm(f"{repo}/d/a.bin")
    assert not files.exists(f"{repo}/d/a.bin")


def test_spaces_show_their_sdk(api: HfApi) -> None:
    repo = api.create_repo("hikewa/explorer", repo_type="space", space_sdk="gradio").repo_id
    info = api.space_info(repo)
    assert info.sdk == "gradio" and info.runtime is not None and info.runtime.stage == "STOPPED"
    with pytest.raises(ValueError, match="sdk"):
        api.upload_file(
            path_or_fileobj=b"# no sdk", path_in_repo="README.md", repo_id=repo, repo_type="space"
        )


def test_a_proposed_commit_stays_beside_the_branch(
    api: HfApi, repo: str, tmp_path: Path, hub: LocalHub
) -> None:
    head = api.model_info(repo).sha
    for number, content in ((1, b"1"), (2, b"2")):
        made = api.upload_file(path_or_fileobj=content, path_in_repo="a", repo_id=repo, create_pr=True)
        assert (made.pr_num, made.pr_revision) == (number, f"refs/pr/{number}")
    proposed = [api.model_info(repo, revision=revision).sha for revision in ("refs/pr/1", "refs/pr/2")]
    assert api.model_info(repo).sha == head
    listed = api.list_repo_refs(repo, include_pull_requests=True).pull_requests or []
    assert [(ref.ref, ref.target_commit) for ref in listed] == list(
        zip(("refs/pr/1", "refs/pr/2"), proposed, strict=True)
    )
    assert not api.list_repo_refs(repo).pull_requests
    file = hf_hub_download(repo, "a", revision="refs/pr/2", endpoint=hub.url, cache_dir=tmp_path)
    assert Path(file).read_bytes() == b"2"
    api.upload_file(path_or_fileobj=b"3", path_in_repo="a", repo_id=repo, revision="refs/pr/2")
    assert api.list_repo_commits(repo, revision="refs/pr/2")[1].commit_id == proposed[1]
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"4", path_in_repo="a", repo_id=repo, revision="refs/pr/3")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(repo, [add("a", b"4")], commit_message="4", parent_commit="0" * 40, create_pr=True)
    assert api.model_info(repo).sha == head
