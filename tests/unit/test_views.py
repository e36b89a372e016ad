import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.api import views
from service.errors import InvalidParameter
from service.payloads.codecs import encode_json
from service.tensors import LayerSpec, OutputSpec

SOFTMAX = OutputSpec("probs", (None, 3), "float32", activation="softmax")
SIGMOID = OutputSpec("p", (None, 1), "float32", activation="sigmoid")
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4).filter(lambda shape: shape[-1] > 1)
FINITE = {"allow_nan": False, "allow_infinity": False}
# A few values only, so that ties are common.
SCORES = hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -1.0]))
WILD = hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]))
INTEGERS = hnp.arrays(hnp.integer_dtypes() | hnp.unsigned_integer_dtypes(), SHAPES)


def layer(shape, channel_axis=-1, dtype="float32"):
    return LayerSpec("layer", "Conv2D", shape, dtype, 0, 0.0, channel_axis)


# -- labels and top -----------------------------------------------------------------------------------------


@given(SCORES | INTEGERS)
def test_a_label_is_numpys_argmax(values):
    found = views.label(values, SOFTMAX)
    assert np.array_equal(found.labels, np.argmax(values, -1))
    assert np.array_equal(found.scores, np.max(values, -1))
    assert found.values is values


@given(SCORES | INTEGERS | WILD, st.integers(1, 6))
def test_top_is_a_stable_sort_downwards_that_starts_with_the_label(values, k):
    found = views.label(values, SOFTMAX)
    classes = [f"class {i}" for i in range(values.shape[-1])]
    top = views.top_k(found, k, classes)
    rows = values.reshape(-1, values.shape[-1]).tolist()
    got = np.array(top, dtype=object).reshape(len(rows), -1)
    assert got.shape[1] == min(k, values.shape[-1])
    for row, entries, best in zip(rows, got, np.ravel(found.labels), strict=True):
        keys = [-math.inf if math.isnan(value) else value for value in row]
        wanted = sorted(range(len(row)), key=lambda place: -keys[place])[:k]
        assert [entry["label"] for entry in entries] == wanted
        assert [entry["class"] for entry in entries] == [classes[place] for place in wanted]
        assert np.array_equal(
            [entry["score"] for entry in entries], [row[place] for place in wanted], equal_nan=True
        )
        assert wanted[0] == best


def test_ties_go_to_the_first_class():
    values = np.array([[0.4, 0.4, 0.2]], np.float32)
    found = views.label(values, SOFTMAX)
    assert found.labels == [0]
    assert [entry["label"] for entry in views.top_k(found, 3, ())[0]] == [0, 1, 2]


def test_nan_loses_to_every_number():
    values = np.array([[math.nan, 0.1, 0.9], [math.nan, -math.inf, math.nan], [math.nan] * 3], np.float32)
    found = views.label(values, SOFTMAX)
    assert found.labels == [2, 0, 0]
    assert encode_json(found.scores) == b"[0.9,null,null]"


def test_large_integers_are_told_apart():
    values = np.array([[2**53, 2**53 + 1]], np.int64)
    found = views.label(values, SOFTMAX)
    assert found.labels == [1]
    assert views.top_k(found, 1, ())[0][0] == {"label": 1, "score": 2**53 + 1}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_single_sigmoid_unit_counts_as_two_classes(dtype):
    values = np.array([[0.9], [0.5], [0.25], [math.nan]], dtype)
    found = views.label(values, SIGMOID)
    assert found.labels.tolist() == [1, 0, 0, 0]
    assert found.values.shape == (4, 2)
    wanted = [values[0, 0], dtype(0.5), dtype(0.75), dtype("nan")]
    assert np.array_equal(found.scores, np.array(wanted, dtype), equal_nan=True)
    assert [row[0]["label"] for row in views.top_k(found, 1, ())] == [1, 0, 0, 0]


def test_a_map_of_sigmoid_units_is_labelled_place_by_place():
    values = np.array([[[0.9], [0.1]]], np.float32)
    found = views.label(values, SIGMOID)
    assert found.labels.tolist() == [[1, 0]]
    assert views.name_labels(found.labels, ["no", "yes"]) == [["yes", "no"]]


@pytest.mark.parametrize(
    ("values", "activation"),
    [
        (np.zeros((2, 1), np.float32), "linear"),
        (np.zeros((2, 1), np.float32), None),
        (np.zeros(2, np.float32), "sigmoid"),
        (np.zeros((2, 3), bool), "softmax"),
        (np.array([["a", "b"]]), None),
    ],
)
def test_where_there_is_nothing_to_choose_there_is_no_label(values, activation):
    assert views.label(values, OutputSpec("o", (None,), "float32", activation=activation)) is None


