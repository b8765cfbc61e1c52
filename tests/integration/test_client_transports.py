"""One API over three transports, and every way of reaching a real tritonserver."""

import dataclasses
import time
from contextlib import closing, contextmanager

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from mstkd_client import (
    ClientClosed,
    ContractMismatch,
    InvalidFace,
    LocalFaceClient,
    ServerUnavailable,
    Unauthenticated,
)
from mstkd_serve.triton import Ports, TritonServer, locate

pytestmark = pytest.mark.triton


@pytest.fixture
def client(transport, served):
    with transport(served) as client:
        yield client


@pytest.fixture(scope="module")
def many():
    blocks = np.random.default_rng(11).integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(28, axis=1).repeat(28, axis=2)


@pytest.fixture(scope="module")
def expected(served, many):
    with LocalFaceClient(served.onnx) as local:
        return local.embed(many).vectors


def test_all_methods_give_the_same_by_every_transport(client, many, expected):
    np.testing.assert_allclose(client.embed(many).vectors, expected, atol=1e-5)
    streamed = list(client.embed_stream((face for face in many), batch_size=7))
    assert [len(batch) for batch in streamed] == [7, 7, 7, 7, 2]
    np.testing.assert_allclose(np.concatenate(streamed), expected, atol=1e-5)
    found = client.verify_many(zip(many[:5], many[5:10], strict=True))
    np.testing.assert_allclose(
        found.scores, np.einsum("nd,nd->n", expected[:5], expected[5:10]), atol=1e-5
    )
    assert client.verify(many[0], many[5]).score == pytest.approx(found[0].score, abs=1e-5)
    matrix = client.similarity(streamed[0], streamed[1], all_pairs=True)
    np.testing.assert_allclose(matrix, expected[:7] @ expected[7:14].T, atol=1e-5)
    assert all(dataclasses.astuple(client.health()))
    assert client.info().contract_id == streamed[0].contract_id


def test_channels_in_opencvs_order_are_told(client, many, expected):
    bgr = client.embed(many[:3, ..., ::-1], color="bgr").vectors
    np.testing.assert_allclose(bgr, expected[:3], atol=1e-5)
    with pytest.raises(ValueError, match="'rgb' or 'bgr'"):
        client.embed(many, color="hsv")


def test_the_times_of_a_call_add_up(client, many):
    start = time.perf_counter()
    timing = client.embed(many).timing
    elapsed = time.perf_counter() - start
    assert 0 < timing.client <= timing.total <= elapsed
    assert timing.requests >= 1
    assert timing.round_trip > 0


def test_queue_and_compute_are_told_where_asked_for(transport, served, many, request):
    local = "local" in request.node.name
    with transport(served, **({} if local else {"server_timing": True})) as client:
        timing = client.embed(many).timing
    assert timing.queue >= 0
    assert 0 < timing.compute <= timing.round_trip
    assert timing.network == pytest.approx(timing.round_trip - timing.queue - timing.compute)


def test_a_bad_face_in_a_stream_comes_after_what_was_before_it(client, many):
    rows = []
    with pytest.raises(InvalidFace, match="face 20 is an array"):
        rows.extend(batch for batch in client.embed_stream([*many[:20], np.zeros(3)], batch_size=1))
    assert len(rows) >= 16


def test_a_closed_client_says_so_and_closing_twice_is_fine(transport, served, many):
    with transport(served) as client:
        client.embed(many[0])
        client.close()
        client.close()
        with pytest.raises(ClientClosed):
            client.embed(many[0])


def test_embeddings_of_two_models_are_not_compared(client, many):
    first = client.embed(many[0])
    second = dataclasses.replace(first, contract_id="0" * 16)
    with pytest.raises(ContractMismatch, match="not comparable"):
        client.similarity(first, second)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"shared_memory": True}, {}])
def test_every_way_on_the_wire_gives_the_same(connect, served, many, expected, options):
    with connect(served.url, **options) as client:
        for _ in range(3):
            np.testing.assert_allclose(client.embed(many).vectors, expected, atol=1e-5)
        if "shared_memory" in options:
            with InferenceServer(served) as triton:
                regions = triton.get_system_shared_memory_status().regions
                assert len(regions) == 1, "the pixels went through shared memory"
    if "shared_memory" in options:
        with InferenceServer(served) as triton:
            assert not triton.get_system_shared_memory_status().regions


@contextmanager
def InferenceServer(served):  # noqa: N802 - reads as the class it wraps
    triton = InferenceServerClient(served.url)
    yield triton
    triton.close()


