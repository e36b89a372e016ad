"""Owns what both drivers do alike: one request's way through parsing, timing, errors, headers and metrics.

The drivers (`app`, `asgi`) differ only in how they wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from service.api.endpoint import Call, Dialect, Endpoint, Foresight
from service.api.http import HttpRequest, Reply
from service.drivers.browsers import guarded
from service.errors import BodyTooLarge, LayertapError, MemoryFull, ServiceError
from service.memory import Charge, paid_by
from service.scheduling.admission import Place
from service.serving.runtime import Runtime
from service.telemetry import UNKNOWN, Telemetry, server_timing_header
from service.tensors import InferResult, Timings

_log = logging.getLogger("layertap.exchange")

_REPLY_TIMES = 3  # bytes of a reply for each of its arrays', about; JSON has 12 for a float32, binary forms 4
CLIENT_GONE = 499  # what logs and metrics call a request whose client left; nothing is sent


class Exchange:
    """One inference request, from its arrival to its reply.

    Args:
        endpoint: the route.
        runtime: the facade.
        telemetry: where it is recorded.
        request_id: the client's own, if any.

    Attributes:
        charge: what it holds of the memory until it is parsed, then `InferRequest.charge` is the one; `None` for small
            requests, whose memory nobody counts.
    """

    __slots__ = (
        "_endpoint",
        "_foreseen",
        "_label",
        "_place",
        "_runtime",
        "_telemetry",
        "begun",
        "call",
        "charge",
        "request_id",
        "timings",
    )

    def __init__(
        self, endpoint: Endpoint, runtime: Runtime, telemetry: Telemetry, request_id: bytes | None
    ) -> None:
        self._endpoint = endpoint
        self._runtime = runtime
        self._telemetry = telemetry
        self.request_id = telemetry.request_id(request_id)
        self.begun = time.monotonic()
        self.timings = Timings()
        self.call: Call | None = None
        self.charge: Charge | None = None
        self._foreseen: Foresight | None = None
        self._label = UNKNOWN
        self._place: Place | None = None

    def foresee(self, request: HttpRequest) -> Foresight:
        """What is known of a heavy request before its body is read. Raises RequestError or NotReady."""
        self._foreseen = foreseen = self._endpoint.foresee(request, self._runtime)
        return foreseen

    def book(self, foreseen: Foresight, before: tuple[float, float] = (0.0, 0.0)) -> None:
        """Keeps a place for a heavy request until it is queued or has failed; `before` as `Runtime.book`.

        Raises:
            QueueFull: it is not likely to be answered in time, so its body need not be read.
        """
        deadline = self._runtime.deadline(self.begun, foreseen.timeout_s)
        self._place = self._runtime.book(foreseen.served, foreseen.outputs, deadline, before)

    def parse(self, request: HttpRequest) -> Call:
        """The request's call; may be slow for large bodies and pictures. Raises RequestError or NotReady."""
        begun = time.perf_counter()
        charge = self.charge
        if charge is None:
            call: Call = self._endpoint.parse(request, self._runtime)
        else:
            with paid_by(charge):
                call = self._endpoint.parse(request, self._runtime)
            charge.keep(len(request.body) + sum(array.nbytes for array in call.request.inputs.values()))
            call.request.charge = charge
        self.call = call
        call.request.place = self._place
        call.request.request_id = self.request_id
        self.timings.decode_s = time.perf_counter() - begun
        return call

    def is_heavy_reply(self, result: InferResult) -> bool:
        """Whether rendering would hold up an event loop."""
        return self._endpoint.is_heavy_reply(result)

    def render(self, result: InferResult) -> Reply:
        """The reply for the result of the call that was parsed; may be slow for large ones."""
        begun = time.perf_counter()
        if self.call is not None and self.is_heavy_reply(result):
            self._charge_reply(self.call, result)
        reply = self._endpoint.render(self.call, result)
        timings = self.timings
        timings.queue_s, timings.compute_s = result.queue_s, result.compute_s
        timings.encode_s = time.perf_counter() - begun
        return reply

    def _charge_reply(self, call: Call, result: InferResult) -> None:
        """Charges a long reply before it is written."""
        charge = call.request.charge
        if not isinstance(charge, Charge):
            charge = call.request.charge = self._runtime.memory.charge()
        size = sum(array.nbytes for array in result.outputs.values())
        charge.hold(_REPLY_TIMES * size, "its reply")

    def finish(self, reply: Reply) -> Reply:
        """Adds the headers of an answer."""
        reply.headers["server-timing"] = server_timing_header(self.timings)
        reply.headers["x-request-id"] = self.request_id
        return reply

    def fail(self, error: BaseException, path: str = "", query: bytes = b"") -> Reply:
        """The reply for an error.

        Args:
            error: what went wrong.
            path: decoded; like the query it may be left out once the request was parsed.
            query: raw.
        """
        if self.call is None and path:
            self._label = self._runtime.label(self._endpoint.named(path, query)) or UNKNOWN
        return _problem(self._endpoint, error, self._telemetry, self.request_id)

    def left(self) -> None:
        """Records that the client has gone before its reply."""
        self.record(CLIENT_GONE)

    def record(self, status: int) -> None:
        """The end of the request: its reply was sent, with this status, or could not be."""
        call, foreseen = self.call, self._foreseen
        charge = self.charge if call is None else call.request.charge
        if isinstance(charge, Charge):
            charge.release()
        model = self._label
        if self._place is not None:
            self._runtime.leave(self._place)
        if call is None and foreseen is not None:
            model = foreseen.served.name
            self._runtime.ledger.failed(model, foreseen.served.version, time.monotonic() - self.begun)
        if call is not None:
            model, version = call.request.model, call.request.version
            if status == 200:
                self._runtime.ledger.answered(model, version, self.timings)
            else:
                self._runtime.ledger.failed(model, version, time.monotonic() - self.begun)
        self._telemetry.answered(
            self._endpoint.name, model, status, self.timings if status == 200 else None, self.request_id
        )
        if call is not None and status == 200:
            for path in call.layers:
                self._telemetry.layer_asked(model, path)


