"""Reduced copies of served graphs, and the gate that lets them pass or not."""

import csv
import itertools

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from mstkd_serve.cli import app, run
from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import OnnxRuntimeEngine, OpenVinoEngine
from mstkd_serve.errors import DataError, GraphError, ParityError
from mstkd_serve.fairness.pair_lists import read_pair_list
from mstkd_serve.golden import GoldenRecord
from mstkd_serve.graph import build_served_graph, read_contract, read_metadata
from mstkd_serve.precision import Bounds, Precision, compare_graphs, convert, face_images
from mstkd_serve.repository import Target, build_repository

REDUCED = list(Precision)


@pytest.fixture(scope="module")
def model(tmp_path_factory, recogniser):
    """A served graph whose large weights are worth reducing."""
    folder = tmp_path_factory.mktemp("model")
    build_served_graph(
        recogniser(folder / "source.onnx", dim=64),
        folder / "served.onnx",
        preprocessing=Preprocessing(),
    )
    return folder / "served.onnx"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Faces of six people in two groups, and the list of their pairs."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    names = []
    for person in range(6):
        base = rng.integers(0, 256, (7, 7, 3)).repeat(16, 0).repeat(16, 1)
        for photo in range(2):
            name = f"{person}_{photo}.png"
            pixels = np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            names.append(name)
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "group", "genuine"])
        for a, b in itertools.combinations(names, 2):
            first, second = int(a[0]), int(b[0])
            if first % 2 == second % 2:
                writer.writerow([a, b, "ab"[first % 2], int(first == second)])
    return folder


def converted(model, images, out, precision, **options):
    return convert(
        model,
        out,
        precision,
        read_pair_list(images / "pairs.csv"),
        source="pairs.csv",
        calibration_images=face_images(images, 12),
        **options,
    )


@pytest.mark.parametrize("precision", REDUCED)
def test_a_reduced_copy_is_near_its_model_and_keeps_its_contract(
    model, images, tmp_path, precision
):
    out = tmp_path / "reduced.onnx"
    found = converted(model, images, out, precision)
    assert found.images == 12
    assert found.accuracy[0] == found.accuracy[1] == 100
    assert -1 <= found.min_cosine <= found.mean_cosine < 1 + 1e-6
    assert found.mean_cosine != 1, "nothing was reduced"
    assert read_contract(out) == read_contract(model)
    record = GoldenRecord.from_metadata(read_metadata(out), source="out")
    assert record.precision == precision.value
    faces = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    expected = OnnxRuntimeEngine(model).run(faces)
    least = 0.95 if precision is Precision.INT8 else 0.999
    for engine in (OnnxRuntimeEngine(out), OpenVinoEngine(out)):
        answer = engine.run(faces)
        assert np.sum(answer * expected, axis=1).min() > least
        np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-3)
        np.testing.assert_allclose(engine.run(faces[:1]), answer[:1], atol=2e-3)


@pytest.mark.parametrize("precision", REDUCED)
def test_a_repository_takes_a_reduced_copy(model, images, tmp_path, precision):
    out = tmp_path / "reduced.onnx"
    converted(model, images, out, precision)
    contracts = build_repository({"student": out}, tmp_path / "r", target=Target.ONNXRUNTIME)
    assert contracts["student"] == read_contract(model)


def test_what_is_reduced_is_reduced(model, images, tmp_path):
    kinds = {}
    for precision in REDUCED:
        converted(model, images, tmp_path / f"{precision}.onnx", precision)
        graph = onnx.load(tmp_path / f"{precision}.onnx").graph
        kinds[precision] = {
            tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1
        }
        operators = {node.op_type for node in graph.node}
        assert ("QuantizeLinear" in operators) == (precision is Precision.INT8)
    assert kinds["fp16"] == {onnx.TensorProto.FLOAT16}
    assert onnx.TensorProto.BFLOAT16 in kinds["bf16"]
    assert kinds["int8"] == {onnx.TensorProto.INT8}


