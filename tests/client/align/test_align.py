"""Alignment equals what recognisers were trained on; other landmarks are refused."""

import itertools
import warnings

import numpy as np
import pytest
from PIL import Image

from mstkd_client import (
    InvalidFace,
)
from mstkd_client.align import (
    ARCFACE_112,
    LANDMARK_ORDER,
    align,
)

TEMPLATE = np.array(ARCFACE_112)
NOISE = np.random.default_rng(5).integers(0, 256, (150, 200, 3), dtype=np.uint8)
POINTS = TEMPLATE + 20
SWAPS = {
    "eyes": [1, 0, 2, 3, 4],
    "mouth": [0, 1, 2, 4, 3],
    "left and right": [1, 0, 2, 4, 3],
    "nose": [0, 1, 3, 4, 2],
}


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


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
def test_the_crop_that_a_peer_published_is_reproduced(shared, psnr):
    folder = shared / "data" / "alignment"
    numbers = np.array((folder / "test1_landmark_res0.txt").read_text().split(), float)
    face = align(folder / "test1.jpg", numbers.reshape(106, 2)[[104, 105, 54, 84, 90]])
    assert psnr(face, pixels_of(folder / "test1_cropped.jpg")) > 35


@pytest.mark.shared_data
def test_all_london_crops_are_reproduced(london, psnr):
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
