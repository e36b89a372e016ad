"""Owns the judgement whether values fit a model's input: rank, shape, dtype, finite numbers.

Numbers may change their type where nothing is lost that the model could see: any integer or float becomes a
float input's dtype, whole numbers in range become an integer input's. Booleans are no numbers, text is no
number, and NaN or infinity reaches a model only where the dialect has words for them and they were sent as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.errors import InvalidInput
from service.fields import nearest
from service.tensors import Array, TensorSpec

_MAX_REPR = 80
_SMALL = 64  # numbers; below that Python's own arithmetic is faster than numpy's
_LARGEST = {char: float(np.finfo(char).max) for char in "efdg"}


def fit(array: Array, spec: TensorSpec, where: str, *, single: bool = False, finite: bool = True) -> Array:
    """The array in the input's dtype, C order, batch axis first.

    Args:
        array: numbers, with a batch axis.
        spec: the input.
        where: names the array in messages.
        single: a lone sample, without its batch axis, is taken too.
        finite: NaN and infinity are refused; numbers out of range always are.

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
    given, array = array, _as_dtype(array, np.dtype(spec.dtype), spec, where)
    if array.dtype.kind == "f" and not _small_and_finite(array):
        _check_finite(given, array, where, finite=finite)
    return np.ascontiguousarray(array)


def fit_named(
    arrays: Mapping[str, Array],
    specs: Sequence[TensorSpec],
    where: str,
    *,
    single: bool = False,
    finite: bool = True,
) -> dict[str, Array]:
    """One fitted array for each input, all with the same number of rows.

    Raises:
        InvalidInput: missing or extra names, or what `fit` raises.
    """
    check_names(arrays, specs, where)
    fitted = {
        spec.name: fit(arrays[spec.name], spec, f"{where}[{spec.name!r}]", single=single, finite=finite)
        for spec in specs
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
        raise InvalidInput(f"Expected {where} {what_fits(spec)}. Received: shape {list(sent)}.")
    if array.size == 0:
        raise InvalidInput(
            f"Expected {where} to have at least one row and no empty axis. Received: shape {list(sent)}."
        )


def _as_dtype(array: Array, dtype: np.dtype[Any], spec: TensorSpec, where: str) -> Array:
    kind = array.dtype.kind
    allowed = "b" if dtype.kind == "b" else "fiu"
    if kind not in allowed:
        raise InvalidInput(
            f"Expected {where} to hold {spec.dtype}, {what_fits(spec)}. Received: {array.dtype}."
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


def _check_finite(given: Array, array: Array, where: str, *, finite: bool) -> None:
    found = np.isfinite(array)
    if found.all():
        return
    if finite:
        raise InvalidInput(
            f"Expected {where} to hold finite numbers that fit {array.dtype}. Received: NaN, infinity or a number "
            "out of range."
        )
    if np.isfinite(given[~found]).any():
        raise InvalidInput(
            f"Expected {where} to hold numbers that fit {array.dtype}. Received: one out of range."
        )


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
    raise InvalidInput(f"Expected {where} to hold text, {what_fits(spec)}. Received: {array.dtype}.")


def what_fits(spec: TensorSpec) -> str:
    """What an input takes, in the words of messages."""
    shape = ", ".join("any" if size is None else str(size) for size in spec.row_shape)
    return f"for input '{spec.name}' with shape [rows{', ' if shape else ''}{shape}] of {spec.dtype}"
