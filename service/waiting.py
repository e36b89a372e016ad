"""Owns the wait on an event loop: results come back once a batch, and whoever waits long is watched.

A client that leaves is noticed while its request waits, and the request then leaves the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.runtime import Runtime
from service.scheduling.scheduler import Job

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_PATROL_S = (
    0.01  # requests that wait at such a moment are watched: for a client that leaves, and their deadline
)


class ClientGone(Exception):
    """The client closed its connection before the reply."""


class Waiting:
    """A request that waits for the engine, and what may end the wait early.

    Args:
        runtime: where the job is cancelled.
        desk: brings the result to the event loop.
        receive: the connection, which tells when the client leaves.
    """

    __slots__ = ("_desk", "_receive", "_runtime", "_timer", "_watcher", "future", "job", "patrol")

    def __init__(self, runtime: Runtime, desk: Desk, receive: Receive) -> None:
        self._runtime = runtime
        self._desk = desk
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[None] = desk.loop.create_future()
        self.job: Job | None = None
        self.patrol = desk.patrols  # how many there had been when it came

    def done(self, job: Job) -> None:
        """From any thread: the job is finished."""
        self._desk.put(self.future, hurry=job.error is not None)

    def watch(self) -> None:
        """Starts to listen for the client's departure and for the deadline; a second call changes nothing."""
        if self._watcher is None and self.job is not None and not self.future.done():
            self._watcher = self._desk.loop.create_task(self._listen(self.job))
            remaining = max(0.0, self.job.deadline - time.monotonic())
            self._timer = self._desk.loop.call_later(remaining, self._runtime.expire, self.job)

    def close(self) -> None:
        """Stops listening."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._timer is not None:
            self._timer.cancel()

    async def _listen(self, job: Job) -> None:
        message = await self._receive()  # the body is complete, so what comes next can only be this
        if message["type"] == "http.disconnect" and not self.future.done():
            self._runtime.abandon(job)
            self.future.set_exception(ClientGone())


class Desk:
    """What the requests of one event loop share: one wake-up for many of them, in either direction.

    Args:
        loop: the event loop.
        rouse: wakes the engine thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rouse: Callable[[], None]) -> None:
        self.loop = loop
        self.waiting: dict[Waiting, None] = {}  # in the order they came
        self._rouse = rouse
        self._rousing = False
        self._finished: deque[asyncio.Future[None]] = deque()
        self._called = False
        self._patrolling = False
        self.patrols = 0

    def rouse_soon(self) -> None:
        """Wakes the engine once the loop has gone round.

        Requests that arrived together are then in one batch, and the engine thread does not take the interpreter
        lock from the loop while it still parses them. A lone request waits for nothing.
        """
        if not self._rousing:
            self._rousing = True
            self.loop.call_soon(self._rouse_now)
        if not self._patrolling:
            self._patrolling = True
            self.loop.call_later(_PATROL_S, self._patrol)

    def put(self, future: asyncio.Future[None], *, hurry: bool) -> None:
        """From any thread: the future is done once its batch is over, or as soon as the loop comes round.

        Results wait for the others of their batch: a loop that is woken by the first of them would take the
        interpreter lock from the engine thread before that has told the rest. Errors come alone, from
        cancelling and from an engine that dies, so they hurry; and the patrol forgets nobody.
        """
        self._finished.append(future)
        if hurry:
            self.hand_out()

    def hand_out(self) -> None:
        """From any thread: whatever is finished is handed out as soon as the loop comes round."""
        if self._finished and not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._empty)

    def _rouse_now(self) -> None:
        self._rousing = False
        self._rouse()

    def _empty(self) -> None:
        self._called = False  # before the deque is read: what comes later calls again
        while self._finished:
            future = self._finished.popleft()
            if not future.done():
                future.set_result(None)

    def _patrol(self) -> None:
        """Has the requests watched that wait longer than a moment; one timer for all costs the quick ones nothing."""
        self._empty()
        self._patrolling = bool(self.waiting)
        if self._patrolling:
            for waiting in self.waiting:
                if waiting.patrol == self.patrols:
                    break  # it came since the last patrol, as all after it
                waiting.watch()
            self.patrols += 1
            self.loop.call_later(_PATROL_S, self._patrol)
