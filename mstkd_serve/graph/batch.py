"""Free a batch axis that an exporter fixed at 1.

Renaming the first dimension is not enough: exporters also leave the batch as a constant in the
target shapes of `Reshape` nodes, where 8 faces then become one row of eight times the length.
"""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from onnx.helper import get_attribute_value

from mstkd_serve.graph.source import dimensions

BATCH_AXIS = "N"


def free_batch_axis(model: ModelProto) -> list[str]:
    """Make the first axis of input, output and data-dependent reshapes symbolic, in place.

    Whether this is enough is for the caller to prove by running batches of several sizes.

    Args:
        model: A checked single-input, single-output model.

    Returns:
        The names of the `Reshape` nodes that were changed.
    """
    graph = model.graph
    for value in (graph.input[0], graph.output[0]):
        if dimensions(value):
            value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    for dim, size in zip(graph.input[0].type.tensor_type.shape.dim[1:], (3, 112, 112), strict=True):
        dim.dim_value = size
    del graph.value_info[:]  # inferred for the old batch size

    constants = _integer_constants(graph)
    dependent = {graph.input[0].name}
    changed = []
    for node in graph.node:
        if dependent.isdisjoint(node.input):
            continue
        dependent.update(node.output)
        if node.op_type == "Reshape" and node.input[0] in dependent:
            shape = constants.get(node.input[1])
            if shape is not None and len(shape) > 1 and shape[0] == 1:
                _free_reshape(graph, node, shape)
                changed.append(node.name or node.output[0])
    return changed


def _integer_constants(graph: GraphProto) -> dict[str, list[int]]:
    """Return the int64 vectors among the initialisers and constants by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = get_attribute_value(attribute)
    return {
        name: [int(size) for size in numpy_helper.to_array(tensor)]
        for name, tensor in tensors.items()
        if tensor.data_type == tensor.INT64 and len(tensor.dims) == 1
    }


def _free_reshape(graph: GraphProto, node: NodeProto, shape: list[int]) -> None:
    """Replace a reshape's leading constant 1 by "the batch", whatever it is."""
    if -1 in shape:
        leading = 0  # keep the input's first axis; the -1 infers another one
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    else:
        leading = -1
    name = f"{node.output[0]}/freed_shape"
    graph.initializer.append(
        numpy_helper.from_array(np.array([leading, *shape[1:]], np.int64), name)
    )
    node.input[1] = name
