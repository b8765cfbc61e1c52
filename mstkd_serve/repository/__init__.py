"""The Triton model repository: typed configs, build and check."""

from mstkd_serve.repository.build import Projection, build_repository
from mstkd_serve.repository.check import check_repository
from mstkd_serve.repository.options import (
    Device,
    GpuPrecision,
    ServingOptions,
    Target,
    TimeoutAction,
)

__all__ = [
    "Device",
    "GpuPrecision",
    "Projection",
    "ServingOptions",
    "Target",
    "TimeoutAction",
    "build_repository",
    "check_repository",
]
