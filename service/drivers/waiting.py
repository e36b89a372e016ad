"""Owns the wait on an event loop: results come back once a batch, and whoever waits long is watched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.scheduling.scheduler import Job
from service.serving.runtime import Runtime
from service.tensors import InferRequest

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_PATROL_S = (
    0.01  # requests that wait at such a moment are watched: for a client that leaves, and their deadline
)
_QUICK_S = 0.0002
"""What the loop computes itself instead of waking the engine thread: about what handing over a batch takes on one core,
two switches of threads and the fight for the interpreter lock."""


class ClientGone(Exception):
    """The client closed its connection before the reply."""


class Waiter:
    """A request that waits for the engine. Its driver's subclass says what happens once the result is there.

    Args:
        desk: brings the result to the event loop.
    """

    __slots__ = ("_timer", "desk", "job", "patrol")

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.job: Job | None = None
        self.patrol = desk.patrols  # how many there had been when it came
        self._timer: asyncio.TimerHandle | None = None

    def done(self, job: Job) -> None:
        """From any thread: the job is finished."""
        self.desk.put(self, hurry=job.error is not None)

    def deliver(self) -> None:
        """On the loop: the job is finished; must not raise."""
        raise NotImplementedError

    def watch(self) -> None:
        """It waits longer than a moment: starts to look for the deadline; a second call changes nothing."""
        if self._timer is None and self.job is not None and not self.job.finished:
            remaining = max(0.0, self.job.deadline - time.monotonic())
            self._timer = self.desk.loop.call_later(remaining, self.desk.runtime.expire, self.job)

    def close(self) -> None:
        """Stops watching, and lets go of the job, which holds its waiter: together they would be garbage for `gc`."""
        self.job = None
        if self._timer is not None:
            self._timer.cancel()


class Waiting(Waiter):
    """A request that a coroutine awaits.

    A client that leaves is noticed while its request waits, and the request then leaves the queue.

    Args:
        desk: brings the result to the event loop.
        receive: the connection, which tells when the client leaves.
    """

    __slots__ = ("_receive", "_watcher", "future")

    def __init__(self, desk: Desk, receive: Receive) -> None:
        super().__init__(desk)
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self.future: asyncio.Future[None] = desk.loop.create_future()

    def deliver(self) -> None:
        """Wakes the coroutine."""
        if not self.future.done():
            self.future.set_result(None)

    def watch(self) -> None:
        """Starts to listen for the client's departure and for the deadline; a second call changes nothing."""
        if self._watcher is None and self.job is not None and not self.future.done():
            self._watcher = self.desk.loop.create_task(self._listen(self.job))
        super().watch()

    def close(self) -> None:
        """Stops listening."""
        if self._watcher is not None:
            self._watcher.cancel()
        super().close()

    async def _listen(self, job: Job) -> None:
        message = await self._receive()  # the body is complete, so what comes next can only be this
        if message["type"] == "http.disconnect" and not self.future.done():
            self.desk.runtime.abandon(job)
            self.future.set_exception(ClientGone())


class Desk:
    """What the requests of one event loop share: one batch, or one wake-up, for many of them.

    Args:
        loop: the event loop.
        runtime: runs the requests.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, runtime: Runtime) -> None:
        self.loop = loop
        self.runtime = runtime
        self.waiting: dict[Waiter, None] = {}  # in the order they came
        self._running = False
        self._finished: deque[Waiter] = deque()
        self._called = False
        self._patrolling = False
        self.patrols = 0
        runtime.listen(lambda _: self.hand_out())

    def submit(self, waiter: Waiter, request: InferRequest, begun: float) -> Job:
        """Queues a request; it is run, or the engine woken for it, once the loop has gone round.

        Requests that arrived together are then in one batch, and the engine thread does not take the interpreter
        lock from the loop while it still parses them. A lone request waits for nothing.

        Args:
            waiter: whose request it is; it must `leave`.
            request: valid arrays.
            begun: when the request arrived, `time.monotonic()`.

        Returns:
            The waiter's job.

        Raises:
            QueueFull, NotReady, EngineStopped: the request was not queued.
        """
        waiter.job = job = self.runtime.submit(request, waiter.done, begun, rouse=False)
        self.waiting[waiter] = None
        if not self._running:
            self._running = True
            self.loop.call_soon(self._run)
        if not self._patrolling:
            self._patrolling = True
            self.loop.call_later(_PATROL_S, self._patrol)
        return job

    def leave(self, waiter: Waiter) -> bool:
        """Takes off a waiter that has its result or needs none any more; returns whether it still waited."""
        if waiter not in self.waiting:
            return False
        del self.waiting[waiter]
        waiter.close()
        return True

    def put(self, waiter: Waiter, *, hurry: bool) -> None:
        """From any thread: the waiter's result is delivered once its batch is over, or when the loop comes round.

        Results wait for the others of their batch: a loop that is woken by the first of them would take the
        interpreter lock from the engine thread before that has told the rest. Errors come alone, from
        cancelling and from an engine that dies, so they hurry; and the patrol forgets nobody.
        """
        self._finished.append(waiter)
        if hurry:
            self.hand_out()

    def hand_out(self) -> None:
        """From any thread: whatever is finished is delivered as soon as the loop comes round."""
        if self._finished and not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._empty)

    def _run(self) -> None:
        self._running = False
        self._called = True  # what finishes meanwhile is delivered below, without a call
        self.runtime.run_quick(_QUICK_S)
        self._empty()

    def _empty(self) -> None:
        self._called = False  # before the deque is read: what comes later calls again
        while self._finished:
            self._finished.popleft().deliver()

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