@contextmanager
def guarded(served, *arguments):
    """A server with further options, once its HTTP side says that it is ready."""
    installation = locate()
    installation = dataclasses.replace(
        installation, arguments=(*installation.arguments, *arguments)
    )
    with TritonServer(installation, served.repository, Ports(0, 0, 0)) as server:
        deadline = time.monotonic() + 60
        while "Started GRPCInferenceService" not in server.log_text():
            server.check_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server


@pytest.fixture(scope="module")
def mutual(served, certificates):
    options = {"cert": "server.pem", "key": "server.key", "root-cert": "ca.pem"}
    arguments = [f"--grpc-server-{key}={certificates / name}" for key, name in options.items()]
    arguments = [
        argument.replace("--grpc-server-root-cert", "--grpc-root-cert") for argument in arguments
    ]
    with guarded(served, "--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1", *arguments) as server:
        yield server


def test_mutual_tls_lets_in_who_has_the_certificate(
    connect, mutual, certificates, many, expected, monkeypatch
):
    own = {"tls_cert": certificates / "client.pem", "tls_key": certificates / "client.key"}
    with connect(mutual.url, tls_ca=certificates / "ca.pem", **own) as client:
        np.testing.assert_allclose(client.embed(many).vectors, expected, atol=1e-5)
    for name in ("ca", "cert", "key"):
        file = "ca.pem" if name == "ca" else f"client.{'pem' if name == 'cert' else 'key'}"
        monkeypatch.setenv(f"MSTKD_TLS_{name.upper()}", str(certificates / file))
    monkeypatch.setenv("MSTKD_URL", mutual.url)
    with connect() as client:
        assert len(client.embed(many[0])) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tls_ca": "ca.pem"},
        {"tls_ca": "stranger_ca.pem", "tls_cert": "client.pem", "tls_key": "client.key"},
        {"tls_ca": "ca.pem", "tls_cert": "stranger.pem", "tls_key": "stranger.key"},
    ],
    ids=["plain", "no certificate", "wrong authority", "wrong certificate"],
)
def test_mutual_tls_lets_in_nobody_else(connect, mutual, certificates, many, options):
    files = {name: certificates / file for name, file in options.items()}
    start = time.monotonic()
    with (
        connect(mutual.url, timeout=3, **files) as client,
        pytest.raises(ServerUnavailable, match=mutual.url),
    ):
        client.embed(many[0])
    assert time.monotonic() - start < 6


def test_a_protocol_that_is_restricted_is_unauthenticated(connect, served, many):
    with (
        guarded(served, "--grpc-restricted-protocol=inference:admin=secret") as server,
        connect(server.url, timeout=10) as client,
        pytest.raises(Unauthenticated, match="restricted"),
    ):
        client.embed(many[0])


def at_least(successes, url, seconds=10):
    """Whether the server counted so many requests: it counts one after its answer has left."""
    deadline = time.monotonic() + seconds
    with closing(InferenceServerClient(url)) as triton:
        while time.monotonic() < deadline:
            (model,) = triton.get_inference_statistics("student").model_stats
            if model.inference_stats.success.count >= successes:
                return True
            time.sleep(0.05)
    return False


def test_several_servers_take_turns(connect, served, many, expected):
    with guarded(served) as other:
        addresses = ",".join((served.url, other.url))
        with connect(f"ipv4:{addresses}") as client:
            for _ in range(6):
                np.testing.assert_allclose(client.embed(many[:2]).vectors, expected[:2], atol=1e-5)
        for url in (served.url, other.url):
            assert at_least(3 + 2, url), "with its two warm-ups"


def test_calls_are_reported_and_traced_without_pixels(connect, served, many):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, records = InMemorySpanExporter(), []
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    usual = trace.get_tracer
    trace.get_tracer = provider.get_tracer
    try:
        with connect(served.url, tracing=True, on_call=records.append) as client:
            client.embed(many)
            with pytest.raises(InvalidFace):
                client.verify(many[0], many)
    finally:
        trace.get_tracer = usual
    first, second = exporter.get_finished_spans()
    assert (first.name, first.attributes["mstkd.faces"]) == ("mstkd.embed", len(many))
    assert second.attributes["error.type"] == "InvalidFace"
    assert [(r.method, r.faces, r.error) for r in records] == [
        ("embed", len(many), None),
        ("verify", 0, "InvalidFace"),
    ]
