import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture

from service.api.intake import Intake
from service.api.json_inputs import JsonInputs
from service.api.tfserving.requests import (
    lift_numbers,
    read_document,
    read_examples,
    read_predict,
    unflatten,
)
from service.errors import InvalidInput, InvalidJson, RequestError, UnsupportedMedia
from service.images import image_input
from service.model_config import PreprocessConfig
from service.tensors import TensorSpec

X = TensorSpec("x", (None, 2), "float32")
UNIT = TensorSpec("x", (None, 1), "float32")
SCALAR = TensorSpec("x", (None,), "float32")
WHOLE = TensorSpec("x", (None, 1), "int32")
IMAGE = TensorSpec("image", (None, 8, 8, 3), "float32")
GRID = TensorSpec("grid", (None, 2, 2, 1), "float32")
TEXT = TensorSpec("tag", (None,), "string")
PAIR = (TensorSpec("left", (None, 2), "float32"), TensorSpec("right", (None,), "int32"))
UNITS = (UNIT, TensorSpec("y", (None, 1), "float32"))
PNG = picture("png_rgb")


def values(inputs, *, reshape=lift_numbers):
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    images = {spec.name: target for spec in inputs if (target := image_input(spec, PreprocessConfig()))}
    return JsonInputs(Intake("demo", inputs, images, 2**20, 10**6), finite=False, reshape=reshape)


def encoded(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def predict(inputs, body):
    return read_predict(read_document(encoded(body)), values(inputs))


def examples(inputs, body):
    return read_examples(read_document(encoded(body)), values(inputs, reshape=unflatten), "classify")


def refused(read, inputs, body, error=InvalidInput):
    with pytest.raises(error) as caught:
        read(inputs, body)
    assert type(caught.value) is error
    assert len(caught.value.message) < 1200
    return caught.value.message


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


# -- the document -------------------------------------------------------------------------------------------


def test_the_signature_is_a_text_or_missing():
    assert read_document(b'{"signature_name": "layer:pool"}').signature == "layer:pool"
    assert read_document(b'{"instances": [1]}').signature == ""
    for name in (b"100", b"null", b"[]"):
        with pytest.raises(InvalidInput, match="'signature_name' key must be a string value") as caught:
            _ = read_document(b'{"signature_name": %b}' % name).signature
        assert caught.value.message.startswith('JSON Value: {"signature_name"')


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", "JSON Parse error: "),
        (b'{"instances": [1, 2}', "at offset: 19"),
        (b'{"instances": [NaN, 2}', "at offset: 21"),
        (b'{"instances": [nan]}', "JSON Parse error: "),
        (b'{"instances": [1e400, NaN]}', "too large"),
        (b'{"instances": [NaN], "\xff": 1}', "JSON Parse error: "),
        (b'{"instances": [NaN, "\\ud800"]}', "JSON Parse error: "),
        (b"[" * 100_000 + b"NaN", "JSON Parse error: RecursionError"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(body, said):
    with pytest.raises(InvalidJson) as caught:
        read_document(body)
    assert caught.value.message.startswith("JSON Parse error: ")
    assert said in caught.value.message


@pytest.mark.parametrize("body", [b"[1]", b"NaN", b"5", b'"x"'])
def test_what_is_no_object_is_told(body):
    with pytest.raises(InvalidInput, match=r"JSON Value: .* Is not object"):
        read_document(body)


def test_a_long_body_is_told_shortly():
    with pytest.raises(InvalidInput) as caught:
        read_document(b"[" + b"1," * 10_000 + b"1]")
    assert len(caught.value.message) < 300


@given(st.recursive(st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_tokens_change_nothing_besides(value):
    document = read_document(json.dumps({"value": value, "token": float("nan")}).encode())
    wanted = json.loads(
        json.dumps(value), parse_int=lambda text: int(text) if len(text) < 20 else float(text)
    )
    assert json.dumps(document.members["value"]) == json.dumps(wanted)


# -- predict ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2], [3, 4]]},
        {"instances": [[1, 2], [3, 4]], "signature_name": "serving_default", "more": {"x": "y"}},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]]}},
        {"inputs": {"x": [[1, 2], [3, 4]], "unknown": [5]}},
    ],
)
def test_rows_and_columns(body):
    sent = predict(X, body)
    assert sent.inputs["x"].dtype == np.float32
    assert sent.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert sent.columns == ("inputs" in body)
    assert not sent.bare


