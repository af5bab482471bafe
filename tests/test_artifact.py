import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ResourceError, SourceError


def make(out, content="one", *, configuration=None, kind="dataset", **more):
    """Build a small artifact; returns whether there was anything to do."""
    with artifact.build(out, kind=kind, configuration=configuration or {"a": 1}, **more) as work:
        if work is None:
            return False
        (work.folder / "data").mkdir()
        (work.folder / "data" / "rows.txt").write_text(content)
        (work.folder / "weights.json").write_text("{}")
        work.metrics = {"n": 1}
    return True


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(out):
    return (out / "data" / "rows.txt").read_text()


class Killed(BaseException):
    """Stands in for a kill inside this process: no handler of the project catches it."""


# A complete build.


def test_a_built_folder_describes_itself(tmp_path):
    source = tmp_path / "log.csv"
    source.write_text("time,value\n")
    make(tmp_path / "out", inputs={"log": source}, seed=7, generation=2, parent="0.1.0")
    manifest = artifact.verify(tmp_path / "out", kind="dataset")
    assert names(tmp_path / "out") == ["data", "manifest.json", "metrics.json", "weights.json"]
    assert set(manifest.files) == {"data/rows.txt", "weights.json", "metrics.json"}
    assert manifest.files["data/rows.txt"]["size"] == 3
    assert manifest.inputs == {"log": artifact.sha256_file(source)}
    assert (manifest.seed, manifest.generation, manifest.parent) == (7, 2, "0.1.0")
    assert manifest.libraries["numpy"]
    assert artifact.read_metrics(tmp_path / "out") == {"n": 1}


def test_nothing_is_left_beside_a_finished_folder(tmp_path):
    make(tmp_path / "out")
    make(tmp_path / "out", "two", configuration={"a": 2})
    assert names(tmp_path) == ["out"]
    assert content(tmp_path / "out") == "two"


def test_an_unchanged_build_is_skipped_and_touches_nothing(tmp_path):
    out = tmp_path / "out"
    assert make(out)
    before = {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]}
    assert not make(out, "other")
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]} == before
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "change", [{"configuration": {"a": 2}}, {"seed": 1}, {"generation": 1}, {"parent": "0.1.0"}]
)
def test_whatever_determines_the_content_causes_a_new_build(tmp_path, change):
    make(tmp_path / "out")
    assert make(tmp_path / "out", "two", **change)
    assert content(tmp_path / "out") == "two"
    artifact.verify(tmp_path / "out")


def test_a_changed_input_causes_a_new_build_and_the_same_one_does_not(tmp_path):
    make(tmp_path / "recording", kind="recording")
    make(tmp_path / "out", inputs={"recording": tmp_path / "recording"})
    assert not make(tmp_path / "out", inputs={"recording": tmp_path / "recording"})
    make(tmp_path / "recording", "more", kind="recording", configuration={"seconds": 2})
    assert make(tmp_path / "out", inputs={"recording": tmp_path / "recording"})


def test_a_card_written_later_belongs_to_the_folder(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("# Card")
    artifact.verify(tmp_path / "out")
    assert not make(tmp_path / "out")
    (tmp_path / "out" / "data" / "README.md").write_text("hidden")
    with pytest.raises(ArtifactError, match=r"data/README.md is not in the manifest"):
        artifact.verify(tmp_path / "out")


def test_a_relative_name_is_built_where_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(Path("deep/er/out"))
    artifact.verify(tmp_path / "deep" / "er" / "out")


def test_missing_metrics_are_a_mistake_unless_said(tmp_path):
    with (
        pytest.raises(AssertionError, match="no metrics"),
        artifact.build(tmp_path / "out", kind="dataset", configuration={}),
    ):
        pass
    assert not (tmp_path / "out").exists()
    with artifact.build(tmp_path / "out", kind="space", configuration={}, metrics_required=False) as work:
        (work.folder / "app.py").write_text("")
    assert set(artifact.verify(tmp_path / "out").files) == {"app.py"}


# Damage.


def truncate(out):
    (out / "weights.json").write_text("")


def alter(out):
    (out / "weights.json").write_text("[]")


def remove(out):
    (out / "data" / "rows.txt").unlink()


def add(out):
    (out / "data" / "more.txt").write_text("")


def add_a_nested_manifest(out):
    (out / "data" / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "weights.json is altered"),
        (alter, "weights.json is altered"),
        (remove, "data/rows.txt is missing"),
        (add, "data/more.txt is not in the manifest"),
        (add_a_nested_manifest, "data/manifest.json is not in the manifest"),
    ],
)
def test_damage_is_found_named_and_mended_by_building_again(tmp_path, damage, message):
    out = tmp_path / "out"
    make(out)
    damage(out)
    with pytest.raises(ArtifactError, match=message):
        artifact.verify(out)
    assert make(out)
    artifact.verify(out)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"kind": "dataset"}',
        '{"kind": "dataset", "files": null}',
        '{"colour": 1}',
        "\xff",
    ],
)
def test_a_damaged_manifest_is_refused_and_mended(tmp_path, text):
    out = tmp_path / "out"
    make(out)
    (out / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="manifest.json"):
        artifact.verify(out)
    assert make(out)
    artifact.verify(out)


