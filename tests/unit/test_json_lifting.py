"""Long lists and named rows leave a document before it is parsed, and every dialect reads what it would have read."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import EDGE, ODD, REAL, SPACE, WHOLE, WRONG, texts

from service.api import bodies
from service.api.bodies import InputReader
from service.api.http import HttpRequest
from service.api.intake import Intake
from service.api.json_inputs import JsonInputs
from service.api.openinference import requests as openinference
from service.api.openinference.inputs import read_inputs
from service.api.openinference.requests import read_head
from service.api.tfserving import requests as tfserving
from service.api.tfserving.requests import read_document, read_examples, read_predict
from service.errors import RequestError
from service.payloads import json_lifting, json_rows
from service.payloads.json_lifting import WORTH_IT, lift
from service.payloads.json_rows import NamedRows
from service.payloads.json_tensors import Numbers
from service.tensors import TensorSpec

LISTS = (("instances",), ("inputs",), ("inputs", None), ("tensors", None, "data"))
ROWS = ("instances",)


def lift_all(body):
    return lift(body.encode(), LISTS, ROWS, 0)


def plain(value):
    """The document with lists for what was lifted, and how many pieces that were."""
    if isinstance(value, Numbers | NamedRows):
        return value.lists(), 1
    if isinstance(value, dict):
        pairs = {key: plain(inner) for key, inner in value.items()}
        return {key: inner for key, (inner, _) in pairs.items()}, sum(count for _, count in pairs.values())
    if isinstance(value, list):
        pairs = [plain(inner) for inner in value]
        return [inner for inner, _ in pairs], sum(count for _, count in pairs)
    return value, 0


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ('{"instances": [[1, 2], [3, 4]]}', 1),
        (' { "instances" :\n[[1, 2], [3, 4]] }\n', 1),
        ('{"instances": [[1, 2], [3, 4]], "signature_name": "a"}', 1),
        ('{"signature_name": "a: [", "instances": [[1, 2], [3, 4]]}', 1),
        ('{"inputs": {"x": [[1, 2], [3, 4]]}}', 1),
        ('{"inputs": {"x": [[1, 2], [3, 4]], "y": [5]}, "more": {}}', 2),
        ('{"inputs": {"x": [[1, 2], [3, 4]], "y": ["a", true]}}', 1),
        ('{"tensors": [{"name": "x", "data": [1, 2]}, {"data": [[3.5], [4e5]], "name": "y"}]}', 2),
        ('{"instances": [{"x": [1, 2]}]}', 1),
        ('{"instances": [{"x": [1, 2], "y": 3}, {"x": [4, 5], "y": 6}]}', 1),
        ('{"s": "t", "instances": [\n {"x" : [[1]]\n },\n {"x" : [[2]]\n }\n], "more": [[]], "u": "v"}', 1),
        ('{"instances": [{"b64": [1], "\u00e9": 2.5}]}', 1),
    ],
)
def test_what_is_lifted_is_what_was_there(body, count):
    lifted = lift_all(body)
    assert plain(lifted) == (json.loads(body), count)


@pytest.mark.parametrize(
    "body",
    [
        '{"elsewhere": [1, 2], "instances": [3]}',
        '{"instances": {"x": [1, 2]}, "inputs": [3]}',
        '{"inputs": {"x": {"y": [1, 2]}, "z": [3]}}',
        '{"tensors": [{"shape": [1, 2], "data": [3]}]}',
    ],
)
def test_lists_in_other_places_stay_lists(body):
    assert plain(lift_all(body)) == (json.loads(body), 1)


@pytest.mark.parametrize(
    "body",
    [
        '{"a": "text: [1, 2]", "instances": ["b"]}',
        '{"a": "text: [1, 2]", "b": "and: [3, 4]"}',
        '{"text": "a\\": [1, 2], \\"b", "instances": [[1, 2], [3, 4]]}',
        '{"text": "a\\": [1, 2]", "instances": [[1, 2], [3, 4]]}',
        '{"instances": [1, 2]',
        '{"instances": [1, 2]}}',
        '{"instances": [1, 2]} 3',
        '{"instances": [1, 2], "instances": [3}',
        '{"instances": [1, 2], "instances": [3]}',
        '{"instances": [1, 2] [3]}',
        '{"instances": [1, 2], }',
        '{"inputs": {"x": [1], "y": [2, [3]]}}',
        '{"inputs": {"x": [1], "x": [2]}}',
        '[{"x": [1]}]',
        "[1, 2]",
        "",
        '"',
        '"""',
    ],
)
def test_other_documents_are_left_alone(body):
    assert lift_all(body) is None


