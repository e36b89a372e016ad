"""Owns the gunicorn worker class: uvicorn's, with what every request would pay for and nobody reads left out."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # it publishes no types
from prometheus_client import CollectorRegistry
from uvicorn import Config, Server
from uvicorn_worker import UvicornWorker

from service.drivers.asgi import ExpressLane
from service.drivers.connections import Connections
from service.drivers.limits import SPARE_FILES, limits_of
from service.drivers.protocol import Protocol
from service.memory import Memory
from service.settings import Settings
from service.telemetry import Metrics

_ACCEPTS = 256  # connections taken at a time; what waits longer is read no later for it
_ACCEPTS_ANYWAY = SPARE_FILES // 4  # where others have to go for them, which takes a round
_PAUSE_S = 0.1  # until the next try where the system has no file descriptor left


class Worker(UvicornWorker):  # type: ignore[misc]  # it publishes no types
    """uvicorn on uvloop and httptools, with the direct way for small requests."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "access_log": False,  # the service has its own; uvicorn's prepared a line for each request and dropped it
        "proxy_headers": False,  # a layer of coroutines around each request, for client addresses
        "server_header": False,
    }

    async def _serve(self) -> None:
        """As uvicorn's own, with another server."""
        self.config.app = self.wsgi
        server = HospitableServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class HospitableServer(Server):
    """Accepts all who wait each time that the loop comes round.

    libuv accepts one. Under load a round takes tens of milliseconds, and new clients would wait for seconds in the
    system's backlog, where nobody sees them or could refuse them. Source: `uv__server_io` in src/unix/stream.c of libuv
    1.46 and later.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        app = config.app
        lane = app if isinstance(app, ExpressLane) else None
        limits = limits_of(Settings()) if lane is None else lane.connection_limits
        metrics = Metrics(CollectorRegistry()) if lane is None else lane.metrics
        memory = Memory() if lane is None else lane.memory
        self.server_state: Connections = Connections(limits, metrics, memory)
        self._doors: list[socket.socket] = []
        self._opening: set[asyncio.Task[Any]] = set()  # a loop holds its tasks only weakly

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        if self.config.ssl is not None:  # a handshake costs more than a round
            await super().startup(sockets)
            return
        await super().startup([])  # it would accept beside us, without a look at how many there are
        for listening in sockets or []:
            door = socket.socket(fileno=socket.dup(listening.fileno()))
            door.setblocking(False)
            self._doors.append(door)
            self._open(door)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops to listen, then ends."""
        loop = asyncio.get_running_loop()
        for door in self._doors:
            loop.remove_reader(door)
            door.close()
        self._doors.clear()
        await super().shutdown(sockets)

    def _open(self, door: socket.socket) -> None:
        if door in self._doors:
            loop = asyncio.get_running_loop()
            loop.add_reader(door, self._welcome, loop, door)

    def _welcome(self, loop: asyncio.AbstractEventLoop, door: socket.socket) -> None:
        protocol = partial(
            Protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        room = self.server_state.room - len(self._opening)
        for _ in range(max(_ACCEPTS_ANYWAY, min(_ACCEPTS, room))):
            try:
                connection, _address = door.accept()
            except BlockingIOError:  # nobody else waits
                return
            except ConnectionAbortedError:  # has gone again
                continue
            except OSError as error:  # no more files may be open: who waits is told again and again
                self.server_state.ran_out_of_files(error)
                loop.remove_reader(door)
                loop.call_later(_PAUSE_S, self._open, door)
                return
            connection.setblocking(False)
            opening: Coroutine[Any, Any, Any] = loop.connect_accepted_socket(protocol, connection)
            self._opening.add(task := loop.create_task(opening))
            task.add_done_callback(self._opening.discard)
