"""Several requests in flight, their answers in order: a state machine without I/O.

A client asks `Flight.step` what to do next, does it, and reports what came of it. The machine
decides about order, bound and retries; the client's own loop only pulls, sends and waits.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstkd_client._errors import MstkdClientError
from mstkd_client._retry import RetryBudget
from mstkd_client._wire import Answer


@dataclass(eq=False, slots=True)
class Ticket:
    """One request on its way.

    Attributes:
        faces: What is sent, uint8 `(n, 112, 112, 3)`.
        deadline: When its time is up, on the client's clock; set when it is first sent.
        first_sent: When it was first sent.
        attempt: Number of the attempt under way, 1 or more.
        sent: When that attempt was sent, on the client's clock.
        round_trip: Seconds from then to its answer.
        free: Frees the shared memory that holds its pixels; None where none does.
    """

    faces: NDArray[np.uint8] = field(repr=False)
    deadline: float = 0.0
    first_sent: float = 0.0
    attempt: int = 0
    sent: float = 0.0
    round_trip: float = 0.0
    free: Callable[[], None] | None = None
    retry_at: float | None = 0.0
    answer: Answer | None = field(default=None, repr=False)


class Pull(NamedTuple):
    """Get the faces of the next request and report them with `pulled`."""


class Send(NamedTuple):
    """Send a request and report it with `answered` or `failed`."""

    ticket: Ticket


class Deliver(NamedTuple):
    """Hand the answer to the caller."""

    ticket: Ticket
    answer: Answer


class Wait(NamedTuple):
    """Wait for a report, at most until `until` on the client's clock (None: without a bound)."""

    until: float | None


class Done(NamedTuple):
    """All requests were answered and delivered."""


Step = Pull | Send | Deliver | Wait | Done
_PULL: Final = Pull()
_DONE: Final = Done()


class Flight:
    """The requests of one call.

    Args:
        in_flight: The most requests that are sent and not yet delivered, at least 1.
        timeout: Seconds that one request may take, its retries included.
        budget: The client's retries.
    """

    def __init__(self, in_flight: int, timeout: float, budget: RetryBudget) -> None:
        self._in_flight = in_flight
        self._timeout = timeout
        self._budget = budget
        self._tickets: deque[Ticket] = deque()
        self._pulling = False
        self._exhausted = False
        self.retries = 0

    def step(self, now: float) -> Step:
        """Return what to do next."""
        if self._tickets and (answer := self._tickets[0].answer) is not None:
            return Deliver(self._tickets.popleft(), answer)
        waiting = [t for t in self._tickets if t.retry_at is not None]
        if waiting:
            due = min(waiting, key=lambda ticket: ticket.retry_at or 0.0)
            assert due.retry_at is not None
            if due.retry_at <= now:
                return self._send(due, now)
        if not self._exhausted and not self._pulling and len(self._tickets) < self._in_flight:
            self._pulling = True
            return _PULL
        if self._exhausted and not self._tickets:
            return _DONE
        return Wait(due.retry_at if waiting else None)

    def _send(self, ticket: Ticket, now: float) -> Send:
        if ticket.attempt == 0:
            ticket.first_sent = now
            ticket.deadline = now + self._timeout
        ticket.attempt += 1
        ticket.sent = now
        ticket.retry_at = None
        return Send(ticket)

    def pulled(self, faces: NDArray[np.uint8] | None) -> None:
        """Report the faces of the next request, or None where there are no more."""
        self._pulling = False
        if faces is None:
            self._exhausted = True
        else:
            self._tickets.append(Ticket(faces))

    def answered(self, ticket: Ticket, answer: Answer, now: float) -> None:
        """Report the answer to a request."""
        ticket.round_trip = now - ticket.sent
        ticket.answer = answer
        self._budget.answered()

    def failed(self, ticket: Ticket, error: MstkdClientError, now: float) -> None:
        """Report a failure: the request is sent again later, or the whole call ends with it.

        Raises:
            MstkdClientError: `error`, where it is not to be retried.
        """
        wait = self._budget.wait_before_retry(type(error), ticket.attempt, now, ticket.deadline)
        if wait is None:
            raise error
        self.retries += 1
        ticket.retry_at = now + wait
