"""Owns what is read of a connection: from bytes to heads and bodies, by httptools, each within its bounds.

No protocol but HTTP/1 is spoken, so a wish for another one is passed over, as RFC 9110 allows in section 7.8. httptools
takes such a request for one without a body, which would then be read as the next request: its head is read again
without the wish. Source: https://github.com/MagicStack/httptools/issues/124
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httptools

from service.drivers.heads import fault_of_framing, fault_of_head, head_bytes
from service.drivers.incoming import Incoming
from service.drivers.limits import ConnectionLimits
from service.errors import InvalidRequest, LayertapError, NotSupported, ServiceError

_log = logging.getLogger("layertap.connections")

_SLICE = (
    16 * 1024
)  # bytes that are parsed before it is looked whether to read on; no larger than a head may be


class RequestReader(asyncio.Protocol):
    """Reads one connection. What becomes of a request, its subclass says.

    Args:
        limits: of heads.

    Attributes:
        since: as `connections.Watched`.
    """

    __slots__ = (
        *(
            "_deaf",
            "_expects",
            "_head_bytes",
            "_headers",
            "_in_head",
            "_limits",
            "_parser",
            "_reading",
            "_url",
        ),
        "since",
    )

    def __init__(self, limits: ConnectionLimits) -> None:
        self.since: float | None = None
        self._limits = limits
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = False
        self._head_bytes = 0  # at least; 0 where all of it came in one piece
        self._expects = False  # its client waits for `100 Continue`
        self._reading: Incoming | None = None  # whose body is read
        self._deaf = False  # nothing more is read

    # -- what the subclass says ---------------------------------------------------------------------------

    def _admit(self) -> Incoming | None:
        """Takes in the request whose head was read; `None` where it was refused."""
        raise NotImplementedError

    def refuse(self, error: LayertapError) -> None:
        """Answers what cannot be read, once its turn has come, and has nothing more read."""
        raise NotImplementedError

    def _is_busy(self) -> bool:
        """Whether what comes now belongs to a later request than the one that is answered."""
        raise NotImplementedError

    def _hold(self, data: bytes) -> None:
        """Keeps what is to be read later."""
        raise NotImplementedError

    def _overhear(self, size: int) -> None:
        """So many more bytes came after all that is read of the connection."""
        raise NotImplementedError

    # -- bytes --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """From the transport: something came."""
        if self._deaf:
            self._overhear(len(data))
        elif self._is_busy():
            self._hold(data)
        elif len(data) > _SLICE:
            self._feed_slices(data)
        else:
            self._feed(data)

    def _feed_slices(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            if self._deaf:
                self._overhear(len(data) - start)
                return
            if self._is_busy():
                self._hold(data[start:])
                return
            self._feed(view[start : start + _SLICE])

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._deaf:
                self._pass_over_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            _log.error("a request could not be read", exc_info=error.__context__)
            self.refuse(ServiceError("The service failed on this request; its log has the cause."))
        except httptools.HttpParserError as error:
            if not self._deaf:
                self.refuse(
                    InvalidRequest(f"Expected a request in HTTP/1.1. Received: one with a fault ({error}).")
                )
        if self._in_head:
            known = head_bytes(self._url, self._headers)  # what it was read from may have held other requests
            self._head_bytes = self._head_bytes + len(data) if self._head_bytes else max(known, 1)
            self._judge_head()
        elif self._reading is not None:
            self._reading.fed += len(data)
            fault = fault_of_framing(self._limits, self._reading.fed, self._reading.size)
            if fault is not None:
                self.refuse(fault)

    def _judge_head(self) -> None:
        fault = fault_of_head(self._limits, self._url, self._headers, self._head_bytes)
        if fault is not None:
            self.refuse(fault)

    def _pass_over_upgrade(self, rest: bytes | memoryview) -> None:
        """Reads a head again, without its wish for another protocol, and what came after it."""
        old = self._parser
        lines = [b"%b %b HTTP/%b" % (old.get_method(), self._url, old.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self._headers if header[0] != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*lines, b"", b""]))
        if rest and not self._deaf:
            self._feed(rest)

    # -- from the parser --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = []
        self._expects = False
        self._in_head = True
        self.since = None

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what stands behind a body is passed over, as RFC 9110 allows in section 6.5.1."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self._expects = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head was read."""
        self._in_head = False
        limits = self._limits
        if self._head_bytes:  # else it came in one piece that was not too large
            self._head_bytes = max(self._head_bytes, head_bytes(self._url, self._headers))
            self._judge_head()
            self._head_bytes = 0
        elif len(self._headers) > limits.max_headers or len(self._url) > limits.max_target_bytes:
            self._judge_head()
        if self._deaf:
            return
        if self._parser.should_upgrade():
            if self._parser.get_method() == b"CONNECT":
                self.refuse(NotSupported("Expected a request to this server. Received: CONNECT."))
            return  # else it comes again
        self._reading = self._admit()

    def on_body(self, body: bytes) -> None:
        """A piece of a body was read."""
        reading = self._reading
        if reading is not None:
            reading.size += len(body)
            reading.add(body)

    def on_message_complete(self) -> None:
        """A request was read whole."""
        request, self._reading = self._reading, None
        if request is not None:
            self._deaf = self._deaf or not request.keep_alive
            request.end()
