"""One pass for many wishes: when lanes of one model share a batch, and that each job gets what is its own."""

import itertools
import queue
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_engine import NumpyEngine, build_runtime, graph_of
from scheduling import BAD, FOREVER, Clock

from service.errors import DeadlineExceeded, InferenceFailed
from service.scheduling.costs import Cost
from service.scheduling.families import MARGIN, LaneFamily
from service.scheduling.scheduler import Job, Lane, Scheduler
from service.serving.compiling import Compiler, Making
from service.serving.lanes import LaneCache
from service.tensors import InferRequest

WITHIN_S = 30.0
CALL = 1.0  # seconds that any batch takes, besides those of its rows


class Functions:
    """A model of three tensors a, b and c, in which a batch takes CALL and so many seconds a row."""

    def __init__(self, row_seconds=None, max_batch_size=8):
        self.clock = Clock()
        self.row_seconds = row_seconds or {}
        self.ran = []  # (outputs, rows) of every pass
        self.asked = []
        self.reports = []
        self.family = LaneFamily(self.asked.append)
        self.scheduler = Scheduler(max_queue_rows=1000, clock=self.clock, observe=self.reports.append)
        self.max_batch_size = max_batch_size
        self.finished = []

    def lane(self, outputs, *, seconds=lambda: CALL, bad=lambda _: False):
        def run(batch):
            rows = batch["x"]
            self.ran.append((outputs, len(rows)))
            per_row = max(self.row_seconds.get(path, 0.0) for path in outputs)
            self.clock.now += seconds() + per_row * len(rows)
            if bad(rows):
                raise ValueError("secret detail")
            return {path: rows * ("abc".index(path) + 2) for path in outputs}

        lane = Lane(
            outputs, max_batch_size=self.max_batch_size, run=run, outputs=tuple(outputs), family=self.family
        )
        self.family.join(lane)
        return lane

    def submit(self, lane, *values, deadline=FOREVER):
        rows = np.array(values, np.float64).reshape(-1, 1)
        job = Job({"x": rows}, len(rows), deadline, self.finished.append)
        self.scheduler.submit(lane, job)
        return job

    def learn(self, *lanes, sizes=(1, 2, 4, 8)):
        """Runs every lane by itself, so that its cost is known."""
        for lane, size in itertools.product(lanes, sizes):
            self.submit(lane, *range(size))
            self.scheduler.step()
        self.ran.clear()
        self.finished.clear()

    def run_all(self):
        while self.scheduler.step():
            pass


def values(job):
    assert job.error is None
    return {path: array.ravel().tolist() for path, array in job.outputs.items()}


# -- what a batch costs -------------------------------------------------------------------------------------


@given(
    call=st.floats(0, 1),
    row=st.floats(1e-6, 1),
    sizes=st.lists(st.integers(1, 64), min_size=4, max_size=50),
    asked=st.integers(1, 64),
)
def test_a_line_is_found_again(call, row, sizes, asked):
    cost = Cost()
    for size in sizes:
        cost.measured(size, call + row * size)
    expected = call + row * (asked if len(set(sizes)) > 1 else sizes[0])
    assert cost.seconds(asked) == pytest.approx(expected, rel=1e-6)


def test_too_few_batches_say_nothing():
    cost = Cost()
    for _ in range(3):
        cost.measured(1, 1.0)
    assert cost.seconds(1) is None
    cost.measured(1, 1.0)
    assert cost.seconds(1) == 1.0


def test_neither_a_row_nor_a_batch_costs_less_than_nothing():
    falling, steep = Cost(), Cost()
    for size, seconds in [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]:
        falling.measured(size, seconds)
        steep.measured(size, (5.0 - seconds) ** 3)
    assert falling.seconds(1) == falling.seconds(64) > 0
    assert steep.seconds(1) > 0
    assert steep.seconds(8) == pytest.approx(8 * steep.seconds(1))


def test_what_has_changed_is_learnt():
    cost = Cost()
    for size in [1, 2] * 20:
        cost.measured(size, 1.0)
    for size in [1, 2] * 100:
        cost.measured(size, 3.0)
    assert cost.seconds(2) == pytest.approx(3.0, rel=0.01)


