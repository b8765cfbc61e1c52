"""Other people's ways of the same work, and our client: what the measurements stand beside.

They are imported when they are measured, and nothing else of this package knows them (ADR 9).
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mstkd_serve.errors import EngineError

CLIENT_FACES = 10_000
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def arcface_onnx(network: Path) -> Run:
    """Return insightface's way from uint8 RGB faces to embeddings: its `ArcFaceONNX`, as it is.

    Args:
        network: The recogniser's own float32 file, not a served graph.

    Raises:
        EngineError: insightface or ONNX Runtime is not installed.
    """
    try:
        import onnxruntime

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from insightface.model_zoo.arcface_onnx import ArcFaceONNX
    except ImportError as error:
        raise EngineError(f"insightface cannot be measured ({error}).") from error
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    model = ArcFaceONNX(str(network), session)

    def run(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = model.get_feat(list(faces[..., ::-1]))  # it takes BGR
        return answer

    return run


def cpu_seconds(
    way: Literal["client", "tritonclient"], url: str, rows: int, faces: int = CLIENT_FACES
) -> float:
    """Return the processor time, all threads, that embedding costs a caller's fresh process.

    Args:
        way: `mstkd_client`, or bare `tritonclient` calls with the same chunks.
        url: A server with the model `student`.
        rows: Its largest batch, which is the size of the chunks.
        faces: How many faces to embed in one call.

    Raises:
        EngineError: The process failed.
    """
    command = [sys.executable, "-m", __name__, way, url, str(rows), str(faces)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"the cost of {way} cannot be measured ({reason}).")
    return float(done.stdout)


def _measure(way: str, url: str, rows: int, count: int) -> float:
    """Embed and return the processor time; runs in the fresh process."""
    some = np.random.default_rng(1).integers(0, 256, (500, 112, 112, 3), np.uint8)
    many = np.resize(some, (count, 112, 112, 3))
    embed, close = _client(url) if way == "client" else _tritonclient(url, rows)
    embed(some)
    started = time.process_time()
    vectors = embed(many)
    used = time.process_time() - started
    close()
    assert len(vectors) == count
    return used


def _client(url: str) -> tuple[Run, Callable[[], None]]:
    from mstkd_client import FaceClient

    client = FaceClient(url)
    return lambda faces: client.embed(faces).vectors, client.close


def _tritonclient(url: str, rows: int) -> tuple[Run, Callable[[], None]]:
    from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

    client = InferenceServerClient(url)
    outputs = [InferRequestedOutput("embedding")]

    def embed(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(faces), rows):
            chunk = faces[start : start + rows]
            tensor = InferInput("faces", list(chunk.shape), "UINT8")
            tensor.set_data_from_numpy(chunk)
            answer = client.infer("student", [tensor], outputs=outputs, client_timeout=60.0)
            parts.append(answer.as_numpy("embedding"))
        return np.concatenate(parts)

    return embed, client.close


if __name__ == "__main__":
    print(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
