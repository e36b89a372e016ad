"""Owns the head of an inference request: the JSON object, checked, as plain values. It knows no model.

Source: "Inference" of the Open Inference Protocol V2, and Triton's extensions binary_tensor_data, classification,
schedule_policy and parameters (triton-inference-server/server/docs/protocol). As Triton does, it takes NaN, Infinity
and -Infinity for numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.api.intake import kind
from service.api.json_tokens import loads_with_tokens, may_have_tokens
from service.errors import InvalidInput, InvalidJson, InvalidParameter, InvalidRequest
from service.payloads.codecs import decode_json
from service.payloads.json_lifting import WORTH_IT, Place, lift

_MICROSECONDS = 1e-6
_NUMBERS: tuple[Place, ...] = (("inputs", None, "data"),)
_MAX_AXES = 32
_MAX_OUTPUTS = 1024  # each may be a pattern that is held against every layer
_MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class InputHead:
    """One input as the request describes it.

    Args:
        name: the input's name.
        datatype: as written.
        shape: batch axis first.
        size: how many bytes behind the JSON are its; `None` where `data` holds it.
        data: the JSON value, `Numbers` in place of a long list of them, `None` where it is binary.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    data: Any


@dataclass(frozen=True, slots=True)
class OutputWish:
    """One output that a request asks for.

    Args:
        name: a declared output, or a layer in any spelling.
        binary: behind the JSON of the reply, instead of in it.
        classes: how many of its best classes are wanted instead of its numbers; 0 for its numbers.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What the JSON of a request says.

    Args:
        id: to be echoed; `None` where the request has none.
        inputs: in the order of the request, which is the order of the binary ones' bytes.
        outputs: what is asked for; empty for all declared outputs.
        binary: whether outputs are binary unless they say otherwise.
        timeout_s: the client's limit; `None` where there is none.
        priority: 1 goes first, 0 is the default.
    """

    id: str | None
    inputs: tuple[InputHead, ...]
    outputs: tuple[OutputWish, ...]
    binary: bool
    timeout_s: float | None
    priority: int


def split_body(body: bytes, length: str) -> tuple[bytes | memoryview, memoryview]:
    """The JSON of a body, and the binary tensors behind it.

    Args:
        body: unpacked.
        length: the Inference-Header-Content-Length header; without one all of the body is JSON.

    Raises:
        InvalidRequest: it is no length within the body.
    """
    view = memoryview(body)
    if not length:
        return body, view[:0]
    # More digits than any body has bytes would be slow to convert.
    if not (length.isascii() and length.isdigit() and len(length) <= 18) or int(length) > len(body):
        raise InvalidRequest(
            f"Expected Inference-Header-Content-Length to be from 0 to {len(body)}, the length of the body. "
            f"Received: {length[:80]!r}."
        )
    return view[: int(length)], view[int(length) :]


def read_head(text: bytes | memoryview) -> Head:
    """The head of a request.

    Raises:
        InvalidJson, InvalidInput, InvalidParameter, InvalidRequest: it is none.
    """
    document = _object(_parse(text), "the request")
    given_id = document.get("id")
    if given_id is not None and not isinstance(given_id, str):
        raise InvalidRequest(f"Expected 'id' to be a string. Received: {kind(given_id)}.")
    parameters = _parameters(document, "the request")
    binary = _flag(parameters, "binary_data_output", default=False)
    inputs = tuple(
        _read_input(value, f"inputs[{place}]") for place, value in enumerate(_list(document, "inputs"))
    )
    if not inputs:
        raise InvalidInput("Expected 'inputs' to hold at least one input. Received: an empty list.")
    asked = _list(document, "outputs") if document.get("outputs") is not None else []
    if len(asked) > _MAX_OUTPUTS:
        raise InvalidInput(f"Expected at most {_MAX_OUTPUTS} outputs. Received: {len(asked)}.")
    outputs = tuple(_read_output(value, f"outputs[{place}]", binary) for place, value in enumerate(asked))
    counts = Counter(wish.name for wish in outputs)
    if len(counts) < len(outputs):
        raise InvalidInput(
            f"Expected each output once. Received: {counts.most_common(1)[0][0][:80]!r} again."
        )
    timeout = _count(parameters, "timeout")
    return Head(
        id=given_id,
        inputs=inputs,
        outputs=outputs,
        binary=binary,
        timeout_s=timeout * _MICROSECONDS if timeout else None,
        priority=_count(parameters, "priority"),
    )


