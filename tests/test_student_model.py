"""`TrajectoryModel`: what a device and a community user do with a student folder or repository."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from eisv_lumen.errors import ArtifactError, InputError, VerificationError, WindowError
from eisv_lumen.expression import Expression
from eisv_lumen.layouts import STUDENT
from eisv_lumen.student import TrajectoryModel
from eisv_lumen.vocabulary import AFFINITY, SHAPE_ID, SHAPES, TOKEN_ID
from eisv_lumen.windows import Windows
from tests.student_folders import student_folder, synthetic_windows


@pytest.fixture(scope="module")
def folder():
    return student_folder()


@pytest.fixture(scope="module")
def model(folder):
    return TrajectoryModel.from_pretrained(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def window(length=20, **changes):
    values = {
        "states": np.tile([0.5, 0.6, 0.2, 0.1], (length, 1)),
        "times": np.arange(length) * 2.0,
        **changes,
    }
    return Windows.of(values["states"], values["times"])


def test_hears_one_window(model):
    heard = model.infer(window())
    assert isinstance(heard.expression, Expression)
    assert heard.shape in SHAPES and heard.shape == SHAPES[heard.shape_probs.argmax()]
    assert heard.shape_probs.shape == (9,) and heard.pattern_probs.shape == (5,)
    affine = AFFINITY[:, [TOKEN_ID[token] for token in heard.expression.tokens]].mean(axis=1)
    assert heard.confidence == pytest.approx(float(heard.shape_probs @ affine), abs=1e-5)
    assert len(heard.lumen_words) <= 3 and heard.version == model.version


def test_version_is_the_releases_where_there_is_one(copy):
    assert len(TrajectoryModel.from_pretrained(copy).version) == 12
    (copy / STUDENT.release).write_text('{"version": "0.3.1"}')
    assert TrajectoryModel.from_pretrained(copy).version == "0.3.1"


def test_without_a_generator_the_answer_is_always_the_same(model):
    assert model.infer(window()).expression == model.infer(window()).expression


def test_a_seed_reproduces_a_voice_and_another_varies_it(model):
    windows = synthetic_windows(60)[0]
    one = model.infer_batch(windows, np.random.default_rng(3)).token_ids
    assert (one == model.infer_batch(windows, np.random.default_rng(3)).token_ids).all()
    assert (one != model.infer_batch(windows, np.random.default_rng(4)).token_ids).any()


def test_batches_say_what_single_windows_say(folder):
    model = TrajectoryModel.from_pretrained(folder, precision="fp32")
    windows = synthetic_windows(30)[0]
    batched = model.infer_batch(windows, batch_size=7)
    single = model.infer_batch(windows, batch_size=1)
    assert (batched.token_ids == single.token_ids).all()
    np.testing.assert_allclose(batched.shape_probs, single.shape_probs, atol=1e-5)
    assert len(batched) == 30
    assert len(model.infer_batch(windows[np.array([], int)])) == 0


def test_states_that_are_masked_out_are_not_heard(folder):
    model = TrajectoryModel.from_pretrained(folder, precision="fp32")
    complete = window(12)
    states, times = np.full((24, 4), np.nan), np.full(24, np.nan)
    mask = np.zeros(24, bool)
    mask[::2] = True
    states[mask], times[mask] = complete.states[0], complete.times[0] + 1.7e9
    found = model.infer(Windows.of(states, times, mask))
    np.testing.assert_allclose(found.shape_probs, model.infer(complete).shape_probs, atol=1e-4)


def with_mask(present):
    complete = window(len(present))
    return Windows.of(complete.states[0], complete.times[0], np.array(present, bool))


def test_a_gap_of_finite_values_is_not_heard_either(folder):
    model = TrajectoryModel.from_pretrained(folder, precision="fp32")
    states, times = np.random.default_rng(0).uniform(0, 0.3, (20, 4)), np.arange(20) * 2.0
    present = np.arange(20) % 7 != 3
    gappy, bare = Windows.of(states, times, present), Windows.of(states[present], times[present])
    np.testing.assert_array_equal(model.infer(gappy).shape_probs, model.infer(bare).shape_probs)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: window(3),
        lambda: with_mask([True] * 3 + [False] * 17),
        lambda: window(21),
        lambda: window(states=np.full((20, 4), np.nan)),
        lambda: window(states=np.full((20, 4), np.inf)),
        lambda: window(states=np.full((20, 4), 0.5)),
        lambda: window(states=np.full((20, 4), -0.1)),
        lambda: window(times=np.arange(20)[::-1] * 1.0),
        lambda: window(times=np.full(20, np.nan)),
        lambda: window(states=np.zeros((20, 3))),
        lambda: window(times=np.arange(19)),
        lambda: synthetic_windows(2)[0],
    ],
)
def test_what_is_no_window_is_refused(model, bad):
    with pytest.raises(WindowError) as refused:
        model.infer(bad())
    assert refused.value.found and refused.value.expected and refused.value.next


def test_golden_windows_agree_here(folder):
    golden = json.loads((folder / STUDENT.golden).read_text())
    assert len(golden["windows"]) == 16
    assert {len(w["times"]) for w in golden["windows"]} >= {8, 12, 16, 20}
    for precision in ("int8", "fp32"):
        assert TrajectoryModel.from_pretrained(folder, precision=precision).check_golden(golden) <= 1e-3


@pytest.mark.parametrize("name", ["shape_probs", "confidence", "token_probs"])
def test_golden_check_sees_another_output(model, folder, name):
    golden = json.loads((folder / STUDENT.golden).read_text())
    recorded = golden["windows"][5]["int8"]
    recorded[name] = (np.array(recorded[name]) + 0.05).tolist()
    with pytest.raises(VerificationError, match="golden window 5"):
        model.check_golden(golden)


def test_golden_check_sees_another_id(model, folder):
    golden = json.loads((folder / STUDENT.golden).read_text())
    recorded = golden["windows"][0]["int8"]
    recorded["token_ids"][0] = int(np.argmin(recorded["token_probs"][0][:15]))
    with pytest.raises(VerificationError):
        model.check_golden(golden)


def test_golden_check_sees_other_weights_that_load(copy):
    golden = json.loads((copy / STUDENT.golden).read_text())
    path = copy / STUDENT.int8
    graph = onnx.load(path)
    tensor = max(
        (t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT),
        key=lambda t: np.prod(t.dims),
    )
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(graph, path)
    with pytest.raises(ArtifactError, match="altered"):
        TrajectoryModel.from_pretrained(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(VerificationError):
        TrajectoryModel.from_pretrained(copy).check_golden(golden)


def test_a_flipped_bit_is_refused(copy):
    path = copy / STUDENT.int8
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="altered"):
        TrajectoryModel.from_pretrained(copy)


@pytest.mark.parametrize("name", [STUDENT.int8, STUDENT.config])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=name.split("/")[-1]):
        TrajectoryModel.from_pretrained(copy)


def test_a_truncated_graph_without_manifest_is_refused(copy):
    (copy / "manifest.json").unlink()
    path = copy / STUDENT.int8
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match="cannot load"):
        TrajectoryModel.from_pretrained(copy)


def test_another_vocabulary_is_refused(copy):
    (copy / "manifest.json").unlink()
    config = json.loads((copy / STUDENT.config).read_text())
    config["tokens"][0] = "coldness"
    (copy / STUDENT.config).write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="tokens"):
        TrajectoryModel.from_pretrained(copy)


def test_an_unknown_precision_or_folder_is_refused(folder):
    with pytest.raises(InputError, match="int4"):
        TrajectoryModel.from_pretrained(folder, precision="int4")
    with pytest.raises(ArtifactError, match="no folder"):
        TrajectoryModel.from_pretrained("./nowhere")


def test_a_device_needs_neither_torch_nor_the_hub_client(folder, tmp_path):
    program = textwrap.dedent(
        """
        import sys
        import numpy as np
        from eisv_lumen.student import TrajectoryModel
        from eisv_lumen.windows import Windows
        model = TrajectoryModel.from_pretrained(sys.argv[1])
        print(model.infer(Windows.of(np.full((20, 4), 0.2), np.arange(20.0))).expression)
        heavy = {"torch", "transformers", "huggingface_hub", "onnx", "pandas"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("~")


def test_shape_names_are_the_configurations(folder):
    config = json.loads((folder / STUDENT.config).read_text())
    assert {name: index for index, name in enumerate(config["shapes"])} == SHAPE_ID
