"""Owns requests as bytes on a socket, and what comes back: for what no client library would send."""

import io
import socket

import numpy as np
from wire import ANSWER_WITHIN_S, Wire

JSON = "Content-Type: application/json"
ROW = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: last\r\n\r\n"


def written(method, target, body=b"", *lines, chunked=False, version="1.1"):
    """A request; a body in chunks comes as three of them."""
    if chunked:
        pieces = [body[:5], body[5:20], body[20:]]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = [f"{method} {target} HTTP/{version}", "Host: localhost", framing, *lines, "X-Request-Id: first"]
    return "\r\n".join([*head, "", ""]).encode() + body


def connect(address):
    connection = socket.create_connection(address, ANSWER_WITHIN_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def replies(address, *pieces):
    """Every reply to what is sent, until the connection ends."""
    with connect(address) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return replies_on(connection)


def replies_on(connection):
    """Every reply on a connection, until it ends."""
    wire = Wire(connection)  # not closed: whether the client leaves is the test's to say
    found = []
    while wire.goes_on():
        found.append(wire.answer())
    return found


def rows(count):
    """So many rows for the model iris, as npy."""
    file = io.BytesIO()
    np.save(file, np.full((count, 4), 1.5, np.float32))
    return file.getvalue()
