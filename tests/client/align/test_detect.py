"""Faces are found, sorted and sifted."""

import io
import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mstkd_client import (
    InvalidDetector,
    InvalidFace,
    InvalidSettings,
)
from mstkd_client.align import (
    ARCFACE_112,
    AlignedFace,
    Detection,
    YuNetDetector,
    detect_and_align,
    read_photo,
)

TEMPLATE = np.array(ARCFACE_112)
NOISE = np.random.default_rng(5).integers(0, 256, (150, 200, 3), dtype=np.uint8)
SWAPS = {
    "eyes": [1, 0, 2, 3, 4],
    "mouth": [0, 1, 2, 4, 3],
    "left and right": [1, 0, 2, 4, 3],
    "nose": [0, 1, 3, 4, 2],
}


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class Given:
    """A detector that answers what it was given."""

    def __init__(self, *found):
        self.found = found
        self.photo = None

    def detect(self, photo_rgb: NDArray[np.uint8]) -> list[Detection]:
        self.photo = photo_rgb
        return list(self.found)


def detection(score=0.9, left=20, size=112):
    bbox = np.array([left, 20, left + size, 20 + size], np.float32)
    return Detection(bbox, (TEMPLATE * size / 112 + (left, 20)).astype(np.float32), score)


@pytest.mark.shared_data
def test_every_london_photo_has_exactly_one_face_close_to_its_crop(london, yunet, psnr):
    found = {face.name: detect_and_align(face.photo, yunet) for face in london}
    assert {name: len(faces) for name, faces in found.items() if len(faces) != 1} == {}
    quality = [psnr(found[face.name][0].face, face.crop) for face in london]
    assert min(quality) > 16
    assert np.median(quality) > 32
    shifts = [np.abs(found[face.name][0].landmarks - face.landmarks).max() for face in london]
    assert max(shifts) < 7  # of 448 pixels; eyes are 70 pixels apart
    assert np.median(shifts) < 0.8


@pytest.mark.shared_data
@pytest.mark.parametrize("height", [60, 3000])
def test_the_size_of_the_photo_does_not_matter(london, yunet, height):
    for face in london[::40]:
        image = Image.open(face.photo).resize((height, height), Image.Resampling.LANCZOS)
        (found,) = detect_and_align(image, yunet, min_size=0)
        expected = face.landmarks * height / 448
        eyes = np.linalg.norm(expected[0] - expected[1])
        assert np.abs(found.landmarks - expected).max() < 0.25 * eyes
        assert found.bbox[0] < expected[:, 0].min() < expected[:, 0].max() < found.bbox[2]
        assert found.bbox[1] < expected[:, 1].min() < expected[:, 1].max() < found.bbox[3]


