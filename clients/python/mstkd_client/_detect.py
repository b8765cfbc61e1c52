"""Face detectors: whatever finds boxes and the five landmarks in a photo."""

import importlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import InvalidDetector, InvalidSettings, MissingExtra

MIN_SCORE: Final = 0.6
"""YuNet scores faces of the London set 0.93 or more and false ones up to 0.5."""
MAX_SIDE: Final = 640
"""YuNet finds faces from 12 pixels on; ones above 500 pixels it splits into several."""
Order: TypeAlias = Literal["size", "score", "left_to_right"]

_NMS_IOU: Final = 0.3
_MAX_CANDIDATES: Final = 5000
_YUNET_REMEDY: Final = "Give a YuNet ONNX file, such as OpenCV Zoo's face_detection_yunet_2023mar"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Detection:
    """A face that a detector found in a photo.

    Attributes:
        bbox: float32 `(4,)`, x1 y1 x2 y2 in pixels of the photo; may reach beyond it.
        landmarks: float32 `(5, 2)`, x y in pixels of the photo, in `LANDMARK_ORDER`.
        score: The detector's confidence, 0 to 1.

    Raises:
        InvalidDetector: `bbox` or `landmarks` has another shape.
    """

    bbox: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: float

    def __post_init__(self) -> None:
        for name, shape in (("bbox", (4,)), ("landmarks", (5, 2))):
            values = np.asarray(getattr(self, name), np.float32)
            if values.shape != shape:
                raise InvalidDetector(f"{name} of a detection is {values.shape}. Give {shape}.")
            object.__setattr__(self, name, values)

    def __repr__(self) -> str:
        bbox = [round(float(value), 1) for value in self.bbox]
        return f"{type(self).__name__}(score={self.score:.3f}, bbox={bbox})"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class AlignedFace(Detection):
    """A detection with its face, ready for a model. The repr never shows the pixels.

    Attributes:
        face: uint8 RGB `(112, 112, 3)`.
    """

    face: NDArray[np.uint8]


class Detector(Protocol):
    """What finds faces; write your own by giving a class this one method."""

    def detect(self, photo_rgb: NDArray[np.uint8]) -> Sequence[Detection]:
        """Find the faces of one photo.

        Args:
            photo_rgb: uint8 RGB `(H, W, 3)`, upright.

        Returns:
            The faces in any order; empty where there is none.
        """
        ...


