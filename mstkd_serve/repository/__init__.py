"""The Triton model repository: typed configs, build and check."""

from mstkd_serve.repository.build import build_repository
from mstkd_serve.repository.check import check_repository
from mstkd_serve.repository.config import ServingOptions, Target

__all__ = ["ServingOptions", "Target", "build_repository", "check_repository"]
