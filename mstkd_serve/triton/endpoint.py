"""A server that this package's commands speak to over gRPC."""

from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from mstkd_serve.errors import ServerError


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and how to reach it.

    Attributes:
        url: gRPC address, `host:port`.
        tls_ca: PEM file of the authorities to check the server against; TLS where it is given.
        tls_cert: PEM file of this side's certificate chain (mutual TLS).
        tls_key: PEM file of its private key.
    """

    url: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def connect(self) -> InferenceServerClient:
        """Return a client; it connects when it is first used.

        Raises:
            ServerError: A file is missing, or the files do not go together.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ServerError("--tls-cert and --tls-key go together: give both or neither.")
        for option, path in (
            ("--tls-ca", self.tls_ca),
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
        ):
            if path is not None and not path.is_file():
                raise ServerError(f"{option} {path}: no such file.")
        return InferenceServerClient(
            self.url,
            ssl=self.tls_ca is not None or self.tls_cert is not None,
            root_certificates=_text(self.tls_ca),
            private_key=_text(self.tls_key),
            certificate_chain=_text(self.tls_cert),
        )


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