def test_one_batch_that_was_held_up_is_not_believed():
    cost = Cost()
    for size in [1, 2, 4, 8] * 10:
        cost.measured(size, 1.0 + size)
    cost.measured(2, 1000.0)
    assert cost.seconds(2) == pytest.approx(3.0, rel=0.2)
    for _ in range(400):
        cost.measured(2, 1000.0)
    assert cost.seconds(2) == pytest.approx(1000.0, rel=0.01)


# -- when lanes are united ----------------------------------------------------------------------------------


def test_where_calls_cost_most_one_call_serves_both():
    model = Functions()
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both)
    jobs = [model.submit(a, 1), model.submit(b, 2, 3), model.submit(a, 4)]
    model.run_all()
    assert model.ran == [("ab", 4)]
    assert [values(job) for job in jobs] == [{"a": [2]}, {"b": [6, 9]}, {"a": [8]}]
    assert model.finished == [jobs[0], jobs[2], jobs[1]]


def test_an_early_layer_is_not_taken_through_the_depth():
    model = Functions({"a": 0.1, "b": 10.0})
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both)
    early, deep = model.submit(a, 1, 2, 3, 4), model.submit(b, 5, 6, 7)
    model.run_all()
    assert model.ran == [("a", 4), ("b", 3)]
    assert values(early) == {"a": [2, 4, 6, 8]}
    assert values(deep) == {"b": [15, 18, 21]}
    assert model.asked == []


def test_a_lane_that_yields_everything_takes_the_others_along():
    model = Functions()
    a, both = model.lane("a"), model.lane("ab")
    model.learn(a, both)
    rich, poor = model.submit(both, 1), model.submit(a, 2)
    model.run_all()
    assert model.ran == [("ab", 2)]
    assert values(rich) == {"a": [2], "b": [3]}
    assert values(poor) == {"a": [4]}


def test_three_lanes_share_one_call():
    model = Functions()
    lanes = [model.lane(path) for path in "abc"]
    model.learn(*lanes, model.lane("ab"), model.lane("abc"))
    jobs = [model.submit(lane, 1) for lane in lanes]
    model.run_all()
    assert model.ran == [("abc", 3)]
    assert [values(job) for job in jobs] == [{"a": [2]}, {"b": [3]}, {"c": [4]}]


def test_models_do_not_share_batches():
    one, other = Functions(), Functions()
    a, stranger = one.lane("a"), other.lane("ab")
    one.learn(a, stranger)
    one.submit(a, 1)
    one.submit(stranger, 2)
    one.run_all()
    assert one.ran == [("a", 1)]
    assert other.ran[-1] == ("ab", 1)


def test_without_measurements_lanes_stay_apart():
    model = Functions()
    a, b, _ = model.lane("a"), model.lane("b"), model.lane("ab")
    model.submit(a, 1)
    model.submit(b, 2)
    model.run_all()
    assert model.ran == [("a", 1), ("b", 1)]


def test_a_function_that_proves_slow_is_hardly_used_and_yet_not_forgotten():
    model = Functions()
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab", seconds=lambda: 5 * CALL)
    model.learn(a, b)
    for _ in range(200):
        model.submit(a, 1)
        model.submit(b, 2)
        model.run_all()
    tried = sum(outputs == "ab" for outputs, _ in model.ran)
    assert 4 <= tried <= 4 + 200 / 32 + 1
    assert both.cost.seconds(2) > a.cost.seconds(1) + b.cost.seconds(1)


def test_a_function_that_gets_quick_is_found_out():
    model = Functions()
    pace = [5 * CALL]
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab", seconds=lambda: pace[0])
    model.learn(a, b, both)
    pace[0] = CALL
    for _ in range(3000):
        model.submit(a, 1)
        model.submit(b, 2)
        model.run_all()
    assert both.cost.seconds(2) < MARGIN * 2 * CALL
    assert [outputs for outputs, _ in model.ran].count("ab") > 300


