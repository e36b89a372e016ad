"""Owns the native dialect: `/predict` and `/features`, from a request to arrays and from arrays to a reply.

Sans-IO: nothing here waits. A driver calls `parse`, gives the InferRequest to the runtime, and calls `render`
with what comes back. The tables of query parameters and bodies stand in the README and in `/openapi.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from service.api import views
from service.api.bodies import InputReader
from service.api.http import HttpRequest, Reply
from service.api.options import Options, parse_accept, parse_options
from service.api.problems import problem
from service.codecs import JSON, NPY, encode_json, encode_npy, encode_npz
from service.errors import LayerRequired, LayertapError, NotAcceptable, ReplyTooLarge
from service.runtime import Runtime
from service.served import ServedModel
from service.tensors import Array, InferRequest, InferResult, OutputSpec

_JSON_BYTES_PER_NUMBER = 12  # of float32 in its shortest form, comma included; typical, not the most
_HEAVY_BODY_BYTES = 32 * 1024
_HEAVY_REPLY_NUMBERS = 8 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The part of the settings that this dialect needs, in bytes and pixels."""

    max_input_bytes: int
    max_image_pixels: int
    max_reply_bytes: int


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed request.

    Args:
        served: the model that answers.
        request: what the runtime runs.
        options: what the query asked for.
        features: the layers to return; empty on `/predict`.
        media: the reply's format.
    """

    served: ServedModel
    request: InferRequest
    options: Options
    features: tuple[str, ...]
    media: str


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

    def is_heavy(self, request: HttpRequest) -> bool:
        """Whether parsing would hold up an event loop: pictures and large bodies do."""
        body = request.body
        if len(body) > _HEAVY_BODY_BYTES or b'"b64"' in body:
            return True
        return request.header(b"content-type").startswith(("image/", "multipart/")) or body[:2] == b"PK"

    def parse(self, request: HttpRequest, runtime: Runtime) -> Call:
        """The call that a request means, its arrays decoded and checked.

        Raises:
            RequestError: the request is wrong; the message says what was expected and what came.
            NotReady: the model cannot answer now.
        """
        features = self.name == "features"
        options = parse_options(request.query, features=features)
        formats = parse_accept(request.header(b"accept"))
        served = runtime.resolve(options.model, options.version)
        paths = _layers(served, options) if features else ()
        outputs = _outputs(served, paths, predictions=options.predictions)
        names = {output.name for output in served.spec.outputs} if options.predictions else set()
        media = _choose(formats, len({*paths, *names}))
        reader = InputReader(
            served.name,
            served.spec.inputs,
            served.images,
            self._limits.max_input_bytes,
            self._limits.max_image_pixels,
        )
        inputs = reader.read(request)
        rows = len(next(iter(inputs.values())))
        call = Call(
            served,
            InferRequest(served.name, served.version, outputs, inputs, rows, options.timeout_s),
            options,
            paths,
            media,
        )
        self._check_size(_expected_bytes(call), call)
        return call

    def is_heavy_reply(self, result: InferResult) -> bool:
        """Whether rendering would hold up an event loop."""
        return sum(array.size for array in result.outputs.values()) > _HEAVY_REPLY_NUMBERS

    def render(self, call: Call, result: InferResult) -> Reply:
        """The reply, in the format that was agreed on.

        Raises:
            ReplyTooLarge: it exceeds `max_reply_bytes`, which could not be known before the model ran.
        """
        features = {path: _feature(call, result, path) for path in call.features}
        raw = {
            output.name: _readable(result.outputs[output.path])
            for output in (call.served.spec.outputs if call.options.predictions else ())
        }
        if call.media == JSON:
            body = encode_json(_document(call, features, raw))
        else:
            arrays = features | {name: views.cast(array, call.options.dtype) for name, array in raw.items()}
            body = encode_npy(next(iter(arrays.values()))) if call.media == NPY else encode_npz(arrays)
        self._check_size(len(body), call)
        return Reply(200, body, call.media)

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error."""
        return problem(error)

    def _check_size(self, size: int | None, call: Call) -> None:
        limit = self._limits.max_reply_bytes
        if size is not None and size > limit:
            raise ReplyTooLarge(
                f"Expected a reply of at most {limit} bytes (max_reply_bytes). Received: a request for "
                f"{call.request.rows} rows that needs about {size}. Ask for fewer rows, pool=avg, dtype=float16 or "
                "Accept: application/x-npy.",
                limit_bytes=limit,
                reply_bytes=size,
            )


