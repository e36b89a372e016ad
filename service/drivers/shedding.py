"""Owns how far an event loop is behind, and the cheapest reply to what it cannot answer in time.

A loop that gets more requests than it can read does not know how many wait in its sockets. It goes round: it reads
what every connection has sent, then prints what the engine has finished. What it reads has waited for up to a round;
its reply needs at least one more, and the engine's time. So the length of rounds tells when replies will be late, and
that is known before a request is parsed. Refusing then costs a fraction of an answer, so the loop catches up.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

from service.api.endpoint import Endpoint
from service.drivers.browsers import guarded
from service.errors import QueueFull
from service.scheduling.admission import retry_after_s
from service.serving.runtime import Runtime
from service.telemetry import UNKNOWN, Telemetry

_NOTICEABLE_S = 0.005  # a round that has taken less is asked nothing more
_READING = 0.1
"""The part of a request's time that one round may read for; what is read later in it is refused. What was read must
still be computed and printed, and waited for about as long before, which leaves half of the time to the engine."""
_WAITED = 0.4
"""The part of its time that a request may have waited unread: a loop that stood still once is not short of time."""

_SHARED_S = 0.0005
"""How long the event loop may keep the interpreter lock from the engine thread while it refuses. That thread needs it a
few times for each batch; with Python's own 5 ms a loop that never rests starves it: at three times the capacity of a
small model a tenth of what it can do was answered."""
_CALM_S = 1.0  # without refusals, until the interval is Python's own again

_TIMEOUT = re.compile(rb"[?&]timeout_ms=([0-9]{1,9})(?:&|$)")


class Rounds:
    """How long an event loop takes to come round; for its own thread.

    Attributes:
        waited_s: how long what is read in this round has waited for it at most.
    """

    __slots__ = ("_began", "_busy", "_loop", "_reading", "_refused", "_usual_s", "waited_s")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = 0.0
        self._reading = False
        self._busy = False
        self._refused = False
        self._usual_s: float | None = None  # the interval to go back to; `None` while it is in force
        self.waited_s = 0.0

    def refused(self) -> None:
        """Takes note that a request is refused; for as long as that goes on the engine gets the lock more often."""
        self._refused = True
        if self._usual_s is None:
            self._usual_s = sys.getswitchinterval()
            sys.setswitchinterval(_SHARED_S)
            self._loop.call_later(_CALM_S, self._calm_down)

    def read(self) -> float:
        """Takes note that a request is read; returns for how long the loop has been reading in this round."""
        now = time.monotonic()
        if self._reading:
            return now - self._began
        self._reading = True
        # A loop that had nothing to do in between would have read it when it came.
        self.waited_s = now - self._began if self._busy else 0.0
        self._began = now
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._came_round)
        return 0.0

    def _calm_down(self) -> None:
        if self._refused:
            self._refused = False
            self._loop.call_later(_CALM_S, self._calm_down)
        elif self._usual_s is not None:
            sys.setswitchinterval(self._usual_s)
            self._usual_s = None

    def _came_round(self) -> None:
        """Called after each reading, and once more; where nothing was read until then the loop is not behind."""
        self._busy = self._reading
        if self._busy:
            self._reading = False
            self._loop.call_soon(self._came_round)


class Refusals:
    """Replies to requests that are refused before they are parsed.

    Args:
        runtime: knows how long requests may take.
        telemetry: where they are recorded.
    """

    def __init__(self, runtime: Runtime, telemetry: Telemetry) -> None:
        self._runtime = runtime
        self._telemetry = telemetry
        self._ready: dict[tuple[str, int], bytes] = {}
        self._rejected = telemetry.metrics.rejected.labels(QueueFull.code)

    def is_late(self, reading_s: float, waited_s: float, url: bytes, named: str | None) -> bool:
        """Whether a request that is read now is not likely to be answered in time, or its model's queue is full.

        A limit in the body is not seen here.

        Args:
            reading_s: how long this round has been reading.
            waited_s: as `Rounds.waited_s`.
            url: path and query, raw.
            named: the model that they name.
        """
        if self._runtime.is_full(named):
            return True
        if reading_s < _NOTICEABLE_S:
            return False
        found = _TIMEOUT.search(url)
        limit_s = self._runtime.deadline(0.0, int(found[1]) / 1000 if found else None)
        return reading_s > _READING * limit_s or waited_s + reading_s > _WAITED * limit_s

    def refuse(
        self, endpoint: Endpoint, named: str | None, behind_s: float, request_id: bytes | None, lines: str
    ) -> bytes:
        """The whole reply for HTTP/1.1, recorded.

        Args:
            endpoint: whose reply it is.
            named: the model that the request names.
            behind_s: how far its loop is behind.
            request_id: the client's own, if any.
            lines: further header lines, each with its end.
        """
        wait_s = retry_after_s(max(behind_s, self._runtime.backlog_s))
        ready = self._ready.get((endpoint.name, wait_s))
        if ready is None:
            ready = self._ready[endpoint.name, wait_s] = _written(endpoint, _too_busy(wait_s))
        return self._recorded(endpoint, named, ready, request_id, lines)

    def refuse_with(
        self, error: QueueFull, endpoint: Endpoint, named: str | None, request_id: bytes | None, lines: str
    ) -> bytes:
        """As `refuse`, with an error that says more."""
        return self._recorded(endpoint, named, _written(endpoint, error), request_id, lines)

    def _recorded(
        self, endpoint: Endpoint, named: str | None, written: bytes, request_id: bytes | None, lines: str
    ) -> bytes:
        own_id = self._telemetry.request_id(request_id)
        self._rejected.inc()
        model = self._runtime.label(named) or UNKNOWN
        self._telemetry.answered(endpoint.name, model, QueueFull.status, None, own_id)
        status_line, _, rest = written.partition(b"\r\n")
        return b"%b\r\nx-request-id: %b\r\n%b%b" % (
            status_line,
            own_id.encode(),
            lines.encode("latin-1"),
            rest,
        )


def _written(endpoint: Endpoint, error: QueueFull) -> bytes:
    reply = guarded(endpoint.problem(error))
    return reply.head() + reply.body


def _too_busy(wait_s: int) -> QueueFull:
    return QueueFull(
        "Expected fewer requests than the service can read in time. Received: more; they are refused unread.",
        retry_after_s=wait_s,
    )
