"""What all tests share: small real networks, the shared data, a real tritonserver."""

import asyncio
import inspect
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mstkd_client import AsyncFaceClient, FaceClient, LocalFaceClient
from mstkd_serve.contract import Preprocessing
from mstkd_serve.repository import ServingOptions, Target, build_repository
from mstkd_serve.triton import Ports, TritonServer, locate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The read-only folder of real faces and weights."""
    folder = Path(os.environ.get("MSTKD_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set MSTKD_SHARED to its folder")
    return folder


def write_recogniser(
    path: Path,
    *,
    batch: int | None = None,
    dim: int = 16,
    opset: int = 17,
    reshape: list[int] | None = None,
    seed: int = 0,
) -> Path:
    """Write a small recogniser: two convolutions, average pooling, a linear layer.

    `batch` fixes the batch axis; `reshape` ends the network with a Reshape to that constant
    shape, which is how exporters tie a network to its batch size.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.2, (8, 3, 7, 7)),
        "w2": rng.normal(0, 0.2, (32, 8, 3, 3)),
        "w3": rng.normal(0, 0.2, (dim, 32, 1, 1)),
    }
    initialisers = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["c1"], strides=[4, 4], pads=[3] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Tanh", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Conv", ["p", "w3"], ["c3"]),
    ]
    if reshape is None:
        nodes.append(helper.make_node("Flatten", ["c3"], ["output"]))
    else:
        initialisers.append(numpy_helper.from_array(np.array(reshape, np.int64), "shape"))
        nodes.append(helper.make_node("Reshape", ["c3", "shape"], ["output"]))
    size = batch if batch is not None else "batch"
    graph = helper.make_graph(
        nodes,
        "recogniser",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [size, 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [size, dim])],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def recogniser() -> Callable[..., Path]:
    """The function that writes a small recogniser's ONNX file."""
    return write_recogniser


@dataclass(frozen=True)
class Served:
    """A running server and what it serves."""

    url: str
    onnx: Path
    repository: Path
    server: TritonServer


@contextmanager
def serving(repository: Path, model: str = "student") -> Iterator[Served]:
    """Run a real tritonserver over a repository, on free ports."""
    with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
        server.wait_ready(120)
        yield Served(server.url, repository / model / "1" / "model.onnx", repository, server)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real tritonserver with a small `student` of 16 dimensions and batches of up to 8."""
    folder = tmp_path_factory.mktemp("served")
    build_repository(
        {"student": write_recogniser(folder / "source.onnx")},
        folder / "repository",
        target=Target.PYTHON,
        preprocessing=Preprocessing(),
        options=ServingOptions(max_batch_size=8),
    )
    with serving(folder / "repository") as running:
        yield running


@pytest.fixture(scope="session")
def serve() -> Callable[..., object]:
    """The context manager that serves a repository."""
    return serving


@pytest.fixture
def faces() -> np.ndarray:
    """Eight random faces, uint8 RGB (8, 112, 112, 3)."""
    return np.random.default_rng(7).integers(0, 256, (8, 112, 112, 3), dtype=np.uint8)


class AwaitedFaceClient:
    """`AsyncFaceClient` behind the blocking client's methods, so that one test fits both."""

    def __init__(self, url: str | None = None, **options: object) -> None:
        self.client = AsyncFaceClient(url, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> object:
        found = getattr(self.client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **options: self._runner.run(found(*arguments, **options))

    def __repr__(self) -> str:
        return repr(self.client)

    def embed_stream(self, *arguments: object, **options: object) -> Iterator[object]:
        async def following(stream):
            return await anext(stream, None)

        stream = self.client.embed_stream(*arguments, **options)
        try:
            while (batch := self._runner.run(following(stream))) is not None:
                yield batch
        finally:
            self._runner.run(stream.aclose())

    def __enter__(self) -> "AwaitedFaceClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.client.close())
        self._runner.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Callable[..., object]:
    """What makes a client of a server, in each of the two colours."""
    return {"sync": FaceClient, "async": AwaitedFaceClient}[request.param]


@pytest.fixture(params=["sync", "async", "local"])
def transport(request: pytest.FixtureRequest) -> Callable[..., object]:
    """What makes a client of a `Served`, by each of the three transports."""
    if request.param == "local":
        return lambda served, **options: LocalFaceClient(served.onnx, **options)
    made = {"sync": FaceClient, "async": AwaitedFaceClient}[request.param]
    return lambda served, **options: made(served.url, **options)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server, a client and a stranger."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for authority in ("ca", "stranger_ca"):
        openssl(
            *f"req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {authority}.key "
            f"-out {authority}.pem -subj /CN={authority}".split()
        )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "stranger_ca")):
        openssl(
            *f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr "
            "-subj /CN=localhost".split()
        )
        openssl(
            *f"x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -days 2 "
            f"-CAcreateserial -extfile names -out {name}.pem".split()
        )
    return folder
