"""The short way from JSON to arrays gives what the long way gives, and leaves to it what it does not take."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import HUGE, ODD, REAL, WHOLE, WRONG, texts

from service.payloads.json_tensors import read_numbers


def the_long_way(text):
    """What `numpy.array` makes of the lists, or `None` where it has none of numbers."""
    try:
        array = np.array(orjson.loads(text))
    except (orjson.JSONDecodeError, ValueError, OverflowError):
        return None
    return array if array.dtype.kind in "iuf" and array.size else None


@settings(max_examples=200, deadline=None)
@given(texts(st.one_of(WHOLE, REAL, HUGE, ODD)))
def test_numbers_are_the_same_bits_or_left_alone(text):
    short, long = read_numbers(text.encode()), the_long_way(text)
    if short is not None:
        assert long is not None
        assert (short.dtype, short.shape) == (long.dtype, long.shape)
        assert short.tobytes() == long.tobytes()


@settings(max_examples=100, deadline=None)
@given(texts(st.one_of(WHOLE, REAL)))
def test_even_lists_of_plain_numbers_are_taken(text):
    long = the_long_way(text)
    assert (read_numbers(text.encode()) is None) == (long is None)


@settings(max_examples=200, deadline=None)
@given(texts(st.one_of(st.sampled_from(["1", "2.5"]), WRONG)))
def test_what_is_wrong_is_left_alone(text):
    if the_long_way(text) is None:
        assert read_numbers(text.encode()) is None


@given(st.lists(st.sampled_from(["[", "]", ",", "1", " ", "-", ".5", "e3", "0"]), max_size=24).map("".join))
def test_nothing_but_json_is_read(text):
    short, long = read_numbers(text.encode()), the_long_way(text)
    assert short is None or (long is not None and short.tobytes() == long.tobytes())


@pytest.mark.parametrize(
    "text",
    ["[[1,2],[3]]", "[[1],[2],[3,4]]", "[[],[]]", "[[1,2],3]", "[1,[2]]", "[[1,2],[3,4]]]", "[1]]", "[]"],
)
def test_ragged_lists_are_left_alone(text):
    assert read_numbers(text.encode()) is None


def test_more_axes_than_numpy_has_are_left_alone():
    assert read_numbers(b"[" * 32 + b"1" + b"]" * 32).shape == (1,) * 32
    assert read_numbers(b"[" * 900 + b"1" + b"]" * 900) is None
    assert read_numbers(b"[" * 5000 + b"1" + b"]" * 5000) is None


def test_a_text_that_was_refused_leaves_nothing_behind():
    for wrong in (b"[1.5,2", b"[1e999]", b"[9223372036854775808]", b"[1 2]"):
        assert read_numbers(wrong) is None
        assert read_numbers(b"[1.5,2]").tolist() == [1.5, 2]


def test_arrays_outlive_the_texts_that_are_read_after_them():
    arrays = [read_numbers(f"[{number}, 0.5]".encode()) for number in range(50)]
    assert [array.tolist() for array in arrays] == [[number, 0.5] for number in range(50)]
