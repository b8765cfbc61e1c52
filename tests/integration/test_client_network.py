"""The client on a real network's terms: names with several addresses, lines that go silent."""

import socket
import struct
import threading
import time

import numpy as np
import pytest

from mstkd_client import LocalFaceClient, Retry, ServerUnavailable

pytestmark = pytest.mark.triton


class Relay:
    """Forwards TCP connections from an address to a server, until it is frozen."""

    def __init__(self, target, host="127.0.0.1", port=0):
        self._target = target
        self._moving = threading.Event()
        self._moving.set()
        self.connections = 0
        self._listener = socket.create_server((host, port))
        self.port = self._listener.getsockname()[1]
        self.url = f"{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self):
        """Keep connections open and drop whatever comes: a peer that silently went away."""
        self._moving.clear()

    def close(self):
        self._moving.set()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self._target)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source, sink):
        try:
            while data := source.recv(65536):
                if self._moving.is_set():
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()


@pytest.fixture
def relay(served):
    host, port = served.url.split(":")
    relays = []

    def make(**where):
        relays.append(Relay((host, int(port)), **where))
        return relays[-1]

    yield make
    for each in relays:
        each.close()


@pytest.fixture
def name_server():
    """A DNS server that answers every name with 127.0.0.1 and 127.0.0.2; gives its port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                query, asker = server.recvfrom(512)
            except OSError:
                return
            end = query.index(b"\0", 12) + 5
            is_a = struct.unpack(">H", query[end - 4 : end - 2])[0] == 1
            found = ["127.0.0.1", "127.0.0.2"] if is_a else []
            head = query[:2] + struct.pack(">5H", 0x8180, 1, len(found), 0, 0)
            entries = [
                b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(each)
                for each in found
            ]
            server.sendto(head + query[12:end] + b"".join(entries), asker)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture(scope="module")
def expected(served, faces_of_module):
    with LocalFaceClient(served.onnx) as local:
        return local.embed(faces_of_module).vectors


@pytest.fixture(scope="module")
def faces_of_module():
    return np.random.default_rng(7).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)


def test_a_name_with_two_addresses_is_used_in_turn(
    connect, relay, name_server, faces_of_module, expected
):
    first = relay()
    second = relay(host="127.0.0.2", port=first.port)
    with connect(f"dns://127.0.0.1:{name_server}/faces.test:{first.port}") as client:
        for _ in range(6):
            vectors = client.embed(faces_of_module).vectors
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert (first.connections, second.connections) == (1, 1)


def test_keepalive_holds_an_idle_line(connect, relay, faces_of_module):
    line = relay()
    with connect(line.url, keepalive=10.0) as client:
        client.embed(faces_of_module)
        time.sleep(11)  # a ping and its answer
        client.embed(faces_of_module)
    assert line.connections == 1, "the server hung up on the ping, or the client on the line"


def test_keepalive_notices_a_line_that_went_silent(connect, relay, faces_of_module):
    line = relay()
    with connect(line.url, keepalive=1.0, timeout=60, retry=Retry(attempts=1)) as client:
        client.embed(faces_of_module)
        line.freeze()
        start = time.monotonic()
        with pytest.raises(ServerUnavailable):
            client.embed(faces_of_module)
        assert time.monotonic() - start < 10, "seconds, where the timeout alone takes 60"
