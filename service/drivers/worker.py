"""Owns the gunicorn worker class: uvicorn's, with what every request would pay for and nobody reads left out.

Its server lets in all who knock, nobody before it can answer while others can, and leaves without losing what was sent.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # it publishes no types
from prometheus_client import CollectorRegistry
from uvicorn import Config, Server
from uvicorn_worker import UvicornWorker

from service.board import Slot, Stage, own_slot
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
_PATIENCE_S = 5.0  # clients of a worker that takes a dead one's place wait this long, before they are told to
_LAST_WORDS_S = 2.0  # of a stop's time are left for refusing what could not be answered in it
_LOOK_EVERY_S = 0.05  # whether a stop is over
_BEAT_EVERY_S = 1.0


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
        server = HospitableServer(self.config, own_slot())
        signal.signal(signal.SIGQUIT, server.handle_exit)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class HospitableServer(Server):
    """Accepts all who wait each time that the loop comes round.

    libuv accepts one. Under load a round takes tens of milliseconds, and new clients would wait for seconds in the
    system's backlog, where nobody sees them or could refuse them. Source: `uv__server_io` in src/unix/stream.c of libuv
    1.46 and later.

    Args:
        config: uvicorn's.
        slot: the worker's place among the others; `None`: there are no others.
    """

    def __init__(self, config: Config, slot: Slot | None = None) -> None:
        super().__init__(config)
        app = config.app
        self._lane = lane = app if isinstance(app, ExpressLane) else None
        limits = limits_of(Settings()) if lane is None else lane.connection_limits
        metrics = Metrics(CollectorRegistry()) if lane is None else lane.metrics
        memory = Memory() if lane is None else lane.memory
        self.server_state: Connections = Connections(limits, metrics, memory)
        self._slot = slot
        self._doors: list[socket.socket] = []
        self._are_open = False
        self._shut_until = 0.0
        self._opening: set[asyncio.Task[Any]] = set()  # a loop holds its tasks only weakly

    # -- doors --------------------------------------------------------------------------------------------

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
        self._shut_until = asyncio.get_running_loop().time() + _PATIENCE_S
        self._mind_doors()

    async def on_tick(self, counter: int) -> bool:
        """From uvicorn, ten times a second."""
        self._mind_doors()
        return await super().on_tick(counter)

    def _mind_doors(self) -> None:
        """Opens or shuts the doors, as the stages of this worker and of the others want it.

        Who comes to a worker that cannot answer yet would be refused while another one could answer.
        """
        shall_be_open = self._slot is None or self._is_wanted(self._slot)
        if shall_be_open == self._are_open:
            return
        self._are_open = shall_be_open
        loop = asyncio.get_running_loop()
        if shall_be_open:
            self.server_state.go_on()
        else:
            self.server_state.drain(loop)
        for door in self._doors:
            if shall_be_open:
                self._open(door)
            else:
                loop.remove_reader(door)

    def _is_wanted(self, slot: Slot) -> bool:
        if slot.stage is Stage.READY:
            return True
        if slot.board.anybody_ready():
            return False
        if slot.stage is Stage.USELESS or not slot.board.has_served:
            return True
        return asyncio.get_running_loop().time() >= self._shut_until

    def _open(self, door: socket.socket) -> None:
        if self._are_open and door in self._doors:
            loop = asyncio.get_running_loop()
            loop.add_reader(door, self._welcome, loop, door)

    def _welcome(self, loop: asyncio.AbstractEventLoop, door: socket.socket) -> bool:
        """Lets in who waits, as many as may come in a round; returns whether nobody else waits."""
        protocol = partial(
            Protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        room = self.server_state.room - len(self._opening)
        for _ in range(max(_ACCEPTS_ANYWAY, min(_ACCEPTS, room))):
            try:
                connection, _address = door.accept()
            except BlockingIOError:  # nobody else waits
                return True
            except ConnectionAbortedError:  # has gone again
                continue
            except OSError as error:  # no more files may be open: who waits is told again and again
                self.server_state.ran_out_of_files(error)
                loop.remove_reader(door)
                loop.call_later(_PAUSE_S, self._open, door)
                return True
            connection.setblocking(False)
            opening: Coroutine[Any, Any, Any] = loop.connect_accepted_socket(protocol, connection)
            self._opening.add(task := loop.create_task(opening))
            task.add_done_callback(self._opening.discard)
        return False

    # -- leaving ------------------------------------------------------------------------------------------

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to leave; SIGINT or SIGQUIT after another one: at once."""
        if self.should_exit and sig == signal.SIGQUIT:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leaves: says so, shuts the doors, answers what was sent, and ends.

        Where the whole service stops, those who send the requests get time to learn it from the readiness; whoever
        sends on an open connection is told with the reply that it ends.
        """
        loop = asyncio.get_running_loop()
        limits, begun = self.server_state.limits, loop.time()
        delay_s = limits.drain_delay_s if self._service_stops() else 0.0
        self.server_state.closing = True
        if self._slot is not None:
            self._slot.stage = Stage.LEAVING
        if self._lane is not None:
            self._lane.lifespan.retire()
        await self._wait_until(lambda: False, begun + delay_s)
        self._shut_doors(loop, sockets or [])
        self.server_state.drain(loop)
        await self._wait_until(self._is_empty, begun + max(delay_s, limits.stop_timeout_s - _LAST_WORDS_S))
        if self._is_empty():
            await self.lifespan.shutdown()
        elif self._lane is not None and not self.force_exit:
            loop.run_in_executor(None, partial(self._lane.lifespan.stop, drain=False))
            await self._wait_until(self._is_empty, begun + limits.stop_timeout_s)
        for handler in logging.getLogger(
            "layertap"
        ).handlers:  # a signal ends this process, nothing else is run
            handler.flush()

    def _service_stops(self) -> bool:
        """Whether all workers leave, and not this one only; from a terminal SIGINT comes to all at once."""
        if self._slot is None or signal.SIGINT in self._captured_signals:
            return True
        return self._slot.board.stopping

    def _shut_doors(self, loop: asyncio.AbstractEventLoop, sockets: list[socket.socket]) -> None:
        """Lets in who waits, and nobody after that: whoever the system holds when the last door is closed is cut off."""
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()
        for door in self._doors:
            loop.remove_reader(door)
            if self._are_open:
                while not self._welcome(loop, door):
                    pass
            door.close()
        self._doors.clear()

    def _is_empty(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks or self._opening)

    async def _wait_until(self, is_over: Callable[[], bool], end: float) -> None:
        """Waits for a condition, until a time of the loop's clock, and tells the master that this worker lives."""
        loop = asyncio.get_running_loop()
        beaten_at = 0.0
        while not is_over() and not self.force_exit and (now := loop.time()) < end:
            if self.config.callback_notify is not None and now - beaten_at >= _BEAT_EVERY_S:
                beaten_at = now
                await self.config.callback_notify()
            await asyncio.sleep(min(_LOOK_EVERY_S, end - now))
