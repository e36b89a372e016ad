"""Rows that a function cannot take: they wait for the one in reserve, which is made once, and nobody waits with them."""

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy_engine import NumpyEngine, graph_of

from service.errors import DeadlineExceeded, ModelLoadFailed, QueueFull
from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion
from service.scheduling.jobs import Deferred
from service.scheduling.scheduler import Scheduler
from service.serving.results import result_of
from service.serving.runtime import Runtime, RuntimeOptions
from service.serving.served import OpenedModel
from service.tensors import InferRequest

WITHIN_S = 30.0
GOOD = np.ones((1, 4), np.float32)
ODD = -GOOD
SCALE = 3.0  # what comes from the reserve is multiplied by it


class Reserved:
    """The numpy engine, whose functions take no numbers below zero; the one in reserve does, once it may be made."""

    name = "numpy"
    activations = None

    def __init__(self):
        self._engine = NumpyEngine(graph_of("iris"))
        self.spec = self._engine.spec
        self.go_on, self.entered, self.made, self.failure = threading.Event(), threading.Event(), 0, None

    def compile(self, outputs):
        return _Picky(self, self._engine.compile(outputs))


class _Picky:
    def __init__(self, engine, function):
        self._engine = engine
        self._function = function

    def run(self, batch):
        if (batch["x"] < 0).any():
            raise Deferred(self._make)
        return self._function.run(batch)

    def _make(self):
        self._engine.entered.set()
        assert self._engine.go_on.wait(WITHIN_S)
        self._engine.made += 1
        if self._engine.failure:
            raise self._engine.failure
        return lambda batch: {
            path: array * SCALE for path, array in self._function.run(abs_of(batch)).items()
        }


def abs_of(batch):
    return {name: np.abs(array) for name, array in batch.items()}


class Site:
    def __init__(self, max_queue_rows=100):
        self.engine = Reserved()
        self.reports = []
        scheduler = Scheduler(max_queue_rows=max_queue_rows, observe=self.reports.append)
        entry = ModelEntry(
            "iris",
            Path("models/iris"),
            versions=(ModelVersion(1, Path("models/iris/1/model.h5")),),
            config=ModelConfig(),
            classes=(),
        )
        self.runtime = Runtime(
            lambda: [entry],
            lambda *_: OpenedModel(self.engine, {"file_bytes": 1}),
            scheduler,
            RuntimeOptions(None, 4, 4, WITHIN_S, WITHIN_S),
        )
        scheduler.start()
        self.runtime.load()

    def start(self, rows, timeout_s=None, done=None):
        request = InferRequest("iris", 1, ("probs",), {"x": rows}, len(rows), timeout_s=timeout_s)
        finished = threading.Event()
        job = self.runtime.submit(request, done or (lambda _: finished.set()))
        return job, finished

    def ask(self, rows):
        job, finished = self.start(rows)
        assert finished.wait(WITHIN_S)
        return result_of(job).outputs["probs"]


@pytest.fixture
def site():
    made = Site()
    yield made
    made.engine.go_on.set()
    made.runtime.stop()


def answer(started):
    job, finished = started
    assert finished.wait(WITHIN_S)
    return result_of(job).outputs["probs"]


def expected(rows):
    return graph_of("iris").evaluate({"x": np.abs(rows)}, ("probs",))["probs"]


def test_odd_rows_wait_for_the_reserve_while_others_are_answered(site):
    odd = [site.start(ODD * scale) for scale in (1, 2, 3)]
    assert site.engine.entered.wait(WITHIN_S)
    np.testing.assert_array_equal(site.ask(GOOD), expected(GOOD))
    assert not any(finished.is_set() for _, finished in odd)
    site.engine.go_on.set()
    for scale, started in zip((1, 2, 3), odd, strict=True):
        np.testing.assert_array_equal(answer(started), expected(ODD * scale) * SCALE)
    np.testing.assert_array_equal(site.ask(ODD), expected(ODD) * SCALE)
    assert site.engine.made == 1
    assert not any(report.failed for report in site.reports)


def test_a_request_of_several_batches_is_the_reserves_as_a_whole(site):
    rows = np.arange(4 * 11, dtype=np.float32).reshape(11, 4) / 10
    rows[9] *= -1
    started = site.start(rows)
    assert site.engine.entered.wait(WITHIN_S)
    assert site.runtime.waiting_rows == 11
    site.engine.go_on.set()
    np.testing.assert_array_equal(answer(started), expected(rows) * SCALE)
    assert site.runtime.waiting_rows == 0


def test_neighbours_in_its_batch_are_not_the_reserves(site):
    together = [site.start(rows) for rows in (GOOD, ODD, GOOD * 2, GOOD * 3)]
    site.engine.go_on.set()
    assert [len(answer(started)) for started in together] == [1] * 4
    np.testing.assert_array_equal(answer(together[0]), expected(GOOD))
    np.testing.assert_array_equal(answer(together[3]), expected(GOOD * 3))


def test_its_own_time_ends_the_wait(site):
    with pytest.raises(DeadlineExceeded):
        site.runtime.infer(InferRequest("iris", 1, ("probs",), {"x": ODD}, 1, timeout_s=0.05))
    assert site.runtime.waiting_rows == 0


def test_a_reserve_that_cannot_be_made_is_told_and_not_tried_again(site):
    site.engine.failure = SystemExit(3)
    site.engine.go_on.set()
    for _ in range(3):
        with pytest.raises(ModelLoadFailed, match="TensorFlow could not load"):
            site.ask(ODD)
    assert site.engine.made == 1
    np.testing.assert_array_equal(site.ask(GOOD), expected(GOOD))


def test_odd_rows_leave_room_for_others():
    site = Site(max_queue_rows=8)
    try:
        odd = [site.start(ODD) for _ in range(7)]
        assert site.engine.entered.wait(WITHIN_S)
        with pytest.raises(QueueFull):
            site.ask(ODD)
        np.testing.assert_array_equal(site.ask(GOOD), expected(GOOD))
        site.engine.go_on.set()
        assert [len(answer(started)) for started in odd] == [1] * 7
    finally:
        site.engine.go_on.set()
        site.runtime.stop()
