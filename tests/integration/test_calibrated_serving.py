"""A calibration written into a model answers through a real server; a second runtime serves."""

import numpy as np
import pytest

from mstkd_client import FaceClient
from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import bf16_instructions
from mstkd_serve.fairness import calibrate, evaluate, fit_probability, make_scores
from mstkd_serve.fairness.calibrate import write_calibration
from mstkd_serve.graph import build_served_graph
from mstkd_serve.repository import ServingOptions, Target, build_repository
from mstkd_serve.triton import Endpoint, Ports, TritonServer, examine, install, locate

pytestmark = pytest.mark.triton


def test_verify_decides_with_the_models_calibration(tmp_path, recogniser, serve, faces):
    model = tmp_path / "model.onnx"
    contract = build_served_graph(
        recogniser(tmp_path / "source.onnx"), model, preprocessing=Preprocessing()
    )
    rng = np.random.default_rng(0)
    genuine = np.arange(8000) % 2 == 0
    scores = make_scores(
        np.where(np.arange(8000) % 4 < 2, "a", "b"), genuine, rng.normal(0.7 * genuine, 0.1)
    )
    metrics = evaluate(scores).model_copy(update={"probability": fit_probability(scores)})
    calibration = calibrate(metrics, contract.id, 1e-2)
    write_calibration(model, calibration)
    build_repository({"student": model}, tmp_path / "repository", target=Target.PYTHON)
    with serve(tmp_path / "repository") as running, FaceClient(running.url) as client:
        same = client.verify(faces[0], faces[0])
        other = client.verify(faces[0], 255 - faces[0])
        info = client.info()
    assert same.accepted is True
    assert other.accepted is (other.score >= calibration.threshold)
    assert same.threshold == calibration.threshold
    assert same.worst_group_fmr == max(calibration.group_fmr.values()) <= 1e-2
    assert same.probability is not None
    assert same.probability > 0.99
    assert info.calibration is not None
    assert info.calibration.pairs == 8000


@pytest.mark.slow
def test_a_server_installed_with_onnx_runtime_serves_the_same(tmp_path, recogniser, monkeypatch):
    home = tmp_path / "triton"
    monkeypatch.setenv("MSTKD_TRITON_HOME", str(home))
    steps: list[str] = []
    assert install(home, runtimes=("onnxruntime",), progress=steps.append)
    assert not install(home, runtimes=("onnxruntime",), progress=steps.append)
    build_repository(
        {"student": recogniser(tmp_path / "source.onnx")},
        tmp_path / "repository",
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
    )
    with TritonServer(locate(), tmp_path / "repository", Ports(0, 0, 0)) as server:
        server.wait_ready(120)
        (finding,) = examine(Endpoint(server.url), ["student"])
        assert "onnxruntime in fp32" in server.log_text()
    assert finding.problem == ""
    build_repository(
        {"student": recogniser(tmp_path / "source.onnx")},
        tmp_path / "quick",
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
        options=ServingOptions(cpu_precision="auto"),
    )
    with TritonServer(locate(), tmp_path / "quick", Ports(0, 0, 0)) as server:
        server.wait_ready(120)
        (finding,) = examine(Endpoint(server.url), ["student"])
        log = server.log_text()
    assert finding.problem == ""
    reason = "openvino is not installed" if bf16_instructions() else "this CPU has neither"
    assert f"onnxruntime in fp32 (bf16: {reason}" in log
