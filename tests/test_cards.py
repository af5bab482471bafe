"""Cards are a pure function of the artifact folders: whole texts, valid front matter, figures as measured."""

import ast
import copy
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCardData
from huggingface_hub.repocard import RepoCard
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.report import FIGURES
from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ConfigurationError
from eisv_lumen.metrics import COLUMNS, table_markdown
from eisv_lumen.vocabulary import SHAPES
from model_cards import render
from model_cards.cards import CARDS, Folders
from model_cards.facts import facts, source_line
from model_cards.figures import ALT_TEXTS
from model_cards.front_matter import DatasetFrontMatter, ModelFrontMatter, SpaceFrontMatter
from model_cards.measurements import METRIC_MEANINGS, Measurement
from model_cards.names import ReleaseNames

GOLDEN = Path(__file__).parent / "golden" / "cards"
KINDS = tuple(CARDS)

DATASET_METRICS = {
    "counts": {
        "train": {"real": 820, "synthetic": 800},
        "validation": {"real": 100},
        "test": {"real": 104, "synthetic": 90},
    },
    "shapes": {
        "host telemetry": {
            "native": {"settled_presence": 51, "convergence": 8},
            "30s": {"settled_presence": 4},
        },
        "synthetic": {"native": dict.fromkeys(SHAPES, 98)},
    },
    "dropped": {"gap": 3, "impossible reading": 12, "clock stepped back": 1},
    "shapes_by_split": {
        "train": {"real": {"settled_presence": 800, "convergence": 20}, "synthetic": {"void_rising": 800}},
        "test": {"real": {"settled_presence": 104}},
    },
    "sources": [
        {
            "name": "host telemetry",
            "kind": "log",
            "states": 4873,
            "devices": {"host": {"median_step_s": 0.5, "t_start": 1700000000.0, "t_end": 1700090000.0}},
            "observed": 0,
            "mapped": {"cpu_pct": "cpu", "memory_pct": "memory_pct"},
            "dropped": {"gap": 3, "clock stepped back": 1},
            "values": {"impossible reading": 12},
            "notes": ["times were read as UTC"],
        },
        "a log that tells nothing else",
    ],
    "cut": {
        "host telemetry": {
            "native": {"settled_presence": 3600, "convergence": 210, "void_rising": 1},
            "30s": {"settled_presence": 2},
        }
    },
    "cadence": {"host telemetry": {"edges_s": [0.1, 1.0, 10.0], "counts": [4800, 72]}},
    "gaps": {"host telemetry": {"edges_s": [0.1, 1.0, 10.0], "counts": [0, 3]}},
    "label_stability_by_source": {"host telemetry": {"robust": 0.9976, "published": 1.0, "n": 3813}},
    "growth": {
        "parent": "0123456789abcdef" * 4,
        "generation": 2,
        "data_delta_sha256": "fedcba9876543210" * 4,
        "kept": {"train": {"real": 800, "synthetic": 800}, "test": {"real": 104, "synthetic": 90}},
        "added": {"train": {"real": 20, "synthetic": 0}, "validation": {"real": 100, "synthetic": 0}},
    },
    "labels_agree": 0.229,
    "label_stability": {"robust": 0.9976, "published": 1.0, "noise": 0.001, "n": 3813},
    "feedback": {"kind": "self-scored", "n_updates": 12345},
}


def cell(value: float | None, n: int = 104, **more) -> dict:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0, **more}
    return {"value": value, "low": round(value - 0.012, 4), "high": round(value + 0.008, 4), "n": n, **more}