@pytest.mark.shared_data
def test_a_rotated_phone_gives_the_same_face(london, yunet_path):
    upright = Image.open(london[0].photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    (expected,) = detect_and_align(upright, yunet_path)
    (found,) = detect_and_align(sideways, str(yunet_path))
    np.testing.assert_array_equal(found.face, expected.face)
    np.testing.assert_array_equal(found.landmarks, expected.landmarks)


@pytest.mark.shared_data
def test_several_faces_are_sorted_and_sifted(group, yunet):
    faces = detect_and_align(group, yunet, min_size=0)
    widths = [face.bbox[2] - face.bbox[0] for face in faces]
    assert len(faces) == 3
    assert widths == sorted(widths, reverse=True)
    lefts = [face.bbox[0] for face in faces]
    assert lefts == sorted(lefts)
    for options, count in (({}, 2), ({"min_size": 100}, 1), ({"min_size": 1000}, 0)):
        assert len(detect_and_align(group, yunet, **options)) == count
    assert len(detect_and_align(group[:, ::-1], yunet, max_faces=2, min_size=0)) == 2
    mirrored = detect_and_align(group[:, ::-1], yunet, order="left_to_right", min_size=0)
    assert [face.bbox[2] - face.bbox[0] for face in mirrored] == pytest.approx(
        widths[::-1], rel=0.1
    )
    by_score = detect_and_align(group, yunet, order="score", min_size=0)
    assert [face.score for face in by_score] == sorted((f.score for f in faces), reverse=True)


@pytest.mark.shared_data
def test_min_score_of_detector_and_call_both_hold(group, london, yunet_path):
    assert len(detect_and_align(london[0].photo, yunet_path, min_size=0, min_score=0.05)) > 1
    scores = [face.score for face in detect_and_align(group, yunet_path, min_size=0)]
    middle = sorted(scores)[1]
    assert len(detect_and_align(group, yunet_path, min_size=0, min_score=middle - 1e-4)) == 2
    strict = YuNetDetector(yunet_path, min_score=middle - 1e-4)
    assert len(strict.detect(group)) == 2
    assert len(detect_and_align(group, strict, min_size=0)) == 2


@pytest.mark.shared_data
@pytest.mark.parametrize("shape", [(448, 448, 3), (1, 1, 3), (1, 3000, 3), (37, 2, 3)])
def test_no_face_is_an_empty_list(yunet, shape):
    assert detect_and_align(np.full(shape, 90, np.uint8), yunet) == []
    assert detect_and_align(np.resize(NOISE, shape), yunet) == []


@pytest.mark.shared_data
def test_threads_share_a_detector(london, group, yunet):
    photos = [read_photo(london[0].photo), group, group[:300, :500]]
    expected = [[face.bbox for face in yunet.detect(photo)] for photo in photos]
    wrong = []

    def run(index):
        for _ in range(20):
            found = [face.bbox for face in yunet.detect(photos[index])]
            if not np.array_equal(found, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=run, args=(index % 3,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_any_object_that_detects_will_do():
    small, sure, large = detection(0.8, 60, 50), detection(0.95, 0, 80), detection(0.7, 10, 112)
    detector = Given(small, sure, large)

    def scores(**options):
        return [face.score for face in detect_and_align(NOISE, detector, **options)]

    assert scores() == [0.7, 0.95, 0.8]
    assert scores(order="score") == [0.95, 0.8, 0.7]
    assert scores(order="left_to_right") == [0.95, 0.7, 0.8]
    assert scores(max_faces=1) == [0.7]
    assert scores(max_faces=5, order="score", min_score=0.8) == [0.95, 0.8]
    assert scores(min_size=80) == [0.7, 0.95]
    assert detector.photo is NOISE
    (face,) = detect_and_align(NOISE, Given(detection()))
    np.testing.assert_array_equal(face.face, NOISE[20:132, 20:132])
    assert face.landmarks.dtype == face.bbox.dtype == np.float32


def test_the_repr_shows_no_pixels():
    (face,) = detect_and_align(NOISE, Given(detection()))
    assert isinstance(face, AlignedFace)
    assert repr(face) == "AlignedFace(score=0.900, bbox=[20.0, 20.0, 132.0, 132.0])"
    assert repr(detection()) == "Detection(score=0.900, bbox=[20.0, 20.0, 132.0, 132.0])"
    with pytest.raises(AttributeError):
        face.score = 1.0


def test_one_impossible_face_costs_only_itself(caplog):
    good, line = detection(), np.linspace((30, 30), (90, 90), 5)
    bad = Detection(good.bbox, line, 0.99)
    (face,) = detect_and_align(NOISE, Given(bad, good), order="score", max_faces=1)
    assert face.score == pytest.approx(0.9)
    (record,) = caplog.records
    assert "score 0.99 coincide or lie on one line" in record.getMessage()


def test_a_detector_with_another_order_of_landmarks_is_refused():
    found = detection()
    wrong = Detection(found.bbox, found.landmarks[SWAPS["eyes"]], 0.9)
    with pytest.raises(InvalidFace, match=r"the detector's landmarks of the face of score 0\.90"):
        detect_and_align(NOISE, Given(wrong))
    with pytest.raises(InvalidDetector, match=r"landmarks of a detection is \(6, 2\)"):
        Detection(found.bbox, np.zeros((6, 2)), 0.9)
    with pytest.raises(InvalidDetector, match="bbox"):
        Detection(np.zeros(5), found.landmarks, 0.9)


@pytest.mark.parametrize(
    "options",
    [
        {"min_score": 1.5},
        {"min_score": float("nan")},
        {"min_size": -1},
        {"min_size": float("inf")},
        {"max_faces": 0},
        {"order": "age"},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidSettings, match=next(iter(options))):
        detect_and_align(NOISE, Given(), **options)
