"""The Triton model repository: typed configs, build and check."""

from mstkd_serve.repository.build import ENSEMBLE, STUDENT, Projection, build_repository
from mstkd_serve.repository.check import check_repository
from mstkd_serve.repository.options import (
    CpuPrecision,
    Device,
    GpuPrecision,
    ServingOptions,
    Target,
    TimeoutAction,
)
from mstkd_serve.repository.versions import (
    Versions,
    add_version,
    promote,
    rollback,
    versions_of,
)

__all__ = [
    "ENSEMBLE",
    "STUDENT",
    "CpuPrecision",
    "Device",
    "GpuPrecision",
    "Projection",
    "ServingOptions",
    "Target",
    "TimeoutAction",
    "Versions",
    "add_version",
    "build_repository",
    "check_repository",
    "promote",
    "rollback",
    "versions_of",
]
