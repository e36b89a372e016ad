"""Owns the way from JSON's nested lists to arrays: even lists, leaves of the input's kind, dtype not yet fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from service.errors import InvalidInput
from service.payloads.fitting import what_fits
from service.payloads.json_tensors import Numbers
from service.tensors import Array, TensorSpec

_MAX_REPR = 80
_SMALL = 64  # numbers; below that Python's own arithmetic is faster than numpy's
_LARGEST_OF = {name: float(np.finfo(name).max) for name in ("float16", "float32", "float64")}
_REAL = (float, int)
_ROUNDED_FROM = 2.0**53  # what float64 gives from here on may have been another whole number in the text
_LEAVES: dict[str, tuple[frozenset[type], str]] = {
    "string": (frozenset({str, bytes}), "text"),
    "bool": (frozenset({bool}), "booleans"),
}
_NUMBERS = (frozenset({int, float}), "numbers")


def array_from_lists(values: Any, spec: TensorSpec, where: str, *, plain: bool) -> Array:
    """Nested lists as an array, dtype not yet fitted; no whole number in it was rounded if the input is of integers.

    Args:
        values: what JSON gave.
        spec: the input it is meant for.
        where: names the values in messages: "instances", "inputs['image']".
        plain: the text is known to hold numbers and lists only, so the leaves need no look one by one.

    Raises:
        InvalidInput: ragged lists, leaves of another type than the input's, or, for an input of integers, one that
            has come through float64 and may be another than the text had.
    """
    if not plain or spec.dtype in _LEAVES:
        _check_leaves(values, spec, where)
    try:
        array = np.array(values, dtype=object if spec.dtype == "string" else None)
    except (ValueError, OverflowError) as error:
        raise _uneven(values, spec, where) from error
    if array.dtype.kind == "O":  # numpy keeps as objects what it cannot make even
        _check_leaves(values, spec, where)
        if any(isinstance(value, list) for value in array.flat):
            raise _uneven(values, spec, where)
    if (
        array.dtype.kind == "u"
    ):  # numpy's `ulonglong`, which equals uint64 but whose numbers orjson cannot print
        return array.astype(np.uint64)
    return _exact(values, spec, where) if _may_be_rounded(array, spec) else array


def array_from_numbers(numbers: Numbers, spec: TensorSpec, where: str) -> Array:
    """As `array_from_lists`, of lists that were read without an object for each number."""
    return (
        numbers.array if suits(numbers, spec) else array_from_lists(numbers.lists(), spec, where, plain=True)
    )


def suits(numbers: Numbers, spec: TensorSpec) -> bool:
    """Whether their array is what `array_from_lists` makes of them for an input."""
    return spec.dtype not in _LEAVES and not _may_be_rounded(numbers.array, spec)


def quick_rows(values: list[Any], spec: TensorSpec) -> Array | None:
    """What `array_from_lists` and `fit` make of a few plain rows of a float input, in a quarter of their time.

    Args:
        values: what JSON gave, a list.
        spec: the input it is meant for.

    Returns:
        (rows, columns) in the input's dtype, or `None` where the rows are many, wrong, or of another kind of
        input: the long way then says what is wrong with them.
    """
    shape = spec.shape
    limit = _LARGEST_OF.get(spec.dtype)
    if limit is None or len(shape) != 2 or len(values) * (shape[1] or _SMALL) > _SMALL:
        return None
    columns = shape[1] or (len(values[0]) if isinstance(values[0], list) else 0)
    for row in values:
        if type(row) is not list or len(row) != columns:
            return None
        for number in row:
            if type(number) not in _REAL or not -limit <= number <= limit:
                return None
    return np.array(values, dtype=spec.dtype) if columns else None


def _may_be_rounded(array: Array, spec: TensorSpec) -> bool:
    """Whether whole numbers for an input of integers may have lost digits on their way into a float64 array.

    numpy makes such arrays where floats are among them, and where one needs uint64 and another does not.
    """
    if array.dtype.kind != "f" or not array.size or not spec.dtype.startswith(("int", "uint")):
        return False
    return not (float(array.min()) > -_ROUNDED_FROM and float(array.max()) < _ROUNDED_FROM)  # or NaN


def _exact(values: list[Any], spec: TensorSpec, where: str) -> Array:
    """Even lists for an input of integers, in its dtype, every number taken by itself.

    A float from 2**53 on is refused: the text may have had another digit, and JSON's parsers make floats of integers
    beyond 64 bits, too.
    """
    limits = np.iinfo(spec.dtype)
    for place, entries in _lists([values]):
        for index, entry in enumerate(entries):
            if isinstance(entry, list):
                continue
            fits = limits.min <= entry <= limits.max and entry == entry // 1
            rounded = fits and isinstance(entry, float) and abs(entry) >= _ROUNDED_FROM
            if rounded or not fits:
                how = ", from 2**53 on without a point or an exponent" if rounded else ""
                raise InvalidInput(
                    f"Expected {where} to hold whole numbers from {limits.min} to {limits.max} ({spec.dtype}){how}. "
                    f"Received: {_shown(entry)} at {_name(where, [*place, index][1:])}."
                )
    return np.array(values, dtype=object).astype(spec.dtype)


def _uneven(values: Any, spec: TensorSpec, where: str) -> InvalidInput:
    return InvalidInput(
        f"Expected {where} to be lists of equal length, {what_fits(spec)}. "
        f"Received: {_first_difference(values, where)}."
    )


def _first_difference(values: list[Any], where: str) -> str:
    """The first list that is not like the first of its level, in the words of the request."""
    shape: list[int] = []
    inner: Any = values
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    for place, entries in _lists(values):
        level = len(place)
        if level == len(shape):
            return f"{_name(where, place)} is a list where {where}{'[0]' * level} is a single value"
        if len(entries) != shape[level]:
            return f"{_name(where, place)} has {len(entries)} entries where {where}{'[0]' * level} has {shape[level]}"
        if level + 1 < len(shape) and not all(isinstance(entry, list) for entry in entries):
            index = next(i for i, entry in enumerate(entries) if not isinstance(entry, list))
            return f"{_name(where, [*place, index])} is a single value where {where}{'[0]' * (level + 1)} is a list"
    return f"lists nested {len(shape)} deep"


def _check_leaves(values: Any, spec: TensorSpec, where: str) -> None:
    """Every leaf is of the input's kind; JSON has but four: numbers, text, booleans and null."""
    good, wanted = _LEAVES.get(spec.dtype, _NUMBERS)
    allowed = good | {list}
    for place, entries in _lists([values]):
        if not allowed.issuperset(map(type, entries)):
            index = next(i for i, entry in enumerate(entries) if type(entry) not in allowed)
            raise InvalidInput(
                f"Expected {where} to hold {wanted}, {what_fits(spec)}. "
                f"Received: {_shown(entries[index])} at {_name(where, [*place, index][1:])}."
            )


def _lists(values: list[Any]) -> Iterator[tuple[list[int], list[Any]]]:
    """Every list in `values`, itself first, in the order of the text, each with its place.

    No recursion, because lists may be deep; no names, because they may be many.
    """
    place: list[int] = []
    yield place, values
    unfinished = [enumerate(values)]
    while unfinished:
        for index, child in unfinished[-1]:
            if isinstance(child, list):
                place.append(index)
                yield place, child
                unfinished.append(enumerate(child))
                break
        else:
            unfinished.pop()
            del place[-1:]


def _name(where: str, place: Sequence[int]) -> str:
    return where + "".join(f"[{index}]" for index in place)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str) and len(value) > _MAX_REPR:
        return repr(value[:_MAX_REPR]) + "..."
    return repr(value)
