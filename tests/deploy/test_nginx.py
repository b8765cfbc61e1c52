"""Debian's nginx with the shipped configuration before a real tritonserver."""

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from contextlib import closing, contextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from mstkd_client import FaceClient, Unauthenticated

pytestmark = pytest.mark.triton

KEY = "a5" * 32
HEADERS = {"x-api-key": KEY}
CONTROL = {
    "load": lambda client, **options: client.load_model("student", **options),
    "unload": lambda client, **options: client.unload_model("student", **options),
    "register shared memory": lambda client, **options: client.register_system_shared_memory(
        "region", "/region", 16, **options
    ),
    "unregister shared memory": lambda client, **options: client.unregister_system_shared_memory(
        **options
    ),
    "shared memory status": lambda client, **options: client.get_system_shared_memory_status(
        **options
    ),
    "CUDA shared memory": lambda client, **options: client.register_cuda_shared_memory(
        "region", b"aGFuZGxl", 0, 16, **options
    ),
    "trace settings": lambda client, **options: client.update_trace_settings(
        settings={"trace_level": ["TIMESTAMPS"]}, **options
    ),
    "log settings": lambda client, **options: client.update_log_settings(
        {"log_verbose_level": 1}, **options
    ),
}


@pytest.fixture
def nginx(tool):
    return tool("nginx", "apt-get install nginx")


@pytest.fixture
def configure(deploy, tmp_path, pki):
    """Writes the configuration as an operator would; returns nginx's arguments."""

    def write(port, upstream, mutual=False):
        folder = tmp_path / "conf"
        shutil.copytree(deploy / "nginx", folder)
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        shutil.copy(pki.crt("server"), secrets / "server.crt")
        shutil.copy(pki.key("server"), secrets / "server.key")
        shutil.copy(pki.crt("clients-ca"), secrets / "clients-ca.crt")
        keys = secrets / "api-keys.map"
        keys.touch(mode=0o600)
        keys.write_text(f'"{KEY}" tests;\n"{"b6" * 32}" others;\n')
        listen = (folder / "site" / "listen.conf").read_text()
        (folder / "site" / "listen.conf").write_text(listen.replace("8443", f"127.0.0.1:{port}"))
        triton = (folder / "site" / "upstream.conf").read_text()
        (folder / "site" / "upstream.conf").write_text(triton.replace("triton:8001", upstream))
        if mutual:
            mtls = folder / "site" / "mtls.conf"
            mtls.write_text(mtls.read_text().replace("#ssl_", "ssl_"))
        prefix = tmp_path / "prefix"
        prefix.mkdir()
        return ["-p", str(prefix), "-c", str(folder / "nginx.conf")]

    return write


@pytest.fixture
def front(nginx, configure, free_port, run_until_listening, tmp_path):
    """The context manager that runs nginx before `upstream`; gives its address and log."""

    @contextmanager
    def run(upstream, mutual=False):
        port, log = free_port(), tmp_path / "nginx.log"
        arguments = configure(port, upstream, mutual)
        with run_until_listening([nginx, *arguments], log, port):
            yield f"127.0.0.1:{port}", log

    return run


@pytest.fixture
def connect(pki):
    """Makes a plain Triton client that trusts `ca`."""

    def make(url, ca="ca", certificate=None):
        mine = (
            {"private_key": pki.key(certificate), "certificate_chain": pki.crt(certificate)}
            if certificate
            else {}
        )
        return closing(InferenceServerClient(url, ssl=True, root_certificates=pki.crt(ca), **mine))

    return make


def test_the_shipped_configuration_is_valid(nginx, configure, free_port):
    arguments = configure(free_port(), "127.0.0.1:8001")
    done = subprocess.run([nginx, "-t", *arguments], capture_output=True, text=True, check=False)
    assert "test is successful" in done.stderr, done.stderr
    assert "[warn]" not in done.stderr


