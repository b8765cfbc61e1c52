"""A real tritonserver: start, readiness, failures, signals, nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc

from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import bf16_instructions
from mstkd_serve.errors import ServerError
from mstkd_serve.repository import ServingOptions, Target, build_repository
from mstkd_serve.triton import (
    Endpoint,
    Installation,
    Ports,
    TritonServer,
    examine,
    locate,
)

pytestmark = pytest.mark.triton


@pytest.fixture
def repository(tmp_path, recogniser) -> Path:
    out = tmp_path / "repository"
    build_repository(
        {"student": recogniser(tmp_path / "source.onnx")},
        out,
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
        options=ServingOptions(max_batch_size=8),
    )
    return out


def processes_about(text: str) -> list[int]:
    """Return the live processes whose command line mentions a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rsplit(") ", 1)[1][0]
            except OSError:
                continue
            if text in words and state != "Z":
                found.append(int(entry.name))
    return found


def wait_until(condition, seconds: float = 40) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_plain_triton_clients_get_the_documented_tensors(served, faces):
    expected = onnxruntime.InferenceSession(served.onnx).run(None, {"faces": faces})[0]

    grpc_input = tritonclient.grpc.InferInput("faces", [8, 112, 112, 3], "UINT8")
    grpc_input.set_data_from_numpy(faces)
    with tritonclient.grpc.InferenceServerClient(served.url) as client:
        answer = client.infer("student", [grpc_input]).as_numpy("embedding")
        np.testing.assert_allclose(answer, expected, atol=1e-6)

    face = {"name": "faces", "shape": [1, 112, 112, 3], "datatype": "UINT8"}
    body = json.dumps({"inputs": [face | {"data": faces[:1].ravel().tolist()}]}).encode()
    url = f"http://127.0.0.1:{served.server.ports.http}/v2/models/student/infer"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as response:
        (output,) = json.load(response)["outputs"]
    assert (output["name"], output["shape"]) == ("embedding", [1, 16])
    np.testing.assert_allclose([output["data"]], expected[:1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)


def test_requests_that_wait_together_are_answered_each_with_its_own(served, faces):
    expected = onnxruntime.InferenceSession(served.onnx).run(None, {"faces": faces})[0]
    with tritonclient.grpc.InferenceServerClient(served.url) as client:
        answers: dict[int, np.ndarray] = {}
        errors = []
        for index in range(200):
            request = tritonclient.grpc.InferInput("faces", [1, 112, 112, 3], "UINT8")
            request.set_data_from_numpy(faces[index % 8][np.newaxis])

            def done(result, error, index=index):
                if error is not None:
                    errors.append(error)
                else:
                    answers[index] = result.as_numpy("embedding")

            client.async_infer("student", [request], callback=done)
        assert wait_until(lambda: len(answers) + len(errors) == 200)
        assert not errors
        for index, answer in answers.items():
            np.testing.assert_allclose(answer[0], expected[index % 8], atol=1e-5)
        statistics = client.get_inference_statistics("student").model_stats[0]
    assert statistics.execution_count < statistics.inference_count  # it did batch


def test_doctor_passes_a_healthy_server_and_names_a_changed_one(served, repository):
    (finding,) = examine(Endpoint(served.url), ["student"])
    assert finding.problem == ""
    assert finding.agreement.rows == 5
    # A model whose weights are not those of its golden embeddings:
    config = repository / "student" / "config.pbtxt"
    text = config.read_text()
    start = text.index('\\"embeddings\\":\\"') + len('\\"embeddings\\":\\"')
    config.write_text(text[:start] + text[start : start + 40][::-1] + text[start + 40 :])
    with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
        server.wait_ready(60)
        (finding,) = examine(Endpoint(server.url), ["student"])
    assert "embeddings differ" in finding.problem


def test_doctor_on_a_dead_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerError, match="no Triton server answers there"):
        examine(Endpoint(url), ["student"], timeout=2)


