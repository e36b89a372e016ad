"""Owns the judgement whether values fit a model's input: rank, shape, dtype, finite numbers.

Numbers may change their type where nothing is lost that the model could see: any integer or float becomes a
float input's dtype, whole numbers in range become an integer input's. Booleans are no numbers, text is no
number, and NaN or infinity never reaches a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.errors import InvalidInput
from service.fields import nearest
from service.tensors import Array, TensorSpec

_MAX_REPR = 80


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
    leaf = {"string": str, "bool": bool}.get(spec.dtype)
    if not plain or leaf is not None:
        _check_leaves(values, leaf, spec, where)
    try:
        return np.array(values, dtype=object if leaf is str else None)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"Expected {where} to be lists of equal length, {_wanted(spec)}. Received: {_ragged(values, where)}."
        ) from error


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
    if single and array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    _check_shape(array, spec, where)
    if spec.dtype == "string":
        return _as_strings(array, spec, where)
    array = _as_dtype(array, np.dtype(spec.dtype), spec, where)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
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


def _check_shape(array: Array, spec: TensorSpec, where: str) -> None:
    shape = array.shape
    fits = len(shape) == len(spec.shape) and all(
        want is None or want == got for want, got in zip(spec.shape[1:], shape[1:], strict=True)
    )
    if not fits:
        raise InvalidInput(f"Expected {where} {_wanted(spec)}. Received: shape {list(shape)}.")
    if array.size == 0:
        raise InvalidInput(
            f"Expected {where} to have at least one row and no empty axis. Received: shape {list(shape)}."
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
        if not whole or array.min() < limits.min or array.max() > limits.max:
            raise InvalidInput(
                f"Expected {where} to hold whole numbers from {limits.min} to {limits.max} ({spec.dtype}). "
                f"Received: numbers from {array.min()} to {array.max()}."
            )
    with np.errstate(over="ignore"):  # what overflows is infinite and refused as such
        return array.astype(dtype)


def _as_strings(array: Array, spec: TensorSpec, where: str) -> Array:
    """UTF-8 bytes in an object array, as TensorFlow takes text."""
    if array.dtype.kind == "U" or (
        array.dtype.kind == "O" and all(isinstance(text, str) for text in array.flat)
    ):
        encoded = np.empty(array.size, dtype=object)
        encoded[:] = [text.encode() for text in array.flat]
        return encoded.reshape(array.shape)
    if array.dtype.kind == "S":
        return array.astype(object)
    raise InvalidInput(f"Expected {where} to hold text, {_wanted(spec)}. Received: {array.dtype}.")


def _wanted(spec: TensorSpec) -> str:
    shape = ", ".join("any" if size is None else str(size) for size in spec.row_shape)
    return f"for input '{spec.name}' with shape [rows{', ' if shape else ''}{shape}] of {spec.dtype}"


def _ragged(values: Any, where: str) -> str:
    """The first place where neighbours differ, in the words of the request."""
    level = [(where, values)]
    while level and all(isinstance(value, list) for _, value in level):
        first_name, first = level[0]
        for name, value in level[1:]:
            if len(value) != len(first):
                return f"{name} has {len(value)} entries where {first_name} has {len(first)}"
        level = [(f"{name}[{i}]", child) for name, value in level for i, child in enumerate(value)]
    kinds = {isinstance(value, list): name for name, value in level}
    if len(kinds) == 2:
        return f"{kinds[True]} is a list where {kinds[False]} is a single value"
    return "lists nested too deeply"


def _check_leaves(values: Any, leaf: type | None, spec: TensorSpec, where: str) -> None:
    """Every leaf is of type `leaf`, or a number where it is `None`; without recursion, lists may be deep."""
    stack = [values]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value))
            continue
        good = type(value) in (int, float) if leaf is None else type(value) is leaf
        if not good:
            wanted = "numbers" if leaf is None else "text" if leaf is str else "booleans"
            raise InvalidInput(
                f"Expected {where} to hold {wanted}, {_wanted(spec)}. Received: {_shown(value)}."
            )


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_REPR else text[:_MAX_REPR] + "..."