def test_the_right_key_gets_embeddings(front, served, connect, infer, faces, expected):
    with front(served.url) as (url, _), connect(url) as client:
        answer = infer(client, faces, headers=HEADERS)
        assert client.get_model_config("student", headers=HEADERS).config.max_batch_size == 8
        assert client.is_server_ready(headers=HEADERS)
        assert client.get_model_repository_index(headers=HEADERS).models
    np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_without_a_key_of_the_file_nobody_gets_in(front, served, connect, infer, faces, status_of):
    with front(served.url) as (url, log), connect(url) as client:
        wrong = [{}, {"x-api-key": ""}, {"x-api-key": KEY[:-1]}, {"x-api-key": "default"}]
        for headers in wrong:
            for call in (
                lambda **options: infer(client, faces, **options),
                lambda **options: client.get_server_metadata(**options),
                lambda **options: client.load_model("student", **options),
            ):
                assert status_of(call, headers=headers)[0] == "UNAUTHENTICATED", headers
        assert infer(client, faces, headers=HEADERS).shape == (8, 16)
    assert KEY[:-1] not in log.read_text()


def test_a_refusal_is_http_200_with_trailers_only(front, served, pki, tool):
    with front(served.url) as (url, _):
        command = [
            tool("curl", "apt-get install curl"),
            "--silent",
            "--http2",
            "--cacert",
            pki.crt("ca"),
            "--include",
        ]
        grpc_headers = ["--header", "content-type: application/grpc", "--header", "te: trailers"]
        address = f"https://{url}/inference.GRPCInferenceService/ModelInfer"
        done = subprocess.run(
            [*command, *grpc_headers, "--data-binary", "", address],
            capture_output=True,
            text=True,
            check=True,
        )
    head, _, body = done.stdout.replace("\r", "").partition("\n\n")
    assert head.startswith("HTTP/2 200")
    assert {"content-type: application/grpc", "grpc-status: 16"} <= set(head.splitlines())
    assert body == ""


@pytest.mark.parametrize("name", CONTROL)
def test_control_methods_are_closed(front, served, connect, infer, faces, status_of, name):
    with front(served.url) as (url, _), connect(url) as client:
        status, message = status_of(CONTROL[name], client, headers=HEADERS)
        assert (status, message) == ("PERMISSION_DENIED", "this method is closed to clients")
        assert infer(client, faces, headers=HEADERS).shape == (8, 16)


def test_every_method_of_triton_is_open_or_closed_on_purpose(deploy, front, served, pki):
    config = (deploy / "nginx" / "nginx.conf").read_text()
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    open_methods = {
        method.name
        for method in service.methods
        if f"/inference.GRPCInferenceService/{method.name} " in config
    }
    closed = {method.name for method in service.methods} - open_methods
    assert closed == {
        *("RepositoryModelLoad", "RepositoryModelUnload", "ModelStreamInfer"),
        *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
        *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
        *("TraceSetting", "LogSettings"),
    }
    authority = open(pki.crt("ca"), "rb")  # noqa: SIM115
    with authority, front(served.url) as (url, _):
        credentials = grpc.ssl_channel_credentials(authority.read())
        with grpc.secure_channel(url, credentials) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stream = stub.ModelStreamInfer(iter(()), metadata=[("x-api-key", KEY)], timeout=10)
            with pytest.raises(grpc.RpcError) as refused:
                next(stream)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_wrong_authority_and_plain_text_fail(front, served, connect, status_of, pki):
    with front(served.url) as (url, _):
        with connect(url, ca="other-ca") as client:
            call = client.get_server_metadata
            assert status_of(call, headers=HEADERS, client_timeout=10)[0] == "UNAVAILABLE"
        with closing(InferenceServerClient(url)) as client:
            call = client.get_server_metadata
            assert status_of(call, headers=HEADERS, client_timeout=10)[0] == "UNAVAILABLE"
        host, port = url.split(":")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(pki.crt("ca"))
        old.set_ciphers("AES128-SHA:@SECLEVEL=0")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError), ssl.create_connection((host, int(port))) as plain:
            old.wrap_socket(plain, server_hostname=host)


