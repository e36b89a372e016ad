"""Owns the bodies of requests: JSON with NaN and Infinity, its members, rows, columns and examples.

Source: tensorflow_serving/util/json_tensor.cc. What it tells in words that clients look for is told in those words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from service.api.json_inputs import NAMED_ROWS, NUMBERS, JsonInputs, is_b64, is_plain
from service.api.json_tokens import loads_with_tokens, may_have_tokens
from service.errors import InvalidInput, InvalidJson
from service.payloads.codecs import load_json
from service.payloads.fitting import check_names
from service.payloads.json_lifting import lift
from service.payloads.json_rows import NamedRows
from service.payloads.json_tensors import Numbers
from service.payloads.nested_lists import suits
from service.tensors import Array, TensorSpec

_JSON_TYPES = {list: "Array", str: "String", bool: "Bool", type(None): "Null"}
_MAX_TOLD = 256  # characters of the body, as in kMaxJsonDebugStringBytes


@dataclass(frozen=True, slots=True)
class Rows:
    """The arrays of a request, and how it wrote them.

    Args:
        inputs: input name -> (rows, *row shape) in the input's dtype.
        columns: they came as `inputs`, so the reply has `outputs`.
        bare: rows of shape (1,) came as numbers without their lists, so they are answered as such.
    """

    inputs: dict[str, Array]
    columns: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A body, parsed.

    Args:
        members: what the JSON object holds.
        body: its text.
    """

    members: dict[str, Any]
    body: bytes

    @property
    def signature(self) -> str:
        """The signature's name, or an empty string.

        Raises:
            InvalidInput: it is no text.
        """
        name = self.members.get("signature_name", "")
        if not isinstance(name, str):
            raise self.wrong("not formatted correctly. 'signature_name' key must be a string value.")
        return name

    @property
    def strings(self) -> int:
        """How many strings its text has besides its values: the names of members, and the signature."""
        return len(self.members) + ("signature_name" in self.members)

    def wrong(self, why: str) -> InvalidInput:
        """The error for a body that is JSON of another form."""
        return InvalidInput(f"JSON Value: {self.body[:_MAX_TOLD].decode(errors='replace')} {why}")


