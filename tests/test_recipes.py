"""The recipe: its file, its stages, and the version it plans."""

import json
import os
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from eisv_lumen.errors import ConfigurationError
from eisv_lumen.hub_client import client
from hub.local import start
from recipes.configuration import LocalHub, Recipe
from recipes.local_hub import open_hub
from recipes.plan import building
from recipes.readme import README, filled
from recipes.stages import Stage, StageError, Stages
from recipes.version import next_version

DEMO = Path("recipes/demo.yaml")


def test_demo_recipe_names_every_repository():
    recipe = Recipe.read(DEMO)
    assert recipe.release.repo_id("student") == "hikewa/eisv-lumen-student"
    assert recipe.release.repo_id("dataset") == "hikewa/unitares-eisv-trajectories"
    assert recipe.record.seconds * recipe.record.hz >= 20


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("namespace: hikewa", "namespace: ''", "namespace"),
        ("    space: eisv-lumen-explorer\n", "", "space"),
        ("seconds: 60", "seconds: 1", "at 2 Hz"),
        ("training/configs/student.yaml", "no/such.yaml", "no/such.yaml"),
        ("record:", "recrod:", "recrod"),
        ("port: 8700", "prot: 8700", "prot"),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_was_found(tmp_path, old, new, found):
    text = DEMO.read_text()
    assert old in text
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError, match=found):
        Recipe.read(path)


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing.yaml"):
        Recipe.read(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], "0.1.0"),
        (["v0.1.0"], "0.1.1"),
        (["v0.9.0", "v0.10.3", "v0.2.9"], "0.10.4"),
        (["latest", "v1", "2.0.0"], "0.1.0"),
        (["v1.4.2", "v2.0.0-rc.1"], "2.0.0"),
    ],
)
def test_the_next_version_follows_the_newest_semantic_tag(tags, expected):
    assert next_version(tags, "0.1.0") == expected


def test_the_readme_shows_what_was_measured_and_nothing_else():
    text = README.read_text("utf-8")
    assert filled(text) == text


def stage_writing(path: Path, text: str, code: int = 0) -> Stage:
    program = f"import pathlib, sys; pathlib.Path({str(path)!r}).write_text({text!r}); sys.exit({code})"
    return Stage("write", "writes a file", ["-c", program], path)


def test_a_stage_is_timed_when_it_worked_and_not_when_nothing_changed(tmp_path, capsys):
    record = tmp_path / "stages.json"
    stages = Stages(record)
    stages.run(stage_writing(tmp_path / "result", "one"), "1/1")
    assert stages.worked == ["write"]
    again = Stages(record)
    again.run(stage_writing(tmp_path / "result", "one"), "1/1")
    assert again.worked == []
    assert again.seconds == stages.seconds == json.loads(record.read_text())["seconds"]
    again.run(stage_writing(tmp_path / "result", "two"), "1/1")
    assert again.worked == ["write"]
    assert "unchanged" in capsys.readouterr().out


def test_two_stages_run_at_the_same_time_and_are_timed_apart(tmp_path):
    def sleeping(name: str, seconds: float, quiet: bool = False) -> Stage:
        result = tmp_path / name
        program = (
            f"import pathlib, time; time.sleep({seconds}); pathlib.Path({str(result)!r}).write_text('x')"
        )
        return Stage(name, "waits", ["-c", program], result, quiet=quiet)

    stages = Stages(tmp_path / "stages.json")
    stages.run(sleeping("busy", 2.0), "1-2/2", beside=sleeping("waiting", 1.5, quiet=True))
    assert set(stages.worked) == {"busy", "waiting"}
    assert stages.seconds["waiting"] < stages.seconds["busy"]
    assert stages.wall < stages.seconds["waiting"] + stages.seconds["busy"]


def test_when_one_of_two_stages_fails_the_other_is_stopped(tmp_path):
    waiting = Stage("waiting", "waits", ["-c", "import time; time.sleep(60)"], tmp_path / "never")
    failing = stage_writing(tmp_path / "half", "half", code=3)
    started = time.monotonic()
    with pytest.raises(StageError, match="exit code 3"):
        Stages(tmp_path / "stages.json").run(waiting, "1-2/2", beside=failing)
    assert time.monotonic() - started < 30


