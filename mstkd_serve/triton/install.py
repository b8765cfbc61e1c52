"""Make the environment of its own that holds a pip-installed tritonserver.

NVIDIA publishes the server binary on PyPI only inside the `nvidia-pytriton` wheel, which needs
numpy below 2 while current pyarrow and others need numpy 2: hence an environment apart. Its
Python backend also needs a stub that matches the interpreter, which the wheel keeps elsewhere.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from mstkd_serve.errors import ServerError

HOME_VARIABLE: Final = "MSTKD_TRITON_HOME"
MARKER: Final = "mstkd-triton.json"
"""Written last: an environment without it was interrupted and is made anew."""

_SERVER = "nvidia-pytriton==0.7.0"
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino")


def installed_home() -> Path:
    """Return where the environment is or would be.

    That is `$MSTKD_TRITON_HOME`, else inside the virtual environment that runs this, so that it
    is found from there and goes with it, else the user's data folder.
    """
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).absolute()
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "tritonserver"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "mstkd-serve" / "triton"


def server_package(home: Path) -> Path:
    """Return the folder of the server's files inside an environment."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return home / "lib" / python / "site-packages" / "pytriton" / "tritonserver"


def install(
    home: Path,
    *,
    runtimes: tuple[str, ...] = ("openvino",),
    progress: Callable[[str], None],
) -> bool:
    """Make the environment with pip, unless it is there already.

    Args:
        home: Folder of the environment.
        runtimes: What runs the models inside the server: `openvino`, the faster one on CPUs;
            `onnxruntime`, or `onnxruntime-gpu` for GPUs. A runtime that is also installed beside
            mstkd-serve is taken in the same version.
        progress: Called with a line at each step.

    Returns:
        False where the environment already was as asked for.

    Raises:
        ServerError: A runtime is unknown, `home` holds something else, or pip failed.
    """
    unknown = [name for name in runtimes if name not in _RUNTIMES]
    if unknown or not runtimes:
        raise ServerError(
            f"runtime {', '.join(unknown) or '(none)'}: choose among {', '.join(_RUNTIMES)}."
        )
    if {"onnxruntime", "onnxruntime-gpu"} <= set(runtimes):
        raise ServerError(
            "runtimes onnxruntime and onnxruntime-gpu overwrite each other's files: choose one."
        )
    requirements = [_SERVER, *(_same_version(name) for name in runtimes)]
    wanted = {"requirements": requirements, "python": sys.version.split()[0]}
    if _recorded(home) == wanted:
        return False
    if home.exists():
        if not (home / "pyvenv.cfg").is_file() and any(home.iterdir()):
            raise ServerError(
                f"{home}: holds something other than a Python environment. "
                f"Set {HOME_VARIABLE} to another folder, or empty this one."
            )
        shutil.rmtree(home)
    progress(f"making a Python environment in {home}")
    _run([sys.executable, "-m", "venv", str(home)])
    progress(f"installing {', '.join(requirements)}")
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", *requirements])
    _place_stub(home)
    (home / MARKER).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return True


def _same_version(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package


def _recorded(home: Path) -> object:
    try:
        return json.loads((home / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise ServerError(f"{' '.join(command)} failed: {' '.join(errors[-2:])}")


def _place_stub(home: Path) -> None:
    """Put the Python backend's stub for this interpreter where the backend looks for it."""
    package = server_package(home)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerError(f"{_SERVER} has no Python backend for Python {python}.")
    target = package / "backends" / "python" / stub.name
    shutil.copyfile(stub, target)
    target.chmod(0o755)
    (package / "bin" / "tritonserver").chmod(0o755)
