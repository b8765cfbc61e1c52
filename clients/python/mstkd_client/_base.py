"""What every client of the server shares, whatever sends its requests: no network I/O here.

A client asks this module for an `EmbedPlan`, sends the plan's requests one after another, hands
back each answer, and lets `BaseClient` put every failure into the client's own errors.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import (
    ContractMismatch,
    DeadlineExceeded,
    ModelNotReady,
    MstkdClientError,
    Overloaded,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)
from mstkd_client._model import ServedModel
from mstkd_client._similarity import similarity
from mstkd_client._types import Calibration, Embeddings, ModelInfo, Verification
from mstkd_client._wire import Answer, Request, decode, encode

DEFAULT_URL: Final = "localhost:8001"
DEFAULT_MODEL: Final = "student"
DEFAULT_TIMEOUT: Final = 30.0

_MAX_MESSAGE_BYTES: Final = 2**31 - 1
CHANNEL_ARGUMENTS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # gRPC would wait up to two minutes before it looks again for a server that was away.
    ("grpc.max_reconnect_backoff_ms", 2000),
)
"""Arguments of every channel; they replace tritonclient's, so its message limits are repeated."""

ERROR_TABLE: Final[tuple[tuple[str, str, type[MstkdClientError]], ...]] = (
    ("UNAVAILABLE", "maximum queue size", Overloaded),
    ("UNAVAILABLE", "Request timeout expired", Overloaded),
    ("UNAVAILABLE", "not at ready state", ModelNotReady),
    ("UNAVAILABLE", "", ServerUnavailable),
    ("UNIMPLEMENTED", "http2 header", ServerUnavailable),
    ("NOT_FOUND", "", ModelNotReady),
    ("DEADLINE_EXCEEDED", "", DeadlineExceeded),
    ("RESOURCE_EXHAUSTED", "larger than max", ServerFault),
    ("RESOURCE_EXHAUSTED", "", Overloaded),
    ("UNAUTHENTICATED", "", Unauthenticated),
    ("PERMISSION_DENIED", "", Unauthenticated),
)
"""gRPC status, a part of the message ("" fits any), error; the first fit counts, none is a
`ServerFault`. The messages are Triton's own."""

_URL: Final = re.compile(r"[^\s/:]+:\d{1,5}|\[[0-9A-Fa-f:.%]+\]:\d{1,5}|unix:\S+")


def classify(status: str | None, message: str) -> type[MstkdClientError]:
    """Look a failure up in `ERROR_TABLE`.

    Args:
        status: As `InferenceServerException.status()` gives it: `StatusCode.NOT_FOUND`, or None.
        message: Triton's or gRPC's message.
    """
    code = (status or "").removeprefix("StatusCode.")
    for known, part, error in ERROR_TABLE:
        if code == known and part in message:
            return error
    return ServerFault