@pytest.mark.parametrize(
    "rows",
    [
        "[{}]",
        '[{"x": 1}, {"y": 1}]',
        '[{"x": 1}, {"x": 1, "y": 2}]',
        '[{"x": 1, "y": 2}, {"y": 2, "x": 1}]',
        '[{"x": 1, "x": 2}]',
        '[{"x": [1]}, {"x": [1, 2]}]',
        '[{"x": [1, 2]}, {"x": [3], [4]}]',
        '[{"x": [1], [2]}, {"x": [3], [4]}]',
        '[{"x": [1, "y": 3}, {"x": 2], "y": 3}]',
        '[{"x": [1, "y": 3}, {"x": 2], "y": 3}, {"x": [3, 4],[5, 6], "y": 3}, {"x": [7, 8], "y": 3}]',
        '[{"x": 1,}, {"x": 2,}]',
        '[{"x": 1 2}, {"x": 3 4}]',
        '[{"x"1: 2}, {"x"1: 2}]',
        '[{"x"1: , "y": 2}, {"x"1: , "y": 2}]',
        '[{"x": }3, {"x": }4]',
        '[{1"x": 2}, {1"x": 2}]',
        '[{"x": 1, 5"y": 2}, {"x": 1, 5"y": 2}]',
        '[{"x": {1}}, {"x": {2}}]',
        '[{"x": :1}, {"x": :2}]',
        '[{"x": 1}, {"x": 2}',
        '[{"x": 1}, {"x": 2}}]',
        '[{"x": 1}, {"x": 2}]]',
        '[{"x": 1}, {"x": 2} 3]',
        '[{"x": 1}, {"x": 2}, ]',
        '[{"x": 1}{"x": 2}]',
        '[{"x": 1},\x01{"x": 2}]',
        '[{"x": \x012}, {"x": 3}]',
        '[{"x": [1,\r2]}, {"x": [3,\r4]}]',
        '[{"x": [1, 2]}, {"x": [3}, {"x": 4],\r[5, 6]}, {"x": [7, 8]}]',
        '[{"x": [1, 2]}, {"x": [3}, {"x": 4], [5, 6]}, {"x": [7, 8]}]',
        '[{"x": [1],\r[2]}, {"x": [3]}]',
        '[{"\x01": 2}, {"\x01": 3}]',
        '[{"\\u0061": 2}, {"\\u0061": 3}]',
        '[{"x": NaN}, {"x": 1}]',
        '[{"x": 1}, {"x": true}]',
        '[{"x": "1"}, {"x": "2"}]',
        '[{"x": {"y": 1}}, {"x": {"y": 2}}]',
        '[{"x": 1}, [{"x": 2}]]',
        '[{"x": 9223372036854775808}, {"x": 1}]',
    ],
)
def test_rows_that_are_not_alike_or_wrong_are_left_alone(rows):
    assert lift_all(f'{{"instances": {rows}}}') is None


def test_names_that_are_no_text_are_left_alone():
    body = b'{"instances": [{"\xff": 1}, {"\xff": 2}]}'
    assert lift(body, LISTS, ROWS, 0) is None


