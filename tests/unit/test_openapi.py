"""The document against the library that knows the format, the application's routes, and real replies."""

import io
import json
import threading
import tomllib
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy_engine import build_runtime
from openapi_spec_validator import validate
from PIL import Image

from service.api.endpoint import Limits
from service.api.native import NativeEndpoint
from service.api.openapi import API_VERSION, describe_api, openapi_document
from service.api.options import FEATURES_ONLY, SHARED, parse_options
from service.api.problems import PROBLEM
from service.api.schemas import error_classes
from service.drivers.app import create_app
from service.errors import (
    AdminOff,
    AdminRefused,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    NotSupported,
)
from service.payloads.codecs import JSON, NPY, NPZ
from service.telemetry import Telemetry
from service.tensors import InferRequest

ROOT = Path(__file__).parents[2]
MAX_BODY_BYTES = 100_000
IRIS = {"instances": [[1, 2, 3, 4], [4, 3, 2, 1]]}
PAIR = {"left": [1, 2, 3], "right": [4, 5]}


def client_of(runtime):
    limits = Limits(MAX_BODY_BYTES, max_image_pixels=10_000, max_reply_bytes=20_000)
    endpoints = [NativeEndpoint("predict", limits), NativeEndpoint("features", limits)]
    app = create_app(
        runtime, Telemetry(), endpoints, [], max_body_bytes=MAX_BODY_BYTES, device={"kind": "cpu"}
    )
    return app.test_client()


@pytest.fixture(scope="module")
def runtime():
    runtime = build_runtime()
    yield runtime
    runtime.stop()


@pytest.fixture(scope="module")
def client(runtime):
    return client_of(runtime)


@pytest.fixture(scope="module")
def document(runtime):
    return json.loads(json.dumps(openapi_document(runtime)))


def png(size=(8, 8)):
    file = io.BytesIO()
    Image.new("L", size, 200).save(file, "PNG")
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def template_of(path):
    """The document's spelling of a path: `/models/iris` is `/models/{name}`."""
    parts = path.partition("?")[0].split("/")
    if len(parts) > 2:
        parts[2] = "{name}"
    return "/".join(parts)


def check(document, method, path, reply):
    """The reply is one that the document declares: status, content type, headers, body."""
    responses = document["paths"][template_of(path)][method.lower()]["responses"]
    assert str(reply.status_code) in responses, reply.text
    declared = responses[str(reply.status_code)]
    assert reply.mimetype in declared["content"]
    for name in declared["headers"]:
        assert name in reply.headers
    if reply.is_json:
        schema = declared["content"][reply.mimetype]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(reply.get_json())


def test_it_is_valid_openapi(document):
    validate(document)


def test_it_is_valid_and_complete_before_any_model_is_loaded():
    runtime = build_runtime(load=False)
    loading = openapi_document(runtime)
    runtime.stop()
    validate(loading)
    assert loading["paths"].keys() == describe_api(())["paths"].keys()
    assert all(state == "loading" for state in (status.state for status in runtime.models()))


def test_its_version_is_the_packages():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == API_VERSION


