"""The blocking client of an exported ONNX file in this process: no server, no network."""

import hashlib
import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mstkd_client._blocking import BlockingFaceClient
from mstkd_client._errors import (
    ClientClosed,
    DeadlineExceeded,
    InvalidSettings,
    MissingExtra,
    ModelNotReady,
)
from mstkd_client._flight import Ticket
from mstkd_client._model import read_calibration, read_contract
from mstkd_client._observe import Call
from mstkd_client._settings import check_seconds
from mstkd_client._timing import ServerCount
from mstkd_client._types import Health, ModelInfo
from mstkd_client._wire import INPUT_NAME, OUTPUT_NAME, Answer, check_finite, chunks

_clock: Final = time.perf_counter


class LocalFaceClient(BlockingFaceClient):
    """Embeds and compares aligned faces with an exported ONNX file, on this machine's CPU.

    The methods are those of `FaceClient`. Threads may share one client. Needs the extra `local`.

    Args:
        model: Path of the file: what `mstkd-train export` wrote, or a model repository's
            `NAME/VERSION/model.onnx`.
        batch_size: Most faces that are run at once.
        threads: Threads of one run; 0 takes one per core.
        timeout: Seconds that a batch may take. A run cannot be stopped: it is judged afterwards.

    Raises:
        InvalidSettings: A setting is out of its range.
        MissingExtra: onnxruntime is not installed.
        ModelNotReady: The file is missing or is no ONNX file.
        ContractMismatch: The file was not exported by MSTKD Serve.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        batch_size: int = 32,
        threads: int = 0,
        timeout: float = 30.0,
    ) -> None:
        if not 1 <= batch_size <= 65536:
            raise InvalidSettings(f"batch_size must lie in 1 to 65536, got {batch_size}")
        if not 0 <= threads <= 1024:
            raise InvalidSettings(f"threads must lie in 0 to 1024, got {threads}")
        check_seconds("timeout", timeout, least=0.0, above=True)
        self.model_name = Path(model).stem
        self.timeout = timeout
        self._batch_size = batch_size
        self._session, self._info = _open(Path(model), threads, batch_size)
        self._closed = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LocalFaceClient({self.model_name!r})"

    def close(self) -> None:
        """Free the model. May be called again; other calls then raise ClientClosed."""
        with self._lock:
            self._closed = True
            self._session = None

    def info(self) -> ModelInfo:
        """Tell what the file says about its model; its version is the file's SHA-256."""
        self._running()
        return self._info

    def health(self) -> Health:
        """Tell that the model is ready, which it is until the client is closed."""
        return Health(not self._closed, not self._closed, not self._closed)

    def _running(self) -> Any:
        with self._lock:
            if self._session is None:
                raise ClientClosed("this client is closed. Make a new one.")
            return self._session

    @contextmanager
    def _observed(self, method: str) -> Iterator[Call]:
        yield Call(method, self.model_name)

    def _info_of(self, version: str) -> ModelInfo:
        return self._info

    def _answers(
        self,
        blocks: Iterator[NDArray[np.uint8]],
        call: Call,
        timeout: float | None,
        batch_size: int | None = None,
    ) -> Generator[tuple[Ticket, Answer], None, None]:
        timeout = self.timeout if timeout is None else timeout
        check_seconds("timeout", timeout, least=0.0, above=True)
        (version,) = self._info.model_versions
        rows = min(self._batch_size, batch_size or self._batch_size)
        for chunk in chunks(blocks, rows):
            session = self._running()
            ticket = Ticket(chunk, sent=_clock(), attempt=1)
            (vectors,) = session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(chunk)})
            ticket.round_trip = _clock() - ticket.sent
            if ticket.round_trip > timeout:
                raise DeadlineExceeded(
                    f"model {self.model_name!r} took {ticket.round_trip:.3g} s for {len(chunk)} "
                    f"faces, more than {timeout:g} s. Give a longer timeout or a smaller batch."
                )
            check_finite(vectors)
            call.waited += ticket.round_trip
            call.answered(len(chunk), ticket.round_trip, 0)
            call.before = ServerCount(0, 0.0, 0.0)
            call.after = ServerCount(call.requests, 0.0, call.round_trip)
            delivered = _clock()
            yield ticket, Answer(vectors, version)
            call.exclude(_clock() - delivered)


def _open(path: Path, threads: int, batch_size: int) -> tuple[Any, ModelInfo]:
    """Load the file; return onnxruntime's session and what the file says of its model."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(
            "LocalFaceClient needs onnxruntime: pip install 'mstkd-client[local]'"
        ) from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelNotReady(f"{path}: cannot be read ({error.strerror}).") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own types are not public
        raise ModelNotReady(
            f"{path}: not an ONNX file that onnxruntime can run. Export the model again with "
            "`mstkd-train export`."
        ) from error
    parameters = session.get_modelmeta().custom_metadata_map
    contract = read_contract(parameters, str(path))
    info = ModelInfo(
        model_name=path.stem,
        model_versions=(hashlib.sha256(content).hexdigest()[:16],),
        embedding_dim=int(contract["embedding_dim"]),
        max_batch_size=batch_size,
        contract_id=parameters["mstkd.contract_id"],
        contract=contract,
        server_version=f"onnxruntime {onnxruntime.__version__}",
        calibration=read_calibration(parameters, str(path)),
    )
    return session, info
