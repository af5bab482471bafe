"""Training a student: the loss, the batches, calibration, and the whole stage in small."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import TrainerCallback

from eisv_lumen import artifact, expression
from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.errors import ArtifactError, ConfigurationError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import robust
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import N_SHAPES, SHAPE_ID, STATE_MAX
from tests.student_folders import synthetic_windows, untrained, write_inputs
from training import configuration, train_student
from training.data import read_split
from training.student import calibration, listening, parity
from training.student.augmentation import AugmentationSettings, augment, cut, drop, freeze, jitter_seconds
from training.student.batches import Batches, inputs_of, sampling_weights
from training.student.distillation import Distillation, distil, divergence, listen
from training.student.evaluation import distribution_of, labelled_consistency, rough
from training.student.export import export_fp32, session
from training.student.labels import TeacherLabels
from training.student.listening import Audience
from training.student.settings import LossSettings, StudentSettings
from training.student.simulated_logs import readings, simulated
from training.student.supplement import amplified, lenders, supplement, varied
from training.student.tables import count_parameters, new_model

CONFIGS = Path(train_student.__file__).parent / "configs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"), {"train": 270, "validation": 90, "test": 90})


@pytest.fixture(scope="module")
def training(folders):
    dataset, labels, _ = folders
    return TeacherLabels.read(labels).beside(read_split(dataset, "train"))


def batches_of(training, **changes):
    return Batches(*training, AugmentationSettings(**changes), prefixes=2)


# The loss.


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), tau=st.floats(1, 8))
def test_divergence_is_that_of_the_softened_distributions(seed, tau):
    generator = np.random.default_rng(seed)
    teacher, logits = generator.dirichlet(np.ones(6), 4), generator.normal(size=(4, 6))
    softened = teacher ** (1 / tau) / (teacher ** (1 / tau)).sum(axis=1, keepdims=True)
    student = np.exp(logits / tau) / np.exp(logits / tau).sum(axis=1, keepdims=True)
    expected = tau**2 * (softened * np.log(softened / student)).sum(axis=1).mean()
    found = divergence(torch.from_numpy(teacher), torch.from_numpy(logits), tau)
    assert float(found) == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_divergence_leaves_illegal_ids_out():
    logits = torch.tensor([[0.0, 1.0, -1e9]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0, 0.0]]).softmax(dim=-1)
    legal = torch.tensor([[0.0, 1.0]]).softmax(dim=-1)
    same = divergence(torch.cat([legal, torch.zeros(1, 1)], dim=1), logits, 4.0)
    assert same.item() == pytest.approx(0, abs=1e-6)
    divergence(teacher, logits, 4.0).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad[0, 2] == 0


def test_the_loss_falls_and_every_part_teaches(training):
    torch.manual_seed(0)
    student = new_model(width=32, encoder_layers=1, decoder_layers=1, feed_forward=32, embedding_size=16)
    model = Distillation(student, training[1].hidden.shape[1], LossSettings(prefixes=2))
    batches = batches_of(training)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(25):
        loss = model(**batches(range(8 * step, 8 * step + 32)))["loss"]
        optimiser.zero_grad()
        loss.backward()
        if step == 1:
            without = {
                name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()
            }
            assert without <= {"student.token_embedding.weight"}, without
        optimiser.step()
    for name, values in model.parts.items():
        assert np.mean(values[-5:]) < np.mean(values[:5]), name


# Batches.


def test_a_batch_holds_the_teachers_answers_at_its_prefixes(training):
    split, labels = training
    batch = batches_of(training, vary=0.0)(range(30))
    sequences = batch["sequences"].numpy()
    assert sequences.shape == (30, 3, 3)
    assert (sequences[:, -1] == split.ids[:30]).all()
    teacher = labels.distribution[np.arange(30)]
    for row in range(30):
        for k in range(2):
            a, b, _ = sequences[row, k]
            np.testing.assert_allclose(batch["second"][row, k], teacher.second[row, a], atol=1e-3)
            np.testing.assert_allclose(batch["third"][row, k], teacher.third[row, a, b], atol=1e-3)
    expression.decode(sequences.reshape(-1, 3))
    words = batch["words"].numpy().reshape(-1, 3)
    assert (np.where(words == 15, -1, words) == expression.lumen_ids(sequences.reshape(-1, 3))).all()


def test_batches_repeat_with_torchs_seed(training):
    torch.manual_seed(5)
    one = batches_of(training)(range(8))
    torch.manual_seed(5)
    other = batches_of(training)(range(8))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_stage_augments_its_own_batches(training):
    whole = AugmentationSettings(vary=0.0, clean=1.0)
    short = AugmentationSettings(vary=0.0, clean=0.0, cut=1.0)
    batches = Batches(*training, whole, prefixes=2, listening=short)
    assert batches(range(60))["mask"].all()
    heard, shapes = batches.of_shapes(range(60), np.random.default_rng(0))
    assert (heard.counts < 20).mean() > 0.8
    assert (shapes == training[0].shapes[:60]).all()


def test_rare_shapes_are_drawn_as_often_as_balance_says():
    shapes, real = np.repeat([0, 1], [900, 100]), np.zeros(1000, bool)
    even = sampling_weights(shapes, real, balance=1.0, real_share=0.1)
    assert even[shapes == 0].sum() == pytest.approx(even[shapes == 1].sum())
    assert np.ptp(sampling_weights(shapes, real, balance=0.0, real_share=0.1)) == 0


@pytest.mark.parametrize(("found", "expected"), [(2, 0.1), (50, 0.5), (0, 0.0), (100, 1.0)])
def test_real_windows_are_drawn_at_least_as_often_as_asked(found, expected):
    real = np.arange(100) < found
    weights = sampling_weights(np.zeros(100, int), real, balance=0.25, real_share=0.1)
    assert weights[real].sum() == pytest.approx(expected)
    assert weights.sum() == pytest.approx(1)


def test_windows_made_beside_the_datasets_are_not_taken_for_real_ones(training):
    split, labels = training
    recorded = replace(split, provenance=np.where(np.arange(len(split)) < 20, "real", "synthetic"))
    more = supplement(split.windows, split.shapes, 600, np.random.default_rng(0))
    batches = Batches(recorded, labels, AugmentationSettings(), prefixes=2, more=more)
    assert len(batches.shapes) == len(batches.real) > len(split) and batches.real.sum() == 20
    drawn = []
    batches.of_shapes = lambda rows, generator: (
        drawn.extend(rows) or (batches.windows[rows], batches.shapes[rows])
    )
    smoke = configuration.load(CONFIGS / "student-smoke.yaml", StudentSettings)
    smoke = replace(smoke, real_share=0.5, listening=replace(smoke.listening, windows=2000))
    with Audience(untrained(), batches, smoke) as audience:
        audience([0])
    assert batches.real[drawn].mean() == pytest.approx(0.5, abs=0.05)


def audience_of(training, model, **changes):
    smoke = configuration.load(CONFIGS / "student-smoke.yaml", StudentSettings)
    stage = replace(smoke.listening, windows=700, passes=2, batch_size=64)
    return Audience(model, batches_of(training), replace(smoke, listening=stage, **changes))


def test_listening_hears_each_window_as_often_as_asked_and_nothing_else(training, monkeypatch):
    monkeypatch.setattr(listening, "_PART", 256)
    with audience_of(training, untrained()) as audience:
        order = list(audience.order)
        assert len(order) == 2 * 768 and audience.steps == 24  # 700 windows in three parts of whole batches
        assert np.array_equal(np.bincount(order), np.full(768, 2))
        parts = np.array(order).reshape(-1, 64) // 256
        assert (np.ptp(parts, axis=1) == 0).all() and (np.diff(parts[:, 0]) >= 0).all()
        assert order[:256] != order[256:512] != sorted(order[256:512])


def test_what_is_heard_is_what_the_model_would_see(training, monkeypatch):
    monkeypatch.setattr(listening, "_PART", 256)
    one, other = untrained(seed=1), untrained(seed=2)
    clean = AugmentationSettings(vary=0.0, clean=1.0, rescale=0.0)
    split, _ = training
    with audience_of(training, one) as audience, audience_of(training, other) as again:
        for heard in (audience, again):
            heard._batches.listening = clean
        last = list(audience.order)[-64:]
        batch, same = audience(last), again(last)
        assert all(torch.equal(batch[name], same[name]) for name in batch)  # nothing learned is in it
    every = one.shown(**inputs_of(split.windows)).half().float()
    distance = torch.cdist(batch["shown"], every).amin(dim=1)
    nearest = torch.cdist(batch["shown"], every).argmin(dim=1)
    assert distance.max() < 0.05
    assert (split.shapes[nearest] == batch["shapes"].numpy()).mean() > 0.95


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_augmented_windows_are_windows(seed, share):
    windows, _ = synthetic_windows(18)
    everything = AugmentationSettings(
        clean=0.0,
        cut=share,
        drop=share,
        dropped=share,
        freeze=share,
        jitter=1.0,
        quantise=1.0,
        noise=1.0,
        noise_scale=0.05,
    )
    changed = augment(windows, everything, np.random.default_rng(seed)).validate()
    assert (changed.packed().mask == changed.mask).all()
    assert (changed.states <= STATE_MAX).all()


def test_cut_keeps_the_first_states_and_drop_four_at_least():
    windows, _ = synthetic_windows(9)
    assert (cut(windows, 0, 6).states == windows.states[:, :6]).all()
    for share, left in ((1.0, 4), (0.2, 16), (0.0, 20)):
        dropped = drop(windows, np.full(9, share), np.random.default_rng(0))
        assert (dropped.counts == left).all()


def test_freeze_holds_one_dimension_of_the_chosen_windows():
    windows, _ = synthetic_windows(200)
    chosen = np.arange(200) % 2 == 0
    frozen = freeze(windows, chosen, np.random.default_rng(0))
    assert (frozen.states[~chosen] == windows.states[~chosen]).all()
    changed = (frozen.states != windows.states).any(axis=1)[chosen]
    assert (changed.sum(axis=1) <= 1).all()
    assert (changed.sum(axis=0) > 10).all()
    held = frozen.states[chosen].transpose(0, 2, 1)[changed]
    assert (np.ptp(held, axis=1) == 0).all()


def test_jitter_in_seconds_stays_within_them_and_in_order():
    windows, _ = synthetic_windows(9)
    moved = jitter_seconds(windows, np.full(9, 0.5), np.random.default_rng(0)).validate()
    away = np.abs(moved.times - windows.times)
    assert 0 < away.max() <= 0.5
    assert (moved.states == windows.states).all()


def test_simulated_devices_differ_and_show_every_shape_a_sensor_can_show():
    one, again = (simulated(2, np.random.default_rng(3)) for _ in range(2))
    assert (one.states == again.states).all() and (one.times == again.times).all()
    windows = simulated(120, np.random.default_rng(0)).validate(min_states=20)
    # Ethical drift is nothing that a sensor reports.
    assert set(robust(windows)) == set(range(N_SHAPES)) - {SHAPE_ID["drift_dissonance"]}
    paces = np.median(np.diff(windows.times, axis=1), axis=1)
    assert paces.min() < 2 and paces.max() > 200
    still = (np.ptp(windows.states, axis=1) == 0).mean(axis=0)
    assert ((still > 0) & (still < 0.9)).all()


def test_simulated_sensors_lack_channels_round_and_fall_out():
    seen = [readings(np.arange(400.0), np.random.default_rng(seed)) for seed in range(40)]
    assert len({tuple(sorted(one.channels)) for one in seen}) > 3
    gone = [np.isnan(values).any() for one in seen for values in one.channels.values()]
    assert 0 < np.mean(gone) < 0.2
    steps = [np.unique(one.channels["humidity_pct"]) for one in seen if "humidity_pct" in one.channels]
    finest = np.array([np.diff(values).min() for values in steps if len(values) > 1])
    assert finest.min() < 0.02 and finest.max() > 0.4


def test_varied_windows_have_the_shape_that_the_rules_see():
    windows, shapes = synthetic_windows(180)
    varied_windows, found = varied(windows, shapes, 0.8, np.arange(N_SHAPES), np.random.default_rng(0))
    varied_windows.validate()
    drifting = shapes == SHAPE_ID["drift_dissonance"]
    assert (found[drifting] == shapes[drifting]).all()
    assert (found[~drifting] == robust(varied_windows)[~drifting]).all()
    changed = (varied_windows.states != windows.states).any(axis=(1, 2))
    assert 0.5 < changed.mean() < 0.9
    assert 0.05 < (found != shapes).mean() < 0.6
    # Steps of a drifting window are those it had.
    np.testing.assert_allclose(
        np.diff(varied_windows.states[drifting], axis=1), np.diff(windows.states[drifting], axis=1)
    )
    assert ((varied_windows.states == 0.0).sum(axis=1) > 3).any()  # cut off at a limit
    _, kept = varied(windows, shapes, 0.8, np.array([0]), np.random.default_rng(0))
    assert ((kept == shapes) | (kept == 0)).all()


def test_a_varied_window_borrows_from_its_new_shape(training):
    split, labels = training
    batches = batches_of(training, vary=1.0, clean=1.0, rescale=0.0)
    torch.manual_seed(0)
    batch = batches(range(120))
    shapes = batch["shapes"].numpy()
    assert (shapes != split.shapes[:120]).any()
    exact = {shape: labels.distribution.first[split.shapes == shape][0] for shape in set(shapes)}
    np.testing.assert_allclose(batch["first"], np.array([exact[shape] for shape in shapes]), atol=1e-3)


def test_supplement_is_labelled_by_the_rules_and_borrows_from_its_own_shape():
    windows, shapes = synthetic_windows(90)
    more = supplement(windows, shapes, 300, np.random.default_rng(0))
    more.windows.validate()
    assert set(more.shapes) == set(range(N_SHAPES))
    assert (shapes[more.lenders] == more.shapes).all()
    # Drift is not among the states, so that its windows show as what else they are.
    seen = robust(more.windows)
    plain = more.shapes != 7
    assert (seen[plain] == more.shapes[plain]).mean() > 0.95
    assert (shapes[lenders(shapes, shapes, np.random.default_rng(1))] == shapes).all()
    assert np.ptp(amplified(windows, 50, np.random.default_rng(0)).states, axis=1).max() <= 1.0


# Labels.


def test_labels_find_their_windows_in_any_order(folders, training):
    split, _ = training
    shuffled = split[np.random.default_rng(0).permutation(len(split))]
    _, beside = TeacherLabels.read(folders[1]).beside(shuffled)
    assert (beside.window_ids == shuffled.window_ids).all()
    exact = Rules.converged(0)[0].distribution().first[shuffled.shapes]
    np.testing.assert_allclose(beside.distribution.first, exact, atol=1e-3)


def test_labels_of_another_dataset_are_refused(folders, training):
    split, _ = training
    other = replace(split, window_ids=np.char.add("x", split.window_ids))
    with pytest.raises(ArtifactError, match="training.label"):
        TeacherLabels.read(folders[1]).beside(other)


def test_damaged_labels_are_refused(folders, tmp_path):
    copy = shutil.copytree(folders[1], tmp_path / "labels")
    (copy / "labels.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="SafetensorError"):
        TeacherLabels.read(copy)
    with pytest.raises(ArtifactError, match="is a dataset"):
        TeacherLabels.read(folders[0])


# Evaluation.


class Rulebook:
    """A graph whose answers are the rules'."""

    def infer_batch(self, windows):
        return type("Answers", (), {"shapes": robust(windows)})


