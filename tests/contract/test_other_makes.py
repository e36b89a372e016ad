"""What clients of other makes send and look for: marks before JSON, nulls, packed bodies, OPTIONS, scrapers, prefixes."""

import codecs
import gzip
import io
import json
import zlib
from urllib.parse import urljoin

import numpy as np
import pytest
from bodies import BODIES
from drivers import LIMITS, open_site
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from service.api.dialects import every_dialect
from service.payloads.codecs import JSON

PACK = {"gzip": gzip.compress, "deflate": zlib.compress}
ROW = [1.0, 2.0, 3.0, 4.0]
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}
LONG = np.arange(8000, dtype="float32").reshape(
    2000, 4
)  # long enough for its numbers to be taken out of the text
LONG_X = {"name": "x", "shape": [2000, 4], "datatype": "FP32", "data": LONG.ravel().tolist()}
PLAIN = "text/plain;version=0.0.4"
# As Prometheus 3 sends it.
SCRAPE = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture(scope="module")
def site():
    with open_site(dialects=every_dialect(LIMITS, admin=True)) as site:
        yield site


@pytest.fixture(params=["flask", "express", "direct"])
def driver(request, site):
    return getattr(site, request.param)


# -- JSON -------------------------------------------------------------------------------------------------

TEXTS = {
    "rows": ("/predict", {"instances": [ROW]}),
    "columns": ("/features", {"inputs": {"x": [ROW]}}),
    "many rows": ("/predict", {"instances": LONG.tolist()}),
    "many named rows": ("/predict", {"instances": [{"x": row} for row in LONG.tolist()]}),
    "V1": ("/v1/models/iris:predict", {"instances": [ROW]}),
    "V1, a token": ("/v1/models/iris:predict", {"instances": [[float("nan"), 1, 2, 3]]}),
    "V1, many rows": ("/v1/models/iris:predict", {"instances": LONG.tolist()}),
    "V1, examples": ("/v1/models/iris:classify", {"examples": [{"x": ROW}]}),
    "V2": ("/v2/models/iris/infer", {"inputs": [X]}),
    "V2, a token": ("/v2/models/iris/infer", {"inputs": [{**X, "data": [float("inf"), 1, 2, 3]}]}),
    "V2, many": ("/v2/models/iris/infer", {"inputs": [LONG_X]}),
    "V2, index": ("/v2/repository/index", {"ready": True}),
    "V2, load": ("/v2/repository/models/iris/load", {"parameters": {}}),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("content_type", [JSON, "application/octet-stream"])
def test_a_byte_order_mark_before_json_is_passed_over(driver, text, content_type):
    path, value = TEXTS[text]
    body, query = json.dumps(value).encode(), "model=iris" if path in ("/predict", "/features") else ""
    sent = {"Content-Type": content_type}
    expected = driver.send("POST", path, query, sent, body)
    assert expected.status == 200, expected.body
    marked = driver.send("POST", path, query, sent, codecs.BOM_UTF8 + body)
    assert (marked.status, marked.body) == (200, expected.body)


def test_one_mark_is_enough_and_stands_at_the_beginning(driver):
    for path, value in TEXTS.values():
        query, body = "model=iris" if path in ("/predict", "/features") else "", json.dumps(value).encode()
        for wrong in (
            codecs.BOM_UTF8 * 2 + body,
            body + codecs.BOM_UTF8,
            codecs.BOM_UTF8,
            codecs.BOM_UTF8[:2],
        ):
            assert driver.send("POST", path, query, {"Content-Type": JSON}, wrong).status == 400


def test_nulls_of_clients_that_send_all_they_know_change_nothing(driver):
    unset = dict.fromkeys(
        ["sequence_id", "priority", "timeout", "binary_data_output", "binary_data", "headers"]
    )
    plain = json.dumps({"inputs": [X], "outputs": [{"name": "probs"}]}).encode()
    full = {
        "id": None,
        "parameters": unset,
        "inputs": [X | {"parameters": unset}],
        "outputs": [{"name": "probs", "parameters": unset}],
    }
    expected = driver.send("POST", "/v2/models/iris/infer", "", {}, plain)
    answer = driver.send("POST", "/v2/models/iris/infer", "", {}, json.dumps(full).encode())
    assert (answer.status, answer.body) == (200, expected.body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("index", {"ready": None}),
        ("index", {}),
        ("models/iris/load", {"parameters": None}),
        ("models/iris/load", {"parameters": {"config": None}}),
        ("models/iris/unload", {"parameters": {"unload_dependents": None}}),
        ("models/iris/load", {}),
    ],
)
def test_nulls_to_the_repository_are_as_good_as_nothing(driver, path, body):
    answer = driver.send("POST", f"/v2/repository/{path}", "", {}, json.dumps(body).encode())
    assert answer.status == 200, answer.body


