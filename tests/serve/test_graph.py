from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper

from mstkd_serve.contract import CONTRACT_KEY, FaceContract, Preprocessing
from mstkd_serve.errors import ContractError, GraphError, ParityError
from mstkd_serve.golden import GOLDEN_KEY, GoldenRecord, golden_faces
from mstkd_serve.graph import build_served_graph, read_contract, read_metadata

IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def run(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
@pytest.mark.parametrize("flip", [False, True])
def test_served_graph_equals_the_formula(tmp_path, recogniser, faces, opset, flip):
    source = recogniser(tmp_path / "source.onnx", opset=opset)
    out = tmp_path / "served.onnx"
    contract = build_served_graph(
        source, out, preprocessing=IMAGENET.model_copy(update={"flip": flip})
    )

    pixels = (faces.astype(np.float64) - IMAGENET.mean) / IMAGENET.std
    upright = run(source, pixels.transpose(0, 3, 1, 2).astype(np.float32))
    mirrored = run(source, pixels[:, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32))
    expected = unit(upright + mirrored if flip else upright)

    np.testing.assert_allclose(run(out, faces), expected, atol=2e-6)
    np.testing.assert_allclose(run(out, faces[:1]), expected[:1], atol=2e-6)
    assert contract.flip is flip
    assert read_contract(out) == contract


def test_openvino_loads_the_served_graph(tmp_path, recogniser, faces):
    out = tmp_path / "served.onnx"
    source = recogniser(tmp_path / "source.onnx")
    build_served_graph(source, out, preprocessing=Preprocessing(flip=True))
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(out), "CPU", settings)
    for batch in (faces[:1], faces):
        answer = compiled([batch])[compiled.output(0)]
        np.testing.assert_allclose(answer, run(out, batch), atol=1e-5)


@pytest.mark.parametrize("reshape", [[1, -1], [1, 16], [-1, 16], [0, -1]])
def test_fixed_batch_is_freed(tmp_path, recogniser, faces, reshape):
    source = recogniser(tmp_path / "source.onnx", batch=1, reshape=reshape)
    out = tmp_path / "served.onnx"
    build_served_graph(source, out, preprocessing=Preprocessing())
    together = run(out, faces)
    assert together.shape == (8, 16)
    one_by_one = np.concatenate([run(out, face[np.newaxis]) for face in faces])
    np.testing.assert_allclose(together, one_by_one, atol=1e-6)