def test_numbers_that_are_not_finite_reach_float_inputs():
    got = predict(X, b'{"instances": [[NaN, 1.5], [Infinity, -Infinity]]}').inputs["x"]
    assert np.array_equal(got, np.array([[np.nan, 1.5], [np.inf, -np.inf]], np.float32), equal_nan=True)
    assert "Received: nan at instances[0][0]" in refused(predict, WHOLE, b'{"instances": [[NaN]]}')
    assert "out of range" in refused(predict, X, b'{"instances": [[NaN, 1e39]]}')
    assert "out of range" in refused(predict, X, {"instances": [[1, 1e39]]})


@pytest.mark.parametrize(
    ("inputs", "body", "bare"),
    [
        (UNIT, {"instances": [1.0, 2.0, 5.0]}, True),
        (UNIT, {"instances": [[1.0], [2.0], [5.0]]}, False),
        (UNIT, {"inputs": [1.0, 2.0, 5.0]}, True),
        (UNIT, {"inputs": [[1.0], [2.0], [5.0]]}, False),
        (UNIT, {"instances": [{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]}, True),
        (UNIT, {"instances": [{"x": [1.0]}, {"x": [2.0]}, {"x": [5.0]}]}, False),
        (UNIT, {"inputs": {"x": [1.0, 2.0, 5.0]}}, True),
        (WHOLE, {"instances": [1, 2, 5]}, True),
    ],
)
def test_a_row_of_one_number_needs_no_list_and_is_answered_as_it_came(inputs, body, bare):
    sent = predict(inputs, body)
    assert sent.inputs["x"].tolist() == [[1], [2], [5]]
    assert sent.bare == bare


def test_one_bare_number_is_one_row():
    for body in ({"instances": [3.0]}, {"inputs": [3.0]}):
        sent = predict(UNIT, body)
        assert (sent.inputs["x"].tolist(), sent.bare) == ([[3]], True)


def test_scalar_inputs_are_no_bare_rows():
    sent = predict(SCALAR, {"instances": [1.0, 2.0]})
    assert (sent.inputs["x"].tolist(), sent.bare) == ([1, 2], False)


def test_several_inputs_are_bare_together():
    assert predict(UNITS, {"instances": [{"x": 1, "y": 2}]}).bare
    assert not predict(UNITS, {"instances": [{"x": 1, "y": [2]}]}).bare
    assert not predict(PAIR, {"instances": [{"left": [1, 2], "right": 3}]}).bare


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"signature_name": ""}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "only one of 'inputs' or 'instances' keys"),
        ({"instances": {"x": [1, 2]}}, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"inputs": {"y": [[1, 2]]}}, "Missing named input: x in 'inputs' object."),
        ({"inputs": {}}, "Missing named input: x in 'inputs' object."),
        ({"instances": [{"x": [1, 2], "y": 1}]}, "Received: 'y'."),
        ({"instances": [[1, 2], [3]]}, "instances[1] has 1 entries"),
        ({"instances": [[1, "2"]]}, "Received: '2' at instances[0][1]."),
        ({"instances": [[1, True]]}, "Received: true at instances[0][1]."),
        ({"instances": [1, 2]}, "Received: shape [2]."),
        ({"inputs": 5}, "Received: shape []."),
        ({"inputs": None}, "Received: null"),
        ({"inputs": "ab"}, "Received: 'ab'"),
    ],
)
def test_what_does_not_fit_is_refused(body, said):
    assert said in refused(predict, X, body)


def test_several_inputs_must_be_named():
    assert "keyed by the inputs" in refused(predict, PAIR, {"instances": [[1, 2]]})
    assert "Missing named input: right" in refused(predict, PAIR, {"inputs": {"left": [[1, 2]]}})
    got = predict(PAIR, {"inputs": {"right": [3], "left": [[1, 2]]}}).inputs
    assert (got["left"].tolist(), got["right"].tolist()) == ([[1, 2]], [3])