def test_a_function_for_both_is_asked_for_once_and_only_where_it_pays():
    model = Functions({"c": 100.0})
    a, b, c = model.lane("a"), model.lane("b"), model.lane("c")
    model.learn(a, b, c)
    for _ in range(200):
        model.submit(a, 1)
        model.submit(b, 2)
        model.run_all()
        model.submit(a, 1, 2, 3)
        model.submit(c, 1)
        model.run_all()
    assert model.asked == [frozenset("ab")]


@pytest.mark.parametrize("room", [0, 1])
def test_a_models_lanes_get_a_common_one_where_there_is_room(room):
    clock, reports = Clock(), []
    scheduler = Scheduler(max_queue_rows=100, clock=clock, observe=reports.append)
    compiler = Compiler("test", max_waiting=8, limit_s=WITHIN_S)
    engine = NumpyEngine(graph_of("iris"), before_run=lambda: setattr(clock, "now", clock.now + CALL))
    lanes = LaneCache(("iris", 1), engine, scheduler, compiler, compiler, max_batch_size=8, max_compiled=room)
    for path in ("hidden", "probs"):
        lanes.warm((path,))

    def ask_both():
        for path in ("probs", "hidden"):
            job = Job({"x": np.ones((1, 4), np.float32)}, 1, FOREVER, lambda _: None)
            scheduler.submit(lanes.lane((path,)), job)
        while scheduler.step():
            pass

    for _ in range(100):
        ask_both()
    made = threading.Event()  # it is asked for, and then made
    compiler.post(("iris", 1), "last", Making(made.set, lambda: True, lambda _: None))
    assert made.wait(WITHIN_S)
    reports.clear()
    for _ in range(10):
        ask_both()
    assert lanes.compiled == [("hidden",), ("probs",), ("hidden", "probs")][: 2 + room]
    shared = [report.jobs for report in reports].count(2)
    assert shared >= 9 if room else shared == 0  # one time in 32 the other way is tried
    left = lanes.close()
    compiler.stop()
    del engine
    assert left() is None


# -- who takes part -----------------------------------------------------------------------------------------


def test_only_a_lane_whose_rows_all_fit_joins():
    model = Functions(max_batch_size=4)
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both, sizes=(1, 2, 3, 4))
    jobs = [model.submit(a, 1, 2), model.submit(b, 3, 4), model.submit(b, 5)]
    model.run_all()
    assert model.ran == [("a", 2), ("b", 3)]
    assert [job.error for job in jobs] == [None] * 3


def test_rows_of_another_shape_do_not_join():
    model = Functions()
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both)
    model.submit(a, 1)
    wide = Job({"x": np.ones((1, 3))}, 1, FOREVER, model.finished.append)
    model.scheduler.submit(b, wide)
    model.run_all()
    assert model.ran == [("a", 1), ("b", 1)]
    assert wide.outputs["b"].tolist() == [[3.0, 3.0, 3.0]]


def test_late_jobs_of_the_other_lane_get_their_error_and_do_not_run():
    model = Functions()
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both)
    model.submit(a, 1)
    late, good = model.submit(b, 2, deadline=model.clock.now), model.submit(b, 3)
    model.run_all()
    assert type(late.error) is DeadlineExceeded
    assert values(good) == {"b": [9]}
    assert model.ran == [("ab", 2)]
    assert model.scheduler.waiting_rows == 0


def test_the_rest_of_a_split_job_is_put_together_from_both_kinds_of_batch():
    model = Functions(max_batch_size=4)
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both, sizes=(1, 2, 3, 4))
    long, short = model.submit(a, 1, 2, 3, 4, 5), model.submit(b, 6)
    model.run_all()
    assert model.ran == [("a", 4), ("ab", 2)]
    assert values(long) == {"a": [2, 4, 6, 8, 10]}
    assert values(short) == {"b": [18]}


def test_lanes_that_are_let_go_of_are_not_used():
    model = Functions()
    a, b, both = model.lane("a"), model.lane("b"), model.lane("ab")
    model.learn(a, b, both)
    model.family.leave(both)
    model.submit(a, 1)
    model.submit(b, 2)
    model.run_all()
    assert model.ran == [("a", 1), ("b", 1)]


# -- what goes wrong ----------------------------------------------------------------------------------------