def rows(n: int) -> dict:
    unmeasured = dict.fromkeys(COLUMNS, cell(None, n))
    return {
        "Random": {**unmeasured, "coherence": cell(0.2664, n), "valid_rate": cell(1.0, n)},
        "Rules + feedback": {
            **unmeasured,
            "coherence": cell(0.9312, n),
            "shape_accuracy": cell(1.0, n, given=True),
        },
        "Teacher": {
            **unmeasured,
            "coherence": cell(0.9713, n),
            "valid_rate": cell(0.9948, n),
            "pattern_accuracy": cell(0.261, n),
            "shape_accuracy": cell(1.0, n, given=True),
        },
        "Student": {
            **unmeasured,
            "coherence": cell(0.9611, n),
            "shape_accuracy": cell(0.9845, n),
            "diversity": cell(3.41, n),
            "temporal_consistency": cell(0.31, n - 30),
            "calibration": cell(0.0187, n),
            "per_shape": {},
        },
    }


def likeliest(n: int) -> dict:
    return {"Student": {**dict.fromkeys(COLUMNS, cell(None)), "coherence": cell(0.99, n)}}


EVALUATION_METRICS = {
    "table": {"real": rows(104), "synthetic": rows(90)},
    "greedy": {"real": likeliest(104)},
}
TEACHER_METRICS = {
    "gate_1": {
        "passed": True,
        "coherence": 0.9713,
        "valid_rate": 0.9948,
        "n": 194,
        "needed": {"coherence": 0.933, "valid_rate": 0.9},
        "split": "test",
    },
    "evaluation": {"overall": {"sampled": {"coherence": cell(0.9713, 194)}}},
    "training": {
        "steps": 120,
        "seconds": 95.2,
        "validation": {"loss": 0.4123, "n": 100},
        "log": [{"loss": 1}],
    },
}
STUDENT_METRICS = {
    "gate_2": {
        "passed": True,
        "coherence": 0.9611,
        "share_of_teacher": 0.9895,
        "peak_rss_mb": 61.4,
        "teacher_coherence": 0.9713,
        "teacher_coherence_from": "gate 1 of the teacher",
        "needed": {"coherence": 0.84, "share_of_teacher": 0.9, "peak_rss_mb": 100.0},
        "n": 194,
        "split": "test",
    },
    "parity": {
        "passed": True,
        "n": 120,
        "int8": {
            "shape_agreement": 0.998,
            "max_probability_difference": 0.0152,
            "tolerances": {"shape_agreement": 0.995},
            "passed": True,
        },
        "fp32": {
            "shape_agreement": 1.0,
            "max_probability_difference": 2.1e-06,
            "tolerances": {"max_probability_difference": 0.0001},
            "passed": True,
        },
    },
    "evaluation": {
        "overall": {},
        "real": {
            "early": {"4": {"student": 0.67, "rules": 0.6974, "n": 104}},
            "rough": {
                "missing": {
                    "student": 0.91,
                    "rules": 0.88,
                    "student_drop": 0.04,
                    "rules_drop": 0.12,
                    "n": 104,
                }
            },
            "recall": {"settled_presence": {"value": 0.98, "n": 90}},
        },
        "synthetic": {
            "early": {"4": {"student": 0.45, "rules": 0.4369, "n": 90}},
            "recall": {"settled_presence": {"value": 0.9, "n": 10}, "void_rising": {"value": 0.8, "n": 10}},
        },
    },
    "latency": {"int8": {"p50_ms": 0.776, "p99_ms": 1.2, "n": 300}},
    "memory": {"rss_mb": 69.2578, "start_s": 0.777, "torch": False},
    "calibration": {"temperature": 0.4811, "voice_temperature": 0.9, "split": "validation", "n": 120},
    "parameters": 1329871,
    "sizes": {"fp32": 5512345, "int8": 1502345, "safetensors": 5600000},
    "training": {"steps": 40, "log": [{"loss": 1}]},
}
SPACE = {
    "student": "hikewa/eisv-lumen-student",
    "revision": "v0.1.0",
    "examples": 48,
    "front_matter": {
        "title": "EISV-Lumen Explorer",
        "emoji": "🌀",
        "colorFrom": "indigo",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": "6.17.3",
        "python_version": "3.11",
        "app_file": "app.py",
        "license": "apache-2.0",
        "models": ["hikewa/eisv-lumen-student"],
        "datasets": ["hikewa/unitares-eisv-trajectories"],
    },
}