def test_rough_windows_are_the_same_for_student_and_rules(folders):
    split = read_split(folders[0], "test")
    short = replace(split, windows=cut(split.windows, 0, 12))
    assert rough(Rulebook(), short, seed=0) == {}
    found = rough(Rulebook(), split, seed=0)
    assert set(found) == {"missing", "frozen", "jitter"}
    for row in found.values():
        assert row["n"] == 90
        assert row["student"] == row["rules"] and row["student_drop"] == row["rules_drop"]
    clean = (robust(cut(split.windows, 0, 20)) == split.shapes).mean()
    assert found["frozen"]["rules_drop"] == pytest.approx(clean - found["frozen"]["rules"])
    assert found["frozen"]["rules_drop"] > found["missing"]["rules_drop"] >= found["jitter"]["rules_drop"]
    assert found == rough(Rulebook(), split, seed=0)
    assert found["frozen"] != rough(Rulebook(), split, seed=1)["frozen"]


def test_the_labels_own_consistency_is_measured_beside_the_students(folders):
    split = read_split(folders[0], "test")
    same = replace(split, ids=np.tile(split.ids[:1], (90, 1)), shapes=np.zeros(90, int))
    sequence = np.array(["one log"] * 90)
    assert labelled_consistency(same, sequence, 0)["value"] == 1.0
    varied = labelled_consistency(replace(split, shapes=same.shapes), sequence, 0)
    assert varied["n"] == 89 and 0 < varied["value"] < 0.5


