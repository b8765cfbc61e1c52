"""Detectors that cannot be used are refused, and nothing is downloaded."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mstkd_client import (
    InvalidDetector,
    InvalidSettings,
    MissingExtra,
    MstkdClientError,
)
from mstkd_client import align as align_module
from mstkd_client.align import (
    ARCFACE_112,
    Detection,
    InsightFaceDetector,
    YuNetDetector,
    align,
    detect_and_align,
)

CLIENT = Path(__file__).parents[3] / "clients" / "python"
TEMPLATE = np.array(ARCFACE_112)
NOISE = np.random.default_rng(5).integers(0, 256, (150, 200, 3), dtype=np.uint8)


class Given:
    """A detector that answers what it was given."""

    def __init__(self, *found):
        self.found = found
        self.photo = None

    def detect(self, photo_rgb: NDArray[np.uint8]) -> list[Detection]:
        self.photo = photo_rgb
        return list(self.found)


def detection(score=0.9, left=20, size=112):
    bbox = np.array([left, 20, left + size, 20 + size], np.float32)
    return Detection(bbox, (TEMPLATE * size / 112 + (left, 20)).astype(np.float32), score)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "damaged or no YuNet"),
        (b"junk" * 100, "damaged or no YuNet"),
    ],
)
@pytest.mark.parametrize("name", ["detector.onnx", "detector.bin"])
def test_a_bad_detector_file_is_refused(tmp_path, content, reason, name):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for make in (YuNetDetector, lambda path: detect_and_align(NOISE, path)):
        with pytest.raises(InvalidDetector, match=rf"{re.escape(str(path))}.*{reason}.*Give a"):
            make(path)
    with pytest.raises(InvalidDetector, match="is a folder"):
        YuNetDetector(tmp_path)


@pytest.mark.shared_data
def test_a_cut_detector_and_another_network_are_refused(shared, yunet_path, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(yunet_path.read_bytes()[:100_000])
    for path in (cut, shared / "weights" / "mobilefacenet_128d.onnx"):
        with pytest.raises(InvalidDetector, match="damaged or no YuNet"):
            YuNetDetector(path)


@pytest.mark.parametrize("options", [{"min_score": 2}, {"max_side": 8}, {"max_side": 10**6}])
def test_settings_of_a_detector_are_checked(options):
    with pytest.raises(InvalidSettings, match=next(iter(options))):
        YuNetDetector("any.onnx", **options)


@pytest.mark.parametrize("detector", [None, 3, object(), NOISE])
def test_what_detects_nothing_is_refused(detector):
    with pytest.raises(InvalidDetector, match="without a method detect"):
        detect_and_align(NOISE, detector)


def test_errors_are_value_errors_of_the_client():
    assert issubclass(InvalidDetector, ValueError)
    assert issubclass(InvalidDetector, MstkdClientError)


def test_an_insightface_app_is_asked_in_bgr():
    seen = []

    class App:
        def get(self, image):
            seen.append(image)
            found = detection(0.75)
            kps = found.landmarks.astype(np.float64)
            return [SimpleNamespace(bbox=found.bbox, kps=kps, det_score=np.float32(0.75))]

    (face,) = detect_and_align(NOISE, InsightFaceDetector(App()))
    np.testing.assert_array_equal(seen[0], NOISE[..., ::-1])
    assert seen[0].flags.c_contiguous
    np.testing.assert_array_equal(face.face, NOISE[20:132, 20:132])
    assert face.score == 0.75
    assert face.landmarks.dtype == np.float32


def test_an_insightface_app_without_landmarks_is_refused():
    face = SimpleNamespace(bbox=np.zeros(4), kps=None, det_score=1.0)
    app = SimpleNamespace(get=lambda image: [face])
    with pytest.raises(InvalidDetector, match="buffalo_l"):
        InsightFaceDetector(app).detect(NOISE)


@pytest.mark.parametrize("app", ["buffalo_l", None, {}])
def test_what_is_no_insightface_app_is_refused(app):
    with pytest.raises(InvalidDetector, match="from_pack"):
        InsightFaceDetector(app)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("touched the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_pack_that_is_not_there_is_not_downloaded(no_network, tmp_path):
    expected = tmp_path / "models" / "buffalo_l"
    with pytest.raises(InvalidDetector, match=re.escape(str(expected))):
        InsightFaceDetector.from_pack("buffalo_l", root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    expected.mkdir(parents=True)
    for folder in ("buffalo_l", expected):
        with pytest.raises(InvalidDetector, match="downloads none"):
            InsightFaceDetector.from_pack(folder, root=tmp_path)
    assert list(expected.iterdir()) == []


def write_scrfd(path, face):
    """An ONNX file with the outputs of InsightFace's SCRFD that finds one face everywhere."""
    outputs, nodes, constants = [], [], []
    sizes = [(640 // stride) ** 2 * 2 for stride in (8, 16, 32)]
    for width, kind in ((1, "score"), (4, "bbox"), (10, "kps")):
        for size, stride in zip(sizes, (8, 16, 32), strict=True):
            values = np.zeros((size, width), np.float32)
            if stride == 32:
                centre = np.array([64, 64])
                row = (64 // 32 * 20 + 64 // 32) * 2
                corners = np.concatenate([centre - face.bbox[:2], face.bbox[2:] - centre])
                points = (face.landmarks - centre).reshape(-1)
                values[row] = {"score": face.score, "bbox": corners / 32, "kps": points / 32}[kind]
            name = f"{kind}_{stride}"
            constants.append(numpy_helper.from_array(values, f"{name}_values"))
            nodes.append(helper.make_node("Identity", [f"{name}_values"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, width]))
    image = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, "scrfd", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_pack_on_this_machine_is_used(no_network, tmp_path):
    photo = np.resize(NOISE, (640, 640, 3))
    expected = detection(0.875)
    write_scrfd(tmp_path / "models" / "mine" / "det.onnx", expected)
    for folder, root in (("mine", tmp_path), (tmp_path / "models" / "mine", "/nowhere")):
        detector = InsightFaceDetector.from_pack(folder, root=root)
        (face,) = detect_and_align(photo, detector)
        assert face.score == pytest.approx(0.875)
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1e-3)
        np.testing.assert_allclose(face.bbox, expected.bbox, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_damaged_pack_is_refused(no_network, tmp_path, recogniser):
    (tmp_path / "det.onnx").write_bytes(b"junk")
    with pytest.raises(InvalidDetector, match=re.escape(str(tmp_path))):
        InsightFaceDetector.from_pack(tmp_path)
    recogniser(tmp_path / "det.onnx")
    with pytest.raises(InvalidDetector, match="no face detector"):
        InsightFaceDetector.from_pack(tmp_path)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("cv2", lambda path: align(NOISE, TEMPLATE)),
        ("cv2", lambda path: YuNetDetector(path / "any.onnx")),
        ("insightface.app", lambda path: InsightFaceDetector.from_pack(path)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, module, call):
    (tmp_path / "any.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module}.*pip install 'mstkd-client\[align\]'"):
        call(tmp_path)


def test_the_import_brings_nothing_heavy():
    script = (
        "import sys, mstkd_client.align as a; "
        "print([m for m in ('cv2', 'insightface', 'onnxruntime', 'skimage', 'torch') "
        "if m in sys.modules], a.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(CLIENT)},
    )
    assert done.stdout.startswith("[] ")
    assert str(Path(align_module.__file__).resolve()) in done.stdout
