"""The forest student: its labels, fit, graph, stage and benchmark."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.forest import PlainForest, as_lists, measure
from eisv_lumen import artifact, expression, student
from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD
from eisv_lumen.errors import ArtifactError, ConfigurationError, SourceError, WindowError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.metrics import js_divergence, score
from eisv_lumen.release import SUPPORTED_OPSET
from eisv_lumen.rules import Rules
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import AFFINITY, N_CLASSES, N_SHAPES, N_TOKENS, STATE_MAX, TOKENS
from eisv_lumen.windows import Windows, summaries
from hub.onnx_opset import opset_of
from tests.student_folders import synthetic_windows, write_inputs
from training import configuration, train_forest, voices
from training.data import read_split
from training.forest.factors import N_FORMS, Factors
from training.forest.fitting import (
    ForestSettings,
    Lesson,
    Plane,
    brier,
    calibrate,
    calibrated,
    features,
    fit,
)
from training.forest.graph import export
from training.forest.reference import Reference
from training.student.augmentation import cut
from training.student.batches import inputs_of
from training.student.export import session
from training.student.labels import TeacherLabels

CONFIGS = Path(train_forest.__file__).parent / "configs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"), {"train": 270, "validation": 90, "test": 90})


@pytest.fixture(scope="module")
def labelled(folders):
    dataset, labels, _ = folders
    return {
        name: TeacherLabels.read(labels).beside(read_split(dataset, name)) for name in ("train", "validation")
    }


@pytest.fixture(scope="module")
def forest(labelled):
    lesson = Lesson.of(*labelled["train"])
    return calibrate(fit(lesson, 8, 2, ForestSettings(seed=0)), labelled["validation"][0])


@pytest.fixture(scope="module")
def folder(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("forest") / "forest"
    assert train_forest.main(arguments(folders, out)) == 0
    return out


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def arguments(folders, out, config=CONFIGS / "forest-smoke.yaml"):
    dataset, labels, teacher = folders
    return [
        *("--config", str(config), "--dataset", str(dataset), "--labels", str(labels)),
        *("--teacher", str(teacher), "--out", str(out)),
    ]


def random_factors(generator, count):
    return Factors(
        np.eye(N_SHAPES)[generator.integers(0, N_SHAPES, count)],
        generator.dirichlet(np.ones(N_FORMS), count),
        np.repeat(generator.dirichlet(np.ones(N_TOKENS), (count, 1)), 3, axis=1),
    )


def rough_windows(generator, count=40):
    """Windows of 4 to 20 states, among whose times some repeat."""
    lengths = generator.integers(4, 21, count)
    steps = generator.choice([0.0, 0.3, 2.0, 60.0], (count, 20))
    walks = 0.5 + 0.05 * generator.normal(size=(count, 20, 4)).cumsum(axis=1)
    mask = np.arange(20)[None] < lengths[:, None]
    return Windows(np.clip(walks, 0, 1) * STATE_MAX, steps.cumsum(axis=1) + 1.7e9, mask)


# Labels in few numbers.


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_tokens_drawn_without_replacement_are_told_exactly(seed):
    factors = random_factors(np.random.default_rng(seed), 3)
    exact = factors.distribution()
    again = Factors.of_labels(factors.shapes.argmax(axis=1), exact)
    assert (again.shapes == factors.shapes).all()
    np.testing.assert_allclose(again.forms, factors.forms, atol=2e-4)
    np.testing.assert_allclose(again.tokens, factors.tokens, atol=2e-4)


def test_the_teachers_target_is_told_exactly():
    target = Rules.converged(0)[0].distribution()
    told = Factors.of_labels(np.arange(N_SHAPES), target).distribution()
    for name in ("first", "second", "third"):
        np.testing.assert_allclose(getattr(told, name), getattr(target, name), atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_factors_stand_for_is_a_distribution_over_the_grammar(seed):
    found = random_factors(np.random.default_rng(seed), 4).distribution()
    legal = {"first": LEGAL_FIRST, "second": LEGAL_SECOND, "third": LEGAL_THIRD}
    for name, allowed in legal.items():
        probs = getattr(found, name)
        assert (probs >= 0).all() and (probs[:, ~allowed] == 0).all()
        np.testing.assert_allclose(probs.sum(axis=-1), 1)


def test_patterns_of_factors_are_those_of_their_distribution():
    factors = random_factors(np.random.default_rng(0), 20)
    np.testing.assert_allclose(factors.patterns, factors.distribution().patterns(), atol=1e-9)


def test_the_plane_says_distributions_wherever_trees_go():
    generator = np.random.default_rng(0)
    labels = random_factors(generator, 200).to_array()
    plane = Plane.through(labels)
    assert len(plane.axes) < labels.shape[1]
    np.testing.assert_allclose(plane.labels(plane.places(labels)), labels, atol=0.2)
    beyond = Factors.of_array(plane.labels(5 * plane.places(labels)))
    for part in (beyond.shapes, beyond.forms, beyond.tokens):
        assert (part > 0).all()
        np.testing.assert_allclose(part.sum(axis=-1), 1)


def test_a_teachers_scatter_adds_few_axes():
    generator = np.random.default_rng(0)
    labels = random_factors(generator, 9).to_array()[generator.integers(0, 9, 600)]
    scattered = labels * np.exp(0.1 * generator.normal(size=labels.shape))
    assert len(Plane.through(scattered).axes) < 12


def test_labels_of_a_teacher_that_was_told_the_shape_lie_on_eight_axes(labelled):
    plane = Plane.through(Lesson.of(*labelled["train"]).labels)
    assert len(plane.axes) == N_SHAPES - 1


# The fit.


def test_features_are_the_twelve_summaries():
    windows = rough_windows(np.random.default_rng(1))
    found, expected = features(windows), summaries(windows)
    wanted = np.concatenate([expected.mean, expected.first, expected.second], axis=1)
    assert found.shape == (40, 12) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_forest_learns_shapes_and_voice_of_windows_it_has_not_seen(forest, labelled):
    split, labels = labelled["validation"]
    factors = forest.factors(split.windows)
    assert (factors.shapes.argmax(axis=1) == split.shapes).mean() > 3 / N_SHAPES
    np.testing.assert_allclose(factors.shapes.sum(axis=1), 1)
    teacher, exam = labels.distribution, Lesson.of(split, labels)
    spoken = factors.distribution()
    everyday = np.tile(exam.labels.mean(axis=0), (len(split), 1))
    assert brier(forest, exam) < np.square(everyday - exam.labels).sum(axis=1).mean()
    alike = js_divergence(spoken.tokens(), teacher.tokens()).mean()
    mean_voice = Factors.of_array(everyday).distribution()
    assert alike < js_divergence(mean_voice.tokens(), teacher.tokens()).mean()


def test_calibration_keeps_the_likeliest_shape_and_sharpens_below_one():
    shapes = np.random.default_rng(0).dirichlet(np.ones(N_SHAPES), 50)
    for temperature, sharper in ((0.5, True), (2.0, False)):
        found = calibrated(shapes, temperature)
        assert (found.argmax(axis=1) == shapes.argmax(axis=1)).all()
        assert ((found.max(axis=1) > shapes.max(axis=1)) == sharper).all()
    np.testing.assert_allclose(calibrated(shapes, 1.0), shapes, atol=0.01)


# The graph against scikit-learn.


@pytest.fixture(scope="module")
def graph(forest, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export(forest, path)
    return session(path)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), loudness=st.sampled_from([0.0, 1.0]))
def test_the_graph_says_what_scikit_learn_says(graph, forest, seed, loudness):
    generator = np.random.default_rng(seed)
    inputs = inputs_of(rough_windows(generator))
    noise = (loudness * generator.gumbel(size=(40, 3, N_CLASSES))).astype(np.float32)
    expected = Reference(forest)(**inputs, noise=torch.from_numpy(noise))
    feed = {name: values.numpy().copy() for name, values in inputs.items()} | {"noise": noise}
    # What is masked out may hold anything.
    feed["states"][~feed["mask"]], feed["times"][~feed["mask"]] = 0.7, -5.0
    found = dict(zip(expected, graph.run(list(expected), feed), strict=True))
    for name in ("shape_probs", "pattern_probs", "embedding"):
        np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-5)
    # Where two ids are equally likely, rounding decides between them.
    same = (found["token_ids"] == expected["token_ids"].numpy()).all(axis=1)
    assert same.mean() > 0.5 and expression.is_legal(found["token_ids"]).all()
    for name in ("token_probs", "lumen_ids", "confidence"):
        np.testing.assert_allclose(found[name][same], expected[name].numpy()[same], atol=1e-5)


def test_every_expression_is_said_with_its_probability(labelled, tmp_path):
    # Of a teacher to whom nothing is equally likely.
    windows, unlike = labelled["train"][0].windows, random_factors(np.random.default_rng(1), 270)
    forest = fit(Lesson(features(windows), unlike.to_array()), 2, 9, ForestSettings(seed=0))
    export(forest, tmp_path / "model.onnx")
    graph, wanted, window = session(tmp_path / "model.onnx"), expression.all_sequences(), windows[0]
    feed = {
        name: np.repeat(values.numpy(), len(wanted), axis=0) for name, values in inputs_of(window).items()
    }
    feed["noise"] = np.full((len(wanted), 3, N_CLASSES), -40, np.float32)
    np.put_along_axis(feed["noise"], wanted[..., None], 40, axis=2)
    outputs = ["token_ids", "token_probs", "lumen_ids", "shape_probs", "confidence"]
    ids, probs, words, shapes, confidence = graph.run(outputs, feed)
    assert (ids == wanted).all() and (words == expression.lumen_ids(wanted)).all()
    np.testing.assert_allclose(probs.sum(axis=2), 1, atol=1e-5)
    found = np.take_along_axis(probs, wanted[..., None], axis=2)[..., 0].prod(axis=1)
    exact = forest.factors(window).distribution()
    expected = [exact.probability(row[None])[0] for row in wanted]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    coherent = [AFFINITY[:, [i for i in row if i < N_TOKENS]].mean(axis=1) @ shapes[0] for row in wanted]
    np.testing.assert_allclose(confidence, coherent, atol=1e-5)


@pytest.mark.parametrize("steps", [(0, 0, 0, 0), (0, 0, 3, 0), (2, 0, 0, 1), (1, 1, 0, 0), (1e-3, 1e5, 0, 1)])
def test_where_no_time_passes_the_graph_hears_what_was_taught(graph, forest, steps):
    states = np.random.default_rng(0).random((1, 5, 4)) * STATE_MAX
    windows = Windows.of(states, np.cumsum([[0.0, *steps]], axis=1))
    inputs = inputs_of(windows)
    noise = torch.zeros(1, 3, N_CLASSES)
    expected = Reference(forest)(**inputs, noise=noise)
    feed = {name: values.numpy() for name, values in inputs.items()} | {"noise": noise.numpy()}
    found = dict(zip(expected, graph.run(list(expected), feed), strict=True))
    for name in ("shape_probs", "pattern_probs", "embedding"):
        np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-5)


def test_gumbel_noise_draws_from_the_forests_distribution(folder, labelled):
    window = labelled["validation"][0].windows[0]
    many = Windows(*(np.repeat(getattr(window, name), 6000, axis=0) for name in ("states", "times", "mask")))
    drawn = TrajectoryModel.from_pretrained(folder).infer_batch(many, np.random.default_rng(0))
    first = np.bincount(drawn.token_ids[:, 0], minlength=N_CLASSES) / len(many)
    patterns = np.bincount(expression.patterns_of(drawn.token_ids), minlength=5) / len(many)
    np.testing.assert_allclose(first, drawn.token_probs[0, 0], atol=0.03)
    np.testing.assert_allclose(patterns, drawn.pattern_probs[0], atol=0.03)


def test_states_that_are_masked_out_are_not_heard(folder):
    model = TrajectoryModel.from_pretrained(folder)
    complete = synthetic_windows(18)[0]
    short = cut(complete, 0, 12)
    padded = Windows(complete.states, complete.times, np.arange(20)[None].repeat(18, axis=0) < 12)
    found, expected = model.infer_batch(padded), model.infer_batch(short)
    np.testing.assert_allclose(found.shape_probs, expected.shape_probs, atol=1e-6)


# The stage and its folder.


def test_the_folder_is_a_students(folder):
    manifest = artifact.verify(folder, kind="student")
    assert set(manifest.inputs) == {"dataset", "labels", "teacher"}
    assert {STUDENT.config, STUDENT.golden, STUDENT.fp32, STUDENT.int8} <= set(manifest.files)
    assert not [name for name in manifest.files if name.endswith((".pkl", ".joblib", ".npy", ".bin"))]
    assert opset_of(folder / STUDENT.fp32) <= SUPPORTED_OPSET
    golden = json.loads((folder / STUDENT.golden).read_text())
    for precision in ("int8", "fp32"):
        assert TrajectoryModel.from_pretrained(folder, precision=precision).check_golden(golden) < 1e-4
    heard = TrajectoryModel.from_pretrained(folder).infer(synthetic_windows(1)[0])
    assert heard.embedding.shape == (128,) and set(heard.expression.tokens) <= set(TOKENS)


def test_the_measures_are_the_transformers(folder):
    metrics = artifact.read_metrics(folder)
    assert set(metrics["evaluation"]) == {"overall", "real", "synthetic"}
    shape = metrics["evaluation"]["overall"]["shape_accuracy"]
    assert shape["n"] == 90 and shape["low"] <= shape["value"] <= shape["high"]
    assert metrics["evaluation"]["overall"]["valid_rate"]["value"] == 1.0
    assert metrics["parity"]["passed"] and metrics["parity"]["n"] == 120
    assert metrics["parity"]["fp32"]["max_probability_difference"] < 1e-4
    assert metrics["gate_2"]["teacher_coherence"] == 0.96
    assert metrics["memory"]["torch"] is False
    assert metrics["fit"]["n"] == 32 and 0 < metrics["fit"]["token_js_bits"] < 0.5
    assert metrics["sizes"]["int8"] == (folder / STUDENT.int8).stat().st_size < 1_700_000
    tried = metrics["choice"]["tried"]
    chosen = min(tried, key=lambda one: one["brier"])
    assert len(tried) == 2 and chosen["bytes"] == metrics["sizes"]["fp32"]


def test_a_forest_has_a_row_in_the_evaluation_table(folder, folders):
    split = read_split(folders[0], "test")
    voice = voices.student_voice(TrajectoryModel.from_pretrained(folder), split, 0, name="Forest")
    cells = score(voice, shapes=split.shapes, reference_patterns=split.patterns, sequence=split.source)
    assert cells["valid_rate"]["value"] == 1.0 and cells["shape_accuracy"]["n"] == len(split)


def test_the_same_build_is_not_repeated(folder, folders, capsys):
    written = (folder / artifact.MANIFEST).read_bytes()
    assert train_forest.main(arguments(folders, folder)) == 0
    assert "up to date" in capsys.readouterr().out
    assert (folder / artifact.MANIFEST).read_bytes() == written


def test_a_forest_that_cannot_be_small_enough_is_refused(folders, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text("seed: 0\ntrees: [2]\nmin_samples_leaf: [2]\nmax_bytes: 1000\n")
    with pytest.raises(SourceError, match="1,000 bytes"):
        train_forest.main(arguments(folders, tmp_path / "forest", config))
    assert not (tmp_path / "forest").exists()


def test_impossible_settings_are_refused():
    for changes in ({"trees": []}, {"min_samples_leaf": [0]}, {"max_features": 13}, {"max_bytes": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(changes))):
            configuration.from_mapping({"seed": 0, **changes}, ForestSettings)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Windows.of(np.full((3, 4), 0.2), np.arange(3.0)),
        lambda: Windows.of(np.full((21, 4), 0.2), np.arange(21.0)),
        lambda: Windows.of(np.full((20, 4), np.nan), np.arange(20.0)),
        lambda: Windows.of(np.full((20, 4), 0.5), np.arange(20.0)),
        lambda: Windows.of(np.full((20, 4), -0.1), np.arange(20.0)),
        lambda: Windows.of(np.full((20, 4), 0.2), -np.arange(20.0)),
        lambda: Windows.of(np.full((20, 4), 0.2), np.append(np.arange(19.0), np.inf)),
    ],
)
def test_what_is_no_window_is_refused(folder, bad):
    with pytest.raises(WindowError):
        TrajectoryModel.from_pretrained(folder).infer(bad())


def test_an_altered_forest_is_refused(copy):
    path = copy / STUDENT.int8
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="altered"):
        TrajectoryModel.from_pretrained(copy)


# What is fed to a graph.


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(1, 23),
    spoil=st.sampled_from([0, 0, np.nan, np.inf, 2, -1]),
)
def test_the_short_check_accepts_only_what_the_long_one_does(seed, length, spoil):
    generator = np.random.default_rng(seed)
    states, times = generator.random((2, length, 4)) * STATE_MAX, generator.random((2, length)).cumsum(axis=1)
    spoilt = states if generator.random() < 0.5 else times
    spoilt.reshape(-1)[generator.integers(spoilt.size)] += spoil
    windows = Windows.of(states, times)
    if student._complete(windows):
        windows.validate()
        long = student._checked(windows)
        for name in ("states", "times", "mask"):
            assert (getattr(long, name) == getattr(windows, name)).all()
    elif 4 <= length <= 20:
        with pytest.raises(WindowError):
            windows.validate()


# The benchmark.


def test_a_walk_in_plain_python_hears_what_the_graph_hears(folder):
    model, plain = TrajectoryModel.from_pretrained(folder), PlainForest.read(folder / STUDENT.fp32)
    windows = cut(synthetic_windows(45)[0], 0, 15)
    found = model.infer_batch(windows)
    heard = [plain.hear(*as_lists(windows[index])) for index in range(len(windows))]
    agree = [shape == by_graph for (shape, _, _), by_graph in zip(heard, found.shapes, strict=True)]
    # Sums in another order may round a summary across a threshold.
    assert np.mean(agree) > 0.95
    same = [ids == said.tolist() for (_, ids, _), said in zip(heard, found.token_ids, strict=True)]
    assert np.mean(same) > 0.5 and expression.is_legal(np.array([ids for _, ids, _ in heard])).all()
    for index in np.flatnonzero(np.logical_and(same, agree)):
        assert heard[index][2] == pytest.approx(float(found.confidence[index]), abs=0.02)


def test_the_benchmark_stands_beside_the_walk(folder):
    rows = measure(folder, n_heard=12, n_batched=24)
    assert [row.unit for row in rows] == ["ms", "windows/s"]
    assert all(row.value > 0 and row.baseline > 0 and row.ratio > 0 for row in rows)
    assert rows[0].ratio == pytest.approx(rows[0].baseline / rows[0].value)


def test_a_graph_without_trees_is_no_forest(folder, tmp_path):
    import onnx

    model = onnx.load(folder / STUDENT.fp32)
    trees = next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    model.graph.node.remove(trees)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="without trees"):
        PlainForest.read(tmp_path / "other.onnx")
