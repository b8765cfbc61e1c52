"""Embed one part after another; the same for every engine."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import ContractMismatch
from mstkd_client._sync import FaceClient
from mstkd_client._types import Embeddings, ModelInfo
from mstkd_client.bulk._errors import JobMismatch
from mstkd_client.bulk.job import Job, Model
from mstkd_client.bulk.parts import PartRows, PartSummary, write_part
from mstkd_client.bulk.reading import Detector, Face, Reader, ahead

FACES_OF_A_CALL: Final = 512
"""Faces that are handed to the client at once; it makes requests of them."""
FILES_AHEAD: Final = 512
"""Files that are decoded, or wait for it, ahead of the embedding: 18 MiB of aligned faces."""


class Client(Protocol):
    """The part of `FaceClient` that a job uses."""

    def info(self) -> ModelInfo:
        """Tell what the server says about the model."""

    def embed(self, faces: Any) -> Embeddings:
        """Embed aligned faces, uint8 `(112, 112, 3)` each."""

    def close(self) -> None:
        """Close the connection."""


Connect: TypeAlias = Mapping[str, Any] | Callable[[], Client]
"""Keyword arguments of `FaceClient`, or a function (picklable for `ray`) that makes a client."""


def connect_client(connect: Connect) -> Client:
    """Make the client that a job or one of its workers uses."""
    return FaceClient(**connect) if isinstance(connect, Mapping) else connect()


def identify_model(client: Client) -> Model:
    """Find out which model answers, by embedding a face of no one.

    Raises:
        ContractMismatch: The model is replaced right now.
        MstkdClientError: Its other subclasses, for what goes wrong on the way.
    """
    info = client.info()
    ramp = np.arange(112 * 112 * 3, dtype=np.uint32).reshape(112, 112, 3) % 251
    answer = client.embed([ramp.astype(np.uint8)])
    if answer.contract_id != info.contract_id:
        raise ContractMismatch(
            f"the server is replacing model {info.model_name!r} right now. Start again later."
        )
    return Model(
        contract_id=answer.contract_id,
        model_name=answer.model_name,
        model_version=answer.model_version,
        embedding_dim=answer.vectors.shape[1],
        contract=dict(info.contract),
    )


class Worker:
    """Embeds parts of a job and writes each of them whole.

    Args:
        job: The job, as every process reads it from the work folder.
        connect: How to reach the server.
        detector: The job's detector, or None.
        threads: Threads that read files.
    """

    def __init__(self, job: Job, connect: Connect, detector: Detector | None, threads: int) -> None:
        self._job = job
        self._reader = Reader(Path(job.base), detector)
        self._client = connect_client(connect)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mstkd-bulk")

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
        """Drop what is not yet read and close the connection."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def run(
        self, parts: Iterable[int], file_done: Callable[[], None] = lambda: None
    ) -> Iterator[PartSummary]:
        """Embed parts; each is on disk when its summary is yielded.

        Args:
            parts: Their numbers.
            file_done: Called after each file.

        Raises:
            JobMismatch: Another model answers than the one the job was begun with.
            OutputError: A part cannot be written.
            MstkdClientError: Its other subclasses, for a server that fails.
        """
        items = ((part, path) for part in parts for path in self._job.paths(part))
        outcomes = ahead(self._pool, lambda item: self._reader(item[1]), items, FILES_AHEAD)
        for part, files in groupby(outcomes, key=lambda outcome: outcome[0][0]):
            rows = self._embed(((path, found) for (_, path), found in files), file_done)
            if rows.unreadable:
                self._reader.check_source()
            yield write_part(self._job, part, rows)

    def _embed(
        self, files: Iterable[tuple[str, list[Face] | str]], file_done: Callable[[], None]
    ) -> PartRows:
        rows = PartRows()
        waiting: list[NDArray[np.uint8]] = []
        for path, found in files:
            if isinstance(found, str):
                rows.unreadable.append((path, found))
            else:
                for index, face in enumerate(found):
                    rows.paths.append(path)
                    rows.faces.append(index)
                    waiting.append(face.pixels)
                    if face.score is not None and face.bbox is not None:
                        rows.scores.append(face.score)
                        rows.boxes.append(face.bbox)
            while len(waiting) >= FACES_OF_A_CALL:
                rows.vectors.append(self._vectors(waiting[:FACES_OF_A_CALL]))
                del waiting[:FACES_OF_A_CALL]
            file_done()
        if waiting:
            rows.vectors.append(self._vectors(waiting))
        return rows

    def _vectors(self, faces: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        answer = self._client.embed(faces)
        model = self._job.model
        expected = (model.contract_id, model.model_name, model.model_version)
        found = (answer.contract_id, answer.model_name, answer.model_version)
        if found != expected:
            raise JobMismatch(
                f"the server now answers with model {found[1]!r} version {found[2]} (contract "
                f"{found[0]}); the job was begun with {expected[1]!r} version {expected[2]} "
                f"(contract {expected[0]}). Serve that one again and start the same command, or "
                "give --restart to begin anew."
            )
        return answer.vectors
