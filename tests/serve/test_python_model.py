"""The python target's `model.py` outside Triton: which runtime it takes, and what it answers."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import mstkd_serve.repository
from mstkd_serve.contract import Preprocessing
from mstkd_serve.graph import build_served_graph

SOURCE = Path(mstkd_serve.repository.__file__).parent / "python_model.py"


@pytest.fixture
def model_py(monkeypatch):
    """The module, with a stand-in for the module that only exists inside Triton."""
    triton = types.ModuleType("triton_python_backend_utils")
    triton.TritonModelException = RuntimeError
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    spec = importlib.util.spec_from_file_location("model_py", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def graph(tmp_path, recogniser) -> str:
    out = tmp_path / "model.onnx"
    build_served_graph(recogniser(tmp_path / "s.onnx"), out, preprocessing=Preprocessing())
    return str(out)


def opened(model_py, graph, gpu=None):
    name, run = model_py.open_graph(graph, 1, ["faces"], ["embedding"], gpu)
    return name, lambda faces: run([faces])[0]


def test_openvino_is_taken_where_it_is_installed_and_equals_onnx_runtime(model_py, graph, faces):
    name, run = opened(model_py, graph)
    assert name == "openvino"
    expected = onnxruntime.InferenceSession(graph).run(None, {"faces": faces})[0]
    first = run(faces)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    kept = first.copy()
    run(faces[::-1].copy())
    np.testing.assert_array_equal(first, kept)  # the next batch does not overwrite an answer


def test_onnx_runtime_is_next(model_py, graph, faces, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    name, run = opened(model_py, graph)
    assert name == "onnxruntime"
    assert run(faces).shape == (8, 16)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_repository_never_falls_back_to_the_cpu(model_py, graph):
    with pytest.raises(RuntimeError, match=r"built for a GPU.*onnxruntime-gpu.*--device cpu"):
        opened(model_py, graph, gpu=0)


def test_neither_installed_says_what_to_do(model_py, graph, monkeypatch):
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match="mstkd-serve triton install"):
        opened(model_py, graph)


def test_it_imports_nothing_of_ours():
    words = SOURCE.read_text().split()
    imported = {words[i + 1] for i, word in enumerate(words) if word in ("import", "from")}
    assert not any(name.startswith("mstkd") for name in imported)
