"""Owns the way from a request's tensors, JSON or binary, to a model's named inputs.

A tensor has the datatype of the model's input, or one whose every value that datatype holds too (`widens`). BYTES
for an input that takes pictures are image files, one a row; in JSON their base64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.api.intake import Budget, Intake, kind, located
from service.api.json_inputs import b64_bytes
from service.api.openinference import datatypes
from service.api.openinference.datatypes import BYTES
from service.api.openinference.requests import InputHead
from service.errors import InvalidInput
from service.fields import nearest
from service.payloads.fitting import fit
from service.payloads.json_tensors import Numbers
from service.payloads.nested_lists import array_from_lists, array_from_numbers, quick_rows
from service.tensors import Array, TensorSpec

_TEXT = TensorSpec("", (None,), "string")


def read_inputs(heads: Sequence[InputHead], binary: memoryview, intake: Intake) -> dict[str, Array]:
    """The inputs of a request: name -> (rows, *row shape) in the input's dtype.

    Args:
        heads: what the JSON says of them, in order.
        binary: the bytes behind the JSON.
        intake: what the model takes.

    Raises:
        InvalidInput, UndecodableImage, BodyTooLarge: they do not fit the model, or the bytes do not fit them.
    """
    specs = {spec.name: spec for spec in intake.inputs}
    check_heads(heads, specs, intake)
    budget = Budget(intake.max_input_bytes)
    arrays: dict[str, Array] = {}
    for head, data in zip(heads, cut_binary(heads, binary), strict=True):
        spec = specs[head.name]
        if head.datatype == BYTES:
            arrays[head.name] = _read_elements(head, data, spec, intake, budget)
            continue
        budget.spend(math.prod(head.shape) * np.dtype(spec.dtype).itemsize, f"input '{head.name}'")
        if head.size is None:
            arrays[head.name] = _read_json(head, spec)
        else:
            arrays[head.name] = read_binary(head, data, spec.dtype)
    return arrays


def check_heads(heads: Sequence[InputHead], specs: dict[str, TensorSpec], intake: Intake) -> None:
    """Raises InvalidInput unless names, datatypes and shapes are those of the model's inputs, with equal rows."""
    for place, head in enumerate(heads):
        spec = specs.get(head.name)
        if spec is None:
            raise InvalidInput(
                f"Expected the inputs {list(specs)} of model '{intake.model}'. "
                f"Received: {head.name[:80]!r}.{nearest(head.name, specs)}"
            )
        if any(head.name == other.name for other in heads[:place]):
            raise InvalidInput(f"Expected each input once. Received: '{head.name}' twice.")
        if head.datatype == BYTES and head.name in intake.images:
            _check_picture_shape(head)
            continue
        _check_datatype(head, spec)
        _check_shape(head, spec)
    missing = [name for name in specs if all(head.name != name for head in heads)]
    if missing:
        raise InvalidInput(
            f"Expected the inputs {list(specs)} of model '{intake.model}'. Missing: {missing}."
        )
    rows = {head.name: head.shape[0] for head in heads}
    if len(set(rows.values())) > 1:
        raise InvalidInput(f"Expected the same number of rows for every input. Received: {rows}.")


def cut_binary(heads: Sequence[InputHead], binary: memoryview) -> list[memoryview]:
    """The bytes of each input, in order; none for those in JSON.

    Raises:
        InvalidInput: the bytes are not those that the heads announce, or not those that a shape needs.
    """
    announced = sum(head.size or 0 for head in heads)
    if announced != binary.nbytes:
        raise InvalidInput(
            f"Expected {announced} bytes behind the JSON, as 'binary_data_size' of the inputs say. "
            f"Received: {binary.nbytes}. Inference-Header-Content-Length says where the JSON ends."
        )
    pieces: list[memoryview] = []
    for head in heads:
        size = head.size or 0
        pieces.append(binary[:size])
        binary = binary[size:]
        if head.size is not None and head.datatype != BYTES:
            needed = math.prod(head.shape) * datatypes.item_bytes(head.datatype)
            if needed != size:
                raise InvalidInput(
                    f"Expected {needed} bytes for input '{head.name}', shape {list(head.shape)} of {head.datatype}. "
                    f"Received: {size}."
                )
    return pieces


def read_binary(head: InputHead, data: memoryview, dtype: str) -> Array:
    """A binary input of numbers, checked before: a view of its bytes wherever they have the model's dtype."""
    return datatypes.decode_numbers(data, head.datatype, head.shape).astype(dtype, copy=False)


