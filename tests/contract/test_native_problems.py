"""The native API's errors: each code that a request can cause, in words that help, on both drivers."""

import io
import zipfile

import numpy as np
import pytest
from bodies import BODIES, FORM, PICTURES, form, npy, npz, png, text
from drivers import MAX_BODY_BYTES, open_site

from service.api.problems import PROBLEM
from service.api.schemas import error_classes
from service.payloads.codecs import JSON, NPY, NPZ

ROW = text({"instances": [[1, 2, 3, 4]]})
GOOD_NPY = npy(np.ones((2, 4), np.float32))
WAITING = {  # caused by the service's state, not by one request: test_waiting has them
    "deadline_exceeded", "engine_stopped", "inference_failed", "memory_full", "model_loading", "not_ready", "queue_full",
}  # fmt: skip
DEFECTS = {"internal_error"}
OF_DIALECTS = {
    "admin_off",
    "admin_refused",
    "not_supported",
}  # the native API has no words for what they refuse
OF_CONNECTIONS = {  # tests/attacks, test_strangers
    "request_timeout",
    "target_too_long",
    "too_many_connections",
    "head_too_large",
    "host_not_allowed",
}
OF_ADMINISTRATION = {"model_unloaded"}


def bomb():
    """A small npz file of many zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(np.zeros((100_000, 4), np.float32)))
    return file.getvalue()


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return file.getvalue()


def json_of(value):
    return (JSON, text(value))


CASES = [
    # what, code, path and query, (content type, body), words of the message
    ("no body", "invalid_request", "/predict?model=iris", (JSON, b""), ["application/json", "empty"]),
    ("no form", "invalid_request", "/predict?model=iris", (FORM, b""), ["multipart/form-data", "empty"]),
    ("no boundary", "invalid_request", "/predict?model=iris", ("multipart/form-data", b"x"), ["boundary"]),
    ("half a form", "invalid_request", "/predict?model=iris", (FORM, b"--edge-of-part\r\nContent"), []),
    ("half a JSON", "invalid_json", "/predict?model=iris", (JSON, ROW[:-3]), ["JSON", "line 1"]),
    ("NaN token", "invalid_json", "/predict?model=iris", (JSON, b'{"instances": [[NaN, 1, 2, 3]]}'), ["JSON"]),
    ("nested too deep", "invalid_json", "/predict?model=iris", (JSON, b"[" * 2000 + b"]" * 2000), ["JSON"]),
    ("unknown parameter", "invalid_parameter", "/predict?model=iris&tpo=3", (JSON, ROW), ["'tpo'", "'top'"]),
    ("features' own", "invalid_parameter", "/predict?model=iris&layer=hidden", (JSON, ROW), ["'layer'"]),
    ("top of zero", "invalid_parameter", "/predict?model=iris&top=0", (JSON, ROW), ["'top'", "'0'"]),
    ("bad pool", "invalid_parameter", "/features?model=iris&pool=sum", (JSON, ROW), ["avg or max", "'sum'"]),
    ("bad dtype", "invalid_parameter", "/predict?model=iris&dtype=int8", (JSON, ROW), ["float16", "'int8'"]),
    ("bad include", "invalid_parameter", "/features?model=iris&include=all", (JSON, ROW), ["predictions"]),
    ("bad normalize", "invalid_parameter", "/features?model=iris&normalize=l1", (JSON, ROW), ["l2", "'l1'"]),
    ("no time", "invalid_parameter", "/predict?model=iris&timeout_ms=0", (JSON, ROW), ["timeout_ms", "'0'"]),
    ("version of letters", "invalid_parameter", "/predict?model=iris&version=v1", (JSON, ROW), ["'v1'"]),
    ("model twice", "invalid_parameter", "/predict?model=iris&model=iris", (JSON, ROW), ["'model' once"]),
    ("no pairs", "invalid_parameter", "/predict?model", (JSON, ROW), ["name=value"]),
    ("query not UTF-8", "invalid_parameter", "/predict?model=%ff", (JSON, ROW), ["UTF-8"]),
    ("no object", "invalid_input", "/predict?model=iris", json_of([[1, 2, 3, 4]]), ["'instances'", "a list of 1"]),
    ("another member", "invalid_input", "/predict?model=iris", json_of({"instances": [], "x": 1}), ["'x'"]),
    ("no rows", "invalid_input", "/predict?model=iris", json_of({"instances": []}), ["at least one row"]),
    ("0 rows of npy", "invalid_input", "/predict?model=iris", (NPY, npy(np.ones((0, 4)))), ["[0, 4]"]),
    ("wrong rank", "invalid_input", "/predict?model=iris", json_of({"instances": [1, 2, 3, 4]}), ["[rows, 4]", "[4]"]),
    ("wrong shape", "invalid_input", "/predict?model=iris", json_of({"instances": [[1, 2, 3]]}), ["[rows, 4]", "[1, 3]"]),
    ("ragged", "invalid_input", "/predict?model=iris", json_of({"instances": [[1, 2, 3, 4], [1]]}), ["equal length", "[1]"]),
    ("text for numbers", "invalid_input", "/predict?model=iris", json_of({"instances": [[1, "a", 3, 4]]}), ["numbers", "'a'"]),
    ("null for a number", "invalid_input", "/predict?model=iris", json_of({"instances": [[1, None, 3, 4]]}), ["null"]),
    ("true for a number", "invalid_input", "/predict?model=iris", json_of({"instances": [[1, True, 3, 4]]}), ["true"]),
    ("too large for float32", "invalid_input", "/predict?model=iris", json_of({"instances": [[1e39, 2, 3, 4]]}), ["finite"]),
    ("NaN in npy", "invalid_input", "/predict?model=iris", (NPY, npy(np.full((1, 4), np.nan))), ["finite", "NaN"]),
    ("complex npy", "invalid_input", "/predict?model=iris", (NPY, npy(np.ones((1, 4), complex))), ["float32", "complex128"]),
    ("part of a whole", "invalid_input", "/predict?model=words", json_of({"instances": [[1, 2.5, 3]]}), ["whole numbers"]),
    ("unknown input", "invalid_input", "/predict?model=iris", json_of({"inputs": {"y": [1]}}), ["['x']", "'y'"]),
    ("missing input", "invalid_input", "/predict?model=pairs", json_of({"inputs": {"left": [1, 2, 3]}}), ["Missing: ['right']"]),
    ("extra input", "invalid_input", "/predict?model=pairs", (NPZ, npz(left=np.ones(3), right=np.ones(2), top=np.ones(1))), ["'top'"]),
    ("uneven rows", "invalid_input", "/predict?model=pairs", (NPZ, npz(left=np.ones((2, 3)), right=np.ones((1, 2)))), ["same number of rows"]),
    ("no names", "invalid_input", "/predict?model=pairs", (NPY, npy(np.ones((1, 3)))), ["'left', 'right'"]),
    ("truncated npy", "invalid_input", "/predict?model=iris", (NPY, GOOD_NPY[:-5]), ["32 bytes", "27 bytes"]),
    ("half a npy header", "invalid_input", "/predict?model=iris", (NPY, GOOD_NPY[:40]), ["npy file"]),
    ("pickled npy", "invalid_input", "/predict?model=iris", (NPY, pickled()), ["unpickling"]),
    ("truncated npz", "invalid_input", "/predict?model=iris", (NPZ, npz(x=np.ones((1, 4)))[:-30]), ["npz file"]),
    ("pickle in npz", "invalid_input", "/predict?model=iris", (NPZ, npz(x=np.array([{}], dtype=object))), ["unpickling"]),
    ("no base64", "invalid_input", "/predict?model=shapes", json_of({"instances": [{"b64": "***"}]}), ["base64", "instances[0]"]),
    ("ids out of range", "input_rejected_by_model", "/predict?model=words", json_of({"instances": [[1, 2, 10]]}), ["0 to 9", "10"]),
    ("no model named", "model_required", "/predict", (JSON, ROW), ["?model=NAME", "iris", "shapes"]),
    ("no layer named", "layer_required", "/features?model=line", json_of({"instances": [[1, 2]]}), ["?layer=NAME", "/models/line/layers"]),
    ("too many rows as JSON", "reply_too_large", "/predict?model=iris", (NPY, npy(np.ones((6000, 4), np.float32))), ["200000", "6000 rows"]),
    ("misspelt model", "model_not_found", "/predict?model=irs", (JSON, ROW), ["'irs'", "Did you mean 'iris'"]),
    ("model of no name", "model_not_found", "/predict?model=", (JSON, ROW), ["Received: ''"]),
    ("version not served", "version_not_found", "/predict?model=iris&version=7", (JSON, ROW), ["[1]", "7"]),
    ("misspelt layer", "layer_not_found", "/features?model=iris&layer=hiden", (JSON, ROW), ["'hiden'", "'hidden'"]),
    ("place off the end", "layer_not_found", "/features?model=iris&layer=-9", (JSON, ROW), ["'-9'"]),
    ("wild-card without a match", "layer_not_found", "/features?model=iris&layer=q*", (JSON, ROW), ["'q*'"]),
    ("many empty objects", "growth_too_large", "/predict?model=iris", (JSON, b'{"instances": [' + b"{}," * 660_000 + b"{}]}"), ["64 bytes", "values of a JSON"]),
    ("body over the limit", "body_too_large", "/predict?model=iris", (JSON, b" " * (MAX_BODY_BYTES + 1)), [str(MAX_BODY_BYTES)]),
    ("npz bomb", "body_too_large", "/predict?model=iris", (NPZ, bomb()), ["1000000", "1600128"]),
    ("too much to decode", "body_too_large", "/predict?model=iris", (NPY, npy(np.ones((70_000, 4), np.uint8))), ["1000000"]),
    ("unknown type", "unsupported_media_type", "/predict?model=iris", ("text/csv", b"1,2,3,4"), [NPY, "text/csv"]),
    ("untyped text", "unsupported_media_type", "/predict?model=iris", (None, b"hello"), [JSON, "no content type"]),
    ("picture for numbers", "unsupported_media_type", "/predict?model=iris", ("image/png", png(PICTURES[0])), ["image/png"]),
    ("broken picture", "image_not_decodable", "/predict?model=shapes", ("image/png", png(PICTURES[0])[:-30]), []),
    ("no picture", "image_not_decodable", "/predict?model=shapes", ("image/png", b"hello"), []),
    ("large picture", "image_too_large", "/predict?model=shapes", ("image/png", png(np.zeros((101, 100), np.uint8))), ["10000"]),
    ("broken model", "model_load_failed", "/predict?model=broken", (JSON, ROW), ["HDF5"]),
]  # fmt: skip


def assert_problem(answer, code):
    """A whole problem document of that code; returns it."""
    error = error_classes()[code]
    assert (answer.status, answer.content_type) == (error.status, PROBLEM), answer.body
    document = answer.json()
    assert document["type"] == f"/docs#{code}"
    assert (document["title"], document["status"], document["code"]) == (error.title, error.status, code)
    assert answer.headers["x-request-id"]
    return document


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_each_mistake_has_its_code_and_a_message_that_helps(driver, case):
    _, code, url, (content_type, body), words = case
    path, _, query = url.partition("?")
    headers = {} if content_type is None else {"Content-Type": content_type}
    detail = assert_problem(driver.send("POST", path, query, headers, body), code)["detail"]
    assert [word for word in words if word not in detail] == [], detail


def test_every_code_that_a_request_can_cause_was_caused():
    elsewhere = {"not_found", "method_not_allowed", "not_acceptable"} | WAITING | DEFECTS
    elsewhere |= OF_DIALECTS | OF_ADMINISTRATION | OF_CONNECTIONS
    assert {case[1] for case in CASES} | elsewhere == error_classes().keys()


def test_an_unloaded_model_says_so():
    with open_site("iris") as site:
        site.runtime.unload_model("iris")
        for driver in (site.flask, site.express):
            answer = driver.send("POST", "/predict", "model=iris", {"Content-Type": JSON}, ROW)
            assert "iris" in assert_problem(answer, "model_unloaded")["detail"]


@pytest.mark.parametrize(
    ("accept", "model", "words"),
    [
        ("text/html", "iris", [JSON, NPY, NPZ, "text/html"]),
        ("*/*;q=0", "iris", [JSON]),
        (NPY, "pairs", ["2 arrays", NPZ, NPY]),
    ],
)
def test_an_accept_that_cannot_be_met(driver, accept, model, words):
    headers = {"Accept": accept, "Content-Type": JSON}
    answer = driver.send("POST", "/predict", f"model={model}", headers, ROW)
    detail = assert_problem(answer, "not_acceptable")["detail"]
    assert [word for word in words if word not in detail] == [], detail


@pytest.mark.parametrize("path", ["/predcit", "/predict/", "/models/iris/", "/v9", "/%2e%2e/x"])
def test_a_path_that_leads_nowhere(driver, path):
    assert_problem(driver.send("POST", path), "not_found")


def test_the_nearest_path_is_named(driver):
    document = assert_problem(driver.send("GET", "/modls"), "not_found")
    assert "Did you mean '/models'" in document["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST", "OPTIONS"}),
        ("PUT", "/features", {"POST", "OPTIONS"}),
        ("HEAD", "/predict", {"POST", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/models/iris", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_another_method_names_the_right_ones(driver, method, path, allowed):
    answer = driver.send(method, path)
    assert (answer.status, answer.content_type) == (405, PROBLEM)
    assert set(answer.headers["allow"].split(", ")) == allowed
    if method != "HEAD":
        detail = assert_problem(answer, "method_not_allowed")["detail"]
        assert f"Received: {method}." in detail


def test_which_picture_of_many_is_broken_is_said(driver):
    good, bad = png(PICTURES[0]), png(PICTURES[0])[:-30]
    body = form(("f", "a.png", good), ("f", "b.png", bad), ("f", "c.png", good))
    answer = driver.send("POST", "/predict", "model=shapes", {"Content-Type": FORM}, body)
    document = assert_problem(answer, "image_not_decodable")
    assert (document["index"], document["name"]) == (1, "b.png")
    assert "part 1 ('b.png')" in document["detail"]


def test_a_body_in_an_unknown_coding_is_refused(driver):
    headers = {**BODIES["rows"].headers, "Content-Encoding": "br"}
    answer = driver.send("POST", "/predict", "model=iris", headers, BODIES["rows"].data)
    assert "'br'" in assert_problem(answer, "unsupported_media_type")["detail"]


def test_problems_list_what_programs_need(driver):
    document = driver.send("POST", "/predict", "", {"Content-Type": JSON}, ROW).json()
    assert document["models"] == ["iris", "pairs", "shapes", "words", "line", "broken"]
    document = driver.send("POST", "/features", "model=iris&layer=hiden", {"Content-Type": JSON}, ROW).json()
    assert document["suggestions"][0] == "hidden"
    document = driver.send("POST", "/predict", "model=broken", {"Content-Type": JSON}, ROW).json()
    assert document["mend"] == "Save the model again."


@pytest.mark.parametrize("declared", [True, False])
def test_the_connection_ends_where_a_body_is_not_read_to_its_end(site, declared):
    body = b" " * (MAX_BODY_BYTES + 1)
    answer = site.express.send(
        "POST", "/predict", "model=iris", {"Content-Type": JSON}, body, declared=declared
    )
    assert_problem(answer, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_the_connection_stays_where_the_body_was_read(site):
    answer = site.express.send("POST", "/predict", "model=iris", {"Content-Type": NPZ}, bomb())
    assert_problem(answer, "body_too_large")
    assert "connection" not in answer.headers


def test_the_express_lane_refuses_a_body_by_its_announced_size(site):
    request = ("POST", "/predict", "model=iris", {"Content-Type": JSON}, b" " * (MAX_BODY_BYTES + 1))
    connection = site.express.start(*request, complete=False)
    assert connection.answer().status == 413
    assert not connection.watched.is_set()  # it was answered before the body was asked for


def test_a_limit_holds_for_pieces_that_announce_nothing(site):
    request = ("POST", "/predict", "model=iris", {"Content-Type": JSON}, b" " * (MAX_BODY_BYTES + 1))
    connection = site.express.start(*request, pieces=50, declared=False, complete=False)
    assert connection.answer().status == 413
