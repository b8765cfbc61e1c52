"""A real tritonserver killed, paused, slowed, restarted and overloaded under both clients."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from mstkd_client import (
    DeadlineExceeded,
    FaceClient,
    LocalFaceClient,
    Overloaded,
    Retry,
    ServerUnavailable,
)
from mstkd_client._wire import encode
from mstkd_serve.contract import Preprocessing
from mstkd_serve.repository import ServingOptions, Target, build_repository
from mstkd_serve.triton import Ports, TritonServer, locate

pytestmark = pytest.mark.triton

SLOW = """

def _slowly(execute):
    def slow(self, requests):
        import time

        time.sleep({seconds})
        return execute(self, requests)

    return slow


TritonPythonModel.execute = _slowly(TritonPythonModel.execute)
"""
PATIENT = Retry(attempts=200, initial_backoff=0.05, max_backoff=0.2, budget=1000)
NEVER = Retry(attempts=1)


@pytest.fixture(scope="module")
def slow_repository(tmp_path_factory, recogniser):
    """Writes a repository whose model takes `seconds` longer for each batch of up to 4."""

    def write(seconds, **options):
        folder = tmp_path_factory.mktemp("slow")
        repository = folder / "repository"
        build_repository(
            {"student": recogniser(folder / "source.onnx")},
            repository,
            target=Target.PYTHON,
            preprocessing=Preprocessing(),
            options=ServingOptions(max_batch_size=4, **options),
        )
        program = repository / "student" / "1" / "model.py"
        program.write_text(program.read_text() + SLOW.format(seconds=seconds))
        return repository

    return write


@contextmanager
def running(repository: Path, port: int = 0):
    with TritonServer(locate(), repository, Ports(port, 0, 0)) as server:
        server.wait_ready(60)
        yield server


@pytest.fixture(scope="module")
def repository(slow_repository):
    """A model of 50 ms a batch."""
    return slow_repository(0.05)


@pytest.fixture(scope="module")
def steady(repository):
    """A server that no test ends."""
    with running(repository) as server:
        yield server


@pytest.fixture(scope="module")
def slow(slow_repository):
    """A server of half a second a batch."""
    with running(slow_repository(0.5)) as server:
        yield server


@pytest.fixture(scope="module")
def narrow(slow_repository):
    """A server of half a second a batch, in whose queue one request may wait."""
    with running(slow_repository(0.5, max_queue_size=1)) as server:
        yield server


@pytest.fixture(scope="module")
def many():
    """60 faces that are easily told apart, uint8 `(60, 112, 112, 3)`."""
    blocks = np.random.default_rng(5).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(28, axis=1).repeat(28, axis=2)


@pytest.fixture(scope="module")
def expected(repository, many):
    with LocalFaceClient(repository / "student" / "1" / "model.onnx") as local:
        return local.embed(many).vectors


def check(vectors, expected):
    """The rows are the first ones expected: none lost, none double, in order."""
    np.testing.assert_allclose(vectors, expected[: len(vectors)], atol=1e-5)


def after(count, action):
    """Faces, with something done when `count` of them were taken."""

    def faces(many):
        for index, face in enumerate(many):
            if index == count:
                action()
            yield face

    return faces


def test_a_server_killed_in_mid_stream_is_unavailable_and_nothing_is_doubled(
    connect, repository, many, expected
):
    with running(repository) as server, connect(server.url, retry=NEVER) as client:
        rows = []
        kill = after(40, lambda: os.killpg(server.pid, signal.SIGKILL))
        start = time.monotonic()
        with pytest.raises(ServerUnavailable, match=server.url):
            rows.extend(row for batch in client.embed_stream(kill(many)) for row in batch.vectors)
        assert time.monotonic() - start < 10
        assert 0 < len(rows) < len(many)
        check(rows, expected)


def test_a_server_restarted_in_mid_stream_costs_nothing(connect, repository, many, expected):
    with running(repository) as first:
        port = first.ports.grpc
        again = []

        def restart():
            os.killpg(first.pid, signal.SIGKILL)
            first.stop()
            again.append(TritonServer(locate(), repository, Ports(port, 0, 0)))
            again[0].start()

        try:
            with connect(first.url, retry=PATIENT) as client:
                batches = list(client.embed_stream(after(40, restart)(many)))
            check(np.concatenate(batches), expected)
            assert sum(len(batch) for batch in batches) == len(many)
            assert sum(batch.timing.retries for batch in batches) > 0
        finally:
            for server in again:
                server.stop()


def test_a_server_that_drains_in_mid_stream_loses_no_answer(connect, repository, many, expected):
    with running(repository) as server, connect(server.url, retry=NEVER) as client:
        rows = []
        stop = after(40, lambda: os.kill(server.pid, signal.SIGTERM))
        with pytest.raises(ServerUnavailable):
            rows.extend(row for batch in client.embed_stream(stop(many)) for row in batch.vectors)
        assert len(rows) >= 24, "what was in flight before the signal is answered"
        check(rows, expected)


def test_a_pause_shorter_than_the_timeout_is_sat_out(connect, steady, many, expected):
    with connect(steady.url, timeout=20) as client:

        def pause():
            os.kill(steady.pid, signal.SIGSTOP)
            threading.Timer(1.0, os.kill, (steady.pid, signal.SIGCONT)).start()

        start = time.monotonic()
        batches = list(client.embed_stream(after(30, pause)(many)))
        assert time.monotonic() - start > 1
        check(np.concatenate(batches), expected)


def test_a_pause_longer_than_the_timeout_exceeds_the_deadline(connect, steady, many, expected):
    with connect(steady.url, timeout=1.0) as client:
        client.embed(many[:1])
        os.kill(steady.pid, signal.SIGSTOP)
        start = time.monotonic()
        try:
            with pytest.raises(DeadlineExceeded, match="within 1 s"):
                client.embed(many)
            assert 0.9 < time.monotonic() - start < 2
        finally:
            os.kill(steady.pid, signal.SIGCONT)
        check(client.embed(many, timeout=20).vectors, expected)


def executed(server):
    """Faces that the server has run so far."""
    with closing(InferenceServerClient(server.url)) as triton:
        (model,) = triton.get_inference_statistics("student").model_stats
    return model.inference_count


def test_what_expired_in_the_queue_is_never_run(connect, slow, many):
    with connect(slow.url, timeout=0.8, in_flight=16, retry=NEVER) as client:
        client.info()
        before = executed(slow)
        with pytest.raises(DeadlineExceeded, match="longer timeout"):
            client.embed(many[:40])
    time.sleep(2)
    assert executed(slow) - before <= 4 * 4, "only what had left the queue in time"


def test_triton_says_itself_that_a_request_expired_in_its_queue(connect, slow, many, monkeypatch):
    with connect(slow.url, timeout=20, retry=NEVER) as client, FaceClient(slow.url) as busy:
        client.info()
        with ThreadPoolExecutor(3) as pool:
            work = [pool.submit(busy.embed, many[:4]) for _ in range(3)]
            time.sleep(0.3)
            monkeypatch.setattr(
                "mstkd_client._server.encode",
                lambda model, faces, left, region: encode(model, faces, 0.1, region),
            )
            with pytest.raises(DeadlineExceeded, match="ran out in the server's queue"):
                client.embed(many[0])
            assert all(len(done.result()) == 4 for done in work)


def test_a_full_queue_is_overloaded_at_once(connect, narrow, many):
    with connect(narrow.url, retry=NEVER, in_flight=8) as client:
        client.info()
        start = time.monotonic()
        with pytest.raises(Overloaded, match="maximum queue size"):
            client.embed(many[:32])
        assert time.monotonic() - start < 0.45


def test_an_overload_in_mid_stream_is_waited_out(connect, narrow, many, expected):
    with connect(narrow.url, retry=PATIENT, in_flight=8) as client:
        embeddings = client.embed(many[:24])
    check(embeddings.vectors, expected)
    assert len(embeddings) == 24
    assert embeddings.timing.retries > 0


def test_leaving_a_stream_frees_what_is_in_flight(connect, slow, many):
    with connect(slow.url, in_flight=12) as client:
        stream = client.embed_stream(many)
        assert len(next(stream)) == 4
        stream.close()
        start = time.monotonic()
        assert len(client.embed(many[0])) == 1
        assert time.monotonic() - start < 2.5, "the cancelled requests would have taken 5 s"


def test_a_forked_process_makes_its_own_connection(served, many):
    with FaceClient(served.url) as client:
        before = client.embed(many[:4]).vectors
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                same = np.allclose(client.embed(many[:4]).vectors, before, atol=1e-6)
                client.close()
                os.write(writer, b"same" if same else b"different")
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            deadline = threading.Timer(20, os.kill, (child, signal.SIGKILL))
            deadline.start()
            assert answer.read() == b"same"
            deadline.cancel()
        os.waitpid(child, 0)
        np.testing.assert_allclose(client.embed(many[:4]).vectors, before, atol=1e-6)


def test_threads_share_a_client_through_a_restart(repository, many, expected):
    with running(repository) as first:
        port = first.ports.grpc
        with FaceClient(first.url, retry=PATIENT) as client, ThreadPoolExecutor(6) as pool:
            client.info()
            work = [pool.submit(client.embed, many[index]) for index in range(len(many))]
            time.sleep(0.2)
            os.killpg(first.pid, signal.SIGKILL)
            first.stop()
            with running(repository, port):
                rows = np.concatenate([done.result() for done in work])
    check(rows, expected)
