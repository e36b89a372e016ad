"""What happens while a request waits: clients that leave, deadlines, overload, death, compilation, draining.

The engine or the compiler is held at a gate, so every state is reached by an event and none by waiting for a while.
"""

import itertools
import math
import re
import threading

import numpy as np
import pytest
from bodies import BODIES, ROWS, npy
from drivers import Gate, open_site
from wire import ANSWER_WITHIN_S

from service.api.problems import PROBLEM
from service.payloads.codecs import NPY

DRIVERS = ("flask", "express")
HEADERS = {"Content-Type": NPY}
IRIS = ("POST", "/predict", "model=iris", HEADERS, npy(ROWS[:1]))
PICTURE = ("POST", "/predict", "model=shapes", BODIES["picture"].headers, BODIES["picture"].data)
TRIES = 10_000


def iris(query):
    return ("POST", "/predict", f"model=iris&{query}", HEADERS, npy(ROWS[:1]))


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def held(gate):
    """A site whose engine is held in a batch, and that batch's request."""
    with open_site("iris", "shapes", gate=gate) as site:
        first = site.express.start(*IRIS)
        assert gate.entered.wait(ANSWER_WITHIN_S)
        yield site, first


def waiting(site, *request):
    """A request that is in the queue: the express lane listens for its client's departure."""
    connection = site.express.start(*request)
    assert connection.watched.wait(ANSWER_WITHIN_S)
    return connection


def until(condition):
    """Asks again and again; the service tells its state at once when asked."""
    assert any(condition() for _ in range(TRIES))


