"""Owns the express lane: the inference routes on an event loop, no thread per waiting request.

Everything else goes to the Flask application. Small bodies are parsed in place; pictures and large bodies go
to a small pool, so that nobody waits behind them. Results come back once a batch, not once a request. A client
that leaves is noticed while its request waits, and the request then leaves the queue.

Source of the protocol: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from service.api import catalog
from service.api.endpoint import Call, Dialect, Endpoint
from service.api.http import HttpRequest, Reply, encode_query, join_headers
from service.api.native import NativeEndpoint
from service.api.problems import problem
from service.api.remembered import LONGEST, Remembered
from service.api.weight import HeavyAfterAll, stay_light
from service.drivers.aside import AsideReader
from service.drivers.decoding import DecodingPool
from service.drivers.direct import DirectRequest
from service.drivers.exchange import Exchange, body_too_large
from service.drivers.limits import ConnectionLimits
from service.drivers.shedding import Refusals, Rounds
from service.drivers.waiting import ClientGone, Desk, Receive, Waiting
from service.errors import LayertapError, ServiceError
from service.memory import Charge
from service.serving.results import result_of
from service.serving.runtime import Runtime
from service.telemetry import UNKNOWN, Telemetry
from service.tensors import InferRequest, InferResult

SMALL_BODY_BYTES = 32 * 1024
"""Longer bodies are not parsed on the event loop, so the direct way has nothing to offer them."""

Route = tuple[Endpoint, str, bytes, str | None]
"""An inference route, the path that led to it, the raw query, and the model that they name."""

_WATCHED = {"/metrics", "/"}  # KServe's V1 clients ask "/" whether the service lives
_ALWAYS = 0  # routes are the same whatever is served

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Lifespan(Protocol):
    """What starts and stops with the server."""

    def start(self) -> None:
        """Begins to load; returns at once."""
        ...

    def retire(self) -> None:
        """Says from now on that it is not ready; everything is still answered."""
        ...

    def stop(self, *, drain: bool = True) -> None:
        """Answers what waits (`drain`) or refuses it; returns when it is done."""
        ...


class ExpressLane:
    """The ASGI application.

    Args:
        runtime: the served models.
        telemetry: metrics and request ids.
        endpoints: the native inference routes.
        dialects: what other clients speak, each under its own prefix.
        rest: takes every other route.
        watch: the same application, with threads of its own for what is asked to see how the service is.
        lifespan: starts and stops the service with the server.
        max_body_bytes: the largest request body.
        decode_threads: threads for pictures and large bodies.
        max_decoding: how many requests may wait for those threads.
        connection_limits: for the connections of its server; under the worker's protocol only.
    """

    def __init__(
        self,
        runtime: Runtime,
        telemetry: Telemetry,
        endpoints: Sequence[NativeEndpoint],
        dialects: Sequence[Dialect],
        *,
        rest: App,
        watch: App,
        lifespan: Lifespan,
        max_body_bytes: int,
        decode_threads: int,
        max_decoding: int,
        connection_limits: ConnectionLimits,
    ) -> None:
        self._runtime = runtime
        self._telemetry = telemetry
        self.metrics = telemetry.metrics
        self.memory = runtime.memory
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints}
        self._dialects = [(f"{dialect.prefix}/", dialect) for dialect in dialects]
        self._health = {"/healthz": catalog.healthz, "/readyz": catalog.readyz}
        self._rest = rest
        self._watch = watch
        self.lifespan = lifespan
        self._max_body_bytes = max_body_bytes
        self.connection_limits = connection_limits
        self.small_body_bytes = min(SMALL_BODY_BYTES, max_body_bytes)
        self.aside = AsideReader(runtime, DecodingPool(decode_threads, max_decoding), max_body_bytes)
        # Of their own: a reply that is there must not wait behind bodies that are not even read.
        self._printing = ThreadPoolExecutor(decode_threads, thread_name_prefix="layertap-encode")
        self._routes: Remembered[bytes, Route] = Remembered()
        self._desk: Desk | None = None
        self._rounds: Rounds | None = None
        self.refusals = Refusals(runtime, telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's life."""
        if scope["type"] == "http":
            endpoint = self.endpoint(scope["path"]) if scope["method"] == "POST" else None
            if endpoint is not None:
                await self._infer(endpoint, scope, receive, send)
            elif scope["path"] in self._health and scope["method"] == "GET":
                await _send(self._check_health(scope), send)
            elif self._is_watched(scope["path"]) and scope["method"] == "GET":
                await self._watch(_without_body(scope), _replay(b"", receive), send)
            else:
                await self.pass_on(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._rest(scope, receive, send)

    def endpoint(self, path: str) -> Endpoint | None:
        """The inference route that takes a POST to this path."""
        endpoint = self._endpoints.get(path)
        if endpoint is not None:
            return endpoint
        dialect = self._dialect_of(path)
        return None if dialect is None else dialect.endpoint(path)

    def _dialect_of(self, path: str) -> Dialect | None:
        """The dialect under whose prefix a path is; `None` for the native API's."""
        for prefix, dialect in self._dialects:
            if path.startswith(prefix):
                return dialect
        return None

    def route(self, url: bytes) -> Route | None:
        """The inference route of a POST to a plain URL, raw and without a host; remembered, as few URLs come often."""
        route = self._routes.find(url, _ALWAYS)
        if route is None:
            path, _, query = url.partition(b"?")
            if path[:1] != b"/" or b"%" in path or b"#" in url or not url.isascii():
                return None
            name = path.decode("ascii")
            endpoint = self.endpoint(name)
            if endpoint is None:
                return None
            route = endpoint, name, query, endpoint.named(name, query)
            if len(url) <= LONGEST:
                self._routes.keep(url, _ALWAYS, route)
        return route

    def refuse(self, error: LayertapError, target: bytes, request_id: bytes | None) -> Reply:
        """The reply, recorded, to a request that is not read whole; in the words of its dialect.

        Args:
            error: why.
            target: path and query, raw, as far as it was read.
            request_id: the client's own, if any.
        """
        dialect = self._dialect_of(target.partition(b"?")[0].decode("latin-1"))
        reply = problem(error) if dialect is None else dialect.problem(error)
        reply.headers["x-request-id"] = named = self._telemetry.request_id(request_id)
        self._telemetry.metrics.rejected.labels(error.code).inc()
        route = UNKNOWN if dialect is None else dialect.name
        self._telemetry.answered(route, UNKNOWN, reply.status, None, named)
        return reply

    def begin(
        self, endpoint: Endpoint, request: HttpRequest, answer: Callable[[Reply], None]
    ) -> DirectRequest:
        """Answers a small request that was read whole, on the running loop and without a coroutine.

        Args:
            endpoint: its route.
            request: must not be heavy.
            answer: gets the reply, maybe before this returns.

        Returns:
            What is to be told when the client leaves before.
        """
        exchange = Exchange(endpoint, self._runtime, self._telemetry, request.headers.get(b"x-request-id"))
        direct = DirectRequest(self._desk or self._open_desk(), exchange, self._printing, answer)
        direct.begin(request)
        return direct

    def _is_watched(self, path: str) -> bool:
        """Whether a path tells how the service is: its replies wait neither for bodies nor for others' threads."""
        dialect = self._dialect_of(path)
        return path in _WATCHED or (dialect is not None and dialect.is_health(path))

    def _check_health(self, scope: Scope) -> Reply:
        reply = self._health[scope["path"]](self._runtime)
        request_id = self._telemetry.request_id(dict(scope["headers"]).get(b"x-request-id"))
        reply.headers["x-request-id"] = request_id
        self._telemetry.answered(scope["path"], UNKNOWN, reply.status, None, request_id)
        return reply

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Any other route. Its body is read before it takes a thread, or half-sent ones would soon have them all."""
        headers = join_headers(scope["headers"])
        charge = self.memory.charge()
        try:
            body = await self._read(headers, receive, charge)
            await self._rest(with_ascii_query(scope), _replay(body, receive), send)
        except ClientGone:
            pass
        except LayertapError as error:
            reply = self.refuse(error, scope["raw_path"], headers.get(b"x-request-id"))
            reply.headers["connection"] = "close"  # the rest of the body is not read
            await _send(reply, send)
        finally:
            charge.release()

    async def _infer(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        headers = join_headers(scope["headers"])
        body: bytes | None = None
        exchange = Exchange(endpoint, self._runtime, self._telemetry, headers.get(b"x-request-id"))
        charge = exchange.charge = self.memory.charge()
        desk = self._desk or self._open_desk()
        try:
            body = await self._read(headers, receive, charge)
            request = HttpRequest("POST", scope["path"], scope["query_string"], headers, body)
            call = await self._parse(endpoint, exchange, request, receive)
            result = await self._wait(desk, call.request, exchange.begun, receive)
            if exchange.is_heavy_reply(result):
                loop = asyncio.get_running_loop()
                reply = await loop.run_in_executor(self._printing, exchange.render, result)
            else:
                reply = exchange.render(result)
            reply = exchange.finish(reply)
        except ClientGone:
            exchange.left()
            return
        except Exception as error:  # noqa: BLE001 every request is answered, whatever went wrong
            reply = exchange.fail(error, scope["path"], scope["query_string"])
            if body is None:
                reply.headers["connection"] = "close"  # the rest of the body is not read
        try:
            await _send(reply, send)
        except BaseException:
            exchange.record(ServiceError.status)
            raise
        exchange.record(reply.status)

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive, charge: Charge) -> bytes:
        """The whole body.

        Args:
            headers: of the request.
            receive: as ASGI has it.
            charge: pays for it.

        Raises:
            BodyTooLarge: at once where its size was announced.
            MemoryFull: others hold too much for more of it.
            ClientGone: it will not come.
        """
        if int(headers.get(b"content-length", b"0")) > self._max_body_bytes:
            raise body_too_large(self._max_body_bytes)
        message = await receive()
        body: bytes = message.get("body", b"")
        charge.receive(len(body))
        if message["type"] == "http.request" and not message.get("more_body", False):
            if len(body) > self._max_body_bytes:
                raise body_too_large(self._max_body_bytes)
            return body
        whole = bytearray(body)  # in pieces, small ones would take many times their size
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
            body = message.get("body", b"")
            charge.receive(len(body))
            whole += body
            if len(whole) > self._max_body_bytes:
                raise body_too_large(self._max_body_bytes)
        if message["type"] != "http.request":
            raise ClientGone
        charge.hold(len(whole), "its body")
        body = bytes(whole)
        charge.keep(len(body))
        return body

    async def _parse(
        self, endpoint: Endpoint, exchange: Exchange, request: HttpRequest, receive: Receive
    ) -> Call:
        """The call of a request, read here where that takes no time."""
        if not endpoint.is_heavy(request):
            with contextlib.suppress(HeavyAfterAll):
                return exchange.parse(request)
            if exchange.charge is not None:
                exchange.charge.keep(len(request.body))
        return await self.aside.read(endpoint, exchange, request, receive)

    async def _wait(self, desk: Desk, request: InferRequest, begun: float, receive: Receive) -> InferResult:
        """Queues the request and awaits its result, its deadline or its client's departure."""
        waiting = Waiting(desk, receive)
        job = desk.submit(waiting, request, begun)
        try:
            await waiting.future
        finally:
            desk.leave(waiting)
        return result_of(job)

    def rounds(self, loop: asyncio.AbstractEventLoop) -> Rounds:
        """How far the event loop is behind; of the one loop that this lane runs on."""
        if self._rounds is None:
            self._rounds = Rounds(loop)
        return self._rounds

    def _open_desk(self) -> Desk:
        stay_light()
        self._desk = Desk(asyncio.get_running_loop(), self._runtime)
        return self._desk

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.lifespan.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.get_running_loop().run_in_executor(None, self.lifespan.stop)
                self.aside.close()
                self._printing.shutdown(wait=False)
                await send({"type": "lifespan.shutdown.complete"})
                return


def with_ascii_query(scope: Scope) -> Scope:
    """The scope for WSGI, whose bridge takes a query of ASCII only."""
    query: bytes = scope["query_string"]
    return scope if query.isascii() else {**scope, "query_string": encode_query(query)}


def _without_body(scope: Scope) -> Scope:
    """The scope as if its request had no body."""
    headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
    return {**with_ascii_query(scope), "headers": headers}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, and then what the connection gives."""
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> MutableMapping[str, Any]:
        return unread.pop() if unread else await receive()

    return next_message


async def _send(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(reply.body)),
    ]
    for name, value in reply.headers.items():
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
