"""Owns a client's end of a connection: its socket, and one buffered reader for as long as it stands.

A reader for each reply takes as many bytes off the socket as there are; if the next reply has come along with the
first, it is gone with the reader. With one reader it does not matter how TCP cuts what was sent.
"""

import contextlib
import io
import json
import socket
from http.client import HTTPResponse
from typing import Any, NamedTuple, Self

from service.payloads.codecs import NPY, NPZ, decode_npy, decode_npz
from service.tensors import Array

ANSWER_WITHIN_S = 30.0  # nothing here takes a second; what takes this long hangs
MAX_UNPACKED_BYTES = 2**32


class Answer(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers["content-type"]

    def json(self) -> Any:
        return json.loads(self.body)

    def arrays(self) -> dict[str | None, Array]:
        """The arrays of a binary reply by name; the one of an npy file is called `None`."""
        if self.content_type == NPZ:
            return {**decode_npz(self.body, MAX_UNPACKED_BYTES)}
        assert self.content_type == NPY
        return {None: decode_npy(self.body)}


class Wire:
    """A connection, which is closed with the `with` block that it opens.

    Args:
        connection: connected, with a timeout; belongs to the wire from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = connection.makefile("rb")

    @classmethod
    def to(cls, address: tuple[str, int]) -> Self:
        """A new connection. What is sent leaves at once, in the pieces that it is sent in."""
        connection = socket.create_connection(address, ANSWER_WITHIN_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.closing(self._socket):
            self._reader.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, method: str = "POST") -> Answer:
        """The next reply.

        Args:
            method: of the request that it answers: after HEAD there is no body.
        """
        reply = HTTPResponse(_Lent(self._reader), method=method)
        reply.begin()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, headers, reply.read())

    def goes_on(self) -> bool:
        """Waits for the next byte or the end; whether it is a byte, which stays to be read."""
        return bool(self._reader.peek(1))

    def ended(self) -> bool:
        """Waits for the next byte or the end; whether it is the end."""
        return self._reader.read(1) == b""


class _Lent:
    """A wire's reader for one reply, in the place of its socket: `HTTPResponse` closes what it has read from."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def makefile(self, _: str) -> Self:
        return self

    def close(self) -> None:
        """The wire closes it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
