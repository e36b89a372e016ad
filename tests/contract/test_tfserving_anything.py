"""Whatever is sent under /v1: an answer in the dialect's own shape, the same from both drivers, and never a 500."""

import json
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_engine import graph_of

MANY = 20_000
STATUSES = {200, 400, 404, 413, 501, 503}
ROWS = [[5.1, 3.5, 1.4, 0.2], [0.0, -1.0, 2.5, 0.001]]
PLAIN = json.dumps({"instances": ROWS}).encode()
PROBS = graph_of("iris").evaluate({"x": np.array(ROWS, np.float32)}, ("probs",))["probs"]

VALUES = {
    "iris": {"x": ROWS[0]},
    "pairs": {"left": [1, 2, 3], "right": [0.25, 7]},
    "shapes": {"image": [[[0.5]] * 8] * 8},
    "words": {"ids": [1, 2, 3]},
    "line": {"x": [1, 2]},
    "broken": {"x": [1]},
}
LEAVES = st.sampled_from(
    [0, 1.5, -1, 99, 10**30, True, None, "", "a", "AA==", float("nan"), float("-inf"), 1e300, {"b64": "AA=="}]
)
NAMES = st.sampled_from(["x", "y", "left", "right", "ids", "b64", "image", "", "\u2028"])
ODD = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
SIGNATURES = st.sampled_from(
    ["", "serving_default", "layer:hidden", "layer:-1,0", "layer:*", "layer:", "layer:,", "layer:x", "x", "a" * 2000,
     "tensorflow/serving/classify", "tensorflow/serving/regress", "layer:" + "*" * 60, "\u00e9", 5, None, []]
)  # fmt: skip


def mostly(usual, rare):
    return st.sampled_from([usual] * 5 + [rare]).flatmap(lambda chosen: chosen)


@st.composite
def documents(draw, model):
    """A good document, or one with a member exchanged, left out or added."""
    row = VALUES[model]
    values = next(iter(row.values()))
    good = [
        {"instances": [row] * 2},
        {"instances": [values] * 2},
        {"inputs": {name: [value] for name, value in row.items()}},
        {"inputs": [values]},
        {"examples": [row, row]},
        {"examples": [{}], "context": row},
    ]
    document = dict(draw(st.sampled_from(good)))
    if draw(st.booleans()):
        document["signature_name"] = draw(SIGNATURES)
    if not draw(mostly(st.just(True), st.just(False))):
        document[draw(st.sampled_from(["instances", "inputs", "examples", "context", "other"]))] = draw(ODD)
    return document


def bodies(model):
    whole = documents(model).map(lambda document: json.dumps(document).encode())
    cut = st.tuples(whole, st.integers(0, 80)).map(lambda pair: pair[0][: pair[1]])
    odd = st.sampled_from(
        [b"", b"NaN", b"[" * 3000, b'{"instances": [' + b"[" * 3000 + b"NaN", b"\xff", b'{"a":"\\ud800"}']
    )
    return mostly(whole, cut | odd | st.binary(max_size=40))


@st.composite
def requests(draw):
    """A method, a path and a body."""
    model = draw(st.sampled_from(sorted(VALUES)))
    scope = draw(mostly(st.just(""), st.sampled_from(
        ["/versions/1", "/versions/2", "/versions/x", "/labels/a", f"/versions/{2**64}", "/versions/1/labels/a"]
    )))  # fmt: skip
    verb = draw(
        st.sampled_from(
            [":predict", ":classify", ":regress", ":Predict", ":explain", "", "/metadata", ":", ":x"]
        )
    )
    prefix = draw(
        mostly(st.just("/v1/models/"), st.sampled_from(["/V1/MODELS/", "/v1/model/", "/v1//", "/v1/models"]))
    )
    path = draw(
        mostly(
            st.just(f"{prefix}{model}{scope}{verb}"),
            st.binary(max_size=12).map(lambda data: "/v1/" + quote(data)),
        )
    )
    usual = "POST" if verb.startswith(":") else "GET"
    method = draw(
        mostly(st.just(usual), st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"]))
    )
    return method, path, draw(bodies(model))


def check(site, method, path, body):
    flask = site.flask.send(method, path, "", {}, body)
    express = site.express.send(method, path, "", {}, body, pieces=1 + len(body) % 3)
    assert (flask.status, flask.body, flask.content_type) == (
        express.status,
        express.body,
        express.content_type,
    )
    assert flask.status in STATUSES, flask.body
    assert flask.headers["x-request-id"]
    assert express.headers["x-request-id"]
    if method == "OPTIONS" and flask.status == 200:
        assert "OPTIONS" in flask.headers["allow"]
        return
    assert flask.content_type == "application/json"
    if method == "HEAD":
        return
    document = flask.json()
    if flask.status == 200 or (flask.status == 503 and method == "GET" and "error" not in document):
        keys = {"predictions", "outputs", "results", "models", "model_version_status", "model_spec"}
        assert len(document.keys() & keys) == 1
    else:
        assert list(document) == ["error"]
        assert 0 < len(document["error"]) < 4096


def check_plain(site):
    """A plain request is still answered right."""
    for driver in (site.flask, site.express):
        answer = driver.send("POST", "/v1/models/iris:predict", "", {}, PLAIN)
        assert np.array_equal(np.array(answer.json()["predictions"], np.float32), PROBS)
    assert site.runtime.waiting_rows == 0


@settings(max_examples=500, deadline=None)
@given(requests())
def test_any_request(site, request):
    check(site, *request)
    check_plain(site)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(requests())
def test_any_request_at_length(site, request):
    check(site, *request)
    check_plain(site)
