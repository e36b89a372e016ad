"""Owns the judgement whether values fit a model's input: rank, shape, dtype, finite numbers.

Numbers may change their type where nothing is lost that the model could see: any integer or float becomes a
float input's dtype, whole numbers in range become an integer input's. Booleans are no numbers, text is no
number, and NaN or infinity never reaches a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from service.errors import InvalidInput
from service.fields import nearest
from service.tensors import Array, TensorSpec

_MAX_REPR = 80
_SMALL = 64  # numbers; below that Python's own arithmetic is faster than numpy's
_LARGEST = {char: float(np.finfo(char).max) for char in "efdg"}
_LARGEST_OF = {name: float(np.finfo(name).max) for name in ("float16", "float32", "float64")}
_REAL = (float, int)
_LEAVES: dict[str, tuple[frozenset[type], str]] = {
    "string": (frozenset({str}), "text"),
    "bool": (frozenset({bool}), "booleans"),
}
_NUMBERS = (frozenset({int, float}), "numbers")


def array_from_lists(values: Any, spec: TensorSpec, where: str, *, plain: bool) -> Array:
    """Nested lists as an array, dtype not yet fitted.

    Args:
        values: what JSON gave.
        spec: the input it is meant for.
        where: names the values in messages: "instances", "inputs['image']".
        plain: the text is known to hold numbers and lists only, so the leaves need no look one by one.

    Raises:
        InvalidInput: ragged lists, or leaves of another type than the input's.
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
    return array


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


def fit(array: Array, spec: TensorSpec, where: str, *, single: bool = False) -> Array:
    """The array in the input's dtype, C order, batch axis first.

    Args:
        array: numbers, with a batch axis.
        spec: the input.
        where: names the array in messages.
        single: a lone sample, without its batch axis, is taken too.

    Returns:
        (rows, *row shape), rows at least 1.

    Raises:
        InvalidInput: rank, shape, dtype or values do not fit.
    """
    sent = array.shape
    if single and array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    _check_shape(array, spec, where, sent)
    if spec.dtype == "string":
        return _as_strings(array, spec, where)
    array = _as_dtype(array, np.dtype(spec.dtype), spec, where)
    if array.dtype.kind == "f" and not _small_and_finite(array) and not np.isfinite(array).all():
        raise InvalidInput(
            f"Expected {where} to hold finite numbers that fit {spec.dtype}. Received: NaN, infinity or a number "
            "out of range."
        )
    return np.ascontiguousarray(array)


def fit_named(
    arrays: Mapping[str, Array], specs: Sequence[TensorSpec], where: str, *, single: bool = False
) -> dict[str, Array]:
    """One fitted array for each input, all with the same number of rows.

    Raises:
        InvalidInput: missing or extra names, or what `fit` raises.
    """
    check_names(arrays, specs, where)
    fitted = {
        spec.name: fit(arrays[spec.name], spec, f"{where}[{spec.name!r}]", single=single) for spec in specs
    }
    rows = {name: len(array) for name, array in fitted.items()}
    if len(set(rows.values())) > 1:
        raise InvalidInput(f"Expected the same number of rows for every input. Received: {rows}.")
    return fitted


def check_names(names: Mapping[str, Any], specs: Sequence[TensorSpec], where: str) -> None:
    """Raises InvalidInput unless exactly the inputs' names are there."""
    known = [spec.name for spec in specs]
    for name in names:
        if name not in known:
            raise InvalidInput(
                f"Expected {where} to be keyed by the model's inputs {known}. "
                f"Received: {str(name)[:_MAX_REPR]!r}.{nearest(str(name), known)}"
            )
    missing = [name for name in known if name not in names]
    if missing:
        raise InvalidInput(f"Expected {where} to be keyed by the model's inputs {known}. Missing: {missing}.")


def _check_shape(array: Array, spec: TensorSpec, where: str, sent: tuple[int, ...]) -> None:
    shape = array.shape
    wanted = spec.shape
    fits = len(shape) == len(wanted) and (
        shape[1:] == wanted[1:]
        or all(want is None or want == got for want, got in zip(wanted[1:], shape[1:], strict=True))
    )
    if not fits:
        raise InvalidInput(f"Expected {where} {_wanted(spec)}. Received: shape {list(sent)}.")
    if array.size == 0:
        raise InvalidInput(
            f"Expected {where} to have at least one row and no empty axis. Received: shape {list(sent)}."
        )


def _as_dtype(array: Array, dtype: np.dtype[Any], spec: TensorSpec, where: str) -> Array:
    kind = array.dtype.kind
    allowed = "b" if dtype.kind == "b" else "fiu"
    if kind not in allowed:
        raise InvalidInput(
            f"Expected {where} to hold {spec.dtype}, {_wanted(spec)}. Received: {array.dtype}."
        )
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = kind != "f" or bool(np.all(np.floor(array) == array))  # NaN equals nothing
        # Python compares whole numbers and floats exactly; numpy would round 2**63 - 1 up to 2.0**63.
        lowest, highest = array.min().item(), array.max().item()
        if not whole or lowest < limits.min or highest > limits.max:
            raise InvalidInput(
                f"Expected {where} to hold whole numbers from {limits.min} to {limits.max} ({spec.dtype}). "
                f"Received: {'' if whole else 'also others, '}numbers from {lowest} to {highest}."
            )
    if dtype.kind == "f" and _small_and_finite(array, dtype):
        return array.astype(dtype)
    with np.errstate(over="ignore"):  # what overflows is infinite and refused as such
        return array.astype(dtype)


def _small_and_finite(array: Array, dtype: np.dtype[Any] | None = None) -> bool:
    """Whether these are a few finite numbers in range of `dtype`, told in a fifth of numpy's time.

    False says nothing: numpy then looks for itself.
    """
    if array.size > _SMALL or array.dtype.kind != "f":
        return False
    limit = _LARGEST[(dtype or array.dtype).char]
    return all(-limit <= number <= limit for number in array.ravel().tolist())


def _as_strings(array: Array, spec: TensorSpec, where: str) -> Array:
    """UTF-8 bytes in an object array, as TensorFlow takes text."""
    if array.dtype.kind == "S":
        return np.ascontiguousarray(array.astype(object))
    if array.dtype.kind in "UO" and all(isinstance(text, str | bytes) for text in array.flat):
        encoded = np.empty(array.size, dtype=object)
        encoded[:] = [text.encode() if isinstance(text, str) else text for text in array.flat]
        return encoded.reshape(array.shape)
    raise InvalidInput(f"Expected {where} to hold text, {_wanted(spec)}. Received: {array.dtype}.")


def _wanted(spec: TensorSpec) -> str:
    shape = ", ".join("any" if size is None else str(size) for size in spec.row_shape)
    return f"for input '{spec.name}' with shape [rows{', ' if shape else ''}{shape}] of {spec.dtype}"


def _uneven(values: Any, spec: TensorSpec, where: str) -> InvalidInput:
    return InvalidInput(
        f"Expected {where} to be lists of equal length, {_wanted(spec)}. "
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
                f"Expected {where} to hold {wanted}, {_wanted(spec)}. "
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
