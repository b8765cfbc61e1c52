"""From photos to the aligned faces that a model takes; needs `mstkd-client[align]`.

Alignment is `arcface-112` of the face contract: the similarity transform that fits five landmarks
to a template best (S. Umeyama, "Least-squares estimation of transformation parameters between two
point patterns", IEEE TPAMI 13(4), 1991), then a bilinear warp. It equals `norm_crop` of
InsightFace. Landmarks refer to the upright photo, that is with its EXIF orientation applied.
"""

import logging
import os
from typing import Final, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstkd_client._detect import MIN_SCORE, Order, check_range, extent, load, rank
from mstkd_client._detect import AlignedFace as AlignedFace
from mstkd_client._detect import Detection as Detection
from mstkd_client._detect import Detector as Detector
from mstkd_client._detect import InsightFaceDetector as InsightFaceDetector
from mstkd_client._detect import YuNetDetector as YuNetDetector
from mstkd_client._errors import InvalidDetector, InvalidFace, InvalidSettings
from mstkd_client._photo import MAX_PHOTO_BYTES as MAX_PHOTO_BYTES
from mstkd_client._photo import MAX_PHOTO_PIXELS as MAX_PHOTO_PIXELS
from mstkd_client._photo import MAX_PHOTO_SIDE, read_photo
from mstkd_client._types import OneFace

ALIGNMENT: Final = "arcface-112"
"""Name of template and order of landmarks in the face contract."""
ARCFACE_112: Final = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Landmarks of an aligned face, x y: `arcface_dst` of InsightFace's utils/face_align.py, MIT."""
LANDMARK_ORDER: Final = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")
"""The person's own right and left: in the image, the right eye is the one further left."""
_LOG: Final = logging.getLogger("mstkd_client")
_SIDE: Final = 112
_MIN_SPREAD: Final = 1.0
_MIN_FLATNESS: Final = 0.02
_WRONG_ORDERS: Final = {
    "the eyes are exchanged": (1, 0, 2, 3, 4),
    "the mouth corners are exchanged": (0, 1, 2, 4, 3),
    "left and right, or x and y, are exchanged": (1, 0, 2, 4, 3),
    "the nose comes last": (0, 1, 4, 2, 3),
}
_CLEARLY_BETTER: Final = 0.5
"""A face turned by up to 90 degrees fits in a wrong order with no less than 0.67 of the error."""


def align(photo: OneFace, landmarks: ArrayLike) -> NDArray[np.uint8]:
    """Cut faces out of a photo whose landmarks are known.

    Args:
        photo: Whatever `read_photo` reads.
        landmarks: `(5, 2)` or `(K, 5, 2)`, x y in pixels of the upright photo (EXIF orientation
            applied), in `LANDMARK_ORDER`. They may lie outside the photo, though not all.

    Returns:
        uint8 RGB `(112, 112, 3)` or `(K, 112, 112, 3)`; black beyond the photo's edges.

    Raises:
        InvalidFace: The photo cannot be read, or the landmarks are not those of a face in it.
        MissingExtra: OpenCV is not installed.
    """
    points, pixels = _read_landmarks(landmarks), read_photo(photo)
    faces = np.zeros((*points.shape[:-2], _SIDE, _SIDE, 3), np.uint8)
    for index in np.ndindex(points.shape[:-2]):
        name = f"the landmarks of face {index[0]}" if index else "the landmarks"
        faces[index] = _cut(pixels, points[index], name)
    return faces


