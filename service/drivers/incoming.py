"""Owns the requests of a connection: what each is told, and two ways to a reply, the direct one and a refusal.

A connection tells a request when its turn has come (`begin`), what comes of its body (`add`), that it is whole (`end`)
and that its client has gone (`leave`). The request sends one reply, whole, and tells the connection (`replied`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from service.api.endpoint import Endpoint
from service.api.http import HttpRequest, Reply
from service.api.weight import HeavyAfterAll
from service.drivers.asgi import ExpressLane
from service.drivers.direct import DirectRequest
from service.errors import LayertapError


class Connection(Protocol):
    """What a request needs of the connection that it came on."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    tasks: set[asyncio.Task[None]]

    def is_last(self, request: Incoming) -> bool:
        """Whether the connection ends with the reply to this request."""
        ...

    def lines(self, *, last: bool, old: bool) -> str:
        """Header lines that every reply has.

        Args:
            last: the connection ends with it.
            old: the client speaks HTTP/1.0, where a connection that goes on has to be told so.
        """
        ...

    def send(self, head: bytes, body: bytes) -> None:
        """Sends a whole reply."""
        ...

    def replied(self, *, last: bool) -> None:
        """The current request's reply was sent: the next one's turn comes, or the connection ends."""
        ...

    def is_too_much(self, size: int) -> bool:
        """Whether so many bytes are more than are read for nothing."""
        ...

    def pause(self) -> None:
        """Reads nothing more from the client for now."""
        ...

    def resume(self) -> None:
        """Reads again."""
        ...

    def go_the_long_way(self, request: SmallRequest) -> None:
        """Hands a request, read whole, to the application after all."""
        ...


class Incoming:
    """One request.

    Args:
        connection: where it came from.
        keep_alive: whether its client wants the connection to outlive it.
        old: whether it came as HTTP/1.0.

    Attributes:
        size: of its body as far as it was read, in bytes.
        replied: whether it has its reply.
        fed: how many bytes of the connection were read for that, about; more where the body comes in chunks.
    """

    __slots__ = ("connection", "fed", "keep_alive", "old", "replied", "size")

    def __init__(self, connection: Connection, *, keep_alive: bool, old: bool) -> None:
        self.connection = connection
        self.keep_alive = keep_alive
        self.old = old
        self.replied = False
        self.size = self.fed = 0

    def begin(self) -> None:
        """Its turn has come: whatever came before it on its connection has its reply."""

    def add(self, piece: bytes) -> None:
        """More of its body was read."""

    def end(self) -> None:
        """It was read whole; may be before its turn."""

    def fail(self, error: LayertapError) -> bool:  # noqa: ARG002 for those that can
        """The rest of its body will not come; returns whether it answers that by itself."""
        return False

    def leave(self) -> None:
        """The client has gone; nothing can be sent any more."""

    def send(self, reply: Reply) -> None:
        """Sends the reply, and tells the connection."""
        self.reply(reply.head, reply.body)

    def reply(self, head: Callable[[str], bytes], body: bytes) -> None:
        """Sends a whole reply, and tells the connection.

        Args:
            head: of the reply, with the header lines that it is given.
            body: of the reply.
        """
        self.replied = True
        connection = self.connection
        last = connection.is_last(self)
        connection.send(head(connection.lines(last=last, old=self.old)), body)
        connection.replied(last=last)


class SmallRequest(Incoming):
    """A request on its direct way, begun once it is whole; its turn has always come.

    Args:
        connection, keep_alive, old: as above.
        lane: answers it.
        endpoint: its route.
        request: still without its body.
    """

    __slots__ = ("_direct", "_endpoint", "_lane", "request")

    def __init__(
        self,
        connection: Connection,
        lane: ExpressLane,
        endpoint: Endpoint,
        request: HttpRequest,
        *,
        keep_alive: bool,
        old: bool,
    ) -> None:
        super().__init__(connection, keep_alive=keep_alive, old=old)
        self._lane = lane
        self._endpoint = endpoint
        self.request = request
        self._direct: DirectRequest | None = None

    def add(self, piece: bytes) -> None:
        """More of its body was read."""
        self.request.body += piece

    def end(self) -> None:
        """It was read whole: off it goes."""
        if self._endpoint.is_heavy(self.request):
            self.connection.go_the_long_way(self)
            return
        try:
            direct = self._lane.begin(self._endpoint, self.request, self.answer)
        except HeavyAfterAll:
            self.connection.go_the_long_way(self)
            return
        if not self.replied:
            self._direct = direct

    def leave(self) -> None:
        """The client has gone."""
        if self._direct is not None:
            self._direct.leave()

    def answer(self, reply: Reply) -> None:
        """Sends the reply."""
        self._direct = None  # it holds this method: together they would be garbage for `gc`
        self.send(reply)


class Refused(Incoming):
    """A request that is not worth reading: its body is read and forgotten, then it gets a reply that was there before.

    Args:
        connection, keep_alive, old: as above.
        refuse: gives the whole reply, with the header lines that it is given.
    """

    __slots__ = ("_its_turn", "_refuse", "_whole")

    def __init__(
        self, connection: Connection, refuse: Callable[[str], bytes], *, keep_alive: bool, old: bool
    ) -> None:
        super().__init__(connection, keep_alive=keep_alive, old=old)
        self._refuse = refuse
        self._its_turn = self._whole = False

    def begin(self) -> None:
        """Its turn has come."""
        self._its_turn = True
        self._refuse_once_due()

    def add(self, piece: bytes) -> None:  # noqa: ARG002 nobody reads it
        """More of its body came; it is not heard out for ever."""
        if self.connection.is_too_much(self.size):
            self.keep_alive = False
            self.end()

    def end(self) -> None:
        """It was read as far as it will be."""
        self._whole = True
        self._refuse_once_due()

    def _refuse_once_due(self) -> None:
        if self._its_turn and self._whole and not self.replied:
            self.reply(self._refuse, b"")