def _parse(text: bytes | memoryview) -> Any:
    lifted = lift(bytes(text), _NUMBERS) if len(text) >= WORTH_IT else None
    if lifted is not None:
        return lifted
    try:
        return decode_json(text)
    except InvalidJson:
        if not may_have_tokens(bytes(text)):
            raise
        try:
            return loads_with_tokens(bytes(text))
        except (ValueError, RecursionError) as error:
            raise InvalidJson(f"Expected a JSON body. Received: {error}.") from error


def _read_input(value: Any, where: str) -> InputHead:
    given = _object(value, where)
    name, datatype, shape = _text(given, "name", where), _text(given, "datatype", where), given.get("shape")
    if not isinstance(shape, list) or not all(
        type(size) is int and 0 <= size <= _MAX_INTEGER for size in shape
    ):
        raise InvalidInput(
            f"Expected '{where}.shape' to be a list of whole numbers. Received: {_short(shape)}."
        )
    if len(shape) > _MAX_AXES:
        raise InvalidInput(
            f"Expected '{where}.shape' to have at most {_MAX_AXES} axes. Received: {len(shape)}."
        )
    parameters = _parameters(given, where)
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise InvalidParameter(
            f"Expected 'binary_data_size' of {where} to be a number of bytes. Received: {_short(size)}."
        )
    if (size is None) == (given.get("data") is None):
        both = "neither" if size is None else "both"
        raise InvalidInput(f"Expected {where} to have either 'data' or 'binary_data_size'. Received: {both}.")
    return InputHead(name, datatype, tuple(shape), size, given.get("data"))


def _read_output(value: Any, where: str, binary: bool) -> OutputWish:
    given = _object(value, where)
    parameters = _parameters(given, where)
    return OutputWish(
        _text(given, "name", where),
        _flag(parameters, "binary_data", default=binary),
        _count(parameters, "classification"),
    )


def _object(value: Any, where: str) -> dict[str, Any]:
    """The object; members that the protocol does not know are passed over: KServe's client sends `model_name`."""
    if not isinstance(value, dict):
        raise InvalidInput(f"Expected {where} to be a JSON object. Received: {kind(value)}.")
    return value


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise InvalidInput(f"Expected '{name}' to be a list. Received: {kind(value)}.")
    return value


def _text(given: Mapping[str, Any], name: str, where: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"Expected '{where}.{name}' to be a string. Received: {kind(value)}.")
    return value


def read_parameters(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The parameters of an object. One that is `null` is left out: clients that know all their names send those so.

    Raises:
        InvalidParameter: they are no object.
    """
    parameters = given.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidParameter(
            f"Expected 'parameters' of {where} to be an object. Received: {kind(parameters)}."
        )
    if None in parameters.values():
        return {name: value for name, value in parameters.items() if value is not None}
    return parameters


def _parameters(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The parameters; those that nobody knows are passed over, as the protocol has it."""
    parameters = read_parameters(given, where)
    for name, value in parameters.items():
        if not isinstance(value, str | int | float):
            raise InvalidParameter(
                f"Expected the parameter {name[:80]!r} of {where} to be a string, a number or a boolean. "
                f"Received: {kind(value)}."
            )
        if name.startswith("shared_memory"):
            raise InvalidParameter(
                f"Expected the values of {where} in the request. Received: the parameter {name[:80]!r}; shared "
                "memory is not supported."
            )
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidParameter(f"Expected '{name}' to be true or false. Received: {_short(value)}.")
    return value


def _count(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise InvalidParameter(
            f"Expected '{name}' to be a whole number, 0 or more. Received: {_short(value)}."
        )
    return value


def _short(value: Any) -> str:
    return repr(value)[:80]
