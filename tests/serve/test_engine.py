import pytest

from mstkd_serve.engine import OnnxRuntimeEngine
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
