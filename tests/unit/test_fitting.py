import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.errors import InvalidInput
from service.payloads.fitting import check_names, fit, fit_named
from service.payloads.nested_lists import array_from_lists
from service.tensors import TensorSpec

PAIR = TensorSpec("x", (None, 2), "float32")
FREE = TensorSpec("steps", (None, None, 2), "float32")
IDS = TensorSpec("ids", (None, 2), "int64")
BYTES = TensorSpec("pixels", (None, 2), "uint8")
FLAGS = TensorSpec("flags", (None, 2), "bool")
TEXT = TensorSpec("text", (None, 2), "string")
FLAT = TensorSpec("flat", (None,), "float32")


def lists(values, spec=PAIR, *, plain=False):
    return array_from_lists(values, spec, "instances", plain=plain)


def refused(call, *arguments, **options):
    with pytest.raises(InvalidInput) as caught:
        call(*arguments, **options)
    assert caught.value.message.startswith("Expected ")
    assert len(caught.value.message) < 1000
    return caught.value.message


def nested(depth, leaf=1):
    for _ in range(depth):
        leaf = [leaf]
    return leaf


# -- lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False])
@given(hnp.arrays(st.sampled_from([np.int64, np.float64]), hnp.array_shapes(max_dims=3, max_side=3)))
def test_even_lists_become_the_array_that_numpy_makes(plain, array):
    array = np.nan_to_num(array)
    assert np.array_equal(lists(array.tolist(), plain=plain), array)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1, 2], [3]], "instances[1] has 1 entries where instances[0] has 2"),
        ([[1, 2], []], "instances[1] has 0 entries where instances[0] has 2"),
        ([[], [1]], "instances[1] has 1 entries where instances[0] has 0"),
        ([[1, 2], 3], "instances[1] is a single value where instances[0] is a list"),
        ([1, [2]], "instances[1] is a list where instances[0] is a single value"),
        ([[1, 2], [3, [4]]], "instances[1][1] is a list where instances[0][0] is a single value"),
        ([[[1], [2]], [[3], [4, 5]]], "instances[1][1] has 2 entries where instances[0][0] has 1"),
        ([[[1], [2]], [[3], 4]], "instances[1][1] is a single value where instances[0][0] is a list"),
        ([[[]], [[]], [[1]]], "instances[2][0] has 1 entries where instances[0][0] has 0"),
        (nested(1000), "lists nested 1000 deep"),
    ],
)
@pytest.mark.parametrize("plain", [True, False])
def test_uneven_lists_are_told_with_their_place(values, said, plain):
    assert said in refused(lists, values, plain=plain)


def test_uneven_text_is_told_with_its_place():
    said = refused(lists, [["a"], ["b", "c"]], TEXT)
    assert "instances[1] has 2 entries where instances[0] has 1" in said


@pytest.mark.parametrize(
    ("values", "spec", "said"),
    [
        (
            [[1, True]],
            PAIR,
            "numbers, for input 'x' with shape [rows, 2] of float32. Received: true at instances[0][1]",
        ),
        ([[1, 2], [3, None]], PAIR, "Received: null at instances[1][1]"),
        ([[1, "2"]], PAIR, "Received: '2' at instances[0][1]"),
        ([[1, {}]], PAIR, "Received: an object at instances[0][1]"),
        ("text", PAIR, "Received: 'text' at instances."),
        (None, PAIR, "Received: null at instances."),
        ([[1, 2], [[["x"]]]], PAIR, "Received: 'x' at instances[1][0][0][0]"),
        ([["x" * 1000]], PAIR, "x'... at"),
        ([[True, 1]], FLAGS, "hold booleans, for input 'flags'"),
        ([[True, 1]], FLAGS, "Received: 1 at instances[0][1]"),
        ([["a", 1]], TEXT, "hold text, for input 'text'"),
        ([["a", {"b64": "AA=="}]], TEXT, "Received: an object"),
        (nested(1000, "x"), PAIR, "Received: 'x' at instances[0]"),
    ],
)
def test_a_leaf_of_another_kind_is_told_with_its_place(values, spec, said):
    with pytest.raises(InvalidInput) as caught:
        lists(values, spec)
    assert said in caught.value.message


def test_objects_nested_as_deep_as_json_allows_are_told_shortly():
    value = 1
    for _ in range(1000):
        value = {"a": value}
    assert "an object" in refused(lists, [value])


