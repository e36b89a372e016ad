"""Owns how replies are printed: byte for byte as TensorFlow Serving does, but for the digits of numbers.

Sources: tensorflow_serving/util/json_tensor.cc and RapidJSON 1.1's PrettyWriter. Four blanks a level; rows stand on
one line, whose bracket closes on the next; columns have one value a line. Numbers are as short as they can be
without becoming others (TensorFlow Serving prints nine digits of a float32 that needs more than six), whole floats
keep `.0`, and NaN, Infinity and -Infinity stand for themselves, which is JavaScript but no JSON.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from service.tensors import Array

_INDENT = b"    "
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_BLOCK = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2
_BYTES_SUFFIX = "_bytes"  # of the names of outputs whose text is printed as base64


def print_predictions(outputs: Mapping[str, Array]) -> bytes:
    """Rows.

    Args:
        outputs: name -> (N, ...); a single one is printed without its name.
    """
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return b'{\n    "predictions": ' + _line(array, name, 1)[:-1] + b"\n    ]\n}"
    rows = []
    for row in range(len(next(iter(outputs.values())))):
        members = [
            b"            %b: %b" % (orjson.dumps(name), _line(array[row], name, 3))
            for name, array in outputs.items()
        ]
        rows.append(b"        {\n" + b",\n".join(members) + b"\n        }")
    return b'{\n    "predictions": [\n' + b",\n".join(rows) + b"\n    ]\n}"


def print_outputs(outputs: Mapping[str, Array]) -> bytes:
    """Columns.

    Args:
        outputs: name -> (N, ...); a single one is printed without its name.
    """
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return b'{\n    "outputs": ' + _block(array, name, 1) + b"\n}"
    members = [
        b"        %b: %b" % (orjson.dumps(name), _block(array, name, 2)) for name, array in outputs.items()
    ]
    return b'{\n    "outputs": {\n' + b",\n".join(members) + b"\n    }\n}"


def print_classes(scores: Array, labels: Sequence[str]) -> bytes:
    """For each row a list of `[label, score]`, in the order of the classes.

    Args:
        scores: (N, C).
        labels: C names.
    """
    heads = [b"[" + orjson.dumps(label) + b", " for label in labels]
    numbers = iter(_line(scores.reshape(-1), "", 1)[1:-1].split(b", "))
    rows = [
        b"[" + b", ".join([head + next(numbers) + b"]" for head in heads]) + b"]" for _ in range(len(scores))
    ]
    return b'{\n    "results": [' + b", ".join(rows) + b"\n    ]\n}"


def print_values(values: Array) -> bytes:
    """One number for each row.

    Args:
        values: (N,).
    """
    return b'{\n    "results": ' + _line(values, "", 1) + b"\n}"


def print_error(message: str) -> bytes:
    """An error's body."""
    return b'{\n    "error": ' + orjson.dumps(message) + b"\n}"


def _line(array: Array, name: str, level: int) -> bytes:
    if array.dtype.kind in "OSU":
        return _texts(array.tolist(), level, b", ", as_bytes=name.endswith(_BYTES_SUFFIX))
    return _numbers(array, _NUMPY).replace(b",", b", ")


def _block(array: Array, name: str, level: int) -> bytes:
    if array.dtype.kind in "OSU":
        return _texts(array.tolist(), level, None, as_bytes=name.endswith(_BYTES_SUFFIX))
    text = _numbers(array, _BLOCK)  # has two blanks a level
    return text.replace(b"  ", _INDENT).replace(b"\n", b"\n" + level * _INDENT)


def _numbers(array: Array, option: int) -> bytes:
    text = orjson.dumps(np.ascontiguousarray(array) if array.ndim else array[()], option=option)
    if b"null" not in text:
        return text
    flat = array.reshape(-1)
    odd = flat[~np.isfinite(flat)]
    tokens = [b"NaN" if np.isnan(number) else b"Infinity" if number > 0 else b"-Infinity" for number in odd]
    pieces = text.split(b"null")
    return b"".join([piece for pair in zip(pieces, [*tokens, b""], strict=True) for piece in pair])


def _texts(value: Any, level: int, separator: bytes | None, *, as_bytes: bool) -> bytes:
    """Text, or nested lists of it: on one line with that separator, or one a line without."""
    if isinstance(value, list):
        inner = [_texts(entry, level + 1, separator, as_bytes=as_bytes) for entry in value]
        if separator is not None:
            return b"[" + separator.join(inner) + b"]"
        start = b"\n" + (level + 1) * _INDENT
        return b"[" + start + (b"," + start).join(inner) + b"\n" + level * _INDENT + b"]"
    data = value if isinstance(value, bytes) else str(value).encode()
    if as_bytes:
        start, end = (b"\n" + depth * _INDENT for depth in (level + 1, level))
        return b"{" + start + b'"b64": "' + b64encode(data) + b'"' + end + b"}"
    return orjson.dumps(data.decode(errors="replace"))
