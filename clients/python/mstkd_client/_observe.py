"""What can be watched of a call: its times, a hook for metrics, an OpenTelemetry span."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mstkd_client._errors import MissingExtra
from mstkd_client._timing import ServerCount, Timing

_LOG: Final = logging.getLogger("mstkd_client")


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What a hook learns of one call. It holds neither pixels nor embeddings.

    Attributes:
        method: `embed`, `embed_stream`, `verify` or `verify_many`.
        model_name: The model asked.
        faces: Number of faces that were answered.
        timing: Where the time went.
        error: Name of the error's type, or None for a call that succeeded.
    """

    method: str
    model_name: str
    faces: int
    timing: Timing
    error: str | None


class Call:
    """One call while it is measured.

    Args:
        method: Name of the method.
        model_name: The model asked.
        tracing: Whether to record an OpenTelemetry span.
        on_call: The caller's hook.

    Raises:
        MissingExtra: `tracing` without OpenTelemetry.
    """

    def __init__(
        self,
        method: str,
        model_name: str,
        *,
        tracing: bool = False,
        on_call: Callable[[CallRecord], object] | None = None,
    ) -> None:
        self.model_name = model_name
        self.faces = 0
        self.requests = 0
        self.retries = 0
        self.round_trip = 0.0
        self.waited = 0.0
        self.before: ServerCount | None = None
        self.after: ServerCount | None = None
        self.headers: dict[str, str] = {}
        self._method = method
        self._on_call = on_call
        self._start = time.perf_counter()
        self._span = _start_span(method, model_name, self.headers) if tracing else None
        self._ended = False

    def answered(self, faces: int, round_trip: float, retries: int) -> None:
        """Count one answered request, and the call's retries so far."""
        self.faces += faces
        self.requests += 1
        self.round_trip += round_trip
        self.retries = retries

    def exclude(self, seconds: float) -> None:
        """Leave out time that the call's consumer took between two results."""
        self._start += seconds

    def timing(self) -> Timing:
        """Return the times up to now."""
        total = time.perf_counter() - self._start
        share = self.after.share(self.before, self.requests) if self.before and self.after else None
        queue, compute = share or (None, None)
        return Timing(
            total=total,
            client=max(0.0, total - self.waited),
            round_trip=self.round_trip,
            queue=queue,
            compute=compute,
            requests=self.requests,
            retries=self.retries,
        )

    def end(self, error: BaseException | None = None) -> None:
        """Report the call to the hook and close its span, once."""
        if self._ended:
            return
        self._ended = True
        failure = type(error).__name__ if error else None
        if self._span is not None:
            _end_span(self._span, self.faces, self.retries, failure)
        if self._on_call is not None:
            record = CallRecord(self._method, self.model_name, self.faces, self.timing(), failure)
            try:
                self._on_call(record)
            except Exception as trouble:  # a hook of the caller must not fail the call
                _LOG.warning("on_call raised %s", type(trouble).__name__)


def _start_span(method: str, model_name: str, headers: dict[str, str]) -> Any:
    """Start a span and put its context into gRPC metadata."""
    try:
        from opentelemetry import propagate, trace
    except ImportError as error:
        raise MissingExtra(
            "tracing needs OpenTelemetry: pip install 'mstkd-client[telemetry]'"
        ) from error
    span = trace.get_tracer("mstkd_client").start_span(
        f"mstkd.{method}",
        kind=trace.SpanKind.CLIENT,
        attributes={"rpc.system": "grpc", "mstkd.model_name": model_name},
    )
    propagate.inject(headers, context=trace.set_span_in_context(span))
    return span


def _end_span(span: Any, faces: int, retries: int, failure: str | None) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("mstkd.faces", faces)
    span.set_attribute("mstkd.retries", retries)
    if failure:
        span.set_attribute("error.type", failure)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
