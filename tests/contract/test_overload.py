"""More work than there is time for: heavy requests are refused before their bodies are read, by every driver and dialect.

The engine takes its time for each batch, so that it has a backlog as a slow model has.
"""

import base64
import json
import time

import numpy as np
import pytest
from bodies import ROWS, npy
from drivers import open_site
from wire import ANSWER_WITHIN_S

from service.payloads.codecs import NPY

pytestmark = pytest.mark.alone

BATCH_S = 0.02
BROKEN = b"\xff\xd8\xff no picture"
B64 = base64.b64encode(BROKEN).decode()
JSON = {"Content-Type": "application/json"}
V2_INPUT = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [B64]}
REQUESTS = {
    "native": ("/predict", "model=shapes&timeout_ms=1000", {"Content-Type": "image/jpeg"}, BROKEN),
    "v1": ("/v1/models/shapes:predict", "", JSON, json.dumps({"instances": [{"b64": B64}]}).encode()),
    "v2": (
        "/v2/models/shapes/infer",
        "",
        JSON,
        json.dumps({"inputs": [V2_INPUT], "parameters": {"timeout": 1_000_000}}).encode(),
    ),
}


def iris(rows, query="timeout_ms=30000"):
    body = npy(np.resize(ROWS, (rows, 4)))
    return ("POST", "/predict", f"model=iris&{query}", {"Content-Type": NPY, "Accept": NPY}, body)


@pytest.fixture(scope="module")
def site():
    with open_site("iris", "shapes", request_timeout_s=2.0, before_run=lambda: time.sleep(BATCH_S)) as site:
        for rows in (1, 32) * 6:
            assert site.express.send(*iris(rows)).status == 200
        yield site


@pytest.fixture
def busy(site):
    """The site, with two seconds of work before whoever comes next."""
    large = site.express.start(*iris(32 * 100))
    assert large.watched.wait(ANSWER_WITHIN_S)
    yield site
    large.leave()
    large.future.result(ANSWER_WITHIN_S)
    assert site.express.send(*iris(1)).status == 200  # what ran is over


@pytest.mark.parametrize("dialect", REQUESTS)
@pytest.mark.parametrize("driver", ["flask", "express"])
def test_a_picture_is_not_decoded_where_its_answer_would_be_late(busy, driver, dialect):
    answer = getattr(busy, driver).send("POST", *REQUESTS[dialect])
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    told = busy.telemetry.render().decode()
    assert 'code="429",model="shapes"' in told


@pytest.mark.parametrize("dialect", REQUESTS)
@pytest.mark.parametrize("driver", ["flask", "express"])
def test_the_same_picture_is_decoded_where_there_is_time(site, driver, dialect):
    answer = getattr(site, driver).send("POST", *REQUESTS[dialect])
    assert answer.status in (400, 422)
    assert site.runtime.waiting_rows == 0


@pytest.mark.parametrize("driver", ["flask", "express"])
def test_small_requests_are_refused_by_their_own_time(busy, driver):
    refused = getattr(busy, driver).send(*iris(1, "timeout_ms=300"))
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) == refused.json()["retry_after_s"] >= 1


def test_places_of_requests_that_fail_are_given_back(site):
    for _ in range(site.runtime.waiting_rows, 1100):  # more than max_queue_rows
        with pytest.raises(ValueError, match="broken"):
            raise_with_a_place(site.runtime)
    assert site.express.send(*iris(1)).status == 200


def raise_with_a_place(runtime):
    place = runtime.book(runtime.resolve("iris"), ("probs",), time.monotonic() + 1.0)
    try:
        raise ValueError("broken")
    finally:
        runtime.leave(place)


@pytest.mark.parametrize("dialect", REQUESTS)
def test_a_long_body_is_not_even_taken_in_and_its_connection_goes_on(busy, dialect):
    path, query, headers, body = REQUESTS[dialect]
    body += b" " * 100_000
    head = [f"POST {path}?{query} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    with busy.direct.connect() as wire:
        wire.send("\r\n".join([*head, "X-Request-Id: mine", "", ""]).encode())
        wire.send(body)
        answer = wire.answer()
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.answer().status == 200
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-request-id"] == "mine"
