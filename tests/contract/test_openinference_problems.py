"""What goes wrong with the Open Inference Protocol V2: every route's own error shape, and the repository's routes."""

import gzip
import json

import numpy as np
import pytest
from binary_tensors import LENGTH, decode, encode
from bodies import PICTURES, ROWS, png
from drivers import LIMITS, MAX_BODY_BYTES, Gate, open_site

from service.api.endpoint import Limits
from service.api.openinference.dialect import OpenInference

INFER = "/v2/models/iris/infer"
ROW = {"x": ROWS[:1]}
GOOD = json.loads(encode(ROW, binary=False).body)


def error_of(answer, status):
    """An error's message; its shape is checked."""
    assert (answer.status, answer.content_type) == (status, "application/json"), answer.body
    document = answer.json()
    assert list(document) == ["error"]
    assert document["error"]
    return document["error"]


def infer(driver, body=None, path=INFER, **headers):
    data = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
    return driver.send(
        "POST", path, "", {name.replace("_", "-"): text for name, text in headers.items()}, data
    )


# -- inference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[]", 400, "a JSON object"),
        ({"inputs": []}, 400, "at least one input"),
        ({"inputs": [{**GOOD["inputs"][0], "name": "y"}]}, 400, "['x']"),
        ({"inputs": [{**GOOD["inputs"][0], "datatype": "FP64"}]}, 400, "FP32 for input 'x'"),
        ({"inputs": [{**GOOD["inputs"][0], "shape": [4]}]}, 400, "shape [rows, 4]"),
        ({"inputs": [{**GOOD["inputs"][0], "data": [1]}]}, 400, "shape [1, 4]"),
        ({**GOOD, "outputs": [{"name": "hiden"}]}, 400, "Did you mean 'hidden'?"),
        ({**GOOD, "outputs": [{"name": "p[]**"}]}, 400, "one of the outputs ['probs'], or a layer"),
        ({**GOOD, "parameters": {"priority": "high"}}, 400, "'priority'"),
    ],
)
def test_a_bad_request_is_told_what_was_expected(driver, body, status, told):
    assert told in error_of(infer(driver, body), status)


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/v2/models/irs/infer", 404, "Did you mean 'iris'?"),
        ("/v2/models/iris/versions/2/infer", 404, "2"),
        ("/v2/models/iris/versions/latest/infer", 400, "a whole number"),
        ("/v2/models/iris/versions/-1/infer", 400, "a whole number"),
        ("/v2/models/broken/infer", 503, "HDF5"),
        ("/v2/models/infer", 405, "Expected GET"),
        ("/v2/models//infer", 404, ""),
        ("/v2/models/iris/versions//infer", 404, ""),
        ("/v2/infer", 404, ""),
        ("/v2/models/iris/infer/", 404, ""),
        ("/v2/models/iris/generate", 404, ""),
    ],
)
def test_a_path_that_leads_nowhere(driver, path, status, told):
    assert told in error_of(infer(driver, path=path), status)


def test_a_model_that_still_loads():
    with open_site("iris", load=False) as site:
        for driver in (site.flask, site.express):
            assert "loading" in error_of(infer(driver), 503)
            assert "loading" in error_of(driver.send("GET", "/v2/models/iris"), 503)
            for path, named in (("/v2/health/ready", {}), ("/v2/models/iris/ready", {"name": "iris"})):
                answer = driver.send("GET", path)
                assert answer.status == 400
                assert named.items() | {"ready": False}.items() < answer.json().items()
            assert driver.send("GET", "/v2/health/live").status == 200


def test_a_model_that_rejects_the_values(driver):
    sent = encode({"ids": np.array([[1, 2, 99]])})
    answer = driver.send("POST", "/v2/models/words/infer", "", sent.headers, sent.body)
    assert "0 to 9" in error_of(answer, 400)


@pytest.mark.parametrize("length", ["x", "-1", "999999", "1.5"])
def test_a_length_that_is_none(driver, length):
    assert LENGTH in error_of(infer(driver, Inference_Header_Content_Length=length), 400)


def test_a_body_in_a_coding_that_nobody_knows(driver):
    answer = infer(driver, Content_Encoding="br")
    assert "gzip or deflate" in error_of(answer, 415)
    assert answer.headers["accept-encoding"] == "gzip, deflate"


def test_a_body_that_is_not_in_its_coding(driver):
    assert "gzip" in error_of(infer(driver, Content_Encoding="gzip"), 400)
    assert "deflate" in error_of(infer(driver, gzip.compress(b"{}"), Content_Encoding="deflate"), 400)


