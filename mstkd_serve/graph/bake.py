"""Wrap a network with what the contract says: uint8 normalisation before, L2 norm after."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mstkd_serve.contract import Preprocessing
from mstkd_serve.graph.batch import BATCH_AXIS
from mstkd_serve.graph.source import INPUT_NAME, OUTPUT_NAME, opset

_NETWORK = "network/"
WRAPPER_PREFIX = "mstkd_"
"""How the names of the nodes around the network begin."""
_SMALLEST_NORM = 1e-12


def bake(model: ModelProto, preprocessing: Preprocessing, embedding_dim: int) -> ModelProto:
    """Return the served graph around a network with a free batch axis.

    The nodes are `Cast, Sub, Div, Transpose`, the mirror image beside the face where the
    contract asks for it, the network, the sum of both views, and the division by the L2 norm
    (at least 1e-12, so that a zero embedding stays zero instead of becoming NaN).

    Args:
        model: Network with FLOAT `[N, 3, 112, 112]` in and FLOAT `[N, dim, ...]` out.
        preprocessing: The values to bake in.
        embedding_dim: Length of one embedding, known from a run of the network.

    Returns:
        A new model with `faces` UINT8 `[N, 112, 112, 3]` in and `embedding` FLOAT `[N, dim]` out.
    """
    network = onnx.compose.add_prefix(model, _NETWORK)
    graph = network.graph
    version = opset(model)
    network_input, network_output = graph.input[0].name, graph.output[0].name

    constants: dict[str, NDArray[Any]] = {
        "mstkd/mean": np.array(preprocessing.mean, np.float32),
        "mstkd/std": np.array(preprocessing.std, np.float32),
        "mstkd/smallest_norm": np.array(_SMALLEST_NORM, np.float32),
        "mstkd/row": np.array([-1, embedding_dim], np.int64),
    }
    before = [
        helper.make_node("Cast", [INPUT_NAME], ["mstkd/float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["mstkd/float", "mstkd/mean"], ["mstkd/centred"]),
        helper.make_node("Div", ["mstkd/centred", "mstkd/std"], ["mstkd/scaled"]),
    ]
    after = [helper.make_node("Reshape", [network_output, "mstkd/row"], ["mstkd/rows"])]
    nchw, rows = network_input, "mstkd/rows"
    if preprocessing.flip:
        nchw, rows = "mstkd/upright", "mstkd/both_views"
        constants |= {
            "mstkd/last": np.array([-1], np.int64),
            "mstkd/past_first": np.array([np.iinfo(np.int64).min], np.int64),
            "mstkd/width_axis": np.array([3], np.int64),
        }
    before.append(helper.make_node("Transpose", ["mstkd/scaled"], [nchw], perm=[0, 3, 1, 2]))
    if preprocessing.flip:
        before += _mirror(nchw, network_input)
        after += _sum_of_views("mstkd/rows", rows, version)
    after += _unit_norm(rows, version, constants)

    nodes = [*before, *graph.node, *after]
    for node in (*before, *after):
        # Not "Sub..." or "Mul...": insightface guesses preprocessing from such first names.
        node.name = f"{WRAPPER_PREFIX}{node.op_type.lower()}_{node.output[0].rsplit('/', 1)[-1]}"
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    del graph.input[:], graph.output[:]
    graph.input.append(
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [BATCH_AXIS, 112, 112, 3])
    )
    graph.output.append(
        helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [BATCH_AXIS, embedding_dim])
    )
    return network


def _mirror(upright: str, both: str) -> list[NodeProto]:
    """Stack the batch and its mirror images: `[N, ...]` becomes `[2N, ...]`."""
    ends = ["mstkd/last", "mstkd/past_first", "mstkd/width_axis", "mstkd/last"]
    return [
        helper.make_node("Slice", [upright, *ends], ["mstkd/mirrored"]),
        helper.make_node("Concat", [upright, "mstkd/mirrored"], [both], axis=0),
    ]


def _sum_of_views(stacked: str, summed: str, version: int) -> list[NodeProto]:
    """Add the upright half of a stacked batch to its mirrored half."""
    halves = ["mstkd/upright_half", "mstkd/mirrored_half"]
    split = helper.make_node("Split", [stacked], halves, axis=0)
    if version >= 18:
        split.attribute.append(helper.make_attribute("num_outputs", 2))
    return [split, helper.make_node("Add", halves, [summed])]


def _unit_norm(rows: str, version: int, constants: dict[str, NDArray[Any]]) -> list[NodeProto]:
    """Divide each row by its L2 norm; the reduction's axes moved to an input in opset 18."""
    if version < 18:
        norm = helper.make_node("ReduceL2", [rows], ["mstkd/norm"], axes=[1], keepdims=1)
    else:
        constants["mstkd/row_axis"] = np.array([1], np.int64)
        norm = helper.make_node("ReduceL2", [rows, "mstkd/row_axis"], ["mstkd/norm"], keepdims=1)
    return [
        norm,
        helper.make_node("Max", ["mstkd/norm", "mstkd/smallest_norm"], ["mstkd/safe_norm"]),
        helper.make_node("Div", [rows, "mstkd/safe_norm"], [OUTPUT_NAME]),
    ]
