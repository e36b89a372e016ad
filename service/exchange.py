"""Owns what both drivers do alike: one request's way through parsing, timing, errors, headers and metrics.

The drivers (`app`, `asgi`) differ only in how they wait.
"""

from __future__ import annotations

import logging
import time

from service.api.http import HttpRequest, Reply
from service.api.native import Call, NativeEndpoint
from service.errors import BodyTooLarge, LayertapError, ServiceError
from service.runtime import Runtime
from service.telemetry import UNKNOWN, Telemetry, server_timing_header
from service.tensors import InferResult, Timings

_log = logging.getLogger("layertap.exchange")

CLIENT_GONE = 499  # what logs and metrics call a request whose client left; nothing is sent


class Exchange:
    """One inference request, from its arrival to its reply.

    Args:
        endpoint: the route's dialect.
        runtime: the facade.
        telemetry: where it is recorded.
        request_id: the client's own, if any.
    """

    __slots__ = ("_endpoint", "_runtime", "_telemetry", "begun", "call", "request_id", "timings")

    def __init__(
        self, endpoint: NativeEndpoint, runtime: Runtime, telemetry: Telemetry, request_id: bytes | None
    ) -> None:
        self._endpoint = endpoint
        self._runtime = runtime
        self._telemetry = telemetry
        self.request_id = telemetry.request_id(request_id)
        self.begun = time.monotonic()
        self.timings = Timings()
        self.call: Call | None = None

    def parse(self, request: HttpRequest) -> Call:
        """The request's call; may be slow for large bodies and pictures. Raises RequestError or NotReady."""
        begun = time.perf_counter()
        call = self.call = self._endpoint.parse(request, self._runtime)
        self.timings.decode_s = time.perf_counter() - begun
        return call

    def render(self, call: Call, result: InferResult) -> Reply:
        """The reply for a result; may be slow for large ones."""
        begun = time.perf_counter()
        reply = self._endpoint.render(call, result)
        timings = self.timings
        timings.queue_s, timings.compute_s = result.queue_s, result.compute_s
        timings.encode_s = time.perf_counter() - begun
        return reply

    def finish(self, reply: Reply) -> Reply:
        """Adds the headers of an answer and records it."""
        reply.headers["server-timing"] = server_timing_header(self.timings)
        reply.headers["x-request-id"] = self.request_id
        self._record(reply.status)
        return reply

    def fail(self, error: BaseException) -> Reply:
        """The reply for an error, recorded; what is not ours becomes a 500 and is logged with its trace."""
        if not isinstance(error, LayertapError):
            _log.error("request %s failed", self.request_id, exc_info=error)
            error = ServiceError("The service failed on this request; its log has the cause.")
        reply = self._endpoint.problem(error)
        reply.headers["x-request-id"] = self.request_id
        self._telemetry.metrics.rejected.labels(error.code).inc()
        self._record(reply.status)
        return reply

    def left(self) -> None:
        """Records that the client has gone before its reply."""
        self._record(CLIENT_GONE)

    def _record(self, status: int) -> None:
        call = self.call
        model = call.plan.served.name if call is not None else UNKNOWN
        self._telemetry.answered(
            self._endpoint.name, model, status, self.timings if status == 200 else None, self.request_id
        )
        if call is not None and status == 200:
            for path in call.plan.features:
                self._telemetry.layer_asked(model, path)


def body_too_large(limit: int) -> BodyTooLarge:
    """The error for a body over the limit, the same from every driver."""
    return BodyTooLarge(
        f"Expected a body of at most {limit} bytes (max_body_bytes). Received: more.", limit_bytes=limit
    )
