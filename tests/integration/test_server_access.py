"""Who reaches a server that `mstkd-serve up` started, and which of its protocols."""

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, shared_memory

from mstkd_client import FaceClient, MstkdClientError, Retry, ServerUnavailable
from mstkd_serve.errors import ServerError
from mstkd_serve.triton import Access

pytestmark = pytest.mark.triton

NEVER = Retry(attempts=1)


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
    repository, certificates, options, reason, monkeypatch, tmp_path, refused
):
    for name in ("server.pem", "server.key", "ca.pem"):
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
    (tmp_path / "no.pem").write_text("nothing")
    (tmp_path / "open.key").write_text("k" * 32)
    (tmp_path / "short.key").write_text("k")
    (tmp_path / "short.key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    assert reason in refused("up", "--model-repo", repository, *options)


def test_mutual_tls_lets_in_the_right_certificate_alone(
    repository, certificates, faces, start, command
):
    options = ["--tls-cert", certificates / "server.pem", "--tls-key", certificates / "server.key"]
    options += ["--tls-client-ca", certificates / "ca.pem", "--address", "0.0.0.0"]
    tls = {"tls_ca": certificates / "ca.pem", "retry": NEVER, "timeout": 5}

    def pair(name):
        return {"tls_cert": certificates / f"{name}.pem", "tls_key": certificates / f"{name}.key"}

    with start(repository, *options) as up:
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
        done = command("doctor", *mine, "--model", "student")
        assert done.returncode == 0, done
        assert "cosine" in done.stdout
        assert up.http.startswith("127.0.0.1:"), "HTTP has no TLS"


def test_control_is_closed_without_the_key_and_open_with_it(
    repository, tmp_path, faces, start, command, refused
):
    key = tmp_path / "admin.key"
    with start(repository, "--model-control", "explicit", "--admin-key-file", key) as up:
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
        assert "admin-key-file" in refused("models", "list", "--url", up.url)
        usual = command("doctor", "--url", up.url)
        assert usual.returncode == 0, usual
        assert "nobody without --admin-key-file" in usual.stdout
        assert "student" in usual.stdout
        assert command("doctor", "--url", up.url, "--model", "student").returncode == 0
        mine = ["--url", up.url, "--admin-key-file", key]
        assert "READY" in command("models", "list", *mine).stdout
        assert command("doctor", *mine).returncode == 0
        assert command("models", "unload", "student", *mine).returncode == 0
        with FaceClient(up.url, retry=NEVER) as client, pytest.raises(MstkdClientError):
            client.embed(faces)
        assert command("models", "load", "student", *mine).returncode == 0
        with FaceClient(up.url) as client:
            assert len(client.embed(faces)) == 8
        assert "failed to load" in refused("models", "load", "nobody", *mine)


def test_a_server_with_fixed_models_says_so(repository, tmp_path, start, refused):
    key = tmp_path / "admin.key"
    with start(repository, "--admin-key-file", key) as up:
        said = refused("models", "unload", "student", "--url", up.url, "--admin-key-file", key)
        assert "--model-control explicit" in said
        assert "for development" in up.said
        assert "It is old: Triton 2." in up.said


def test_shared_memory_is_open_where_asked_for(repository, faces, start):
    with start(repository, "--allow-shared-memory") as up:
        with FaceClient(up.url, shared_memory=True) as client:
            expected = client.embed(faces).vectors
            assert client._server.shared is not None
        with FaceClient(up.url) as client:
            np.testing.assert_allclose(client.embed(faces).vectors, expected, atol=1e-6)
    with start(repository) as up, FaceClient(up.url, shared_memory=True) as client:
        np.testing.assert_allclose(client.embed(faces).vectors, expected, atol=1e-6)
        assert client._server.shared is None


def test_plain_clients_use_shared_memory_where_it_is_open(repository, faces, start):
    with (
        start(repository, "--allow-shared-memory") as up,
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


def test_access_never_shows_its_key():
    access = Access(admin_key="s3cret")
    assert "s3cret" not in repr(access)
    with pytest.raises(ServerError, match="not an IP"):
        Access(address="localhost").check()
