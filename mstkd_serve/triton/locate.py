"""Find a tritonserver binary and what it needs to run."""

import os
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mstkd_serve.errors import ServerError
from mstkd_serve.triton.install import MARKER, installed_home, server_package

CONTAINER_BINARY: Final = Path("/opt/tritonserver/bin/tritonserver")
"""Where NVIDIA's container keeps the server."""


@dataclass(frozen=True)
class Installation:
    """A tritonserver that can be started.

    Attributes:
        binary: The executable.
        arguments: Arguments that this installation always needs.
        environment: Variables to set for the server's process.
        from_wheel: Whether it is the wheel's build, which NVIDIA does not support in production.
    """

    binary: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    from_wheel: bool = False


def locate(binary: Path | None = None) -> Installation:
    """Find a server: the one given, the container's, one on PATH, or the pip-installed one.

    Args:
        binary: Path of a tritonserver that the user names.

    Raises:
        ServerError: The named one does not exist, or none was found.
    """
    if binary is not None:
        if not os.access(binary, os.X_OK):
            raise ServerError(f"{binary}: no such executable. Give the path of a tritonserver.")
        return Installation(binary)
    if os.access(CONTAINER_BINARY, os.X_OK):
        return Installation(CONTAINER_BINARY)
    if found := shutil.which("tritonserver"):
        return Installation(Path(found))
    home = installed_home()
    if (home / MARKER).is_file():
        return _from_wheel(home)
    raise ServerError(
        f"no tritonserver found: not in {CONTAINER_BINARY.parent}, not on PATH, not in {home}. "
        "Run 'mstkd-serve triton install', or start inside NVIDIA's tritonserver container."
    )


def _from_wheel(home: Path) -> Installation:
    package = server_package(home)
    if not (package / "bin" / "tritonserver").is_file():
        raise ServerError(
            f"{home}: made by another Python version than this one. "
            "Run 'mstkd-serve triton install' again."
        )
    bundled = package.parent.parent / "nvidia_pytriton.libs"
    libpython = sysconfig.get_config_var("LIBDIR")
    inherited = os.environ.get("LD_LIBRARY_PATH")
    libraries = [str(bundled), str(libpython), *([inherited] if inherited else [])]
    return Installation(
        binary=package / "bin" / "tritonserver",
        arguments=(
            f"--backend-directory={package / 'backends'}",
            f"--cache-directory={package / 'caches'}",
        ),
        environment={
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # The stub's embedded interpreter finds its packages by the python on PATH.
            "PATH": os.pathsep.join([str(home / "bin"), os.environ.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(home),
        },
        from_wheel=True,
    )
