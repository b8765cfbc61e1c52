"""Find, install, start, watch and examine a real tritonserver."""

from mstkd_serve.triton.doctor import examine
from mstkd_serve.triton.install import install, installed_home
from mstkd_serve.triton.locate import Installation, locate
from mstkd_serve.triton.server import Ports, TritonServer

__all__ = [
    "Installation",
    "Ports",
    "TritonServer",
    "examine",
    "install",
    "installed_home",
    "locate",
]