# -- codings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("name", BODIES)
def test_native_bodies_may_be_packed(driver, name, coding):
    body = BODIES[name]
    expected = driver.send("POST", "/predict", f"model={body.model}", body.headers, body.data)
    packed = driver.send(
        "POST",
        "/predict",
        f"model={body.model}",
        body.headers | {"Content-Encoding": coding},
        PACK[coding](body.data),
    )
    assert (packed.status, packed.body) == (200, expected.body)


def test_a_native_body_unpacks_to_no_more_than_the_limit(driver):
    bomb = gzip.compress(bytes(LIMITS.max_input_bytes + 1))
    answer = driver.send("POST", "/predict", "model=iris", {"Content-Encoding": "gzip"}, bomb)
    assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
    assert str(LIMITS.max_input_bytes) in answer.json()["detail"]


def test_a_packed_reply_says_what_it_depends_on(driver):
    sent = json.dumps({"inputs": [LONG_X]}).encode()
    answer = driver.send("POST", "/v2/models/iris/infer", "", {"Accept-Encoding": "gzip"}, sent)
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "accept-encoding")


# -- words and methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["", "/ready", "/config", "/stats", "/infer"])
def test_an_unknown_model_is_told_in_tritons_words(driver, rest):
    method = "POST" if rest == "/infer" else "GET"
    answer = driver.send(method, f"/v2/models/irs{rest}", "", {}, json.dumps({"inputs": [X]}).encode())
    assert answer.status == 404
    assert answer.json()["error"].startswith("Request for unknown model: 'irs' is not found. Expected one of")
    answer = driver.send(
        method, f"/v2/models/iris/versions/7{rest}", "", {}, json.dumps({"inputs": [X]}).encode()
    )
    assert answer.status == 404
    assert answer.json()["error"].startswith("Request for unknown model: ")


@pytest.mark.parametrize("action", ["load", "unload"])
def test_an_unknown_model_of_the_repository_is_told_so_too(driver, action):
    answer = driver.send("POST", f"/v2/repository/models/irs/{action}", "", {}, b"")
    assert answer.status == 404
    assert answer.json()["error"].startswith("Request for unknown model: 'irs' is not found.")


GETS = [
    "/models",
    "/models/iris",
    "/models/iris/layers",
    "/healthz",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/",
]
GETS += ["/v1/models", "/V1/models/iris", "/v1/models/iris", "/v1/models/iris/versions/1/metadata"]
GETS += [
    "/v2",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/iris",
    "/v2/models/iris/ready",
    "/v2/models/iris/config",
]
POSTS = ["/predict", "/features", "/v1/models/iris:predict", "/v1/models/iris/versions/1:classify"]
POSTS += ["/v2/models/iris/infer", "/v2/repository/index", "/v2/repository/models/iris/load"]


@pytest.mark.parametrize(
    ("path", "method"), [*((path, "GET") for path in GETS), *((path, "POST") for path in POSTS)]
)
def test_options_says_what_a_path_takes(driver, path, method):
    answer = driver.send("OPTIONS", path)
    expected = {"GET", "HEAD", "OPTIONS"} if method == "GET" else {"POST", "OPTIONS"}
    assert (answer.status, answer.body) == (200, b"")
    assert set(answer.headers["allow"].split(", ")) == expected


