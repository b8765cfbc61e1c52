"""Alignment equals what recognisers were trained on; whatever cannot be aligned is refused."""

import csv
import io
import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mstkd_client import InvalidFace, MstkdClientError
from mstkd_client import align as align_module
from mstkd_client._errors import InvalidSettings, MissingExtra
from mstkd_client.align import (
    ARCFACE_112,
    LANDMARK_ORDER,
    AlignedFace,
    Detection,
    InsightFaceDetector,
    InvalidDetector,
    YuNetDetector,
    align,
    detect_and_align,
    read_photo,
)

CLIENT = Path(__file__).parents[2] / "clients" / "python"
TEMPLATE = np.array(ARCFACE_112)
NOISE = np.random.default_rng(5).integers(0, 256, (150, 200, 3), dtype=np.uint8)
POINTS = TEMPLATE + 20
SWAPS = {
    "eyes": [1, 0, 2, 3, 4],
    "mouth": [0, 1, 2, 4, 3],
    "left and right": [1, 0, 2, 4, 3],
    "nose": [0, 1, 3, 4, 2],
}


def psnr(first, second):
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, *, bits=8, colour=2):
    """A hand-made PNG without pixels, so that decoding it would fail."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )


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


# align


def test_the_template_is_insightfaces():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from insightface.utils.face_align import arcface_dst
    np.testing.assert_array_equal(TEMPLATE.astype(np.float32), arcface_dst)
    assert LANDMARK_ORDER == ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")


def test_a_face_on_the_template_is_only_moved():
    np.testing.assert_array_equal(align(NOISE, POINTS), NOISE[20:132, 20:132])


def test_beyond_the_photo_is_black():
    face = align(NOISE, TEMPLATE - 30)
    np.testing.assert_array_equal(face[30:, 30:], NOISE[:82, :82])
    assert not face[:30].any()
    assert not face[:, :30].any()


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_norm_crop_of_insightface(seed):
    rng = np.random.default_rng(seed)
    angle, scale = rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 3)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (TEMPLATE - 60) @ turn.T + (100, 75) + rng.normal(0, 3 * scale, (5, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from insightface.utils.face_align import norm_crop

        expected = norm_crop(NOISE, landmarks)
    difference = np.abs(align(NOISE, landmarks).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_several_faces_of_one_photo_are_aligned_at_once():
    both = align(NOISE, [POINTS, POINTS + 7])
    assert both.shape == (2, 112, 112, 3)
    np.testing.assert_array_equal(both[1], align(NOISE, POINTS + 7))
    assert align(NOISE, np.zeros((0, 5, 2))).shape == (0, 112, 112, 3)


@pytest.mark.shared_data
def test_the_crop_that_a_peer_published_is_reproduced(shared):
    folder = shared / "data" / "alignment"
    numbers = np.array((folder / "test1_landmark_res0.txt").read_text().split(), float)
    face = align(folder / "test1.jpg", numbers.reshape(106, 2)[[104, 105, 54, 84, 90]])
    assert psnr(face, pixels_of(folder / "test1_cropped.jpg")) > 35


@pytest.mark.shared_data
def test_all_london_crops_are_reproduced(london):
    worst = min(psnr(align(face.photo, face.landmarks), face.crop) for face in london)
    assert worst > 40


@pytest.mark.shared_data
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_a_wrong_order_of_real_landmarks_is_refused(london, swap):
    for face in london:
        with pytest.raises(InvalidFace, match="right_eye, left_eye, nose"):
            align(NOISE, face.landmarks[swap] / 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_no_turn_of_the_head_is_taken_for_a_wrong_order():
    from insightface.utils.face_align import norm_crop

    head = np.array([[-31, -32, -8], [31, -32, -8], [0, 0, 24], [-25, 30, 0], [25, 30, 0]], float)
    rng = np.random.default_rng(0)
    for yaw, pitch, roll in itertools.product(range(-90, 91, 15), (-30, 0, 30), range(0, 360, 45)):
        y, x, z = np.radians([yaw, pitch, roll])
        turns = (
            np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]),
            np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]),
            np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]),
        )
        seen = (head * rng.uniform(0.85, 1.15, (5, 3))) @ (turns[0] @ turns[1] @ turns[2]).T
        landmarks = seen[:, :2] + (100, 75)
        difference = np.abs(align(NOISE, landmarks).astype(int) - norm_crop(NOISE, landmarks))
        assert difference.max() <= 1


@pytest.mark.parametrize(
    ("landmarks", "reason"),
    [
        (POINTS[SWAPS["eyes"]], "eyes are exchanged.*right_eye, left_eye, nose"),
        (POINTS[SWAPS["mouth"]], "mouth corners are exchanged"),
        (POINTS[SWAPS["left and right"]], "left and right, or x and y, are exchanged"),
        (POINTS[SWAPS["nose"]], "nose comes last"),
        (POINTS[:, ::-1], "x and y"),
        (POINTS * (-1, 1) + (190, 0), "exchanged"),
        (POINTS + np.nan, "not all finite"),
        (POINTS + np.inf, "not all finite"),
        (POINTS + 500, "outside the photo, 200x150"),
        (POINTS - 500, "outside the photo"),
        (np.full((5, 2), 50), "coincide"),
        (POINTS / 200, "coincide.*not in fractions"),
        (np.arange(10).reshape(5, 2) * 10, "on one line"),
        (POINTS[:4], r"\(4, 2\)"),
        (POINTS.T, r"\(2, 5\)"),
        (POINTS.reshape(-1), r"\(10,\)"),
        (POINTS[None, None], r"\(1, 1, 5, 2\)"),
        (POINTS.astype(str), "<U"),
        (POINTS.astype(complex), "complex"),
        ([[1, 2], [3]], "no array"),
        (None, "object"),
        (np.stack([POINTS, POINTS + np.nan]), "landmarks of face 1 are not all finite"),
    ],
)
def test_landmarks_that_are_not_a_faces_are_refused(landmarks, reason):
    with pytest.raises(InvalidFace, match=reason):
        align(NOISE, landmarks)


# read_photo


def test_every_kind_of_photo_gives_the_same_pixels(tmp_path):
    image = Image.fromarray(NOISE)
    path = tmp_path / "photo.png"
    image.save(path)
    data = path.read_bytes()
    for photo in (NOISE, path, str(path), data, bytearray(data), memoryview(data), image):
        np.testing.assert_array_equal(read_photo(photo), NOISE)
    assert read_photo(NOISE[:, ::-1]).flags.c_contiguous
    np.testing.assert_array_equal(read_photo(encoded(image.convert("RGBA"))), NOISE)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_landmarks_refer_to_the_upright_photo(orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.rot90(NOISE, -turns)), exif=exif)
    for photo in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(read_photo(photo), NOISE)
        np.testing.assert_array_equal(align(photo, POINTS), align(NOISE, POINTS))


def test_a_phones_jpeg_of_two_pictures_gives_the_main_one():
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[::2, ::2])
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_photo(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        (Image.fromarray(NOISE).convert("L"), "colour mode L"),
        (encoded(Image.fromarray(NOISE).convert("L"), "JPEG"), "colour mode L"),
        (encoded(Image.fromarray(NOISE).convert("P")), "colour mode P"),
        (encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG"), "colour mode CMYK"),
        (encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16))), "16 bits a channel"),
        (png(200, 200, bits=16), "16 bits a channel"),
        (Image.fromarray(NOISE).convert("LA"), "colour mode LA"),
        (Image.fromarray(np.dstack([NOISE, NOISE[..., 0]])), "transparent"),
        (encoded(Image.fromarray(NOISE), transparency=(1, 2, 3)), "transparent"),
        (
            encoded(
                Image.fromarray(NOISE),
                "WEBP",
                save_all=True,
                append_images=[Image.fromarray(255 - NOISE)],
            ),
            "several frames",
        ),
        (encoded(Image.fromarray(NOISE), "GIF"), "JPEG, PNG, WEBP, BMP"),
        (encoded(Image.fromarray(NOISE))[:5000], "undamaged"),
        (b"", "cannot be read"),
        (b"no image", "cannot be read"),
        ("missing.jpg", "missing.jpg does not exist"),
        (Path("/"), "is a folder"),
        (NOISE[..., 0], r"uint8 \(150, 200\)"),
        (NOISE.astype(np.float32), "float32"),
        (NOISE.transpose(2, 0, 1), r"\(3, 150, 200\)"),
        (NOISE[None], r"\(1, 150, 200, 3\)"),
        (NOISE[:0], r"\(0, 200, 3\)"),
        (None, "NoneType"),
        (png(8001, 8001), "above 64000000 pixels"),
        (png(10, 40000), "32766 on a side"),
        (np.zeros((1, 40000, 3), np.uint8), "32766 on a side"),
        (png(30000, 30000), "exceeds limit"),
        (bytes(64 * 2**20 + 1), "holds above 67108864 bytes"),
    ],
)
def test_photos_that_cannot_be_used_are_refused(photo, reason):
    with pytest.raises(InvalidFace, match=reason):
        read_photo(photo)


def test_what_cannot_become_an_array_is_refused():
    class OnTheGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("copy it to the host first")

    with pytest.raises(InvalidFace, match="copy it to the host first"):
        read_photo(OnTheGpu())
    with pytest.raises(InvalidFace, match="no array"):
        align(NOISE, OnTheGpu())


@pytest.mark.parametrize("as_file", [True, False])
def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch, tmp_path, as_file):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    bomb = png(8001, 8001)
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(InvalidFace, match="8001x8001"):
        read_photo(tmp_path / "bomb.png" if as_file else bomb)


def test_a_large_file_is_refused_before_it_is_opened(monkeypatch, tmp_path):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(InvalidFace, match=r"large\.jpg holds above 67108864 bytes"):
        read_photo(tmp_path / "large.jpg")


# detect_and_align


@pytest.mark.shared_data
def test_every_london_photo_has_exactly_one_face_close_to_its_crop(london, yunet):
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


# detectors


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "damaged or no YuNet"),
        (b"junk" * 100, "damaged or no YuNet"),
    ],
)
@pytest.mark.parametrize("name", ["detector.onnx", "detector.bin"])
def test_a_bad_detector_file_is_refused(tmp_path, content, reason, name):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for make in (YuNetDetector, lambda path: detect_and_align(NOISE, path)):
        with pytest.raises(InvalidDetector, match=rf"{re.escape(str(path))}.*{reason}.*Give a"):
            make(path)
    with pytest.raises(InvalidDetector, match="is a folder"):
        YuNetDetector(tmp_path)


@pytest.mark.shared_data
def test_a_cut_detector_and_another_network_are_refused(shared, yunet_path, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(yunet_path.read_bytes()[:100_000])
    for path in (cut, shared / "weights" / "mobilefacenet_128d.onnx"):
        with pytest.raises(InvalidDetector, match="damaged or no YuNet"):
            YuNetDetector(path)


@pytest.mark.parametrize("options", [{"min_score": 2}, {"max_side": 8}, {"max_side": 10**6}])
def test_settings_of_a_detector_are_checked(options):
    with pytest.raises(InvalidSettings, match=next(iter(options))):
        YuNetDetector("any.onnx", **options)


@pytest.mark.parametrize("detector", [None, 3, object(), NOISE])
def test_what_detects_nothing_is_refused(detector):
    with pytest.raises(InvalidDetector, match="without a method detect"):
        detect_and_align(NOISE, detector)


def test_errors_are_value_errors_of_the_client():
    assert issubclass(InvalidDetector, ValueError)
    assert issubclass(InvalidDetector, MstkdClientError)


def test_an_insightface_app_is_asked_in_bgr():
    seen = []

    class App:
        def get(self, image):
            seen.append(image)
            found = detection(0.75)
            kps = found.landmarks.astype(np.float64)
            return [SimpleNamespace(bbox=found.bbox, kps=kps, det_score=np.float32(0.75))]

    (face,) = detect_and_align(NOISE, InsightFaceDetector(App()))
    np.testing.assert_array_equal(seen[0], NOISE[..., ::-1])
    assert seen[0].flags.c_contiguous
    np.testing.assert_array_equal(face.face, NOISE[20:132, 20:132])
    assert face.score == 0.75
    assert face.landmarks.dtype == np.float32


def test_an_insightface_app_without_landmarks_is_refused():
    face = SimpleNamespace(bbox=np.zeros(4), kps=None, det_score=1.0)
    app = SimpleNamespace(get=lambda image: [face])
    with pytest.raises(InvalidDetector, match="buffalo_l"):
        InsightFaceDetector(app).detect(NOISE)


@pytest.mark.parametrize("app", ["buffalo_l", None, {}])
def test_what_is_no_insightface_app_is_refused(app):
    with pytest.raises(InvalidDetector, match="from_pack"):
        InsightFaceDetector(app)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("touched the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_pack_that_is_not_there_is_not_downloaded(no_network, tmp_path):
    expected = tmp_path / "models" / "buffalo_l"
    with pytest.raises(InvalidDetector, match=re.escape(str(expected))):
        InsightFaceDetector.from_pack("buffalo_l", root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    expected.mkdir(parents=True)
    for folder in ("buffalo_l", expected):
        with pytest.raises(InvalidDetector, match="downloads none"):
            InsightFaceDetector.from_pack(folder, root=tmp_path)
    assert list(expected.iterdir()) == []


def write_scrfd(path, face):
    """An ONNX file with the outputs of InsightFace's SCRFD that finds one face everywhere."""
    outputs, nodes, constants = [], [], []
    sizes = [(640 // stride) ** 2 * 2 for stride in (8, 16, 32)]
    for width, kind in ((1, "score"), (4, "bbox"), (10, "kps")):
        for size, stride in zip(sizes, (8, 16, 32), strict=True):
            values = np.zeros((size, width), np.float32)
            if stride == 32:
                centre = np.array([64, 64])
                row = (64 // 32 * 20 + 64 // 32) * 2
                corners = np.concatenate([centre - face.bbox[:2], face.bbox[2:] - centre])
                points = (face.landmarks - centre).reshape(-1)
                values[row] = {"score": face.score, "bbox": corners / 32, "kps": points / 32}[kind]
            name = f"{kind}_{stride}"
            constants.append(numpy_helper.from_array(values, f"{name}_values"))
            nodes.append(helper.make_node("Identity", [f"{name}_values"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, width]))
    image = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, "scrfd", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_pack_on_this_machine_is_used(no_network, tmp_path):
    photo = np.resize(NOISE, (640, 640, 3))
    expected = detection(0.875)
    write_scrfd(tmp_path / "models" / "mine" / "det.onnx", expected)
    for folder, root in (("mine", tmp_path), (tmp_path / "models" / "mine", "/nowhere")):
        detector = InsightFaceDetector.from_pack(folder, root=root)
        (face,) = detect_and_align(photo, detector)
        assert face.score == pytest.approx(0.875)
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1e-3)
        np.testing.assert_allclose(face.bbox, expected.bbox, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_damaged_pack_is_refused(no_network, tmp_path, recogniser):
    (tmp_path / "det.onnx").write_bytes(b"junk")
    with pytest.raises(InvalidDetector, match=re.escape(str(tmp_path))):
        InsightFaceDetector.from_pack(tmp_path)
    recogniser(tmp_path / "det.onnx")
    with pytest.raises(InvalidDetector, match="no face detector"):
        InsightFaceDetector.from_pack(tmp_path)


# imports


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("cv2", lambda path: align(NOISE, POINTS)),
        ("cv2", lambda path: YuNetDetector(path / "any.onnx")),
        ("insightface.app", lambda path: InsightFaceDetector.from_pack(path)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, module, call):
    (tmp_path / "any.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module}.*pip install 'mstkd-client\[align\]'"):
        call(tmp_path)


def test_the_import_brings_nothing_heavy():
    script = (
        "import sys, mstkd_client.align as a; "
        "print([m for m in ('cv2', 'insightface', 'onnxruntime', 'skimage', 'torch') "
        "if m in sys.modules], a.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(CLIENT)},
    )
    assert done.stdout.startswith("[] ")
    assert str(Path(align_module.__file__).resolve()) in done.stdout
