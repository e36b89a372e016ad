"""Owns the three drivers over one runtime, behind one `send`: what a contract test speaks to.

`flask` is the Flask application through its test client. `express` is the ASGI express lane with that application
behind it, called as an ASGI server calls it: on an event loop of its own thread, the body in several messages, and
a `receive` that has nothing more to say until the client leaves. `direct` is that lane behind the worker's protocol,
on sockets, where small requests never become ASGI.
"""

import asyncio
import contextlib
import io
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import uvloop
from a2wsgi import WSGIMiddleware
from flask import Flask
from numpy_engine import build_runtime
from uvicorn.config import Config
from wire import ANSWER_WITHIN_S, Answer, Wire

from service.api.dialects import every_dialect
from service.api.endpoint import Dialect, Limits
from service.api.native import NativeEndpoint
from service.api.trust import Hosts
from service.drivers.app import create_app
from service.drivers.asgi import ExpressLane
from service.drivers.connections import Connections
from service.drivers.hosts import NamedLane
from service.drivers.limits import ConnectionLimits, limits_of
from service.drivers.protocol import Protocol
from service.drivers.worker import Worker
from service.serving.runtime import Runtime
from service.settings import Settings
from service.telemetry import Telemetry

LIMITS = Limits(max_input_bytes=1_000_000, max_image_pixels=10_000, max_reply_bytes=200_000)
MAX_BODY_BYTES = 2_000_000
CONNECTION_LIMITS = limits_of(Settings())

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class FlaskDriver:
    """The Flask application, each request on a thread of its own."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="flask-driver")

    def start(
        self, method: str, path: str, query: str = "", headers: Headers = (), body: bytes = b""
    ) -> "Future[Answer]":
        """Sends a request and returns at once."""
        return self._threads.submit(self._open, method, path, query, headers, body)

    def send(self, *request: Any, **named: Any) -> Answer:
        """Sends a request, arguments as `start`, and waits for its answer."""
        return self.start(*request, **named).result(ANSWER_WITHIN_S)

    def close(self) -> None:
        self._threads.shutdown()

    def _open(self, method: str, path: str, query: str, headers: Headers, body: bytes) -> Answer:
        reply = self._app.test_client().open(
            method=method,
            headers=list(pairs_of(headers)),
            input_stream=io.BytesIO(body),  # as `data`, an empty form would become another body
            environ_overrides={"PATH_INFO": unquote_to_bytes(path).decode("latin-1"), "QUERY_STRING": query},
        )
        named = {name.lower(): value for name, value in reply.headers}
        return Answer(reply.status_code, named, reply.get_data())


class Connection:
    """One request to the express lane, from the server's side.

    Args:
        scope: of the request.
        pieces: the body, one message each.
        complete: whether the last piece ends the body; else the client falls silent after it.

    Attributes:
        watched: set once the application listens for the client's departure; its request is queued then.
    """

    def __init__(self, scope: dict[str, Any], pieces: list[bytes], *, complete: bool) -> None:
        self.scope = scope
        self.watched = threading.Event()
        self._unsent = pieces
        self._complete = complete
        self._gone = asyncio.Event()
        self._start: dict[str, Any] | None = None
        self._sent: list[bytes] = []
        self._ended = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: Future[None] | None = None

    def leave(self) -> None:
        """The client closes its connection."""
        self.loop.call_soon_threadsafe(self._gone.set)

    def answer(self) -> Answer | None:
        """Waits until the application is done; `None` where it sent nothing."""
        self.future.result(ANSWER_WITHIN_S)
        if self._start is None:
            return None
        assert self._ended
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._start["headers"]}
        body = b"".join(self._sent)
        assert self.scope["method"] == "HEAD" or int(headers["content-length"]) == len(body)
        return Answer(self._start["status"], headers, body)

    async def receive(self) -> dict[str, Any]:
        if self._unsent:
            piece = self._unsent.pop(0)
            more = bool(self._unsent) or not self._complete
            return {"type": "http.request", "body": piece, "more_body": more}
        self.watched.set()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        assert not self._ended
        if message["type"] == "http.response.start":
            assert self._start is None
            assert all(name == name.lower() for name, _ in message["headers"])
            self._start = dict(message)
            return
        assert message["type"] == "http.response.body"
        assert self._start is not None
        self._sent.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._ended = True
            self._gone.set()


class _OwnLoop:
    """An event loop on a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever, name=name)
        self._thread.start()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ExpressDriver(_OwnLoop):
    """The express lane on an event loop of its own; it lives from `lifespan.startup` to `lifespan.shutdown`.

    Args:
        lane: the application.
    """

    def __init__(self, lane: ExpressLane) -> None:
        super().__init__(asyncio.new_event_loop(), "express-driver")
        self._lane = lane
        self._stages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        life = lane({"type": "lifespan"}, self._stages.get, self._tell)
        self._life = asyncio.run_coroutine_threadsafe(life, self._loop)
        self._live("startup")

    def start(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Headers = (),
        body: bytes = b"",
        *,
        pieces: int = 3,
        complete: bool = True,
        declared: bool = True,
    ) -> Connection:
        """Sends a request and returns at once.

        Args:
            method: upper case.
            path: percent-encoded.
            query: raw, as latin-1.
            headers: as the client spells them.
            body: the bytes.
            pieces: how many messages carry the body.
            complete: whether the body ends; else the client falls silent.
            declared: whether Content-Length tells the body's size.
        """
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in _with_host(headers)]
        if declared:
            named.append((b"content-length", b"%d" % len(body)))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": named,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8080),
        }
        connection = Connection(scope, _cut(body, pieces), complete=complete)
        connection.loop = self._loop
        connection.future = asyncio.run_coroutine_threadsafe(
            self._lane(scope, connection.receive, connection.send), self._loop
        )
        return connection

    def send(self, *request: Any, **named: Any) -> Answer:
        """Sends a request, arguments as `start`, and waits for its answer."""
        answer = self.start(*request, **named).answer()
        assert answer is not None
        return answer

    def close(self) -> None:
        self._live("shutdown")
        self._life.result(ANSWER_WITHIN_S)
        self._stop()

    def _live(self, stage: str) -> None:
        """One stage of the server's life; the application waits for the next one in between."""
        self._loop.call_soon_threadsafe(self._stages.put_nowait, {"type": f"lifespan.{stage}"})
        assert self._told.get(timeout=ANSWER_WITHIN_S) == f"lifespan.{stage}.complete"

    async def _tell(self, message: Mapping[str, Any]) -> None:
        self._told.put(message["type"])


