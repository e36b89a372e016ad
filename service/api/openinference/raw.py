"""Owns requests without a head: the whole body is the value of a model's only input."""

from __future__ import annotations

import math

import numpy as np

from service.api.bodies import IMAGE_MAGIC
from service.api.intake import Intake
from service.api.openinference.datatypes import datatype_of, decode_numbers
from service.errors import InvalidInput
from service.payloads.fitting import fit
from service.tensors import Array


def read_raw(body: bytes, intake: Intake) -> dict[str, Array]:
    """The only input of a model from a body that is nothing but its values: one row.

    It is the row's numbers in the input's own datatype, with at most one axis of any size; or the one element of an
    input of text; or, for an input that takes pictures, an image file.

    Raises:
        InvalidInput, UndecodableImage: several inputs, several free axes, or another number of bytes.

    Source: "Raw Binary Request" of triton-inference-server/server/docs/protocol/extension_binary_data.md.
    """
    spec = intake.only()
    if spec.dtype == "string":
        element = np.empty((1,) * len(spec.shape), dtype=object)
        element.flat[0] = body
        return {spec.name: fit(element, spec, "the body")}
    item = np.dtype(spec.dtype).itemsize
    known = math.prod(size for size in spec.row_shape if size is not None)
    if spec.name in intake.images and (body.startswith(IMAGE_MAGIC) or len(body) != known * item):
        return {spec.name: intake.picture(body, spec.name)[np.newaxis]}
    free = spec.row_shape.count(None)
    count, rest = divmod(len(body), known * item)
    if free > 1 or rest or not count or (count > 1 and not free):
        shape = ", ".join("any" if size is None else str(size) for size in spec.row_shape)
        raise InvalidInput(
            f"Expected the body to be one row of input '{spec.name}', shape [{shape}] of "
            f"{datatype_of(spec.dtype)} with at most one axis of any size. Received: {len(body)} bytes."
        )
    shape_sent = (1, *(count if size is None else size for size in spec.row_shape))
    numbers = decode_numbers(memoryview(body), datatype_of(spec.dtype), shape_sent)
    return {spec.name: numbers.astype(spec.dtype, copy=False)}
