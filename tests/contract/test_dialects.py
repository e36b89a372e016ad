"""What both drivers owe to any dialect: routing, errors in its own shape, metrics, request ids."""

import json

import numpy as np
import pytest
from drivers import MAX_BODY_BYTES, open_site

from service.api.endpoint import Foresight
from service.api.http import Reply
from service.errors import MethodNotAllowed, NotFound
from service.tensors import InferRequest


class Call:
    def __init__(self, request):
        self.request = request
        self.layers = ()


class Doubler:
    """One inference route: a body of comma-separated numbers in, the model's outputs back."""

    name = "toy_double"

    def __init__(self, path):
        self.path = path

    def is_heavy(self, request):
        return b"slow" in request.query

    def named(self, path, _):
        return path.rsplit("/", 1)[1]

    def foresee(self, _, runtime):
        served = runtime.resolve(self.path.rsplit("/", 1)[1])
        return Foresight(served, tuple(output.path for output in served.spec.outputs))

    def parse(self, request, runtime):
        served = runtime.resolve(self.path.rsplit("/", 1)[1])
        spec = served.spec.inputs[0]
        row = np.array([float(part) for part in request.body.split(b",")], spec.dtype)[np.newaxis]
        outputs = tuple(output.path for output in served.spec.outputs)
        return Call(InferRequest(served.name, served.version, outputs, {spec.name: row}, 1))

    def is_heavy_reply(self, _):
        return False

    def render(self, _, result):
        return Reply(
            200, json.dumps({name: array.tolist() for name, array in result.outputs.items()}).encode()
        )

    def problem(self, error):
        return Reply(error.status, json.dumps({"toy": error.message}).encode())


class Toy:
    name = "toy"
    prefix = "/toy"

    def endpoint(self, path):
        return Doubler(path) if path.startswith("/toy/infer/") else None

    def is_health(self, _):
        return False

    def answer(self, request, _):
        if request.path == "/toy/broken":
            raise RuntimeError("secret")
        if request.path not in ("/toy", "/toy/"):
            raise NotFound("Expected /toy.")
        if request.method != "GET":
            raise MethodNotAllowed("Expected GET.")
        return Reply(200, b'{"toy":true}')

    problem = Doubler.problem


@pytest.fixture(scope="module")
def site():
    with open_site("iris", dialects=[Toy()]) as site:
        yield site


def metric(site, name, **labels):
    return site.telemetry.metrics.registry.get_sample_value(f"layertap_{name}", labels) or 0


def test_a_route_that_runs_a_model_is_driven_like_a_native_one(driver):
    native = driver.send("POST", "/predict", "model=iris", body=b'{"instances": [[1, 2, 3, 4]]}').json()
    for query in ("", "slow"):
        answer = driver.send("POST", "/toy/infer/iris", query, body=b"1,2,3,4")
        assert answer.status == 200
        assert answer.json()["probs"] == [pytest.approx(native["predictions"][0])]
        assert answer.headers["server-timing"].startswith("decode;dur=")


def test_errors_have_the_dialects_own_shape(driver):
    unknown = driver.send("POST", "/toy/infer/roses", body=b"1,2,3,4")
    assert unknown.status == 404
    assert "roses" in unknown.json()["toy"]
    broken = driver.send("POST", "/toy/infer/iris", body=b"1,2,x,4")
    assert broken.status == 500
    assert "log has the cause" in broken.json()["toy"]
    large = driver.send("POST", "/toy/infer/iris", body=b"1" * (MAX_BODY_BYTES + 1))
    assert large.status == 413
    assert large.json()["toy"].startswith("Expected a body of at most")


def test_what_is_no_inference_is_answered_by_the_dialect(driver):
    for path in ("/toy", "/toy/"):
        assert driver.send("GET", path).json() == {"toy": True}
    assert driver.send("HEAD", "/toy").status == 200
    assert driver.send("HEAD", "/toy").body == b""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (driver.send(method, "/toy").status, driver.send(method, "/toy").json()) == (
            405,
            {"toy": "Expected GET."},
        )
    nothing = driver.send("GET", "/toy/nothing/here")
    assert (nothing.status, nothing.json()) == (404, {"toy": "Expected /toy."})
    broken = driver.send("GET", "/toy/broken")
    assert broken.status == 500
    assert "secret" not in broken.json()["toy"]


def test_a_path_that_only_begins_alike_is_not_the_dialects(driver):
    for method in ("GET", "POST"):
        answer = driver.send(method, "/toys/infer/iris", body=b"")
        assert (answer.status, answer.content_type) == (404, "application/problem+json")


def test_both_kinds_are_counted_and_carry_the_request_id(site):
    for driver in (site.flask, site.express):
        before = metric(site, "requests_total", route="toy_double", model="iris", code="200")
        plain = metric(site, "requests_total", route="toy", model="unknown", code="200")
        named = {"X-Request-Id": "mine"}
        assert driver.send("POST", "/toy/infer/iris", "", named, b"1,2,3,4").headers["x-request-id"] == "mine"
        assert driver.send("GET", "/toy", "", named).headers["x-request-id"] == "mine"
        assert metric(site, "requests_total", route="toy_double", model="iris", code="200") == before + 1
        assert metric(site, "requests_total", route="toy", model="unknown", code="200") == plain + 1
