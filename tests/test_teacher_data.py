"""Reading dataset folders and configurations."""

import shutil
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import pytest

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ConfigurationError
from eisv_lumen.expression import Expression
from eisv_lumen.layouts import DATASET, HELD_OUT_SYNTHETIC
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import published, robust
from eisv_lumen.vocabulary import SHAPES
from tests.teacher_folders import CONFIGS, dataset_folder
from training import configuration
from training.data import labelling_weights, read_split
from training.pretrain_base import BaseSettings
from training.train_teacher import TeacherSettings


def test_a_split_is_what_its_file_says():
    # Its own file, purely real, and the synthetic windows that are held out beside it.
    files = [dataset_folder() / DATASET.windows(name) for name in ("test", HELD_OUT_SYNTHETIC["test"])]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    split = read_split(dataset_folder(), "test")
    assert len(split) == len(rows) > 50
    assert split.real.any() and not split.real.all()
    for index in (0, len(rows) // 2, len(rows) - 1):
        row, mask = rows[index], split.windows.mask[index]
        assert split.window_ids[index] == row["window_id"]
        assert np.allclose(split.windows.states[index][mask], row["states"])
        assert np.allclose(split.windows.times[index][mask], row["times"])
        assert str(Expression.from_ids(split.ids[index])) == row["expression"]
        assert SHAPES[split.shapes[index]] == row["shape"]


def test_labels_are_those_of_the_rule_sets():
    split = read_split(dataset_folder(), "train")
    assert (robust(split.windows) == split.shapes).mean() > 0.99
    assert (published(split.windows) == split.shapes_published).mean() > 0.99


def test_choosing_rows_keeps_them_together():
    split = read_split(dataset_folder(), "train")
    few = split[np.array([7, 3])]
    assert few.window_ids.tolist() == [split.window_ids[7], split.window_ids[3]]
    assert np.array_equal(few.windows.states, split.windows.states[[7, 3]])


def test_the_labelling_rules_are_read():
    rules = Rules.from_dict(labelling_weights(dataset_folder()))
    assert rules.weights.max() > 5


def test_a_missing_column_is_named(tmp_path):
    shutil.copytree(dataset_folder(), tmp_path / "dataset")
    path = tmp_path / "dataset" / DATASET.windows("test")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["cadence_s"]), path)
    with pytest.raises(ArtifactError, match="cadence_s"):
        read_split(tmp_path / "dataset", "test")


def test_a_damaged_file_is_refused(tmp_path):
    shutil.copytree(dataset_folder(), tmp_path / "dataset")
    (tmp_path / "dataset" / DATASET.windows("test")).write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match=r"test\.parquet"):
        read_split(tmp_path / "dataset", "test")


def test_another_kind_of_folder_is_refused(tmp_path):
    with artifact.build(tmp_path / "x", kind="recording", configuration={}, metrics_required=False):
        pass
    with pytest.raises(ArtifactError, match="recording"):
        read_split(tmp_path / "x", "test")


@dataclass(frozen=True)
class Inner:
    rate: float
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Outer:
    seed: int
    inner: Inner
    label: str | None = None
    flag: bool = False


def test_yaml_becomes_nested_dataclasses(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("seed: 3\ninner: {rate: 2e-4, names: [b, c]}\nlabel: null\n")
    assert configuration.load(path, Outer) == Outer(3, Inner(2e-4, ("b", "c")))
    assert configuration.as_plain(configuration.load(path, Outer))["inner"]["names"] == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "inner"),
        ("seed: 1\ninner: {rate: 1}\nsead: 2", "sead"),
        ("seed: one\ninner: {rate: 1}", "seed"),
        ("seed: true\ninner: {rate: 1}", "seed"),
        ("seed: 1\ninner: {rate: fast}", "rate"),
        ("seed: 1\ninner: {rate: 1, names: b}", "names"),
        ("seed: 1\ninner: 3", "inner"),
        ("- seed", "list"),
        ("seed: [", "YAML"),
    ],
)
def test_a_wrong_configuration_says_where(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        configuration.load(tmp_path / "x.yaml", Outer)


def test_a_missing_configuration_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        configuration.load(tmp_path / "none.yaml", Outer)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("base-*.yaml")), ids=lambda path: path.stem)
def test_base_configurations_load(path):
    configuration.load(path, BaseSettings)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("teacher-*.yaml")), ids=lambda path: path.stem)
def test_teacher_configurations_load(path):
    configuration.load(path, TeacherSettings)
