"""The trained student as one ONNX graph, in FP32 and INT8."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from eisv_lumen.errors import InputError
from eisv_lumen.vocabulary import MAX_TOKENS, N_CLASSES
from training.student.modeling_eisv_lumen import TrajectoryOutput, TrajectoryTransformer

OPSET = 17
INPUTS = ("states", "times", "mask", "noise")
OUTPUTS = tuple(TrajectoryOutput.__dataclass_fields__)
_SMALLEST_SIDE = 32
"""Rows and columns of the smallest weights that become INT8; the heads, which decide, have fewer."""


class _Graph(nn.Module):
    """The model with plain tensors in and out, as an exporter wants it."""

    def __init__(self, model: TrajectoryTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, states: Tensor, times: Tensor, mask: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """All outputs in the order of `OUTPUTS`."""
        return self.model(states, times, mask, noise).to_tuple()


def export_fp32(model: TrajectoryTransformer, path: Path) -> None:
    """Write the model as an ONNX graph with any batch size and window length, weights inside the file.

    onnxruntime's basic optimisation is applied before saving: it folds constants and shared weights, without
    which the weights of the unrolled decoding steps would escape quantisation.
    """
    model = model.eval().to("cpu")
    length = model.config.window_length
    example = (
        torch.rand(2, length, len(model.config.dimensions)) * 0.3,
        torch.arange(length - 1, -1, -1, dtype=torch.float32).repeat(2, 1),
        torch.ones(2, length, dtype=torch.bool),
        torch.zeros(2, MAX_TOKENS, N_CLASSES),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = path.with_suffix(".raw.onnx")
    axes = {name: {0: "batch"} for name in (*INPUTS, *OUTPUTS)}
    for name in ("states", "times", "mask"):
        axes[name] = {0: "batch", 1: "length"}
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about shape arithmetic and about being the older one of two.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(model),
            example,
            raw,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    _optimise(raw, path)
    raw.unlink()
    _shape_outputs(path)


def quantise(fp32: Path, int8: Path, *, keep: tuple[str, ...], per_channel: bool) -> int:
    """Write the INT8 graph: weights of the large matrix products as int8, activations quantised as they come.

    Args:
        fp32: What `export_fp32` wrote.
        int8: File to write.
        keep: Parts of node names that stay FP32.
        per_channel: One scale per output column instead of one per matrix.

    Returns:
        Number of matrix products quantised.

    Raises:
        InputError: Nothing is left to quantise.
    """
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer
    from transformers import PretrainedConfig

    graph = onnx.load(fp32).graph
    nodes = _large_products(graph, keep)
    if not nodes:
        # The quantizer takes an empty choice for all products, those to keep included.
        raise InputError(
            found=f"{fp32}: no product of large weights beside {', '.join(keep)}",
            expected="at least one to quantise",
            next="keep fewer parts in FP32, or use the FP32 graph",
        )
    configuration = AutoQuantizationConfig.arm64(
        is_static=False, per_channel=per_channel, nodes_to_quantize=nodes, operators_to_quantize=["MatMul"]
    )
    folder = int8.parent / ".quantising"
    ORTQuantizer(fp32, PretrainedConfig()).quantize(configuration, folder, file_suffix="int8")
    (folder / f"{fp32.stem}_int8.onnx").replace(int8)
    for leftover in folder.iterdir():
        leftover.unlink()
    folder.rmdir()
    model = onnx.load(int8)
    del model.graph.value_info[:]
    _shorten_names(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, int8)
    return len(nodes)


def session(path: Path) -> onnxruntime.InferenceSession:
    """A single-threaded CPU session, as the device runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs by name."""
    return dict(zip(OUTPUTS, opened.run(list(OUTPUTS), feed), strict=True))


def _optimise(raw: Path, path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def _shape_outputs(path: Path) -> None:
    """Keep the standard opset only, and no shapes that the optimiser inferred."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _large_products(graph: onnx.GraphProto, keep: tuple[str, ...]) -> list[str]:
    sides = {tensor.name: min(tensor.dims, default=0) for tensor in graph.initializer}
    chosen = [
        node
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and sides.get(node.input[1], 0) >= _SMALLEST_SIDE
        and not any(part in node.name for part in keep)
    ]
    # onnxruntime's quantizer first rewrites Gemm as MatMul and Add, under this name.
    return [node.name + ("_MatMul" if node.op_type == "Gemm" else "") for node in chosen]


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number the inner tensors and drop node names, which otherwise are a tenth of the INT8 file."""
    outer = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {name: name for name in outer}
    for tensor in graph.initializer:
        tensor.name = short.setdefault(tensor.name, f"w{len(short)}")
    for node in graph.node:
        node.name = ""
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = short.setdefault(name, f"t{len(short)}")