def _layers(served: ServedModel, options: Options) -> tuple[str, ...]:
    if options.layers:
        return served.layers.resolve(options.layers)
    named = served.entry.config.default_layer
    if named is not None:
        return served.layers.resolve([named])
    if served.spec.bottleneck is None:
        raise LayerRequired(
            f"Expected a layer, as ?layer=NAME: model '{served.name}' has no layer with weights before its last one. "
            f"Received: none. GET /models/{served.name}/layers lists them."
        )
    return served.layers.resolve([served.spec.bottleneck])


def _outputs(served: ServedModel, paths: tuple[str, ...], *, predictions: bool) -> tuple[str, ...]:
    """What the engine must compute; one spelling for every order, so that such requests share batches."""
    wanted = {*paths, *(output.path for output in served.spec.outputs)} if predictions else set(paths)
    return served.layers.ordered(wanted)


def _choose(formats: tuple[str, ...], arrays: int) -> str:
    for media in formats:
        if media != NPY or arrays == 1:
            return media
    raise NotAcceptable(
        f"Expected a format that holds {arrays} arrays: application/x-npz or application/json. Received: {NPY}, "
        "which holds one."
    )


def _expected_bytes(call: Call) -> int | None:
    """The size of the reply as far as it is known before the model runs."""
    half = call.options.dtype == "float16"
    total = 0
    for path in call.features:
        layer = call.served.layers[path]
        values = views.pooled_values(layer) if call.options.pool else layer.tensor.row_values
        total += (values or 0) * _number_bytes(call.media, layer.dtype, half=half)
    for output in call.served.spec.outputs if call.options.predictions else ():
        total += (output.row_values or 0) * _number_bytes(call.media, output.dtype, half=half)
    return total * call.request.rows


def _number_bytes(media: str, dtype: str, *, half: bool) -> int:
    if media == JSON or dtype == "string":
        return _JSON_BYTES_PER_NUMBER
    kind = np.dtype(dtype)
    return 2 if half and kind.kind == "f" else kind.itemsize


def _feature(call: Call, result: InferResult, path: str) -> Array:
    values = _readable(result.outputs[path])
    options = call.options
    if options.pool is not None:
        values = views.pool(values, call.served.layers[path], options.pool)
    if options.normalize is not None:
        values = views.normalize(values)
    return views.cast(values, options.dtype)


def _readable(array: Array) -> Array:
    """Text leaves TensorFlow as bytes."""
    if array.dtype.kind != "O":
        return array
    return np.array([value.decode(errors="replace") for value in array.flat], dtype=str).reshape(array.shape)


def _document(call: Call, features: dict[str, Array], raw: dict[str, Array]) -> dict[str, Any]:
    document: dict[str, Any] = {"model": call.served.name, "version": call.served.version}
    if call.features:
        document["features"] = {path: _jsonable(array) for path, array in features.items()}
    if raw:
        columns: dict[str, dict[str, Any]] = {}
        for output in call.served.spec.outputs:
            for column, value in _columns(call, output, raw[output.name]).items():
                columns.setdefault(column, {})[output.name] = value
        single = len(raw) == 1
        document |= {
            column: next(iter(by_output.values())) if single else by_output
            for column, by_output in columns.items()
        }
    return document


def _columns(call: Call, output: OutputSpec, values: Array) -> dict[str, Any]:
    """`predictions`, and `labels`, `classes`, `scores` and `top` where the output has them."""
    columns = {"predictions": _jsonable(views.cast(values, call.options.dtype))}
    found = views.label(values, output)
    if found is None:
        return columns
    names = call.served.entry.classes
    classes = names if len(names) == found.values.shape[-1] else ()
    columns["labels"] = _jsonable(found.labels)
    if classes:
        columns["classes"] = views.name_labels(found.labels, classes)
    columns["scores"] = _jsonable(found.scores)
    if call.options.top is not None:
        columns["top"] = views.top_k(found, call.options.top, classes)
    return columns


def _jsonable(array: Array) -> Any:
    """What the JSON encoder takes: arrays in C order; text as lists."""
    return array.tolist() if array.dtype.kind == "U" else np.ascontiguousarray(array)
