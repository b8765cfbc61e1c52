import numpy as np
import pytest

from mstkd_serve.engine import OnnxRuntimeEngine, OpenVinoEngine
from mstkd_serve.errors import EngineError


def test_both_packages_of_onnx_runtime_are_refused(tmp_path, monkeypatch, recogniser):
    model = recogniser(tmp_path / "model.onnx")
    OnnxRuntimeEngine(model)
    other = tmp_path / "onnxruntime_gpu-1.20.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.20.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"onnxruntime-gpu 1\.20\.0 are both installed"):
        OnnxRuntimeEngine(model)


def test_openvino_gives_what_onnx_runtime_gives(tmp_path, recogniser):
    model = recogniser(tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).normal(size=(3, 3, 112, 112)).astype(np.float32)
    expected = OnnxRuntimeEngine(model).run(pixels)
    engine = OpenVinoEngine(model)
    first = engine.run(pixels)
    np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-4)
    kept = first.copy()
    engine.run(-pixels)
    np.testing.assert_array_equal(first, kept)
    assert engine.runtime.startswith("openvino 20")
    reduced = OpenVinoEngine(model, "bf16").run(pixels)
    cosines = (reduced * expected).sum(1) / np.linalg.norm(reduced, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1)).min() > 0.999


def test_openvino_refuses_what_is_no_model(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match="OpenVINO refuses"):
        OpenVinoEngine(tmp_path / "no.onnx")
