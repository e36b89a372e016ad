"""Owns the direct way of a small inference request on an event loop: no task, no coroutine, one call when it is done.

What a coroutine, its task and the messages of ASGI cost is as much as all else that a small request needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from service.api.http import HttpRequest, Reply
from service.api.weight import HeavyAfterAll
from service.drivers.exchange import Exchange
from service.drivers.waiting import Desk, Waiter
from service.errors import ServiceError
from service.serving.results import result_of
from service.tensors import InferResult

_log = logging.getLogger("layertap.connections")


class DirectRequest(Waiter):
    """One request; `answer` gets its reply on the loop, once, unless the client leaves before.

    Args:
        desk: of the loop.
        exchange: of the request.
        pool: renders replies that would hold up the loop.
        answer: sends the reply; what it raises is logged.
    """

    __slots__ = ("_answer", "_exchange", "_left", "_pool")

    def __init__(
        self, desk: Desk, exchange: Exchange, pool: Executor, answer: Callable[[Reply], None]
    ) -> None:
        super().__init__(desk)
        self._exchange = exchange
        self._pool = pool
        self._answer = answer
        self._left = False

    def begin(self, request: HttpRequest) -> None:
        """Parses the request, which must not be heavy, and queues it; an error is answered at once.

        Raises:
            HeavyAfterAll: it is, and nothing was done.
        """
        exchange = self._exchange
        try:
            call = exchange.parse(request)
            self.desk.submit(self, call.request, exchange.begun)
        except HeavyAfterAll:
            raise
        except Exception as error:  # noqa: BLE001 every request is answered, whatever went wrong
            self._send(exchange.fail(error, request.path, request.query))

    def leave(self) -> None:
        """The client has gone: the request leaves the queue, and nothing is answered."""
        self._left = True
        job = self.job
        if self.desk.leave(self) and job is not None:
            self.desk.runtime.abandon(job)
        self._exchange.left()

    def deliver(self) -> None:
        """Renders the reply to a result, or to the error that is there instead."""
        job = self.job
        if not self.desk.leave(self) or job is None:
            return
        exchange = self._exchange
        try:
            result = result_of(job)
            if exchange.is_heavy_reply(result):
                self._render_aside(result)
                return
            reply = exchange.finish(exchange.render(result))
        except Exception as error:  # noqa: BLE001 as above
            reply = exchange.fail(error)
        self._send(reply)

    def _render_aside(self, result: InferResult) -> None:
        rendering = self.desk.loop.run_in_executor(self._pool, self._exchange.render, result)
        rendering.add_done_callback(self._rendered)

    def _rendered(self, rendering: asyncio.Future[Reply]) -> None:
        if self._left:
            return
        error = rendering.exception()
        exchange = self._exchange
        self._send(exchange.fail(error) if error else exchange.finish(rendering.result()))

    def _send(self, reply: Reply) -> None:
        try:
            self._answer(reply)
        except Exception:  # noqa: BLE001 the others of its batch must be answered
            _log.exception("request %s: its reply could not be sent", self._exchange.request_id)
            self._exchange.record(ServiceError.status)
        else:
            self._exchange.record(reply.status)