def test_an_object_is_found_even_where_the_text_was_taken_for_plain():
    assert "an object at instances[0][0]" in refused(lists, [[{}]], plain=True)


@pytest.mark.parametrize(
    "values",
    [
        [["x"] * 2000 + ["y" * 10**6]],
        [[1] * 2000 + ["y" * 10**6]],
        [[0] * 200_000 + [[0]]],
        [[]] * 20_000 + [[1]],
    ],
    ids=["one long text", "text among numbers", "a list at the end", "many empty lists"],
)
def test_a_refusal_takes_little_memory(values):
    tracemalloc.start()
    refused(lists, values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20


# -- shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((2,), PAIR),
        ((1, 3), PAIR),
        ((1, 2, 1), PAIR),
        ((0, 2), PAIR),
        ((), PAIR),
        ((1, 0, 2), FREE),
        ((1, 5, 3), FREE),
        ((0,), FLAT),
        ((1, 1), FLAT),
    ],
)
def test_other_shapes_are_refused(shape, spec):
    said = refused(fit, np.zeros(shape, np.float32), spec, "instances")
    assert f"Received: shape {list(shape)}." in said


def test_what_was_expected_is_told_as_a_shape():
    said = refused(fit, np.zeros((1, 3)), FREE, "inputs['steps']")
    assert "Expected inputs['steps'] for input 'steps' with shape [rows, any, 2] of float32." in said
    assert "with shape [rows] of float32" in refused(fit, np.zeros((1, 3)), FLAT, "x")


def test_a_free_axis_takes_any_length():
    assert fit(np.zeros((3, 7, 2)), FREE, "x").shape == (3, 7, 2)


def test_a_single_sample_gets_a_batch_axis_only_where_that_is_allowed():
    assert fit(np.zeros(2), PAIR, "x", single=True).shape == (1, 2)
    assert fit(np.float32(5), FLAT, "x", single=True).tolist() == [5.0]
    assert fit(np.zeros((4, 2)), PAIR, "x", single=True).shape == (4, 2)
    refused(fit, np.zeros(2), PAIR, "x")
    refused(fit, np.zeros(3), PAIR, "x", single=True)


# -- dtypes and values --------------------------------------------------------------------------------------


@given(
    hnp.arrays(
        hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?"),
        st.tuples(st.integers(1, 4), st.just(2)),
    ),
    st.booleans(),
)
def test_any_integers_fit_a_float_input(array, fortran):
    got = fit(np.asfortranarray(array) if fortran else array, PAIR, "x")
    assert got.dtype == np.dtype("float32")
    assert got.flags.c_contiguous
    assert np.array_equal(got, array.astype(np.float32))


@given(
    hnp.arrays(hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)), (2, 2)),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_floats_fit_or_are_refused_by_what_they_become(array, dtype):
    with np.errstate(over="ignore"):
        wanted = array.astype(dtype)
    spec = TensorSpec("x", (None, 2), dtype)
    if np.isfinite(wanted).all():
        got = fit(array, spec, "x")
        assert got.dtype == np.dtype(dtype)
        assert np.array_equal(got, wanted)
    else:
        assert "finite" in refused(fit, array, spec, "x")


