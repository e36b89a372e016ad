"""Whatever is sent under /v2: an answer in the dialect's own shape, the same from both drivers, and never a 500."""

import gzip
import json
import struct
import zlib
from urllib.parse import quote

import numpy as np
import pytest
from binary_tensors import DATATYPES, LENGTH, decode, encode
from bodies import PICTURES, ROWS, png
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_engine import graph_of

MANY = 20_000
STATUSES = {200, 400, 403, 404, 405, 413, 415, 501, 503}
PROBS = graph_of("iris").evaluate({"x": ROWS}, ("probs",))["probs"]
PLAIN = encode({"x": ROWS}, {"probs": {"binary_data": True}})

VALUES = {
    "iris": {"x": ROWS},
    "pairs": {"left": np.ones((2, 3), np.float32), "right": np.ones((2, 2), np.float32)},
    "shapes": {"image": np.zeros((1, 8, 8, 1), np.float32)},
    "words": {"ids": np.array([[1, 2, 3]])},
    "line": {"x": np.ones((1, 2), np.float32)},
    "broken": {"x": np.ones((1, 1), np.float32)},
}
FILES = [png(PICTURES[0]), b"\x89PNG", b"text"]
LEAVES = st.sampled_from(
    [0, 1.5, -1, 99, 2**63, 10**30, True, None, "", "a", "AA==", float("nan"), float("-inf"), 1e300]
)
NAMES = st.sampled_from(
    ["x", "left", "ids", "image", "probs", "hidden", "-1", "p*", "*" * 60, "", "\u2028", "name", "data", "shape", "datatype",
     "parameters", "binary_data_size", "binary_data", "classification", "binary_data_output", "timeout", "priority",
     "shared_memory_region", "a" * 2000]
)  # fmt: skip
ODD = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
# What a member may be exchanged for: often something of its kind.
OTHERS = (
    ODD
    | st.sampled_from([*DATATYPES.values(), "BF16", "BYTES", "UINT64", "fp32", ""])
    | st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 2**62, -1]), max_size=5)
    | st.lists(st.floats(width=32), max_size=13)
    | st.sampled_from([0, 1, 12, 16, 48, 2**62])
)


def mostly(usual, rare):
    return st.sampled_from([usual] * 5 + [rare]).flatmap(lambda chosen: chosen)


def members_of(value):
    """Every place in a document: what holds it, and its key there."""
    places = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, inner in places:
        yield value, key
        if key != "data":
            yield from members_of(inner)


@st.composite
def changed(draw, document):
    """The document with a member exchanged, left out or added."""
    holder, key = draw(st.sampled_from(list(members_of(document))))
    match draw(st.sampled_from(["exchange", "drop", "add"])):
        case "exchange":
            holder[key] = draw(OTHERS)
        case "drop":
            del holder[key]
        case "add" if isinstance(holder, dict):
            holder[draw(NAMES)] = draw(OTHERS)
        case _:
            holder.append(draw(OTHERS))
    return document


@st.composite
def inference_bodies(draw, model):
    """Headers and body of a good request, or of one with a few mistakes."""
    inputs = dict(VALUES[model])
    if model == "shapes" and draw(st.booleans()):
        inputs["image"] = draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2))
    binary = any(isinstance(value, list) for value in inputs.values()) or draw(st.booleans())
    parameters = st.dictionaries(
        st.sampled_from(["binary_data", "classification"]), st.sampled_from([True, 2])
    )
    outputs = draw(st.none() | st.dictionaries(NAMES, parameters, max_size=2))
    sent = encode(inputs, outputs, binary=binary, id="7")
    headers, size = dict(sent.headers), int(sent.headers.get(LENGTH, len(sent.body)))
    head, tail = sent.body[:size], sent.body[size:]
    if draw(st.booleans()):
        document = json.loads(head)
        for _ in range(draw(st.integers(1, 2))):
            document = draw(changed(document)) if isinstance(document, dict) and document else document
        head = json.dumps(document).encode()
        if tail:
            headers[LENGTH] = str(len(head))
    tail = draw(mostly(st.just(tail), st.binary(max_size=60) | st.just(struct.pack("<I", 2**32 - 1))))
    if not draw(mostly(st.just(True), st.just(False))):
        headers[LENGTH] = draw(
            st.sampled_from(["0", "1", str(len(head) + len(tail)), "-1", "x", "9" * 30, "\xb2"])
        )
    return headers, head + tail


