"""Owns a peer's start: its environment made, its processes running, every endpoint answering."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from inputs import body
from load import Request, ask
from peers.endpoints import Endpoint
from peers.registry import FOLDER, Peer
from servers import ROOT, Running, answers, free_port, running

_NOT_YET = (404, 502, 503)  # what servers say of a model that is still being loaded
_GIVE_UP_S = 30.0  # a server that keeps refusing a request for so long will not start to like it


@contextlib.contextmanager
def started(peer: Peer, models: Path, endpoints: tuple[Endpoint, ...]) -> Iterator[tuple[int, Running]]:
    """A server that answers all of the endpoints: its port and its processes.

    Raises:
        EnvironmentFailed: it cannot be installed.
        ServerFailed: it ended, or does not answer.
    """
    if peer.environment:
        peer.environment.make()
    port = free_port()
    command, environ = peer.start(port, models, endpoints)
    if peer.ready:
        path = peer.ready
        ready: Callable[[], bool] = lambda: answers(port, path)  # noqa: E731 one of two ways to ask
    else:
        ready = _Asking(port, [peer.dialect.ask(endpoint, body(endpoint)) for endpoint in endpoints])
    with running(command, environ, ready, FOLDER if peer.module else ROOT) as server:
        yield port, server


class _Asking:
    """Asks each endpoint until it answers well, or has refused for so long that it always will."""

    def __init__(self, port: int, requests: list[Request]) -> None:
        self._port = port
        self._left = requests
        self._first_reply: float | None = None

    def __call__(self) -> bool:
        while self._left:
            try:
                status, _, _ = ask(self._port, self._left[0])
            except (OSError, http.client.HTTPException):
                return False
            now = time.monotonic()
            self._first_reply = self._first_reply or now
            if status in _NOT_YET or (status != 200 and now - self._first_reply < _GIVE_UP_S):
                return False
            self._first_reply = None
            self._left = self._left[1:]
        return True