def test_names_keep_the_shape_of_the_labels():
    labels = np.array([[0, 1], [2, 2]])
    assert views.name_labels(labels, ("zero", "one", "two")) == [["zero", "one"], ["two", "two"]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_top_can_be_written_as_json(dtype):
    found = views.label(np.array([[1, 3, 2]], dtype), SOFTMAX)
    document = json.loads(encode_json(views.top_k(found, 2, ("a", "b", "c"))))
    assert document == [[{"label": 1, "class": "b", "score": 3}, {"label": 2, "class": "c", "score": 2}]]
    assert "class" not in views.top_k(found, 1, ())[0][0]


# -- pooling ------------------------------------------------------------------------------------------------


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=5, max_side=4),
        elements=st.floats(-100, 100, width=32),
    ),
    st.booleans(),
    st.sampled_from(["avg", "max"]),
)
def test_pooling_goes_over_every_axis_but_rows_and_channels(values, channels_first, how):
    spec = layer(values.shape, 1 if channels_first else -1)
    got = views.pool(values, spec, how)
    moved = np.moveaxis(values, 1, -1) if channels_first else values
    cells = moved.reshape(len(values), -1, moved.shape[-1]).astype(np.float64)
    wanted = cells.max(1) if how == "max" else cells.mean(1)
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    assert np.allclose(got, wanted, rtol=1e-6, atol=1e-4)
    assert views.pooled_values(spec) == got.shape[1]


@pytest.mark.parametrize("shape", [(3,), (3, 4)])
@pytest.mark.parametrize("how", ["avg", "max"])
def test_without_spatial_axes_pooling_changes_nothing(shape, how):
    values = np.arange(math.prod(shape), dtype=np.int16).reshape(shape)
    assert views.pool(values, layer((None, *shape[1:])), how) is values


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_average_of_many_cells_loses_no_digits(dtype):
    got = views.pool(np.full((1, 100, 100, 2), 60000, dtype), layer((None, 100, 100, 2)), "avg")
    assert got.dtype == np.float32
    assert got.tolist() == [[60000, 60000]]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, bool])
def test_the_average_of_integers_is_no_integer(dtype):
    values = np.array([[[0], [1]]], dtype)
    assert views.pool(values, layer((None, 2, 1)), "avg").tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("shape", "axis", "values"),
    [
        ((None, 7), -1, 7),
        ((None, None), -1, None),
        ((None, 4, 4, 8), -1, 8),
        ((None, 8, None, None), 1, 8),
        ((None, 4, None), -1, None),
        ((None,), -1, 1),
    ],
)
def test_the_size_after_pooling_is_known_before(shape, axis, values):
    assert views.pooled_values(layer(shape, axis)) == values


# -- normalising and rounding -------------------------------------------------------------------------------


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements=st.integers(-1000, 1000),
    )
)
def test_rows_get_length_one_and_zeros_stay(values):
    got = views.normalize(values)
    assert got.dtype == np.result_type(values.dtype, np.float32)
    exact = values.astype(np.float64)
    norm = np.linalg.norm(exact, axis=-1, keepdims=True)
    assert np.allclose(got, exact / np.where(norm == 0, 1, norm), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30, 3e38])
def test_very_small_and_very_large_rows_keep_their_direction(size):
    values = np.array([[size, size, 0, 0]], np.float32)
    assert np.allclose(views.normalize(values), [[0.5**0.5, 0.5**0.5, 0, 0]], rtol=1e-6)


def test_a_row_that_is_not_finite_is_not_passed_off_as_one_that_is():
    values = np.array([[1, math.nan], [1, math.inf], [3, 4]], np.float32)
    assert encode_json(views.normalize(values)) == b"[[null,null],[null,null],[0.6,0.8]]"


@pytest.mark.parametrize("call", [lambda v: views.pool(v, layer((None, 2)), "avg"), views.normalize])
def test_text_is_neither_pooled_nor_normalised(call):
    with pytest.raises(InvalidParameter, match="text"):
        call(np.array([["a", "b"]]))


def test_casting_rounds_floats_and_leaves_the_rest():
    values = np.array([0.1, 65504, 65520, -1e30], np.float32)
    half = views.cast(values, "float16")
    assert half.dtype == np.float16
    assert half.tolist() == [np.float16(0.1), 65504, math.inf, -math.inf]
    assert encode_json(half) == b"[0.099975586,65504.0,null,null]"
    assert views.cast(values, None) is values
    assert views.cast(values, "float32") is values
    for other in (np.array([1]), np.array([True]), np.array(["a"])):
        assert views.cast(other, "float16") is other
