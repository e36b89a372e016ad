"""Owns a request on its long way, through an ASGI application and as a task of its own.

Its reply is sent once it is whole, so that whatever goes wrong before can still be told: nothing here streams.

Source of the messages: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools

from service.api.http import status_line
from service.api.problems import problem
from service.drivers.incoming import Connection, Incoming
from service.errors import InvalidRequest, LayertapError, ServiceError

_log = logging.getLogger("layertap.connections")

_HIGH_WATER = 64 * 1024  # bytes of a body that wait for the application before no more are read

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def scope_of(
    method: str,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    http_version: str,
    root_path: str,
    known: Mapping[str, Any],
) -> Message:
    """What the application gets of a request.

    Args:
        method: upper case.
        target: raw.
        headers: names in lower case.
        http_version: without its name.
        root_path: what stands before the application's own paths.
        known: what is the same for all requests of a connection.

    Raises:
        InvalidRequest: the target holds no path.
    """
    try:
        url = httptools.parse_url(target)
        path = url.path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, AttributeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"Expected a path as the request's target. Received: {target[:200]!r}."
        ) from error
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": http_version,
        "method": method,
        "root_path": root_path,
        "path": root_path + unquote(path),
        "raw_path": root_path.encode("ascii") + url.path,
        "query_string": url.query or b"",
        "headers": headers,
        **known,
    }


class AsgiRequest(Incoming):
    """A request on its way through an application.

    Args:
        connection, keep_alive, old: as `Incoming`.
        app: answers it.
        scope: what the application gets.
        expects: whether its client waits for `100 Continue` before it sends the body.
    """

    __slots__ = (
        "_app", "_body", "_error", "_expects", "_gone", "_pieces", "_read", "_scope", "_start", "_wake", "_whole",
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
        self._gone = False
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
        if self.replied:
            if self.connection.is_too_much(self.size):
                self.connection.transport.abort()
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
        if not self.replied and not self._gone:
            self._settle(keep_alive=False)
            self.send(problem(error))

    async def _receive(self) -> Message:
        if self._expects and not self._gone:
            self._expects = False
            self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        while not self._gone and not self.replied:
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
        if start is None or self.replied:
            raise RuntimeError(f"Expected one reply, its start first. Received: {message['type']}.")
        if piece := message.get("body", b""):
            self._pieces.append(piece)
        if message.get("more_body", False) or self._gone:
            return
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._settle(keep_alive=not _says_close(start))
        if self._scope["method"] == "HEAD":
            self.reply(partial(_head, start, None), b"")
        else:
            self.reply(partial(_head, start, len(body)), body)

    def _settle(self, *, keep_alive: bool) -> None:
        """There is a reply."""
        self.replied = True
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
