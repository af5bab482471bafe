"""A recipe that trains no base model: its adapter stands on a public one."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from eisv_lumen.errors import ConfigurationError
from hub.local import start
from recipes.configuration import REPOSITORIES, Recipe
from recipes.local_hub import Hub
from recipes.plan import building, publishing
from recipes.stages import Stage
from tests.random_models import random_base_and_teacher

RECIPE, DEMO = Path("recipes/qwen3-4b.yaml"), Path("recipes/demo.yaml")
ROOT = Path(__file__).parents[1]
PUBLIC = "someone/public-base"


class Parsed(BaseException):
    """Leaves a command once its arguments are read; nothing may catch it."""


@pytest.fixture
def parse_only(monkeypatch):
    """Commands read their arguments and do nothing else."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_leave(parser, *arguments):
        parse(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)


def stages_of(path: Path, out: Path) -> list[Stage]:
    recipe, hub = Recipe.read(path), Hub("http://127.0.0.1:9", "hf_x", local=True)
    return building(recipe, out, [Path("my.csv")], [], "UTC") + publishing(recipe, out, hub, "0.1.0")


def named_in(stages: list[Stage], option: str) -> set[str]:
    return {stage.name for stage in stages if option in stage.command}


def test_no_base_is_trained_named_or_published(tmp_path):
    stages = stages_of(RECIPE, tmp_path)
    assert "base" not in {stage.name for stage in stages} and named_in(stages, "--base") == set()
    wanted = tuple(name for name in REPOSITORIES if name != "base")
    assert Recipe.read(RECIPE).repositories == wanted
    for role in wanted:
        assert {"cards", "release", "community"} <= named_in(stages, f"--{role}")
    # What runs beside the recording must not read it.
    first, second = stages[:2]
    assert first.name == "recording" and tmp_path / "recording" not in second.command
    assert [stage.name for stage in stages].count("wheel") == 1


def test_the_demo_still_trains_and_publishes_its_own(tmp_path):
    stages = stages_of(DEMO, tmp_path)
    assert [stage.name for stage in stages[:3]] == ["recording", "base", "dataset"]
    assert named_in(stages, "--base") == {
        "teacher",
        "labels",
        "evaluation",
        "cards",
        "release",
        "community",
    }
    assert {stage.name for stage in stages} - {"base"} == {s.name for s in stages_of(RECIPE, tmp_path)}


@pytest.mark.parametrize("path", [RECIPE, DEMO])
def test_every_command_line_is_one_that_its_command_reads(path, tmp_path, parse_only, monkeypatch):
    read = 0
    for stage in stages_of(path, tmp_path):
        module, *arguments = [str(part) for part in stage.command[1:]]
        if module == "build":  # not ours
            continue
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed):
            importlib.import_module(module).main()
        read += 1
    assert read == len(stages_of(path, tmp_path)) - 1


def test_a_base_that_is_trained_needs_a_name(tmp_path):
    settings = yaml.safe_load(DEMO.read_text())
    del settings["release"]["names"]["base"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigurationError, match=r"release\.names\.base"):
        Recipe.read(tmp_path / "recipe.yaml")


@pytest.mark.slow
class TestCommunity:
    """The teacher loaded from the Hub, on a base that somebody else has published there."""

    PUSH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
for repo, folder in zip(*[iter(sys.argv[1:])] * 2):
    api.create_repo(repo)
    commit = api.upload_folder(repo_id=repo, folder_path=folder).oid
    api.create_tag(repo, tag="v0.1.0", revision=commit)
    api.delete_file("config.json" if "base" in repo else "adapter_config.json", repo)  # main has moved on
"""
    CHECK = """
import sys
from pathlib import Path
from eisv_lumen.errors import exit_with_reason
from recipes.community import check_teacher
folders = {"dataset": Path(sys.argv[1]), "teacher": Path(sys.argv[2])}
exit_with_reason(lambda: print(check_teacher(None, "us/teacher", "v0.1.0", folders)) or 0)
"""

    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory) -> Path:
        import pyarrow
        from pyarrow import parquet

        root = tmp_path_factory.mktemp("made")
        random_base_and_teacher(root / "base", root / "teacher", PUBLIC, {"passed": True, "n": 1})
        adapter = root / "teacher" / "adapter_config.json"
        adapter.write_text(json.dumps({**json.loads(adapter.read_text()), "revision": "v0.1.0"}))
        expressions = root / "dataset" / "data" / "expressions"
        expressions.mkdir(parents=True)
        prompt = [[{"role": "user", "content": "What do you feel?"}]]
        parquet.write_table(pyarrow.table({"prompt": prompt}), expressions / "test.parquet")
        return root

    @pytest.fixture
    def environment(self, tmp_path) -> Iterator[dict[str, str]]:
        with start(tmp_path / "hub") as hub:
            yield {
                **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": hub.token,
                "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "OMP_NUM_THREADS": "1",
            }

    def check(
        self, made: Path, environment: dict[str, str], *pushed: str | Path
    ) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", self.PUSH, "us/teacher", made / "teacher", *pushed]
        subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
        command = [sys.executable, "-c", self.CHECK, made / "dataset", made / "teacher"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)

    def test_it_answers_on_the_base_that_the_adapter_names_as_it_was_then(self, made, environment):
        done = self.check(made, environment, PUBLIC, made / "base")
        assert done.returncode == 0, done.stderr
        assert f"us/teacher@v0.1.0 on {PUBLIC}" in done.stdout

    def test_a_base_that_is_not_on_the_hub_in_use_is_told(self, made, environment):
        done = self.check(made, environment)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"found: {PUBLIC} at v0.1.0" in done.stderr and "HubError" in done.stderr
