"""Start a tritonserver, wait until it is ready, and never leave a process behind."""

import contextlib
import ctypes
import ipaddress
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from mstkd_serve.errors import ServerError
from mstkd_serve.triton.access import LOOPBACK, Access
from mstkd_serve.triton.http import is_ready, load_model, repository_index, server_version
from mstkd_serve.triton.locate import Installation
from mstkd_serve.triton.log import failure_reasons
from mstkd_serve.triton.ports import Ports
from mstkd_serve.triton.stubs import StubWatch

_POLL_SECONDS = 0.1
DRAIN_SECONDS = 30
_LEAST_PING_MILLISECONDS = 10_000
_PR_SET_PDEATHSIG = 1


class ModelControl(StrEnum):
    """How models come and go while a server runs."""

    NONE = "none"
    """All models of the start, for good."""
    EXPLICIT = "explicit"
    """All models of the start; then as `mstkd-serve models` says."""


class TritonServer:
    """A running tritonserver; a context manager that stops it.

    The server is in a process group of its own and gets SIGTERM when this process dies, however
    it dies. Its log goes to `log_file`, or to a temporary file that is gone afterwards.
    """

    def __init__(
        self,
        installation: Installation,
        model_repository: Path,
        ports: Ports | None = None,
        log_file: Path | None = None,
        *,
        access: Access | None = None,
        control: ModelControl = ModelControl.NONE,
        cache_bytes: int = 0,
        drain_seconds: int = DRAIN_SECONDS,
    ) -> None:
        """Prepare a server; `start` or `with` starts it.

        Args:
            installation: The tritonserver to start.
            model_repository: The folder to serve.
            ports: Its ports.
            log_file: Where its log goes; a temporary file by default.
            access: Who may reach it; by default this machine, with all protocols open.
            control: How models come and go.
            cache_bytes: Size of a cache for the models that want one; 0: none.
            drain_seconds: Longest wait for requests in flight when it stops.
        """
        self.installation = installation
        self.model_repository = model_repository
        self._wanted_ports = ports or Ports()
        self._log_file = log_file
        self.access = access or Access()
        self._control = control
        self._cache_bytes = cache_bytes
        self._drain_seconds = drain_seconds
        self._memory_prefix = f"mstkd_{os.getpid()}_{secrets.token_hex(4)}_"
        self._log: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stubs: StubWatch | None = None
        self.ports = self._wanted_ports

    @property
    def url(self) -> str:
        """The gRPC address to reach it at from this machine, `host:port`."""
        address = ipaddress.ip_address(self.access.address)
        host = LOOPBACK if address.is_unspecified else str(address)
        return f"[{host}]:{self.ports.grpc}" if ":" in host else f"{host}:{self.ports.grpc}"

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None before the start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; return at once.

        Raises:
            ServerError: The repository or the binary is missing, a port is taken, or the access
                would expose the server by mistake.
        """
        if not self.model_repository.is_dir():
            raise ServerError(
                f"{self.model_repository}: no such folder. Build one with 'mstkd-serve repo build'."
            )
        self.access.check()
        self.ports = self._wanted_ports.resolved(self.access.address)
        self._log = _open_log(self._log_file)
        command = [
            str(self.installation.binary),
            f"--model-repository={self.model_repository.absolute()}",
            *self.installation.arguments,
            "--strict-readiness=true",
            "--disable-auto-complete-config",
            *self.access.arguments(),
            f"--model-control-mode={self._control.value}",
            *(["--load-model=*"] if self._control is ModelControl.EXPLICIT else []),
            *([f"--cache-config=local,size={self._cache_bytes}"] if self._cache_bytes else []),
            f"--backend-config=python,shm-region-prefix-name={self._memory_prefix}",
            f"--grpc-port={self.ports.grpc}",
            f"--http-address={LOOPBACK}",
            f"--http-port={self.ports.http}",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={self.ports.metrics}",
            f"--exit-timeout-secs={self._drain_seconds}",
            # Clients may keep idle connections open; Triton alone hangs up on their pings.
            "--grpc-keepalive-permit-without-calls=1",
            f"--grpc-http2-min-recv-ping-interval-without-data={_LEAST_PING_MILLISECONDS}",
        ]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self.installation.environment),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise ServerError(
                f"{self.installation.binary}: cannot be started ({error})."
            ) from error
        self._stubs = StubWatch(self._process.pid)

    def wait_ready(self, timeout: float, give_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until every model answers.

        Args:
            timeout: Seconds.
            give_up: Asked between looks; when it answers True, this returns at once.

        Raises:
            ServerError: The server stopped (with Triton's own reason), or time ran out.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if give_up():
                return
            self.check_alive()
            if is_ready(self.ports.http, timeout=1.0):
                self.dead_models()  # the watch learns who is alive
                return
            time.sleep(_POLL_SECONDS)
        raise ServerError(
            f"tritonserver was not ready within {timeout:g} s; its last words: "
            f"{failure_reasons(self.log_text())}"
        )

    def models(self) -> list[tuple[str, str, str]]:
        """Return name, version and state of each model in the repository."""
        index = repository_index(self.ports.http, self.access.http_headers)
        return [
            (str(model["name"]), str(model.get("version", "")), str(model.get("state", "")))
            for model in index
        ]

    def runtimes(self) -> list[str]:
        """Return what the python target's models say of their runtime, precision and threads."""
        lines = (line for line in self.log_text().splitlines() if "intra-op threads" in line)
        return sorted({line.partition("] ")[2].strip('"') for line in lines})

    def version(self) -> str:
        """Return Triton's version, such as `2.59.0`."""
        return server_version(self.ports.http)

    def check_alive(self) -> None:
        """Raise ServerError with Triton's own reason if the process has ended."""
        assert self._process is not None, "start() comes first"
        status = self._process.poll()
        if status is not None:
            raise ServerError(
                f"tritonserver stopped with status {status}: {failure_reasons(self.log_text())}"
            )

    def dead_models(self) -> list[str]:
        """Return the models whose own process died since the last call; see `StubWatch`."""
        return self._stubs.dead() if self._stubs else []

    def revive(self, model: str) -> None:
        """Load a model anew whose process died.

        Raises:
            ServerError: This server's models are fixed, or the model cannot be loaded.
        """
        if self._control is not ModelControl.EXPLICIT:
            raise ServerError(
                f"the process of model {model!r} died, so the server stops. Start it again; with "
                "--model-control explicit it starts such a model again by itself."
            )
        load_model(self.ports.http, model, self.access.http_headers)

    def log_text(self) -> str:
        """Return what the server has logged so far."""
        if self._log is None:
            return ""
        return os.pread(self._log, os.fstat(self._log).st_size, 0).decode("utf-8", "replace")

    def stop(self) -> None:
        """Let requests in flight finish, then end the server and whatever it started."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(self._drain_seconds + 5)
            except subprocess.TimeoutExpired:
                pass
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for leftover in Path("/dev/shm").glob(f"{self._memory_prefix}*"):
                leftover.unlink(missing_ok=True)  # of a server that was killed
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def __enter__(self) -> Self:
        """Start the server; the caller waits for readiness."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()


def _open_log(path: Path | None) -> int:
    """Open the log, readable by this user alone; without a path, a file that has no name."""
    try:
        if path is not None:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        descriptor, name = tempfile.mkstemp(prefix="tritonserver.")
        os.unlink(name)
    except OSError as error:
        raise ServerError(f"{path}: the log cannot be written ({error}).") from error
    return descriptor


def _die_with_parent() -> None:
    """Ask Linux to send the server SIGTERM when its parent ends (runs in the child)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
