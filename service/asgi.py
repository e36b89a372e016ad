"""Owns the express lane: the inference routes on an event loop, no thread per waiting request.

Everything else goes to the Flask application. Small bodies are parsed in place; pictures and large bodies go
to a small pool, so that nobody waits behind them. Results come back once a batch, not once a request. A client
that leaves is noticed while its request waits, and the request then leaves the queue.

Source of the protocol: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from service.api import catalog
from service.api.http import HttpRequest, Reply
from service.api.native import NativeEndpoint
from service.errors import QueueFull
from service.exchange import Exchange, body_too_large
from service.runtime import Runtime, result_of
from service.scheduler import Job
from service.telemetry import UNKNOWN, Telemetry
from service.tensors import InferRequest, InferResult

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_WATCH_AFTER_S = 0.02  # a request that takes longer is worth watching for a client that leaves

_log = logging.getLogger("layertap.asgi")


class Lifespan(Protocol):
    """What starts and stops with the server."""

    def start(self) -> None:
        """Begins to load; returns at once."""
        ...

    def stop(self) -> None:
        """Drains; returns when it is done."""
        ...


class ClientGone(Exception):
    """The client closed its connection before the reply."""


class ExpressLane:
    """The ASGI application.

    Args:
        runtime: the served models.
        telemetry: metrics and request ids.
        endpoints: the inference routes.
        rest: takes every other route.
        lifespan: starts and stops the service with the server.
        max_body_bytes: the largest request body.
        decode_threads: threads for pictures and large bodies.
        max_decoding: how many requests may wait for those threads.
    """

    def __init__(
        self,
        runtime: Runtime,
        telemetry: Telemetry,
        endpoints: Sequence[NativeEndpoint],
        rest: App,
        lifespan: Lifespan,
        *,
        max_body_bytes: int,
        decode_threads: int,
        max_decoding: int,
    ) -> None:
        self._runtime = runtime
        self._telemetry = telemetry
        self._endpoints = {("POST", endpoint.path): endpoint for endpoint in endpoints}
        self._health = {"/healthz": catalog.healthz, "/readyz": catalog.readyz}
        self._rest = rest
        self._lifespan = lifespan
        self._max_body_bytes = max_body_bytes
        self._pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="layertap-decode")
        self._max_decoding = max_decoding
        self._decoding = 0
        self._rousing = False
        self._mailbox = Mailbox()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's life."""
        if scope["type"] == "http":
            endpoint = self._endpoints.get((scope["method"], scope["path"]))
            if endpoint is not None:
                await self._infer(endpoint, scope, receive, send)
            elif scope["path"] in self._health and scope["method"] == "GET":
                await _send(self._check_health(scope), send)
            else:
                await self._rest(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._rest(scope, receive, send)

    def _check_health(self, scope: Scope) -> Reply:
        reply = self._health[scope["path"]](self._runtime)
        request_id = self._telemetry.request_id(dict(scope["headers"]).get(b"x-request-id"))
        reply.headers["X-Request-Id"] = request_id
        self._telemetry.answered(scope["path"], UNKNOWN, reply.status, None, request_id)
        return reply

    async def _infer(self, endpoint: NativeEndpoint, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        exchange = Exchange(endpoint, self._runtime, self._telemetry, headers.get(b"x-request-id"))
        complete = True
        try:
            declared = headers.get(b"content-length", b"0")
            complete = declared.isdigit() and int(declared) <= self._max_body_bytes
            if not complete:
                raise body_too_large(self._max_body_bytes)  # noqa: TRY301 one way out for every error
            body = await self._read(receive)
            complete = True
            request = HttpRequest("POST", scope["path"], scope["query_string"], headers, body)
            if endpoint.is_heavy(request):
                call = await self._in_pool(exchange.parse, request)
            else:
                call = exchange.parse(request)
            result = await self._wait(call.request, exchange.begun, receive)
            if endpoint.is_heavy_reply(result):
                reply = await self._in_pool(exchange.render, call, result)
            else:
                reply = exchange.render(call, result)
            reply = exchange.finish(reply)
        except ClientGone:
            exchange.left()
            return
        except Exception as error:  # noqa: BLE001 every request is answered, whatever went wrong
            reply = exchange.fail(error)
            if reply.status == 413:
                reply.headers["Connection"] = "close"  # the rest of the body is not read
        await _send(reply, send)

    async def _read(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False):
            if len(body) > self._max_body_bytes:
                raise body_too_large(self._max_body_bytes)
            return body
        chunks, size = [body], len(body)
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_body_bytes:
                raise body_too_large(self._max_body_bytes)
        if message["type"] != "http.request":
            raise ClientGone
        return b"".join(chunks)

    async def _in_pool(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._decoding >= self._max_decoding:
            raise QueueFull(
                f"Expected fewer than {self._max_decoding} requests in decoding. Received: one more."
            )
        self._decoding += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._decoding -= 1

    async def _wait(self, request: InferRequest, begun: float, receive: Receive) -> InferResult:
        """Queues the request and awaits its result, its deadline or its client's departure."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(self._runtime, loop.create_future(), receive)
        mailbox = self._mailbox.of(loop)
        waiting.job = job = self._runtime.submit(
            request, lambda _: mailbox.put(waiting.future), begun, rouse=False
        )
        self._rouse_soon(loop)
        delay = min(_WATCH_AFTER_S, job.deadline - time.monotonic())
        timer = loop.call_later(max(0.0, delay), waiting.watch)
        try:
            await waiting.future
        finally:
            timer.cancel()
            waiting.close()
        return result_of(job)

    def _rouse_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wakes the engine once the loop has gone round.

        Requests that arrived together are then in one batch, and the engine thread does not take the interpreter
        lock from the loop while it still parses them; a lone request waits for nothing.
        """
        if not self._rousing:
            self._rousing = True
            loop.call_soon(self._rouse)

    def _rouse(self) -> None:
        self._rousing = False
        self._runtime.rouse()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._lifespan.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.get_running_loop().run_in_executor(None, self._lifespan.stop)
                self._pool.shutdown(wait=False)
                await send({"type": "lifespan.shutdown.complete"})
                return


class Waiting:
    """A request that waits for the engine, and what may end the wait early.

    Args:
        runtime: where the job is cancelled.
        future: done when the job is.
        receive: the connection, which tells when the client leaves.
    """

    __slots__ = ("_receive", "_runtime", "_timer", "_watcher", "future", "job")

    def __init__(self, runtime: Runtime, future: asyncio.Future[None], receive: Receive) -> None:
        self._runtime = runtime
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.future = future
        self.job: Job | None = None

    def watch(self) -> None:
        """Starts to listen for the client's departure and for the deadline."""
        job = self.job
        if self.future.done() or job is None:
            return
        loop = self.future.get_loop()
        self._watcher = loop.create_task(self._listen())
        remaining = max(0.0, job.deadline - time.monotonic())
        self._timer = loop.call_later(remaining, self._runtime.expire, job)

    def close(self) -> None:
        """Stops listening."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._timer is not None:
            self._timer.cancel()

    async def _listen(self) -> None:
        message = await self._receive()  # the body is complete, so what comes next can only be this
        if message["type"] == "http.disconnect" and self.job is not None and not self.future.done():
            self._runtime.abandon(self.job)
            self.future.set_exception(ClientGone())


class Mailbox:
    """Brings finished jobs from the engine thread to the event loop, waking it once for many."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished: deque[asyncio.Future[None]] = deque()
        self._called = False

    def of(self, loop: asyncio.AbstractEventLoop) -> Mailbox:
        """This mailbox, emptied by `loop` from now on."""
        self._loop = loop
        return self

    def put(self, future: asyncio.Future[None]) -> None:
        """From any thread: the future is done as soon as the loop comes round."""
        self._finished.append(future)
        if not self._called and self._loop is not None:
            self._called = True
            self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._called = False  # before the deque is read: what comes later calls again
        while self._finished:
            future = self._finished.popleft()
            if not future.done():
                future.set_result(None)


async def _send(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(reply.body)),
    ]
    headers += [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
