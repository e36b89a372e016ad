"""Owns the native dialect: `/predict` and `/features`, from a request to arrays and from arrays to a reply.

Sans-IO: nothing here waits. A driver calls `parse`, gives the InferRequest to the runtime, and calls `render`
with what comes back. The tables of query parameters and bodies stand in the README and in `/openapi.json`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from service.api import views
from service.api.endpoint import Foresight, Limits
from service.api.http import HttpRequest, Reply
from service.api.plans import Plan, Planner
from service.api.problems import problem
from service.api.weight import check_reply, is_heavy_json, is_heavy_result
from service.errors import LayertapError
from service.payloads.codecs import JSON, NPY, NPY_MAGIC, encode_json, encode_npy, encode_npz
from service.serving.runtime import Runtime
from service.tensors import Array, InferRequest, InferResult, OutputSpec

_MODEL = re.compile(rb"(?:^|&)model=([^&]*)")
_MEND = "Ask for fewer rows, pool=avg, dtype=float16 or Accept: application/x-npy."


@dataclass(slots=True)  # not frozen: that would make each request's a microsecond dearer
class Call:
    """A parsed request: how it is answered, and what the runtime runs for it."""

    plan: Plan
    request: InferRequest

    @property
    def layers(self) -> tuple[str, ...]:
        """The hidden layers that were asked for."""
        return self.plan.features


class NativeEndpoint:
    """One of the two inference routes.

    Args:
        name: `predict` or `features`; also the route's label in metrics.
        limits: sizes.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.path = f"/{name}"
        self._limits = limits
        self._planner = Planner(limits, features=name == "features")

    def named(self, path: str, query: bytes) -> str | None:  # noqa: ARG002 the path names none
        """The model in the query."""
        found = _MODEL.search(query)
        return None if found is None else unquote_to_bytes(found[1]).decode(errors="replace")

    def is_heavy(self, request: HttpRequest) -> bool:
        """Whether parsing would hold up an event loop: pictures and large bodies do."""
        body = request.body
        if is_heavy_json(body):
            return True
        media = request.headers.get(b"content-type", b"")
        return media.startswith((b"image/", b"multipart/")) or not body.startswith((b"{", NPY_MAGIC))

    def foresee(self, request: HttpRequest, runtime: Runtime) -> Foresight:
        """What the query says.

        Raises:
            RequestError: the query is wrong.
            NotReady: the model cannot answer now.
        """
        plan = self._planner.plan(request.query, request.header(b"accept"), runtime)
        return Foresight(plan.served, plan.outputs, plan.options.timeout_s)

    def parse(self, request: HttpRequest, runtime: Runtime) -> Call:
        """The call that a request means, its arrays decoded and checked.

        Raises:
            RequestError: the request is wrong; the message says what was expected and what came.
            NotReady: the model cannot answer now.
        """
        plan = self._planner.plan(request.query, request.header(b"accept"), runtime)
        inputs = plan.reader.read(request)
        rows = len(next(iter(inputs.values())))
        check_reply(plan.row_bytes * rows, rows, self._limits, _MEND)
        served, timeout_s = plan.served, plan.options.timeout_s
        wanted = InferRequest(
            served.name, served.version, plan.outputs, inputs, rows, timeout_s, served=served
        )
        return Call(plan, wanted)

    def is_heavy_reply(self, result: InferResult) -> bool:
        """Whether rendering would hold up an event loop."""
        return is_heavy_result(result)

    def render(self, call: Call, result: InferResult) -> Reply:
        """The reply, in the format that was agreed on.

        Raises:
            ReplyTooLarge: it exceeds `max_reply_bytes`, which could not be known before the model ran.
        """
        plan = call.plan
        features = {path: _feature(plan, result, path) for path in plan.features} if plan.features else {}
        raw = {output.name: _readable(result.outputs[output.path]) for output in plan.predictions}
        if plan.media == JSON:
            body = encode_json(_document(plan, features, raw))
        else:
            arrays = features | {name: views.cast(array, plan.options.dtype) for name, array in raw.items()}
            body = encode_npy(next(iter(arrays.values()))) if plan.media == NPY else encode_npz(arrays)
        check_reply(len(body), call.request.rows, self._limits, _MEND)
        return Reply(200, body, plan.media)

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error."""
        return problem(error)


def _feature(plan: Plan, result: InferResult, path: str) -> Array:
    values = _readable(result.outputs[path])
    options = plan.options
    if options.pool is not None:
        values = views.pool(values, plan.served.layers[path], options.pool)
    if options.normalize is not None:
        values = views.normalize(values)
    return views.cast(values, options.dtype)


def _readable(array: Array) -> Array:
    """Text leaves TensorFlow as bytes."""
    if array.dtype.kind != "O":
        return array
    return np.array([value.decode(errors="replace") for value in array.flat], dtype=str).reshape(array.shape)


def _document(plan: Plan, features: dict[str, Array], raw: dict[str, Array]) -> dict[str, Any]:
    document: dict[str, Any] = {"model": plan.served.name, "version": plan.served.version}
    if features:
        document["features"] = {path: _jsonable(array) for path, array in features.items()}
    for output in plan.predictions:
        columns = _columns(plan, output, raw[output.name])
        if len(raw) == 1:
            document.update(columns)
        else:
            for column, value in columns.items():
                document.setdefault(column, {})[output.name] = value
    return document


def _columns(plan: Plan, output: OutputSpec, values: Array) -> dict[str, Any]:
    """`predictions`, and `labels`, `classes`, `scores` and `top` where the output has them."""
    columns = {"predictions": _jsonable(views.cast(values, plan.options.dtype))}
    found = views.label(values, output)
    if found is None:
        return columns
    names = plan.served.entry.classes
    classes = names if len(names) == found.values.shape[-1] else ()
    columns["labels"] = _jsonable(found.labels)
    if classes:
        columns["classes"] = views.name_labels(found.labels, classes)
    columns["scores"] = _jsonable(found.scores)
    if plan.options.top is not None:
        columns["top"] = views.top_k(found, plan.options.top, classes)
    return columns


def _jsonable(values: Array | list[Any]) -> Any:
    """What the JSON encoder takes: arrays in C order, lists; text as lists."""
    if isinstance(values, list) or (values.flags.c_contiguous and values.dtype.kind != "U"):
        return values
    return values.tolist() if values.dtype.kind == "U" else np.ascontiguousarray(values)
