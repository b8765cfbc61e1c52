"""How long `mstkd-serve up` takes until it is ready."""

import subprocess
import sys
import time
from pathlib import Path

from mstkd_serve.errors import ServerError

_READY = "Ready;"


def seconds_to_ready(repository: Path) -> float:
    """Start `mstkd-serve up` in a process of its own, wait until it is ready, and stop it.

    Raises:
        ServerError: It ended instead.
    """
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    command = [sys.executable, "-m", "mstkd_serve.cli", "up", "--model-repo", str(repository)]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        assert up.stdout is not None
        said = []
        try:
            for line in up.stdout:
                said.append(line.strip())
                if _READY in line:
                    return time.perf_counter() - started
        finally:
            up.terminate()
    raise ServerError(f"'mstkd-serve up' did not become ready: {' '.join(said[-3:])}")
