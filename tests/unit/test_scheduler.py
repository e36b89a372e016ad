"""How jobs end: answers, deadlines, cancels, closed lanes, stop and death; driven by hand."""

import pytest
from scheduling import Desk, answer, answer_after

from service.errors import DeadlineExceeded, EngineStopped, LoadError, NotReady
from service.scheduling.scheduler import Lane


def test_late_jobs_never_reach_the_model():
    desk = Desk()
    late, timely = desk.submit(1, deadline=1.0), desk.submit(2, deadline=1.5)
    desk.clock.now = 1.0
    assert desk.run_all() == 1
    assert isinstance(late.error, DeadlineExceeded)
    assert late.outputs is None
    assert answer(timely) == [4]
    assert desk.model.batches == [[2]]
    assert desk.scheduler.waiting_rows == 0


def test_a_queue_of_late_jobs_is_emptied_without_a_batch():
    desk = Desk()
    jobs = [desk.submit(i, deadline=1.0) for i in range(9)]
    desk.clock.now = 2.0
    assert desk.run_all() == 1
    assert all(isinstance(job.error, DeadlineExceeded) for job in jobs)
    assert desk.finished == jobs
    assert desk.model.batches == []
    assert desk.reports == []
    assert desk.scheduler.next_due() is None


def test_a_split_job_whose_time_runs_out_between_its_parts_is_late():
    desk = Desk(seconds=1.0)
    job = desk.submit(*range(20), deadline=2.0)
    desk.run_all()
    assert len(desk.model.batches) == 2
    assert isinstance(job.error, DeadlineExceeded)
    assert desk.finished == [job]
    assert desk.scheduler.waiting_rows == 0


def test_an_abandoned_job_leaves_at_once_and_silently():
    desk = Desk()
    jobs = [desk.submit(i, i) for i in range(3)]
    assert desk.scheduler.cancel(jobs[1]) is True
    assert desk.scheduler.waiting_rows == 4
    assert desk.scheduler.cancel(jobs[1]) is False
    desk.run_all()
    assert desk.model.batches == [[0, 0, 2, 2]]
    assert desk.finished == [jobs[0], jobs[2]]
    assert jobs[1].outputs is None
    assert jobs[1].error is None


def test_a_cancel_with_an_error_finishes_the_job():
    desk = Desk()
    job, error = desk.submit(1), DeadlineExceeded("late")
    assert desk.scheduler.cancel(job, error) is True
    assert desk.finished == [job]
    assert job.error is error
    assert desk.scheduler.cancel(job, error) is False
    assert desk.run_all() == 0
    assert desk.finished == [job]


@pytest.mark.parametrize("error", [None, DeadlineExceeded("late")])
def test_a_cancel_while_the_batch_runs_drops_the_result(error):
    desk = Desk()
    cancelled, neighbour = desk.submit(1), desk.submit(2)
    returned = []
    desk.model.before = lambda: returned.append(desk.scheduler.cancel(cancelled, error))
    desk.run_all()
    assert returned == [True]
    assert cancelled.outputs is None
    assert cancelled.error is error
    assert desk.finished == ([cancelled, neighbour] if error else [neighbour])
    assert answer(neighbour) == [4]


def test_a_cancel_between_parts_stops_the_rest():
    desk = Desk(max_batch_size=4)
    job = desk.submit(*range(20))
    desk.scheduler.step()
    assert desk.scheduler.cancel(job) is True
    assert desk.scheduler.waiting_rows == 0
    assert desk.run_all() == 0
    assert desk.finished == []


def test_a_cancel_of_a_running_part_stops_the_rest():
    desk = Desk(max_batch_size=4)
    job = desk.submit(*range(20))
    desk.model.before = lambda: desk.scheduler.cancel(job)
    assert desk.run_all() == 1
    assert desk.finished == []
    assert desk.scheduler.waiting_rows == 0


def test_a_finished_job_cannot_be_cancelled():
    desk = Desk()
    job = desk.submit(1)
    desk.run_all()
    assert desk.scheduler.cancel(job, DeadlineExceeded("late")) is False
    assert answer(job) == [2]
    assert desk.finished == [job]


def test_jobs_of_a_closed_lane_wait_and_nobody_waits_with_them():
    desk = Desk()
    closed = Lane("closed", max_batch_size=4)
    early = desk.submit(1, lane=closed)
    other = desk.submit(2)
    assert desk.run_all() == 1
    assert desk.finished == [other]
    assert desk.scheduler.waiting_rows == 1
    assert desk.scheduler.next_due() is None
    desk.scheduler.open(closed, desk.model)
    assert desk.run_all() == 1
    assert answer(early) == [2]