def test_the_whole_numbers_of_one_member_stay_whole_beside_another():
    lifted = lift_all('{"instances": [{"x": 1, "y": 0.5}, {"x": 9007199254740993, "y": 2}]}')
    columns = lifted["instances"].columns
    assert [(str(numbers.array.dtype), numbers.array.tolist()) for numbers in columns.values()] == [
        ("int64", [1, 9007199254740993]),
        ("float64", [0.5, 2.0]),
    ]


def test_short_texts_are_left_alone():
    short, long = json.dumps({"instances": [1.5] * 10}), json.dumps({"instances": [1.5] * WORTH_IT})
    assert lift(short.encode(), LISTS) is None
    assert isinstance(lift(long.encode(), LISTS)["instances"], Numbers)


def test_a_document_that_is_mostly_something_else_is_left_alone():
    numbers, words = [1.5] * WORTH_IT, ["words"] * 8 * WORTH_IT
    assert lift(json.dumps({"inputs": {"x": numbers, "y": words[:8]}}).encode(), LISTS) is not None
    assert lift(json.dumps({"inputs": {"x": numbers, "y": words}}).encode(), LISTS) is None


# -- texts of any kind ------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        *'{}[]:,"',
        *["1", "-2.5", " ", "\n", "\\", '\\"', "e", "NaN", "true", "\x01", "\u00e9", "\\ud800", "\\u0061"],
        *['"x"', '"instances"', '"inputs"', '"data"', ": [", "[1, 2]", '{"x": 1}', '": [1], "'],
    ]
)
DOCUMENTS = st.one_of(
    st.lists(TOKENS, max_size=30).map("".join),
    st.builds(
        lambda frame, tokens: frame.replace("...", "".join(tokens)),
        st.sampled_from(
            [
                '{"instances": [{"x": [1], "y": 2}, ...]}',
                '{"instances": [{"x": [1], "y": 2}...]}',
                '{"instances": [{"x": [1], "y": 2...}]}',
                '{"...": [[1], [2]]}',
                '{"inputs": {"x": [[1], [2]], ...}}',
            ]
        ),
        st.lists(TOKENS, max_size=8),
    ),
)


@settings(max_examples=500, deadline=None)
@given(DOCUMENTS)
def test_nothing_but_json_is_lifted_and_nothing_is_changed(body):
    lifted = lift_all(body)
    if lifted is not None:
        assert plain(lifted)[0] == orjson.loads(body)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [
            '{"instances": [{"x": [[1, 2]], "y": 3}, {"x": [[4, 5]], "y": 6}], "s": "t"}',
            '{"inputs": {"x": [[1, 2], [3, 4]], "y": [5, 6]}}',
            '{"tensors": [{"name": "x", "data": [1.5, 2]}, {"name": "y", "data": [3, 4]}]}',
        ]
    ),
    st.data(),
)
def test_damaged_documents_are_lifted_only_where_they_are_still_json(body, data):
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 3)))
        body = body[:start] + data.draw(st.one_of(st.just(""), TOKENS)) + body[end:]
    lifted = lift_all(body)
    if lifted is not None:
        assert plain(lifted)[0] == orjson.loads(body)


# -- in requests ------------------------------------------------------------------------------------------

SIZES = (10**6, 10**6)
INTAKES = [
    Intake("m", (TensorSpec("x", (None, 2, 2), "float32"),), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 2), "int32"),), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 1), "float16"),), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None,), "int64"),), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, None), "bool"),), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 2), "string"),), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 2), "float64"), TensorSpec("y", (None, 1), "float32")), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 2), "int64"), TensorSpec("y", (None,), "float32")), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 2), "uint64"), TensorSpec("y", (None,), "int64")), {}, *SIZES),
    Intake("m", (TensorSpec("x", (None, 2), "uint64"),), {}, *SIZES),
]
LEAF = st.one_of(
    st.sampled_from(["1", "2.5", "-0", "-0.0", "1e39", "70000", "300.5", "16777217"]), ODD, WRONG
)
GOOD = st.one_of(WHOLE, REAL)
VALUES = st.one_of(texts(LEAF), texts(st.sampled_from(["1", "2"])), LEAF, GOOD)
# Of the shapes that the models take, so that more than errors is compared.
FITTING = st.one_of(
    st.lists(GOOD, min_size=2, max_size=2).map(lambda pair: f"[{pair[0]}, {pair[1]}]"),
    st.lists(EDGE, min_size=2, max_size=2).map(lambda pair: f"[{pair[0]}, {pair[1]}]"),
    EDGE,
    st.sampled_from(["[[1, 2.5], [3, 4]]", "[0.5]", "7", "[1, 2]", "[3, NaN]", "[1, Infinity]"]),
)


