"""Owns what the connections of one event loop share, and the look at all of them about once a second.

That look takes the place of a timer for each request: it closes what has been idle for too long.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol

from uvicorn.server import ServerState

from service.settings import Settings

_LOOK_EVERY_S = 1.0
_LOOK_OFTEN_S = 0.05  # while the server stops


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The part of the settings that connections need; each is described there."""

    keep_alive_s: float
    linger_timeout_s: float
    max_unread_bytes: int
    max_head_bytes: int
    max_headers: int
    max_target_bytes: int


def limits_of(settings: Settings) -> ConnectionLimits:
    """The limits that the settings say."""
    names = (field.name for field in dataclasses.fields(ConnectionLimits))
    return ConnectionLimits(**{name: getattr(settings, name) for name in names})


class Watched(Protocol):
    """What is looked at of a connection.

    Attributes:
        transport: its socket.
        since: when it was first seen in its state, in seconds of the loop's clock; `None` where that changed.
    """

    transport: asyncio.Transport
    since: float | None

    @property
    def idle(self) -> bool:
        """Whether it waits for a request of which nothing was read yet."""
        ...

    @property
    def lingers(self) -> bool:
        """Whether its last reply was sent, and it is only open so that the client comes to read that."""
        ...


class Connections(ServerState):
    """Every connection of one event loop; to uvicorn, its server's state.

    Args:
        limits: for each of them.

    Attributes:
        limits: as given.
        draining: the server stops: what was sent is answered, and then connections end.
        date: the header line of every reply. Source: RFC 9110, section 6.6.1.
    """

    connections: set[Any]

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self.draining = False
        self.date = ""

    def opened(self, connection: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Somebody has come."""
        self.connections.add(connection)
        if self._next is None:
            self._loop = loop
            self._look()

    def lost(self, connection: Watched) -> None:
        """It is closed."""
        self.connections.discard(connection)

    def drain(self) -> None:
        """The server stops."""
        if not self.draining:
            self.draining = True
            if self._next is not None:
                self._next.cancel()
                self._look()

    def _look(self) -> None:
        """Looks at every connection; while there is none, nobody looks."""
        loop = self._loop
        if loop is None or not self.connections:
            self._next = None
            return
        self.date = f"date: {formatdate(time.time(), usegmt=True)}\r\n"
        now = loop.time()
        for connection in list(self.connections):
            self._look_at(connection, now)
        self._next = loop.call_later(_LOOK_OFTEN_S if self.draining else self._every_s, self._look)

    @property
    def _every_s(self) -> float:
        limits = self.limits
        return min(_LOOK_EVERY_S, limits.keep_alive_s / 4, limits.linger_timeout_s / 4)

    def _look_at(self, connection: Watched, now: float) -> None:
        if connection.since is None:
            connection.since = now
            return
        age_s = now - connection.since
        if connection.lingers and age_s >= self.limits.linger_timeout_s:
            connection.transport.abort()
        elif connection.idle and (self.draining or age_s >= self.limits.keep_alive_s):
            connection.transport.close()
