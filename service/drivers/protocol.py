"""Owns one connection: its requests in their order, each with its way and its turn, and what is sent.

A small request for inference that comes alone takes the direct way (`incoming.SmallRequest`); everything else is a task
that speaks ASGI with the application (`asgi_request.AsgiRequest`). While a request is answered nothing more is parsed, so
what a client sends without waiting cannot pile up here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from service.api.endpoint import Endpoint
from service.api.http import HttpRequest, join_headers
from service.api.problems import problem
from service.drivers.asgi import ExpressLane, Route
from service.drivers.asgi_request import AsgiRequest, scope_of
from service.drivers.connections import Connections, Phase, Watch
from service.drivers.incoming import Incoming, Refused, SmallRequest
from service.drivers.reading import RequestReader
from service.drivers.unsent import untaken_bytes
from service.errors import InvalidRequest, LayertapError

_SMALL = 64 * 1024  # bytes of a reply that are joined with their head: one write is cheaper then


class Protocol(RequestReader):
    """One connection, for the worker class; arguments are those of uvicorn's own protocols."""

    __slots__ = (
        *("_app", "_app_state", "_current", "_held", "_known", "_lane", "_paused", "_root_path", "_state"),
        *(
            "_unread",
            "_untaken",
            "_waiting",
            "_write_paused",
            "lingers",
            "loop",
            "tasks",
            "transport",
            "watch",
        ),
    )

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(server_state.limits)
        self.loop = _loop or asyncio.get_event_loop()
        self.tasks = server_state.tasks
        self._state = server_state
        self._app: Any = config.loaded_app
        self._app_state = app_state
        self._root_path = config.root_path
        self._lane = self._app if isinstance(self._app, ExpressLane) else None
        self._known: dict[str, Any] | None = None  # what the application gets with every request
        self._current: Incoming | None = None  # waits for its reply
        self._waiting: deque[Incoming] = deque()  # wait for their turn
        self._held = b""  # waits to be parsed
        self._paused = False
        self._write_paused = False
        self._unread = 0  # bytes that came and were passed over
        self._untaken = 0  # bytes of a reply that are charged until the client has taken most of them
        self.lingers = False
        self.watch = Watch()

    # -- the socket ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = transport  # type: ignore[assignment]  # a socket's
        self._state.opened(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        """The client has gone, or the reply that ends the connection was sent."""
        self._state.lost(self)
        self._settle()
        if self._current is not None:
            self._current.leave()
        self._current = None
        self._stop_reading()
        self._parser = None  # it holds this object: together they would be garbage for `gc`

    def pause_writing(self) -> None:
        """The client does not read; it gets no further reply until it does."""
        self._write_paused = True
        self._untaken = self.transport.get_write_buffer_size()
        self._state.memory.note(self._untaken)

    def resume_writing(self) -> None:
        """It does again."""
        self._write_paused = False
        self._settle()
        self._go_on()

    def _settle(self) -> None:
        """The reply that was charged is gone."""
        if self._untaken:
            self._state.memory.give_back(self._untaken)
            self._untaken = 0

    @property
    def phase(self) -> Phase:
        """What the connection waits for."""
        if self.transport.get_write_buffer_size():
            return Phase.SENDING
        if self.lingers:
            return Phase.LINGERING
        if not self._paused:  # else it could not send more
            if self._in_head:
                return Phase.HEAD
            if self._reading is not None:
                return Phase.BODY
        if self._current is None and not self._paused:
            return Phase.IDLE if self._url else Phase.NEW
        return Phase.ANSWERING

    def moved(self, phase: Phase) -> int:
        """How many bytes have been moved in this phase, from any start."""
        if phase is Phase.SENDING:
            return -untaken_bytes(self.transport)
        return 0 if self._reading is None else self._reading.size

    def _is_busy(self) -> bool:
        """Whether what comes now belongs to a later request than the one that is answered."""
        return self._write_paused or (self._current is not None and self._reading is None)

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.pause()

    def _overhear(self, size: int) -> None:
        self._unread += size
        if self.is_too_much(self._unread):
            self.transport.abort()

    def is_too_much(self, size: int) -> bool:
        """Whether so many bytes are more than are read for nothing."""
        return size > self._limits.max_unread_bytes

    def _stop_reading(self) -> None:
        """Reads no further requests, nor the rest of one."""
        self._deaf = True
        self._in_head = False
        self._reading = None
        self._head_bytes = 0
        self._held = b""
        self._waiting.clear()

    # -- requests -----------------------------------------------------------------------------------------

    def _admit(self) -> Incoming | None:
        """Takes in the request whose head was read; `None` where it was refused."""
        request = self._find_way()
        if request is not None:
            self._queue(request)
        return request

    def _find_way(self) -> Incoming | None:
        lane, parser = self._lane, self._parser
        keep_alive, old = parser.should_keep_alive(), parser.get_http_version() == "1.0"
        route = self._find_route()
        if route is not None and lane is not None:
            endpoint, path, query, named = route
            refuse = self._find_late(endpoint, named, lane) if keep_alive else None
            if refuse is not None:
                return Refused(self, refuse, keep_alive=True, old=old)
            request = HttpRequest("POST", path, query, join_headers(self._headers), b"")
            length = request.headers.get(b"content-length", b"")
            if length.isdigit() and int(length) <= lane.small_body_bytes:
                return SmallRequest(self, lane, endpoint, request, keep_alive=keep_alive, old=old)
            error = (
                lane.aside.foresee_refusal(endpoint, request, int(length))
                if length.isdigit() and keep_alive
                else None
            )
            if error is not None:
                given = request.headers.get(b"x-request-id")
                refuse = partial(lane.refusals.refuse_with, error, endpoint, named, given)
                return Refused(self, refuse, keep_alive=True, old=old)
        return self._take_the_long_way(keep_alive=keep_alive, old=old)

    def _find_route(self) -> Route | None:
        """The route of a plain request for inference on a connection that is free; else `None`."""
        lane = self._lane
        if (
            lane is None
            or self._current is not None
            or self._expects
            or self._root_path
            or self._write_paused
        ):
            return None
        return lane.route(self._url) if self._parser.get_method() == b"POST" else None

    def _find_late(
        self, endpoint: Endpoint, named: str | None, lane: ExpressLane
    ) -> Callable[[str], bytes] | None:
        """How a request is refused that is not worth reading; `None` for all others."""
        rounds = lane.rounds(self.loop)
        reading_s = rounds.read()
        if not lane.refusals.is_late(reading_s, rounds.waited_s, self._url, named):
            return None
        rounds.refused()
        return partial(lane.refusals.refuse, endpoint, named, reading_s + rounds.waited_s, self._given_id())

    def _given_id(self) -> bytes | None:
        return next((value for name, value in self._headers if name == b"x-request-id"), None)

    def _take_the_long_way(self, *, keep_alive: bool, old: bool) -> AsgiRequest | None:
        """The request whose head was read, for the application; `None` where it was refused."""
        if self._known is None:
            self._known = {
                "server": get_local_addr(self.transport),
                "client": get_remote_addr(self.transport),
                "scheme": "https" if is_ssl(self.transport) else "http",
            }
        if old and any(name == b"transfer-encoding" for name, _ in self._headers):
            keep_alive = (
                False  # RFC 9112, section 6.1: who else reads this connection may see it end elsewhere
            )
        parser, known = self._parser, {**self._known, "state": self._app_state.copy()}
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        try:
            scope = scope_of(
                method, self._url, self._headers, http_version=version, root_path=self._root_path, known=known
            )
        except InvalidRequest as error:
            self.refuse(error)
            return None
        return AsgiRequest(self, self._app, scope, expects=self._expects, keep_alive=keep_alive, old=old)

    def go_the_long_way(self, request: SmallRequest) -> None:
        """Hands a request, read whole, to the application after all."""
        longer = self._take_the_long_way(keep_alive=request.keep_alive, old=request.old)
        if longer is not None:
            self._current = longer
            longer.begin()
            longer.add(request.request.body)
            longer.end()

    def _queue(self, request: Incoming) -> None:
        if self._current is None and not self._write_paused:
            self._current = request
            request.begin()
        else:
            self._waiting.append(request)

    def refuse(self, error: LayertapError) -> None:
        """Answers what cannot be read, once its turn has come, and reads nothing more."""
        reading, waiting = self._reading, [each for each in self._waiting if each is not self._reading]
        self._stop_reading()
        self._waiting.extend(waiting)
        if reading is not None and reading is self._current:
            if reading.fail(error):
                return
            self._current = None
        elif reading is not None and reading.replied:
            self._end()  # it has its reply; there is no second one
            return
        write = partial(self._write_refusal, error, self._url, self._given_id())
        refused = Refused(self, write, keep_alive=False, old=False)
        refused.end()
        self._queue(refused)

    def _write_refusal(self, error: LayertapError, url: bytes, request_id: bytes | None, lines: str) -> bytes:
        reply = problem(error) if self._lane is None else self._lane.refuse(error, url, request_id)
        return reply.head(lines) + reply.body

    # -- replies ------------------------------------------------------------------------------------------

    def is_last(self, request: Incoming) -> bool:
        """Whether the connection ends with the reply to this request."""
        return not request.keep_alive or (
            self._state.closing and not self._waiting and not self._held and self._reading is None
        )

    def lines(self, *, last: bool, old: bool) -> str:
        """Header lines that every reply has; HTTP/1.0 must be told that the connection goes on."""
        if last:
            return f"connection: close\r\n{self._state.date}"
        return f"connection: keep-alive\r\n{self._state.date}" if old else self._state.date

    def send(self, head: bytes, body: bytes) -> None:
        """Sends a whole reply."""
        if self.transport.is_closing():
            return
        try:
            if len(body) <= _SMALL:
                self.transport.write(head + body)
            else:
                self.transport.writelines((head, body))
        except MemoryError:
            self.transport.abort()  # a part of it may be on its way, so nothing else can be said
            raise

    def replied(self, *, last: bool) -> None:
        """The current request's reply was sent: the next one's turn comes, or the connection ends."""
        self._current = None
        self._state.total_requests += 1
        if last:
            self._end()
        elif self._waiting or self._paused:
            self._go_on()

    def _end(self) -> None:
        """The last reply was sent. A reset would take it from a client that still sends: each is heard out first.

        Source: RFC 9112, section 9.6.
        """
        self._stop_reading()
        self.lingers = True
        self.since = None
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume()

    def _go_on(self) -> None:
        """Takes up what has waited for the last reply."""
        if self._waiting and self._current is None and not self._write_paused:
            self._current = self._waiting.popleft()
            self._current.begin()
        while self._held and not self._is_busy():
            held, self._held = self._held, b""
            self._feed_slices(held)
        self.resume()

    def pause(self) -> None:
        """Reads nothing more from the client for now."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Reads again, unless something waits to be parsed."""
        if self._paused and not self._held:
            self._paused = False
            self.transport.resume_reading()