# Calibration, exact distributions, parity.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_calibration_finds_the_temperature_that_made_the_labels(temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 9)) * 2
    noisy = logits / temperature + generator.gumbel(size=logits.shape)
    assert calibration.fit_temperature(logits, noisy.argmax(axis=1)) == pytest.approx(temperature, rel=0.05)


def test_a_students_exact_distribution_sums_to_one():
    windows, _ = synthetic_windows(5)
    found = distribution_of(untrained(), windows)
    assert isinstance(found, ExpressionDistribution)
    np.testing.assert_allclose(found.patterns().sum(axis=1), 1, atol=1e-4)


def test_parity_sees_another_model(folders, tmp_path):
    split = read_split(folders[0], "test")
    model, other = untrained(0), untrained(1)
    export_fp32(model, tmp_path / "model.onnx")
    opened = session(tmp_path / "model.onnx")
    same = parity.measure(model, {"fp32": opened}, split, count=60, seed=0)
    assert same["passed"] and same["fp32"]["shape_agreement"] == 1
    assert same["fp32"]["max_probability_difference"] < 1e-4
    assert not parity.measure(other, {"fp32": opened}, split, count=60, seed=0)["passed"]
    assert not parity.measure(other, {"int8": opened}, split, count=60, seed=0)["passed"]