class YuNetDetector:
    """YuNet (Wu et al., Machine Intelligence Research 2023) over `cv2.FaceDetectorYN`.

    Threads may share one detector; they detect one after the other.

    Args:
        onnx_path: The network, of OpenCV Zoo (2023mar) or libfacedetection.train.
        min_score: Faces below this confidence are left out.
        max_side: A photo with a longer side is searched in a copy reduced to it. More finds
            smaller faces in a crowd, and splits faces of above 500 pixels in that copy.

    Raises:
        InvalidDetector: The file is missing, damaged or no YuNet.
        InvalidSettings: `min_score` is not in 0..1, or `max_side` not in 32..4096.
        MissingExtra: OpenCV is not installed.
    """

    def __init__(
        self,
        onnx_path: str | os.PathLike[str],
        *,
        min_score: float = MIN_SCORE,
        max_side: int = MAX_SIDE,
    ) -> None:
        check_range("min_score", min_score, 0, 1)
        check_range("max_side", max_side, 32, 4096)
        path = Path(os.fsdecode(onnx_path)).expanduser()
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "does not exist"
            raise InvalidDetector(f"the detector {path} {problem}. {_YUNET_REMEDY}.")
        self._max_side = max_side
        self._lock = threading.Lock()
        self._cv2 = load("cv2")
        probe = np.zeros((64, 64, 3), np.uint8)
        try:
            self._network = self._cv2.FaceDetectorYN.create(
                str(path), "", (64, 64), min_score, _NMS_IOU, _MAX_CANDIDATES
            )
            self._network.detect(probe)
        except (self._cv2.error, SystemError) as error:
            raise InvalidDetector(
                f"the detector {path} is damaged or no YuNet network. {_YUNET_REMEDY}."
            ) from error

    def detect(self, photo_rgb: NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of one photo, as `Detector.detect` says."""
        height, width = photo_rgb.shape[:2]
        ratio = min(1.0, self._max_side / max(height, width))
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        searched = photo_rgb
        if ratio < 1:
            searched = self._cv2.resize(photo_rgb, size, interpolation=self._cv2.INTER_AREA)
        with self._lock:
            self._network.setInputSize(size)
            _, rows = self._network.detect(np.ascontiguousarray(searched[..., ::-1]))
        if rows is None:
            return []
        scale = np.array([width / size[0], height / size[1]], np.float32)
        found = []
        for row in rows.astype(np.float32):
            corner, extent = row[:2] * scale, row[2:4] * scale
            bbox = np.concatenate([corner, corner + extent])
            found.append(Detection(bbox, row[4:14].reshape(5, 2) * scale, float(row[14])))
        return found


class InsightFaceDetector:
    """The detector of an InsightFace pack.

    Args:
        app: A prepared `insightface.app.FaceAnalysis`, or what has its method `get`: BGR
            uint8 `(H, W, 3)` in, objects with `bbox`, `kps` and `det_score` out.

    Raises:
        InvalidDetector: `app` has no method `get`.
    """

    def __init__(self, app: Any) -> None:
        if not callable(getattr(app, "get", None)) or isinstance(app, dict):
            raise InvalidDetector(
                f"the app is a {type(app).__name__}. Give a prepared insightface.app.FaceAnalysis, "
                "or use InsightFaceDetector.from_pack(folder_or_name)."
            )
        self._app = app

    @classmethod
    def from_pack(
        cls,
        folder_or_name: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] = "~/.insightface",
    ) -> "InsightFaceDetector":
        """Load the detector of a pack that is on this machine; nothing is downloaded.

        Args:
            folder_or_name: The pack's folder, or its name under `root`/models.
            root: InsightFace's folder.

        Raises:
            InvalidDetector: The pack is not there, is damaged, or holds no detector.
            MissingExtra: InsightFace is not installed.
        """
        folder = Path(os.fsdecode(folder_or_name)).expanduser()
        if not folder.is_dir():
            folder = Path(os.fsdecode(root)).expanduser() / "models" / folder
        if not any(folder.glob("*.onnx")) and not any(folder.glob("*/*.onnx")):
            raise InvalidDetector(
                f"there is no InsightFace pack at {folder}: no *.onnx. The client downloads "
                "none: unpack one there, or give the folder of yours."
            )
        analysis = load("insightface.app").FaceAnalysis
        try:
            app = analysis(name=str(folder.resolve()), allowed_modules=["detection"])
            app.prepare(ctx_id=0, det_size=(640, 640))
        except Exception as error:  # it asserts, and passes on what its runtimes raise
            raise InvalidDetector(
                f"the InsightFace pack {folder} is damaged or holds no face detector "
                f"({type(error).__name__}: {error}). Unpack it again."
            ) from error
        return cls(app)

    def detect(self, photo_rgb: NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of one photo, as `Detector.detect` says.

        Raises:
            InvalidDetector: The app answers faces without landmarks.
        """
        found = []
        for face in self._app.get(np.ascontiguousarray(photo_rgb[..., ::-1])):
            if face.kps is None:
                raise InvalidDetector(
                    "the InsightFace app answers faces without landmarks (kps). Use a pack whose "
                    "detector has them, for example buffalo_l."
                )
            found.append(Detection(face.bbox, face.kps, float(face.det_score)))
        return found


def load(module: str) -> Any:
    """Import cv2 or a module of insightface, or raise `MissingExtra`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs {module}: pip install 'mstkd-client[align]', or the package itself. "
            f"It does not import here: {error}."
        ) from error


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise `InvalidSettings` unless the value lies between both ends; NaN does not."""
    if not least <= value <= most:
        raise InvalidSettings(f"{name} is {value}. Give a number from {least} to {most}.")


def extent(found: Detection) -> NDArray[np.float32]:
    """Width and height of the box, float32 `(2,)`."""
    return found.bbox[2:] - found.bbox[:2]


def rank(found: Detection, order: Order) -> float:
    """Where a face stands in an order: the smallest comes first."""
    if order == "left_to_right":
        return float(found.bbox[0] + found.bbox[2])
    return -found.score if order == "score" else -float(extent(found).prod())
