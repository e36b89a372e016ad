"""TensorFlow Serving's REST API and KServe V1, on both drivers; the bytes of answers are in golden/tfserving.json."""

import base64
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from bodies import ROWS, npy
from drivers import LIMITS, MAX_BODY_BYTES, Gate, open_site
from numpy_engine import graph_of
from pictures import picture

from service.api.endpoint import Limits
from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion

ROW = [5.1, 3.5, 1.4, 0.2]
PREDICT = "/v1/models/iris:predict"


def post(driver, path, body, query="", headers=()):
    return driver.send(
        "POST", path, query, headers, body if isinstance(body, bytes) else json.dumps(body).encode()
    )


def error_of(answer):
    """An error's message; its shape is checked."""
    assert answer.content_type == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    assert document["error"]
    return document["error"]


def as_float32(value):
    return np.array(value, np.float32)


# -- equal answers ------------------------------------------------------------------------------------------


def test_rows_and_columns_give_what_the_model_gives(driver):
    wanted = graph_of("iris").evaluate({"x": ROWS}, ("hidden", "probs"))
    for members, key in (
        ({"instances": ROWS.tolist()}, "predictions"),
        ({"inputs": ROWS.tolist()}, "outputs"),
    ):
        got = post(driver, PREDICT, members).json()[key]
        assert np.array_equal(as_float32(got), wanted["probs"])
        hidden = post(driver, PREDICT, members | {"signature_name": "layer:hidden"}).json()[key]
        assert np.array_equal(as_float32(hidden), wanted["hidden"])


def test_scores_of_classify_are_the_predictions(driver):
    answer = post(
        driver, "/v1/models/iris:classify", {"examples": [{"x": row} for row in ROWS.tolist()]}
    ).json()
    wanted = graph_of("iris").evaluate({"x": ROWS}, ("probs",))["probs"]
    assert [[label for label, _ in row] for row in answer["results"]] == [
        ["setosa", "versicolor", "virginica"]
    ] * len(ROWS)
    assert np.array_equal(as_float32([[score for _, score in row] for row in answer["results"]]), wanted)


def test_a_picture_is_what_the_native_api_makes_of_it(driver):
    data = picture("jpeg_rgb")
    native = driver.send(
        "POST", "/features", "model=shapes&layer=image", {"Content-Type": "image/jpeg"}, data
    ).json()
    sent = {"signature_name": "layer:image", "instances": [{"b64": base64.b64encode(data).decode()}]}
    (got,) = post(driver, "/v1/models/shapes:predict", sent).json()["predictions"]
    assert got == native["features"]["image"][0]
    assert np.ptp(got) > 0


@pytest.mark.parametrize(
    "path", ["/v1/models/iris:Predict", "/V1/models/iris:predict", "/v1/Models/iris/Versions/01:predict"]
)
def test_paths_take_letters_of_either_case(driver, path):
    assert post(driver, path, {"instances": [ROW]}).status == 200
    assert "Latest(Iris)" in error_of(post(driver, "/v1/models/Iris:predict", {"instances": [ROW]}))


def test_the_query_and_the_content_type_mean_nothing(driver):
    plain = post(driver, PREDICT, {"instances": [ROW]})
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "image/png", "Accept": "application/x-npy"},
    ):
        answer = post(driver, PREDICT, {"instances": [ROW]}, "model=pairs&top=5&foo", headers)
        assert (answer.status, answer.body) == (200, plain.body)


# -- what it shares with the native API ---------------------------------------------------------------------


def test_requests_of_both_dialects_share_a_batch():
    gate = Gate()
    with open_site("iris", gate=gate) as site:
        body = json.dumps({"instances": [ROW]}).encode()
        first = site.express.start("POST", "/predict", "model=iris", {}, body)
        assert gate.entered.wait(30)
        waiting = [
            site.express.start("POST", "/predict", "model=iris", {}, body),
            site.express.start("POST", PREDICT, "", {}, body),
            site.express.start(
                "POST", "/v1/models/iris:classify", "", {}, json.dumps({"examples": [{"x": ROW}]}).encode()
            ),
        ]
        for connection in waiting:
            assert connection.watched.wait(30)
        gate.open()
        assert [connection.answer().status for connection in (first, *waiting)] == [200] * 4
        assert gate.runs == 2


@pytest.mark.parametrize("name", ["flask", "express"])
def test_metrics_know_the_verb_the_model_and_the_layer(name):
    with open_site("iris") as site:
        post(getattr(site, name), PREDICT, {"signature_name": "layer:hidden", "instances": [ROW]})
        post(getattr(site, name), "/v1/models/iris:classify", {})
        getattr(site, name).send("GET", "/v1/models/iris")
        registry = site.telemetry.metrics.registry
        site.telemetry.render()

        def count(metric, **labels):
            return registry.get_sample_value(f"layertap_{metric}_total", labels)

        assert count("requests", route="v1_predict", model="iris", code="200") == 1
        assert count("requests", route="v1_classify", model="iris", code="400") == 1
        assert count("requests", route="tfserving", model="unknown", code="200") == 1
        assert count("layer_requests", model="iris", layer="hidden") == 1


# -- limits -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tight():
    with open_site(
        "iris", "shapes", limits=Limits(max_input_bytes=600, max_image_pixels=100, max_reply_bytes=2000)
    ) as site:
        yield site