def test_bf16_weights_are_rounded_as_torch_rounds_them(model, images, tmp_path):
    converted(model, images, tmp_path / "b.onnx", Precision.BF16)
    before = {t.name: t for t in onnx.load(model).graph.initializer}
    halves = [
        t
        for t in onnx.load(tmp_path / "b.onnx").graph.initializer
        if t.data_type == onnx.TensorProto.BFLOAT16
    ]
    assert halves
    for half in halves:
        full = torch.tensor(onnx.numpy_helper.to_array(before[half.name.removesuffix("/bf16")]))
        expected = full.to(torch.bfloat16).view(torch.int16).numpy()
        np.testing.assert_array_equal(np.frombuffer(half.raw_data, "<i2"), expected.ravel())


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(mean_cosine=1.0), "mean cosine below 1"),
        (Bounds(mean_cosine=0.0, accuracy_change=0.5), "a group's accuracy fell"),
    ],
)
def test_a_copy_that_lost_too_much_is_not_written(
    model, images, tmp_path, monkeypatch, bounds, words
):
    def ruin(source, out, faces):
        """Quantise so badly that the verification suffers."""
        spoilt = onnx.load(source)
        for tensor in spoilt.graph.initializer:
            if len(tensor.dims) == 4:
                level = np.full(tuple(tensor.dims), 0.01, np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(level, tensor.name))
        onnx.save(spoilt, out)

    monkeypatch.setattr("mstkd_serve.precision.conversion.quantise", ruin)
    out = tmp_path / "reduced.onnx"
    out.write_bytes(b"what was there")
    with pytest.raises(ParityError, match=words):
        converted(model, images, out, Precision.INT8, bounds=bounds)
    assert out.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [out]


def test_a_rise_of_std_is_refused(model, images):
    found = compare_graphs(model, model, read_pair_list(images / "pairs.csv"), "pairs.csv")
    assert found.mean_cosine == pytest.approx(1)
    worse = found.model_copy(update={"std": (1.0, 1.4)})
    with pytest.raises(ParityError, match=r"STD rose by more than 0\.25"):
        worse.require(Bounds(mean_cosine=0.9), "x")
    worse.require(Bounds(mean_cosine=0.9, std_change=0.5), "x")


def test_int8_without_faces_is_refused(model, images, tmp_path):
    with pytest.raises(DataError, match="--faces"):
        convert(model, tmp_path / "o.onnx", Precision.INT8, [], source="pairs")
    with pytest.raises(DataError, match="holds no images"):
        face_images(tmp_path, 5)


def test_only_full_precision_is_reduced(model, images, tmp_path, recogniser):
    converted(model, images, tmp_path / "once.onnx", Precision.FP16)
    with pytest.raises(GraphError, match="is fp16 already"):
        converted(tmp_path / "once.onnx", images, tmp_path / "twice.onnx", Precision.BF16)
    with pytest.raises(GraphError, match="mstkd-serve graph"):
        converted(recogniser(tmp_path / "f.onnx"), images, tmp_path / "o.onnx", Precision.BF16)


def test_the_command_tells_what_it_found(model, images, tmp_path, capsys):
    out = tmp_path / "small.onnx"
    words = ["precision", "convert", str(model), "--to", "bf16", "--out", str(out)]
    assert run(lambda: app([*words, "--pairs", str(images / "pairs.csv")])) == 0
    assert "bf16. 12 images, cosine to fp32 " in " ".join(capsys.readouterr().out.split())
    strict = [*words, "--pairs", str(images / "pairs.csv"), "--mean-cosine", "1"]
    assert run(lambda: app(strict)) == 1
    assert run(lambda: app(["precision", "show"])) == 0


def test_images_to_calibrate_on_are_spread_over_the_folder(images):
    picked = face_images(images, 4)
    assert [path.name for path in picked] == ["0_0.png", "2_0.png", "3_1.png", "5_1.png"]
