"""Owns what is ours of a connection: small inference requests take a direct way, everything else is uvicorn's.

uvicorn reads and writes HTTP (httptools parses it) and starts a task for each request, which speaks ASGI with the
application. Here a small request that was read whole goes straight to `ExpressLane.begin`, and its reply straight to
the transport. Whatever is not plain (a large, chunked or heavy body, `Expect`, another route or method, requests sent
without waiting for a reply, a client that reads slowly) is left to uvicorn, untouched.

Source of what is taken over: `HttpToolsProtocol` in uvicorn/protocols/http/httptools_impl.py of uvicorn 0.54.0.
"""

from __future__ import annotations

import http
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.endpoint import Endpoint
from service.api.http import HttpRequest, Reply, join_headers
from service.asgi import ExpressLane
from service.direct import DirectRequest

_STATUS_LINES = {int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}


class SmallRequest:
    """A request on its direct way; to uvicorn it is the connection's current cycle.

    Args:
        connection: where it came from.
        endpoint: its route.
        path: without the query.
        query: raw.
        headers: lower-case names.
        keep_alive: whether the connection outlives it; uvicorn writes it, too, when the server stops.

    Attributes:
        response_complete: read by uvicorn, which begins the next request of the connection after this one.
    """

    __slots__ = (
        "connection",
        "direct",
        "endpoint",
        "headers",
        "keep_alive",
        "path",
        "pieces",
        "query",
        "response_complete",
    )

    def __init__(
        self,
        connection: Protocol,
        endpoint: Endpoint,
        path: str,
        query: bytes,
        headers: dict[bytes, bytes],
        *,
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.endpoint = endpoint
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self.response_complete = False
        self.direct: DirectRequest | None = None

    def whole(self) -> HttpRequest:
        """The request, once its body is complete."""
        pieces = self.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return HttpRequest("POST", self.path, self.query, self.headers, body)

    def answer(self, reply: Reply) -> None:
        """Sends the reply, head and body in one piece."""
        self.response_complete = True
        self.direct = None  # it holds this method: together they would be garbage for `gc`
        head = f"{_STATUS_LINES[reply.status]}content-type: {reply.content_type}\r\ncontent-length: {len(reply.body)}\r\n"
        for name, value in reply.headers.items():
            head += f"{name}: {value}\r\n"
        head += "\r\n" if self.keep_alive else "connection: close\r\n\r\n"
        connection = self.connection
        connection.transport.write(head.encode("latin-1") + reply.body)
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
        self._refused: bytes | None = None  # the reply to a request that is not worth reading

    def on_message_begin(self) -> None:
        """A request begins; what only uvicorn needs of it waits until it is known to be uvicorn's."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """A request's head was read: it may be too late for it, it may be small, or it is uvicorn's."""
        lane = self._lane
        if lane is not None:
            rounds = lane.rounds(self.loop)
            reading_s = rounds.read()
            if lane.refusals.is_late(reading_s, rounds.waited_s, self.url):
                self._refused = self._refusal(lane, reading_s + rounds.waited_s)
                if self._refused is not None:
                    return
        self._reading = small = self._as_small()
        if small is None:
            self._leave_to_uvicorn()
        else:
            self.cycle = self._answering = small

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
        super().connection_lost(exc)

    def _refusal(self, lane: ExpressLane, behind_s: float) -> bytes | None:
        """The reply to a request that comes too late, if it is a plain one to a route of inference."""
        parser, path = self.parser, self.url.partition(b"?")[0]
        if parser.get_method() != b"POST" or self.expect_100_continue or self.root_path or not path.isascii():
            return None
        if self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return None
        endpoint = lane.endpoint(path.decode("ascii"))
        if endpoint is None or not parser.should_keep_alive() or parser.get_http_version() == "1.0":
            return None
        given = next((value for name, value in self.headers if name == b"x-request-id"), None)
        return lane.refusals.refuse(endpoint, behind_s, given)

    def _as_small(self) -> SmallRequest | None:
        """The request whose head was just read, where it can take the direct way."""
        lane, parser, url = self._lane, self.parser, self.url
        if lane is None or parser.get_method() != b"POST" or self.expect_100_continue or self.root_path:
            return None
        if self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return None
        headers = join_headers(self.headers)
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > lane.small_body_bytes:
            return None
        path, _, query = url.partition(b"?")
        if path[:1] != b"/" or b"%" in path or not url.isascii() or b"#" in url or parser.should_upgrade():
            return None
        name = path.decode("ascii")
        endpoint = lane.endpoint(name)
        if endpoint is None:
            return None
        keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        return SmallRequest(self, endpoint, name, query, headers, keep_alive=keep_alive)

    def _leave_to_uvicorn(self) -> None:
        """Begins the request as uvicorn does, with the head that was read."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
