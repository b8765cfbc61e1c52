"""Python client of MSTKD Serve: aligned 112x112 faces in, embeddings and scores out.

from mstkd_client import FaceClient

with FaceClient("localhost:8001") as client:
    score = client.verify("a.png", "b.png").score
"""

from mstkd_client._aio import AsyncFaceClient
from mstkd_client._errors import (
    ClientClosed,
    ContractMismatch,
    DeadlineExceeded,
    InvalidDetector,
    InvalidFace,
    InvalidSettings,
    MissingExtra,
    ModelNotReady,
    MstkdClientError,
    Overloaded,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)
from mstkd_client._local import LocalFaceClient
from mstkd_client._observe import CallRecord
from mstkd_client._retry import Retry
from mstkd_client._settings import ClientOptions, Settings
from mstkd_client._similarity import similarity
from mstkd_client._sync import FaceClient
from mstkd_client._timing import Timing
from mstkd_client._types import (
    Calibration,
    Embeddings,
    Faces,
    Health,
    ModelInfo,
    OneFace,
)
from mstkd_client._verification import Verification, Verifications

__version__ = "0.1.0"

__all__ = [
    "AsyncFaceClient",
    "Calibration",
    "CallRecord",
    "ClientClosed",
    "ClientOptions",
    "ContractMismatch",
    "DeadlineExceeded",
    "Embeddings",
    "FaceClient",
    "Faces",
    "Health",
    "InvalidDetector",
    "InvalidFace",
    "InvalidSettings",
    "LocalFaceClient",
    "MissingExtra",
    "ModelInfo",
    "ModelNotReady",
    "MstkdClientError",
    "OneFace",
    "Overloaded",
    "Retry",
    "ServerFault",
    "ServerUnavailable",
    "Settings",
    "Timing",
    "Unauthenticated",
    "Verification",
    "Verifications",
    "__version__",
    "similarity",
]
