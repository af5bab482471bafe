"""A release to private repositories: whoever has a token publishes, pulls and loads; others see nothing."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from eisv_lumen.device.home import Home
from eisv_lumen.device.updater import Updater
from eisv_lumen.errors import HubError
from eisv_lumen.signing import TrustedKeys
from recipes.configuration import Recipe
from recipes.device import Device
from recipes.local_hub import Hub
from recipes.plan import publishing
from tests.publishing import KEY, TYPES, own_names, publish


def test_from_publishing_to_the_device_and_the_community(hub, folders, tmp_path):
    settings = own_names(folders, "private", private=True)
    publish(HfApi(endpoint=hub.url, token=hub.token), settings, folders)
    stranger, friend = (HfApi(endpoint=hub.url, token=token) for token in (False, hub.token))
    for role, repo_type in TYPES.items():
        with pytest.raises(RepositoryNotFoundError):
            stranger.repo_info(settings.repo_id(role), repo_type=repo_type)
        assert friend.repo_info(settings.repo_id(role), repo_type=repo_type).private
    home = Home(tmp_path / "home")
    home.write("trust.json", TrustedKeys([KEY.public]).to_dict())
    home.write("device.json", {"repo_id": settings.repo_id("student"), "hub": hub.url})
    with pytest.raises(HubError):
        Updater(home).pull()
    assert Updater(home, hub.token).pull().version == "0.1.0"
    loaded = snapshot_download(
        settings.repo_id("dataset"),
        repo_type="dataset",
        revision="v0.1.0",
        endpoint=hub.url,
        token=hub.token,
        local_dir=tmp_path / "loaded",
    )
    assert (tmp_path / "loaded" / "weights.json").read_bytes() == b"{}\n", loaded


@pytest.mark.parametrize("private", [False, True])
def test_the_recipe_gives_a_token_to_readers_only_where_they_need_one(tmp_path, private):
    text = Path("recipes/demo.yaml").read_text()
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("release:\n", f"release:\n  private: {str(private).lower()}\n"))
    stages = publishing(
        Recipe.read(path), tmp_path / "out", Hub("http://127.0.0.1:1", "hf_x", local=True), "0.1.0"
    )
    has = {stage.name: "HF_TOKEN" in stage.environment for stage in stages}
    assert has == {"release": True, "device": private, "community": private}
    device = Device(tmp_path / "device", "hf_x")
    assert "hf_x" not in repr(device)