class DirectDriver(_OwnLoop):
    """The worker's protocol on a socket, each request on a connection of its own.

    Args:
        lane: the application; its server must not be another driver's.
    """

    def __init__(self, lane: ExpressLane) -> None:
        super().__init__(uvloop.new_event_loop(), "direct-driver")
        config = Config(lane, lifespan="off", log_config=None, **Worker.CONFIG_KWARGS)
        config.load()
        self._state = state = Connections(lane.connection_limits, lane.metrics, lane.memory)

        def connect() -> Protocol:
            return Protocol(config=config, server_state=state, app_state={}, _loop=self._loop)

        self._server = self._call(self._loop.create_server(connect, "127.0.0.1", 0))
        self.address: tuple[str, int] = self._server.sockets[0].getsockname()

    def connect(self) -> Wire:
        """A connection, for what `send` cannot say."""
        return Wire.to(self.address)

    def send(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Headers = (),
        body: bytes = b"",
        *,
        declared: bool = True,
    ) -> Answer:
        """Sends a request, arguments as the other drivers', and waits for its answer."""
        with self.connect() as wire:
            wire.send(_head(method, path, query, headers, len(body) if declared else None))
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            with contextlib.suppress(ConnectionError):  # a server that answers before the end closes
                wire.send(body if declared else chunk + b"0\r\n\r\n")
            return wire.answer(method)

    def until(self, condition: Callable[[list[Protocol]], bool]) -> None:
        """Waits until something holds of the open connections, looked at on their own loop each time it goes round."""

        async def look() -> None:
            while not condition(list(self._state.connections)):  # noqa: ASYNC110 nothing tells of every change
                await asyncio.sleep(0)

        self._call(asyncio.wait_for(look(), ANSWER_WITHIN_S))

    def close(self) -> None:
        self._call(self._end())
        self._stop()

    async def _end(self) -> None:
        self._server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()  # a test that failed has left it; uvloop would wait for it forever

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_WITHIN_S)