@pytest.mark.parametrize("name", ["flask", "express"])
def test_limits_hold(tight, name):
    driver = getattr(tight, name)
    decoded = post(driver, PREDICT, {"instances": [ROW] * 40})
    assert decoded.status == 413
    assert "max_input_bytes" in error_of(decoded)
    reply = post(driver, PREDICT, {"inputs": [ROW] * 30})
    assert reply.status == 400
    assert "max_reply_bytes" in error_of(reply)
    assert post(driver, PREDICT, {"instances": [ROW] * 30}).status == 200  # rows are printed more tightly
    pixels = post(
        driver,
        "/v1/models/shapes:predict",
        {"instances": [{"b64": base64.b64encode(picture("png_rgb")).decode()}]},
    )
    assert pixels.status == 400
    assert "pixels" in error_of(pixels)


def test_a_body_over_the_limit_has_the_dialects_shape(driver):
    answer = post(driver, PREDICT, b" " * (MAX_BODY_BYTES + 1))
    assert answer.status == 413
    assert "max_body_bytes" in error_of(answer)


def test_a_full_queue_says_when_to_come_back():
    gate = Gate()
    with open_site("iris", gate=gate, max_queue_rows=1) as site:
        held = site.express.start("POST", PREDICT, "", {}, json.dumps({"instances": [ROW]}).encode())
        assert gate.entered.wait(30)
        queued = site.express.start("POST", PREDICT, "", {}, json.dumps({"instances": [ROW]}).encode())
        assert queued.watched.wait(30)
        answer = post(site.express, PREDICT, {"instances": [ROW]})
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) >= 1
        error_of(answer)
        gate.open()
        assert held.answer().status == queued.answer().status == 200


# -- versions, labels and states ----------------------------------------------------------------------------


def versions(**config):
    folder = Path("models/iris")
    numbers = tuple(ModelVersion(number, folder / str(number) / "model.h5") for number in (3, 2))
    return lambda: [ModelEntry("iris", folder, versions=numbers, config=ModelConfig(**config))]


def test_versions_and_labels_are_told_and_answer():
    with open_site(scan=versions(versions="all", labels={"stable": 2, "canary": 3})) as site:
        status = site.flask.send("GET", "/v1/models/iris").json()
        assert [line["version"] for line in status["model_version_status"]] == ["3", "2"]
        for scope, version in (
            ("", "3"),
            ("/versions/2", "2"),
            ("/labels/stable", "2"),
            ("/labels/canary", "3"),
        ):
            path = f"/v1/models/iris{scope}"
            spec = site.flask.send("GET", f"{path}/metadata").json()["model_spec"]
            assert spec["version"] == version
            assert post(site.express, f"{path}:predict", {"instances": [ROW]}).status == 200
            if scope:
                (line,) = site.flask.send("GET", path).json()["model_version_status"]
                assert line["version"] == version
        unknown = post(site.express, "/v1/models/iris/labels/new:predict", {"instances": [ROW]})
        assert (unknown.status, error_of(unknown)) == (400, "Unrecognized servable version label: new")


def test_a_model_that_loads_is_neither_ready_nor_unknown():
    with open_site("iris", load=False) as site:
        for driver in (site.flask, site.express):
            status = driver.send("GET", "/v1/models/iris")
            assert status.status == 503
            assert status.json()["ready"] is False
            assert driver.send("GET", "/v1/models").json() == {"models": ["iris"]}
            for answer in (
                post(driver, PREDICT, {"instances": [ROW]}),
                driver.send("GET", "/v1/models/iris/metadata"),
            ):
                assert answer.status == 503
                assert "loading" in error_of(answer)


def test_an_unloaded_model_is_not_ready():
    with open_site("iris") as site:
        site.runtime.unload_model("iris")
        for driver in (site.flask, site.express):
            status = driver.send("GET", "/v1/models/iris")
            assert (status.status, status.json()["ready"]) == (503, False)
            answer = post(driver, PREDICT, {"instances": [ROW]})
            assert answer.status == 503
            assert "iris" in error_of(answer)


# -- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("POST", "/v1"),
        ("POST", "/v1/models"),
        ("PUT", PREDICT),
        ("DELETE", "/v1/models/iris"),
        ("PATCH", "/v1/models/iris/metadata"),
        ("POST", "/v1/models/iris/metadata"),
        ("GET", "/v1/models/debug/iris"),
        ("POST", "/v1/models/iris/versions/1/labels/a:predict"),
    ],
)
def test_what_means_nothing_is_malformed(driver, method, path):
    answer = driver.send(method, path, "", {}, b"{}")
    assert (answer.status, error_of(answer)) == (400, f"Malformed request: {method} {path}")


def test_a_packed_body_is_unpacked(driver):
    plain = post(driver, PREDICT, {"instances": [ROW]})
    packed = gzip.compress(json.dumps({"instances": [ROW]}).encode())
    answer = post(driver, PREDICT, packed, headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.body) == (200, plain.body)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"{}", 400),
        ("br", b"{}", 400),
        ("gzip", gzip.compress(b" " * (LIMITS.max_input_bytes + 1)), 413),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_refused_in_the_dialects_shape(driver, coding, body, status):
    answer = post(driver, PREDICT, body, headers={"Content-Encoding": coding})
    assert answer.status == status
    assert error_of(answer).startswith("Expected a ")


def test_other_bodies_of_the_native_api_are_no_json(driver):
    assert error_of(post(driver, PREDICT, npy(ROWS))).startswith("JSON Parse error: ")


def test_the_head_of_a_status_has_no_body(driver):
    answer = driver.send("HEAD", "/v1/models/iris")
    assert (answer.status, answer.body) == (200, b"")


def test_the_root_tells_kserves_clients_that_the_service_lives(driver):
    assert driver.send("GET", "/").json() == {"status": "alive"}
    browser = driver.send("GET", "/", "", {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browser.status, browser.headers["location"]) == (302, "docs")
