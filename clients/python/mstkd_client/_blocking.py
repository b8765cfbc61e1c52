"""The methods of the blocking clients, over whatever answers their requests."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mstkd_client._answers import check_same_contract, check_same_version, joined, one_batch
from mstkd_client._flight import Ticket
from mstkd_client._images import read_faces, read_pair, read_pairs
from mstkd_client._observe import Call
from mstkd_client._scores import PairScores
from mstkd_client._similarity import similarity
from mstkd_client._types import Embeddings, Faces, Health, ModelInfo, OneFace
from mstkd_client._verification import Verification, Verifications
from mstkd_client._wire import Answer


class BlockingFaceClient(ABC):
    """Embeds and compares aligned faces; made by `FaceClient` and `LocalFaceClient`."""

    similarity = staticmethod(similarity)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Free what the client holds. May be called again; other calls raise ClientClosed."""

    @abstractmethod
    def info(self) -> ModelInfo:
        """Tell what is known of the model.

        Raises:
            ContractMismatch: The model is not one that MSTKD Serve built.
            MstkdClientError: Its other subclasses, for what goes wrong on the way.
        """

    @abstractmethod
    def health(self) -> Health:
        """Tell whether the server and the model are ready.

        Raises:
            ServerUnavailable: No server answers.
            MstkdClientError: Its other subclasses, for what else goes wrong on the way.
        """

    @abstractmethod
    def _observed(self, method: str) -> AbstractContextManager[Call]:
        """Measure one call."""

    @abstractmethod
    def _answers(
        self,
        blocks: Iterator[NDArray[np.uint8]],
        call: Call,
        timeout: float | None,
        batch_size: int | None = None,
    ) -> Generator[tuple[Ticket, Answer], None, None]:
        """Answer blocks of faces `(k, 112, 112, 3)` in order, in requests of fitting size."""

    @abstractmethod
    def _info_of(self, version: str) -> ModelInfo:
        """Return the model's info, read anew where it does not know `version`."""

    def embed(
        self, faces: Faces, *, color: str = "rgb", timeout: float | None = None
    ) -> Embeddings:
        """Embed aligned faces, in requests no larger than the server takes.

        Args:
            faces: One aligned face or many: a uint8 RGB array `(112, 112, 3)` or
                `(N, 112, 112, 3)`, values 0 to 255; the path of a JPEG, PNG, WEBP or BMP file;
                such a file's bytes; a PIL image; or an iterable of any mix of these, which is
                read chunk by chunk.
            color: `bgr` where arrays hold their channels in OpenCV's order.
            timeout: Seconds that one request may take; the client's own by default.

        Returns:
            float32 vectors `(N, dim)` of unit length, in the order of the faces; N is 1 for a
            single face.

        Raises:
            InvalidFace: An input is not an aligned RGB face, or there is none.
            ContractMismatch: The model is not one that MSTKD Serve built, or it was replaced
                between two requests.
            MstkdClientError: Its other subclasses, for what goes wrong on the way.
        """
        with self._observed("embed") as call:
            answers = [
                answer for _, answer in self._answers(read_faces(faces, color), call, timeout)
            ]
            info = self._info_of(check_same_version(answers, call.model_name))
            return joined(answers, info, call)

    def embed_stream(
        self,
        faces: Faces,
        *,
        color: str = "rgb",
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Embeddings]:
        """Embed faces as they come; memory does not grow with their number.

        Args:
            faces: As `embed` takes them; typically a generator.
            color: As `embed` takes it.
            batch_size: Faces of one request, where that is less than the server takes. A source
                in real time, such as a camera, wants 1 and a client with `in_flight=1`: more is
                read ahead otherwise.
            timeout: Seconds that one request may take; the client's own by default.

        Yields:
            Embeddings `(n, dim)` of one request each, in the order of the faces. Stop early by
            closing the iterator: what is in flight is cancelled.

        Raises:
            InvalidFace: An input is not an aligned RGB face, or there is none; everything before
                it in earlier requests was yielded.
            ContractMismatch: The model was replaced by an incomparable one.
            MstkdClientError: Its other subclasses, for what goes wrong on the way.
        """
        first: ModelInfo | None = None
        with self._observed("embed_stream") as call:
            blocks = read_faces(faces, color)
            with closing(self._answers(blocks, call, timeout, batch_size)) as answers:
                for ticket, answer in answers:
                    info = self._info_of(answer.model_version)
                    check_same_contract(first or info, info)
                    first = first or info
                    yield one_batch(ticket, answer, info)

    def verify(
        self, first: OneFace, second: OneFace, *, color: str = "rgb", timeout: float | None = None
    ) -> Verification:
        """Compare two faces, embedded in one request where the server takes two.

        Args:
            first: One aligned face, as `embed` takes it.
            second: One aligned face, as `embed` takes it.
            color: As `embed` takes it.
            timeout: Seconds that one request may take; the client's own by default.

        Returns:
            The cosine similarity, -1 to 1, what it was measured with, and the decision where the
            model is calibrated.

        Raises:
            InvalidFace: An input is not exactly one aligned RGB face.
            MstkdClientError: Its other subclasses, as `embed` raises them.
        """
        with self._observed("verify") as call:
            blocks = iter([read_pair(first, second, color)])
            return self._verified(blocks, call, timeout)[0]

    def verify_many(
        self,
        pairs: Iterable[tuple[OneFace, OneFace]],
        *,
        color: str = "rgb",
        timeout: float | None = None,
    ) -> Verifications:
        """Compare many pairs of faces; only their scores are kept in memory.

        Args:
            pairs: Two aligned faces each, as `embed` takes one.
            color: As `embed` takes it.
            timeout: Seconds that one request may take; the client's own by default.

        Returns:
            N scores and decisions, in the order of the pairs.

        Raises:
            InvalidFace: An input is not a pair of single aligned RGB faces, or there is none.
            MstkdClientError: Its other subclasses, as `embed` raises them.
        """
        with self._observed("verify_many") as call:
            return self._verified(read_pairs(pairs, color), call, timeout)

    def _verified(
        self, blocks: Iterator[NDArray[np.uint8]], call: Call, timeout: float | None
    ) -> Verifications:
        scores = PairScores(call.model_name)
        for _, answer in self._answers(blocks, call, timeout):
            scores.take(answer)
        return scores.verifications(self._info_of(scores.version), call.timing())