def test_time_adds_up_over_interruptions_and_starts_afresh_after_a_finished_run(tmp_path):
    record, result = tmp_path / "stages.json", tmp_path / "result"
    with pytest.raises(StageError):
        Stages(record).run(stage_writing(tmp_path / "half", "half", code=1), "1/1")
    assert Stages(record).wall > 0
    interrupted = 1e6  # longer than any machine takes
    record.write_text(json.dumps(json.loads(record.read_text()) | {"wall": interrupted}))
    resumed = Stages(record)
    resumed.run(stage_writing(result, "one"), "1/1")
    assert resumed.wall > interrupted
    resumed.finish()
    idle = Stages(record)
    idle.run(stage_writing(result, "one"), "1/1")
    assert idle.wall == resumed.wall
    after = Stages(record)
    after.run(stage_writing(result, "two"), "1/1")
    assert 0 < after.wall < interrupted


def test_a_failing_stage_stops_the_run_with_its_exit_code(tmp_path):
    stages = Stages(tmp_path / "stages.json")
    with pytest.raises(StageError, match="exit code 2") as caught:
        stages.run(stage_writing(tmp_path / "result", "half", code=2), "1/1")
    assert caught.value.exit_code == 2
    assert stages.seconds == {}


def test_a_missing_source_leaves_with_two_and_writes_nothing(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "recipes.run", "--out", out, "--source", tmp_path / "gone.csv"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "found: no file" in done.stderr and "next:" in done.stderr
    assert not out.exists()


def test_a_mapping_that_cannot_be_read_leaves_before_anything_is_trained(tmp_path):
    (tmp_path / "my log.csv").write_text("timestamp,x\n1,2\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "recipes.run", "--out", tmp_path / "out"),
            *("--source", tmp_path / "my log.csv", "--mapping", f"my-log={tmp_path / 'gone.yaml'}"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "found: gone.yaml: No such file" in done.stderr
    assert not (tmp_path / "out").exists()


def test_sources_and_mappings_reach_the_builder():
    stages = building(
        Recipe.read(DEMO), Path("out"), [Path("my log.csv"), Path("b.db")], ["my-log=a.yaml"], "UTC"
    )
    (command,) = (list(map(str, stage.command)) for stage in stages if stage.name == "dataset")
    given = [pair for pair in pairwise(command) if pair[0] in ("--source", "--mapping")]
    assert given[-3:] == [("--source", "my log.csv"), ("--source", "b.db"), ("--mapping", "my-log=a.yaml")]


def run_recipe(tmp_path: Path, *arguments: str, **hub: object) -> subprocess.CompletedProcess[str]:
    settings = yaml.safe_load(DEMO.read_text())
    settings["hub"] = {"root": str(tmp_path / "hub"), "port": 0, **hub}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "recipes.run", "--recipe", recipe, "--out", tmp_path / "out", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables["HF_HOME"] = str(tmp_path / "hf")
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120)


def test_an_occupied_port_is_told_before_anything_is_trained(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_recipe(tmp_path, port=taken.getsockname()[1])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "next:" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_hub_elsewhere_needs_a_token_and_an_answer_before_anything_is_trained(tmp_path, monkeypatch):
    done = run_recipe(tmp_path, "--hub", "http://127.0.0.1:9")
    assert done.returncode == 2 and "no token" in done.stderr
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf" / "token").write_text("hf_nobody")
    done = run_recipe(tmp_path, "--hub", "http://127.0.0.1:9")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "127.0.0.1:9" in done.stderr and "hf_nobody" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_wrong_token_is_told_before_anything_is_trained(tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_wrong")
    with start(tmp_path / "other") as hub:
        done = run_recipe(tmp_path, "--hub", hub.url)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "hf_wrong" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_killed_run_stops_its_stage_too(tmp_path):
    pid, waiting, runner = tmp_path / "pid", tmp_path / "waiting.py", tmp_path / "runner.py"
    waiting.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(120)\n"
    )
    runner.write_text(
        "from pathlib import Path\nfrom recipes.stages import Stage, Stages, leave_on_kill\nleave_on_kill()\n"
        f"stage = Stage('wait', 'waits', [{str(waiting)!r}], Path({str(tmp_path / 'result')!r}))\n"
        f"Stages(Path({str(tmp_path / 'stages.json')!r})).run(stage, '1/1')\n"
    )
    process = subprocess.Popen(
        [sys.executable, runner], stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) != 0
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_the_proxy_of_the_network_is_not_asked_for_the_local_hub(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy")
    with open_hub(LocalHub(root=str(tmp_path), port=0), None) as hub:
        assert client(hub.url, hub.token).whoami()["name"]
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1"