def test_base64_is_text_for_text_and_a_picture_for_pictures():
    for body in ({"instances": [b64(b"\xff"), "a"]}, {"inputs": {"tag": [b64(b"\xff"), "a"]}}):
        assert predict(TEXT, body).inputs["tag"].tolist() == [b"\xff", b"a"]
    assert predict(IMAGE, {"instances": [b64(PNG)]}).inputs["image"].shape == (1, 8, 8, 3)
    assert "takes no pictures" in refused(predict, X, {"instances": [b64(PNG)]}, UnsupportedMedia)
    assert "base64" in refused(predict, TEXT, {"instances": [{"b64": "?"}]})


# -- classify and regress -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        (X, {"examples": [{"x": [1, 2]}, {"x": [3, 4]}]}, {"x": [[1, 2], [3, 4]]}),
        (UNIT, {"examples": [{"x": 80.0}]}, {"x": [[80]]}),
        (UNIT, {"examples": [{"x": 1}, {"x": [2]}]}, {"x": [[1], [2]]}),
        (SCALAR, {"examples": [{"x": 1}, {"x": [2]}]}, {"x": [1, 2]}),
        (GRID, {"examples": [{"grid": [1, 2, 3, 4]}]}, {"grid": [[[[1], [2]], [[3], [4]]]]}),
        (GRID, {"examples": [{"grid": [[[1], [2]], [[3], [4]]]}]}, {"grid": [[[[1], [2]], [[3], [4]]]]}),
        (PAIR, {"context": {"right": 5}, "examples": [{"left": [1, 2]}]}, {"left": [[1, 2]], "right": [5]}),
        (TEXT, {"examples": [{"tag": "a"}, {"tag": b64(b"\xff")}]}, {"tag": [b"a", b"\xff"]}),
    ],
)
def test_examples_are_rows_keyed_by_input(inputs, body, expected):
    got = examples(inputs, body)
    assert {name: array.tolist() for name, array in got.items()} == expected


def test_a_picture_is_a_feature():
    assert examples(IMAGE, {"examples": [{"image": b64(PNG)}] * 2})["image"].shape == (2, 8, 8, 3)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [[1, 2]]}, "Example must be JSON object but got JSON Array: examples[0]"),
        ({"examples": [5]}, "got JSON Number"),
        ({"examples": [{"x": [1, 2]}], "context": "a"}, "got JSON String: context"),
        ({"examples": [{"x": [1, 2]}], "context": {"x": [1, 2]}}, "['x'] in both"),
        ({"examples": [{}]}, "Missing: ['x']"),
        ({"examples": [{"y": 1}]}, "Received: 'y'."),
        ({"examples": [{"x": [1, 2]}, {"x": [1]}]}, "examples['x'][1] has 1 entries"),
        ({"examples": [{"x": [1, 2, 3]}]}, "Received: shape [1, 3]."),
        ({"examples": [{"x": {"y": 1}}]}, "Received: an object"),
        ({"examples": [{"x": [1, None]}]}, "Received: null"),
    ],
)
def test_other_examples_are_refused(body, said):
    assert said in refused(examples, X, body)


# -- anything -----------------------------------------------------------------------------------------------

LEAVES = st.sampled_from([0, 1.5, -1, 10**30, True, None, "", "a", "AA==", float("nan"), float("inf"), 1e300])
NAMES = st.sampled_from(["x", "y", "left", "right", "tag", "b64", "image", "grid"])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"])


@given(
    st.sampled_from([X, UNIT, SCALAR, WHOLE, IMAGE, GRID, TEXT, PAIR, UNITS]),
    st.dictionaries(MEMBERS, st.lists(JSON, max_size=3) | JSON, max_size=3),
)
def test_anything_is_read_or_refused(inputs, body):
    for read in (predict, examples):
        try:
            got = read(inputs, body)
        except RequestError:
            continue
        arrays = got if isinstance(got, dict) else got.inputs
        specs = inputs if isinstance(inputs, tuple) else (inputs,)
        assert list(arrays) == [spec.name for spec in specs]
        assert len({len(array) for array in arrays.values()}) == 1
        assert all(array.ndim == len(spec.shape) for array, spec in zip(arrays.values(), specs, strict=True))