def make(out: Path, kind: str, metrics: dict | None, files: dict[str, bytes], configuration: dict) -> Path:
    with artifact.build(
        out, kind=kind, configuration=configuration, seed=7, metrics_required=metrics is not None
    ) as work:
        for name, content in files.items():
            path = work.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        work.metrics = metrics
    return out


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Folders:
    monkeypatch.setattr(artifact, "library_versions", lambda: {"numpy": "2.0.0", "onnxruntime": "1.22.0"})
    parquet = {f"data/{c}/{s}.parquet": b"x" for c in ("windows", "expressions") for s in ("train", "test")}
    parquet["data/legacy/train.parquet"] = b"x"
    parquet |= {f"figures/{name}": b"a picture" for name in FIGURES}
    return Folders(
        dataset=make(
            tmp_path / "dataset", "dataset", copy.deepcopy(DATASET_METRICS), parquet, {"stride": 10}
        ),
        base=make(tmp_path / "base", "base", {"parameters": 1000, "loss": 1.25}, {}, {"hidden_size": 64}),
        teacher=make(tmp_path / "teacher", "teacher", TEACHER_METRICS, {}, {"lora": {"r": 16}, "lr": 2e-3}),
        student=make(tmp_path / "student", "student", STUDENT_METRICS, {}, {"width": 128}),
        evaluation=make(tmp_path / "evaluation", "evaluation", copy.deepcopy(EVALUATION_METRICS), {}, {}),
        space=make(tmp_path / "space", "space", None, {"space.json": json.dumps(SPACE).encode()}, {}),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_whole_text(kind, folders):
    """Set UPDATE_GOLDEN=1 to accept a changed text, then read the difference."""
    text = CARDS[kind](folders, ReleaseNames())
    golden = GOLDEN / f"{kind}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_front_matter_is_valid_without_nulls(kind, folders):
    data = yaml.safe_load(CARDS[kind](folders, ReleaseNames()).split("---\n")[1])
    assert data["license"] == "apache-2.0"

    def no_nulls(value):
        assert value is not None and value not in ("", [], {})
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            no_nulls(item)

    no_nulls(data)


@pytest.mark.parametrize(("kind", "voice"), [("teacher", "Teacher"), ("student", "Student")])
def test_model_index_is_the_measured_table(kind, voice, folders):
    """Parsed back by the Hub's own client, every measured cell is there, with its value and n."""
    data = ModelCard(CARDS[kind](folders, ReleaseNames())).data
    found = {
        (r.metric_name.lower(), r.metric_args["provenance"], r.metric_args["n"]): r.metric_value
        for r in data.eval_results
    }
    expected = {}
    for provenance, table in EVALUATION_METRICS["table"].items():
        for metric, heading in COLUMNS.items():
            measured = Measurement.of(table[voice].get(metric))
            # The shape that a voice was told is no result of it.
            if measured is not None and not table[voice][metric].get("given"):
                name = f"{heading}, {provenance} windows".lower()
                expected[name, provenance, measured.n] = round(measured.value, 4)
    assert found == expected and found
    assert {r.dataset_type for r in data.eval_results} == {"hikewa/unitares-eisv-trajectories"}
    assert data.model_name == f"eisv-lumen-{kind}"
    if kind == "teacher":
        assert data.base_model == "hikewa/eisv-lumen-base"
    # Written out again by the client, nothing is lost.
    assert (
        yaml.safe_load(data.to_yaml())["model-index"]
        == yaml.safe_load(CARDS[kind](folders, ReleaseNames()).split("---\n")[1])["model-index"]
    )


def test_every_column_is_explained_and_every_cell_shown(folders):
    assert list(METRIC_MEANINGS) == list(COLUMNS)
    for kind in ("teacher", "student"):
        text = CARDS[kind](folders, ReleaseNames())
        for table in [*EVALUATION_METRICS["table"].values(), *EVALUATION_METRICS["greedy"].values()]:
            assert table_markdown(table) in text


def test_dataset_configs_name_the_files_that_exist(folders):
    card = DatasetCard(CARDS["dataset"](folders, ReleaseNames()))
    configs = {config["config_name"]: config for config in card.data.configs}
    assert list(configs) == ["windows", "expressions", "legacy"] and configs["windows"]["default"] is True
    for config in configs.values():
        for file in config["data_files"]:
            assert (folders.dataset / file["path"]).is_file()
    # The fixture has no validation files, so none are promised.
    assert [f["split"] for f in configs["windows"]["data_files"]] == ["train", "test"]
    assert card.data.size_categories == ["1K<n<10K"]


def test_space_front_matter_is_the_hubs(folders):
    card = RepoCard(CARDS["space"](folders, ReleaseNames()))
    data = SpaceCardData(**card.data.to_dict())
    assert (data.sdk, data.app_file, data.python_version) == ("gradio", "app.py", "3.11")
    assert data.models == ["hikewa/eisv-lumen-student"]


@pytest.mark.parametrize("kind", KINDS)
def test_code_in_cards_is_python(kind, folders):
    for block in re.findall(r"```python\n(.*?)```", CARDS[kind](folders, ReleaseNames()), re.S):
        ast.parse(block)


def test_the_dataset_card_shows_every_figure_of_the_report_once(folders):
    """What the builder draws and what the card looks for are named in two rooms: here they meet."""
    assert {f"{name}.png" for name in ALT_TEXTS} == set(FIGURES)
    text = CARDS["dataset"](folders, ReleaseNames())
    images = re.findall(r"^!\[(.*)\]\((figures/.*?\.png)\)$", text, re.M)
    assert sorted(path for _, path in images) == sorted(f"figures/{name}" for name in FIGURES)
    assert all(len(alt) > 60 and (folders.dataset / path).is_file() for alt, path in images)
    assert len({alt for alt, _ in images}) == len(FIGURES)


def test_a_figure_that_is_not_there_is_not_shown_but_its_numbers_are(folders):
    whole = CARDS["dataset"](folders, ReleaseNames())
    for name in FIGURES:
        (folders.dataset / "figures" / name).unlink()
    text = CARDS["dataset"](folders, ReleaseNames())
    assert "![" not in text and "figures/" not in text
    without = [line for line in whole.splitlines() if not line.startswith("![")]
    assert [line for line in text.splitlines() if line.startswith("|")] == [
        x for x in without if x[:1] == "|"
    ]
    assert "## What the shapes look like" in whole and "## What the shapes look like" not in text


def test_the_new_tables_hold_what_was_measured(folders):
    text = CARDS["dataset"](folders, ReleaseNames())
    for row in (
        "| host telemetry | native | 3,811 | 94.5 % | 5.5 % | 0 | 0 | 0 | 0 | 0 | 0 | < 0.1 % |",
        "| host telemetry | 30s | 2 | 100.0 % | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |",
        "| impossible reading | value taken as missing | host telemetry 12 | 12 |",
        "| clock stepped back | left out | host telemetry 1 | 1 |",
        "| host telemetry | 3,813 | 99.76 % | 100.00 % |",
        "| train | 800 | 800 | 20 | 0 |",
        "| validation | 0 | 0 | 100 | 0 |",
    ):
        assert row in text.splitlines(), row
    assert "generation 2" in text and "`0123456789ab`" in text and "`fedcba987654`" in text


def test_a_source_that_grew_is_counted_once(folders):
    metrics = json.loads((folders.dataset / "metrics.json").read_text())
    metrics["sources"].append({**metrics["sources"][0], "dropped": {"gap": 2}, "values": {}})
    metrics["dropped"]["gap"] += 2
    (folders.dataset / "metrics.json").write_text(json.dumps(metrics))
    assert "| gap | left out | host telemetry 5 | 5 |" in CARDS["dataset"](folders, ReleaseNames())


def test_a_source_that_added_nothing_is_named_all_the_same():
    empty = {"states": 0, "segments": 0, "median_step_s": None, "t_start": None, "t_end": None}
    source = {"name": "copy", "kind": "log", "states": 0, "devices": {"copy": empty}, "observed": 0}
    assert source_line(source) == "**copy** (log): 0 states"


def test_an_older_dataset_has_a_card_without_the_new_parts(folders, tmp_path):
    new = ("cut", "cadence", "gaps", "label_stability_by_source", "growth", "sources", "dropped")
    metrics = {key: value for key, value in DATASET_METRICS.items() if key not in new}
    parquet = {f"data/{c}/train.parquet": b"x" for c in ("windows", "expressions")}
    old = make(tmp_path / "old", "dataset", metrics, parquet, {})
    text = CARDS["dataset"](Folders(dataset=old), ReleaseNames())
    for absent in ("What was added", "How often", "What was dropped", "by source:", "None", "!["):
        assert absent not in text
    # Measured, but nothing to tell: the first generation adds to none.
    (old / "metrics.json").write_text(json.dumps({**metrics, "growth": None, "dropped": {}, "cut": {}}))
    assert CARDS["dataset"](Folders(dataset=old), ReleaseNames()) == text
    # A build that grew by nothing new had no window whose label could be tried.
    unknown = {"robust": None, "published": None, "noise": 0.001, "n": 0}
    none = {"label_stability": unknown, "label_stability_by_source": {"copy": unknown}}
    (old / "metrics.json").write_text(json.dumps({**metrics, **none}))
    text = CARDS["dataset"](Folders(dataset=old), ReleaseNames())
    assert "Noise of" not in text and "None" not in text


def test_names_from_logs_cannot_break_the_card(folders):
    metrics = json.loads((folders.dataset / "metrics.json").read_text())
    metrics["dropped"] = {"a](http://evil) | b\nc": 99}
    metrics["cut"] = {"x | y\nz": {"native": {"convergence": 1}}}
    (folders.dataset / "metrics.json").write_text(json.dumps(metrics))
    text = CARDS["dataset"](folders, ReleaseNames())
    assert "| x \\| y z | native | 1 |" in text and "| a](http://evil) \\| b c |" in text
    images = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    assert [path for _, path in images if not re.fullmatch(r"figures/\w+\.png", path)] == []
    assert any("evil" in alt for alt, _ in images)


def test_a_forest_in_the_students_place_has_its_own_figures_and_no_weights(folders, tmp_path):
    forest = make(tmp_path / "forest", "student", copy.deepcopy(STUDENT_METRICS), {}, {"model": "forest"})
    table = copy.deepcopy(EVALUATION_METRICS)
    for part in table["table"].values():
        part["Forest"] = {**part["Student"], "coherence": cell(0.8123)}
    evaluation = make(tmp_path / "evaluated", "evaluation", table, {}, {})
    with pytest.raises(ArtifactError, match="without a row named Forest"):
        CARDS["student"](Folders(student=forest, evaluation=folders.evaluation), ReleaseNames())
    text = CARDS["student"](Folders(student=forest, evaluation=evaluation), ReleaseNames())
    coherence = {r.metric_value for r in ModelCard(text).data.eval_results if r.metric_type == "coherence"}
    assert coherence == {0.8123}
    assert "library_name: onnx" in text and "decision trees" in text and "the trees in Python" in text
    for untrue in ("modelling file", "AutoModel", "compared with torch"):
        assert untrue not in text


def test_figures_not_measured_are_not_shown(folders, tmp_path):
    metrics = {"gate_2": {"passed": False}}
    bare = make(tmp_path / "bare", "student", metrics, {}, {})
    text = CARDS["student"](Folders(student=bare, evaluation=folders.evaluation), ReleaseNames())
    for absent in ("parameters", "### After", "### Heard", "### Cost", "Training settings", "None", "| nan"):
        assert absent not in text
    assert "**not passed**" in text


@pytest.mark.parametrize(
    ("kind", "metrics", "missing"),
    [
        ("dataset", {"shapes": {}}, "counts"),
        ("teacher", {"training": {}}, "gate_1"),
        ("student", {"parity": {}}, "gate_2"),
        ("evaluation", {"table": {"real": {}}}, "measured row"),
    ],
)
def test_required_measurements(kind, metrics, missing, folders, tmp_path):
    broken = {**vars(folders), kind: make(tmp_path / "broken", kind, metrics, {}, {})}
    card = CARDS["student" if kind == "evaluation" else kind]
    with pytest.raises(ArtifactError, match=missing):
        card(Folders(**broken), ReleaseNames())


def test_wrong_kind_of_folder(folders):
    with pytest.raises(ArtifactError, match="is a base"):
        CARDS["student"](Folders(student=folders.base, evaluation=folders.evaluation), ReleaseNames())


def test_other_names_reach_every_place(folders):
    names = ReleaseNames(namespace="someone", dataset="my-data", base="my-base")
    for kind in ("dataset", "base", "teacher", "student"):
        text = CARDS[kind](folders, names)
        assert "hikewa" not in text
        assert ("someone/eisv-lumen-teacher" if kind == "base" else "someone/my-data") in text


@pytest.mark.parametrize("revision", [None, "0123abcd"])
def test_without_a_base_folder_the_base_is_the_one_that_the_adapter_names(revision, folders, tmp_path):
    adapter = json.dumps({"base_model_name_or_path": "Qwen/Qwen3-4B", "revision": revision}).encode()
    teacher = make(tmp_path / "public", "teacher", TEACHER_METRICS, {"adapter_config.json": adapter}, {})
    cards = render.render(replace(folders, base=None, teacher=teacher), ReleaseNames())
    assert len(cards) == len(KINDS) - 1
    assert not any("eisv-lumen-base" in text for text in cards.values())
    text = cards[teacher / "README.md"]
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen3-4B", "adapter")
    pinned = ', revision="0123abcd"' if revision else ""
    for kind in ("AutoTokenizer", "AutoModelForCausalLM"):
        assert f'{kind}.from_pretrained("Qwen/Qwen3-4B"{pinned})' in text
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        ast.parse(block)
    assert "(https://huggingface.co/Qwen/Qwen3-4B)" in text and "for base and adapter" not in text


def test_the_teachers_card_alone_still_links_the_releases_own_base(folders, tmp_path):
    adapter = json.dumps({"base_model_name_or_path": ReleaseNames().repo("base")}).encode()
    teacher = make(tmp_path / "own", "teacher", TEACHER_METRICS, {"adapter_config.json": adapter}, {})
    whole = replace(folders, teacher=teacher)
    alone = replace(whole, base=None)
    assert CARDS["teacher"](alone, ReleaseNames()) == CARDS["teacher"](whole, ReleaseNames())


@pytest.mark.parametrize(
    ("base", "license"),
    [("meta-llama/Llama-3.2-1B-Instruct", "llama3.2"), ("Qwen/Qwen3-4B", "apache-2.0")],
)
def test_an_adapter_carries_the_licence_of_a_base_that_binds_it(base, license, folders, tmp_path):
    adapter = json.dumps({"base_model_name_or_path": base}).encode()
    teacher = make(tmp_path / "public", "teacher", TEACHER_METRICS, {"adapter_config.json": adapter}, {})
    text = CARDS["teacher"](replace(folders, base=None, teacher=teacher), ReleaseNames())
    assert ModelCard(text).data.license == license
    said = text.partition("## Licence")[2]
    assert ("Apache-2.0" in said) == (license == "apache-2.0") and ("llama3.2" in said) == (
        license == "llama3.2"
    )


@pytest.mark.parametrize("adapter", [None, b"{}", b"[]", b'{"base_model_name_or_path": null}'])
def test_an_adapter_without_a_base_has_no_card(adapter, folders, tmp_path):
    files = {"adapter_config.json": adapter} if adapter else {}
    teacher = make(tmp_path / "bare", "teacher", TEACHER_METRICS, files, {})
    with pytest.raises(ArtifactError, match=r"adapter_config\.json"):
        CARDS["teacher"](replace(folders, base=None, teacher=teacher), ReleaseNames())


def test_command_writes_atomically_and_keeps_manifests(folders, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("release: {namespace: someone, names: {dataset: d}}\n")
    arguments = ["--recipe", str(recipe)] + [
        part for kind, folder in vars(folders).items() for part in (f"--{kind}", str(folder))
    ]
    manifests = {
        kind: (Path(folder) / "manifest.json").read_bytes() for kind, folder in vars(folders).items()
    }
    render.main(arguments)
    assert capsys.readouterr().out.count("written") == len(KINDS)
    for kind, folder in vars(folders).items():
        assert (folder / "manifest.json").read_bytes() == manifests[kind]
        artifact.verify(folder)
        assert (folder / "README.md").is_file() == (kind != "evaluation")
    assert not list(tmp_path.glob(".*card-partial"))
    render.main(arguments)
    assert capsys.readouterr().out.count("unchanged") == len(KINDS)


def test_a_folder_that_cannot_be_described_leaves_every_card(folders, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("release: {namespace: someone}\n")
    with pytest.raises(ArtifactError):
        render.main(["--recipe", str(recipe), "--dataset", str(folders.dataset), "--student", str(tmp_path)])
    assert not (folders.dataset / "README.md").exists()


@pytest.mark.parametrize(
    "content", ["", "release: 3", "release: {names: {moon: x}}", "release: {namespace: 'a b'}", "["]
)
def test_unusable_recipes(content, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content)
    with pytest.raises(ConfigurationError):
        ReleaseNames.read(recipe)
    with pytest.raises(ConfigurationError):
        ReleaseNames.read(tmp_path / "absent.yaml")


def test_demo_recipe_is_readable():
    names = ReleaseNames.read(Path(__file__).parents[1] / "recipes" / "demo.yaml")
    assert names.repo("student") == "hikewa/eisv-lumen-student"


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (ModelFrontMatter, {"license": "mine"}),
        (ModelFrontMatter, {"tags": ("Two Words",)}),
        (SpaceFrontMatter, {"colorFrom": "teal"}),
        (SpaceFrontMatter, {"sdk": "flask"}),
        (SpaceFrontMatter, {"short_description": "x" * 61}),
        (DatasetFrontMatter, {"configs": ({"config_name": "a"},)}),
    ],
)
def test_front_matter_refuses_what_the_hub_would(kind, change):
    valid = {
        ModelFrontMatter: {"license": "mit", "library_name": "peft", "pipeline_tag": "text-generation"},
        SpaceFrontMatter: SPACE["front_matter"],
        DatasetFrontMatter: {
            "license": "mit",
            "pretty_name": "x",
            "language": ("en",),
            "size_categories": (),
            "task_categories": (),
            "configs": ({"config_name": "a", "default": True},),
        },
    }[kind]
    kind(**valid)
    with pytest.raises(ConfigurationError):
        kind(**{**valid, **change})


def test_front_matter_has_no_other_keys():
    with pytest.raises(TypeError):
        ModelFrontMatter(license="mit", library_name="peft", pipeline_tag="x", inference=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_any_metrics_can_be_shown(values):
    for fact in facts(values):
        assert isinstance(fact.value, str) and fact.value


def test_paths_of_the_building_machine_stay_out():
    rows = facts({"source": "/home/someone/log.csv", "nested": {"where": "~/x"}, "rate": 0.5})
    assert [tuple(row) for row in rows] == [("rate", "0.5")]
