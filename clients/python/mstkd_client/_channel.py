"""The gRPC channel of a client: its arguments, credentials and methods."""

import json
from pathlib import Path
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from mstkd_client._errors import InvalidSettings
from mstkd_client._settings import Settings

_MAX_MESSAGE_BYTES: Final = 2**31 - 1
_LEAST_PATIENCE: Final = 5_000
_MOST_PATIENCE: Final = 20_000
"""Milliseconds that a ping may remain unanswered."""
_ROUND_ROBIN: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


def open_channel(settings: Settings, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """Return a channel for blocking calls; it connects when it is first used."""
    arguments = channel_arguments(settings)
    if credentials is None:
        return grpc.insecure_channel(settings.url, arguments)
    return grpc.secure_channel(settings.url, credentials, arguments)


def open_aio_channel(
    settings: Settings, credentials: grpc.ChannelCredentials | None
) -> grpc.aio.Channel:
    """Return a channel of the running event loop; it connects when it is first used."""
    arguments = channel_arguments(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(settings.url, arguments)
    return grpc.aio.secure_channel(settings.url, credentials, arguments)


class Methods:
    """The methods of Triton's gRPC service on a channel, blocking or asyncio.

    Args:
        channel: Of either kind.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.small = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # Takes bytes: `_wire.encode` writes them with fewer copies than a message.
        self.infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=None,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )


def channel_arguments(settings: Settings) -> list[tuple[str, Any]]:
    """Return gRPC's channel arguments.

    Triton takes and gives messages up to 2 GiB - 1, where gRPC alone would stop at 4 MiB. How
    much one request really holds follows the model's config.
    """
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        # gRPC would wait up to two minutes before it looks again for a server that was away.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Each client a connection of its own: gRPC would share one among equal channels.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if settings.url.startswith(("dns:", "ipv4:", "ipv6:")):
        arguments.append(("grpc.service_config", _ROUND_ROBIN))
    if settings.keepalive > 0:
        interval = max(1, round(settings.keepalive * 1000))
        patience = min(max(interval, _LEAST_PATIENCE), _MOST_PATIENCE)
        arguments += [
            ("grpc.keepalive_time_ms", interval),
            # gRPC waits for the longer of the two, and the second is a minute by default.
            ("grpc.keepalive_timeout_ms", patience),
            ("grpc.http2.ping_timeout_ms", patience),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    if settings.tls_server_name:
        arguments.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return arguments


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Return TLS credentials, or None for a connection without TLS.

    Raises:
        InvalidSettings: A certificate or key file cannot be read or is no PEM file.
    """
    if not settings.secure:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read_pem("tls_ca", settings.tls_ca),
        private_key=_read_pem("tls_key", settings.tls_key),
        certificate_chain=_read_pem("tls_cert", settings.tls_cert),
    )


def _read_pem(name: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidSettings(f"{name} {path}: cannot be read ({error.strerror}).") from error
    if b"-----BEGIN " not in content:
        raise InvalidSettings(f"{name} {path}: not a PEM file.")
    return content
