"""A model in this process for the tests of bulk jobs, and faces that can be told apart."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstkd_client import Embeddings, ModelInfo
from mstkd_client.bulk import embed_files

DIM = 4


class FakeModel:
    """Embeds a face as its first pixels; every client of a test refers to the one model."""

    def __init__(self) -> None:
        self.version = "1"
        self.name = "student"
        self.contract_id = "0123456789abcdef"
        self.alignment = "arcface-112"
        self.faces = 0
        self.before_embed = lambda faces: None

    def connect(self) -> "FakeModel":
        return self

    def close(self) -> None:
        pass

    def info(self) -> ModelInfo:
        contract = {"alignment": self.alignment, "embedding_dim": DIM}
        return ModelInfo(self.name, (self.version,), DIM, 8, self.contract_id, contract, "2.51.0")

    def embed(self, faces) -> Embeddings:
        self.before_embed(faces)
        self.faces += len(faces)
        vectors = np.stack([face.reshape(-1)[:DIM] for face in faces]).astype(np.float32)
        return Embeddings(vectors, self.contract_id, self.name, self.version)


def colour(index: int) -> np.ndarray:
    """An aligned face whose first pixels spell a number."""
    face = np.zeros((112, 112, 3), np.uint8)
    face[0, 0] = (index % 256, index // 256, 7)
    return face


def write_faces(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:04}.png" for index in range(count)]
    for index, name in enumerate(names):
        Image.fromarray(colour(index)).save(folder / name)
    return names


def read_rows(out: Path) -> dict[tuple[str, int], list[float]]:
    """Read an output and refuse double rows."""
    table = pq.read_table(out)
    keys = list(zip(table["path"].to_pylist(), table["face"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys), "double rows"
    return dict(zip(keys, table["embedding"].to_pylist(), strict=True))


def expected_rows(names: list[str]) -> dict[tuple[str, int], list[float]]:
    return {
        (name, 0): [float(value) for value in colour(index).reshape(-1)[:DIM]]
        for index, name in enumerate(names)
    }


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten aligned faces, 0000.png to 0009.png."""
    write_faces(tmp_path / "faces", 10)
    return tmp_path / "faces"


@pytest.fixture
def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "faces.parquet"


@pytest.fixture
def run(model, folder, out):
    """Embed the ten faces in parts of three; keyword arguments change that."""

    def start(source=folder, target=out, **options):
        return embed_files(source, target, **{"connect": model.connect, "part_size": 3, **options})

    return start


@pytest.fixture
def rows():
    return read_rows


@pytest.fixture
def expected():
    return expected_rows


@pytest.fixture
def faces_in():
    return write_faces
