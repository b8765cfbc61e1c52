"""Write a copy of a served graph in fewer bits, and let the gate decide whether it stays."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mstkd_serve.calibration import CALIBRATION_KEY
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import DataError, EngineError, GraphError
from mstkd_serve.fairness.pair_lists import ImagePair
from mstkd_serve.files import atomic_path
from mstkd_serve.golden import GoldenRecord, golden_faces
from mstkd_serve.graph import WRAPPER_PREFIX, is_served_file, read_metadata
from mstkd_serve.precision.gate import DEFAULT_MEAN_COSINE, Bounds, Comparison, Progress
from mstkd_serve.precision.gate import compare_graphs as compare
from mstkd_serve.precision.int8 import quantise

_LEAST_WEIGHTS = 1024


class Precision(StrEnum):
    """What a graph can be converted to."""

    FP16 = "fp16"
    """Computed in float16, but for the pixels' normalisation and the L2 norm. For GPUs."""
    BF16 = "bf16"
    """Weights stored in bfloat16: half the size. What computes in bfloat16 loses nothing more."""
    INT8 = "int8"
    """Convolutions and matrix products in 8 bits, calibrated on faces."""


def convert(
    model: Path,
    out: Path,
    precision: Precision,
    pairs: Sequence[ImagePair],
    *,
    source: str,
    calibration_images: Sequence[Path] = (),
    bounds: Bounds | None = None,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Write a reduced copy of a served graph if it keeps what the bounds say.

    The copy keeps the contract, because its embeddings live in the same space; its golden
    embeddings are its own; a calibrated threshold is dropped, because it was measured on fp32.

    Args:
        model: An fp32 served graph.
        out: The file to write; it appears only when the gate passes.
        precision: What to convert to.
        pairs: Pairs of aligned faces for the gate.
        source: Name of their list, for messages.
        calibration_images: Aligned faces to calibrate int8 on; better none of the pairs'.
        bounds: What the copy must keep; by default `DEFAULT_MEAN_COSINE` of the precision.
        progress: Called with the gate's images embedded so far and their number.

    Returns:
        What the gate found.

    Raises:
        GraphError: `model` is no fp32 served graph.
        DataError: int8 without images, or an image is unreadable.
        ParityError: The copy lost too much.
        EngineError: ONNX Runtime is not installed, or cannot convert the graph.
    """
    if not is_served_file(model):
        raise GraphError(
            f"{model}: no served graph. Make one first: mstkd-serve graph {model} --out FILE."
        )
    metadata = read_metadata(model)
    if (has := GoldenRecord.from_metadata(metadata, source=str(model)).precision) != "fp32":
        raise GraphError(f"{model}: is {has} already. Convert the fp32 graph.")
    if precision is Precision.INT8 and not calibration_images:
        raise DataError("int8 needs faces to calibrate on: give --faces FOLDER.")
    bounds = bounds or Bounds(mean_cosine=DEFAULT_MEAN_COSINE[precision.value])
    with atomic_path(out) as temporary:
        if precision is Precision.INT8:
            quantise(model, temporary, calibration_images)
        else:
            reduce = _to_fp16 if precision is Precision.FP16 else _to_bf16
            onnx.save(reduce(onnx.load(model)), temporary)
        _describe(temporary, metadata, precision)
        found = compare(model, temporary, pairs, source, progress)
        found.require(bounds, f"{out.name}: {precision.value}")
    return found


def _describe(written: Path, metadata: dict[str, str], precision: Precision) -> None:
    answers = OnnxRuntimeEngine(written).run(golden_faces())
    model = onnx.load(written)
    pairs = metadata | GoldenRecord.of(answers, precision.value).metadata()
    pairs.pop(CALIBRATION_KEY, None)
    helper.set_model_props(model, pairs)
    onnx.save(model, written)


def _to_fp16(model: ModelProto) -> ModelProto:
    """Compute the network in float16; what the served graph wraps around it stays in float32."""
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel
    except ImportError as error:
        raise EngineError(
            "converting needs ONNX Runtime: pip install 'mstkd-serve[cpu]'."
        ) from error
    graph = model.graph
    around = [node for node in graph.node if node.name.startswith(WRAPPER_PREFIX)]
    network = [node for node in graph.node if not node.name.startswith(WRAPPER_PREFIX)]
    ends = [_crossing(around, network), _crossing(network, around)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ends]
    inner = helper.make_model(
        helper.make_graph(network, "network", infos[:1], infos[1:], list(graph.initializer)),
        opset_imports=model.opset_import,
    )
    inner.ir_version = model.ir_version
    sorted_model = OnnxModel(convert_float_to_float16(inner, keep_io_types=True))
    sorted_model.topological_sort()  # the converter appends its casts at the end
    converted = sorted_model.model.graph
    before = [node for node in around if ends[1] not in _needs(node, around)]
    nodes = [*before, *converted.node, *(node for node in around if node not in before)]
    own = {name for node in around for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in own]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    names = {tensor.name for tensor in kept}
    graph.initializer.extend([*kept, *(t for t in converted.initializer if t.name not in names)])
    return model


def _crossing(makers: Sequence[NodeProto], users: Sequence[NodeProto]) -> str:
    """Return the one tensor that some nodes hand to others."""
    made = {name for node in makers for name in node.output}
    (tensor,) = {name for node in users for name in node.input} & made
    return tensor


def _needs(node: NodeProto, nodes: Sequence[NodeProto]) -> set[str]:
    """Return every tensor that a node depends on through the given nodes."""
    made_by = {name: each for each in nodes for name in each.output}
    found: set[str] = set()
    waiting = list(node.input)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += made_by[name].input if name in made_by else []
    return found


def _to_bf16(model: ModelProto) -> ModelProto:
    """Store the large weights in bfloat16, each widened by a Cast when the graph is loaded."""
    graph = model.graph
    large = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= _LEAST_WEIGHTS
    ]
    casts = []
    for tensor in large:
        name = tensor.name
        values = numpy_helper.to_array(tensor)
        half = helper.make_tensor(
            f"{name}/bf16", TensorProto.BFLOAT16, values.shape, _bf16_bits(values), raw=True
        )
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
        casts.append(
            helper.make_node("Cast", [half.name], [name], f"{name}/widen", to=TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _bf16_bits(values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> bytes:
    """Round float32 to the nearest bfloat16, ties to even; finite values only."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return bytes((rounded >> 16).astype("<u2").data)
