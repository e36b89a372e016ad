"""Whatever is sent: a documented answer, the same from both drivers, and a service that goes on."""

import numpy as np
import orjson
import pytest
from bodies import ROWS, npy
from drivers import open_site
from hypothesis import given, settings
from numpy_engine import graph_of
from requests_of import inference_requests, other_requests

from service.api.endpoint import Limits
from service.api.problems import PROBLEM
from service.api.schemas import error_classes
from service.payloads.codecs import JSON, NPY
from service.settings import Settings

MANY = 20_000
MAX_DETAIL = 4096
PLAIN = ("POST", "/predict", "model=iris", {"Content-Type": NPY, "Accept": NPY}, npy(ROWS))
PROBS = graph_of("iris").evaluate({"x": ROWS}, ("probs",))["probs"]
UNAVAILABLE = {"model_load_failed", "deadline_exceeded"}  # the only ones of 500 and above that may come


def check(site, request, pieces):
    """Both drivers answer within their time (they raise otherwise), alike, and as documented."""
    arguments = (request.method, request.path, request.query, request.headers, request.body)
    flask, express = site.flask.send(*arguments), site.express.send(*arguments, pieces=pieces)
    assert (flask.status, flask.headers.get("content-type")) == (
        express.status,
        express.headers.get("content-type"),
    )
    assert flask.body == express.body
    for answer in (flask, express):
        assert answer.headers["x-request-id"]
        check_documented(request, answer)


def check_documented(request, answer):
    if answer.status < 400:
        assert answer.status in (200, 302, 308)
        if answer.status == 200 and request.method == "POST":
            check_reply(answer)
        return
    assert answer.content_type == PROBLEM
    if request.method == "HEAD":
        return
    document = answer.json()
    error = error_classes()[document["code"]]
    assert (document["status"], error.status) == (answer.status, answer.status)
    assert answer.status < 500 or document["code"] in UNAVAILABLE, document
    assert document["title"] == error.title
    assert 0 < len(document["detail"]) <= MAX_DETAIL


def check_reply(answer):
    if answer.content_type == JSON:
        assert {"model", "version"} < answer.json().keys()
    else:
        answer.arrays()


def check_plain(site):
    """A plain request is still answered right."""
    for driver in (site.flask, site.express):
        answer = driver.send(*PLAIN)
        assert answer.status == 200
        np.testing.assert_array_equal(answer.arrays()[None], PROBS)
    assert site.runtime.waiting_rows == 0
    assert site.runtime.ready


@settings(max_examples=500, deadline=None)
@given(inference_requests())
def test_any_request_for_a_model(site, request):
    check(site, request, pieces=1 + len(request.body) % 4)
    check_plain(site)


@settings(max_examples=300, deadline=None)
@given(other_requests())
def test_any_other_request(site, request):
    check(site, request, pieces=1)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(inference_requests())
def test_any_request_for_a_model_at_length(site, request):
    check(site, request, pieces=1 + len(request.body) % 4)
    check_plain(site)


@pytest.mark.slow
@settings(max_examples=MANY, deadline=None)
@given(other_requests())
def test_any_other_request_at_length(site, request):
    check(site, request, pieces=1)
    check_plain(site)


@pytest.fixture(scope="module")
def shipped():
    """A site with the limits that the service has by default, and a million rows for it."""
    settings = Settings()
    limits = Limits(settings.max_input_bytes, settings.max_image_pixels, settings.max_reply_bytes)
    with open_site("iris", limits=limits, max_body_bytes=settings.max_body_bytes) as site:
        yield site


@pytest.fixture(scope="module")
def million():
    return np.tile(np.round(ROWS, 1), (10**6 // len(ROWS) + 1, 1))[: 10**6]


def ask(driver, rows, content_type, accept, query=""):
    body = npy(rows) if content_type == NPY else orjson.dumps({"instances": rows.tolist()})
    headers = {"Content-Type": content_type, "Accept": accept}
    return driver.send("POST", "/predict", query, headers, body)


@pytest.mark.parametrize("name", ["flask", "express"])
@pytest.mark.parametrize("content_type", [NPY, pytest.param(JSON, marks=pytest.mark.slow)])
def test_a_million_rows_are_answered_as_npy(shipped, million, name, content_type):
    answer = ask(getattr(shipped, name), million, content_type, NPY)
    assert (answer.status, answer.content_type) == (200, NPY), answer.body[:300]
    got = answer.arrays()[None]
    expected = graph_of("iris").evaluate({"x": million[:3]}, ("probs",))["probs"]
    np.testing.assert_array_equal(got, np.tile(expected, (len(million) // 3 + 1, 1))[: len(million)])


@pytest.mark.parametrize("name", ["flask", "express"])
def test_a_million_rows_are_refused_as_json_that_would_be_too_large(shipped, million, name):
    answer = ask(getattr(shipped, name), million, NPY, JSON, "top=3")
    assert (answer.status, answer.json()["code"]) == (400, "reply_too_large")
    assert "application/x-npy" in answer.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flask", "express"])
def test_a_million_rows_are_answered_as_json_where_it_fits(shipped, million, name):
    answer = ask(getattr(shipped, name), million, JSON, JSON)
    assert (answer.status, answer.content_type) == (200, JSON), answer.body[:300]
    assert len(answer.json()["predictions"]) == len(million)
