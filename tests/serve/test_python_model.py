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
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.golden import golden_faces
from mstkd_serve.graph import build_served_graph
from mstkd_serve.repository import Target, build_repository
from mstkd_serve.repository.config import parameters_of, read_config

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


CONFIG = {"input": [{"name": "faces"}], "output": [{"name": "embedding"}]}


@pytest.mark.parametrize(
    ("flags", "can"),
    [("fpu amx_bf16", True), ("fpu avx512_bf16 x", True), ("fpu avx512f avx512_fp16", False)],
)
def test_bf16_is_for_cpus_that_compute_in_it(model_py, tmp_path, flags, can):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert model_py.computes_in_bf16(str(cpuinfo)) is can
    assert not model_py.computes_in_bf16(str(tmp_path / "none"))


def golden_of(graph, face):
    return face, onnxruntime.InferenceSession(graph).run(None, {"faces": face})[0][0]


def test_bf16_is_proven_by_the_golden_face(model_py, graph, faces, monkeypatch):
    # OpenVINO takes the hint on any CPU and falls back silently; what is tested is the proof.
    monkeypatch.setattr(model_py, "computes_in_bf16", lambda: True)
    face, expected = golden_of(graph, faces[:1])
    run = model_py.open_in_bf16(graph, 1, CONFIG, (face, expected))
    assert run([faces])[0].shape == (8, 16)
    other = np.roll(expected, 1)
    with pytest.raises(RuntimeError, match=r"golden face's embedding has cosine .* below 0\.9995"):
        model_py.open_in_bf16(graph, 1, CONFIG, (face, other))
    monkeypatch.setattr(model_py, "computes_in_bf16", lambda: False)
    with pytest.raises(RuntimeError, match="neither AMX nor AVX512-BF16"):
        model_py.open_in_bf16(graph, 1, CONFIG, (face, expected))
    monkeypatch.setattr(model_py, "computes_in_bf16", lambda: True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeError, match="install --runtime openvino"):
        model_py.open_in_bf16(graph, 1, CONFIG, None)


def test_the_golden_face_is_read_from_the_repository(model_py, tmp_path, recogniser):
    out = tmp_path / "repository"
    build_repository(
        {"student": recogniser(tmp_path / "s.onnx")},
        out,
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
    )
    text = parameters_of(read_config(out / "student" / "config.pbtxt"))["mstkd.golden"]
    parameters = {"mstkd.golden": {"string_value": text}}
    face, expected = model_py.read_golden(out / "student", "1", parameters)
    np.testing.assert_array_equal(face[0], golden_faces()[0])
    found = OnnxRuntimeEngine(out / "student" / "1" / "model.onnx").run(face)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert model_py.read_golden(out / "student", "1", {}) is None


def test_neither_installed_says_what_to_do(model_py, graph, monkeypatch):
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match="mstkd-serve triton install"):
        opened(model_py, graph)


def test_it_imports_nothing_of_ours():
    words = SOURCE.read_text().split()
    imported = {words[i + 1] for i, word in enumerate(words) if word in ("import", "from")}
    assert not any(name.startswith("mstkd") for name in imported)
