"""The head of an inference request: what it says, and what it may not say."""

import json

import pytest

from service.api.openinference.requests import InputHead, OutputWish, read_head, split_body
from service.errors import InvalidInput, InvalidJson, InvalidParameter, InvalidRequest

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def head(**members):
    return read_head(json.dumps({"inputs": [X], **members}).encode())


def test_a_head_with_little_in_it():
    got = head()
    assert got.inputs == (InputHead("x", "FP32", (1, 2), None, [1, 2]),)
    assert (got.id, got.outputs, got.binary, got.timeout_s, got.priority) == (None, (), False, None, 0)


def test_a_head_with_everything_in_it():
    got = read_head(
        json.dumps(
            {
                "id": "",
                "parameters": {
                    "binary_data_output": True,
                    "timeout": 250,
                    "priority": 3,
                    "sequence_id": 7,
                    "mine": "x",
                },
                "inputs": [
                    {"name": "a", "shape": [0], "datatype": "INT8", "parameters": {"binary_data_size": 0}},
                    {**X, "parameters": {"content_type": "np"}},
                ],
                "outputs": [
                    {"name": "p"},
                    {"name": "q", "parameters": {"binary_data": False, "classification": 4}},
                ],
                "model_name": "as KServe's client sends it",
            }
        ).encode()
    )
    assert got.id == ""
    assert (got.binary, got.timeout_s, got.priority) == (True, pytest.approx(250e-6), 3)
    assert got.inputs[0] == InputHead("a", "INT8", (0,), 0, None)
    assert got.outputs == (OutputWish("p", True), OutputWish("q", False, 4))


def test_null_is_as_good_as_nothing():
    got = head(id=None, parameters=None, outputs=None)
    assert (got.id, got.outputs) == (None, ())
    assert head(outputs=[{"name": "p", "parameters": None}]).outputs == (OutputWish("p", False),)
    unset = dict.fromkeys(
        ["binary_data", "binary_data_output", "classification", "timeout", "priority", "mine"]
    )
    assert head(parameters=unset) == head()
    assert head(outputs=[{"name": "p", "parameters": unset}]).outputs == (OutputWish("p", False),)
    assert (
        head(inputs=[{**X, "parameters": {"binary_data_size": None, "shared_memory_region": None}}]) == head()
    )


def test_no_time_asked_for_is_no_limit():
    assert head(parameters={"timeout": 0}).timeout_s is None


@pytest.mark.parametrize(
    ("members", "error", "match"),
    [
        ({"id": 1}, InvalidRequest, "'id' to be a string"),
        ({"inputs": None}, InvalidInput, "'inputs' to be a list. Received: null"),
        ({"inputs": {}}, InvalidInput, "'inputs' to be a list"),
        ({"inputs": []}, InvalidInput, "at least one input"),
        ({"inputs": [1]}, InvalidInput, r"inputs\[0\] to be a JSON object"),
        ({"inputs": [X, []]}, InvalidInput, r"inputs\[1\]"),
        ({"inputs": [{**X, "name": 1}]}, InvalidInput, r"'inputs\[0\].name' to be a string"),
        ({"inputs": [{**X, "name": None}]}, InvalidInput, "name"),
        ({"inputs": [{**X, "datatype": 1}]}, InvalidInput, "datatype"),
        *(
            ({"inputs": [{**X, "shape": shape}]}, InvalidInput, "shape' to be a list of whole numbers")
            for shape in (None, 2, "1", [1.0], ["1"], [-1], [None], [True], [[1]], [2**63])
        ),
        ({"inputs": [{**X, "shape": [1] * 33}]}, InvalidInput, "at most 32 axes"),
        ({"inputs": [{**X, "data": None}]}, InvalidInput, "neither"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, InvalidInput, "both"),
        *(
            (
                {"inputs": [{**X, "parameters": {"binary_data_size": size}}]},
                InvalidParameter,
                "number of bytes",
            )
            for size in (-1, 1.5, "8", True)
        ),
        ({"inputs": [{**X, "parameters": []}]}, InvalidParameter, r"'parameters' of inputs\[0\]"),
        (
            {"inputs": [{**X, "parameters": {"shared_memory_region": "r"}}]},
            InvalidParameter,
            "shared memory is not supported",
        ),
        ({"outputs": [{"name": str(k)} for k in range(1025)]}, InvalidInput, "at most 1024 outputs"),
        ({"outputs": {}}, InvalidInput, "'outputs' to be a list"),
        ({"outputs": ["p"]}, InvalidInput, r"outputs\[0\]"),
        ({"outputs": [{}]}, InvalidInput, r"outputs\[0\].name"),
        ({"outputs": [{"name": "p"}, {"name": "p"}]}, InvalidInput, "'p' again"),
        ({"outputs": [{"name": "p", "parameters": {"binary_data": 1}}]}, InvalidParameter, "true or false"),
        *(
            ({"outputs": [{"name": "p", "parameters": {"classification": k}}]}, InvalidParameter, "0 or more")
            for k in (-1, 1.5, "2", True, 2**63)
        ),
        ({"parameters": []}, InvalidParameter, "'parameters' of the request"),
        ({"parameters": {"mine": {}}}, InvalidParameter, "a string, a number or a boolean"),
        ({"parameters": {"timeout": -1}}, InvalidParameter, "'timeout'"),
        ({"parameters": {"timeout": "1"}}, InvalidParameter, "'timeout'"),
        ({"parameters": {"priority": 1.5}}, InvalidParameter, "'priority'"),
        ({"parameters": {"binary_data_output": "true"}}, InvalidParameter, "'binary_data_output'"),
    ],
)
def test_what_a_head_may_not_say(members, error, match):
    with pytest.raises(error, match=match):
        head(**members)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b'"x"', b"null", b'{"inputs": [NaN]}', b"\xff"])
def test_what_is_no_head(text):
    with pytest.raises((InvalidJson, InvalidInput)):
        read_head(text)


def test_without_a_length_all_is_json():
    text, binary = split_body(b"abc", "")
    assert (bytes(text), bytes(binary)) == (b"abc", b"")


@pytest.mark.parametrize("length", [0, 1, 3])
def test_the_length_says_where_the_binary_begins(length):
    text, binary = split_body(b"abc", str(length))
    assert (bytes(text), bytes(binary)) == (b"abc"[:length], b"abc"[length:])


@pytest.mark.parametrize(
    "length", ["4", "-1", "1.0", "x", "0x1", " 1", "1_0", "²", "1, 1", "9" * 19, "9" * 5000]
)
def test_lengths_that_are_none(length):
    with pytest.raises(InvalidRequest, match="from 0 to 3"):
        split_body(b"abc", length)