def test_a_manifest_cannot_vouch_for_files_outside_its_folder(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "secret").write_text("x")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"sha256": artifact.sha256_file(tmp_path / "secret"), "size": 1}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="missing"):
        artifact.verify(tmp_path / "out")


def test_another_kind_is_refused(tmp_path):
    make(tmp_path / "out")
    with pytest.raises(ArtifactError, match="is a dataset"):
        artifact.verify(tmp_path / "out", kind="teacher")


@pytest.mark.parametrize("text", [None, "", "{"])
def test_missing_or_damaged_metrics_are_refused(tmp_path, text):
    make(tmp_path / "out")
    (tmp_path / "out" / "metrics.json").unlink()
    if text is not None:
        (tmp_path / "out" / "metrics.json").write_text(text)
    with pytest.raises(ArtifactError, match="metrics.json"):
        artifact.read_metrics(tmp_path / "out")


def test_an_unreadable_file_is_damage(tmp_path, monkeypatch):
    """Simulated, because root reads everything."""
    make(tmp_path / "out")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(artifact, "sha256_file", refuse)
    with pytest.raises(ArtifactError, match="Permission denied"):
        artifact.verify(tmp_path / "out")


# Inputs.


def test_missing_inputs_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"log\.csv"):
        make(tmp_path / "place" / "out", inputs={"log": tmp_path / "log.csv"})
    with pytest.raises(ArtifactError, match="empty"):
        make(tmp_path / "place" / "out", inputs={"dataset": tmp_path / "empty"})
    assert names(tmp_path) == ["empty"]


# What stands at the place already.


def test_a_users_folder_or_file_is_never_replaced(tmp_path):
    folder, file = tmp_path / "photos", tmp_path / "thesis.txt"
    folder.mkdir()
    (folder / "cat.jpg").write_text("cat")
    file.write_text("years of work")
    for out in (folder, file):
        with pytest.raises(ArtifactError, match="no artifact folder"):
            make(out)
    assert (folder / "cat.jpg").read_text() == "cat"
    assert file.read_text() == "years of work"
    assert names(tmp_path) == ["photos", "thesis.txt"]


def test_the_current_folder_is_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes").write_text("")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(ArtifactError):
        make(Path())
    assert names(tmp_path) == ["work"]


def test_an_artifact_of_another_kind_is_never_replaced(tmp_path):
    make(tmp_path / "out", kind="dataset")
    with pytest.raises(ArtifactError, match="is a dataset"):
        make(tmp_path / "out", "two", kind="teacher")
    assert content(tmp_path / "out") == "one"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert make(tmp_path / "out")
    artifact.verify(tmp_path / "out")


# Interruption.


def test_an_error_leaves_what_stood_before(tmp_path):
    out = tmp_path / "out"
    make(out)
    with (
        pytest.raises(RuntimeError, match="boom"),
        artifact.build(out, kind="dataset", configuration={"a": 2}) as work,
    ):
        (work.folder / "half").write_text("half")
        raise RuntimeError("boom")
    assert content(out) == "one"
    artifact.verify(out)


