"""Where the time of a call went."""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one call went, seconds.

    Requests of a call overlap, so `round_trip`, which adds them up, may exceed `total`. `queue`
    and `compute` come from the server's statistics: they are this call's own where nobody else
    used the model meanwhile, and its share by number of requests otherwise.

    Attributes:
        total: From the call to its return.
        client: Reading faces, packing requests, unpacking answers.
        round_trip: From sending each request to its answer, added up; retries count from the
            last attempt.
        queue: Waiting in the server's queue, added up; None where it was not asked for.
        compute: Inference, added up; None where it was not asked for.
        requests: Number of requests that were answered.
        retries: Number of attempts that failed and were made again.
    """

    total: float
    client: float
    round_trip: float
    queue: float | None = None
    compute: float | None = None
    requests: int = 0
    retries: int = 0

    @property
    def network(self) -> float | None:
        """What is left of `round_trip`: the line, gRPC and the server's own overhead."""
        if self.queue is None or self.compute is None:
            return None
        return max(0.0, self.round_trip - self.queue - self.compute)


_NANOSECONDS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ServerCount:
    """A model's running totals, as the server's statistics give them.

    Attributes:
        requests: Requests answered.
        queue: Seconds spent in the queue.
        compute: Seconds spent on input, inference and output.
    """

    requests: int
    queue: float
    compute: float

    @classmethod
    def read(cls, statistics: Any) -> "ServerCount":
        """Add up all versions of a `ModelStatisticsResponse`."""
        requests, queue, compute = 0, 0.0, 0.0
        for model in statistics.model_stats:
            parts = model.inference_stats
            requests += int(parts.success.count)
            queue += float(parts.queue.ns) * _NANOSECONDS
            for part in (parts.compute_input, parts.compute_infer, parts.compute_output):
                compute += float(part.ns) * _NANOSECONDS
        return cls(requests, queue, compute)

    def share(self, before: "ServerCount", requests: int) -> tuple[float, float] | None:
        """Return queue and compute seconds of `requests` among those answered since `before`.

        None where the server counted none: it was restarted, or has not counted them yet.
        """
        answered = self.requests - before.requests
        if answered <= 0:
            return None
        part = requests / answered
        return (self.queue - before.queue) * part, (self.compute - before.compute) * part