def test_batch_that_cannot_be_freed_is_refused(tmp_path, recogniser):
    source = recogniser(tmp_path / "source.onnx", batch=1)
    model = onnx.load(source)
    # An Expand to a constant shape ties the batch down where no Reshape is.
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([1, 16], np.int64), "expanded")
    )
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.append(helper.make_node("ReduceMean", ["flat"], ["m"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Expand", ["m", "expanded"], ["output"]))
    onnx.save(model, source)
    with pytest.raises(ParityError, match="dynamic batch axis"):
        build_served_graph(source, tmp_path / "served.onnx", preprocessing=Preprocessing())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.onnx"]


def test_wrongly_baked_normalisation_is_refused(tmp_path, recogniser, monkeypatch):
    from mstkd_serve.graph import build

    def bake_swapped(model, preprocessing, dim):
        return build_bake(model, Preprocessing(mean=preprocessing.mean[::-1]), dim)

    build_bake = build.bake
    monkeypatch.setattr(build, "bake", bake_swapped)
    source = recogniser(tmp_path / "source.onnx")
    with pytest.raises(ParityError, match="served graph against the source"):
        build_served_graph(source, tmp_path / "served.onnx", preprocessing=IMAGENET)
    assert not (tmp_path / "served.onnx").exists()


def test_tensor_names_of_ours_in_the_source_do_no_harm(tmp_path, recogniser, faces):
    source = recogniser(tmp_path / "source.onnx")
    model = onnx.load(source)
    for node in model.graph.node:
        node.input[:] = ["faces" if name == "input" else name for name in node.input]
        node.output[:] = ["embedding" if name == "output" else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "faces", "embedding"
    renamed = tmp_path / "renamed.onnx"
    onnx.save(model, renamed)
    for path in (source, renamed):
        build_served_graph(path, path.with_suffix(".out.onnx"), preprocessing=Preprocessing())
    np.testing.assert_array_equal(
        run(source.with_suffix(".out.onnx"), faces), run(renamed.with_suffix(".out.onnx"), faces)
    )


def test_embedding_space_follows_the_weights(tmp_path, recogniser):
    def space(name: str, **options) -> str:
        source = recogniser(tmp_path / name, **options)
        out = tmp_path / f"served-{name}"
        return build_served_graph(source, out, preprocessing=Preprocessing()).embedding_space

    assert space("a.onnx") == space("again.onnx") != space("b.onnx", seed=1)


def test_contract_is_needed_and_must_agree(tmp_path, recogniser):
    source, out = recogniser(tmp_path / "source.onnx"), tmp_path / "served.onnx"
    with pytest.raises(ContractError, match="--contract arcface"):
        build_served_graph(source, out)
    written = build_served_graph(source, out, preprocessing=Preprocessing(), embedding_space="s")
    assert written.embedding_space == "s"
    with pytest.raises(ContractError, match="contradicts"):
        build_served_graph(out, tmp_path / "again.onnx", preprocessing=IMAGENET)
    with pytest.raises(ContractError, match="flip"):
        build_served_graph(out, tmp_path / "again.onnx", preprocessing=Preprocessing(flip=True))


def test_served_graph_is_copied_as_it_is(tmp_path, recogniser):
    out, again = tmp_path / "served.onnx", tmp_path / "again.onnx"
    first = build_served_graph(
        recogniser(tmp_path / "source.onnx"), out, preprocessing=Preprocessing()
    )
    assert build_served_graph(out, again) == first
    assert again.read_bytes() == out.read_bytes()


def test_served_graph_with_other_weights_is_refused(tmp_path, recogniser):
    out = tmp_path / "served.onnx"
    build_served_graph(recogniser(tmp_path / "source.onnx"), out, preprocessing=Preprocessing())
    model = onnx.load(out)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("w2"):
            values = onnx.numpy_helper.to_array(tensor)[::-1].copy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, out)
    with pytest.raises(ParityError, match="golden faces"):
        build_served_graph(out, tmp_path / "again.onnx")


def test_float_source_with_a_contract_needs_no_other(tmp_path, recogniser):
    source = recogniser(tmp_path / "source.onnx")
    contract = FaceContract(**IMAGENET.model_dump(), embedding_dim=16, embedding_space="space")
    model = onnx.load(source)
    onnx.helper.set_model_props(model, contract.metadata())
    onnx.save(model, source)
    assert build_served_graph(source, tmp_path / "served.onnx") == contract


def test_golden_embeddings_travel_with_the_model(tmp_path, recogniser):
    out = tmp_path / "served.onnx"
    build_served_graph(recogniser(tmp_path / "source.onnx"), out, preprocessing=Preprocessing())
    record = GoldenRecord.from_metadata(read_metadata(out), source="served")
    np.testing.assert_allclose(record.embeddings, run(out, golden_faces()), atol=1e-6)
    assert CONTRACT_KEY in read_metadata(out)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "no golden embeddings"),
        ({GOLDEN_KEY: "x"}, "malformed"),
        ({GOLDEN_KEY: '{"faces_sha256": "0", "embeddings": "AAAA"}'}, "malformed"),
        (
            {GOLDEN_KEY: '{"faces_sha256": "0", "embeddings": "AAAAAAAAAAAAAAAAAAAAAA=="}'},
            "release",
        ),
    ],
)
def test_damaged_golden_record_is_a_typed_error(metadata, message):
    with pytest.raises(ContractError, match=message):
        GoldenRecord.from_metadata(metadata, source="m.onnx")


def save_with_shape(path: Path, shape: list[int], dtype: int = TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ([1, 3, 160, 160], TensorProto.FLOAT, r"\[1, 3, 160, 160\]"),
        ([1, 112, 112, 3], TensorProto.FLOAT, "NCHW"),
        ([8, 3, 112, 112], TensorProto.FLOAT, r"\[N or 1, 3, 112, 112\]"),
        ([1, 3, 112, 112], TensorProto.DOUBLE, "DOUBLE"),
        ([1, 3, 112, 112], TensorProto.FLOAT, "one embedding"),
    ],
)
def test_a_file_that_is_no_recogniser_is_refused(tmp_path, shape, dtype, message):
    path = save_with_shape(tmp_path / "odd.onnx", shape, dtype)
    with pytest.raises(GraphError, match=message):
        build_served_graph(path, tmp_path / "served.onnx", preprocessing=Preprocessing())


def test_several_outputs_are_named(tmp_path, recogniser):
    source = recogniser(tmp_path / "source.onnx")
    model = onnx.load(source)
    model.graph.output.append(
        helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["n", 8, 28, 28])
    )
    onnx.save(model, source)
    with pytest.raises(GraphError, match=r"has 2 \(output, r1\)"):
        build_served_graph(source, tmp_path / "served.onnx", preprocessing=Preprocessing())


@pytest.mark.parametrize("content", [None, b"", b"not an onnx file", b"\x00" * 100])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GraphError, match=r"m\.onnx"):
        build_served_graph(path, tmp_path / "served.onnx", preprocessing=Preprocessing())