def test_options_of_a_protocol_without_a_document_of_its_own(driver):
    for path in ("/v1", "/v1/"):
        answer = driver.send("OPTIONS", path)
        assert (answer.status, answer.headers["allow"]) == (200, "OPTIONS")


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/v2/nowhere", "/v1/models/a:b:predict"])
def test_options_of_a_path_that_is_none_is_an_error(driver, path):
    assert driver.send("OPTIONS", path).status == (400 if path.startswith("/v1") else 404)


# -- scrapers ---------------------------------------------------------------------------------------------


def scrape(driver, **headers):
    return driver.send(
        "GET", "/metrics", "", {name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    "accept", [SCRAPE, "application/openmetrics-text", f"{PLAIN}, application/openmetrics-text"]
)
def test_openmetrics_is_there_for_who_asks(driver, accept):
    driver.send("POST", "/predict", "model=iris", {}, json.dumps({"instances": [ROW]}).encode())
    answer = scrape(driver, Accept=accept)
    assert answer.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.body.endswith(b"# EOF\n")
    names = {family.name for family in read_openmetrics(answer.body.decode())}
    assert {
        "layertap_requests",
        "layertap_compute_seconds",
        "layertap_batch_rows",
        "process_cpu_seconds",
    } <= names


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        PLAIN,
        f"{PLAIN};q=0.9, application/openmetrics-text;q=0.8",
        "application/openmetrics-text;q=0",
    ],
)
def test_plain_text_is_there_for_all_others(driver, accept):
    answer = scrape(driver, Accept=accept)
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "layertap_requests" in {family.name for family in read_plain(answer.body.decode())}


@pytest.mark.parametrize("accept", [PLAIN, SCRAPE])
def test_metrics_are_packed_where_asked_and_tell_no_times_of_creation(driver, accept):
    driver.send("POST", "/predict", "model=iris", {}, json.dumps({"instances": [ROW]}).encode())
    driver.send("POST", "/predict", "model=iris", {}, b"{")
    answer = scrape(driver, Accept=accept, Accept_Encoding="gzip")
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "accept, accept-encoding")
    text = gzip.decompress(answer.body).decode()
    assert "layertap_rejected_total{" in text
    assert "_created" not in text
    assert scrape(driver, Accept=accept).headers["vary"] == "accept, accept-encoding"


# -- prefixes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "server"),
    [
        ("/models-of/team", "/models-of/team"),
        ("/lt/", "/lt"),
        ("", "/"),
        ("/", "/"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a, /b", "/"),
        ("/a?b", "/"),
    ],
)
def test_the_document_names_the_prefix_that_a_proxy_took_off(driver, prefix, server):
    answer = driver.send("GET", "/openapi.json", "", {"X-Forwarded-Prefix": prefix})
    assert answer.json()["servers"] == [{"url": server}]
    assert answer.headers["vary"] == "x-forwarded-prefix"


def test_the_page_and_the_way_to_it_name_no_path_from_the_root(driver):
    page = driver.send("GET", "/docs").body.decode()
    for absolute in ('href="/', 'src="/', 'fetchJson("/', "fetchJson(`/", "curl(`/", "location.origin"):
        assert absolute not in page
    led = driver.send("GET", "/", "", {"Accept": "text/html"})
    assert urljoin("http://proxy.example/models-of/team/", led.headers["location"]).endswith("/team/docs")


def test_what_a_page_below_a_prefix_asks_for_lies_below_it(driver):
    page = io.StringIO(driver.send("GET", "/docs").body.decode())
    asked = [line.split('fetchJson("')[1].split('"')[0] for line in page if 'fetchJson("' in line]
    assert asked
    for path in asked:
        assert urljoin("http://proxy.example/team/docs", path) == f"http://proxy.example/team/{path}"
        assert driver.send("GET", f"/{path}").status == 200
