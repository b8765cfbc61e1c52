"""Every failure of the server or the way to it becomes one of the client's errors."""

import socket
import time

import grpc
import numpy as np
import pytest

import mstkd_client
from mstkd_client import (
    ClientClosed,
    ContractMismatch,
    DeadlineExceeded,
    FaceClient,
    InvalidSettings,
    ModelNotReady,
    MstkdClientError,
    Overloaded,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)

Code = grpc.StatusCode
QUEUE_FULL = "[request id: <id_unknown>] Exceeds maximum queue size"
NOT_READY = "Request for unknown model: 'student' version 1 is not at ready state"
FAILURES = [
    (Code.UNAVAILABLE, QUEUE_FULL, Overloaded),
    (Code.UNAVAILABLE, "Request timeout expired", DeadlineExceeded),
    (Code.UNAVAILABLE, NOT_READY, ModelNotReady),
    (Code.UNAVAILABLE, "Server is stopping", ServerUnavailable),
    (Code.UNIMPLEMENTED, "Received http2 header with status: 404", ServerUnavailable),
    (Code.UNIMPLEMENTED, "Method not found!", ServerFault),
    (Code.NOT_FOUND, "Request for unknown model: 'student' is not found", ModelNotReady),
    (Code.RESOURCE_EXHAUSTED, "Received message larger than max (8 vs. 4)", ServerFault),
    (Code.RESOURCE_EXHAUSTED, "rate limit", Overloaded),
    (Code.UNAUTHENTICATED, "no token", Unauthenticated),
    (Code.PERMISSION_DENIED, "RBAC: access denied", Unauthenticated),
    (Code.INVALID_ARGUMENT, "unexpected shape for input 'faces'", ServerFault),
    (Code.INTERNAL, "Failed to process the request(s)", ServerFault),
    (Code.CANCELLED, "cancelled", ServerUnavailable),
    (Code.UNKNOWN, "Stream removed", ServerFault),
]


@pytest.mark.parametrize(("code", "message", "error"), FAILURES)
def test_a_status_becomes_its_error(client, triton, faces, code, message, error):
    client.info()
    triton.failure = (code, message)
    with pytest.raises(MstkdClientError) as caught:
        client.embed(faces[0])
    assert type(caught.value) is error
    if error is not DeadlineExceeded:
        assert message in str(caught.value)


def test_a_server_that_gives_up_before_the_time_is_asked_again(triton, faces, connect):
    with connect(triton.url, timeout=10) as client:
        client.info()
        triton.failure = (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        triton.before_answer = lambda: setattr(triton, "failure", None) if triton.calls[-2:] == [
            "ModelInfer"
        ] * 2 else None  # fmt: skip
        embeddings = client.embed(faces[0])
        assert embeddings.timing.retries == 2


def test_an_unknown_model_is_named_with_those_there_are(triton, faces, connect):
    with (
        connect(triton.url, model_name="teacher") as client,
        pytest.raises(ModelNotReady, match=r"'teacher'.*broken, student"),
    ):
        client.embed(faces[0])


def test_a_model_that_did_not_load_is_named_with_the_servers_reason(triton, faces, connect):
    with (
        connect(triton.url, model_name="broken") as client,
        pytest.raises(ModelNotReady, match=r"'broken'.*Internal: no weights\.$"),
    ):
        client.embed(faces[0])


def test_health_tells_what_is_ready(client, triton):
    health = client.health()
    assert (health.server_live, health.server_ready, health.model_ready) == (True, True, True)
    with FaceClient(triton.url, model_name="broken") as other:
        assert other.health().model_ready is False
    triton.live = False
    assert client.health().server_live is False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_dead_port_fails_fast_and_says_how_to_start_a_server(faces, connect):
    url = f"127.0.0.1:{free_port()}"
    with connect(url) as client:
        for call in (client.health, client.info, lambda: client.embed(faces[0])):
            start = time.monotonic()
            with pytest.raises(ServerUnavailable, match=rf"{url}.*mstkd-serve up"):
                call()
            assert time.monotonic() - start < 5


def test_a_port_that_never_speaks_fails_within_the_timeout(connect):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with (
            connect(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.4) as client,
            pytest.raises(ServerUnavailable, match=r"no answer within 0\.4 s"),
        ):
            client.health()
    assert time.monotonic() - start < 5


def test_a_slow_answer_exceeds_the_deadline(triton, faces, connect):
    triton.before_answer = lambda: time.sleep(1)
    with connect(triton.url, timeout=0.3) as client:
        client.info()
        with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
            client.embed(faces[0])


def test_the_client_finds_the_server_again(client, triton, faces):
    triton.failure = (Code.UNAVAILABLE, "Server is stopping")
    with pytest.raises(ServerUnavailable):
        client.embed(faces[0])
    triton.failure = None
    assert len(client.embed(faces[0])) == 1


def test_a_client_closed_by_another_thread_says_so(triton, faces):
    with FaceClient(triton.url) as client:
        client.info()
        triton.before_answer = client.close
        with pytest.raises(ClientClosed, match="this client is closed"):
            client.embed(faces[0])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda faces: np.zeros((len(faces), 3), np.float32), r"\(1, 3\)"),
        (lambda faces: np.zeros((len(faces) + 1, 4), np.float32), r"\(2, 4\)"),
        (lambda faces: np.full((len(faces), 4), np.nan, np.float32), "not finite"),
        (lambda faces: np.zeros((len(faces), 4), np.float16), r"does not hold the \(1, 4\)"),
    ],
)
def test_a_malformed_answer_is_the_servers_fault(client, triton, faces, answer, reason):
    triton.answer = answer
    with pytest.raises(ServerFault, match=reason):
        client.embed(faces[0])


