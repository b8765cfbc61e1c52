"""A Triton of our own for the client's tests: real gRPC on localhost, a model of a few lines."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from mstkd_client import FaceClient, Retry

DIM = 4
CONTRACT = {"alignment": "arcface-112", "embedding_dim": DIM, "height": 112}
CONTRACT_TEXT = json.dumps(CONTRACT)


def contract_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


CONTRACT_ID = contract_id(CONTRACT_TEXT)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers like Triton; a face's embedding is its first pixels, so the order can be checked."""

    def __init__(self) -> None:
        self.port = 0
        self.version = "1"
        self.max_batch_size = 8
        self.parameters = {
            "mstkd.contract": CONTRACT_TEXT,
            "mstkd.contract_id": CONTRACT_ID,
        }
        self.input = ("faces", "UINT8", [-1, 112, 112, 3])
        self.more_inputs: list[str] = []
        self.output = ("embedding", "FP32", [-1, DIM])
        self.models = {"student": "", "broken": "Internal: no weights\nAt: model.py(1)"}
        self.live = True
        self.calls: list[str] = []
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.answer: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = self.embed
        self.before_answer: Callable[[], object] = lambda: None
        self._counting = threading.Lock()

    def set_contract(self, text: str) -> None:
        """Serve another contract, with the id that belongs to it."""
        self.parameters["mstkd.contract"] = text
        self.parameters["mstkd.contract_id"] = contract_id(text)

    @property
    def contract_id(self) -> str:
        return self.parameters["mstkd.contract_id"]

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    @staticmethod
    def embed(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = faces.reshape(len(faces), -1)[:, :DIM].astype(np.float32) + 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _enter(self, call: str, context: grpc.ServicerContext, model: str | None = None) -> None:
        with self._counting:
            self.calls.append(call)
        if self.failure:
            context.abort(*self.failure)
        if model is not None and self.models.get(model, "absent"):
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{model}' is not found"
            )

    def ServerLive(self, request, context):  # noqa: N802
        self._enter("ServerLive", context)
        return service_pb2.ServerLiveResponse(live=self.live)

    def ServerReady(self, request, context):  # noqa: N802
        self._enter("ServerReady", context)
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request, context):  # noqa: N802
        self._enter("ModelReady", context)
        return service_pb2.ModelReadyResponse(ready=self.models.get(request.name) == "")

    def ServerMetadata(self, request, context):  # noqa: N802
        self._enter("ServerMetadata", context)
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    def ModelMetadata(self, request, context):  # noqa: N802
        self._enter("ModelMetadata", context, request.name)
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        described = [
            tensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape in (self.input, self.output)
        ]
        return service_pb2.ModelMetadataResponse(
            name=request.name,
            versions=[self.version],
            inputs=described[:1] + [tensor(name=name) for name in self.more_inputs],
            outputs=described[1:],
        )

    def ModelConfig(self, request, context):  # noqa: N802
        self._enter("ModelConfig", context, request.name)
        response = service_pb2.ModelConfigResponse()
        response.config.name = request.name
        response.config.max_batch_size = self.max_batch_size
        for key, value in self.parameters.items():
            response.config.parameters[key].string_value = value
        return response

    def RepositoryIndex(self, request, context):  # noqa: N802
        response = service_pb2.RepositoryIndexResponse()
        for name, reason in self.models.items():
            state = "UNAVAILABLE" if reason else "READY"
            response.models.add(name=name, version="1", state=state, reason=reason)
        return response

    def ModelInfer(self, request, context):  # noqa: N802
        self.before_answer()
        self._enter("ModelInfer", context, request.model_name)
        self.requests.append(request)
        (tensor,) = request.inputs
        (raw,) = request.raw_input_contents
        vectors = self.answer(np.frombuffer(raw, np.uint8).reshape(tuple(tensor.shape)))
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=self.version
        )
        response.outputs.add(name="embedding", datatype="FP32", shape=vectors.shape)
        response.raw_output_contents.append(vectors.tobytes())
        return response


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    fake = FakeTriton()
    with ThreadPoolExecutor(max_workers=4) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
        fake.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield fake
        server.stop(grace=None).wait()


@pytest.fixture
def client(triton: FakeTriton, connect: Callable[..., FaceClient]) -> Iterator[FaceClient]:
    """A client of the fake server, in each of the two colours; it never retries."""
    with connect(triton.url, timeout=10, retry=Retry(attempts=1)) as client:
        yield client


@pytest.fixture
def faces() -> NDArray[np.uint8]:
    """Noise, uint8 `(20, 112, 112, 3)`."""
    return np.random.default_rng(7).integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
