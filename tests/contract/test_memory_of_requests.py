"""Whatever becomes of a request, it gives back what it held of the memory; where there is none it is refused in its words."""

import json

import numpy as np
import pytest
from bodies import npy, text
from drivers import open_site
from numpy_engine import build_runtime

from service.drivers.asgi import SMALL_BODY_BYTES
from service.drivers.protocol import Protocol
from service.memory import Memory
from service.payloads.codecs import JSON, NPY

LIMIT = 10_000_000
ROWS = npy(np.ones((2000, 4), np.float32))
LONG = text({"instances": [[1.5, 2.5, 3.5, 4.5]] * 3000})
PATHS = {
    "/predict": lambda problem: problem["code"] == "memory_full",
    "/v1/models/iris:predict": lambda problem: "max_memory_bytes" in problem["error"],
    "/v2/models/iris/infer": lambda problem: "max_memory_bytes" in problem["error"],
}


@pytest.fixture
def site():
    runtime = build_runtime("iris", default_model="iris", max_queue_rows=10_000)
    runtime.memory = Memory(LIMIT)
    with open_site(runtime=runtime) as opened:
        yield opened


@pytest.fixture(params=["flask", "express", "direct"])
def driver(site, request):
    return getattr(site, request.param)


@pytest.mark.parametrize("path", PATHS)
def test_where_others_hold_the_memory_a_request_is_told_to_come_back(site, driver, path):
    site.runtime.memory.note(LIMIT)
    answer = driver.send("POST", path, "", {"Content-Type": JSON}, LONG)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert PATHS[path](json.loads(answer.body))
    site.runtime.memory.give_back(LIMIT)
    assert driver.send("POST", path, "", {"Content-Type": JSON}, LONG).status in (
        200,
        400,
    )  # V2 has another form


CASES = {  # body, its media type, that of the reply, status
    "JSON": (LONG, JSON, JSON, 200),
    "npy": (ROWS, NPY, NPY, 200),
    "npy to JSON": (ROWS, NPY, JSON, 200),
    "half": (LONG[:-2], JSON, JSON, 400),
    "too much": (b'{"instances":[' + b"{}," * 600_000 + b"{}]}", JSON, JSON, 413),
    "small with a long reply": (npy(np.ones((1500, 4), np.float32)), NPY, NPY, 200),
    "small": (text({"instances": [[1, 2, 3, 4]]}), JSON, JSON, 200),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_held_once_a_request_is_answered(site, driver, case):
    body, media, accept, status = CASES[case]
    answer = driver.send("POST", "/predict", "", {"Content-Type": media, "Accept": accept}, body)
    assert answer.status == status, answer.body
    if driver is site.direct:
        driver.until(lambda _: site.runtime.memory.held == 0)
    assert site.runtime.memory.held == 0
    assert site.runtime.memory.peak > 0 or len(body) <= SMALL_BODY_BYTES


def test_nothing_is_held_once_a_client_has_left(site):
    with site.direct.connect() as wire:
        head = (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: 900000\r\n\r\n"
        )
        wire.send(head % JSON.encode() + b" " * 800_000)
        site.direct.until(lambda _: site.runtime.memory.held > 0)
    site.direct.until(lambda _: site.runtime.memory.held == 0)


@pytest.mark.parametrize("accept", [NPY, JSON], ids=["in two pieces", "in one"])
@pytest.mark.parametrize("rows", [4, 3000], ids=["direct", "ASGI"])
def test_a_reply_that_cannot_be_written_counts_as_failed(site, monkeypatch, rows, accept):
    """As where the system has no memory left for it."""
    monkeypatch.setattr(Protocol, "connection_made", _with_poor_transport(Protocol.connection_made))
    body = npy(np.ones((rows, 4), np.float32))
    with site.direct.connect() as wire:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NPY}\r\nAccept: {accept}\r\n"
        wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert not wire.goes_on()
    counted = site.telemetry.metrics.registry.get_sample_value
    labels = {"route": "predict", "model": "iris"}
    site.direct.until(lambda _: counted("layertap_requests_total", {**labels, "code": "500"}) == 1)
    assert counted("layertap_requests_total", {**labels, "code": "200"}) is None
    assert site.runtime.memory.held == 0
    monkeypatch.undo()
    assert site.direct.send("POST", "/predict", "", {"Content-Type": NPY}, body).status == 200


class _PoorTransport:
    """A socket's transport that cannot write."""

    def __init__(self, transport):
        self._transport = transport

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def write(self, _):
        raise MemoryError

    writelines = write


def _with_poor_transport(connection_made):
    def made(self, transport):
        connection_made(self, _PoorTransport(transport))

    return made


@pytest.mark.parametrize(
    ("path", "query", "model"),
    [
        ("/predict", "", "iris"),  # the default one
        ("/predict", "top=0&model=iris", "iris"),
        ("/predict", "model=%69ris", "iris"),
        ("/predict", "model=irs", "unknown"),
        ("/features", "model=iris&layer=none", "iris"),
        ("/v1/models/iris/versions/1:predict", "", "iris"),
        ("/v1/models/irs:predict", "", "unknown"),
        ("/v2/models/iris/infer", "", "iris"),
        ("/v2/models/irs/infer", "", "unknown"),
    ],
)
def test_refusals_count_for_the_model_that_was_asked_for(site, driver, path, query, model):
    answer = driver.send("POST", path, query, {"Content-Type": JSON}, b'{"instances": 1')
    assert answer.status in (400, 404)
    lines = site.telemetry.render().decode().splitlines()
    counted = [line for line in lines if line.startswith("layertap_requests_total")]
    assert len(counted) == 1
    assert f'model="{model}"' in counted[0]


def test_a_small_request_of_long_results_and_a_long_reply_holds_nothing_afterwards(site, driver, monkeypatch):
    monkeypatch.setattr("service.serving.runtime._WORTH_CHARGING", 0)
    monkeypatch.setattr("service.api.native.is_heavy_result", lambda _: True)
    answer = driver.send("POST", "/predict", "", {"Content-Type": JSON}, text({"instances": [[1, 2, 3, 4]]}))
    assert answer.status == 200
    assert site.runtime.memory.peak > 0
    if driver is site.direct:
        driver.until(lambda _: site.runtime.memory.held == 0)
    assert site.runtime.memory.held == 0
