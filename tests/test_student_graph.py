"""The TrajectoryTransformer and its exports: what the graph promises, on random weights."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.roofline import Work
from eisv_lumen import expression
from eisv_lumen.distribution import LEGAL_FIRST, LEGAL_SECOND, LEGAL_THIRD, ExpressionDistribution
from eisv_lumen.errors import InputError
from eisv_lumen.layouts import STUDENT
from eisv_lumen.metrics import expected_coherence
from eisv_lumen.shapes import levels
from eisv_lumen.vocabulary import N_TOKENS
from eisv_lumen.windows import Windows
from tests.student_folders import SIZES, student_folder, synthetic_windows, untrained
from training.student import export
from training.student.augmentation import cut
from training.student.batches import inputs_of

PROBABILITIES = ("shape_probs", "pattern_probs", "token_probs", "confidence")


@pytest.fixture(scope="module")
def folder():
    return student_folder()


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def sessions(folder):
    return {
        name: export.session(folder / path) for name, path in (("fp32", STUDENT.fp32), ("int8", STUDENT.int8))
    }


def gumbel(count, seed=0):
    return np.random.default_rng(seed).gumbel(size=(count, 3, 17)).astype(np.float32)


def in_torch(model, windows, noise=None):
    with torch.inference_mode():
        output = model(**inputs_of(windows), noise=None if noise is None else torch.from_numpy(noise))
    return {name: value.numpy() for name, value in output.items()}


def in_onnx(session, windows, noise):
    return export.run(session, {**{k: v.numpy() for k, v in inputs_of(windows).items()}, "noise": noise})


@pytest.mark.parametrize(("count", "length"), [(1, 4), (1, 20), (3, 11), (64, 20), (7, 5)])
def test_fp32_graph_equals_torch(model, sessions, count, length):
    windows = cut(synthetic_windows(count)[0], 0, length)
    noise = gumbel(count)
    expected, found = in_torch(model, windows, noise), in_onnx(sessions["fp32"], windows, noise)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in expected.items()
    }
    for name in PROBABILITIES:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)
    np.testing.assert_allclose(found["embedding"], expected["embedding"], atol=2e-4)
    assert found["token_ids"].dtype == np.int64
    assert (found["token_ids"] == expected["token_ids"]).all()
    assert (found["lumen_ids"] == expected["lumen_ids"]).all()


def test_int8_graph_is_near_torch(model, sessions):
    windows = synthetic_windows(64)[0]
    noise = np.zeros((64, 3, 17), np.float32)
    expected, found = in_torch(model, windows, noise), in_onnx(sessions["int8"], windows, noise)
    difference = np.abs(found["shape_probs"] - expected["shape_probs"])
    assert 0 < difference.mean() < 0.02
    assert difference.max() < 0.05


def test_int8_graph_holds_its_large_weights_as_int8(folder, model):
    graph = onnx.load(folder / STUDENT.int8).graph
    products = {node.input[1] for node in graph.node if node.op_type in ("MatMul", "Gemm", "MatMulInteger")}
    large = [tensor for tensor in graph.initializer if min(tensor.dims, default=0) >= 32]
    weights = [tensor for tensor in large if tensor.name in products]
    kept = [tuple(tensor.dims) for tensor in weights if tensor.data_type != onnx.TensorProto.INT8]
    # Only the features' own maps are kept in FP32; and beside weights, a table by the number of states.
    width, features = SIZES["width"], model.features
    expected = [(features.summary.in_features, width), (width, width), (48 + 8 + features.n_positions, width)]
    assert sorted(kept) == sorted(expected)
    # Four in each of two encoder layers, seven in the decoder's layer, and pool, skip and context.
    assert len(weights) - len(kept) == 2 * 4 + 7 + 3
    tables = [t for t in graph.initializer if np.prod(t.dims) > 8192 and t.name not in products]
    assert [tuple(table.dims[:2]) for table in tables] == [(21, 20)]
    assert (folder / STUDENT.int8).stat().st_size < (folder / STUDENT.fp32).stat().st_size
    for path in (STUDENT.int8, STUDENT.fp32):
        loaded = onnx.load(folder / path)
        assert loaded.ir_version <= 8
        assert max(opset.version for opset in loaded.opset_import if opset.domain in ("", "ai.onnx")) <= 17
        assert not any(
            tensor.HasField("data_location") and tensor.data_location for tensor in loaded.graph.initializer
        )


def test_a_choice_that_leaves_nothing_to_quantise_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no product"):
        export.quantise(folder / STUDENT.fp32, tmp_path / "int8.onnx", keep=("/",), per_channel=False)
    assert not list(tmp_path.iterdir())


def test_no_shape_is_computed_when_a_window_is_heard(folder):
    for path in (STUDENT.int8, STUDENT.fp32):
        kinds = {node.op_type for node in onnx.load(folder / path).graph.node}
        assert not kinds & {"Shape", "ConstantOfShape", "Expand", "Range", "Loop", "If", "NonZero"}


def test_few_nodes_run_for_a_window(folder):
    feed = {**{k: v.numpy() for k, v in inputs_of(synthetic_windows(1)[0]).items()}, "noise": gumbel(1)}
    # On a device nodes cost more than arithmetic. Here: two encoder layers of 18, four steps of 30,
    # 55 before them that put lost states back, the rest.
    assert Work.of(folder / STUDENT.int8, feed).nodes <= 385


def test_the_room_behind_a_window_does_not_matter(model):
    windows = cut(synthetic_windows(9)[0], 0, 8)
    longer = Windows(
        np.pad(windows.states, ((0, 0), (0, 12), (0, 0)), constant_values=0.2),
        np.pad(windows.times, ((0, 0), (0, 12)), mode="edge"),
        np.pad(windows.mask, ((0, 0), (0, 12))),
    )
    alone = in_torch(model, windows)
    padded = inputs_of(longer)
    states = torch.nn.functional.pad(padded["states"], (0, 0, 0, 12), value=0.7)
    times = torch.nn.functional.pad(padded["times"], (0, 12))
    mask = torch.nn.functional.pad(padded["mask"], (0, 12))
    with torch.inference_mode():
        output = model(states, times, mask)
    for name in PROBABILITIES:
        np.testing.assert_allclose(output[name].numpy(), alone[name], atol=1e-4)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(factor=st.floats(0.01, 1000))
def test_time_has_no_scale(model, factor):
    windows = synthetic_windows(9)[0]
    stretched = Windows(windows.states, windows.times * factor, windows.mask)
    for name in PROBABILITIES:
        np.testing.assert_allclose(
            in_torch(model, stretched)[name], in_torch(model, windows)[name], atol=1e-3
        )


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), length=st.integers(4, 20), scale=st.floats(0, 100))
def test_every_answer_is_legal(sessions, seed, length, scale):
    generator = np.random.default_rng(seed)
    states = generator.random((5, length, 4)) * [1, 1, 1, 0.3]
    times = np.cumsum(generator.exponential(size=(5, length)) * (generator.random((5, length)) < 0.8), axis=1)
    for session in sessions.values():
        found = in_onnx(session, Windows.of(states, times), gumbel(5, seed) * np.float32(scale))
        said = expression.decode(found["token_ids"])
        for row, one in enumerate(said):
            words = found["lumen_ids"][row]
            assert (words[len(one.tokens) :] == -1).all()
            assert ((words >= -1) & (words < 15)).all()
        for name in ("shape_probs", "pattern_probs", "token_probs"):
            np.testing.assert_allclose(found[name].sum(axis=-1), 1, atol=1e-5)
        expected = expected_coherence(found["token_ids"], found["shape_probs"])
        np.testing.assert_allclose(found["confidence"], expected, atol=1e-5)


def test_conditionals_are_the_distribution_that_noise_draws_from(model):
    window = synthetic_windows(9)[0][4]
    with torch.inference_mode():
        first, second, third = (part.numpy() for part in model.conditionals(**inputs_of(window)))
    for part, legal in ((first, LEGAL_FIRST), (second, LEGAL_SECOND), (third, LEGAL_THIRD)):
        assert (part[:, ~legal] == 0).all()
        np.testing.assert_allclose(part.sum(axis=-1), 1, atol=1e-5)
    count = 6000
    many = Windows(*(np.repeat(getattr(window, name), count, axis=0) for name in ("states", "times", "mask")))
    drawn = in_torch(model, many, gumbel(count))
    ids = drawn["token_ids"]
    np.testing.assert_allclose(drawn["token_probs"][0, 1], second[0, ids[0, 0]], atol=1e-5)
    tokens = ids[:, 1] < N_TOKENS
    row = int(np.flatnonzero(tokens)[0])
    np.testing.assert_allclose(drawn["token_probs"][row, 2], third[0, ids[row, 0], ids[row, 1]], atol=1e-5)
    exact = ExpressionDistribution(first, second, third)
    frequencies = np.bincount(expression.patterns_of(ids), minlength=5) / count
    np.testing.assert_allclose(frequencies, exact.patterns()[0], atol=0.03)
    np.testing.assert_allclose(np.bincount(ids[:, 0], minlength=17) / count, first[0], atol=0.03)


@pytest.mark.parametrize("length", [20, 7, 4])
def test_the_network_sees_the_levels_the_rules_see(model, length):
    windows = cut(synthetic_windows(18)[0], 0, length)
    inputs = inputs_of(windows)
    seen = model.features.levels(inputs["states"], inputs["mask"].sum(dim=1)) / model.features.scale
    np.testing.assert_allclose(seen.detach().numpy(), levels(windows), atol=1e-5)


def test_first_layer_attends_within_each_dimension(model):
    own = model.encoder[0].own[:32]
    assert own.sum() == 4 * 8 * 8
    assert not model.encoder[1].within


def test_shipped_code_alone_loads_the_model(folder, model, tmp_path):
    program = textwrap.dedent(
        """
        import json, sys, numpy as np, torch
        from transformers import AutoModel
        model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
        data = np.load(sys.argv[2])
        output = model(**{name: torch.from_numpy(data[name]) for name in data.files})
        assert not any(name.split(".")[0] in ("eisv_lumen", "training") for name in sys.modules)
        np.savez(sys.argv[3], **{name: value.detach().numpy() for name, value in output.items()})
        """
    )
    windows, noise = synthetic_windows(9)[0], gumbel(9)
    np.savez(tmp_path / "in.npz", noise=noise, **{k: v.numpy() for k, v in inputs_of(windows).items()})
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    arguments = [
        sys.executable,
        "-c",
        program,
        str(folder),
        str(tmp_path / "in.npz"),
        str(tmp_path / "out.npz"),
    ]
    done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, expected = np.load(tmp_path / "out.npz"), in_torch(model, windows, noise)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_nothing_pickled_in_the_folder(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.json",
        "configuration_eisv_lumen.py",
        "modeling_eisv_lumen.py",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/model_int8.onnx",
        "golden.json",
        "metrics.json",
        "manifest.json",
    }
