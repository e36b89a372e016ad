"""Owns the express lane of a service that answers to certain names only; one that answers to any pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.api.endpoint import Endpoint
from service.api.http import HttpRequest, Reply, join_headers
from service.api.trust import Hosts
from service.drivers.asgi import ExpressLane, Scope, Send
from service.drivers.direct import DirectRequest
from service.drivers.exchange import Exchange
from service.drivers.waiting import Receive
from service.errors import HostNotAllowed


class NamedLane(ExpressLane):
    """An express lane that looks at each request's Host before anything else.

    Args:
        hosts: the names.
        arguments: of the express lane; its `rest` must refuse the same names, in the shape of the path's dialect.
    """

    def __init__(self, *arguments: Any, hosts: Hosts, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's life."""
        if scope["type"] == "http" and self._refusal(join_headers(scope["headers"])) is not None:
            await self.pass_on(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def begin(
        self, endpoint: Endpoint, request: HttpRequest, answer: Callable[[Reply], None]
    ) -> DirectRequest:
        """As the express lane's."""
        refusal = self._refusal(request.headers)
        if refusal is None:
            return super().begin(endpoint, request, answer)
        exchange = Exchange(endpoint, self._runtime, self._telemetry, request.headers.get(b"x-request-id"))
        reply = exchange.fail(refusal, request.path, request.query)
        answer(reply)
        exchange.record(reply.status)
        return DirectRequest(self._desk or self._open_desk(), exchange, self._printing, answer)

    def _refusal(self, headers: Mapping[bytes, bytes]) -> HostNotAllowed | None:
        return self._hosts.refusal(headers.get(b"host", b""))
