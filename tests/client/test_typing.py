"""Strict mypy accepts a user's code over the installed package, and sees its mistakes."""

import subprocess
import sys

import pytest

RIGHT = """
import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstkd_client import (
    AsyncFaceClient,
    CallRecord,
    ContractMismatch,
    Embeddings,
    FaceClient,
    LocalFaceClient,
    MstkdClientError,
    Overloaded,
    Retry,
    Settings,
    Verification,
    similarity,
)
from mstkd_client.align import AlignedFace, Detection, YuNetDetector, align, detect_and_align
from mstkd_client.bulk import embed_files


class Fixed:
    def detect(self, photo_rgb: NDArray[np.uint8]) -> list[Detection]:
        return [Detection(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 0.9)]


def count(record: CallRecord) -> None:
    faces: int = record.faces
    error: str | None = record.error
    print(faces, error, record.timing.total)


def camera() -> Iterator[NDArray[np.uint8]]:
    yield np.zeros((112, 112, 3), np.uint8)


def blocking(client: FaceClient | LocalFaceClient) -> float:
    embeddings: Embeddings = client.embed([Path("a.png"), b"jpeg"], timeout=1.0)
    vectors: NDArray[np.float32] = embeddings.vectors
    for batch in client.embed_stream(camera(), batch_size=1, color="bgr"):
        print(batch.contract_id, len(batch), vectors.shape)
    answer: Verification = client.verify("a.png", "b.png")
    if answer.accepted is not None:
        same: bool = answer.accepted
        print(same)
    print(client.verify_many([("a.png", "b.png")]).scores.mean(), client.info().embedding_dim)
    return answer.score


async def waiting() -> None:
    async with AsyncFaceClient("localhost:8001", mode="ensemble", token="t") as client:
        async for batch in client.embed_stream(camera()):
            print(batch.model_version)
        print((await client.health()).model_ready, (await client.embed("a.png")).timing)


def main() -> None:
    settings: Settings | None = None
    try:
        with FaceClient("h:1", retry=Retry(attempts=2), on_call=count, tls=True) as client:
            print(blocking(client))
        with LocalFaceClient("student.onnx") as local:
            print(blocking(local), similarity(local.embed("a.png"), local.embed("b.png")))
    except Overloaded:
        raise
    except (ContractMismatch, MstkdClientError) as error:
        print(error, settings)
    faces: list[AlignedFace] = detect_and_align("photo.jpg", YuNetDetector("yunet.onnx"))
    faces += detect_and_align("photo.jpg", Fixed(), max_faces=1, order="score")
    crop: NDArray[np.uint8] = align("photo.jpg", [[1, 2], [3, 4], [5, 6], [7, 8], [9, 1]])
    print(faces[0].face.shape, crop.shape)
    print(embed_files("faces", "faces.parquet", connect={"url": "h:1"}).rows)
    asyncio.run(waiting())
"""
WRONG = """
from mstkd_client import FaceClient

with FaceClient("localhost:8001", mode="teacher", colour="bgr") as client:
    text: str = client.embed("a.png").vectors
    client.verify("a.png")
    client.embed_all([])
"""


@pytest.fixture
def mypy(tmp_path):
    """Check a user's file, away from this project's configuration."""

    def check(source):
        (tmp_path / "user.py").write_text(source)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return check


def test_right_code_is_accepted(mypy):
    status, said = mypy(RIGHT)
    assert status == 0, said


def test_mistakes_are_seen(mypy):
    status, said = mypy(WRONG)
    assert status == 1
    for kind in ("arg-type", "assignment", "call-arg", "attr-defined"):
        assert f"[{kind}]" in said