def rows_of(names, count, values):
    """Rows keyed by name, alike or not."""

    def row(found):
        members = ", ".join(f'"{name}": {value}' for name, value in zip(names, found, strict=True))
        return f"{{{members}}}"

    rows = st.tuples(*[values] * len(names)).map(row)
    return st.lists(rows, min_size=1, max_size=count).map(lambda texts: f"[{', '.join(texts)}]")


def tensor(name):
    return st.builds(
        '{{"name": "{}", "shape": {}, "datatype": "{}", "data": {}}}'.format,
        st.just(name),
        st.sampled_from(["[1, 2]", "[2, 2]", "[1, 2, 2]", "[1]", "[2]", "[1, 1]", "[2, 1]", '"a"']),
        st.sampled_from(
            ["FP32", "FP64", "INT32", "INT64", "UINT64", "BOOL", "BYTES", "FP16", "UINT8", "FP128"]
        ),
        st.one_of(VALUES, FITTING),
    )


BODIES = st.one_of(
    st.builds(
        lambda form, text: form % text,
        st.sampled_from(
            [
                '{"instances": %s}',
                '{"inputs": %s}',
                '{"inputs": {"x": %s}}',
                '{"inputs": {"x": %s, "y": [1, 2]}}',
                '{"inputs": {"x": %s, "y": [[1]]}}',
                '{"inputs": {"b64": %s}}',
                '{"instances": [{"b64": %s}]}',
                '{"signature_name": "serving_default", "instances": %s}',
                '{"signature_name": "a\\": [1], \\"", "instances": %s}',
                '{"signature_name": "\\ud800", "instances": %s}',
                '{"signature_name": %s, "instances": [[1, 2]]}',
                '{"instances": %s, "inputs": 1}',
                '{"instances": [1], "instances": %s}',
                '{"instances": {"x": %s}}',
                '{"examples": [{"x": %s}]}',
                '{"context": {"y": 1}, "examples": [{"x": %s}, {"x": [1, 2]}]}',
                '{"rows": %s}',
                '{"instances": [%s',
            ]
        ),
        st.one_of(VALUES, FITTING.map("[{}]".format)),
    ),
    st.builds('{{"instances": {}}}'.format, rows_of(["x"], 3, st.one_of(VALUES, FITTING))),
    st.builds('{{"instances": {}}}'.format, rows_of(["x", "y"], 3, FITTING)),
    st.builds('{{"instances": {}, "signature_name": "s"}}'.format, rows_of(["y", "x"], 3, VALUES)),
    st.builds('{{"examples": {}}}'.format, rows_of(["x", "y"], 3, FITTING)),
    st.builds('{{"inputs": {{"x": {}, "y": {}}}}}'.format, VALUES, VALUES),
    st.builds('{{"inputs": {{"x": [{}], "y": [{}]}}}}'.format, FITTING, FITTING),
    st.builds('{{"inputs": [{}]}}'.format, tensor("x")),
    st.builds('{{"id": "[1]", "inputs": [{}, {}]}}'.format, tensor("x"), tensor("y")),
    st.builds('{{"parameters": {{"p": {}}}, "inputs": [{}]}}'.format, VALUES, tensor("x")),
    st.builds('{{"inputs": [{{"name": "x", "shape": {}, "datatype": "FP32", "data": [1]}}]}}'.format, VALUES),
)
CUTS = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(1, 20))


