"""Owns the JSON values that dialects have in common: rows, columns and base64, to a model's named inputs."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.api.intake import Budget, Intake, kind, located
from service.errors import InvalidInput
from service.memory import pay
from service.payloads.fitting import check_names, fit, fit_named
from service.payloads.json_lifting import Place
from service.payloads.json_rows import NamedRows
from service.payloads.json_tensors import Numbers
from service.payloads.nested_lists import array_from_lists, array_from_numbers, quick_rows
from service.tensors import Array, TensorSpec

NUMBERS: tuple[Place, ...] = (("instances",), ("inputs",), ("inputs", None))
"""Where `JsonInputs` takes `Numbers` for lists."""

NAMED_ROWS = ("instances",)
"""Where it takes `NamedRows`."""

_LITERALS = (b"true", b"false", b"null")


def as_sent(array: Array, _: TensorSpec) -> Array:
    """The array as it is."""
    return array


@dataclass(frozen=True, slots=True)
class JsonInputs:
    """Reads rows and columns for one model.

    An object `{"b64": "..."}` is a picture for an input that takes pictures, and bytes for one that takes text.

    Args:
        intake: what the model takes.
        finite: NaN and infinity are refused.
        reshape: makes of the array in lists the one that is meant for an input, where a dialect has shorter ways to
            write it.
    """

    intake: Intake
    finite: bool = True
    reshape: Callable[[Array, TensorSpec], Array] = as_sent

    def rows(self, rows: Any, body: bytes, *, strings: int = 1) -> dict[str, Array]:
        """The inputs of a list of rows: name -> (rows, *row shape) in the input's dtype.

        Args:
            rows: what `instances` holds: a list, or `Numbers` or `NamedRows` in its place.
            body: the text that it stands in, which tells quickly whether there is anything but numbers.
            strings: how many strings the text holds besides those in the rows: names of members and their values.

        Raises:
            InvalidInput, UnsupportedMedia, UndecodableImage, BodyTooLarge: they do not fit the model.
        """
        if isinstance(rows, Numbers):
            return self._unnamed_numbers(rows)
        if isinstance(rows, NamedRows) and rows.columns.keys() == {"b64"}:  # which is no name, and no number
            rows = rows.lists()
        if isinstance(rows, NamedRows):
            check_names(rows.columns, self.intake.inputs, "instances[0]")
            return self.named(rows.columns, "instances", plain=True)
        if not isinstance(rows, list) or not rows:
            raise InvalidInput(
                f"Expected 'instances' to be a list of at least one row. Received: {kind(rows)}."
            )
        if not isinstance(rows[0], dict) or is_b64(rows[0]):
            return self._unnamed_rows(rows, body, strings)
        inputs = self.intake.inputs
        for place, row in enumerate(rows):
            if not isinstance(row, dict):
                raise InvalidInput(
                    f"Expected every row to be an object. Received: instances[{place}] is {kind(row)}."
                )
            check_names(row, inputs, f"instances[{place}]")
        columns = {spec.name: [row[spec.name] for row in rows] for spec in inputs}
        return self.named(columns, "instances", plain=is_plain(body, strings + len(rows) * len(inputs)))

    def columns(self, columns: Any, body: bytes, *, strings: int = 1) -> dict[str, Array]:
        """The inputs of columns, an object keyed by input or the only input's values; else as `rows`.

        A sample without its batch axis is taken as one row.
        """
        if isinstance(columns, dict) and not is_b64(columns):
            check_names(columns, self.intake.inputs, "inputs")
            strings += len(columns)
        else:
            columns = {self.intake.only().name: columns}
        # A look at a long text takes as long as reading its numbers, and what was not lifted of it is short.
        lifted = any(isinstance(values, Numbers) for values in columns.values())
        return self.named(columns, "inputs", plain=not lifted and is_plain(body, strings))

    def named(self, columns: Mapping[str, Any], where: str, *, plain: bool) -> dict[str, Array]:
        """Values by input, checked to be exactly the model's inputs, as arrays with equally many rows.

        Args:
            columns: input name -> its values.
            where: names them in messages; in "inputs" a sample without its batch axis is taken as one row.
            plain: they are known to be numbers and lists only.
        """
        arrays = {}
        budget = Budget(self.intake.max_input_bytes)
        for spec in self.intake.inputs:
            value, place = columns[spec.name], f"{where}[{spec.name!r}]"
            if is_b64(value) and spec.dtype != "string":
                value = [value]
            if isinstance(value, list) and value and is_b64(value[0]) and spec.dtype != "string":
                arrays[spec.name] = self._pictures(value, spec.name, place, budget)
            else:
                arrays[spec.name] = self._array(value, spec, place, plain=plain)
        return fit_named(arrays, self.intake.inputs, where, single=where == "inputs", finite=self.finite)

    def _unnamed_rows(self, rows: list[Any], body: bytes, strings: int) -> dict[str, Array]:
        spec = self.intake.only()
        quick = quick_rows(rows, spec)
        if quick is not None:
            return {spec.name: quick}
        if is_b64(rows[0]) and spec.dtype != "string":
            budget = Budget(self.intake.max_input_bytes)
            return {spec.name: self._pictures(rows, spec.name, "instances", budget)}
        array = self._array(rows, spec, "instances", plain=is_plain(body, strings))
        return {spec.name: fit(array, spec, "instances", finite=self.finite)}

    def _unnamed_numbers(self, rows: Numbers) -> dict[str, Array]:
        spec = self.intake.only()
        array = self._array(rows, spec, "instances", plain=True)
        return {spec.name: fit(array, spec, "instances", finite=self.finite)}

    def _array(self, values: Any, spec: TensorSpec, where: str, *, plain: bool) -> Array:
        if isinstance(values, Numbers):
            return self.reshape(array_from_numbers(values, spec, where), spec)
        if spec.dtype == "string":
            values = _decode_texts(values, where)
        if isinstance(values, dict):
            raise InvalidInput(f"Expected {where} to be lists of numbers. Received: an object.")
        return self.reshape(array_from_lists(values, spec, where, plain=plain), spec)

    def _pictures(self, values: list[Any], name: str, where: str, budget: Budget) -> Array:
        rows: list[Array] = []
        for place, value in enumerate(values):
            what = f"{where}[{place}]"
            with located(what, index=place):
                rows.append(self.intake.picture(b64_bytes(value, what), name))
            budget.spend(rows[-1].nbytes, what)
        return _stack(rows, where)


def is_b64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": ...}` and nothing besides."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def b64_bytes(value: Any, what: str) -> bytes:
    """The bytes of `{"b64": "..."}`; white space between the digits is passed over.

    Raises:
        InvalidInput: another value, or no base64.
    """
    if not is_b64(value) or not isinstance(value["b64"], str):
        raise InvalidInput(f'Expected {what} to be {{"b64": "..."}}. Received: {kind(value)}.')
    pay(len(value["b64"]), what)
    try:
        return b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        return _loose_b64(value["b64"], what)


def is_plain(body: bytes, strings: int) -> bool:
    """Whether a JSON text with that many strings holds nothing but numbers and lists besides."""
    return body.count(b'"') == 2 * strings and not any(word in body for word in _LITERALS)


def _loose_b64(text: str, what: str) -> bytes:
    """Lines of 76 digits, as MIME and `base64` on the command line write them; RFC 2045, section 6.8."""
    try:
        return b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"Expected {what} to be base64. Received: {error}.") from error


def _decode_texts(values: Any, where: str) -> Any:
    """The values with their base64 as bytes; no recursion, because lists may be deep."""
    if is_b64(values):
        return b64_bytes(values, where)
    unseen = [values] if isinstance(values, list) else []
    while unseen:
        entries = unseen.pop()
        for place, entry in enumerate(entries):
            if isinstance(entry, list):
                unseen.append(entry)
            elif is_b64(entry):
                entries[place] = b64_bytes(entry, where)
    return values


def _stack(rows: list[Array], where: str) -> Array:
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise InvalidInput(
            f"Expected the pictures of {where} to have one size, because the model takes any. Received: {shapes}."
        )
    return np.stack(rows)
