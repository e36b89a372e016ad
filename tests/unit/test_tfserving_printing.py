"""The bytes that TensorFlow Serving's printer gives, traced by hand through json_tensor.cc and RapidJSON 1.1."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.api.tfserving.printing import (
    print_classes,
    print_error,
    print_outputs,
    print_predictions,
    print_values,
)

TEXT = np.array([[b"a", "é".encode()], [b"c\n", b"\xff"]], object)


def floats(*values):
    return np.array(values, np.float32)


def test_rows_stand_on_one_line_and_their_bracket_on_the_next():
    assert (
        print_predictions({"y": floats(2.5, 3, 4.5)})
        == b"""{
    "predictions": [2.5, 3.0, 4.5
    ]
}"""
    )
    assert (
        print_predictions({"y": floats([1, 2], [3.5, -4])})
        == b"""{
    "predictions": [[1.0, 2.0], [3.5, -4.0]
    ]
}"""
    )


def test_rows_of_several_outputs_are_objects():
    outputs = {"a": floats([1, 2], [3, 4]), "b": np.array([5, 6]), "c": np.array([True, False])}
    assert (
        print_predictions(outputs)
        == b"""{
    "predictions": [
        {
            "a": [1.0, 2.0],
            "b": 5,
            "c": true
        },
        {
            "a": [3.0, 4.0],
            "b": 6,
            "c": false
        }
    ]
}"""
    )


def test_columns_have_one_value_a_line():
    assert (
        print_outputs({"y": floats(3.5, 4)})
        == b"""{
    "outputs": [
        3.5,
        4.0
    ]
}"""
    )
    assert (
        print_outputs({"a": floats([1, 2]), "b": np.array([5])})
        == b"""{
    "outputs": {
        "a": [
            [
                1.0,
                2.0
            ]
        ],
        "b": [
            5
        ]
    }
}"""
    )


def test_text_is_text_or_base64_by_the_name_of_its_output():
    assert (
        print_predictions({"y": TEXT})
        == """{
    "predictions": [["a", "é"], ["c\\n", "\N{REPLACEMENT CHARACTER}"]
    ]
}""".encode()
    )
    assert (
        print_predictions({"y_bytes": TEXT[:, 1]})
        == b"""{
    "predictions": [{
            "b64": "w6k="
        }, {
            "b64": "/w=="
        }
    ]
}"""
    )
    assert (
        print_outputs({"y_bytes": TEXT[:1, :1], "z": TEXT[0]})
        == """{
    "outputs": {
        "y_bytes": [
            [
                {
                    "b64": "YQ=="
                }
            ]
        ],
        "z": [
            "a",
            "é"
        ]
    }
}""".encode()
    )


def test_results_of_classify_and_regress():
    assert (
        print_classes(floats([0.5, 0.25], [1, 0]), ["a b", ""])
        == b"""{
    "results": [[["a b", 0.5], ["", 0.25]], [["a b", 1.0], ["", 0.0]]
    ]
}"""
    )
    assert (
        print_values(floats(3.5, 4))
        == b"""{
    "results": [3.5, 4.0]
}"""
    )


def test_an_error_is_one_member():
    assert (
        print_error('not "this"')
        == b"""{
    "error": "not \\"this\\""
}"""
    )


@pytest.mark.parametrize("printed", [print_predictions, print_outputs])
def test_numbers_that_are_not_finite_have_their_tokens_in_their_places(printed):
    array = floats([np.nan, 1], [np.inf, -np.inf])
    text = printed({"y": array, "z": array[:, 0]})
    assert b"null" not in text
    value = json.loads(text)
    rows = value["predictions"] if "predictions" in value else value["outputs"]
    y = [row["y"] for row in rows] if isinstance(rows, list) else rows["y"]
    assert np.array_equal(np.array(y), array, equal_nan=True)
    assert text.count(b"-Infinity") == 1
    assert text.count(b"Infinity") == 3
    assert text.count(b"NaN") == 2


def test_scores_and_values_have_tokens_too():
    assert b'[["a", NaN], ["b", -Infinity]]' in print_classes(floats([np.nan, -np.inf]), ["a", "b"])
    assert b"[Infinity]" in print_values(floats(np.inf))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_floats_come_back_bit_for_bit(dtype, data):
    shape = hnp.array_shapes(min_dims=1, max_dims=4, max_side=3)
    array = data.draw(hnp.arrays(dtype, shape))
    for text in (print_predictions({"y": array}), print_outputs({"y": array})):
        got = np.array(next(iter(json.loads(text).values())), dtype)
        assert np.array_equal(got, array, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, np.bool_])
def test_whole_numbers_and_booleans_keep_their_type(dtype):
    array = np.array([[0, 1]], dtype)
    (row,) = json.loads(print_predictions({"y": array}))["predictions"]
    assert [type(value) for value in row] == [type(value) for value in array[0].tolist()]
    assert row == array[0].tolist()


def test_arrays_need_not_lie_in_order():
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert json.loads(print_predictions({"y": array}))["predictions"] == array.tolist()
    assert json.loads(print_outputs({"y": array[:, ::2]}))["outputs"] == array[:, ::2].tolist()
