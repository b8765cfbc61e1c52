"""TCP ports of a server."""

import contextlib
import socket
from dataclasses import dataclass
from typing import Self

from mstkd_serve.errors import ServerError
from mstkd_serve.triton.access import LOOPBACK


@dataclass(frozen=True)
class Ports:
    """TCP ports of a server; 0 chooses a free one."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002

    def resolved(self, grpc_address: str = LOOPBACK) -> Self:
        """Return the ports with each 0 replaced by a free one.

        Args:
            grpc_address: Where gRPC listens; HTTP and metrics listen on loopback alone.

        Raises:
            ServerError: A stated port is taken, or two are the same.
        """
        stated = [port for port in (self.grpc, self.http, self.metrics) if port]
        if len(stated) != len(set(stated)):
            raise ServerError(f"ports {stated}: gRPC, HTTP and metrics need one each.")
        with contextlib.ExitStack() as held:
            return type(self)(
                grpc=_claim("--grpc-port", grpc_address, self.grpc, held),
                http=_claim("--http-port", LOOPBACK, self.http, held),
                metrics=_claim("--metrics-port", LOOPBACK, self.metrics, held),
            )


def _claim(option: str, address: str, port: int, held: contextlib.ExitStack) -> int:
    """Bind a port for a moment, to learn that it is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = held.enter_context(socket.socket(family))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except (OSError, OverflowError) as error:
        raise ServerError(
            f"{option} {port}: cannot be used on {address} ({error}). Stop what listens there, "
            "or give another port (0 takes a free one) or address."
        ) from error
    return int(listener.getsockname()[1])