def test_its_routes_are_the_applications(client, document):
    routes = {
        (method.lower(), rule.rule.replace("<", "{").replace(">", "}"))
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    declared = {
        (method, path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "tags" not in operation  # the dialects' own; tests/contract/test_error_shapes.py asks for those
    }
    assert declared == routes


@pytest.mark.parametrize(("path", "names"), [("/predict", SHARED), ("/features", (*SHARED, *FEATURES_ONLY))])
def test_its_query_parameters_are_those_that_are_read(document, path, names):
    declared = {p["name"]: p for p in document["paths"][path]["post"]["parameters"] if p["in"] == "query"}
    assert set(declared) == set(names)
    for name, parameter in declared.items():
        schema = parameter["schema"].get("items", parameter["schema"])
        good = [schema["minimum"]] if schema["type"] == "integer" else schema.get("enum", ["x"])
        for value in good:
            assert accepts(path, f"{name}={value}")
        if schema["type"] == "integer":
            assert not accepts(path, f"{name}={schema['minimum'] - 1}")
        if schema["type"] == "integer" or "enum" in schema:
            assert not accepts(path, f"{name}=zero")
        repeatable = parameter["schema"]["type"] == "array"
        assert accepts(path, f"{name}={good[0]}&{name}={good[0]}") == repeatable


def accepts(path, query):
    try:
        parse_options(query.encode(), features=path == "/features")
    except InvalidParameter:
        return False
    return True


def test_models_are_examples_and_no_closed_list(document):
    model = next(p for p in document["paths"]["/predict"]["post"]["parameters"] if p["name"] == "model")
    assert "iris" in model["examples"]
    assert "enum" not in model["schema"]


def test_its_example_bodies_are_answered(client, document):
    examples = document["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]["examples"]
    assert set(examples) == {"iris", "pairs", "words", "line"}
    for model, example in examples.items():
        assert client.post(f"/predict?model={model}", json=example["value"]).status_code == 200


CONTENT = {
    JSON: ("iris", json.dumps(IRIS)),
    "image/*": ("shapes", png()),
    "multipart/form-data": ("shapes", None),
    NPY: ("iris", npy(np.ones(4))),
    NPZ: ("pairs", npz(left=np.ones((2, 3)), right=np.ones((2, 2)))),
    "application/octet-stream": ("shapes", png()),
    "application/x-www-form-urlencoded": ("iris", json.dumps(IRIS)),
}


@pytest.mark.parametrize("path", ["/predict", "/features"])
def test_every_content_type_that_it_names_is_read(client, document, path):
    declared = document["paths"][path]["post"]["requestBody"]["content"]
    assert set(declared) == set(CONTENT)
    for media, (model, body) in CONTENT.items():
        url = f"{path}?model={model}"
        if body is None:
            reply = client.post(
                url, data={"file": [(io.BytesIO(png()), name) for name in ("a.png", "b.png")]}
            )
        else:
            reply = client.post(url, data=body, content_type=media.replace("*", "png"))
        assert reply.status_code == 200, (media, reply.text)
        check(document, "POST", url, reply)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict?model=iris&top=2", IRIS),
        ("/predict?model=iris&dtype=float16", {"inputs": [1, 2, 3, 4]}),
        ("/predict?model=pairs", {"instances": [PAIR, PAIR]}),
        ("/predict?model=pairs&top=3", {"inputs": PAIR}),
        ("/predict?model=line", {"instances": [[1, 2]]}),
        ("/predict?model=line", {"instances": [[3e38, 3e38]]}),  # an infinity becomes null
        ("/features?model=shapes&layer=conv&layer=pool", {"instances": [np.zeros((8, 8, 1)).tolist()]}),
        ("/features?model=pairs&layer=*&include=predictions&top=2", {"inputs": PAIR}),
        (
            "/features?model=shapes&layer=conv&pool=max&normalize=l2",
            {"instances": [{"b64": b64encode(png()).decode()}]},
        ),
    ],
)
def test_json_bodies_and_replies_follow_their_schemas(client, document, path, body):
    request = document["paths"][template_of(path)]["post"]["requestBody"]["content"][JSON]["schema"]
    Draft202012Validator({**request, "components": document["components"]}).validate(body)
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    check(document, "POST", path, reply)


@pytest.mark.parametrize("accept", [NPY, NPZ])
def test_binary_replies_are_declared(client, document, accept):
    reply = client.post("/features?model=iris", json=IRIS, headers={"Accept": accept})
    assert (reply.status_code, reply.mimetype) == (200, accept)
    check(document, "POST", "/features", reply)


@pytest.mark.parametrize(
    "path",
    [
        "/models", "/models/iris", "/models/pairs", "/models/broken", "/models/shapes/layers", "/healthz",
        "/readyz", "/metrics", "/openapi.json", "/docs", "/",
    ],
)  # fmt: skip
def test_documents_and_pages_follow_their_schemas(client, document, path):
    reply = client.get(path)
    assert reply.status_code == 200
    check(document, "GET", path, reply)


def test_browsers_are_led_from_the_root_to_the_page(client, document):
    reply = client.get("/", headers={"Accept": "text/html"})
    assert reply.status_code == 302
    check(document, "GET", "/", reply)


ERRORS = [
    ("POST", "/predict?model=iris", b"", 400, "invalid_request"),
    ("POST", "/predict?model=iris", b"{", 400, "invalid_json"),
    ("POST", "/predict?nodel=iris", b"{}", 400, "invalid_parameter"),
    ("POST", "/predict?model=iris", b'{"instances": [[1]]}', 400, "invalid_input"),
    ("POST", "/predict?model=words", b'{"instances": [[1, 2, 99]]}', 400, "input_rejected_by_model"),
    ("POST", "/predict", b"{}", 400, "model_required"),
    ("POST", "/features?model=line", b'{"instances": [[1, 2]]}', 400, "layer_required"),
    ("POST", "/predict?model=iris", json.dumps({"instances": [[1] * 4] * 600}), 400, "reply_too_large"),
    ("POST", "/predict?model=irs", b"{}", 404, "model_not_found"),
    ("POST", "/predict?model=iris&version=7", b"{}", 404, "version_not_found"),
    ("POST", "/features?model=iris&layer=hiden", b"{}", 404, "layer_not_found"),
    ("POST", "/predict?model=iris", b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
    ("POST", "/predict?model=iris", png(), 415, "unsupported_media_type"),
    ("POST", "/predict?model=shapes", b"\x89PNG broken", 422, "image_not_decodable"),
    ("POST", "/predict?model=shapes", png((101, 100)), 422, "image_too_large"),
    ("POST", "/predict?model=broken", b"{}", 503, "model_load_failed"),
    ("GET", "/models/irs", None, 404, "model_not_found"),
    ("GET", "/models/irs/layers", None, 404, "model_not_found"),
    ("GET", "/models/iris/layers?version=two", None, 400, "invalid_parameter"),
    ("GET", "/models/iris/layers?version=2", None, 404, "version_not_found"),
    ("GET", "/models/broken/layers", None, 503, "model_load_failed"),
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: f"{case[0]} {case[1]} {case[4]}")
def test_errors_are_declared_where_they_happen(client, document, case):
    method, path, body, status, code = case
    reply = client.open(path, method=method, data=body)
    assert (reply.status_code, reply.mimetype, reply.get_json()["code"]) == (status, PROBLEM, code)
    check(document, method, path, reply)


def test_an_accept_that_cannot_be_met_is_declared(client, document):
    reply = client.post("/predict?model=pairs", json={"inputs": PAIR}, headers={"Accept": NPY})
    assert reply.get_json()["code"] == "not_acceptable"
    check(document, "POST", "/predict", reply)


def test_overload_lateness_draining_and_a_defect_of_the_model_are_declared(document):
    entered, gate = threading.Event(), threading.Event()

    def hold_up():
        entered.set()
        gate.wait()
        raise ValueError("a defect of the model")

    runtime = build_runtime("iris", max_queue_rows=1, before_run=hold_up)
    app = client_of(runtime).application
    replies = {}

    def post(code, query=""):
        replies[code] = app.test_client().post(f"/predict{query}", json=IRIS)

    running = threading.Thread(target=post, args=("inference_failed",))
    running.start()
    assert entered.wait(10)  # the first request is in the model; others wait
    post("deadline_exceeded", "?timeout_ms=1")
    row = {"x": np.ones((1, 4), np.float32)}
    runtime.submit(InferRequest("iris", 1, ("probs",), row, 1), lambda _: None)  # and now the queue is full
    post("queue_full")
    gate.set()
    running.join()
    runtime.stop()
    post("not_ready")

    assert {code: reply.get_json()["code"] for code, reply in replies.items()} == {
        code: code for code in ("inference_failed", "deadline_exceeded", "queue_full", "not_ready")
    }
    for reply in replies.values():
        check(document, "POST", "/predict", reply)
    assert int(replies["queue_full"].headers["Retry-After"]) >= 1


def test_a_dead_engine_and_loading_models_are_declared(document):
    def die():
        raise SystemExit

    runtime = build_runtime("iris", before_run=die)
    client = client_of(runtime)
    for path in ("/predict", "/features"):
        reply = client.post(path, json=IRIS)
        assert reply.get_json()["code"] == "engine_stopped"
        check(document, "POST", path, reply)
    for path in ("/healthz", "/readyz"):
        reply = client.get(path)
        assert reply.status_code == 503
        check(document, "GET", path, reply)

    runtime = build_runtime("iris", load=False)
    client = client_of(runtime)
    for method, path in (("POST", "/predict"), ("GET", "/models/iris/layers")):
        reply = client.open(path, method=method, json=IRIS if method == "POST" else None)
        assert reply.get_json()["code"] == "model_loading"
        check(document, method, path, reply)
    check(document, "GET", "/models", client.get("/models"))
    runtime.stop()


def test_every_code_of_the_tree_is_declared_where_it_belongs(document):
    codes = error_classes()
    declared = {
        path: {
            code
            for response in methods["post"]["responses"].values()
            if PROBLEM in response["content"]
            for code in response["content"][PROBLEM]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        }
        for path, methods in document["paths"].items()
        if path in {"/predict", "/features"}
    }
    refused_anywhere = {code for code in codes if f"`{code}`" in document["info"]["description"]}
    elsewhere = {NotFound.code, MethodNotAllowed.code} | refused_anywhere
    elsewhere |= {AdminOff.code, AdminRefused.code, NotSupported.code}
    assert declared["/features"] == codes.keys() - elsewhere
    assert declared["/predict"] == declared["/features"] - {"layer_required", "layer_not_found"}
    listed = document["components"]["schemas"]["Problem"]["properties"]["code"]["oneOf"]
    assert {entry["const"]: entry["x-status"] for entry in listed} == {
        code: cls.status for code, cls in codes.items()
    }


def test_what_is_declared_for_every_route_holds_off_the_map(client, document):
    for method, path, status, code in (
        ("GET", "/nowhere", 404, NotFound.code),
        ("GET", "/predict", 405, MethodNotAllowed.code),
    ):
        reply = client.open(path, method=method)
        assert (reply.status_code, reply.get_json()["code"]) == (status, code)
        assert f"`{code}`" in document["info"]["description"]
        Draft202012Validator(
            {"$ref": "#/components/schemas/Problem", "components": document["components"]}
        ).validate(reply.get_json())


def test_the_page_is_self_contained_and_inserts_text_only(client):
    page = client.get("/docs").text
    assert len(page) < 25_000
    assert "://" not in page
    for way_to_markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way_to_markup not in page
    for asked in ("/openapi.json", "/models"):
        assert asked in page