def without(key):
    return lambda triton: triton.parameters.pop(key)


def with_contract(text):
    return lambda triton: triton.set_contract(text)


def with_tensor(side, *tensor):
    return lambda triton: setattr(triton, side, tensor)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("mstkd.contract"), r"no mstkd.contract in .*repo build"),
        (without("mstkd.contract_id"), r"no mstkd.contract_id .*repo build"),
        (lambda triton: triton.parameters.update({"mstkd.contract": "{}"}), "does not hash"),
        (with_contract("{"), "not JSON"),
        (with_contract("[1]"), "no JSON object"),
        (with_contract('{"channel_order": "BGR"}'), "channel_order 'BGR'"),
        (with_contract('{"embedding_dim": 9}'), "dimension 4.*says 9"),
        (with_tensor("input", "data", "UINT8", [-1, 112, 112, 3]), "takes data UINT8"),
        (with_tensor("input", "faces", "FP32", [-1, 112, 112, 3]), "takes faces FP32"),
        (with_tensor("input", "faces", "UINT8", [-1, 3, 112, 112]), r"\[-1, 3, 112, 112\]"),
        (with_tensor("input", "faces", "UINT8", [4, 112, 112, 3]), r"\[4, 112, 112, 3\]"),
        (lambda triton: triton.more_inputs.append("points"), "takes faces .* and 1 more"),
        (with_tensor("output", "logits", "FP32", [-1, 4]), "gives logits FP32"),
        (with_tensor("output", "embedding", "FP16", [-1, 4]), "gives embedding FP16"),
        (with_tensor("output", "embedding", "FP32", [-1, 4, 1]), r"\[-1, 4, 1\]"),
    ],
)
def test_another_kind_of_model_is_refused(client, triton, change, reason):
    change(triton)
    with pytest.raises(ContractMismatch, match=f"^model 'student'.*{reason}"):
        client.info()


def test_a_free_embedding_dimension_is_read_from_the_contract(client, triton, faces):
    triton.output = ("embedding", "FP32", [-1, -1])
    assert client.info().embedding_dim == 4
    assert client.embed(faces[0]).vectors.shape == (1, 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": ""},
        {"url": "http://localhost:8001"},
        {"url": "localhost"},
        {"model_version": "latest"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"mode": "teacher"},
        {"in_flight": 0},
        {"max_request_bytes": 37631},
        {"compression": "zip"},
        {"keepalive": -1},
        {"tls_cert": "cert.pem"},
        {"tls_ca": "/no/such/file.pem"},
        {"token": "two words"},
        {"in_flight": "many"},
        {"colour": "rgb"},
    ],
)
def test_malformed_settings_are_refused_at_once(settings, connect):
    with pytest.raises(InvalidSettings, match=list(settings)[-1]):
        connect(**settings)


def test_every_error_is_documented_in_the_tree():
    tree = mstkd_client._errors.__doc__
    errors = [
        error
        for error in MstkdClientError.__subclasses__()
        if error.__module__ == "mstkd_client._errors"
    ]
    assert len(errors) == 12
    assert all(f"── {error.__name__} " in tree for error in errors)
