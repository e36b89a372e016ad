"""Owns what the connections of one event loop share: how many there may be, and how long each may take for what.

All of them are looked at about once a second, which takes the place of a timer for each request. One that is new or
idle, whose head or body does not come, or whose client leaves its reply untaken is closed once its time is over. Where
there are too many, those go first that are idle, the longest before the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from email.utils import formatdate
from enum import Enum
from typing import Any, Protocol

from uvicorn.server import ServerState

from service.drivers.limits import ConnectionLimits
from service.errors import LayertapError, RequestTimedOut, TooManyConnections
from service.memory import Memory
from service.telemetry import Metrics

_log = logging.getLogger("layertap.connections")

_LOOK_EVERY_S = 1.0
_LOOK_OFTEN_S = 0.05  # while the server stops
_LAST_WORD_S = 1.0  # while it stops, for clients that are in the middle of a request and silent
_SHORT = 0.75  # the part of the connections that may be open before idle ones are closed early
_SHORT_KEEP_ALIVE_S = 5.0
_RANK_EVERY_S = 0.1
_SLOW_S = 1.0  # since when a client has not taken all of its reply, so that it may have to go
_TELL_EVERY_S = 60.0


class Phase(Enum):
    """What a connection waits for."""

    NEW = "new"  # its first request
    IDLE = "idle"  # its next request
    HEAD = "head"  # the rest of a head
    BODY = "body"  # the rest of a body
    ANSWERING = "answering"  # us
    SENDING = "sending"  # its client, to take a reply
    LINGERING = "lingering"  # its client, to read the last reply and go


_EXPENDABLE = {
    Phase.LINGERING: 0,
    Phase.NEW: 1,
    Phase.IDLE: 1,
    Phase.HEAD: 2,
    Phase.BODY: 2,
    Phase.SENDING: 2,
}
"""Where there are too many: which go first; those that wait for us never do."""


class Watch:
    """What the last look saw of a connection.

    Attributes:
        phase: of the connection.
        first: bytes that had been moved for this phase when it was first seen.
        moved: bytes that have been moved by now.
        moved_at: when that was first seen, in seconds of the loop's clock.
    """

    __slots__ = ("first", "moved", "moved_at", "phase")

    def __init__(self) -> None:
        self.phase: Phase | None = None
        self.first = self.moved = 0
        self.moved_at = 0.0


class Watched(Protocol):
    """What is asked of a connection.

    Attributes:
        transport: its socket.
        since: when it was first seen in its phase, in seconds of the loop's clock; `None` where a request has begun
            since then.
        watch: what was seen.
    """

    transport: asyncio.Transport
    since: float | None
    watch: Watch

    @property
    def phase(self) -> Phase:
        """What it waits for."""
        ...

    def moved(self, phase: Phase) -> int:
        """How many bytes have been moved in this phase, from any start."""
        ...

    def refuse(self, error: LayertapError) -> None:
        """Answers what cannot be read, once its turn has come, and reads nothing more."""
        ...


class Connections(ServerState):
    """Every connection of one event loop; to uvicorn, its server's state.

    Args:
        limits: for each of them.
        metrics: where they are counted.
        memory: what requests hold together; those who leave their replies untaken have to go where it is short.

    Attributes:
        limits: as given.
        memory: as given.
        closing: connections end with the next reply.
        draining: nobody new comes: what was sent is answered, and then connections end.
        date: the header line of every reply. Source: RFC 9110, section 6.6.1.
    """

    connections: set[Any]

    def __init__(self, limits: ConnectionLimits, metrics: Metrics, memory: Memory) -> None:
        super().__init__()
        self.limits = limits
        self.memory = memory
        self._refusals = memory.refusals
        self._wants_memory = False
        self.closing = False
        self.draining = False
        self.date = ""
        self._metrics = metrics
        metrics.connection_limit.set(limits.max_connections)
        self._patience_s = {
            Phase.NEW: limits.header_timeout_s,
            Phase.HEAD: limits.header_timeout_s,
            Phase.BODY: limits.body_timeout_s,
            Phase.SENDING: limits.send_timeout_s,
            Phase.LINGERING: limits.linger_timeout_s,
        }
        self._every_s = min(_LOOK_EVERY_S, min(limits.keep_alive_s, *self._patience_s.values()) / 4)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._draining_since = 0.0
        self._lively: set[Watched] = set()  # that have just sent something, when draining began
        self._ranked: deque[tuple[Watched, float | None]] = deque()
        self._ranked_at = self._told_at = float("-inf")

    @property
    def room(self) -> int:
        """How many more may come before others have to go."""
        return self.limits.max_connections - len(self.connections)

    def opened(self, connection: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Somebody has come; where there are too many somebody else has to go, else the newcomer."""
        self._loop = loop
        stays = self.room > 0 or self.make_room("too_many")
        self.connections.add(connection)
        if self._next is None:
            self._look()
        if not stays:
            self._metrics.connections_closed.labels("refused").inc()
            connection.refuse(
                TooManyConnections(
                    f"Expected at most {self.limits.max_connections} connections (max_connections). "
                    "Received: one more, while all others are being answered."
                )
            )

    def lost(self, connection: Watched) -> None:
        """It is closed."""
        self.connections.discard(connection)
        self._lively.discard(connection)

    def drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody new comes any more."""
        if self.draining:
            return
        self.closing = self.draining = True
        self._draining_since = now = loop.time()
        for connection in self.connections:
            if connection.since is None or now - connection.since < self._every_s:
                self._lively.add(connection)
            # What a client has just sent is read before its connection passes for idle.
            connection.since = None
        if self._next is not None:
            self._next.cancel()
            self._look()

    def go_on(self) -> None:
        """Somebody may come again, and connections last."""
        self.closing = self.draining = False
        self._lively.clear()

    def make_room(self, reason: str) -> bool:
        """Closes the connection that can best be spared; returns whether there was one."""
        loop = self._loop
        if loop is None:
            return False
        self._tell_shortage(loop.time())
        if not self._ranked and loop.time() - self._ranked_at >= _RANK_EVERY_S:
            self._rank(loop.time())
        while self._ranked:
            connection, since = self._ranked.popleft()
            if (
                connection.since == since
                and connection in self.connections
                and connection.phase in _EXPENDABLE
            ):
                self._metrics.connections_closed.labels(reason).inc()
                self.connections.discard(connection)  # its socket closes once the loop comes round
                connection.transport.abort()
                return True
        return False

    def ran_out_of_files(self, error: OSError) -> None:
        """The system gives no file descriptor for a client who waits: somebody else's may be had."""
        if not self.make_room("too_many") and self._loop is not None and self._may_tell(self._loop.time()):
            _log.error("a client cannot be let in: %s", error)

    def _rank(self, now: float) -> None:
        """Puts those that can be spared in the order in which they go."""
        self._ranked_at = now
        found: list[tuple[int, float, int, Watched, float | None]] = []
        for connection in self.connections:
            rank = _EXPENDABLE.get(connection.phase)
            if rank is not None and not connection.transport.is_closing():
                since = connection.since
                found.append((rank, now if since is None else since, len(found), connection, since))
        self._ranked.extend((connection, since) for *_, connection, since in sorted(found))

    def _may_tell(self, now: float) -> bool:
        """Whether the log has heard nothing of a shortage for a while."""
        if now - self._told_at < _TELL_EVERY_S:
            return False
        self._told_at = now
        return True

    def _tell_shortage(self, now: float) -> None:
        if self._may_tell(now):
            phases = Counter(connection.phase.value for connection in self.connections)
            _log.warning(
                "connections are short: %d of %d are open (max_connections); idle ones are closed early",
                len(self.connections), self.limits.max_connections, extra={"fields": {"phases": dict(phases)}},
            )  # fmt: skip

    # -- looking ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Looks at every connection; while there is none, nobody looks."""
        loop = self._loop
        if loop is None or not self.connections:
            self._next = None
            self._count(Counter())
            return
        self.date = f"date: {formatdate(time.time(), usegmt=True)}\r\n"
        now = loop.time()
        if len(self.connections) > _SHORT * self.limits.max_connections:
            self._tell_shortage(now)
        phases = Counter(self._look_at(connection, now) for connection in list(self.connections))
        self._count(phases)
        self._look_at_memory(now)
        self._next = loop.call_later(_LOOK_OFTEN_S if self.draining else self._every_s, self._look)

    def _count(self, phases: Counter[Phase]) -> None:
        for phase in Phase:
            self._metrics.connections.labels(phase.value).set(phases[phase])

    def _look_at(self, connection: Watched, now: float) -> Phase:
        """Closes a connection whose time is over; gives its phase."""
        watch, phase = connection.watch, connection.phase
        moved = connection.moved(phase)
        if connection.since is None or phase is not watch.phase:
            connection.since = watch.moved_at = now
            watch.phase = phase
            watch.first = watch.moved = moved
        else:
            if moved != watch.moved:
                watch.moved, watch.moved_at = moved, now
            age_s, still_s = now - connection.since, now - watch.moved_at
            if phase is Phase.IDLE:
                over = age_s >= self._keep_alive_s(connection)
            else:
                over = self._is_over(phase, age_s, still_s, moved - watch.first, now)
            if over:
                self._end(connection, phase)
        return phase

    def _keep_alive_s(self, connection: Watched) -> float:
        """How long a connection may be idle now. Whoever was busy a moment ago may have sent what is not here yet."""
        keep_s = self.limits.keep_alive_s
        if self.draining:
            return min(keep_s, _LAST_WORD_S) if connection in self._lively else 0.0
        short = len(self.connections) > _SHORT * self.limits.max_connections
        return min(keep_s, _SHORT_KEEP_ALIVE_S) if short else keep_s

    def _is_over(self, phase: Phase, age_s: float, still_s: float, moved: int, now: float) -> bool:
        """Whether a connection that is not idle has had its time.

        Args:
            phase: what it waits for.
            age_s: for how long.
            still_s: for how long no byte has been moved.
            moved: bytes that were, meanwhile.
            now: the loop's clock.
        """
        if phase is Phase.ANSWERING:
            return False
        patience_s = self._patience_s[phase]
        if self.draining and now - self._draining_since >= patience_s:
            return True
        if phase is Phase.SENDING or phase is Phase.BODY:
            least = self.limits.min_rate_bytes_s
            slow = least > 0 and age_s >= patience_s + moved / least
            hurried = self.draining and phase is Phase.BODY
            return slow or still_s >= (min(_LAST_WORD_S, patience_s) if hurried else patience_s)
        return age_s >= (min(_LAST_WORD_S, patience_s) if self.draining else patience_s)

    def _look_at_memory(self, now: float) -> None:
        """Where requests were refused for want of memory, half of those go whose clients leave their replies untaken."""
        memory = self.memory
        self._wants_memory |= memory.refusals != self._refusals
        self._refusals = memory.refusals
        if not self._wants_memory or memory.held < memory.limit // 2:
            self._wants_memory = False
            return
        slow = [
            (since, place, connection)
            for place, connection in enumerate(self.connections)
            if connection.phase is Phase.SENDING
            and (since := connection.since) is not None
            and now - since >= _SLOW_S
        ]
        self._wants_memory = not slow  # else it shows whether that was enough
        for _, _, connection in sorted(slow)[: (len(slow) + 1) // 2]:
            self._metrics.connections_closed.labels("memory").inc()
            connection.transport.abort()

    def _end(self, connection: Watched, phase: Phase) -> None:
        self._metrics.connections_closed.labels(phase.value).inc()
        if phase is Phase.HEAD:
            limit_s = self.limits.header_timeout_s
            connection.refuse(
                RequestTimedOut(
                    f"Expected the head of a request within {limit_s:g} s (header_timeout_s). Received: a part of it."
                )
            )
        elif phase is Phase.BODY:
            connection.refuse(
                RequestTimedOut(
                    f"Expected more of the body within {self.limits.body_timeout_s:g} s (body_timeout_s), and "
                    f"{self.limits.min_rate_bytes_s} bytes a second (min_rate_bytes_s). Received: less."
                )
            )
        elif phase in (Phase.SENDING, Phase.LINGERING):
            connection.transport.abort()
        else:
            connection.transport.close()