def test_a_body_that_unpacks_to_too_much(driver):
    bomb = gzip.compress(bytes(LIMITS.max_input_bytes + 1))
    assert str(LIMITS.max_input_bytes) in error_of(infer(driver, bomb, Content_Encoding="gzip"), 413)


def test_a_body_over_the_limit(driver):
    assert str(MAX_BODY_BYTES) in error_of(infer(driver, bytes(MAX_BODY_BYTES + 1)), 413)


@pytest.mark.parametrize(
    ("datatype", "data", "told"), [("BYTES", ["AAAA"], "picture"), ("BYTES", ["?"], "base64")]
)
def test_a_picture_that_is_none(driver, datatype, data, told):
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": datatype, "data": data}]}
    assert told in error_of(infer(driver, body, "/v2/models/shapes/infer"), 400)


def test_a_picture_with_too_many_pixels(driver):
    answer = infer(driver, png(np.zeros((101, 100), np.uint8)), "/v2/models/shapes/infer", **{LENGTH: "0"})
    assert "10000 pixels" in error_of(answer, 400)


def test_a_picture_for_a_model_that_takes_none(driver):
    answer = infer(driver, png(PICTURES[0]), INFER, **{LENGTH: "0"})
    assert "one row of input 'x'" in error_of(answer, 400)


def test_shared_memory_is_not_here(driver):
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": parameters}]}
    assert "shared memory is not supported" in error_of(infer(driver, body), 400)
    body = {**GOOD, "outputs": [{"name": "probs", "parameters": parameters}]}
    assert "shared memory is not supported" in error_of(infer(driver, body), 400)


@pytest.mark.parametrize("name", ["flask", "express"])
def test_a_reply_over_the_limit_is_refused_before_the_model_runs(name):
    gate = Gate()
    limits = Limits(max_input_bytes=10**6, max_image_pixels=1000, max_reply_bytes=1000)
    with open_site("iris", limits=limits, gate=gate) as site:
        driver = getattr(site, name)
        rows = {"x": np.zeros((40, 4), np.float32)}
        sent = encode(rows)
        answer = driver.send("POST", INFER, "", sent.headers, sent.body)
        assert "max_reply_bytes" in error_of(answer, 400)
        assert gate.runs == 0
        gate.open()
        sent = encode(rows, {"probs": {"binary_data": True}})
        decode(driver.send("POST", INFER, "", sent.headers, sent.body))


