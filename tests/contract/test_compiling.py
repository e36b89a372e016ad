"""Who waits for functions that have still to be made: those who want them, in turn, and nobody for those who have gone."""

import threading

import numpy as np
import pytest
from bodies import ROWS, npy
from drivers import open_site
from wire import ANSWER_WITHIN_S

from service.payloads.codecs import NPY

HEADERS = {"Content-Type": NPY}
WARM = {("probs",), ("hidden",), ("y",)}
FIRST, SECOND, THIRD, FOURTH = ("x",), ("x", "hidden"), ("x", "probs"), ("x", "hidden", "probs")


def asking(layers, model="iris"):
    path = "&".join([f"model={model}", *(f"layer={layer}" for layer in layers)])
    return ("POST", "/features", path, HEADERS, npy(ROWS[:1]))


class Bench:
    """Holds the compiler in its first cold function."""

    def __init__(self):
        self.entered, self.release = threading.Event(), threading.Event()
        self.compiled = []

    def __call__(self, outputs):
        self.compiled.append(outputs)
        if outputs == FIRST:
            self.entered.set()
            assert self.release.wait(ANSWER_WITHIN_S)

    @property
    def cold(self):
        return [outputs for outputs in self.compiled if outputs not in WARM]


def waiting(site, *request):
    connection = site.express.start(*request)
    assert connection.watched.wait(ANSWER_WITHIN_S)
    return connection


@pytest.fixture
def held():
    """A site whose compiler is held in one function, and that function's request."""
    bench, refused = Bench(), []
    options = {"before_compile": bench, "refused": refused.append, "max_waiting_compilations": 2}
    with open_site("iris", "line", **options) as site:
        first = waiting(site, *asking(FIRST))
        assert bench.entered.wait(ANSWER_WITHIN_S)
        try:
            yield site, bench, first, refused
        finally:
            bench.release.set()


def line(layers):
    body = npy(np.ones((1, 2), np.float32))
    return (
        "POST",
        "/features",
        "&".join(["model=line", *(f"layer={name}" for name in layers)]),
        HEADERS,
        body,
    )


def test_nothing_is_compiled_for_clients_who_have_gone(held):
    site, bench, first, _ = held
    leaving = [waiting(site, *asking(layers)) for layers in (SECOND, THIRD)]
    staying = waiting(site, *line(["x"]))
    for connection in leaving:
        connection.leave()
        assert connection.answer() is None
    bench.release.set()
    assert (first.answer().status, staying.answer().status) == (200, 200)
    assert bench.cold == [FIRST, ("x",)]
    assert site.express.send(*asking(SECOND)).status == 200  # who comes later gets it made
    assert bench.cold == [FIRST, ("x",), SECOND]


def test_who_comes_while_a_function_is_made_does_not_have_it_made_again(held):
    site, bench, first, _ = held
    more = [waiting(site, *asking(FIRST)) for _ in range(5)]
    assert site.runtime.waiting_compilations == 0
    bench.release.set()
    assert {connection.answer().status for connection in (first, *more)} == {200}
    assert site.express.send(*line(["x"])).status == 200  # made after all that waited
    assert bench.cold == [FIRST, ("x",)]


def test_models_take_turns_at_the_compiler(held):
    site, bench, first, _ = held
    many = [waiting(site, *asking(layers)) for layers in (SECOND, THIRD)]
    other = waiting(site, *line(["x", "y"]))
    bench.release.set()
    assert {connection.answer().status for connection in (first, *many)} == {200}
    assert other.answer().status == 200
    assert bench.cold.index(("x", "y")) < bench.cold.index(THIRD)


def test_one_model_cannot_fill_the_compilers_queue(held):
    site, bench, first, refused = held
    many = [waiting(site, *asking(layers)) for layers in (SECOND, THIRD)]
    for driver in (site.flask, site.express, site.direct):
        answer = driver.send(*asking(FOURTH))
        assert (answer.status, answer.json()["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert "max_waiting_compilations" in answer.json()["detail"]
    assert refused == ["iris"] * 3
    assert site.runtime.waiting_compilations == 2
    other = waiting(site, *line(["x"]))
    many[0].leave()
    assert many[0].answer() is None
    replaced = waiting(site, *asking(FOURTH))  # who has gone takes no place
    bench.release.set()
    answers = [connection.answer() for connection in (first, many[1], other, replaced)]
    assert [answer.status for answer in answers] == [200] * 4


def test_rows_that_wait_for_functions_leave_room_for_others():
    bench = Bench()
    with open_site("iris", "line", before_compile=bench, max_queue_rows=8) as site:
        try:
            waits = [waiting(site, *asking(FIRST)) for _ in range(7)]
            refused = site.express.send(*asking(FIRST))
            assert (refused.status, refused.json()["code"]) == (429, "queue_full")
            assert site.express.send(*asking(("hidden",))).status == 200
        finally:
            bench.release.set()
        assert [connection.answer().status for connection in waits] == [200] * 7
