"""Owns clients that never rest: each sends one request after the other and notes what became of every one."""

import contextlib
import socket
import threading
from collections import Counter
from http.client import HTTPException

from wire import Wire

BODY = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
REQUEST = (
    b"POST /predict?model=iris HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
GONE = (HTTPException, OSError)


class Crowd:
    """So many clients, from `with` to its end; a connection that the service does not end is kept.

    Args:
        port: the service's.
        clients: how many.
        request: what each sends.
        pause_s: how long each rests after an answer.

    Attributes:
        seen: what became of requests and connections: a status, `lost` (sent, and no answer came), `refused` (nobody
            listened), `last` (the reply said that its connection ends).
    """

    def __init__(self, port, clients, request=REQUEST, pause_s=0.0):
        self._address = ("127.0.0.1", port)
        self._request = request
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._go, daemon=True) for _ in range(clients)]
        self.seen = Counter()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Every client gets the answer that it waits for, and sends no more."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def answered(self):
        """How many requests have been, with 200."""
        with self._lock:
            return self.seen[200]

    def _note(self, *what):
        with self._lock:
            self.seen.update(what)

    def _go(self):
        while not self._over.is_set():
            try:
                connection = Wire.to(self._address)
            except ConnectionRefusedError:
                self._note("refused")
                self._over.wait(0.01)
                continue
            except ConnectionError:  # taken off the queue of a door that was closed: nothing was sent
                self._note("reset")
                continue
            with contextlib.closing(connection):
                self._talk(connection)

    def _talk(self, connection):
        while not self._over.is_set():
            try:
                connection.send(self._request)
                answer = connection.answer()
            except GONE as error:
                self._note("lost", f"lost: {type(error).__name__}")
                return
            self._note(answer.status)
            if answer.headers.get("connection") == "close":
                self._note("last")
                return
            if self._pause_s:
                self._over.wait(self._pause_s)


def is_open(port):
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