# The stage.


class Kill(TrainerCallback):
    """Ends the run as Ctrl-C does."""

    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.at:
            raise KeyboardInterrupt


class Steps(TrainerCallback):
    """Remembers which steps were taken."""

    def __init__(self):
        self.taken = []

    def on_step_end(self, args, state, control, **_):
        self.taken.append(state.global_step)


def test_a_killed_training_goes_on_from_its_checkpoint(training, tmp_path):
    smoke = configuration.load(CONFIGS / "student-smoke.yaml", StudentSettings)
    smoke = replace(
        smoke, steps=12, save_steps=4, batch_size=8, listening=replace(smoke.listening, windows=20)
    )
    batches = batches_of(training)
    with pytest.raises(KeyboardInterrupt):
        listen(untrained(), batches, smoke, tmp_path, [])
        distil(untrained(), batches, smoke, tmp_path, [Kill(at=6)])
    again, taken = untrained(seed=9), Steps()
    listen(again, batches, smoke, tmp_path, [taken])
    assert taken.taken == []
    distil(again, batches, smoke, tmp_path, [taken])
    assert taken.taken == list(range(5, 13))


def test_a_killed_listening_goes_on_with_the_next_part(training, tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "_PART", 128)
    smoke = configuration.load(CONFIGS / "student-smoke.yaml", StudentSettings)
    smoke = replace(smoke, listening=replace(smoke.listening, windows=512, passes=2, batch_size=64))
    batches, whole, again, taken = batches_of(training), untrained(), untrained(seed=9), Steps()
    listen(whole, batches, smoke, tmp_path / "whole", [])
    with pytest.raises(KeyboardInterrupt):  # in the third of four parts of four steps
        listen(untrained(), batches, smoke, tmp_path / "killed", [Kill(at=10)])
    torn = tmp_path / "killed" / "listening" / "checkpoint-12"  # by a kill while it was written
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 1')
    listen(again, batches, smoke, tmp_path / "killed", [taken])
    assert taken.taken == list(range(9, 17))
    heard = [(name, tensor) for name, tensor in whole.state_dict().items() if "summary" in name]
    assert heard and all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in heard)


