"""Who may reach a server, and which of its protocols.

Options of tritonserver: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/customization_guide/inference_protocols.html
(SSL for gRPC, limiting endpoint access).
"""

import ipaddress
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mstkd_serve.errors import ServerError

LOOPBACK: Final = "127.0.0.1"
CONTROL: Final = ("model-repository", "shared-memory", "trace", "logging")
"""Protocols that change the server or reach into its memory."""
SHARED_MEMORY: Final = "shared-memory"
_KEY_NAME: Final = "mstkd-admin"
_GRPC_PREFIX: Final = "triton-grpc-protocol-"


@dataclass(frozen=True)
class Access:
    """Where gRPC listens, by whose certificates, and what is closed to callers without the key.

    HTTP and metrics have no TLS in Triton, so they stay on loopback whatever this says.

    Attributes:
        address: IP address that gRPC listens on.
        tls_cert: PEM file of the server's certificate chain; with `tls_key`, gRPC speaks TLS.
        tls_key: PEM file of its private key.
        tls_client_ca: PEM file of the authorities whose client certificates are let in (mutual
            TLS).
        insecure_network: Whether `address` may be one that others reach, without TLS.
        closed: Protocols closed to callers without `admin_key`.
        admin_key: The key. Triton takes it as an argument, so other users of this machine can
            read it in the list of processes.
    """

    address: str = LOOPBACK
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure_network: bool = False
    closed: tuple[str, ...] = ()
    admin_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def check(self) -> None:
        """Refuse what would expose the server by mistake.

        Raises:
            ServerError: The address is no IP address or needs TLS; or a file is missing.
        """
        try:
            own = ipaddress.ip_address(self.address).is_loopback
        except ValueError as error:
            raise ServerError(
                f"--address {self.address}: not an IP address. Give one of this machine's, or "
                "0.0.0.0 for all."
            ) from error
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ServerError("--tls-cert and --tls-key go together: give both or neither.")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ServerError("--tls-client-ca needs --tls-cert and --tls-key.")
        if not own and self.tls_cert is None and not self.insecure_network:
            raise ServerError(
                f"--address {self.address}: others can reach it, and faces are biometric data. "
                "Give --tls-cert and --tls-key (and --tls-client-ca for client certificates), or "
                "say --insecure-network where something else encrypts."
            )
        for option, path in (
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
            ("--tls-client-ca", self.tls_client_ca),
        ):
            if path is not None and b"-----BEGIN " not in _read(option, path):
                raise ServerError(f"{option} {path}: not a PEM file.")

    def arguments(self) -> list[str]:
        """Return tritonserver's arguments."""
        given = [f"--grpc-address={self.address}"]
        if self.tls_cert is not None:
            given += [
                "--grpc-use-ssl=1",
                f"--grpc-server-cert={self.tls_cert.absolute()}",
                f"--grpc-server-key={self.tls_key.absolute() if self.tls_key else ''}",
            ]
        if self.tls_client_ca is not None:
            given += [
                "--grpc-use-ssl-mutual=1",
                f"--grpc-root-cert={self.tls_client_ca.absolute()}",
            ]
        if self.closed:
            rule = f"{','.join(self.closed)}:{_KEY_NAME}={self.admin_key}"
            given += [f"--grpc-restricted-protocol={rule}", f"--http-restricted-api={rule}"]
        return given

    @property
    def http_headers(self) -> dict[str, str]:
        """Headers that open the closed protocols over HTTP."""
        return {_KEY_NAME: self.admin_key}


def grpc_headers(admin_key: str) -> dict[str, str]:
    """Return the metadata that opens the closed protocols over gRPC."""
    return {_GRPC_PREFIX + _KEY_NAME: admin_key}


def read_admin_key(path: Path, *, create: bool = False) -> str:
    """Read an admin key from a file that only its owner may read.

    Args:
        path: The file.
        create: Whether to write a new key where there is no file.

    Raises:
        ServerError: The file is missing, readable by others, or holds no key.
    """
    if create:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise ServerError(f"--admin-key-file {path}: {error.strerror}.") from error
        else:
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(16) + "\n")
    text = _read("--admin-key-file", path).decode("ascii", "replace").strip()
    if path.stat().st_mode & 0o077:
        raise ServerError(f"--admin-key-file {path}: others may read it. Say chmod 600 {path}.")
    if len(text) < 16 or not text.isalnum():
        raise ServerError(
            f"--admin-key-file {path}: holds no key of 16 or more letters and digits."
        )
    return text


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServerError(f"{option} {path}: cannot be read ({error.strerror}).") from error