def test_an_interrupted_build_keeps_its_scratch_and_nothing_half_written(tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(KeyboardInterrupt),
        artifact.build(out, kind="teacher", configuration={}) as work,
    ):
        (work.folder / "half").write_text("half")
        (work.scratch / "checkpoint").write_text("step 100")
        raise KeyboardInterrupt
    assert not out.exists()
    with artifact.build(out, kind="teacher", configuration={}) as work:
        assert names(work.folder) == []
        assert (work.scratch / "checkpoint").read_text() == "step 100"
        work.metrics = {}
    assert set(artifact.verify(out).files) == {"metrics.json"}
    assert names(tmp_path) == ["out"]


def test_other_settings_never_see_the_checkpoints(tmp_path):
    for rate in (1, 2):
        with (
            pytest.raises(KeyboardInterrupt),
            artifact.build(tmp_path / "out", kind="teacher", configuration={"rate": rate}) as work,
        ):
            assert names(work.scratch) == []
            (work.scratch / "checkpoint").write_text(str(rate))
            raise KeyboardInterrupt
    assert len(list(tmp_path.glob(".out.work-*"))) == 1


STAGE = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from eisv_lumen import artifact

    out, rate, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    with artifact.build(out, kind="teacher", configuration={"rate": rate}) as work:
        if work is None:
            print("skipped", flush=True)
        else:
            known = (work.scratch / "checkpoint").exists()
            (work.scratch / "checkpoint").write_text("1")
            (work.folder / "model").write_text(rate)
            print("resumed" if known else "started", flush=True)
            time.sleep(pause)
            work.metrics = {}
    """
)


def stage(out, rate="1", pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, str(out), rate, str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(artifact.__file__).parents[1],
    )


def test_a_killed_stage_goes_on_where_it_was(tmp_path):
    out = tmp_path / "out"
    process = stage(out, pause=60)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    assert stage(out).communicate()[0] == "resumed\n"
    artifact.verify(out)
    assert stage(out).communicate()[0] == "skipped\n"
    assert names(tmp_path) == ["out"]


def test_a_second_process_waits_and_then_finds_the_work_done(tmp_path):
    out = tmp_path / "out"
    first = stage(out, pause=1.0)
    assert first.stdout.readline() == "started\n"
    second = stage(out)
    output, errors = second.communicate(timeout=30)
    first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)
    assert output == "skipped\n"
    assert "waiting" in errors
    assert names(tmp_path) == ["out"]


def test_a_second_process_with_other_settings_does_not_disturb_the_first(tmp_path):
    out = tmp_path / "out"
    first = stage(out, rate="1", pause=1.0)
    assert first.stdout.readline() == "started\n"
    second = stage(out, rate="2")
    output, _ = second.communicate(timeout=30)
    assert first.wait(timeout=30) == 0
    first.communicate()
    assert output == "started\n"
    assert (out / "model").read_text() == "2"
    artifact.verify(out)
    assert names(tmp_path) == ["out"]


def kill_at_rename(monkeypatch, number):
    """From now on, the given rename of the two that publish a folder is where the process dies."""
    rename, seen = Path.replace, []

    def replace(self, target):
        if self.name == "out" or (self.name == "folder" and Path(target).name == "out"):
            seen.append(self)
            if len(seen) == number:
                raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("next_settings", [{"a": 1}, {"a": 2}, {"a": 3}])
def test_a_kill_at_either_rename_loses_nothing(tmp_path, monkeypatch, number, next_settings):
    """{"a": 1} is what stood before, {"a": 2} what was being published, {"a": 3} something else."""
    out = tmp_path / "out"
    make(out, "one", configuration={"a": 1})
    with monkeypatch.context() as patch:
        kill_at_rename(patch, number)
        with pytest.raises(Killed):
            make(out, "two", configuration={"a": 2})
    assert out.exists() == (number == 1)

    with (
        pytest.raises(KeyboardInterrupt),
        artifact.build(out, kind="dataset", configuration=next_settings) as work,
    ):
        # What was complete is there again before the stage does anything.
        artifact.verify(out)
        assert content(out) == ("two" if next_settings == {"a": 2} else "one")
        assert (work is None) == (next_settings != {"a": 3})
        raise KeyboardInterrupt
    make(out, "three", configuration=next_settings)
    assert content(out) == {1: "one", 2: "two", 3: "three"}[next_settings["a"]]
    artifact.verify(out)


def test_a_build_killed_after_its_last_file_is_not_done_again(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        kill_at_rename(patch, 1)
        with pytest.raises(Killed):
            make(out)
    assert not out.exists()
    assert not make(out, "never written")
    assert content(out) == "one"
    assert names(tmp_path) == ["out"]


def test_what_a_kill_left_is_cleaned_though_there_is_nothing_to_build(tmp_path):
    make(tmp_path / "out")
    (tmp_path / ".out.work-0123456789abcdef" / "replaced").mkdir(parents=True)
    (tmp_path / ".out.lock").touch()
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    make(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before


def test_a_build_killed_before_its_cleaning_up_is_cleaned_by_the_next(tmp_path, monkeypatch):
    out = tmp_path / "out"
    make(out)

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "fsync_folder", killed)
        with pytest.raises(Killed):
            make(out, "two", configuration={"a": 2})
    assert content(out) == "two"
    artifact.verify(out)
    assert not make(out, configuration={"a": 2})
    make(out, "three", configuration={"a": 3})
    assert names(tmp_path) == ["out"]


# The place.


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 99, 1 << 20))
    with pytest.raises(ResourceError, match="1 MiB free") as error:
        make(tmp_path / "out")
    assert error.value.exit_code == 2
    assert names(tmp_path) == []


def test_a_disk_that_fills_on_the_way_leaves_what_stood_before(tmp_path):
    """Simulated: the write that would not fit raises what the system raises."""
    out = tmp_path / "out"
    make(out)
    with (
        pytest.raises(ResourceError, match="No space left"),
        artifact.build(out, kind="dataset", configuration={"a": 2}) as work,
    ):
        (work.folder / "half").write_text("half")
        raise OSError(28, "No space left on device", str(work.folder / "half"))
    assert content(out) == "one"
    artifact.verify(out)


def test_a_really_full_device_is_named(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(ResourceError, match="No space left"),
        artifact.build(tmp_path / "out", kind="dataset", configuration={}),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
    assert not (tmp_path / "out").exists()


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="writable folder"):
        make(tmp_path / "file" / "deep" / "out")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o500)
    with pytest.raises(ResourceError):
        make(tmp_path / "locked" / "out")


@pytest.mark.parametrize("number", [13, 30])
def test_a_read_only_place_is_refused(tmp_path, monkeypatch, number):
    """Simulated, because root may write everywhere."""
    opened = Path.open

    def refuse(self, mode="r", *args, **more):
        if "w" in mode:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ResourceError, match=os.strerror(number)):
        make(tmp_path / "out")
    assert names(tmp_path) == []


def test_other_errors_keep_their_traceback(tmp_path):
    with pytest.raises(FileNotFoundError), artifact.build(tmp_path / "o", kind="dataset", configuration={}):
        (tmp_path / "nowhere").read_text()


def test_a_current_folder_needs_no_writable_place(tmp_path, monkeypatch):
    make(tmp_path / "out")
    monkeypatch.setattr(artifact, "_lock", lambda _: pytest.fail("wrote"))
    assert not make(tmp_path / "out")


# Hashes.


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=5))
def test_one_value_has_one_canonical_form_whatever_its_order(value):
    try:
        encoded = artifact.canonical_json(value)
    except UnicodeEncodeError:  # half a surrogate pair is no text
        return
    assert json.loads(encoded) == value
    assert artifact.canonical_json(dict(reversed(list(value.items())))) == encoded
    assert artifact.canonical_json(json.loads(encoded)) == encoded


def test_canonical_json_is_the_bytes_that_are_signed():
    assert artifact.canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        artifact.canonical_json({"a": float("nan")})


def test_the_identity_of_a_manifest_is_that_of_its_build(tmp_path):
    make(tmp_path / "out", seed=3)
    manifest = artifact.Manifest.read(tmp_path / "out")
    assert manifest.identity == artifact.identity_of("dataset", {"a": 1}, {}, 3)
    assert manifest.identity != artifact.identity_of("dataset", {"a": 1}, {}, 4)


def test_json_for_people_is_written_whole_or_not_at_all(tmp_path):
    artifact.write_json(tmp_path / "m.json", {"b": 1, "a": "é"})
    assert (tmp_path / "m.json").read_text("utf-8") == '{\n "b": 1,\n "a": "é"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        artifact.write_json(tmp_path / "m.json", {"b": float("inf")})
    assert (tmp_path / "m.json").read_text("utf-8").startswith('{\n "b": 1')
    assert names(tmp_path) == ["m.json"]