def answer(
    dialect: Dialect,
    read: Callable[[], HttpRequest],
    runtime: Runtime,
    telemetry: Telemetry,
    request_id: bytes | None,
) -> Reply:
    """The reply to what is no inference in a dialect, recorded, errors in the dialect's own shape; may block.

    Args:
        dialect: whose path it is.
        read: gives the request; may raise BodyTooLarge.
        runtime: the facade.
        telemetry: where it is recorded.
        request_id: the client's own, if any.
    """
    named = telemetry.request_id(request_id)
    try:
        reply = guarded(dialect.answer(read(), runtime))
    except Exception as error:  # noqa: BLE001 every request is answered, whatever went wrong
        reply = _problem(dialect, error, telemetry, named)
    reply.headers["x-request-id"] = named
    telemetry.answered(dialect.name, UNKNOWN, reply.status, None, named)
    return reply


def _problem(
    speaker: Endpoint | Dialect, error: BaseException, telemetry: Telemetry, request_id: str
) -> Reply:
    """The reply for an error; what is not ours becomes a 500 and is logged with its trace."""
    if isinstance(error, MemoryError):
        _log.error("request %s failed: the system has no memory left", request_id, exc_info=error)
        error = MemoryFull("Expected memory for this request. Received: none from the system.")
    elif not isinstance(error, LayertapError):
        _log.error("request %s failed", request_id, exc_info=error)
        error = ServiceError("The service failed on this request; its log has the cause.")
    telemetry.metrics.rejected.labels(error.code).inc()
    reply = guarded(speaker.problem(error))
    reply.headers["x-request-id"] = request_id
    return reply


def body_too_large(limit: int) -> BodyTooLarge:
    """The error for a body over the limit, the same from every driver."""
    return BodyTooLarge(
        f"Expected a body of at most {limit} bytes (max_body_bytes). Received: more.", limit_bytes=limit
    )
