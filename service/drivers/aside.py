"""Owns the requests that are not read on the event loop, pictures and long bodies: what is foreseen of them, and their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from service.api.endpoint import Call, Endpoint, Foresight
from service.api.http import HttpRequest
from service.drivers.decoding import DecodingPool, Task
from service.drivers.exchange import Exchange
from service.drivers.waiting import ClientGone, Receive
from service.errors import LayertapError, QueueFull
from service.serving.runtime import Runtime

_SURELY_READ_ASIDE = (b"image/", b"multipart/", b"application/json")


class AsideReader:
    """Reads requests on threads of their own; for one event loop.

    Args:
        runtime: the served models.
        pool: the threads.
        max_body_bytes: the largest request body.
    """

    def __init__(self, runtime: Runtime, pool: DecodingPool, max_body_bytes: int) -> None:
        self._runtime = runtime
        self._pool = pool
        self._max_body_bytes = max_body_bytes

    def foresee_refusal(self, endpoint: Endpoint, request: HttpRequest, size: int) -> QueueFull | None:
        """What a heavy request would be refused with once its body was there, if it would.

        Args:
            endpoint: its route.
            request: still without its body.
            size: of that, in bytes.
        """
        if size > self._max_body_bytes:
            return None
        try:
            foreseen = endpoint.foresee(request, self._runtime)
            deadline = self._runtime.deadline(time.monotonic(), foreseen.timeout_s)
            ahead = (0.0, 0.0)
            if request.headers.get(b"content-type", b"").startswith(_SURELY_READ_ASIDE):
                ahead = self._pool.ahead(_task(endpoint, request, foreseen, size, deadline))
            self._runtime.leave(self._runtime.book(foreseen.served, foreseen.outputs, deadline, ahead))
        except QueueFull as error:
            return error
        except LayertapError:  # told once the body is there, as always
            pass
        return None

    async def read(
        self, endpoint: Endpoint, exchange: Exchange, request: HttpRequest, receive: Receive
    ) -> Call:
        """The call of a heavy request, read on another thread; refused before where that would be in vain."""
        foreseen = exchange.foresee(request)
        deadline = self._runtime.deadline(exchange.begun, foreseen.timeout_s)
        task = _task(endpoint, request, foreseen, len(request.body), deadline)
        exchange.book(foreseen, self._pool.ahead(task))
        if not self._pool.busy:
            call: Call = await self._pool.run(task, exchange.parse, request)
            return call
        leaving = asyncio.ensure_future(receive())  # its departure is all that can come
        try:
            call = await self._pool.run(task, _unless(leaving.done, exchange.parse), request)
        finally:
            leaving.cancel()
        return call

    def close(self) -> None:
        """Lets the threads end once they have read what is here."""
        self._pool.close()


def _unless(gone: Callable[[], bool], parse: Callable[[HttpRequest], Call]) -> Callable[[HttpRequest], Call]:
    """What parses a request unless its client has gone by then."""

    def parse_for_client(request: HttpRequest) -> Call:
        if gone():
            raise ClientGone
        return parse(request)

    return parse_for_client


def _task(endpoint: Endpoint, request: HttpRequest, foreseen: Foresight, size: int, deadline: float) -> Task:
    model = (foreseen.served.name, foreseen.served.version)
    is_json = b"json" in request.headers.get(b"content-type", b"")
    return Task((model, endpoint.name, is_json), model, size, deadline)