class BaseClient:
    """Settings, checked; requests, planned; failures, put into words.

    Args:
        url: `host:port` of Triton's gRPC endpoint, without a scheme.
        model_name: The model that embeds.
        model_version: A version of it, or "" for the one that the server chooses.
        timeout: Seconds that one call to the server may take.

    Raises:
        ValueError: A setting is malformed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model_name: str = DEFAULT_MODEL,
        model_version: str = "",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not _URL.fullmatch(url):
            raise ValueError(f"url {url!r} must be host:port without a scheme, e.g. {DEFAULT_URL}")
        if not model_name:
            raise ValueError("model_name must not be empty")
        if model_version and not model_version.isdecimal():
            raise ValueError(f"model_version {model_version!r} must be a number such as '1', or ''")
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a number of seconds above 0, got {timeout}")
        self.url = url
        self.model_name = model_name
        self.model_version = model_version
        self.timeout = timeout
        self._answered = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model_name={self.model_name!r})"

    def _error(
        self, kind: type[MstkdClientError], message: str, models: Mapping[str, str] | None = None
    ) -> MstkdClientError:
        """Put a failure into words.

        Args:
            kind: From `classify`.
            message: Triton's or gRPC's message.
            models: The server's models and why each is not ready ("" where it is), if known.
        """
        if kind not in (DeadlineExceeded, ServerUnavailable):
            self._answered = True
        if kind is DeadlineExceeded and not self._answered:
            kind, message = ServerUnavailable, f"no answer within {self.timeout:g} s"
        detail = f" ({message})" if message else ""
        if kind is ServerUnavailable:
            return kind(
                f"no Triton server answers at {self.url}{detail}. Give the host:port of its gRPC "
                "endpoint, or start one with `mstkd-serve up --model-repo FOLDER`."
            )
        if kind is ModelNotReady:
            return kind(self._not_ready(message, models))
        if kind is DeadlineExceeded:
            return kind(
                f"{self.url} did not answer for model {self.model_name!r} within "
                f"{self.timeout:g} s. Give a longer timeout, or look at the server's load."
            )
        if kind is Overloaded:
            return kind(f"the server at {self.url} is overloaded{detail}. Try again later.")
        if kind is Unauthenticated:
            return kind(f"{self.url} refused the credentials{detail}.")
        return kind(f"{self.url} failed for model {self.model_name!r}: {message or 'no reason'}")

    def _not_ready(self, message: str, models: Mapping[str, str] | None) -> str:
        version = f" version {self.model_version}" if self.model_version else ""
        text = f"model {self.model_name!r}{version} is not ready at {self.url} ({message})."
        if models is None:
            return text
        if reason := models.get(self.model_name):
            return f"{text} The server says why: {reason}."
        return f"{text} Models that the server knows: {', '.join(sorted(models)) or 'none'}."

    @staticmethod
    def _models(index: Any) -> dict[str, str]:
        """Read Triton's `RepositoryIndexResponse`: model name to why it is not ready."""
        ready = {model.name for model in index.models if model.state == "READY"}
        reasons = {model.name: model.reason.partition("\n")[0] for model in index.models}
        return {name: "" if name in ready else reason for name, reason in reasons.items()}

    @staticmethod
    def _verification(both: Embeddings, calibration: Calibration | None) -> Verification:
        """Score two faces that were embedded together, `(2, dim)`, and decide if calibrated."""
        first, second = (
            Embeddings(row[None], both.contract_id, both.model_name, both.model_version)
            for row in both.vectors
        )
        score = float(similarity(first, second)[0])
        found = Verification(score, both.contract_id, both.model_name, both.model_version)
        if calibration is None:
            return found
        probability = None
        if calibration.probability is not None:
            slope, intercept = calibration.probability
            probability = 0.5 * (1 + math.tanh((slope * score + intercept) / 2))  # logistic
        return replace(
            found,
            accepted=score >= calibration.threshold,
            threshold=calibration.threshold,
            fmr=calibration.fmr,
            worst_group_fmr=max(calibration.group_fmr.values()),
            probability=probability,
            calibrated_on=calibration.data,
        )


class EmbedPlan:
    """The requests of one `embed` call and what came back. Faces are decoded chunk by chunk.

    Args:
        faces: From `read_faces` or `read_pair`: uint8 RGB `(112, 112, 3)` each.
        served: The model, from `parse_model`.
    """

    def __init__(self, faces: Iterator[NDArray[np.uint8]], served: ServedModel) -> None:
        self._faces = faces
        self._served = served
        self._vectors: list[NDArray[np.float32]] = []
        self._version: str | None = None

    def requests(self) -> Iterator[Request]:
        """Yield the requests in order, none above the server's limit.

        Raises:
            InvalidFace: An input is not an aligned face; raised when its turn comes.
        """
        while chunk := list(islice(self._faces, self._served.chunk_size)):
            yield encode(np.stack(chunk))

    def take(self, request: Request, result: Any) -> None:
        """Keep the answer (tritonclient's `InferResult`) to `request`.

        Raises:
            ServerFault: The answer is malformed.
            ContractMismatch: Another version of the model answered than before.
        """
        answer: Answer = decode(result, request, self._served.info.embedding_dim)
        if self._version not in (None, answer.model_version):
            raise ContractMismatch(
                f"the server went from version {self._version} to {answer.model_version} of model "
                f"{self._served.info.model_name!r} between two requests. Embed all faces again."
            )
        self._version = answer.model_version
        self._vectors.append(answer.vectors)

    @property
    def version_is_new(self) -> bool:
        """Whether a version answered that was not there when the model's contract was read."""
        return self._version not in self._served.info.model_versions

    def embeddings(self, info: ModelInfo) -> Embeddings:
        """Join the answers, in the order of the faces.

        Args:
            info: The model's info; read anew where `version_is_new`.
        """
        vectors = np.concatenate(self._vectors)
        return Embeddings(vectors, info.contract_id, info.model_name, self._version or "")
