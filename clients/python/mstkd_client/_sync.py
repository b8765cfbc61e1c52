"""The blocking client: it sends what `_base` plans, and nothing more."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mstkd_client._base import (
    CHANNEL_ARGUMENTS,
    DEFAULT_MODEL,
    DEFAULT_TIMEOUT,
    DEFAULT_URL,
    BaseClient,
    EmbedPlan,
    classify,
)
from mstkd_client._errors import ModelNotReady, MstkdClientError
from mstkd_client._images import read_faces, read_pair
from mstkd_client._model import ServedModel, parse_model
from mstkd_client._types import Embeddings, Faces, Health, ModelInfo, OneFace, Verification

_CLOSED: Final = "this client is closed. Make a new FaceClient."


class FaceClient(BaseClient):
    """Embeds aligned faces on a Triton server. Threads may share one client.

    The constructor contacts nobody; the first call reads what the model is, once.

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
        super().__init__(url, model_name=model_name, model_version=model_version, timeout=timeout)
        self._triton: Any = InferenceServerClient(url, channel_args=list(CHANNEL_ARGUMENTS))
        self._closed = False
        self._served: ServedModel | None = None
        self._reading = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. May be called again; other calls then raise MstkdClientError."""
        self._closed = True
        self._triton.close()

    def info(self) -> ModelInfo:
        """Tell what the server says about the model.

        Raises:
            ContractMismatch: The model is not one that MSTKD Serve built.
            MstkdClientError: Its other subclasses, for what goes wrong on the way.
        """
        return self._model().info

    def health(self) -> Health:
        """Ask a server whether it and the model are ready.

        Raises:
            ServerUnavailable: No server answers.
            MstkdClientError: Its other subclasses, for what else goes wrong on the way.
        """
        return Health(
            server_live=bool(self._call(self._triton.is_server_live)),
            server_ready=bool(self._call(self._triton.is_server_ready)),
            model_ready=bool(
                self._call(self._triton.is_model_ready, self.model_name, self.model_version)
            ),
        )

    def embed(self, faces: Faces) -> Embeddings:
        """Embed aligned faces, in requests no larger than the server takes.

        Args:
            faces: One aligned face or many: a uint8 RGB array `(112, 112, 3)` or
                `(N, 112, 112, 3)`, values 0 to 255; the path of a JPEG, PNG, WEBP or BMP file;
                such a file's bytes; a PIL image; or an iterable of any mix of these, which is
                read chunk by chunk.

        Returns:
            float32 vectors `(N, dim)` of unit length, in the order of the faces; N is 1 for a
            single face.

        Raises:
            InvalidFace: An input is not an aligned RGB face, or there is none.
            ContractMismatch: The model is not one that MSTKD Serve built, or it was replaced
                between two requests.
            MstkdClientError: Its other subclasses, for what goes wrong on the way.
        """
        return self._embed(read_faces(faces))

    def verify(self, first: OneFace, second: OneFace) -> Verification:
        """Compare two faces, embedded in one request where the server takes two.

        Args:
            first: One aligned face, as `embed` takes it.
            second: One aligned face, as `embed` takes it.

        Returns:
            The cosine similarity, -1 to 1, what it was measured with, and the decision where the
            model is calibrated.

        Raises:
            InvalidFace: An input is not exactly one aligned RGB face.
            MstkdClientError: Its other subclasses, as `embed` raises them.
        """
        both = self._embed(read_pair(first, second))
        return self._verification(both, self._model().info.calibration)

    def _embed(self, faces: Iterator[NDArray[np.uint8]]) -> Embeddings:
        plan = EmbedPlan(faces, self._model())
        for request in plan.requests():
            answer = self._call(
                self._triton.infer,
                self.model_name,
                request.inputs,
                model_version=self.model_version,
                outputs=request.outputs,
            )
            plan.take(request, answer)
        return plan.embeddings(self._model(anew=plan.version_is_new).info)

    def _model(self, *, anew: bool = False) -> ServedModel:
        """Return the model's description: read once, and again only if asked to."""
        with self._reading:
            if self._served is None or anew:
                name, version = self.model_name, self.model_version
                metadata = self._call(self._triton.get_model_metadata, name, version)
                config = self._call(self._triton.get_model_config, name, version)
                server = self._call(self._triton.get_server_metadata)
                self._served = parse_model(metadata, config.config, str(server.version))
            return self._served

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Send one request within the timeout; its failure leaves as one of the client's errors."""
        if self._closed:
            raise MstkdClientError(_CLOSED)
        try:
            answer = method(*arguments, client_timeout=self.timeout, **options)
        except (InferenceServerException, ValueError) as failure:
            if self._closed:  # by another thread; gRPC then cancels, or raises a ValueError
                raise MstkdClientError(_CLOSED) from failure
            if isinstance(failure, ValueError):
                raise
            message = failure.message() or ""
            kind = classify(failure.status(), message)
            models = self._known_models() if kind is ModelNotReady else None
            raise self._error(kind, message, models) from failure
        self._answered = True
        return answer

    def _known_models(self) -> dict[str, str] | None:
        """Ask for the server's models; None where it does not tell."""
        try:
            index = self._triton.get_model_repository_index(client_timeout=self.timeout)
        except InferenceServerException:
            return None
        return self._models(index)