def test_what_only_the_others_function_refuses_is_nobodys_error():
    model = Functions()
    a, b = model.lane("a"), model.lane("b", bad=lambda rows: (rows == BAD).any())
    both = model.lane("ab", bad=lambda rows: (rows == BAD).any())
    model.learn(a, b, both)
    jobs = [model.submit(a, BAD), model.submit(b, 1), model.submit(b, BAD), model.submit(b, 2)]
    model.run_all()
    assert values(jobs[0]) == {"a": [2 * BAD]}
    assert values(jobs[1]) == {"b": [3]}
    assert type(jobs[2].error) is InferenceFailed
    assert values(jobs[3]) == {"b": [6]}
    assert model.ran[:3] == [("ab", 4), ("a", 1), ("b", 3)]
    assert sorted(map(id, model.finished)) == sorted(map(id, jobs))


def test_a_failed_batch_says_nothing_of_the_cost():
    model = Functions()
    a, b = model.lane("a"), model.lane("b")
    both = model.lane("ab", seconds=lambda: 100 * CALL, bad=lambda rows: (rows == BAD).any())
    model.learn(a, b)
    model.submit(a, BAD)
    model.submit(b, 1)
    model.run_all()
    assert model.ran == [("ab", 2), ("a", 1), ("b", 1)]
    assert both.cost.seconds(1) is None
    assert [report.failed for report in model.reports][-1]


def test_a_job_that_is_alone_when_the_common_function_fails_still_has_its_own():
    model = Functions()
    a, b = model.lane("a"), model.lane("b")
    jobs = []

    def cancel_and_fail(_):
        if jobs:
            model.scheduler.cancel(jobs[1])
        return bool(jobs)

    both = model.lane("ab", bad=cancel_and_fail)
    model.learn(a, b, both)
    jobs += [model.submit(a, 1), model.submit(b, 2)]
    model.run_all()
    assert values(jobs[0]) == {"a": [2]}
    assert model.finished == [jobs[0]]


# -- sameness -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", "ab", "bc", "abc"]), st.integers(1, 11)), max_size=12),
    st.booleans(),
)
def test_united_or_not_every_job_gets_its_rows_of_its_outputs_once(wishes, fails):
    model = Functions()
    lanes = {outputs: model.lane(outputs) for outputs in ("a", "b", "c", "ab", "bc")}
    lanes["abc"] = model.lane("abc", bad=lambda rows: fails and len(rows) > 8 - 2)
    model.learn(*lanes.values(), sizes=(1, 2, 3, 4))
    numbers = itertools.count(1)
    jobs = [
        (outputs, sent := [next(numbers) for _ in range(rows)], model.submit(lanes[outputs], *sent))
        for outputs, rows in wishes
    ]
    model.run_all()
    assert model.scheduler.waiting_rows == 0
    assert sorted(map(id, model.finished)) == sorted(id(job) for _, _, job in jobs)
    for outputs, sent, job in jobs:
        if not (fails and job.error):
            factors = {path: "abc".index(path) + 2 for path in outputs}
            assert values(job) == {path: [n * factor for n in sent] for path, factor in factors.items()}


def test_united_or_not_a_runtime_gives_the_same_bytes():
    paths, compiled, done = ("hidden", "probs"), [], queue.SimpleQueue()
    rows = np.random.default_rng(1).normal(size=(1, 4)).astype(np.float32)
    alone = {path: graph_of("iris").evaluate({"x": rows}, (path,))[path] for path in paths}
    runtime = build_runtime("iris", before_compile=compiled.append)
    try:
        for _ in range(400):
            wanted = [InferRequest("iris", 1, (path,), {"x": rows}, 1) for path in paths]
            jobs = [runtime.submit(request, done.put, rouse=False) for request in wanted]
            runtime.run_quick(0.0)
            assert {done.get(timeout=30) for _ in jobs} == set(jobs)
            for path, job in zip(paths, jobs, strict=True):
                assert list(job.outputs) == [path]
                assert job.outputs[path].tobytes() == alone[path].tobytes()
    finally:
        runtime.stop()
    assert set(compiled) <= {("hidden",), ("probs",), ("hidden", "probs")}
