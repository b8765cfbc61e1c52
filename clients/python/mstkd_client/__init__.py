"""Python client of MSTKD Serve: aligned 112x112 faces in, embeddings and scores out.

from mstkd_client import FaceClient

with FaceClient("localhost:8001") as client:
    score = client.verify("a.png", "b.png").score
"""

from mstkd_client._errors import (
    ContractMismatch,
    DeadlineExceeded,
    InvalidFace,
    ModelNotReady,
    MstkdClientError,
    Overloaded,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)
from mstkd_client._similarity import similarity
from mstkd_client._sync import FaceClient
from mstkd_client._types import (
    Calibration,
    Embeddings,
    Faces,
    Health,
    ModelInfo,
    OneFace,
    Verification,
)

__version__ = "0.1.0"

__all__ = [
    "Calibration",
    "ContractMismatch",
    "DeadlineExceeded",
    "Embeddings",
    "FaceClient",
    "Faces",
    "Health",
    "InvalidFace",
    "ModelInfo",
    "ModelNotReady",
    "MstkdClientError",
    "OneFace",
    "Overloaded",
    "ServerFault",
    "ServerUnavailable",
    "Unauthenticated",
    "Verification",
    "__version__",
    "similarity",
]