def _check_datatype(head: InputHead, spec: TensorSpec) -> None:
    if datatypes.widens(head.datatype, spec.dtype):
        if head.size is None and head.datatype in datatypes.BINARY_ONLY:
            raise InvalidInput(
                f"Expected input '{head.name}' as binary data, because {head.datatype} has no form in JSON. "
                "Received: 'data'."
            )
        return
    raise InvalidInput(
        f"Expected {datatypes.datatype_of(spec.dtype)} for input '{head.name}', or a datatype whose every value "
        f"fits it. Received: {head.datatype}."
    )


def _check_shape(head: InputHead, spec: TensorSpec) -> None:
    fits = len(head.shape) == len(spec.shape) and all(
        want is None or want == got for want, got in zip(spec.row_shape, head.shape[1:], strict=True)
    )
    if not fits or 0 in head.shape:
        shape = ", ".join(["rows", *("any" if size is None else str(size) for size in spec.row_shape)])
        raise InvalidInput(
            f"Expected shape [{shape}] for input '{head.name}', no axis of it empty. Received: {list(head.shape)}."
        )


def _check_picture_shape(head: InputHead) -> None:
    if head.shape[:1] in ((), (0,)) or head.shape[1:] not in ((), (1,)):
        raise InvalidInput(
            f"Expected shape [rows] or [rows, 1] for input '{head.name}' as BYTES, one image file a row. "
            f"Received: {list(head.shape)}."
        )


def _read_json(head: InputHead, spec: TensorSpec) -> Array:
    data, shape, where = head.data, head.shape, f"data of input '{head.name}'"
    if isinstance(data, Numbers):
        return _widened(array_from_numbers(data, _sent(head), where), head, spec, where)
    data = _list(data, where)
    if (
        datatypes.dtype_of(head.datatype) == spec.dtype and len(shape) == 2 and len(data) <= 64
    ):  # as many as `quick_rows` may take
        width = shape[1]
        rows = data if shape[0] == len(data) > 0 and isinstance(data[0], list) else _in_rows(data, width)
        quick = quick_rows(rows, spec)
        if quick is not None and quick.shape == shape:
            return quick
    return _widened(array_from_lists(data, _sent(head), where, plain=False), head, spec, where)


def _sent(head: InputHead) -> TensorSpec:
    """The tensor as the request describes it."""
    return TensorSpec(head.name, (None, *head.shape[1:]), datatypes.dtype_of(head.datatype))


def _widened(array: Array, head: InputHead, spec: TensorSpec, where: str) -> Array:
    """Numbers that were sent as one datatype, in the dtype of the model's input."""
    fitted = fit(_reshaped(array, head, where), _sent(head), where, finite=False)
    return np.asarray(fitted, spec.dtype)


def _list(data: Any, where: str) -> list[Any]:
    if isinstance(data, Numbers):
        data = data.lists()
    if not isinstance(data, list):
        raise InvalidInput(f"Expected {where} to be a list. Received: {kind(data)}.")
    return data


def _in_rows(flat: list[Any], width: int) -> list[Any]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _reshaped(array: Array, head: InputHead, where: str) -> Array:
    """Flat or nested data in the shape that the request declares."""
    if array.size != math.prod(head.shape) or (array.ndim > 1 and array.shape != head.shape):
        raise InvalidInput(
            f"Expected {where} to have shape {list(head.shape)}, flat or nested. Received: {list(array.shape)}."
        )
    return array.reshape(head.shape)


def _read_elements(
    head: InputHead, data: memoryview, spec: TensorSpec, intake: Intake, budget: Budget
) -> Array:
    where = f"data of input '{head.name}'"
    pictures = head.name in intake.images
    if head.size is None:
        array = array_from_lists(_list(head.data, where), _TEXT, where, plain=False)
        elements = _reshaped(array, head, where).ravel().tolist()
        if pictures:
            elements = [b64_bytes({"b64": text}, f"{where}[{place}]") for place, text in enumerate(elements)]
    else:
        elements = list(datatypes.decode_elements(data, math.prod(head.shape), where))
    if pictures:
        return _decode_pictures(elements, head.name, where, intake, budget)
    budget.spend(sum(map(len, elements)), where)
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return fit(array.reshape(head.shape), spec, where)


def _decode_pictures(elements: list[bytes], name: str, where: str, intake: Intake, budget: Budget) -> Array:
    rows: list[Array] = []
    for place, element in enumerate(elements):
        what = f"{where}[{place}]"
        with located(what, index=place):
            rows.append(intake.picture(element, name))
        budget.spend(rows[-1].nbytes, what)
    if len({row.shape for row in rows}) > 1:
        shapes = sorted({row.shape for row in rows})
        raise InvalidInput(f"Expected pictures of one size in {where}. Received: {shapes}.")
    return np.stack(rows)
