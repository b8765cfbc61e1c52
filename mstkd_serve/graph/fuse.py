"""The teacher-projection path as one graph: all teachers and their adaptor side by side."""

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, helper

from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import GraphError
from mstkd_serve.files import atomic_path
from mstkd_serve.golden import FULL_PRECISION, GoldenRecord, golden_faces
from mstkd_serve.graph.adaptor import AGREEMENT_NAME, AdaptorGraph, Teacher, teachers_metadata
from mstkd_serve.graph.batch import BATCH_AXIS
from mstkd_serve.graph.source import INPUT_NAME, OUTPUT_NAME, load_model, metadata_of, opset
from mstkd_serve.parity import compare

_MIN_COSINE = 0.99999
_MAX_ABS = 1e-4


def fuse(adaptor: AdaptorGraph, teachers: Mapping[Teacher, Path], out: Path) -> GoldenRecord:
    """Write teachers and adaptor as one ONNX file, and prove it.

    The proof holds the file's answers for the golden faces against the adaptor run by itself on
    the golden embeddings that the teachers' files carry.

    Args:
        adaptor: The adaptor.
        teachers: Served graph of each teacher, in the adaptor's order.
        out: The file to write: `faces` UINT8 `[N, 112, 112, 3]` in; `embedding` `[N, dim]`,
            `agreement` `[N, 1]` and each teacher's `embedding_<group>` out.

    Returns:
        The golden embeddings of the teacher-projection path.

    Raises:
        GraphError: The files are of different opsets.
        ParityError: The written file differs from its parts.
    """
    golden = [
        GoldenRecord.from_metadata(metadata_of(load_model(path)), source=str(path))
        for path in teachers.values()
    ]
    reduced = {each.precision for each in golden} - {FULL_PRECISION}
    parts = {teacher.part: each.embeddings for teacher, each in zip(teachers, golden, strict=True)}
    projected = OnnxRuntimeEngine(adaptor.path).run_named(parts)[OUTPUT_NAME]
    record = GoldenRecord.of(projected, ", ".join(sorted(reduced)) or FULL_PRECISION)
    model = _compose(adaptor, {teacher: load_model(path) for teacher, path in teachers.items()})
    pairs = adaptor.contract.metadata() | record.metadata() | teachers_metadata(adaptor.teachers)
    if adaptor.calibration is not None:
        pairs |= adaptor.calibration.metadata()
    helper.set_model_props(model, pairs)
    with atomic_path(out) as temporary:
        onnx.save(model, temporary)
        answer = OnnxRuntimeEngine(temporary).run(golden_faces())
        what = f"{out.name}: the fused graph against its parts"
        agreement = compare(answer, record.embeddings, what)
        agreement.require(what, min_cosine=_MIN_COSINE, max_abs=_MAX_ABS)
    return record


def _compose(adaptor: AdaptorGraph, teachers: Mapping[Teacher, ModelProto]) -> ModelProto:
    versions = {opset(model) for model in (adaptor.model, *teachers.values())}
    if len(versions) > 1:
        raise GraphError(
            f"{adaptor.path}: adaptor and teachers use opsets {sorted(versions)}. Export all with "
            "the same release, or build with --ensemble-as steps."
        )
    graph = helper.make_graph([], "teacher_projection", [], [])
    for teacher, model in teachers.items():
        part = onnx.compose.add_prefix(model, f"{teacher.name}/").graph
        names = {part.input[0].name: INPUT_NAME, part.output[0].name: teacher.part}
        _absorb(graph, part, names)
    prefixed = onnx.compose.add_prefix(adaptor.model, "adaptor/").graph
    names = {f"adaptor/{teacher.part}": teacher.part for teacher in teachers}
    names |= {f"adaptor/{output}": output for output in (OUTPUT_NAME, AGREEMENT_NAME)}
    _absorb(graph, prefixed, names)
    graph.input.append(
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [BATCH_AXIS, 112, 112, 3])
    )
    dims = {OUTPUT_NAME: adaptor.contract.embedding_dim, AGREEMENT_NAME: 1}
    dims |= {teacher.part: teacher.embedding_dim for teacher in teachers}
    for name, dim in dims.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH_AXIS, dim])
        graph.output.append(info)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", versions.pop())])
    model.ir_version = max(each.ir_version for each in (adaptor.model, *teachers.values()))
    onnx.checker.check_model(model)
    return model


def _absorb(graph: onnx.GraphProto, part: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Move nodes and weights of `part` into `graph`, with some tensors renamed."""
    for node in part.node:
        for names_of_node in (node.input, node.output):
            for index, name in enumerate(names_of_node):
                names_of_node[index] = names.get(name, name)
        graph.node.append(node)
    graph.initializer.extend(part.initializer)