def native(body, intake):
    return InputReader(intake).read(
        HttpRequest("POST", "/predict", b"", {b"content-type": b"application/json"}, body)
    ), None


def v1(body, intake):
    rows = read_predict(read_document(body), JsonInputs(intake, finite=False, reshape=tfserving.lift_numbers))
    return rows.inputs, (rows.columns, rows.bare)


def v1_examples(body, intake):
    values = JsonInputs(intake, finite=False, reshape=tfserving.unflatten)
    return read_examples(read_document(body), values, "classify"), None


def v2(body, intake):
    head = read_head(body)
    return read_inputs(head.inputs, memoryview(b""), intake), (head.id, head.outputs)


def told(read):
    """What comes out of a request: arrays with their bits, or the error word for word."""
    try:
        arrays, more = read()
    except RequestError as error:
        return type(error).__name__, error.message
    return {
        name: (a.dtype, a.shape, a.tolist() if a.dtype.kind == "O" else a.tobytes())
        for name, a in arrays.items()
    }, more


@pytest.mark.parametrize("read", [native, v1, v1_examples, v2])
@settings(max_examples=150, deadline=None)
@given(body=BODIES, space=SPACE, cut=CUTS, intake=st.sampled_from(INTAKES))
def test_requests_are_read_alike_either_way(read, body, space, cut, intake):
    text = body.replace(", ", f",{space}").encode("utf-8", "surrogatepass")
    text = text[: len(text) - cut]
    ways = []
    for way in (lambda *asked: lift(*asked, at_least=0), lambda *_: None):
        with pytest.MonkeyPatch.context() as patch:
            for module in (bodies, tfserving, openinference):
                patch.setattr(module, "lift", way)
            patch.setattr(openinference, "WORTH_IT", 0)
            ways.append(told(lambda: read(text, intake)))
    assert ways[0] == ways[1]


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (native, {"instances": [{"x": [[1, 2.5], [3, 4]]}] * 3}),
        (v1, {"instances": [{"x": [[1, 2.5], [3, 4]]}] * 3, "signature_name": "s"}),
        (native, {"inputs": {"x": [[[1, 2.5], [3, 4]]] * 3}}),
        (
            v2,
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 2, 2], "data": [1, 2.5, 3, 4] * 3}]},
        ),
    ],
)
def test_requests_in_their_usual_forms_take_the_short_way(read, body):
    def refuse(*_):
        raise AssertionError("the long way was taken")

    text = json.dumps(body).encode()
    with pytest.MonkeyPatch.context() as patch:
        for module in (bodies, tfserving, openinference):
            patch.setattr(module, "lift", lambda *asked: lift(*asked, at_least=0))
        patch.setattr(openinference, "WORTH_IT", 0)
        patch.setattr(openinference, "decode_json", refuse)
        patch.setattr(bodies, "decode_json", refuse)
        arrays, _ = read(text, INTAKES[0])
    assert arrays["x"].tolist() == [[[1, 2.5], [3, 4]]] * 3


def test_a_hostile_text_costs_no_more_than_its_length():
    """Each of these would be read again and again from its middle by a search that starts over."""
    for part in (": [1, ", '": [1, "', '{"x": [1, ', '"x": [1], ', ": [[[", '"}]'):
        body = '{"instances": ' + part * 4000
        counted = CountedReads(body)
        assert counted.result is None
        assert counted.bytes_read <= 8 * len(body)


class CountedReads:
    """How many bytes `read_numbers` was given while a body was lifted."""

    def __init__(self, body):
        self.bytes_read = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_lifting, "read_numbers", self.read)
            patch.setattr(json_rows, "read_numbers", self.read)
            self.result = lift(body.encode(), LISTS, ROWS, 1)

    def read(self, text, _=None):
        self.bytes_read += len(text)
