"""The protocol's datatypes: names, widening, and the binary form to the byte."""

import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.openinference.datatypes import (
    datatype_of,
    decode_elements,
    decode_numbers,
    dtype_of,
    encode_elements,
    item_bytes,
    widens,
)
from service.errors import InvalidInput

NUMBERS = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
EVERY = [*NUMBERS, "BF16", "BYTES"]


def extremes(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([True, False])
    if kind.kind in "iu":
        return np.array([np.iinfo(kind).min, np.iinfo(kind).max, 1], kind)
    info = np.finfo(kind)
    return np.array([info.min, info.max, info.smallest_subnormal, np.nan, -np.inf, -0.0], kind)


@pytest.mark.parametrize(("datatype", "dtype"), NUMBERS.items())
def test_numbers_are_read_from_little_endian_bytes(datatype, dtype):
    assert (dtype_of(datatype), datatype_of(dtype)) == (dtype, datatype)
    assert item_bytes(datatype) == np.dtype(dtype).itemsize
    values = extremes(dtype)
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    got = decode_numbers(memoryview(data), datatype, (1, len(values)))
    assert (got.shape, got.dtype) == ((1, len(values)), values.dtype)
    assert got.tobytes() == values.tobytes()


def test_an_aligned_tensor_is_a_view_and_a_crooked_one_a_copy():
    data = np.arange(5, dtype=np.float32).tobytes()
    assert decode_numbers(memoryview(data), "FP32", (5,)).base is not None
    shifted = decode_numbers(memoryview(b"x" + data)[1:], "FP32", (5,))
    assert shifted.base is None
    assert shifted.flags.aligned
    np.testing.assert_array_equal(shifted, np.arange(5))


def test_bf16_is_the_upper_half_of_a_float32():
    values = extremes("float32").astype(ml_dtypes.bfloat16)
    got = decode_numbers(memoryview(values.view("<u2").tobytes()), "BF16", (2, 3))
    assert (got.shape, got.dtype, item_bytes("BF16")) == ((2, 3), np.float32, 2)
    np.testing.assert_array_equal(got.ravel(), values.astype(np.float32))


def test_a_bool_is_0_or_1():
    with pytest.raises(InvalidInput, match="0 or 1"):
        decode_numbers(memoryview(b"\0\1\2"), "BOOL", (3,))


def test_text_and_what_the_protocol_has_no_name_for():
    assert (dtype_of("BYTES"), datatype_of("string")) == ("string", "BYTES")
    assert datatype_of("complex64") == "COMPLEX64"
    for name in ("fp32", "FLOAT", "", "TYPE_FP32"):
        with pytest.raises(InvalidInput, match="one of the datatypes"):
            dtype_of(name)


@pytest.mark.parametrize("datatype", EVERY)
@pytest.mark.parametrize("dtype", [*NUMBERS.values(), "string"])
def test_a_datatype_widens_where_no_value_can_change(datatype, dtype):
    same = dtype_of(datatype) == dtype
    if same or "string" in (dtype_of(datatype), dtype) or "bool" in (dtype_of(datatype), dtype):
        assert widens(datatype, dtype) is same
        return
    source = ml_dtypes.bfloat16 if datatype == "BF16" else np.dtype(NUMBERS[datatype])
    integer = source != ml_dtypes.bfloat16 and source.kind in "iu"
    if integer and np.dtype(dtype).kind == "f":
        # Odd numbers of the full width are the hardest.
        exact = np.iinfo(source).bits - (source.kind == "i") <= np.finfo(dtype).nmant + 1
    elif integer:
        exact = (
            np.dtype(dtype).kind in "iu"
            and np.iinfo(dtype).min <= np.iinfo(source).min
            and np.iinfo(source).max <= np.iinfo(dtype).max
        )
    else:
        exact = (
            np.dtype(dtype).kind == "f" and ml_dtypes.finfo(dtype).nmant >= np.finfo(dtype_of(datatype)).nmant
        )
    assert widens(datatype, dtype) is exact


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_elements_survive(elements):
    data = encode_elements(elements)
    assert len(data) == sum(4 + len(element) for element in elements)
    assert decode_elements(memoryview(data), len(elements), "data") == elements


def test_elements_are_behind_their_length_in_four_bytes():
    assert encode_elements([b"ab", b""]) == b"\2\0\0\0ab\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 1),
        (b"\1\0\0", 1),
        (b"\1\0\0\0", 1),
        (struct.pack("<I", 2**32 - 1), 1),
        (b"\1\0\0\0a", 2),
        (b"\1\0\0\0a", 0),
        (b"\1\0\0\0ab", 1),
        (b"\1\0\0\0a", 10**15),
    ],
)
def test_elements_that_do_not_add_up(data, count):
    with pytest.raises(InvalidInput, match=f"hold {count} elements"):
        decode_elements(memoryview(data), count, "data")
