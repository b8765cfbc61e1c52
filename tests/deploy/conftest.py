"""What the tests of the deployment share: certificates, processes, plain Triton clients."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from mstkd_serve.contract import Preprocessing
from mstkd_serve.repository import ServingOptions, Target, build_repository
from mstkd_serve.triton import locate

ROOT = Path(__file__).parent.parent.parent
SLOW = """

def _slowly(execute):
    def slow(self, requests):
        import time

        time.sleep({seconds})
        return execute(self, requests)

    return slow


TritonPythonModel.execute = _slowly(TritonPythonModel.execute)
"""


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder of the deployment's files."""
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def tool() -> Callable[[str, str], str]:
    """Returns the path of a program, or skips with the package that has it."""

    def find(program: str, source: str) -> str:
        beside = Path(sys.executable).parent / program
        if found := shutil.which(program) or (beside.is_file() and str(beside)):
            return str(found)
        pytest.skip(f"{program} is not installed: {source}")

    return find


@dataclass(frozen=True)
class Pki:
    """A folder of throw-away certificates: `NAME.crt` and `NAME.key`."""

    folder: Path

    def crt(self, name: str) -> str:
        return str(self.folder / f"{name}.crt")

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.key")

    def make(self, name: str, *extensions: str, signer: str | None = None) -> None:
        """Make a certificate, signed by `signer` or by itself."""
        signed = ["-CA", self.crt(signer), "-CAkey", self.key(signer)] if signer else []
        added = [word for text in extensions for word in ("-addext", text)]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        files = ["-keyout", self.key(name), "-out", self.crt(name)]
        subject = ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command = ["openssl", "req", "-x509", *curve, *subject, *files, *signed, *added]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def pki(tmp_path_factory, tool) -> Pki:
    """An authority, a server's certificate for loopback, a client's, and strangers of both."""
    tool("openssl", "apt-get install openssl")
    made = Pki(tmp_path_factory.mktemp("pki"))
    loopback = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    leaf = "basicConstraints=critical,CA:FALSE"
    for authority in ("ca", "clients-ca", "other-ca"):
        made.make(authority)
    made.make("server", loopback, leaf, "extendedKeyUsage=serverAuth", signer="ca")
    made.make("client", leaf, "extendedKeyUsage=clientAuth", signer="clients-ca")
    made.make("stranger", leaf, "extendedKeyUsage=clientAuth", signer="other-ca")
    return made


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Returns a free TCP port of loopback."""

    def choose() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return choose


@contextmanager
def running(
    command: list[str], log: Path, port: int, **options: object
) -> Iterator[subprocess.Popen]:
    """Run a program until the end of the block; enter it when it listens on `port`."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, f"{command[0]} stopped: {log.read_text()}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen: {log.read_text()}"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def run_until_listening() -> Callable[..., object]:
    """The context manager that runs a program which listens on a port."""
    return running


@pytest.fixture
def script(deploy) -> str:
    """The path of the entry script."""
    return str(deploy / "entrypoint.sh")


@pytest.fixture(scope="session")
def clean_environment() -> Callable[..., dict[str, str]]:
    """Returns this process's variables without the project's own, and those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MSTKD_")}
    return lambda **settings: clean | settings


@pytest.fixture
def started(script, served, clean_environment, free_port, tmp_path) -> Callable[..., object]:
    """The context manager that runs the entry script; gives process and the addresses
    of gRPC, HTTP and metrics."""

    @contextmanager
    def run(repository: Path | None = None, **settings: str) -> Iterator[tuple]:
        installation = locate()
        ports = [free_port() for _ in range(3)]
        given = clean_environment(
            MSTKD_MODEL_REPOSITORY=str(repository or served.repository),
            MSTKD_TRITONSERVER=str(installation.binary),
            MSTKD_ADDRESS="127.0.0.1",
            MSTKD_GRPC_PORT=str(ports[0]),
            MSTKD_HTTP_PORT=str(ports[1]),
            MSTKD_METRICS_PORT=str(ports[2]),
            **installation.environment,
        )
        command = [script, *installation.arguments]
        log = tmp_path / "triton.log"
        # Triton opens gRPC, then HTTP, then metrics.
        with running(command, log, ports[2], env=given | settings) as process:
            until_healthy([script, "health"], given | settings)
            addresses = [f"127.0.0.1:{port}" for port in ports]
            yield process, *addresses

    return run


def until_healthy(command: list[str], given: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(command, env=given, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "not healthy within a minute"
        time.sleep(0.1)


@pytest.fixture
def slow_repository(recogniser, tmp_path) -> Callable[..., Path]:
    """Builds a repository whose model takes `seconds` longer for each batch of up to 8."""

    def build(seconds: float = 1.0, **options: int) -> Path:
        repository = tmp_path / "slow"
        build_repository(
            {"student": recogniser(tmp_path / "source.onnx")},
            repository,
            target=Target.PYTHON,
            preprocessing=Preprocessing(),
            options=ServingOptions(max_batch_size=8, **options),
        )
        program = repository / "student" / "1" / "model.py"
        program.write_text(program.read_text() + SLOW.format(seconds=seconds))
        return repository

    return build


@pytest.fixture
def listener() -> Callable[..., object]:
    """The context manager of a gRPC server that is healthy and refuses every call.

    It gives its address and, for each call, the seconds left to it and its headers.
    """

    @contextmanager
    def listen(
        code: grpc.StatusCode = grpc.StatusCode.UNIMPLEMENTED,
    ) -> Iterator[tuple[str, list[tuple[float, dict[str, str]]]]]:
        seen = []

        def refuse(_: bytes, context: grpc.ServicerContext) -> None:
            seen.append((context.time_remaining(), dict(context.invocation_metadata())))
            context.abort(code, "a listener")

        class Handler(grpc.GenericRpcHandler):
            def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                health = call.method == "/grpc.health.v1.Health/Check"
                answer = (lambda _, __: b"\x08\x01") if health else refuse  # SERVING
                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", seen
        finally:
            server.stop(None).wait()

    return listen


@pytest.fixture(scope="session")
def infer() -> Callable[..., np.ndarray]:
    """Sends faces to a client's `student` and returns the embeddings."""

    def send(client: InferenceServerClient, faces: np.ndarray, **options: object) -> np.ndarray:
        request = InferInput("faces", list(faces.shape), "UINT8")
        request.set_data_from_numpy(faces)
        options = {"client_timeout": 20} | options
        return client.infer("student", [request], **options).as_numpy("embedding")

    return send


@pytest.fixture(scope="session")
def status_of() -> Callable[..., tuple[str, str]]:
    """Calls something that must be refused; returns gRPC's status and message."""

    def call(function: Callable[..., object], *arguments: object, **options: object):
        with pytest.raises(InferenceServerException) as refused:
            function(*arguments, **options)
        status = str(refused.value.status()).removeprefix("StatusCode.")
        return status, refused.value.message()

    return call


@pytest.fixture
def expected(served, faces) -> np.ndarray:
    """The embeddings of `faces` by the served ONNX file."""
    session = onnxruntime.InferenceSession(served.onnx, providers=["CPUExecutionProvider"])
    return session.run(None, {"faces": faces})[0]