def test_a_model_that_fails_to_load_gives_tritons_reason(repository):
    model_py = repository / "student" / "1" / "model.py"
    model_py.write_text("raise RuntimeError('the disk ate it')\n")
    with (
        TritonServer(locate(), repository, Ports(0, 0, 0)) as server,
        pytest.raises(ServerError, match="the disk ate it"),
    ):
        server.wait_ready(60)
    assert not processes_about(str(repository))


def test_a_server_that_cannot_run_is_one_clear_error(repository, tmp_path):
    broken = tmp_path / "tritonserver"
    broken.write_text("#!/bin/sh\necho libsomething.so: cannot open >&2\nexit 127\n")
    broken.chmod(0o755)
    with (
        TritonServer(Installation(broken), repository, Ports(0, 0, 0)) as server,
        pytest.raises(ServerError, match=r"status 127: libsomething\.so"),
    ):
        server.wait_ready(10)


def test_a_file_that_is_no_program_is_one_clear_error(repository, tmp_path):
    broken = tmp_path / "tritonserver"
    broken.write_bytes(b"\x00\x01")
    broken.chmod(0o755)
    server = TritonServer(Installation(broken), repository, Ports(0, 0, 0))
    with pytest.raises(ServerError, match="cannot be started"):
        server.start()
    assert server.log_text() == ""


def test_taken_port_is_named(repository):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"--http-port {port}: cannot be used"):
            TritonServer(locate(), repository, Ports(0, port, 0)).start()


def test_same_port_twice_is_refused(repository):
    with pytest.raises(ServerError, match="need one each"):
        TritonServer(locate(), repository, Ports(9001, 9001, 0)).start()


def test_missing_server_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MSTKD_TRITON_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="mstkd-serve triton install"):
        locate()
    with pytest.raises(ServerError, match="no such executable"):
        locate(tmp_path / "tritonserver")


def start_up(repository: Path) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "mstkd_serve.cli", "up", "--model-repo", str(repository)),
        *("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "Ready" in line:
            return process
    raise AssertionError(f"never ready: {seen}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stops_cleanly_on_a_signal(repository, number):
    process = start_up(repository)
    assert processes_about(str(repository))
    process.send_signal(number)
    output, _ = process.communicate(timeout=45)
    assert process.returncode == 0
    assert "Stopped." in output
    assert not processes_about(str(repository))


def test_nothing_is_left_when_up_itself_is_killed(repository):
    process = start_up(repository)
    process.kill()
    process.communicate(timeout=10)
    assert wait_until(lambda: not processes_about(str(repository)))


def test_up_reports_a_server_that_dies(repository):
    process = start_up(repository)
    (server,) = [
        pid
        for pid in processes_about(str(repository))
        if b"bin/tritonserver" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    ]
    os.kill(server, signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "tritonserver stopped with status -9" in output
    assert "Traceback" not in output
    assert wait_until(lambda: not processes_about(str(repository)))


def with_precision(tmp_path, recogniser, precision):
    out = tmp_path / precision
    build_repository(
        {"student": recogniser(tmp_path / "source.onnx")},
        out,
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
        options=ServingOptions(cpu_precision=precision),
    )
    return TritonServer(locate(), out, Ports(0, 0, 0))


def test_auto_says_what_it_chose_and_why(tmp_path, recogniser):
    with with_precision(tmp_path, recogniser, "auto") as server:
        server.wait_ready(60)
        (line,) = [line for line in server.log_text().splitlines() if "intra-op threads" in line]
    assert re.search(r"openvino in bf16,|in fp32 \(bf16: ", line)


def test_bf16_is_served_where_the_cpu_has_it_and_refused_elsewhere(tmp_path, recogniser):
    with with_precision(tmp_path, recogniser, "bf16") as server:
        if bf16_instructions():
            server.wait_ready(60)
            assert "openvino in bf16, " in server.runtimes()[0]
        else:
            with pytest.raises(ServerError, match="bf16: this CPU"):
                server.wait_ready(60)
