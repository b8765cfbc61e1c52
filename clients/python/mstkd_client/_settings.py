"""A client's settings, checked before anything is sent."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict

from mstkd_client._errors import InvalidSettings
from mstkd_client._observe import CallRecord
from mstkd_client._retry import Retry

DEFAULT_URL: Final = "localhost:8001"
MODES: Final = ("student", "ensemble")

_URL: Final = re.compile(
    r"[^\s/:]+:\d{1,5}|\[[0-9A-Fa-f:.%]+\]:\d{1,5}|unix:\S+"
    r"|dns:(//[^\s/]*/)?[^\s/]+:\d{1,5}|ipv4:[\d.:,]+|ipv6:[][0-9A-Fa-f:.%,]+"
)
_LOOPBACK: Final = re.compile(r"localhost:|127\.[\d.]+:|\[::1\]:|unix:|ipv4:127\.[\d.]+:\d+$")


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of `FaceClient` and `AsyncFaceClient`; see `Settings`."""

    mode: Literal["student", "ensemble"]
    model_name: str
    model_version: str
    timeout: float
    retry: Retry
    in_flight: int
    max_request_bytes: int
    compression: Literal["gzip"] | None
    shared_memory: bool
    server_timing: bool
    keepalive: float
    tls: bool
    tls_ca: str | os.PathLike[str]
    tls_cert: str | os.PathLike[str]
    tls_key: str | os.PathLike[str]
    tls_server_name: str
    token: str
    api_key: str
    plaintext_credentials: bool
    tracing: bool
    on_call: Callable[[CallRecord], object]
    config: str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a client reaches a server, and what it asks of it.

    Each may be an argument; where it is not, the environment variable `MSTKD_` plus its name in
    capitals counts (such as `MSTKD_URL`, `MSTKD_TOKEN`, `MSTKD_TLS_CA`); then the TOML file that
    `config` or `MSTKD_CONFIG` names; then the default. `retry` is a table of the file, and
    `on_call` can only be an argument.

    Attributes:
        url: `host:port` of Triton's gRPC endpoint, without a scheme; `dns:///host:port` and
            `ipv4:host:port,host:port` spread requests over all addresses in turn.
        mode: `student` for the distilled model, `ensemble` for the teacher-projection path.
        model_name: Another model's name; `mode` names it otherwise.
        model_version: A version of it, or "" for the one that the server chooses.
        timeout: Seconds that one request may take, its retries included. It is the deadline of
            the gRPC call and of Triton's queue alike.
        retry: When a failed request is sent again.
        in_flight: The most requests of one call that are sent and not yet delivered.
        max_request_bytes: The most bytes of pixels in one request, where that is less than the
            server takes.
        compression: `gzip` packs requests: for slow lines, not for fast ones.
        shared_memory: Pass pixels through system shared memory where the server is on this
            machine and allows it; on the wire otherwise.
        server_timing: Ask the server for its queue and compute times (two small requests a call).
        keepalive: Seconds between pings of an idle connection, which keep it open through
            firewalls and tell when the other side silently went away (an answer may take as long
            again, 5 to 20 seconds); 0 sends none. A server may hang up on pings that it does not
            expect: `mstkd-serve up` expects one every 10 seconds at most.
        tls: Encrypt, and check the server against the system's authorities. Set by itself where
            `tls_ca` or `tls_cert` is given.
        tls_ca: PEM file of the authorities to check the server against.
        tls_cert: PEM file of this client's certificate chain (mutual TLS).
        tls_key: PEM file of its private key.
        tls_server_name: Name to expect in the server's certificate, where it is not the host's.
        token: Sent as `authorization: Bearer TOKEN`.
        api_key: Sent as `x-api-key: KEY`.
        plaintext_credentials: Allow `token` or `api_key` without TLS beyond this machine, for
            instance where a mesh encrypts.
        tracing: Record an OpenTelemetry span per call and pass its context on (extra
            `telemetry`).
        on_call: Called with a `CallRecord` after each call, for metrics.
    """

    url: str = DEFAULT_URL
    mode: str = "student"
    model_name: str = ""
    model_version: str = ""
    timeout: float = 30.0
    retry: Retry = field(default_factory=Retry)
    in_flight: int = 4
    max_request_bytes: int = 2**31 - 2**20
    compression: str | None = None
    shared_memory: bool = False
    server_timing: bool = False
    keepalive: float = 0.0
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    plaintext_credentials: bool = False
    tracing: bool = False
    on_call: Callable[[CallRecord], object] | None = None

    def __post_init__(self) -> None:
        if not _URL.fullmatch(self.url):
            raise InvalidSettings(
                f"url {self.url!r} must be host:port without a scheme, e.g. {DEFAULT_URL}"
            )
        if self.mode not in MODES:
            raise InvalidSettings(f"mode {self.mode!r} must be one of {', '.join(MODES)}")
        if self.model_version and not self.model_version.isdecimal():
            raise InvalidSettings(
                f"model_version {self.model_version!r} must be a number such as '1', or ''"
            )
        check_seconds("timeout", self.timeout, least=0.0, above=True)
        check_seconds("keepalive", self.keepalive, least=0.0)
        if not 1 <= self.in_flight <= 1024:
            raise InvalidSettings(f"in_flight must lie in 1 to 1024, got {self.in_flight}")
        if self.max_request_bytes < 112 * 112 * 3:
            raise InvalidSettings(
                f"max_request_bytes must hold one face, 37632 bytes; got {self.max_request_bytes}"
            )
        if self.compression not in (None, "gzip"):
            raise InvalidSettings(f"compression {self.compression!r} must be 'gzip' or None")
        self._check_security()

    def _check_security(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidSettings("tls_cert and tls_key go together: give both or neither")
        for name in ("token", "api_key"):
            secret = getattr(self, name)
            if secret is not None and not re.fullmatch(r"[\x21-\x7e]+", secret):
                raise InvalidSettings(f"{name} must be printable ASCII without spaces")
        if (
            (self.token or self.api_key)
            and not self.secure
            and not self.plaintext_credentials
            and not self.is_local
        ):
            raise InvalidSettings(
                f"token and api_key would travel to {self.url} unencrypted: set tls=True, or "
                "plaintext_credentials=True where something else encrypts"
            )

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or bool(self.tls_ca or self.tls_cert or self.tls_server_name)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, going by its address."""
        return bool(_LOOPBACK.match(self.url))

    @property
    def model(self) -> str:
        """Name of the model that embeds."""
        return self.model_name or self.mode

    @property
    def headers(self) -> dict[str, str]:
        """The credentials as gRPC metadata."""
        headers = {}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        if self.api_key:
            headers["x-api-key"] = self.api_key
        return headers


KINDS: Final[dict[str, type]] = {
    "timeout": float,
    "in_flight": int,
    "max_request_bytes": int,
    "shared_memory": bool,
    "server_timing": bool,
    "keepalive": float,
    "tls": bool,
    "plaintext_credentials": bool,
    "tracing": bool,
}
"""Types of the settings that are no strings."""


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise InvalidSettings for a value of another type; a whole number is a number, too."""
    accepted = int | float if kind is float else kind
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise InvalidSettings(f"{name} must be a {kind.__name__}, got a {type(value).__name__}")


def check_seconds(name: str, value: float, *, least: float, above: bool = False) -> None:
    """Raise InvalidSettings for what is no number of seconds from `least` (or above it) on."""
    if not math.isfinite(value) or value < least or (above and value == least):
        relation = "above" if above else "of at least"
        raise InvalidSettings(
            f"{name} must be a number of seconds {relation} {least:g}, got {value}"
        )
