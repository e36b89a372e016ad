"""Owns the two values that cross between a driver and a dialect: a request and a reply. No waiting, no framework."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


def encode_query(query: bytes) -> bytes:
    """A raw query with the bytes percent-encoded that clients should have encoded.

    Source: RFC 3986, section 3.4; curl and others send UTF-8 as it is typed.
    """
    return _BEYOND_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], query)


def join_headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Name -> value; a header that came several times is one list, as WSGI servers give it.

    Source: RFC 9110, section 5.3.
    """
    headers = dict(pairs)
    if len(headers) == len(pairs):
        return headers
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        joined[name] = b"%s, %s" % (joined[name], value) if name in joined else value
    return joined


def quality(parameters: str) -> float:
    """The weight that a client gives one of its choices, `q` of the parameters behind it; 0 where it is none.

    Source: RFC 9110, section 12.4.2.
    """
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if weight > 0 else 0.0
    return 1.0


def options_reply(method: str | None) -> Reply:
    """The reply to OPTIONS on a path that takes this method besides, or none."""
    methods = {None: "OPTIONS", "GET": "GET, HEAD, OPTIONS"}.get(method, f"OPTIONS, {method}")
    return Reply(200, b"", "text/plain", {"allow": methods})


@dataclass(slots=True)
class HttpRequest:
    """One request, read whole.

    Args:
        method: upper case.
        path: decoded, without the query.
        query: the raw query string.
        headers: lower-case names, as bytes, as ASGI gives them; one that came several times is a list with
            commas.
        body: the bytes as they came.
        client: the address that it came from; empty where its driver does not say.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    client: str = ""

    def header(self, name: bytes) -> str:
        """A header's value, or an empty string."""
        return self.headers.get(name, b"").decode("latin-1")


_STATUS_LINES = {int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def status_line(status: int) -> str:
    """The first line of a reply."""
    return _STATUS_LINES[status]


@dataclass(slots=True)
class Reply:
    """One reply, ready to send.

    Args:
        status: the HTTP status.
        body: the bytes.
        content_type: of the body.
        headers: further headers, names in lower case as ASGI wants them.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def head(self, lines: str = "") -> bytes:
        """The head as HTTP/1.1 has it on a connection.

        Args:
            lines: further header lines, each with its end.
        """
        head = (
            f"{_STATUS_LINES[self.status]}content-type: {self.content_type}\r\n"
            f"content-length: {len(self.body)}\r\n"
        )
        for name, value in self.headers.items():
            head += f"{name}: {value}\r\n"
        return f"{head}{lines}\r\n".encode("latin-1")
