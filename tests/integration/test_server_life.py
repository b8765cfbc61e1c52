"""`mstkd-serve up` as people run it: who gets in, what is closed, reloading, breaking, draining."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, shared_memory

from mstkd_client import FaceClient, LocalFaceClient, MstkdClientError, Retry, ServerUnavailable
from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import ServerError
from mstkd_serve.graph import build_served_graph
from mstkd_serve.repository import ServingOptions, Target, add_version, build_repository, promote
from mstkd_serve.triton import Access, Ports, TritonServer, locate

pytestmark = pytest.mark.triton

PROGRAM = [sys.executable, "-m", "mstkd_serve.cli"]
NEVER = Retry(attempts=1)


@pytest.fixture
def student(tmp_path, recogniser):
    def make(seed):
        out = tmp_path / f"student_{seed}.onnx"
        source = recogniser(tmp_path / "source.onnx", seed=seed)
        build_served_graph(source, out, preprocessing=Preprocessing(), embedding_space="common")
        return out

    return make


@pytest.fixture
def repository(tmp_path, student):
    out = tmp_path / "models" / "repository"
    build_repository(
        {"student": student(0)},
        out,
        target=Target.PYTHON,
        options=ServingOptions(max_batch_size=8),
    )
    return out


class Up:
    """A running `mstkd-serve up`."""

    def __init__(self, repository, *options):
        command = [*PROGRAM, "up", "--model-repo", str(repository), *map(str, options)]
        command += ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "Ready" in line:
                break
        else:
            raise AssertionError(f"never ready: {self.said}")
        found = re.search(r"gRPC (\S+?)(?: \(TLS\))?, HTTP (\S+), metrics", self.said)
        self.url, self.http = found.groups()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.said += self.process.communicate(timeout=60)[0]


def run(*arguments):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def one_line_of(done):
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--address", "0.0.0.0"], "faces are biometric data. Give --tls-cert"),
        (["--address", "somewhere"], "not an IP address"),
        (["--tls-cert", "server.pem"], "go together"),
        (["--tls-client-ca", "ca.pem"], "needs --tls-cert"),
        (["--tls-cert", "missing.pem", "--tls-key", "server.key"], "missing.pem: cannot be read"),
        (["--tls-cert", "no.pem", "--tls-key", "server.key"], "no.pem: not a PEM file"),
        (["--admin-key-file", "open.key"], "chmod 600"),
        (["--admin-key-file", "short.key"], "holds no key"),
    ],
)
def test_what_would_expose_the_server_is_refused(
    repository, certificates, options, reason, monkeypatch, tmp_path
):
    for name in ("server.pem", "server.key", "ca.pem"):
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
    (tmp_path / "no.pem").write_text("nothing")
    (tmp_path / "open.key").write_text("k" * 32)
    (tmp_path / "short.key").write_text("k")
    (tmp_path / "short.key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    assert reason in one_line_of(run("up", "--model-repo", repository, *options))


def test_mutual_tls_lets_in_the_right_certificate_alone(repository, certificates, faces):
    options = ["--tls-cert", certificates / "server.pem", "--tls-key", certificates / "server.key"]
    options += ["--tls-client-ca", certificates / "ca.pem", "--address", "0.0.0.0"]
    tls = {"tls_ca": certificates / "ca.pem", "retry": NEVER, "timeout": 5}

    def pair(name):
        return {"tls_cert": certificates / f"{name}.pem", "tls_key": certificates / f"{name}.key"}

    with Up(repository, *options) as up:
        with FaceClient(up.url, **tls, **pair("client")) as client:
            assert client.embed(faces).vectors.shape == (8, 16)
        for wrong in (pair("stranger"), {}):
            with (
                FaceClient(up.url, **tls, **wrong) as client,
                pytest.raises(ServerUnavailable),
            ):
                client.embed(faces)
        with FaceClient(up.url, retry=NEVER, timeout=5) as client, pytest.raises(ServerUnavailable):
            client.embed(faces)
        mine = ["--tls-ca", certificates / "ca.pem", "--tls-cert", certificates / "client.pem"]
        mine += ["--tls-key", certificates / "client.key", "--url", up.url]
        done = run("doctor", *mine, "--model", "student")
        assert done.returncode == 0, done
        assert "cosine" in done.stdout
        assert up.http.startswith("127.0.0.1:"), "HTTP has no TLS"


def test_control_is_closed_without_the_key_and_open_with_it(repository, tmp_path, faces):
    key = tmp_path / "admin.key"
    with Up(repository, "--model-control", "explicit", "--admin-key-file", key) as up:
        assert key.stat().st_mode & 0o777 == 0o600
        closed = tritonclient.grpc.InferenceServerClient(up.url)
        for call in (
            closed.get_model_repository_index,
            lambda: closed.load_model("student"),
            lambda: closed.unload_model("student"),
            lambda: closed.register_system_shared_memory("m", "/m", 8),
            closed.get_trace_settings,
            closed.get_log_settings,
        ):
            with pytest.raises(InferenceServerException, match="is restricted"):
                call()
        closed.close()
        with tritonclient.http.InferenceServerClient(up.http) as over_http:
            for call in (
                over_http.get_model_repository_index,
                lambda: over_http.unload_model("student"),
                over_http.get_system_shared_memory_status,
            ):
                with pytest.raises(InferenceServerException, match="restricted"):
                    call()
        with FaceClient(up.url) as client:
            assert len(client.embed(faces)) == 8
        assert "admin-key-file" in one_line_of(run("models", "list", "--url", up.url))
        usual = run("doctor", "--url", up.url)
        assert usual.returncode == 0, usual
        assert "nobody without --admin-key-file" in usual.stdout
        assert "student" in usual.stdout
        assert run("doctor", "--url", up.url, "--model", "student").returncode == 0
        mine = ["--url", up.url, "--admin-key-file", key]
        assert "READY" in run("models", "list", *mine).stdout
        assert run("doctor", *mine).returncode == 0
        assert run("models", "unload", "student", *mine).returncode == 0
        with FaceClient(up.url, retry=NEVER) as client, pytest.raises(MstkdClientError):
            client.embed(faces)
        assert run("models", "load", "student", *mine).returncode == 0
        with FaceClient(up.url) as client:
            assert len(client.embed(faces)) == 8
        assert "failed to load" in one_line_of(run("models", "load", "nobody", *mine))


def test_a_server_with_fixed_models_says_so(repository, tmp_path):
    key = tmp_path / "admin.key"
    with Up(repository, "--admin-key-file", key) as up:
        done = run("models", "unload", "student", "--url", up.url, "--admin-key-file", key)
        assert "--model-control explicit" in one_line_of(done)
        assert "for development" in up.said
        assert "It is old: Triton 2." in up.said


def test_shared_memory_is_open_where_asked_for(repository, faces):
    with Up(repository, "--allow-shared-memory") as up:
        with FaceClient(up.url, shared_memory=True) as client:
            expected = client.embed(faces).vectors
            assert client._server.shared is not None
        with FaceClient(up.url) as client:
            np.testing.assert_allclose(client.embed(faces).vectors, expected, atol=1e-6)
    with Up(repository) as up, FaceClient(up.url, shared_memory=True) as client:
        np.testing.assert_allclose(client.embed(faces).vectors, expected, atol=1e-6)
        assert client._server.shared is None


def test_plain_clients_use_shared_memory_where_it_is_open(repository, faces):
    with (
        Up(repository, "--allow-shared-memory") as up,
        tritonclient.grpc.InferenceServerClient(up.url) as client,
    ):
        region = shared_memory.create_shared_memory_region("faces", "/mstkd-test", faces.nbytes)
        try:
            shared_memory.set_shared_memory_region(region, [faces])
            client.register_system_shared_memory("faces", "/mstkd-test", faces.nbytes)
            tensor = tritonclient.grpc.InferInput("faces", list(faces.shape), "UINT8")
            tensor.set_shared_memory("faces", faces.nbytes)
            answer = client.infer("student", [tensor]).as_numpy("embedding")
            client.unregister_system_shared_memory("faces")
        finally:
            shared_memory.destroy_shared_memory_region(region)
        with FaceClient(up.url) as ours:
            np.testing.assert_allclose(answer, ours.embed(faces).vectors, atol=1e-6)


def test_reloading_under_load_loses_no_request(repository, student, tmp_path, faces):
    key = tmp_path / "admin.key"
    embeddings = {}
    for version, seed in (("1", 0), ("2", 1)):
        with LocalFaceClient(student(seed)) as local:
            embeddings[version] = local.embed(faces).vectors
    answers, failures, stop = [], [], threading.Event()

    def work(client):
        while not stop.is_set():
            try:
                answers.append(client.embed(faces))
            except Exception as error:
                failures.append(error)

    with Up(repository, "--model-control", "explicit", "--admin-key-file", key) as up:
        mine = ["--url", up.url, "--admin-key-file", key]
        with FaceClient(up.url, retry=NEVER) as client:
            threads = [threading.Thread(target=work, args=(client,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            assert add_version(repository, "student", student(1)) == 2
            for command in (["promote", "student", "2"], ["rollback", "student"]):
                name, model, *rest = command
                assert run("repo", name, repository, model, *rest).returncode == 0
                done = run("models", "reload", "student", *mine)
                assert done.returncode == 0, done
                assert f"serves version {'2' if name == 'promote' else '1'}." in done.stdout
                time.sleep(0.5)
            stop.set()
            for thread in threads:
                thread.join(30)
    assert failures == []
    seen = [answer.model_version for answer in answers]
    assert set(seen) == {"1", "2"}
    assert seen[0] == seen[-1] == "1"
    for answer in answers:
        np.testing.assert_allclose(answer.vectors, embeddings[answer.model_version], atol=1e-5)


def test_two_versions_answer_side_by_side(repository, student, faces):
    add_version(repository, "student", student(1))
    promote(repository, "student", 2, beside=True)
    with Up(repository) as up:
        for asked, answering in (("1", "1"), ("2", "2"), ("", "2")):
            with FaceClient(up.url, model_version=asked) as client:
                assert client.embed(faces).model_version == answering
        done = run("doctor", "--url", up.url, "--model", "student")
        assert done.returncode == 0, done
        assert done.stdout.count("cosine") == 2


def processes(word):
    """Return the processes whose command line holds a word, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if word.encode() in text:
            found[int(path.parent.name)] = text.split(b"\0")[0].decode()
    return found