def test_the_whole_stage_in_small(folders, tmp_path, capsys):
    dataset, labels, teacher = folders
    out = tmp_path / "student"
    arguments = [
        "--config",
        str(CONFIGS / "student-smoke.yaml"),
        "--dataset",
        str(dataset),
        "--labels",
        str(labels),
    ]
    arguments += ["--teacher", str(teacher), "--out", str(out)]
    assert train_student.main(arguments) == 1
    printed = capsys.readouterr()
    assert "FAILED gate 2" in printed.err and "cannot be published" in printed.err
    manifest = artifact.verify(out, kind="student")
    assert set(manifest.inputs) == {"dataset", "labels", "teacher"}
    assert not [name for name in manifest.files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    metrics = artifact.read_metrics(out)
    assert metrics["gate_2"]["passed"] is False
    assert metrics["gate_2"]["teacher_coherence"] == 0.96
    assert metrics["gate_2"]["share_of_teacher"] == pytest.approx(metrics["gate_2"]["coherence"] / 0.96)
    assert 20 < metrics["gate_2"]["peak_rss_mb"] < 100
    assert metrics["memory"]["torch"] is False
    assert metrics["sizes"]["int8"] == (out / STUDENT.int8).stat().st_size
    assert set(metrics["evaluation"]) == {"overall", "real", "synthetic"}
    assert metrics["evaluation"]["overall"]["valid_rate"]["value"] == 1.0
    assert metrics["evaluation"]["real"]["rough"]["missing"]["n"] == 45
    assert metrics["parity"]["n"] == 120 and metrics["parity"]["fp32"]["passed"]
    model = TrajectoryModel.from_pretrained(out)
    model.check_golden(json.loads((out / STUDENT.golden).read_text()))
    written = (out / "manifest.json").read_bytes()
    assert train_student.main(arguments) == 1
    assert "up to date" in capsys.readouterr().out
    assert (out / "manifest.json").read_bytes() == written


def test_configurations_name_what_they_make():
    sizes = {}
    for name in ("student", "student-8m", "student-smoke"):
        read = configuration.load(CONFIGS / f"{name}.yaml", StudentSettings)
        sizes[name] = count_parameters(new_model(**vars(read.model)))
    assert 1.2e6 < sizes["student"] < 1.5e6
    assert 7.5e6 < sizes["student-8m"] < 8.5e6


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigurationError, match="heads"):
        configuration.from_mapping(
            {"seed": 0, "steps": 1, "model": {"width": 100, "heads": 8}}, StudentSettings
        )
    with pytest.raises(ConfigurationError, match="clean"):
        configuration.from_mapping({"seed": 0, "steps": 1, "augmentation": {"clean": 2.0}}, StudentSettings)
