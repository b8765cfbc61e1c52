"""Find, install, start, watch, control and examine a real tritonserver."""

from mstkd_serve.triton.access import CONTROL, LOOPBACK, SHARED_MEMORY, Access, read_admin_key
from mstkd_serve.triton.control import (
    ControlClosed,
    ModelState,
    list_models,
    load_model,
    ready_among,
    unload_model,
)
from mstkd_serve.triton.doctor import examine
from mstkd_serve.triton.endpoint import Endpoint
from mstkd_serve.triton.install import install, installed_home
from mstkd_serve.triton.locate import Installation, locate
from mstkd_serve.triton.ports import Ports
from mstkd_serve.triton.server import DRAIN_SECONDS, ModelControl, TritonServer

__all__ = [
    "CONTROL",
    "DRAIN_SECONDS",
    "LOOPBACK",
    "SHARED_MEMORY",
    "Access",
    "ControlClosed",
    "Endpoint",
    "Installation",
    "ModelControl",
    "ModelState",
    "Ports",
    "TritonServer",
    "examine",
    "install",
    "installed_home",
    "list_models",
    "load_model",
    "locate",
    "read_admin_key",
    "ready_among",
    "unload_model",
]
