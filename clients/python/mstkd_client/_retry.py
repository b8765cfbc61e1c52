"""When a request is sent again, and when no more. No I/O, no clock, no sleeping happens here."""

import random
import threading
from dataclasses import dataclass

from mstkd_client._errors import InvalidSettings, MstkdClientError
from mstkd_client._failures import RETRIED


@dataclass(frozen=True, slots=True)
class Retry:
    """How a client sends a failed request again.

    Only `ServerUnavailable` and `Overloaded` are retried, and never beyond the request's timeout.
    The wait before attempt k + 1 is drawn evenly from 0 to
    `min(max_backoff, initial_backoff * multiplier ** (k - 1))` ("full jitter": Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so that clients which failed
    together do not return together.

    Attributes:
        attempts: Most times that one request is sent, the first included; 1 never retries.
        initial_backoff: Longest wait before the second attempt, seconds.
        max_backoff: Longest wait before any attempt, seconds.
        multiplier: Growth of the longest wait from one attempt to the next.
        budget: Retries that all requests of one client may spend together before answers earn
            new ones; it keeps a client from multiplying the load of a server in trouble.
        refill: Retries that each answer earns, up to `budget`.

    Raises:
        InvalidSettings: A value is out of its range.
    """

    attempts: int = 5
    initial_backoff: float = 0.1
    max_backoff: float = 2.0
    multiplier: float = 2.0
    budget: float = 100.0
    refill: float = 0.1

    def __post_init__(self) -> None:
        ranges = {
            "attempts": (self.attempts, 1, 1000),
            "initial_backoff": (self.initial_backoff, 0, 3600),
            "max_backoff": (self.max_backoff, 0, 3600),
            "multiplier": (self.multiplier, 1, 100),
            "budget": (self.budget, 0, 1e9),
            "refill": (self.refill, 0, 1e9),
        }
        for name, (value, low, high) in ranges.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidSettings(f"retry {name} must be a number, got {value!r}")
            if not low <= value <= high:
                raise InvalidSettings(f"retry {name} must lie in {low} to {high:g}, got {value}")
        if not isinstance(self.attempts, int):
            raise InvalidSettings(f"retry attempts must be a whole number, got {self.attempts}")

    def longest_wait(self, attempt: int) -> float:
        """Return the longest wait after attempt number `attempt` (1 is the first), seconds."""
        grown = self.initial_backoff * self.multiplier ** min(attempt - 1, 64)
        return min(self.max_backoff, grown)


class RetryBudget:
    """What is left of `Retry.budget`; all threads of a client share one."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._left = float(retry.budget)
        self._lock = threading.Lock()

    def answered(self) -> None:
        """Count an answer, which earns `Retry.refill`."""
        with self._lock:
            self._left = min(float(self._retry.budget), self._left + self._retry.refill)

    def wait_before_retry(
        self, kind: type[MstkdClientError], attempt: int, now: float, deadline: float
    ) -> float | None:
        """Decide about a failed attempt.

        Args:
            kind: What went wrong.
            attempt: Number of the attempt that failed, 1 or more.
            now: The clock, seconds.
            deadline: When the request's time is up, on the same clock.

        Returns:
            Seconds to wait before the next attempt, or None where there shall be none.
        """
        if not issubclass(kind, RETRIED) or attempt >= self._retry.attempts:
            return None
        wait = random.uniform(0, self._retry.longest_wait(attempt))
        if now + wait >= deadline:
            return None
        with self._lock:
            if self._left < 1:
                return None
            self._left -= 1
        return wait
