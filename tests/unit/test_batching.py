"""Inside a batch: who gets which rows, and who gets the error; driven by hand."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import BAD, FOREVER, REJECTED, Clock, Desk, Model, answer, answer_after

from service.errors import (
    InferenceFailed,
    InputRejected,
    LayertapError,
    NotReady,
)
from service.scheduling.scheduler import Job, Lane, Scheduler


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize(("poison", "expected"), [(BAD, InferenceFailed), (REJECTED, InputRejected)])
def test_only_the_culprit_gets_the_error(position, poison, expected):
    desk = Desk(max_batch_size=8)
    jobs = [desk.submit(poison if i == position else i) for i in range(8)]
    desk.run_all()
    for i, job in enumerate(jobs):
        if i == position:
            assert type(job.error) is expected
            assert job.outputs is None
        else:
            assert answer(job) == [2 * i]
    assert sorted(map(id, desk.finished)) == sorted(map(id, jobs))
    assert len(desk.model.batches) == 7  # 8, then one bad and one good half of 4, 2 and 1
    assert [(r.jobs, r.rows, r.failed) for r in desk.reports] == [(8, 8, True)]


@pytest.mark.parametrize("culprits", [(0, 1), (0, 7), (3, 4), (2, 6)])
def test_two_culprits_are_both_found(culprits):
    desk = Desk(max_batch_size=8)
    jobs = [desk.submit(BAD if i in culprits else i) for i in range(8)]
    desk.run_all()
    assert [i for i, job in enumerate(jobs) if job.error] == list(culprits)
    assert all(answer(job) == [2 * i] for i, job in enumerate(jobs) if i not in culprits)


def test_when_all_are_bad_each_gets_its_own_error():
    desk = Desk(max_batch_size=8)
    jobs = [desk.submit(REJECTED if i % 2 else BAD) for i in range(8)]
    desk.run_all()
    assert [type(job.error) for job in jobs] == [InferenceFailed, InputRejected] * 4
    assert len(desk.finished) == 8


def test_a_batch_is_parted_by_job_not_by_row():
    desk = Desk(max_batch_size=8)
    jobs = [desk.submit(1, 2), desk.submit(3, BAD, 5), desk.submit(6, 7, 8)]
    desk.run_all()
    assert [job.error is not None for job in jobs] == [False, True, False]
    assert answer(jobs[2]) == [12, 14, 16]


def test_what_the_model_raised_is_chained_and_not_told(caplog):
    desk = Desk()
    job = desk.submit(BAD)
    with caplog.at_level(logging.ERROR):
        desk.run_all()
    assert isinstance(job.error.__cause__, ValueError)
    assert "secret detail" not in job.error.message
    assert "ValueError" in job.error.message
    assert "secret detail" in caplog.text


def test_an_error_of_ours_passes_as_it_is():
    error = NotReady("the device is away")

    def run(_):
        raise error

    desk = Desk()
    job = desk.submit(1, lane=desk.new_lane(run=run))
    desk.run_all()
    assert job.error is error


def test_too_little_memory_for_a_batch_may_be_enough_for_half():
    def run(batch):
        if len(batch["x"]) > 2:
            raise MemoryError
        return {"y": batch["x"] * 2}

    desk = Desk(max_batch_size=8)
    lane = desk.new_lane(max_batch_size=8, run=run)
    jobs = [desk.submit(i, lane=lane) for i in range(8)]
    desk.run_all()
    assert [answer(job) for job in jobs] == [[2 * i] for i in range(8)]


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:-1], lambda x: np.concatenate([x, x]), lambda x: x.sum(), None]
)
def test_outputs_of_another_number_of_rows_are_a_failure(wrong):
    desk = Desk()
    lane = desk.new_lane(run=lambda batch: {"y": wrong(batch["x"])} if wrong else None)
    jobs = [desk.submit(i, lane=lane) for i in range(3)]
    desk.run_all()
    assert {type(job.error) for job in jobs} == {InferenceFailed}
    assert len(desk.finished) == 3


def test_a_bad_part_ends_a_split_job_once_and_takes_its_rest_along():
    desk = Desk(max_batch_size=4)
    bad = desk.submit(*range(6), BAD, *range(20))
    good = desk.submit(7)
    desk.run_all()
    assert isinstance(bad.error, InferenceFailed)
    assert bad.outputs is None
    assert answer(good) == [14]
    assert sorted(map(id, desk.finished)) == sorted(map(id, [bad, good]))
    assert sum(map(len, desk.model.batches)) < 27
    assert desk.scheduler.waiting_rows == 0


def test_a_good_part_of_a_split_job_survives_a_bad_neighbour():
    desk = Desk(max_batch_size=4)
    jobs = [desk.submit(BAD, 1), desk.submit(*range(9)), desk.submit(BAD)]
    desk.run_all()
    assert answer(jobs[1]) == [2 * i for i in range(9)]
    assert [job.error is not None for job in jobs] == [True, False, True]


def test_a_job_that_is_cancelled_during_the_search_for_a_culprit_is_not_run_again():
    desk = Desk()
    jobs = [desk.submit(BAD), desk.submit(1), desk.submit(2), desk.submit(3)]
    desk.model.before = lambda: desk.scheduler.cancel(jobs[3])
    desk.run_all()
    assert [3.0 in batch for batch in desk.model.batches] == [True, False, False, False, False]
    assert (answer(jobs[1]), answer(jobs[2])) == ([2], [4])
    assert jobs[3] not in desk.finished


@pytest.mark.parametrize("raised", [ValueError, SystemExit])
def test_a_callback_that_raises_disturbs_nobody(raised, caplog):
    def done(_):
        raise raised

    desk = Desk()
    jobs = [desk.submit(1), desk.submit(2, done=done), desk.submit(3)]
    desk.run_all()
    assert [answer(job) for job in jobs] == [[2], [4], [6]]
    assert desk.finished == [jobs[0], jobs[2]]
    assert "callback raised" in caplog.text
    assert answer_after(desk, desk.submit(4)) == [8]


def test_an_observer_that_raises_disturbs_nobody(caplog):
    def observe(_):
        raise ValueError

    model = Model()
    scheduler = Scheduler(max_queue_rows=10, observe=observe)
    finished = []
    lane = Lane("m", max_batch_size=1, run=model)
    for _ in range(2):
        scheduler.submit(lane, Job({"x": np.ones((1, 1))}, 1, FOREVER, finished.append))
        scheduler.step()
    assert len(finished) == 2
    assert "observer raised" in caplog.text


def test_a_batch_is_reported_after_its_jobs_were_told():
    clock, log = Clock(), []
    scheduler = Scheduler(max_queue_rows=10, clock=clock, observe=log.append)
    lane = Lane("iris:probs", max_batch_size=4, run=Model(clock, 0.25), label="iris/1")
    jobs = [Job({"x": np.ones((2, 1))}, 2, FOREVER, log.append) for _ in range(2)]
    for job in jobs:
        scheduler.submit(lane, job)
    scheduler.step()
    assert log[:2] == jobs
    report = log[2]
    assert (report.lane, report.label, report.jobs, report.rows) == ("iris:probs", "iris/1", 2, 4)
    assert (report.seconds, report.failed) == (0.25, False)


def test_timings_add_up_to_the_whole_time():
    desk = Desk(max_batch_size=2, seconds=1.0)
    desk.submit(1, 2)
    desk.clock.now = 0.5
    split = desk.submit(3, 4, 5)
    desk.scheduler.step()  # until 1.5
    desk.clock.now = 2.0
    desk.run_all()  # two parts, until 4.0
    assert (split.queue_s, split.compute_s) == (1.5, 2.0)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    bad=st.sets(st.integers(0, 11)),
    room=st.integers(1, 16),
)
@settings(max_examples=200, deadline=None)
def test_every_set_of_culprits_is_found_whatever_the_sizes(sizes, bad, room):
    desk = Desk(max_batch_size=room)
    jobs = []
    for i, size in enumerate(sizes):
        values = [float(100 * i + k) for k in range(size)]
        if i in bad:
            values[-1] = BAD
        jobs.append((desk.submit(*values), values))
    desk.run_all()
    for i, (job, values) in enumerate(jobs):
        if i in bad:
            assert isinstance(job.error, LayertapError)
        else:
            assert answer(job) == [2 * value for value in values]
    assert sorted(map(id, desk.finished)) == sorted(id(job) for job, _ in jobs)