@st.composite
def packed(draw, headers, body):
    """The body in a coding, or in another than its header says."""
    coding = draw(mostly(st.just(None), st.sampled_from(["gzip", "deflate", "br", "", "gzip, gzip"])))
    accepted = draw(st.sampled_from([None, "gzip", "deflate;q=0.1, *", "\xff;q=x"]))
    if coding is not None:
        pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)
        headers = headers | {"Content-Encoding": coding}
        body = draw(mostly(st.just(pack(body)), st.just(body) | st.just(pack(body)[:-3])))
    return headers | ({"Accept-Encoding": accepted} if accepted is not None else {}), body


@st.composite
def inferences(draw):
    """A request to the inference route of a model."""
    model = draw(st.sampled_from(sorted(VALUES)))
    scope = draw(
        mostly(st.just(""), st.sampled_from(["/versions/1", "/versions/2", "/versions/x", "/versions/"]))
    )
    headers, body = draw(
        mostly(inference_bodies(model), st.tuples(st.just({LENGTH: "0"}), st.binary(max_size=80)))
    )
    headers, body = draw(packed(headers, body))
    return "POST", f"/v2/models/{model}{scope}/infer", headers, body


@st.composite
def others(draw):
    """A request to another route, or to none."""
    model = draw(st.sampled_from([*VALUES, "irs", "%00", "%ff", "%F0%9F%A6%84", "a%2Fb"]))
    path = draw(
        st.sampled_from(
            ["", "/", "/health/live", "/health/ready", "/models", f"/models/{model}", f"/models/{model}/ready",
             f"/models/{model}/config", f"/models/{model}/versions/1", f"/models/{model}/versions/{2**70}/config",
             f"/models/{model}/trace/setting", "/logging", "/systemsharedmemory/status", "/repository/index",
             f"/repository/models/{model}/load", f"/repository/models/{model}/unload"]
        )
        | st.binary(max_size=12).map(lambda data: "/" + quote(data))
    )  # fmt: skip
    method = draw(st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT", "OPTIONS"]))
    return method, f"/v2{path}", {}, draw(st.sampled_from([b"", b"{}", b"[", b"\xff"]))


def check(site, method, path, headers, body):
    flask = site.flask.send(method, path, "", headers, body)
    express = site.express.send(method, path, "", headers, body, pieces=1 + len(body) % 3)
    assert (flask.status, flask.body, flask.content_type) == (
        express.status,
        express.body,
        express.content_type,
    )
    assert flask.status in STATUSES, flask.body
    assert flask.headers["x-request-id"]
    assert express.headers["x-request-id"]
    if method == "HEAD" or (method == "OPTIONS" and flask.status == 200):
        return
    if flask.status == 200 and path.endswith("/infer"):
        unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}
        coding = flask.headers.get("content-encoding")
        decode(flask, unpack[coding](flask.body) if coding else None)
        return
    assert flask.content_type == "application/json"
    if flask.status == 200 or (method == "GET" and flask.status == 400 and path.endswith("/ready")):
        flask.json()
    else:
        assert list(flask.json()) == ["error"]
        assert 0 < len(flask.json()["error"]) < 4096


def check_plain(site):
    """A plain request is still answered right."""
    for driver in (site.flask, site.express):
        answer = driver.send("POST", "/v2/models/iris/infer", "", PLAIN.headers, PLAIN.body)
        np.testing.assert_array_equal(decode(answer)[1]["probs"], PROBS)
    assert site.runtime.waiting_rows == 0


@settings(max_examples=500, deadline=None)
@given(inferences())
def test_any_inference(site, request):
    check(site, *request)
    check_plain(site)


@settings(max_examples=200, deadline=None)
@given(others())
def test_any_other_request(site, request):
    check(site, *request)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(inferences())
def test_any_inference_at_length(site, request):
    check(site, *request)
    check_plain(site)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(others())
def test_any_other_request_at_length(site, request):
    check(site, *request)