def read_document(body: bytes) -> Document:
    """A body's JSON object.

    Raises:
        InvalidJson: no JSON, NaN and infinities besides.
        InvalidInput: no object.
    """
    if not body:
        raise InvalidJson("JSON Parse error: The document is empty")
    lifted = lift(body, NUMBERS, (*NAMED_ROWS, "examples"))
    if lifted is not None:
        return Document(lifted, body)
    try:
        value = load_json(body)
    except orjson.JSONDecodeError as error:
        if not may_have_tokens(body):
            raise InvalidJson(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
        value = _with_tokens(body)
    document = Document(value, body)
    if not isinstance(value, dict):
        raise document.wrong("Is not object")
    return document


def read_predict(document: Document, values: JsonInputs) -> Rows:
    """The arrays of a predict request.

    Raises:
        InvalidInput, UnsupportedMedia, UndecodableImage, BodyTooLarge: they do not fit the model.
    """
    members = document.members
    if "instances" in members and "inputs" in members:
        raise document.wrong(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    if "instances" in members:
        rows = members["instances"]
        if isinstance(rows, Numbers | NamedRows):
            arrays = values.rows(rows, document.body)
            parts = rows.columns.values() if isinstance(rows, NamedRows) else [rows]
            return Rows(arrays, bare=_is_bare((_first(part) for part in parts), values))
        if not isinstance(rows, list):
            raise document.wrong("Expecting 'instances' to be an list/array")
        if not rows:
            raise document.wrong("No values in 'instances' array")
        arrays = values.rows(rows, document.body, strings=document.strings)
        row = rows[0]
        return Rows(arrays, bare=_is_bare(row.values() if isinstance(row, dict) else [row], values))
    if "inputs" not in members:
        raise InvalidInput("Missing 'inputs' or 'instances' key")
    columns = _known(members["inputs"], values)
    arrays = values.columns(columns, document.body, strings=document.strings)
    parts = columns.values() if isinstance(columns, dict) else [columns]
    return Rows(arrays, columns=True, bare=_is_bare((_first(part) for part in parts), values))


def read_examples(document: Document, values: JsonInputs, method: str) -> dict[str, Array]:
    """The arrays of a classify or regress request: name -> (rows, *row shape) in the input's dtype.

    An example is an object keyed by input; what stands in `context` belongs to each of them. Features are numbers
    or flat lists, as in tf.train.Example; lists nested like the input are taken too.

    Raises:
        InvalidInput, UnsupportedMedia, UndecodableImage, BodyTooLarge: they do not fit the model.
    """
    members = document.members
    if "examples" not in members:
        raise document.wrong(f"When method is {method}, key 'examples' is expected and was not found")
    examples = members["examples"]
    if isinstance(examples, NamedRows):
        lifted = examples.columns
        if members.get("context", {}) == {} and all(
            suits(lifted[spec.name], spec) for spec in values.intake.inputs if spec.name in lifted
        ):
            return _read_lifted(examples, values)
        examples = examples.lists()
    if not isinstance(examples, list):
        raise document.wrong("Expecting 'examples' value to be an list/array")
    if not examples:
        raise document.wrong("'examples' value is an empty array")
    context = _features(members.get("context", {}), "context")
    rows, names = [], len(context)
    for place, example in enumerate(examples):
        row = _features(example, f"examples[{place}]")
        names += len(row)
        twice = sorted(context.keys() & row.keys())
        if twice:
            raise InvalidInput(
                f"Expected each feature in 'context' or in examples[{place}]. Received: {twice} in both."
            )
        row = context | row
        check_names(row, values.intake.inputs, f"examples[{place}]")
        rows.append(row)
    columns = {spec.name: [_listed(row[spec.name], spec) for row in rows] for spec in values.intake.inputs}
    plain = is_plain(document.body, document.strings + names)
    return values.named(columns, "examples", plain=plain)


def _read_lifted(examples: NamedRows, values: JsonInputs) -> dict[str, Array]:
    check_names(examples.columns, values.intake.inputs, "examples[0]")
    listed = {
        name: Numbers(numbers.array[:, np.newaxis], numbers.text) if numbers.array.ndim == 1 else numbers
        for name, numbers in examples.columns.items()
    }
    return values.named(listed, "examples", plain=True)


def lift_numbers(array: Array, spec: TensorSpec) -> Array:
    """Rows of shape (1,) from numbers without their lists: (N,) -> (N, 1).

    The models of TensorFlow Serving's own examples take such rows, and Keras' have that shape.
    """
    return array[:, np.newaxis] if array.ndim == 1 and spec.row_shape == (1,) else array


def unflatten(array: Array, spec: TensorSpec) -> Array:
    """Rows from flat lists: (N, values of a row) -> (N, *row shape)."""
    values = spec.row_values
    if values is None or array.ndim > 2 or array.size != len(array) * values:
        return array
    return array.reshape(len(array), *[size or 1 for size in spec.row_shape])


def _known(columns: Any, values: JsonInputs) -> Any:
    """The columns without those that the model does not take; TensorFlow Serving passes over them as well."""
    if not isinstance(columns, dict) or is_b64(columns):
        return columns
    names = [spec.name for spec in values.intake.inputs]
    for name in names:
        if name not in columns:
            raise InvalidInput(f"Missing named input: {name} in 'inputs' object.")
    return {name: columns[name] for name in names}


def _is_bare(firsts: Iterable[Any], values: JsonInputs) -> bool:
    """Whether rows of shape (1,) came without their lists; `firsts` is the first row's value of each input."""
    shapes = {spec.row_shape for spec in values.intake.inputs}
    return shapes == {(1,)} and not any(isinstance(first, list) for first in firsts)


def _first(values: Any) -> Any:
    """The first entry of a list, as JSON gave it."""
    return values.array[:1].tolist()[0] if isinstance(values, Numbers) else values[0]


def _features(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise InvalidInput(
        f"Example must be JSON object but got JSON {_JSON_TYPES.get(type(value), 'Number')}: {where}"
    )


def _listed(value: Any, spec: TensorSpec) -> Any:
    """A lone value as a list of one, so that both spellings may meet; a picture stays."""
    lone = not isinstance(value, list) and (spec.dtype == "string" or not isinstance(value, dict))
    return [value] if lone else value


def _with_tokens(body: bytes) -> Any:
    try:
        return loads_with_tokens(body)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"JSON Parse error: {type(error).__name__}: {error}") from error
