"""Owns the protocol's datatypes: their names, their numpy counterparts, and their binary form.

Binary tensors are little-endian, row-major and without padding; BOOL is one byte; each element of BYTES has its
length before it, four bytes. Source: "Tensor Data Types" of the Open Inference Protocol, and
triton-inference-server/server/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from service.errors import InvalidInput
from service.tensors import Array

BYTES = "BYTES"
BF16 = "BF16"
BINARY_ONLY = ("FP16", BF16)  # the protocol has no JSON form for these

_NUMPY = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    BYTES: "string",
    BF16: "float32",
}
DATATYPES = tuple(_NUMPY)
_NAMES = {dtype: name for name, dtype in _NUMPY.items() if name != BF16}
_SIZES = {name: np.dtype(dtype).itemsize for name, dtype in _NUMPY.items() if dtype != "string"} | {BF16: 2}
_WIRE = {
    name: np.dtype("<u2") if name == BF16 else np.dtype(dtype).newbyteorder("<")
    for name, dtype in _NUMPY.items()
    if dtype != "string"
}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: str) -> str:
    """The protocol's name for a dtype; one that it does not know keeps its own, in capitals."""
    return _NAMES.get(dtype, dtype.upper())


def dtype_of(datatype: str) -> str:
    """The dtype, in numpy's words, that a datatype is read as; `string` for BYTES.

    Raises:
        InvalidInput: no datatype of the protocol.
    """
    dtype = _NUMPY.get(datatype)
    if dtype is None:
        raise InvalidInput(f"Expected one of the datatypes {', '.join(_NUMPY)}. Received: {datatype[:80]!r}.")
    return dtype


def item_bytes(datatype: str) -> int:
    """How many bytes one element has; not for BYTES, whose elements differ."""
    return _SIZES[datatype]


@lru_cache(maxsize=256)
def widens(datatype: str, dtype: str) -> bool:
    """Whether every value of a datatype is a value of a model's dtype, so that nothing can be lost.

    UINT8, INT16, FP16 and BF16 become float32, INT32 becomes int64; FP64 never becomes float32, even where the
    values at hand would fit: whether a request is good depends on its types alone.
    """
    given = dtype_of(datatype)
    if given == dtype:
        return True
    if "string" in (given, dtype) or "bool" in (given, dtype):
        return False
    source, target = np.dtype(given), np.dtype(dtype)
    if source.kind in "iu" and target.kind == "f" and source.itemsize == 8:
        return False  # numpy calls this cast safe; float64 has 53 bits
    return np.can_cast(source, target, "safe")


def decode_numbers(data: memoryview, datatype: str, shape: tuple[int, ...]) -> Array:
    """A binary tensor as a read-only view of its bytes, copied only where it lies askew in memory.

    Args:
        data: exactly as many bytes as the shape needs.
        datatype: not BYTES.
        shape: of the tensor.

    Returns:
        `shape`, in the dtype that `dtype_of` tells.

    Raises:
        InvalidInput: BOOL bytes other than 0 and 1.
    """
    if datatype == "BOOL" and data.nbytes and np.frombuffer(data, np.uint8).max() > 1:
        raise InvalidInput("Expected the bytes of a BOOL tensor to be 0 or 1. Received: others.")
    array = np.frombuffer(data, _WIRE[datatype]).reshape(shape)
    if datatype == BF16:  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array if array.flags.aligned else array.copy()


def decode_elements(data: memoryview, count: int, where: str) -> list[bytes]:
    """The elements of a binary BYTES tensor.

    Raises:
        InvalidInput: there are more or fewer than `count`, or one is cut off.
    """
    elements: list[bytes] = []
    place, end = 0, data.nbytes
    for index in range(count):
        start = place + _LENGTH.size
        place = start + _LENGTH.unpack_from(data, place)[0] if start <= end else start
        if place > end:
            raise InvalidInput(
                f"Expected {where} to hold {count} elements, each behind its length in four bytes. "
                f"Received: {end} bytes, which end in element {index}."
            )
        elements.append(bytes(data[start:place]))
    if place != end:
        raise InvalidInput(f"Expected {where} to hold {count} elements. Received: {end - place} more bytes.")
    return elements


def encode_elements(elements: Sequence[bytes]) -> bytes:
    """The binary form of a BYTES tensor."""
    parts: list[bytes] = []
    for element in elements:
        parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)
