"""The roofline counts what a graph really does."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks import hearing
from benchmarks.roofline import Peaks, Work
from tests.student_folders import student_folder


def test_operations_and_bytes_of_a_known_graph(tmp_path):
    weights = np.ones((6, 5), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Sin", ["y"], ["z"])],
        "known",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 6])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4, 5])],
        [helper.make_tensor("w", TensorProto.FLOAT, [6, 5], weights.tobytes(), raw=True)],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    work = Work.of(path, {"x": np.ones((2, 4, 6), np.float32)})
    assert (work.operations, work.nodes) == (2 * 2 * 4 * 5 * 6, 2)
    assert work.traffic == path.stat().st_size + 2 * (2 * 2 * 4 * 5 * 4)
    assert work.seconds(Peaks(operations=480.0, traffic=1e12)) == 1.0
    assert work.seconds(Peaks(operations=1e12, traffic=work.traffic / 2)) == 2.0


def test_a_student_beside_its_roofline():
    found = {
        figure.name: figure for figure in hearing.rooflines(student_folder(), {"fp32": 1.0, "int8": 1.0})
    }
    fp32, int8 = (found[f"student {name}, operations"].value for name in ("fp32", "int8"))
    assert fp32 == int8 > 0, "quantising changes the type of the products, not their number"
    assert found["student int8, bytes moved"].value < found["student fp32, bytes moved"].value
    assert 0 < found["student int8, median beside the roofline"].ratio < 1