def metric(site, name, **labels):
    """A sample of /metrics, or 0 where there is none."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in site.telemetry.render().decode().splitlines():
        found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if found and found[1] == name and wanted == set(found[2].split(",")):
            return float(found[3])
    return 0.0


def assert_problem(answer, status, code):
    assert (answer.status, answer.content_type) == (status, PROBLEM)
    assert answer.json()["code"] == code


def test_a_client_that_leaves_takes_its_request_along(held, gate):
    site, first = held
    leaving, staying = waiting(site, *IRIS), waiting(site, *PICTURE)
    assert site.runtime.waiting_rows == 2
    leaving.leave()
    assert leaving.answer() is None
    assert site.runtime.waiting_rows == 1
    assert metric(site, "layertap_requests_total", route="predict", model="iris", code="499") == 1
    gate.open()
    assert (first.answer().status, staying.answer().status) == (200, 200)
    site.runtime.stop()
    assert gate.runs == 2  # the request that was left never ran


def test_a_client_that_leaves_in_the_middle_of_a_large_request_frees_the_engine(gate):
    with open_site("iris", gate=gate) as site:
        large = waiting(site, "POST", "/predict", "model=iris", HEADERS, npy(np.tile(ROWS, (1000, 1))))
        assert gate.entered.wait(ANSWER_WITHIN_S)
        assert site.runtime.waiting_rows == 3000 - 32  # one batch of it runs
        large.leave()
        assert large.answer() is None
        assert site.runtime.waiting_rows == 0
        gate.open()
        assert site.express.send(*IRIS).status == 200
        assert gate.runs == 2


def test_a_client_that_leaves_before_its_body_is_complete(held):
    site, _ = held
    leaving = site.express.start(*IRIS, complete=False)
    assert leaving.watched.wait(ANSWER_WITHIN_S)
    leaving.leave()
    assert leaving.answer() is None
    assert metric(site, "layertap_requests_total", route="predict", model="unknown", code="499") == 1
    assert site.runtime.waiting_rows == 0


@pytest.mark.parametrize("name", DRIVERS)
def test_a_deadline_is_answered_while_the_engine_is_busy(held, gate, name):
    site, first = held
    answer = getattr(site, name).send(*iris("timeout_ms=50"))  # the gate is shut: nothing else could answer
    assert_problem(answer, 504, "deadline_exceeded")
    assert site.runtime.waiting_rows == 0
    gate.open()
    assert first.answer().status == 200
    assert getattr(site, name).send(*IRIS).status == 200
    assert gate.runs == 2


@pytest.mark.parametrize("name", DRIVERS)
def test_the_deadline_holds_for_a_batch_that_runs(gate, name):
    with open_site("iris", gate=gate) as site:
        assert_problem(getattr(site, name).send(*iris("timeout_ms=50")), 504, "deadline_exceeded")
        assert gate.entered.is_set()


def test_a_client_may_shorten_the_time_but_not_lengthen_it(gate):
    with open_site("iris", gate=gate, request_timeout_s=0.05) as site:
        for name in DRIVERS:
            answer = getattr(site, name).send(*iris("timeout_ms=1000000000"))
            assert_problem(answer, 504, "deadline_exceeded")


@pytest.mark.parametrize("name", DRIVERS)
def test_a_full_queue_says_when_to_come_back(gate, name):
    with open_site("iris", gate=gate, max_queue_rows=1) as site:
        first = site.express.start(*IRIS)
        assert gate.entered.wait(ANSWER_WITHIN_S)
        second = waiting(site, *IRIS)
        answer = getattr(site, name).send(*IRIS)
        assert_problem(answer, 429, "queue_full")
        assert int(answer.headers["retry-after"]) == answer.json()["retry_after_s"] >= 1
        assert metric(site, "layertap_rejected_total", reason="queue_full") == 1
        gate.open()
        assert (first.answer().status, second.answer().status) == (200, 200)
        assert getattr(site, name).send(*IRIS).status == 200


def test_a_large_request_is_never_refused_for_its_rows(gate):
    with open_site("iris", gate=gate, max_queue_rows=1) as site:
        gate.open()
        answer = site.express.send("POST", "/predict", "model=iris", HEADERS, npy(np.tile(ROWS, (100, 1))))
        assert (answer.status, len(answer.json()["predictions"])) == (200, 300)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_reply_that_would_be_too_large_never_reaches_the_model(gate, name):
    rows = npy(np.tile(ROWS, (700, 1)))
    with open_site("iris", gate=gate) as site:  # the gate is shut: a request that runs cannot be answered
        for query in ("top=3", "top=1000000000"):
            answer = getattr(site, name).send("POST", "/predict", query, HEADERS, rows)
            assert_problem(answer, 400, "reply_too_large")
        gate.open()
        assert getattr(site, name).send("POST", "/predict", "", HEADERS, rows).status == 200
        assert gate.runs == math.ceil(2100 / 32)


def test_heavy_bodies_are_refused_while_too_many_are_decoded():
    with open_site("shapes", "iris", max_decoding=0) as site:
        answer = site.express.send(*PICTURE)
        assert_problem(answer, 429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert site.express.send(*IRIS).status == 200


@pytest.mark.parametrize("name", DRIVERS)
def test_an_engine_that_dies_answers_everyone_and_says_so(gate, name):
    def die():
        gate()
        raise SystemExit

    with open_site("iris", before_run=die) as site:
        try:
            first = site.express.start(*IRIS)
            assert gate.entered.wait(ANSWER_WITHIN_S)
            pending = [first, *(waiting(site, *IRIS) for _ in range(3))]
            assert site.express.send("GET", "/healthz").status == 200
        finally:
            gate.open()
        for connection in pending:
            assert_problem(connection.answer(), 500, "engine_stopped")
        driver = getattr(site, name)
        for path in ("/healthz", "/readyz"):
            assert driver.send("GET", path).status == 503
        assert_problem(driver.send(*IRIS), 500, "engine_stopped")


@pytest.mark.parametrize("name", DRIVERS)
def test_a_defect_of_the_model_is_the_answer_of_its_request_alone(name):
    def stumble():
        raise ZeroDivisionError

    with open_site("iris", before_run=stumble) as site:
        driver = getattr(site, name)
        answer = driver.send(*IRIS)
        assert_problem(answer, 500, "inference_failed")
        assert "ZeroDivisionError" in answer.json()["detail"]
        assert driver.send("GET", "/healthz").status == 200


class Workbench:
    """Holds the compiler before one set of outputs."""

    def __init__(self, held):
        self.entered, self.release = threading.Event(), threading.Event()
        self.compiled = []
        self._held = held

    def __call__(self, outputs):
        self.compiled.append(outputs)
        if outputs == self._held:
            self.entered.set()
            assert self.release.wait(ANSWER_WITHIN_S)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_layer_that_is_compiled_stalls_nobody_else(name):
    bench = Workbench(("hidden", "probs"))
    with open_site("iris", "shapes", before_compile=bench) as site:
        try:
            cold = ("POST", "/features", "model=iris&layer=hidden&layer=probs", HEADERS, npy(ROWS[:1]))
            waits = waiting(site, *cold)
            assert bench.entered.wait(ANSWER_WITHIN_S)
            for request in (IRIS, PICTURE):
                assert getattr(site, name).send(*request).status == 200
            assert_problem(
                getattr(site, name).send("POST", "/features", cold[2] + "&timeout_ms=50", *cold[3:]),
                504,
                "deadline_exceeded",
            )
            assert site.runtime.waiting_rows == 1
        finally:
            bench.release.set()
        answer = waits.answer()
        assert (answer.status, list(answer.json()["features"])) == (200, ["hidden", "probs"])
        assert bench.compiled.count(("hidden", "probs")) == 1


@pytest.mark.parametrize("name", DRIVERS)
def test_a_layer_that_cannot_be_compiled_is_tried_again(name):
    attempts = itertools.count()

    def fail_once(outputs):
        if outputs == ("hidden", "probs") and next(attempts) == 0:
            raise RuntimeError("no such operation")

    with open_site("iris", before_compile=fail_once) as site:
        cold = ("POST", "/features", "model=iris&include=predictions", HEADERS, npy(ROWS[:1]))
        assert_problem(getattr(site, name).send(*cold), 500, "inference_failed")
        assert getattr(site, name).send(*cold).status == 200


def test_functions_compiled_on_demand_are_bounded_and_come_back():
    bench = Workbench(None)
    with open_site("shapes", before_compile=bench) as site:
        paths = ("image", "conv", "pool", "probs")
        sets = [c for size in range(1, 5) for c in itertools.combinations(paths, size)]
        lanes = site.runtime.resolve("shapes").lanes
        warm = len(lanes.compiled)
        for wanted in (*sets, sets[0]):
            query = "&".join(f"layer={path}" for path in wanted)
            answer = site.express.send("POST", "/features", query, *PICTURE[3:])
            assert (answer.status, tuple(answer.json()["features"])) == (200, wanted)
            assert len(lanes.compiled) <= warm + 8
        assert len(lanes.compiled) == warm + 8
        assert bench.compiled.count(sets[0]) == 2  # forgotten meanwhile, and made again


@pytest.mark.parametrize("name", DRIVERS)
def test_a_service_that_drains_answers_what_it_has_and_takes_no_more(held, gate, name):
    site, first = held
    driver = getattr(site, name)
    second = waiting(site, *IRIS)
    stopping = threading.Thread(target=site.runtime.stop)
    stopping.start()
    until(lambda: driver.send("GET", "/readyz").status == 503)
    assert_problem(driver.send(*IRIS), 503, "not_ready")
    assert driver.send("GET", "/healthz").status == 200
    gate.open()
    assert (first.answer().status, second.answer().status) == (200, 200)
    stopping.join(ANSWER_WITHIN_S)
    assert_problem(driver.send(*IRIS), 503, "not_ready")


@pytest.mark.parametrize("name", DRIVERS)
def test_before_its_models_are_loaded_the_service_says_so(name):
    with open_site("iris", load=False) as site:
        driver = getattr(site, name)
        assert driver.send("GET", "/healthz").status == 200
        answer = driver.send("GET", "/readyz")
        assert (answer.status, answer.json()) == (503, {"ready": False, "models": {"iris": "loading"}})
        assert_problem(driver.send(*IRIS), 503, "model_loading")
        site.runtime.load()
        assert driver.send("GET", "/readyz").status == 200
        assert driver.send(*IRIS).status == 200
