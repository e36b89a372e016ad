"""Owns the requests of a connection, each with its way to a reply: the direct one, that of ASGI, or a refusal.

A connection tells a request when its turn has come (`begin`), what comes of its body (`add`), that it is whole (`end`)
and that its client has gone (`leave`). The request sends one reply, whole, and tells the connection (`replied`).

Source of ASGI's messages: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from service.api.endpoint import Endpoint
from service.api.http import HttpRequest, Reply, status_line
from service.api.problems import problem
from service.drivers.asgi import ExpressLane
from service.drivers.direct import DirectRequest
from service.errors import LayertapError, ServiceError

_log = logging.getLogger("layertap.connections")

_HIGH_WATER = 64 * 1024  # bytes of a body that wait for the application before no more are read

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Connection(Protocol):
    """What a request needs of the connection that it came on."""

    loop: asyncio.AbstractEventLoop
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
    """

    __slots__ = ("connection", "keep_alive", "old")

    def __init__(self, connection: Connection, *, keep_alive: bool, old: bool) -> None:
        self.connection = connection
        self.keep_alive = keep_alive
        self.old = old

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
        connection = self.connection
        last = connection.is_last(self)
        connection.send(reply.head(connection.lines(last=last, old=self.old)), reply.body)
        connection.replied(last=last)


class SmallRequest(Incoming):
    """A request on its direct way, begun once it is whole; its turn has always come.

    Args:
        connection, keep_alive, old: as above.
        lane: answers it.
        endpoint: its route.
        request: still without its body.
    """

    __slots__ = ("_direct", "_endpoint", "_lane", "_replied", "request")

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
        self._replied = False
        self._direct: DirectRequest | None = None

    def add(self, piece: bytes) -> None:
        """More of its body was read."""
        self.request.body += piece

    def end(self) -> None:
        """It was read whole: off it goes."""
        if self._endpoint.is_heavy(self.request):
            self.connection.go_the_long_way(self)
            return
        direct = self._lane.begin(self._endpoint, self.request, self.answer)
        if not self._replied:
            self._direct = direct

    def leave(self) -> None:
        """The client has gone."""
        if self._direct is not None:
            self._direct.leave()

    def answer(self, reply: Reply) -> None:
        """Sends the reply."""
        self._replied = True
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

    def end(self) -> None:
        """It was read as far as it will be."""
        self._whole = True
        self._refuse_once_due()

    def _refuse_once_due(self) -> None:
        if self._its_turn and self._whole:
            connection = self.connection
            last = connection.is_last(self)
            connection.send(self._refuse(connection.lines(last=last, old=self.old)), b"")
            connection.replied(last=last)


class AsgiRequest(Incoming):
    """A request on its way through an ASGI application, as a task.

    Its reply is sent once it is whole, so that whatever goes wrong before can still be told: nothing here streams.

    Args:
        connection, keep_alive, old: as above.
        app: answers it.
        scope: what the application gets.
        expects: whether its client waits for `100 Continue` before it sends the body.
    """

    __slots__ = (
        "_app", "_body", "_error", "_expects", "_gone", "_pieces", "_read", "_replied", "_scope", "_start", "_wake", "_whole",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, app: App, scope: Message, *, expects: bool, keep_alive: bool, old: bool
    ) -> None:
        super().__init__(connection, keep_alive=keep_alive, old=old)
        self._app = app
        self._scope = scope
        self._expects = expects
        self._body = bytearray()
        self._whole = self._read = False  # the body has come; the application has all of it
        self._gone = self._replied = False
        self._error: LayertapError | None = None
        self._wake = asyncio.Event()
        self._start: Message | None = None
        self._pieces: list[bytes] = []

    def begin(self) -> None:
        """Starts the application."""
        tasks = self.connection.tasks
        task = self.connection.loop.create_task(self._run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def add(self, piece: bytes) -> None:
        """More of its body was read; nobody wants it once there is a reply."""
        if self._replied:
            return
        self._body += piece
        if len(self._body) > _HIGH_WATER:
            self.connection.pause()
        self._wake.set()

    def end(self) -> None:
        """It was read whole."""
        self._whole = True
        self._wake.set()

    def fail(self, error: LayertapError) -> bool:
        """The rest of its body will not come: the application gets the error instead, for it knows its client's words."""
        self._error = error
        self.keep_alive = False
        self._wake.set()
        return True

    def leave(self) -> None:
        """The client has gone."""
        self._gone = True
        self._wake.set()

    async def _run(self) -> None:
        error: LayertapError = ServiceError("The service failed on this request; its log has the cause.")
        try:
            await self._app(self._scope, self._receive, self._send)
        except LayertapError as ours:
            error = ours
        except Exception:  # noqa: BLE001 every request is answered, whatever went wrong
            _log.exception("%s %s failed", self._scope["method"], self._scope["path"])
        if not self._replied and not self._gone:
            self._settle(keep_alive=False)
            self.send(problem(error))

    async def _receive(self) -> Message:
        if self._expects and not self._gone:
            self._expects = False
            self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        while not self._gone and not self._replied:
            if self._error is not None:
                raise self._error
            if self._body or (self._whole and not self._read):
                body, self._body = bytes(self._body), bytearray()
                self._read = self._whole
                self.connection.resume()
                return {"type": "http.request", "body": body, "more_body": not self._whole}
            self._wake.clear()
            await self._wake.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            self._pieces = []
            return
        start = self._start
        if start is None or self._replied:
            raise RuntimeError(f"Expected one reply, its start first. Received: {message['type']}.")
        if piece := message.get("body", b""):
            self._pieces.append(piece)
        if message.get("more_body", False) or self._gone:
            return
        pieces, connection = self._pieces, self.connection
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._settle(keep_alive=not _says_close(start))
        last = connection.is_last(self)
        lines = connection.lines(last=last, old=self.old)
        if self._scope["method"] == "HEAD":
            connection.send(_head(start, None, lines), b"")
        else:
            connection.send(_head(start, len(body), lines), body)
        connection.replied(last=last)

    def _settle(self, *, keep_alive: bool) -> None:
        """There is a reply."""
        self._replied = True
        self._wake.set()
        self.keep_alive = self.keep_alive and keep_alive


def _says_close(start: Message) -> bool:
    return any(name == b"connection" and value == b"close" for name, value in start["headers"])


def _head(start: Message, size: int | None, lines: str) -> bytes:
    """The head of a reply that came as an ASGI message.

    Args:
        start: the message.
        size: of the body, in bytes; `None` where there is none, and its size is the application's to tell.
        lines: further header lines.
    """
    ours = {b"connection", b"date"} if size is None else {b"connection", b"date", b"content-length"}
    head = status_line(start["status"]).encode()
    for name, value in start["headers"]:
        if name not in ours:
            head += b"%b: %b\r\n" % (name, value)
    if size is not None:
        head += b"content-length: %d\r\n" % size
    return head + lines.encode("latin-1") + b"\r\n"