@given(
    st.lists(st.integers(-(2**65), 2**65) | st.floats(), min_size=2, max_size=2),
    st.sampled_from(["uint8", "int8", "int32", "int64", "uint64"]),
)
def test_numbers_reach_an_integer_input_exactly_or_not_at_all(row, dtype):
    spec = TensorSpec("x", (None, 2), dtype)
    # As they come out of JSON: beyond 64 bits there are only floats.
    row = [float(v) if isinstance(v, int) and not -(2**63) <= v < 2**64 else v for v in row]
    limits = np.iinfo(dtype)

    def read():
        return fit(array_from_lists([row], spec, "x", plain=False), spec, "x")

    def fits(value):
        if isinstance(value, float) and not abs(value) < 2**53:  # may be another than the text had
            return False
        return limits.min <= value <= limits.max and value == int(value)

    if all(map(fits, row)):
        got = read()
        assert got.dtype == np.dtype(dtype)
        assert got.ravel().tolist() == row
    else:
        assert f"whole numbers from {limits.min} to {limits.max}" in refused(read)


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        ([[256, 0]], BYTES),
        ([[-1, 0]], BYTES),
        ([[0.5, 0]], BYTES),
        ([[2.0**63, 0]], IDS),
        ([[float("nan"), 0]], IDS),
        ([[float("inf"), 0]], IDS),
        ([[1e39, 0]], PAIR),
        ([[float("nan"), 0]], PAIR),
        ([[1e999, 0]], PAIR),
    ],
)
def test_numbers_that_do_not_fit_are_refused(values, spec):
    refused(fit, np.array(values), spec, "x")


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (np.array([[True, False]]), PAIR),
        (np.array([[1, 0]]), FLAGS),
        (np.array([["1", "2"]]), PAIR),
        (np.array([[b"1", b"2"]]), PAIR),
        (np.array([[1j, 2]]), PAIR),
        (np.array([["2020-01-01", "2020-01-02"]], "M8[D]"), IDS),
        (np.zeros((1, 2), "V4"), PAIR),
        (np.array([[2**70, 1]], dtype=object), PAIR),
        (np.array([[1, 2]]), TEXT),
        (np.array([[True, False]]), TEXT),
        (np.array([["a", 1]], dtype=object), TEXT),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_other_kinds_of_arrays_are_refused(array, spec):
    assert f"Received: {array.dtype}." in refused(fit, array, spec, "x")


def test_booleans_fit_booleans():
    assert fit(lists([[True, False]], FLAGS), FLAGS, "x").tolist() == [[True, False]]


@pytest.mark.parametrize("array", [[["é", ""]], np.array([["é", ""]]), np.array([["é".encode(), b""]])])
def test_text_becomes_utf8_bytes(array):
    array = lists(array, TEXT) if isinstance(array, list) else array
    got = fit(np.asfortranarray(array), TEXT, "x")
    assert got.dtype == object
    assert got.tolist() == [["é".encode(), b""]]
    assert fit(got, TEXT, "x").tolist() == got.tolist()


def test_an_array_that_fits_is_not_copied():
    array = np.zeros((3, 2), np.float32)
    assert np.shares_memory(fit(array, PAIR, "x"), array)


# -- names --------------------------------------------------------------------------------------------------

TWO = (TensorSpec("left", (None, 2), "float32"), TensorSpec("right", (None,), "int32"))


def test_named_arrays_come_in_the_models_order():
    arrays = {"right": np.array([1, 2]), "left": np.zeros((2, 2))}
    got = fit_named(arrays, TWO, "inputs")
    assert list(got) == ["left", "right"]
    assert got["right"].dtype == np.int32


def test_single_samples_go_together():
    got = fit_named({"left": np.zeros(2), "right": np.int64(3)}, TWO, "inputs", single=True)
    assert (got["left"].shape, got["right"].tolist()) == ((1, 2), [3])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"left": np.zeros((1, 2))}, "Missing: ['right']"),
        ({"left": np.zeros((1, 2)), "rihgt": np.zeros(1)}, "Received: 'rihgt'. Did you mean 'right'?"),
        ({"left": np.zeros((1, 2)), "right": np.zeros(2)}, "Received: {'left': 1, 'right': 2}"),
        ({"left": np.zeros((1, 3)), "right": np.zeros(1)}, "Expected inputs['left'] for input 'left'"),
        ({}, "Missing: ['left', 'right']"),
    ],
)
def test_names_and_rows_must_agree(arrays, said):
    assert said in refused(fit_named, arrays, TWO, "inputs")


def test_an_endless_name_is_refused_at_once():
    assert len(refused(check_names, {"left" * 10**6: 1}, TWO, "inputs")) < 300


def test_numbers_that_are_not_finite_pass_where_they_may_and_others_out_of_range_never_do():
    array = np.array([[np.nan, np.inf], [-np.inf, 1]])
    spec = TensorSpec("x", (None, 2), "float32")
    got = fit(array, spec, "instances", finite=False)
    assert got.dtype == np.float32
    assert np.array_equal(got, array, equal_nan=True)
    for wrong in (1e39, -1e39):
        array[1, 1] = wrong
        with pytest.raises(InvalidInput, match="out of range"):
            fit(array, spec, "instances", finite=False)
    with pytest.raises(InvalidInput, match="whole numbers"):
        fit(np.array([[np.nan]]), TensorSpec("x", (None, 1), "int32"), "instances", finite=False)