def detect_and_align(
    photo: OneFace,
    detector: Detector | str | os.PathLike[str],
    *,
    max_faces: int | None = None,
    min_score: float = MIN_SCORE,
    min_size: float = 40,
    order: Order = "size",
) -> list[AlignedFace]:
    """Find the faces of a photo and cut them out.

    Args:
        photo: Whatever `read_photo` reads.
        detector: What finds faces, or the path of a YuNet ONNX file, which is then loaded at
            every call: for many photos give one `YuNetDetector`.
        max_faces: The most faces to return: the first ones in `order`. None returns all.
        min_score: The smallest confidence of a face, 0 to 1. A detector may have its own, too.
        min_size: The smallest length of the shorter side of a face's box, in pixels of the photo.
        order: `size` sorts the largest first, `score` the surest first, `left_to_right` by the
            middle of the box.

    Returns:
        The faces; empty where there is none. A face whose landmarks cannot be those of a face is
        left out, with a warning in the log `mstkd_client`.

    Raises:
        InvalidFace: The photo cannot be read, or the landmarks of all its faces are impossible.
        InvalidDetector: The detector's file is missing or damaged, or it is no detector.
        InvalidSettings: An option cannot work.
        MissingExtra: OpenCV is not installed.
    """
    check_range("min_score", min_score, 0, 1)
    check_range("min_size", min_size, 0, MAX_PHOTO_SIDE)
    check_range("max_faces", 1 if max_faces is None else max_faces, 1, float("inf"))
    if order not in get_args(Order):
        raise InvalidSettings(f"order is {order!r}. Give one of {', '.join(get_args(Order))}.")
    if isinstance(detector, str | os.PathLike):
        detector = YuNetDetector(detector, min_score=min_score)
    if not callable(getattr(detector, "detect", None)):
        raise InvalidDetector(
            f"the detector is a {type(detector).__name__} without a method detect. Give a "
            "YuNetDetector, an InsightFaceDetector, or the path of a YuNet ONNX file."
        )
    pixels = read_photo(photo)
    kept = [
        found
        for found in detector.detect(pixels)
        if found.score >= min_score and extent(found).min() >= min_size
    ]
    aligned: list[AlignedFace] = []
    refused: InvalidFace | None = None
    for found in sorted(kept, key=lambda found: rank(found, order)):
        if len(aligned) == max_faces:
            break
        name = f"the detector's landmarks of the face of score {found.score:.2f}"
        try:
            face = _cut(pixels, _read_landmarks(found.landmarks), name)
        except InvalidFace as error:
            _LOG.warning("a face is left out: %s", error)
            refused = error
        else:
            aligned.append(AlignedFace(found.bbox, found.landmarks, found.score, face))
    if refused is not None and not aligned:
        raise refused
    return aligned


def _read_landmarks(landmarks: ArrayLike) -> NDArray[np.float64]:
    try:
        points = np.asarray(landmarks)
    except Exception as error:  # ragged lists, or whatever a foreign __array__ raises
        raise InvalidFace("the landmarks are no array. Give (5, 2) or (K, 5, 2) x y.") from error
    if points.ndim not in (2, 3) or points.shape[-2:] != (5, 2) or points.dtype.kind not in "iuf":
        raise InvalidFace(
            f"the landmarks are {points.dtype} {points.shape}. Give numbers (5, 2) or (K, 5, 2): "
            f"the x y of {', '.join(LANDMARK_ORDER)} in pixels."
        )
    return points.astype(np.float64)


def _cut(pixels: NDArray[np.uint8], points: NDArray[np.float64], name: str) -> NDArray[np.uint8]:
    """Check the `(5, 2)` landmarks of one face, then cut it out: `(112, 112, 3)`."""
    height, width = pixels.shape[:2]
    if not np.isfinite(points).all():
        raise InvalidFace(f"{name} are not all finite. Give pixels of the photo.")
    if not ((points >= 0) & (points < (width, height))).all(axis=1).any():
        remedy = "Give x y in pixels of the upright photo, not of an enlarged or rotated copy"
        raise InvalidFace(f"{name} lie outside the photo, {width}x{height} pixels. {remedy}.")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) / np.sqrt(5)
    if spread[0] < _MIN_SPREAD or spread[1] < _MIN_FLATNESS * spread[0]:
        remedy = "Give the five points of a face, in pixels and not in fractions of the photo"
        raise InvalidFace(f"{name} coincide or lie on one line. {remedy}.")
    transform, error = _fit(points)
    for mistake, order in _WRONG_ORDERS.items():
        if _fit(points[list(order)])[1] < _CLEARLY_BETTER * error:
            raise InvalidFace(
                f"{name} are not in order: {mistake}. Give {', '.join(LANDMARK_ORDER)}, where the "
                "person's right is the image's left."
            )
    warped = load("cv2").warpAffine(pixels, transform, (_SIDE, _SIDE), borderValue=0)
    return np.asarray(warped, np.uint8)


def _fit(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Fit `(5, 2)` landmarks to the template; returns the matrix `(2, 3)` and the squared error."""
    template = np.array(ARCFACE_112)
    source_mean, target_mean = points.mean(axis=0), template.mean(axis=0)
    source, target = points - source_mean, template - target_mean
    u, singular, vt = np.linalg.svd(target.T @ source / 5)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    trace, variance = singular @ sign, (source**2).sum() / 5
    linear = trace / variance * (u * sign) @ vt
    matrix = np.column_stack([linear, target_mean - linear @ source_mean])
    return matrix, float((target**2).sum() / 5 - trace**2 / variance)