def test_a_closed_lane_that_fails_answers_its_jobs_and_later_ones():
    desk = Desk()
    closed = Lane("closed", max_batch_size=4)
    jobs = [desk.submit(i, lane=closed) for i in range(3)]
    error = LoadError("cannot", mend="do this")
    desk.scheduler.fail(closed, error)
    assert desk.finished == jobs
    assert desk.scheduler.waiting_rows == 0
    assert {type(job.error) for job in jobs} == {LoadError}
    assert {(job.error.message, job.error.mend) for job in jobs} == {("cannot", "do this")}
    assert len({id(job.error) for job in jobs} | {id(error)}) == 4, "threads must not share an exception"
    with pytest.raises(LoadError):
        desk.submit(1, lane=closed)
    assert answer_after(desk, desk.submit(2)) == [4]


def test_a_failed_lane_may_be_opened_after_all():
    desk = Desk()
    lane = Lane("m", max_batch_size=4)
    desk.scheduler.fail(lane, NotReady("not yet"))
    desk.scheduler.open(lane, desk.model)
    assert answer_after(desk, desk.submit(3, lane=lane)) == [6]


def test_jobs_of_a_closed_lane_can_be_cancelled_and_can_be_late():
    desk = Desk()
    closed = Lane("closed", max_batch_size=4)
    gone, late, kept = (desk.submit(i, lane=closed, deadline=d) for i, d in enumerate([9.0, 1.0, 9.0]))
    desk.scheduler.cancel(gone)
    desk.clock.now = 2.0
    desk.scheduler.open(closed, desk.model)
    desk.run_all()
    assert isinstance(late.error, DeadlineExceeded)
    assert answer(kept) == [4]
    assert desk.model.batches == [[2]]


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_ends_the_engine_and_everybody_is_told(raised):
    deaths = []
    desk = Desk(max_batch_size=2, on_death=lambda cause: deaths.append((cause, len(desk.finished))))

    def run(_):
        raise raised

    deadly, closed = desk.new_lane(2, run), Lane("closed", max_batch_size=2)
    jobs = [desk.submit(1, 2, 3, lane=deadly), desk.submit(1), desk.submit(2, lane=closed)]
    with pytest.raises(raised):
        desk.scheduler.step()
    assert sorted(map(id, desk.finished)) == sorted(map(id, jobs))
    assert {type(job.error) for job in jobs} == {EngineStopped}
    assert [(type(cause), told) for cause, told in deaths] == [(raised, 3)]
    assert desk.scheduler.alive is False
    assert desk.scheduler.waiting_rows == 0
    with pytest.raises(EngineStopped):
        desk.submit(1)
    assert desk.scheduler.step() is False
    assert desk.scheduler.cancel(jobs[0]) is False
    desk.scheduler.fail(closed, NotReady("too late"))
    desk.scheduler.stop(drain=True)
    assert len(desk.finished) == 3
    assert len(deaths) == 1


def test_a_defect_of_the_scheduler_itself_ends_the_engine_too():
    desk = Desk()
    jobs = [desk.submit(1), desk.submit(2, deadline="never"), desk.submit(3)]
    with pytest.raises(TypeError):
        desk.scheduler.step()
    assert {type(job.error) for job in jobs} == {EngineStopped}
    assert len(desk.finished) == 3


def test_neighbours_that_were_answered_before_the_death_keep_their_answer():
    desk = Desk(max_batch_size=4)
    calls = []

    def run(batch):
        calls.append(len(batch["x"]))
        if len(calls) == 1:
            raise ValueError  # so that the halves run one after the other
        if len(calls) == 3:
            raise SystemExit
        return {"y": batch["x"] * 2}

    lane = desk.new_lane(run=run)
    jobs = [desk.submit(i, lane=lane) for i in range(4)]
    with pytest.raises(SystemExit):
        desk.scheduler.step()
    assert [answer(job) for job in jobs[:2]] == [[0], [2]]
    assert {type(job.error) for job in jobs[2:]} == {EngineStopped}
    assert len(desk.finished) == 4


def test_stop_with_drain_runs_what_waits_and_refuses_what_cannot():
    desk = Desk(max_batch_size=2, max_batch_delay_s=60.0)
    closed = Lane("closed", max_batch_size=2)
    jobs = [desk.submit(i) for i in range(5)]
    waiting = desk.submit(9, lane=closed)
    desk.scheduler.stop(drain=True)
    assert [answer(job) for job in jobs] == [[2 * i] for i in range(5)]
    assert type(waiting.error) is NotReady
    assert len(desk.finished) == 6
    with pytest.raises(NotReady):
        desk.submit(1)


def test_stop_without_drain_refuses_what_waits():
    desk = Desk(max_batch_size=2)
    jobs = [desk.submit(i) for i in range(5)]
    desk.scheduler.step()
    desk.scheduler.stop(drain=False)
    assert [type(job.error) for job in jobs] == [type(None)] * 2 + [NotReady] * 3
    assert len(desk.finished) == 5
    assert desk.scheduler.waiting_rows == 0