def _head(method: str, path: str, query: str, headers: Headers, size: int | None) -> bytes:
    target = f"{path}?{query}" if query else path
    framing = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    lines = [f"{method} {target} HTTP/1.1", framing]
    lines += [f"{name}: {value}" for name, value in _with_host(headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


Driver = FlaskDriver | ExpressDriver | DirectDriver


@dataclass(frozen=True)
class Site:
    """One runtime, and the drivers over it."""

    runtime: Runtime
    telemetry: Telemetry
    flask: FlaskDriver
    express: ExpressDriver
    direct: DirectDriver


class Gate:
    """Holds the engine thread before its batches until it is opened; give it as `before_run`.

    Attributes:
        entered: set once a batch is held.
        runs: how many batches have come.
    """

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.runs = 0
        self._open = threading.Event()

    def __call__(self) -> None:
        self.runs += 1
        self.entered.set()
        assert self._open.wait(ANSWER_WITHIN_S)

    def open(self) -> None:
        """Lets the held batch and all later ones pass."""
        self._open.set()


@contextlib.contextmanager
def open_site(
    *models: str,
    limits: Limits = LIMITS,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_decoding: int = 64,
    connection_limits: ConnectionLimits = CONNECTION_LIMITS,
    gate: Gate | None = None,
    dialects: Sequence[Dialect] | None = None,
    hosts: Hosts | None = None,
    runtime: Runtime | None = None,
    **options: Any,
) -> Iterator[Site]:
    """A site over models of `numpy_engine`, or any others.

    Args:
        models: their names; none means all.
        limits: sizes.
        max_body_bytes: the largest request body.
        max_decoding: how many requests may be with the decoding threads.
        connection_limits: of the direct driver.
        dialects: instead of those that are served.
        hosts: what requests may be sent to.
        gate: holds the engine; it is opened at the end, so that a failing test does not hang.
        runtime: serves other models; it is stopped in the end.
        options: further arguments of `build_runtime`.
    """
    if gate is not None:
        options["before_run"] = gate
    runtime = runtime or build_runtime(*models, **options)
    telemetry = Telemetry()
    endpoints = [NativeEndpoint("predict", limits), NativeEndpoint("features", limits)]
    if dialects is None:
        dialects = every_dialect(limits)
    app = create_app(
        runtime,
        telemetry,
        endpoints,
        dialects,
        max_body_bytes=max_body_bytes,
        device={"kind": "cpu"},
        hosts=hosts,
    )

    def new_lane() -> ExpressLane:
        lane = ExpressLane if hosts is None else partial(NamedLane, hosts=hosts)
        return lane(
            runtime,
            telemetry,
            endpoints,
            dialects,
            rest=WSGIMiddleware(app),
            watch=WSGIMiddleware(app, workers=2),
            lifespan=_Life(runtime),
            max_body_bytes=max_body_bytes,
            decode_threads=2,
            max_decoding=max_decoding,
            connection_limits=connection_limits,
        )

    drivers = FlaskDriver(app), ExpressDriver(new_lane()), DirectDriver(new_lane())
    site = Site(runtime, telemetry, *drivers)
    try:
        yield site
    finally:
        if gate is not None:
            gate.open()
        site.direct.close()
        site.express.close()
        site.flask.close()


@dataclass(frozen=True)
class _Life:
    runtime: Runtime

    def start(self) -> None:
        """The runtime is loaded already."""

    def retire(self) -> None:
        self.runtime.retire()

    def stop(self, *, drain: bool = True) -> None:
        self.runtime.stop(drain=drain)


def pairs_of(headers: Headers) -> Iterable[tuple[str, str]]:
    return headers.items() if isinstance(headers, Mapping) else headers


def _with_host(headers: Headers) -> list[tuple[str, str]]:
    pairs = list(pairs_of(headers))
    return pairs if any(name.lower() == "host" for name, _ in pairs) else [("Host", "localhost"), *pairs]


def _cut(body: bytes, pieces: int) -> list[bytes]:
    """The body in about that many pieces; where there are several the last is empty, as servers send it."""
    if pieces == 1:
        return [body]
    size = max(1, -(-len(body) // (pieces - 1)))
    return [body[start : start + size] for start in range(0, len(body), size)] + [b""]