def test_a_full_queue_says_when_to_come_again():
    gate = Gate()
    with open_site("iris", gate=gate, max_queue_rows=1) as site:
        sent = encode(ROW)
        request = ("POST", INFER, "", sent.headers, sent.body)
        running = site.express.start(*request)
        assert gate.entered.wait(30)
        waiting = site.express.start(*request)
        assert waiting.watched.wait(30)  # it is queued by then
        for driver in (site.flask, site.express):
            answer = driver.send(*request)
            error_of(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
        gate.open()
        assert [running.answer().status, waiting.answer().status] == [200, 200]


# -- the other routes -------------------------------------------------------------------------------------

GETS = (
    "/v2",
    "/v2/",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/stats",
    "/v2/models/iris",
    "/v2/models/iris/ready",
    "/v2/models/iris/config",
    "/v2/models/iris/stats",
    "/v2/models/iris/versions/1",
    "/v2/models/iris/versions/1/ready",
    "/v2/models/iris/versions/1/config",
    "/v2/models/iris/versions/1/stats",
)
POSTS = (
    INFER,
    "/v2/models/iris/versions/1/infer",
    "/v2/repository/index",
    "/v2/repository/models/iris/load",
    "/v2/repository/models/iris/unload",
)


@pytest.mark.parametrize("path", GETS)
def test_every_document_is_json(driver, path):
    answer = driver.send("GET", path)
    assert (answer.status, answer.content_type) == (200, "application/json")
    answer.json()
    assert driver.send("HEAD", path).status == 200


@pytest.mark.parametrize("path", [*GETS, *POSTS])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_another_method_is_told_the_right_one(driver, path, method):
    right = "GET" if path in GETS else "POST"
    if method == right:
        return
    answer = driver.send(method, path, "", {}, b"{}")
    assert f"Expected {right} {path}" in error_of(answer, 405)
    assert answer.headers["allow"] == right


@pytest.mark.parametrize("what", ["", "/ready", "/config", "/stats"])
def test_documents_of_what_there_is_not(driver, what):
    assert "Did you mean 'iris'?" in error_of(driver.send("GET", f"/v2/models/irs{what}"), 404)
    assert "[1]" in error_of(driver.send("GET", f"/v2/models/iris/versions/7{what}"), 404)
    assert "whole number" in error_of(driver.send("GET", f"/v2/models/iris/versions/x{what}"), 400)
    if what != "/ready":
        assert "HDF5" in error_of(driver.send("GET", f"/v2/models/broken{what}"), 503)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/iris/trace/setting",
        "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/r/status",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/systemsharedmemory/unregister",
        "/v2/cudasharedmemory/status",
        "/v2/cudasharedmemory/region/r/unregister",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_triton_has_and_we_have_not(driver, path, method):
    assert "extensions that GET /v2 lists" in error_of(driver.send(method, path, "", {}, b"{}"), 501)


@pytest.mark.parametrize(
    "path", ["/v2/x", "/v2/health", "/v2/models/iris/versions", "/v2/repository", "/v2//models"]
)
def test_paths_that_lead_nowhere(driver, path):
    assert "Open Inference Protocol" in error_of(driver.send("GET", path), 404)


# -- the repository ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["index", "models/iris/load", "models/iris/unload", "models/none/load"])
def test_without_the_setting_nothing_is_administered(driver, path):
    assert "admin = true" in error_of(driver.send("POST", f"/v2/repository/{path}", "", {}, b"{}"), 403)
    assert driver.send("GET", "/v2/models/iris/ready").status == 200


@pytest.fixture(params=["flask", "express"])
def administered(request):
    """A driver whose site lets clients administer it."""
    with open_site("iris", "line", "broken", dialects=[OpenInference(LIMITS, admin=True)]) as site:
        yield getattr(site, request.param)


def administer(driver, path, body=b""):
    return driver.send("POST", f"/v2/repository/{path}", "", {}, body)


def index(driver, body=b""):
    answer = administer(driver, "index", body)
    assert answer.status == 200
    return {(line["name"], line.get("version")): (line["state"], line["reason"]) for line in answer.json()}


def test_the_index_tells_what_is_ready_and_why_the_rest_is_not(administered):
    found = index(administered)
    assert found["iris", "1"] == found["line", "1"] == ("READY", "")
    state, reason = found["broken", "1"]
    assert state == "UNAVAILABLE"
    assert "HDF5" in reason
    assert set(index(administered, b'{"ready": true}')) == {("iris", "1"), ("line", "1")}
    assert index(administered, b'{"ready": false}') == found


def test_a_model_leaves_service_and_comes_back(administered):
    sent = encode(ROW)
    first = administered.send("POST", INFER, "", sent.headers, sent.body)
    decode(first)
    answer = administer(administered, "models/iris/unload", b'{"parameters": {"unload_dependents": true}}')
    assert (answer.status, answer.json()) == (200, {"name": "iris", "unload": True})
    assert "unloaded" in error_of(administered.send("POST", INFER, "", sent.headers, sent.body), 503)
    assert administered.send("GET", "/v2/models/iris/ready").status == 400
    assert index(administered)["iris", "1"][0] == "UNAVAILABLE"
    assert administered.send("GET", "/v2/models/line/ready").status == 200
    answer = administer(administered, "models/iris/load", b"{}")
    assert (answer.status, answer.json()) == (200, {"name": "iris", "load": True})
    assert administered.send("POST", INFER, "", sent.headers, sent.body).body == first.body
    assert index(administered)["iris", "1"] == ("READY", "")


def test_the_extension_is_announced_where_it_may_be_used(administered, driver):
    allowed = set(administered.send("GET", "/v2").json()["extensions"])
    refused = set(driver.send("GET", "/v2").json()["extensions"])
    assert allowed - refused == {"model_repository", "model_repository(unload_dependents)"}
    assert refused < allowed


def test_models_that_there_are_not_or_that_are_no_good(administered):
    for action in ("load", "unload"):
        assert "'nothing'" in error_of(administer(administered, f"models/nothing/{action}"), 404)
    assert "HDF5" in error_of(administer(administered, "models/broken/load"), 503)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("models/iris/load", {"parameters": {"config": "{}"}}, "nothing is uploaded"),
        ("models/iris/load", {"parameters": {"file:1/model.h5": "AAAA"}}, "nothing is uploaded"),
        ("models/iris/load", {"parameters": []}, "'parameters'"),
        ("models/iris/load", [], "a JSON object"),
        ("models/iris/unload", {"parameters": {"unload_dependents": 1}}, "true or false"),
        ("index", {"ready": "yes"}, "true or false"),
        ("index", [], "a JSON object"),
    ],
)
def test_wishes_that_are_refused(administered, path, body, told):
    assert told in error_of(administer(administered, path, json.dumps(body).encode()), 400)
    assert "JSON" in error_of(administer(administered, path, b"{"), 400)
    assert administered.send("GET", "/v2/models/iris/ready").status == 200