def pid_of(program, repository):
    (pid,) = [
        pid for pid, name in processes(str(repository)).items() if name.endswith(f"/{program}")
    ]
    return pid


def test_a_model_that_dies_is_loaded_anew(repository, faces, tmp_path):
    key = tmp_path / "admin.key"
    options = ["--model-control", "explicit", "--admin-key-file", key, "--drain-seconds", 3]
    up = Up(repository, *options)
    with up, FaceClient(up.url, retry=Retry(attempts=20)) as client:
        expected = client.embed(faces).vectors
        os.kill(pid_of("triton_python_backend_stub", repository), signal.SIGKILL)
        np.testing.assert_array_equal(client.embed(faces).vectors, expected)
        assert client.health().model_ready
    assert "The process of model 'student' died; it was loaded anew." in up.said


def test_a_dead_model_of_a_fixed_server_ends_it_with_the_reason(repository):
    up = Up(repository)
    os.kill(pid_of("triton_python_backend_stub", repository), signal.SIGKILL)
    with up:
        up.process.wait(60)
    assert up.process.returncode == 2
    assert "the process of model 'student' died" in up.said
    assert "--model-control explicit" in up.said
    assert not processes(str(repository))


def test_nothing_stays_in_shared_memory_after_a_server_was_killed(repository):
    with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
        server.wait_ready(60)
        left = f"{server._memory_prefix}*"
        assert list(Path("/dev/shm").glob(left))
        os.kill(server.pid, signal.SIGKILL)
    assert not list(Path("/dev/shm").glob(left))


def test_a_signal_lets_requests_in_flight_finish(repository, faces):
    model = repository / "student" / "1" / "model.py"
    model.write_text(
        model.read_text().replace("answers = self._run(joined)", "answers = _slowly(self, joined)")
        + "\n\ndef _slowly(model, joined):\n    import time\n\n    time.sleep(2)\n"
        "    return model._run(joined)\n"
    )
    done = []
    up = Up(repository)
    with up, FaceClient(up.url, retry=NEVER, timeout=20) as client:
        client.info()
        thread = threading.Thread(target=lambda: done.append(client.embed(faces)))
        thread.start()
        time.sleep(0.7)
        up.process.terminate()
        time.sleep(0.3)
        with FaceClient(up.url, retry=NEVER, timeout=5) as late, pytest.raises(MstkdClientError):
            late.embed(faces)
        thread.join(20)
    assert len(done) == 1
    assert len(done[0]) == 8
    assert up.process.returncode == 0
    assert "Stopped." in up.said


def test_access_never_shows_its_key():
    access = Access(admin_key="s3cret")
    assert "s3cret" not in repr(access)
    with pytest.raises(ServerError, match="not an IP"):
        Access(address="localhost").check()
