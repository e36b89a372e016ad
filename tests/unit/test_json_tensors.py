"""The short way from JSON to arrays gives what the long way gives, and leaves to it what it does not take."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api import bodies
from service.api.bodies import InputReader
from service.api.http import HttpRequest
from service.api.intake import Intake
from service.api.json_inputs import JsonInputs
from service.api.tfserving import requests as tfserving
from service.api.tfserving.requests import read_document, read_predict
from service.errors import RequestError
from service.json_tensors import WORTH_IT, Numbers, lift_array, read_numbers
from service.tensors import TensorSpec

# As texts, because a parser sees texts: every way to write a number, and what is none.
WHOLE = st.integers(-(2**63), 2**63 - 1).map(str)
HUGE = st.integers(-(2**70), 2**70).map(str)
REAL = st.floats(allow_nan=False, allow_infinity=False).map(repr)
ODD = st.sampled_from(
    [
        *["-0", "-0.0", "0e0", "-0e5", "1E5", "1e+5", "1e-5", "9007199254740993", "9007199254740993.0"],
        *["4.9e-324", "2e-324", "1.7976931348623157e308", "1.7976931348623159e308", "1e309", "1e400"],
        *[
            "0.1000000000000000055511151231257827021181583404541015625",
            "18446744073709551615",
            "1e22",
            "1e23",
        ],
        *[
            "340282356779733661637539395458142568447.9",
            "3.4028236e38",
            "16777217",
            "0.3",
            "123456789012345678901",
        ],
    ]
)
WRONG = st.sampled_from(
    ["01", "+1", "1.", ".5", "1e", "--1", "1 2", "", "true", "null", '"1"', "NaN", "[]", "{}"]
)
SPACE = st.sampled_from(["", " ", "\n", "\r\n\t"])


def nested(leaves, depth):
    """Lists that are often even, and their text."""
    if depth == 0:
        return leaves
    inner = nested(leaves, depth - 1)
    even = st.tuples(inner, st.integers(1, 4)).map(lambda pair: [pair[0]] * pair[1])
    return st.one_of(even, st.lists(inner, max_size=4))


def text_of(value, space=""):
    if isinstance(value, list):
        return f"[{space}{f'{space},'.join(text_of(entry, space) for entry in value)}{space}]"
    return f"{value}{space}"


def texts(leaves):
    return st.builds(text_of, st.integers(1, 4).flatmap(lambda depth: nested(leaves, depth)), SPACE)


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


# -- in a document ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ('{"instances": [[1, 2], [3, 4]]}', ["instances"]),
        (' { "instances" :\n[[1, 2], [3, 4]] }\n', ["instances"]),
        ('{"instances": [[1, 2], [3, 4]], "signature_name": "a"}', ["instances"]),
        ('{"signature_name": "a: [", "instances": [[1, 2], [3, 4]]}', ["instances"]),
        ('{"inputs": {"x": [[1, 2], [3, 4]]}}', ["inputs", "x"]),
        ('{"inputs": {"x": [[1, 2], [3, 4]], "y": [5]}, "more": {}}', ["inputs", "x"]),
    ],
)
def test_a_member_is_lifted_and_the_rest_stays(body, place):
    lifted, whole = lift_array(body.encode(), 0), json.loads(body)
    *outer, name = place
    for key in outer:
        lifted_in, whole_in = lifted[key], whole[key]
        break
    else:
        lifted_in, whole_in = lifted, whole
    numbers, lists = lifted_in.pop(name), whole_in.pop(name)
    assert numbers.array.tolist() == numbers.lists() == lists
    assert lifted == whole


@pytest.mark.parametrize(
    "body",
    [
        '{"a": "text: [1, 2]", "instances": [1]}',
        '{"instances": [{"x": [1, 2]}]}',
        '{"instances": [1, 2]',
        '{"instances": [1, 2]}}',
        '{"instances": [1, 2]} 3',
        '{"instances": [1, 2], "instances": [3}',
        '{"instances": [1, 2] [3]}',
        '{"instances": [1, 2], }',
        '[{"x": [1]}]',
        "[1, 2]",
        "",
    ],
)
def test_other_documents_are_left_alone(body):
    assert lift_array(body.encode(), 0) is None


def test_the_last_of_two_members_of_one_name_counts():
    assert lift_array(b'{"instances": [1, 2], "instances": [3]}', 0) is None
    assert json.loads('{"instances": [1, 2], "instances": [3]}') == {"instances": [3]}


def test_short_texts_are_left_alone():
    short, long = json.dumps({"instances": [1.5] * 10}), json.dumps({"instances": [1.5] * WORTH_IT})
    assert lift_array(short.encode()) is None
    assert isinstance(lift_array(long.encode())["instances"], Numbers)


# -- in requests --------------------------------------------------------------------------------------------

INTAKES = [
    Intake("m", (TensorSpec("x", (None, 2, 2), "float32"),), {}, 10**6, 10**6),
    Intake("m", (TensorSpec("x", (None, 2), "int32"),), {}, 10**6, 10**6),
    Intake("m", (TensorSpec("x", (None, 1), "float16"),), {}, 10**6, 10**6),
    Intake("m", (TensorSpec("x", (None, None), "bool"),), {}, 10**6, 10**6),
    Intake("m", (TensorSpec("x", (None, 2), "string"),), {}, 10**6, 10**6),
    Intake(
        "m", (TensorSpec("x", (None, 2), "float64"), TensorSpec("y", (None, 1), "float32")), {}, 10**6, 10**6
    ),
]
LEAF = st.one_of(
    st.sampled_from(["1", "2.5", "-0", "-0.0", "1e39", "70000", "300.5", "16777217"]), ODD, WRONG
)
BODIES = st.builds(
    lambda form, text: (form % text).encode(),
    st.sampled_from(
        [
            '{"instances": %s}',
            '{"inputs": %s}',
            '{"inputs": {"x": %s}}',
            '{"inputs": {"x": %s, "y": [1, 2]}}',
            '{"inputs": {"x": %s, "y": [[1]]}}',
            '{"signature_name": "serving_default", "instances": %s}',
            '{"instances": %s, "inputs": 1}',
            '{"instances": {"x": %s}}',
            '{"rows": %s}',
            '{"instances": [%s',
        ]
    ),
    texts(LEAF),
)


def told(read):
    """What comes out of a request: arrays with their bits, or the error word for word."""
    try:
        arrays, more = read()
    except RequestError as error:
        return type(error).__name__, error.message
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}, more


def native(body, intake):
    return InputReader(intake).read(
        HttpRequest("POST", "/predict", b"", {b"content-type": b"application/json"}, body)
    ), None


def serving(body, intake):
    rows = read_predict(read_document(body), JsonInputs(intake, finite=False, reshape=tfserving.lift_numbers))
    return rows.inputs, (rows.columns, rows.bare)


@pytest.mark.parametrize("read", [native, serving])
@settings(max_examples=250, deadline=None)
@given(body=BODIES, intake=st.sampled_from(INTAKES))
def test_requests_are_read_alike_either_way(read, body, intake):
    ways = []
    for lift in (lambda body: lift_array(body, 0), lambda _: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bodies, "lift_array", lift)
            patch.setattr(tfserving, "lift_array", lift)
            ways.append(told(lambda: read(body, intake)))
    assert ways[0] == ways[1]
