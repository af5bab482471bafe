"""A student pulled from a Hub: one commit, whatever the tag does, with and without a network."""

import pytest
from huggingface_hub import HfApi

from eisv_lumen.errors import ArtifactError, HubError
from eisv_lumen.hub_client import HubNotFoundError, HubUnreachableError
from eisv_lumen.student import TrajectoryModel
from hub.local import LocalHub, start
from tests.student_folders import student_folder, synthetic_windows, write_student

REPOSITORY = "hikewa/a-student"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with start(tmp_path_factory.mktemp("hub")) as running, pytest.MonkeyPatch.context() as patch:
        # What HF_ENDPOINT sets on import: the client checks the addresses of commits by it.
        patch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template)
        push(running, student_folder(), "v0.1.0")
        yield running


def push(hub: LocalHub, folder, tag):
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo(REPOSITORY, exist_ok=True)
    commit = api.upload_folder(repo_id=REPOSITORY, folder_path=folder, commit_message=tag).oid
    api.create_tag(REPOSITORY, tag=tag, revision=commit)
    return commit


def test_a_tag_is_resolved_once_and_answers_as_the_folder_does(hub, tmp_path):
    pulled = TrajectoryModel.from_pretrained(
        REPOSITORY, revision="v0.1.0", endpoint=hub.url, cache_dir=tmp_path
    )
    assert pulled.version == "v0.1.0" and len(pulled.commit) == 40
    windows = synthetic_windows(9)[0]
    local = TrajectoryModel.from_pretrained(student_folder())
    assert (pulled.infer_batch(windows).token_ids == local.infer_batch(windows).token_ids).all()
    by_commit = TrajectoryModel.from_pretrained(
        REPOSITORY, revision=pulled.commit, endpoint=hub.url, cache_dir=tmp_path
    )
    assert by_commit.version == pulled.commit[:12]
    # Only what is needed is fetched: the other graph, the weights and the code stay where they are.
    fetched = {path.name for path in tmp_path.rglob("snapshots/*/**/*") if path.is_file()}
    assert fetched == {"config.json", "manifest.json", "model_int8.onnx"}


def test_a_tag_seen_before_is_found_without_a_network(hub, tmp_path):
    online = TrajectoryModel.from_pretrained(
        REPOSITORY, revision="v0.1.0", endpoint=hub.url, cache_dir=tmp_path
    )
    nobody = "http://127.0.0.1:9"
    offline = TrajectoryModel.from_pretrained(
        REPOSITORY, revision="v0.1.0", endpoint=nobody, cache_dir=tmp_path
    )
    assert offline.commit == online.commit
    with pytest.raises(HubUnreachableError):
        TrajectoryModel.from_pretrained(REPOSITORY, revision="v9.9.9", endpoint=nobody, cache_dir=tmp_path)


def test_main_moves_and_a_tag_stays(hub, tmp_path):
    write_student(tmp_path / "newer", seed=1)
    newer = push(hub, tmp_path / "newer", "v0.2.0")
    cache = tmp_path / "cache"
    main = TrajectoryModel.from_pretrained(REPOSITORY, endpoint=hub.url, cache_dir=cache)
    tagged = TrajectoryModel.from_pretrained(REPOSITORY, revision="v0.1.0", endpoint=hub.url, cache_dir=cache)
    assert main.commit == newer != tagged.commit


def test_what_is_not_there_is_named(hub, tmp_path):
    for repository, revision in (("hikewa/nothing", "main"), (REPOSITORY, "v7.0.0")):
        with pytest.raises(HubNotFoundError):
            TrajectoryModel.from_pretrained(
                repository, revision=revision, endpoint=hub.url, cache_dir=tmp_path
            )
    with pytest.raises(HubError):
        TrajectoryModel.from_pretrained("hikewa/--bad..name", endpoint=hub.url, cache_dir=tmp_path)


def test_a_file_altered_in_the_cache_is_refused(hub, tmp_path):
    TrajectoryModel.from_pretrained(REPOSITORY, revision="v0.1.0", endpoint=hub.url, cache_dir=tmp_path)
    blob = next(tmp_path.rglob("snapshots/*/onnx/model_int8.onnx")).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="altered"):
        TrajectoryModel.from_pretrained(REPOSITORY, revision="v0.1.0", endpoint=hub.url, cache_dir=tmp_path)
