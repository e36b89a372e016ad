"""Owns the seam between the drivers, which wait, and the dialects, which do not.

A *dialect* is what one family of clients speaks: the native API, TensorFlow Serving's REST API with KServe V1, the
Open Inference Protocol V2. It is sans-IO: it turns a request into an `InferRequest` and an `InferResult` into a
reply. The drivers (`app`, `asgi`) route a request to a dialect, run what it parsed, and send what it rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from service.api.http import HttpRequest, Reply
from service.errors import LayertapError
from service.serving.runtime import Runtime
from service.serving.served import ServedModel
from service.tensors import InferRequest, InferResult


@dataclass(frozen=True, slots=True)
class Limits:
    """The part of the settings that dialects need, in bytes and pixels."""

    max_input_bytes: int
    max_image_pixels: int
    max_reply_bytes: int


class Call(Protocol):
    """A parsed request: what the runtime runs for it, and whatever its dialect needs to render the reply."""

    @property
    def request(self) -> InferRequest:
        """Valid arrays for one model."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """The hidden layers that were asked for by name, for the metrics."""
        ...


@dataclass(frozen=True, slots=True)
class Foresight:
    """What is known of a request before its body is read.

    Args:
        served: the model that will answer.
        outputs: what it will probably compute.
        timeout_s: the client's own limit, if it gave one.
    """

    served: ServedModel
    outputs: tuple[str, ...]
    timeout_s: float | None = None


class Endpoint(Protocol):
    """One inference route of a dialect."""

    @property
    def name(self) -> str:
        """The route's label in metrics and logs; from a fixed set, never from a request."""
        ...

    def named(self, path: str, query: bytes) -> str | None:
        """The model that a request names, right or wrong; `None` where it names none, or in a way that is odd."""
        ...

    def is_heavy(self, request: HttpRequest) -> bool:
        """Whether parsing would hold up an event loop: pictures and large bodies do."""
        ...

    def foresee(self, request: HttpRequest, runtime: Runtime) -> Foresight:
        """What can be told of a heavy request at once.

        Raises:
            RequestError, NotReady: as `parse`; there is no need to read the body.
        """
        ...

    def parse(self, request: HttpRequest, runtime: Runtime) -> Any:
        """The `Call` that a request means, its arrays decoded and checked.

        Raises:
            RequestError: the request is wrong; the message says what was expected and what came.
            NotReady: the model cannot answer now.
        """
        ...

    def is_heavy_reply(self, result: InferResult) -> bool:
        """Whether rendering would hold up an event loop."""
        ...

    def render(self, call: Any, result: InferResult) -> Reply:
        """The reply to a call that this endpoint parsed.

        Raises:
            ReplyTooLarge: it exceeds `max_reply_bytes`, which could not be known before the model ran.
        """
        ...

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error, in the dialect's own shape."""
        ...


class Dialect(Protocol):
    """Every route under one prefix."""

    @property
    def name(self) -> str:
        """Its label in metrics and logs for what is no inference."""
        ...

    @property
    def prefix(self) -> str:
        """`/v1`: it takes that path and all paths below it."""
        ...

    def endpoint(self, path: str) -> Endpoint | None:
        """What answers a POST to this path by running a model; `None` where `answer` does."""
        ...

    def is_health(self, path: str) -> bool:
        """Whether a GET to this path asks if something is well: the answer waits for nobody else's."""
        ...

    def answer(self, request: HttpRequest, runtime: Runtime) -> Reply:
        """The reply to anything else under the prefix: health, metadata, administration; may block.

        Raises:
            LayertapError: among them NotFound and MethodNotAllowed; `problem` renders it.
        """
        ...

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error, in the dialect's own shape."""
        ...