def test_mutual_tls_wants_a_certificate_and_a_key(
    front, served, connect, infer, faces, expected, status_of
):
    with front(served.url, mutual=True) as (url, _):
        with connect(url, certificate="client") as client:
            answer = infer(client, faces, headers=HEADERS)
            np.testing.assert_allclose(answer, expected, atol=1e-6)
            assert status_of(client.get_server_metadata)[0] == "UNAUTHENTICATED"
        for certificate in ("stranger", None):
            with connect(url, certificate=certificate) as client:
                status, _ = status_of(client.get_server_metadata, headers=HEADERS)
                assert status == "UNAUTHENTICATED", certificate


def test_a_key_is_replaced_without_a_restart(front, served, connect, status_of, tmp_path):
    keys = tmp_path / "conf" / "secrets" / "api-keys.map"
    new = {"x-api-key": "c7" * 32}
    with front(served.url) as (url, _), connect(url) as client:
        assert status_of(client.get_server_metadata, headers=new)[0] == "UNAUTHENTICATED"
        keys.write_text(f'"{new["x-api-key"]}" tests;\n')
        os.kill(int((tmp_path / "prefix" / "nginx.pid").read_text()), signal.SIGHUP)
        deadline = time.monotonic() + 10
        while True:
            with connect(url) as later, contextlib.suppress(InferenceServerException):
                if later.get_server_metadata(headers=new).name:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with connect(url) as later:
            call = later.get_server_metadata
            assert status_of(call, headers=HEADERS)[0] == "UNAUTHENTICATED"


def test_a_server_that_is_away_is_unavailable(front, connect, free_port, status_of):
    with front(f"127.0.0.1:{free_port()}") as (url, _), connect(url) as client:
        status, message = status_of(client.get_server_metadata, headers=HEADERS)
    assert (status, message) == ("UNAVAILABLE", "the inference server does not answer")


def test_the_size_of_a_request_is_bounded(front, served, connect, infer, status_of, pki):
    full = np.zeros((32, 112, 112, 3), np.uint8)
    with front(served.url) as (url, _), connect(url) as client:
        status, message = status_of(infer, client, full, headers=HEADERS)
        assert status == "INVALID_ARGUMENT", "a full batch of 32 gets through, to a model of 8"
        assert "batch-size must be <= 8" in message
        huge = full.repeat(4, axis=0)
        status, message = status_of(infer, client, huge, headers=HEADERS)
        assert (status, "larger than max" in message) == ("RESOURCE_EXHAUSTED", True)


def test_the_deadline_is_passed_on_and_the_key_is_not(front, listener, connect, status_of):
    with listener() as (upstream, seen), front(upstream) as (url, _), connect(url) as client:
        call = client.get_server_metadata
        status, _ = status_of(call, headers=HEADERS | {"traceparent": "00-1"}, client_timeout=7)
    assert status == "UNIMPLEMENTED", "what the listener answers"
    ((remaining, headers),) = seen
    assert 5 < remaining <= 7
    assert headers["traceparent"] == "00-1"
    assert "x-api-key" not in headers


def test_the_log_has_calls_but_neither_keys_nor_faces(front, served, connect, infer, faces):
    with front(served.url) as (url, log), connect(url) as client:
        infer(client, faces, headers=HEADERS)
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    call = json.loads(lines[-1])
    assert call["method"] == "/inference.GRPCInferenceService/ModelInfer"
    assert (call["client"], call["http"], call["grpc"]) == ("tests", 200, "0")
    assert KEY not in log.read_text()


def test_the_face_client_goes_through_it(front, served, pki, faces, expected):
    with front(served.url) as (url, _):
        with FaceClient(url, tls_ca=pki.crt("ca"), api_key=KEY) as client:
            np.testing.assert_allclose(client.embed(faces).vectors, expected, atol=1e-6)
        with (
            FaceClient(url, tls_ca=pki.crt("ca"), api_key="wrong") as client,
            pytest.raises(Unauthenticated, match="no valid API key"),
        ):
            client.embed(faces)
