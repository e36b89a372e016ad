"""Who is believed, through every driver: administrators, host names, and what browsers are told."""

import json

import pytest
from drivers import LIMITS, open_site

from service.api.dialects import every_dialect
from service.api.problems import PROBLEM
from service.api.trust import Hosts
from service.payloads.codecs import JSON

KEY = "correct-horse"
ROW = json.dumps({"instances": [[1.0, 2.0, 3.0, 4.0]]}).encode()
TENSOR = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}
V2_ROW = json.dumps(TENSOR).encode()
LONG = b" " * 50_000  # bodies that do not take the direct way
INFERENCE = [
    ("/predict", ROW),
    ("/features", ROW),
    ("/predict", LONG + ROW),
    ("/v1/models/iris:predict", ROW),
    ("/v2/models/iris/infer", V2_ROW),
    ("/v2/models/iris/infer", V2_ROW + LONG),
]
DOCUMENTS = [
    "/",
    "/models",
    "/models/iris",
    "/models/iris/layers",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/nowhere",
]
DOCUMENTS += ["/healthz", "/readyz", "/v1/models", "/v2", "/v2/health/ready", "/v2/models/iris"]
DRIVERS = ["flask", "express", "direct"]


@pytest.fixture(scope="module")
def named():
    with open_site("iris", hosts=Hosts(["models.example.com"])) as site:
        yield site


@pytest.fixture(scope="module")
def plain():
    with open_site("iris") as site:
        yield site


@pytest.fixture(scope="module", params=[None, KEY], ids=["without-key", "with-key"])
def administered(request):
    with open_site("iris", dialects=every_dialect(LIMITS, admin=True, admin_key=request.param)) as site:
        yield site, request.param


# -- administration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("path", ["index", "models/iris/load", "models/iris/unload"])
def test_a_page_of_another_origin_and_a_rebound_name_change_nothing(administered, name, path):
    site, _ = administered
    driver = getattr(site, name)
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "rebound.example:8080"}):
        answer = driver.send("POST", f"/v2/repository/{path}", "", headers, b"")
        assert (answer.status, list(answer.json())) == (403, ["error"])
        assert "admin_key" in answer.json()["error"]
    assert driver.send("GET", "/v2/models/iris/ready").status == 200


@pytest.mark.parametrize("name", DRIVERS)
def test_who_knows_the_key_or_sits_here_is_obeyed(administered, name):
    site, key = administered
    driver = getattr(site, name)
    headers = {} if key is None else {"Authorization": f"Bearer {key}", "Host": "models.example.com"}
    assert driver.send("POST", "/v2/repository/index", "", headers, b"").status == 200
    wrong = {"X-Admin-Key": "guess"}
    assert driver.send("POST", "/v2/repository/index", "", wrong, b"").status == (200 if key is None else 403)


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize(("path", "body"), INFERENCE)
def test_inference_is_answered_under_a_name_that_is_allowed_only(named, plain, name, path, body):
    driver, sent = getattr(named, name), {"Content-Type": JSON}
    expected = plain.flask.send("POST", path, "", sent, body)
    assert expected.status == 200
    for host in ("models.example.com:8080", "10.0.0.7", "localhost"):
        assert driver.send("POST", path, "", sent | {"Host": host}, body)[::2] == expected[::2]
    answer = driver.send("POST", path, "", sent | {"Host": "rebound.example"}, body)
    assert_refused(answer, path)


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("path", DOCUMENTS)
def test_documents_are_read_under_a_name_that_is_allowed_only(named, plain, name, path):
    driver = getattr(named, name)
    expected = plain.flask.send("GET", path)
    assert driver.send("GET", path, "", {"Host": "models.example.com"}).status == expected.status
    assert_refused(driver.send("GET", path, "", {"Host": "rebound.example"}), path)
    assert_refused(driver.send("OPTIONS", path, "", {"Host": "rebound.example"}), path)


def test_any_name_will_do_where_none_is_asked_for(plain):
    for name in DRIVERS:
        answer = getattr(plain, name).send("POST", "/predict", "", {"Host": "any.example"}, ROW)
        assert answer.status == 200


def assert_refused(answer, path):
    assert answer.status == 403
    assert "allowed_hosts" in answer.body.decode()
    assert "rebound.example" in answer.body.decode()
    native = not path.startswith(("/v1", "/v2"))
    assert answer.content_type == (PROBLEM if native else JSON)
    assert (answer.json()["code"] == "host_not_allowed") if native else (list(answer.json()) == ["error"])
    assert answer.headers["x-request-id"]


# -- browsers ---------------------------------------------------------------------------------------------

ERRORS = [
    ("GET", "/nowhere", b""),
    ("GET", "/predict", b""),
    ("POST", "/predict", b"{"),
    ("POST", "/predict", LONG + b"{"),
    ("POST", "/v1/models/iris:predict", b"{"),
    ("POST", "/v2/models/iris/infer", b"{"),
    ("GET", "/v2/nowhere", b""),
    ("GET", "/v1/nowhere", b""),
]


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize(("method", "path", "body"), ERRORS)
def test_errors_run_nothing_are_framed_by_nobody_and_are_what_they_say(plain, name, method, path, body):
    answer = getattr(plain, name).send(method, path, "", {"Content-Type": JSON}, body)
    assert answer.status >= 400
    assert_guarded(answer)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize(
    ("path", "status"),
    [("/docs", 405), ("/v1/models", 400), ("/v2/models", 405), ("/v2/models/iris/infer", 405)],
)
def test_a_method_that_nobody_knows_is_told_in_the_paths_own_shape(plain, name, path, status):
    answer = getattr(plain, name).send("TRACE", path)
    assert (answer.status, answer.content_type) == (status, PROBLEM if path == "/docs" else JSON)
    assert "GET" in answer.headers["allow"]
    assert_guarded(answer)


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("path", ["/docs", "/models", "/openapi.json", "/metrics", "/v2"])
def test_pages_and_documents_are_framed_by_nobody(plain, name, path):
    answer = getattr(plain, name).send("GET", path)
    assert answer.status == 200
    assert_guarded(answer)
    assert ("script-src 'sha256-" in answer.headers["content-security-policy"]) == (path == "/docs")


def assert_guarded(answer):
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
