"""Owns what is ours of a connection: small inference requests take a direct way, everything else is uvicorn's.

uvicorn reads and writes HTTP (httptools parses it) and starts a task for each request, which speaks ASGI with the
application. Here a small request that was read whole goes straight to `ExpressLane.begin`, and its reply straight to
the transport. Whatever is not plain (a large, chunked or heavy body, `Expect`, another route or method, requests sent
without waiting for a reply, a client that reads slowly) is left to uvicorn, untouched.

Source of what is taken over: `HttpToolsProtocol` in uvicorn/protocols/http/httptools_impl.py of uvicorn 0.54.0.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.endpoint import Endpoint
from service.api.http import HttpRequest, Reply, join_headers
from service.drivers.asgi import ExpressLane, Route
from service.drivers.direct import DirectRequest


class SmallRequest:
    """A request on its direct way; to uvicorn it is the connection's current cycle.

    Args:
        connection: where it came from.
        endpoint: its route.
        request: still without its body.
        keep_alive: whether the connection outlives it; uvicorn writes it, too, when the server stops.

    Attributes:
        response_complete: read by uvicorn, which begins the next request of the connection after this one.
    """

    __slots__ = (
        "connection",
        "direct",
        "endpoint",
        "keep_alive",
        "pieces",
        "request",
        "response_complete",
    )

    def __init__(
        self, connection: Protocol, endpoint: Endpoint, request: HttpRequest, *, keep_alive: bool
    ) -> None:
        self.connection = connection
        self.endpoint = endpoint
        self.request = request
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self.response_complete = False
        self.direct: DirectRequest | None = None

    def whole(self) -> HttpRequest:
        """The request, once its body is complete."""
        pieces = self.pieces
        self.request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self.request

    def answer(self, reply: Reply) -> None:
        """Sends the reply, head and body in one piece."""
        self.response_complete = True
        self.direct = None  # it holds this method: together they would be garbage for `gc`
        connection = self.connection
        connection.transport.write(reply.written("" if self.keep_alive else "connection: close\r\n"))
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()

    def leave(self) -> None:
        """The client has gone."""
        if self.direct is not None:
            self.direct.leave()


class Protocol(HttpToolsProtocol):
    """One connection, for the worker class; arguments are uvicorn's."""

    cycle: Any  # a SmallRequest, too

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lane = self.app if isinstance(self.app, ExpressLane) else None
        self._reading: SmallRequest | None = None
        self._answering: SmallRequest | None = None
        self._idle_since: float | None = None
        self._refused: bytes | None = None  # the reply to a request that is not worth reading

    def on_message_begin(self) -> None:
        """A request begins; what only uvicorn needs of it waits until it is known to be uvicorn's."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """A request's head was read: it may be too late for it, it may be small, or it is uvicorn's."""
        route, lane = self._find_route(), self._lane
        if route is not None and lane is not None:
            endpoint, path, query = route
            self._refused = self._refuse(endpoint, lane)
            if self._refused is not None:
                return
            request = HttpRequest("POST", path, query, join_headers(self.headers), b"")
            length = request.headers.get(b"content-length", b"")
            if length.isdigit() and int(length) <= lane.small_body_bytes:
                small = SmallRequest(self, endpoint, request, keep_alive=self._keeps_alive())
                self.cycle = self._reading = self._answering = small
                return
            if length.isdigit() and self._keeps_alive():
                self._refused = _refuse_heavy(endpoint, request, int(length), lane)
                if self._refused is not None:
                    return
        self._leave_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        """A piece of a body was read."""
        if self._refused is not None:
            return
        if self._reading is None:
            super().on_body(body)
        else:
            self._reading.pieces.append(body)

    def on_message_complete(self) -> None:
        """A request was read whole."""
        if self._refused is not None:
            self.transport.write(self._refused)
            self._refused = None
            self.on_response_complete()
            return
        small, self._reading = self._reading, None
        if small is None or self._lane is None:
            super().on_message_complete()
            return
        request = small.whole()
        if small.endpoint.is_heavy(request):
            self.cycle = self._answering = None
            self._leave_to_uvicorn()
            super().on_body(request.body)
            super().on_message_complete()
        else:
            direct = self._lane.begin(small.endpoint, request, small.answer)
            small.direct = None if small.response_complete else direct

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or the reply that ends the connection was sent."""
        if self._answering is not None:
            self._answering.leave()
        if isinstance(self.cycle, SmallRequest):
            self.cycle = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    # -- idle connections ---------------------------------------------------------------------------------

    # uvicorn sets a timer after each reply and takes it back with the next request. Here it goes on, and looks at how
    # long the connection has been idle when it rings.

    def on_response_complete(self) -> None:
        """A reply was sent: the next request begins, or the connection is idle."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._ring_after(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """The timer rings: the connection is closed if it was idle all the time."""
        self.timeout_keep_alive_task = None
        if self._idle_since is not None:
            left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
            if left_s > 0:
                self._ring_after(left_s)
            else:
                super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _ring_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    # -- requests -----------------------------------------------------------------------------------------

    def _find_route(self) -> Route | None:
        """The route of a plain request for inference on a connection that is free; else `None`."""
        lane, parser = self._lane, self.parser
        if lane is None or parser.get_method() != b"POST" or self.expect_100_continue or self.root_path:
            return None
        if self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return None
        return None if parser.should_upgrade() else lane.route(self.url)

    def _refuse(self, endpoint: Endpoint, lane: ExpressLane) -> bytes | None:
        """The reply to a request that is not worth reading; `None` for all others."""
        rounds = lane.rounds(self.loop)
        reading_s = rounds.read()
        if not lane.refusals.is_late(reading_s, rounds.waited_s, self.url) or not self._keeps_alive():
            return None
        rounds.refused()
        given = next((value for name, value in self.headers if name == b"x-request-id"), None)
        return lane.refusals.refuse(endpoint, reading_s + rounds.waited_s, given)

    def _keeps_alive(self) -> bool:
        parser = self.parser
        return bool(parser.should_keep_alive()) and parser.get_http_version() != "1.0"

    def _leave_to_uvicorn(self) -> None:
        """Begins the request as uvicorn does, with the head that was read."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()


def _refuse_heavy(endpoint: Endpoint, request: HttpRequest, size: int, lane: ExpressLane) -> bytes | None:
    """The reply to a request whose long body is not worth taking in; `None` for all others."""
    error = lane.foresee_refusal(endpoint, request, size)
    if error is None:
        return None
    return lane.refusals.refuse_with(error, endpoint, request.headers.get(b"x-request-id"))
