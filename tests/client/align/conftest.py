"""Real faces, and the detector that finds them."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mstkd_client.align import (
    YuNetDetector,
)


@pytest.fixture(scope="session")
def psnr():
    """The function that compares two images, in dB."""

    def psnr(first, second):
        error = np.mean((first.astype(float) - second.astype(float)) ** 2)
        return float("inf") if error == 0 else 10 * np.log10(255**2 / error)

    return psnr


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="session")
def london(shared):
    """Name, photo path, landmarks `(5, 2)` and published crop of the 204 photos."""
    folder = shared / "data" / "faces_london"
    with (folder / "faces.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    faces = [
        SimpleNamespace(
            name=row[0],
            photo=folder / "photos" / f"{row[0]}.jpg",
            landmarks=np.array(row[6:16], float).reshape(5, 2),
            crop=pixels_of(folder / "aligned" / f"{row[0]}.png"),
        )
        for row in rows
    ]
    assert len(faces) == 204
    return faces


@pytest.fixture(scope="session")
def yunet_path(shared):
    return shared / "weights" / "yunet_n_640_640.onnx"


@pytest.fixture(scope="session")
def yunet(yunet_path):
    return YuNetDetector(yunet_path)


@pytest.fixture(scope="session")
def group(london):
    """A photo of three faces, of 448, 224 and 112 pixels from left to right, and their names."""
    photo = np.full((448, 900, 3), 128, np.uint8)
    for face, side, left in zip(london[:3], (448, 224, 112), (0, 460, 720), strict=True):
        image = Image.open(face.photo).resize((side, side), Image.Resampling.LANCZOS)
        photo[100 : 100 + side, left : left + side] = np.asarray(image)[: 448 - 100]
    return photo
