"""Who is let in: measured work before a request against its time; driven by hand, one row takes a tenth of a second."""

import math

import pytest
from scheduling import FOREVER, Desk, answer

from service.errors import QueueFull
from service.scheduling.admission import Pace
from service.scheduling.jobs import Lane

ROW_S = 0.1
BATCH = 4


class Timed:
    """A model whose rows take their time on the clock, and now and then longer."""

    def __init__(self, clock, row_s=ROW_S):
        self.clock = clock
        self.row_s = row_s
        self.extra_s = 0.0

    def __call__(self, batch):
        self.clock.now += self.row_s * len(batch["x"]) + self.extra_s
        self.extra_s = 0.0
        return {"y": batch["x"] * 2}


def timed_desk(*row_s, batches=8, **options):
    """A desk and a lane for each time of a row, all of them measured."""
    desk = Desk(**options)
    lanes = [desk.new_lane(BATCH, run=Timed(desk.clock, seconds)) for seconds in row_s or (ROW_S,)]
    for lane in lanes:
        for _ in range(batches):
            desk.submit(*range(BATCH), lane=lane)
            desk.run_all()
    return desk, lanes


def fill(desk, lane, left_s, *values):
    """The jobs that came in one after the other, and the error of the first that did not."""
    jobs = []
    while True:
        try:
            jobs.append(desk.submit(*values, lane=lane, deadline=desk.clock.now + left_s))
        except QueueFull as error:
            return jobs, error


def admitted(desk, lane, left_s, most=1000, **options):
    """How many rows come in one after the other, each with so much time."""
    for count in range(most):
        try:
            desk.submit(1, lane=lane, deadline=desk.clock.now + left_s, **options)
        except QueueFull:
            return count
    return most


@pytest.mark.parametrize("left_s", [1.1, 2.1, 10.1])
def test_a_lane_alone_fills_half_of_a_requests_time(left_s):
    desk, [lane] = timed_desk()
    assert admitted(desk, lane, left_s) == int(0.5 * left_s / ROW_S)


def test_all_that_come_in_are_answered_in_time_and_the_rest_is_told_when_to_come_back():
    desk, [lane] = timed_desk()
    jobs, error = fill(desk, lane, 5.1, 1)
    assert error.retry_after_s == math.ceil(ROW_S * (len(jobs) + 1))
    assert error.message == (
        "Expected a request that can be answered within 5.1 s. Received: one behind about 2.6 s of work."
    )
    desk.run_all()
    assert [answer(job) for job in jobs] == [[2]] * 25


def test_retry_after_follows_what_waits_and_is_bounded():
    found = []
    for left_s in (1.1, 10.1, 40.1, 900.0):
        desk, [lane] = timed_desk(max_queue_rows=10_000)
        found.append(fill(desk, lane, left_s, *range(BATCH))[1].retry_after_s)
    assert found == [1, 6, 21, 60]


def test_a_lone_job_on_an_idle_engine_comes_in_whatever_it_takes():
    desk, [lane] = timed_desk()
    desk.submit(*range(500), lane=lane, deadline=desk.clock.now + 0.1)
    with pytest.raises(QueueFull):
        desk.submit(1, lane=lane, deadline=desk.clock.now + 0.1)


def test_what_nobody_has_measured_is_held_to_the_limit_of_rows_only():
    desk, [lane] = timed_desk(batches=3, max_queue_rows=50)
    assert admitted(desk, lane, 0.1) == 50


def test_one_measurement_that_was_far_too_long_refuses_nobody():
    desk, [lane] = timed_desk(batches=30)
    before = admitted(desk, lane, 4.0)
    desk.run_all()
    lane.run.extra_s = 1000.0
    desk.submit(1, 2, 3, 4, lane=lane)
    desk.run_all()
    after = admitted(desk, lane, 4.0)
    assert after >= 0.5 * before


def test_a_function_that_has_become_slower_is_believed_after_a_while():
    desk, [lane] = timed_desk(batches=30)
    lane.run.row_s = 5 * ROW_S
    for _ in range(100):
        desk.submit(1, 2, 3, 4, lane=lane)
        desk.run_all()
    assert admitted(desk, lane, 10.0) <= 11


def test_what_runs_counts_until_it_should_be_over():
    desk, [lane] = timed_desk()
    seen = []

    def look():
        for passed_s, left_s in [(0.0, 0.7), (0.0, 1.0), (0.3, 0.7), (10.0, 0.7)]:
            desk.clock.now += passed_s
            try:
                desk.submit(1, lane=lane, deadline=desk.clock.now + left_s)
            except QueueFull:
                seen.append(False)
            else:
                seen.append(True)
                desk.scheduler.cancel(desk.last)

    class Looking(Timed):
        def __call__(self, batch):
            look()
            return super().__call__(batch)

    submit = desk.submit

    def remember(*values, **options):
        desk.last = submit(*values, **options)
        return desk.last

    desk.submit = remember
    desk.scheduler.open(lane, Looking(desk.clock))
    submit(1, 2, 3, 4, lane=lane)
    desk.scheduler.step()
    assert seen == [False, True, True, True]


def test_a_slow_lanes_backlog_does_not_shut_out_a_quick_one():
    desk, [slow, quick] = timed_desk(ROW_S, ROW_S / 100)
    assert admitted(desk, slow, 10.0) == 50
    assert admitted(desk, quick, 10.0) > 1000 // 2
    assert admitted(desk, slow, 10.0) == 0


def test_requests_with_more_time_come_in_behind_those_with_less():
    desk, [lane] = timed_desk()
    assert admitted(desk, lane, 1.1) == 5
    assert admitted(desk, lane, 4.1) == 15
    assert admitted(desk, lane, 1.1) == 0


def test_a_higher_priority_counts_only_what_goes_before_it():
    desk, [lane] = timed_desk()
    assert admitted(desk, lane, 2.1) == 10
    assert admitted(desk, lane, 2.1, priority=1) == 10
    assert admitted(desk, lane, 2.1, priority=9) == 0
    desk.run_all()
    assert admitted(desk, lane, 2.1, priority=9) == 10


def test_jobs_that_leave_make_room():
    desk, [lane] = timed_desk()
    jobs = [desk.submit(1, lane=lane, deadline=desk.clock.now + 2.1) for _ in range(10)]
    assert admitted(desk, lane, 2.1) == 0
    for job in jobs[::2]:
        desk.scheduler.cancel(job)
    assert admitted(desk, lane, 2.1) == 5


def test_a_place_counts_like_a_job_until_it_is_given_back():
    desk, [lane] = timed_desk(max_queue_rows=7)
    deadline = desk.clock.now + 1.1

    def book():
        return desk.scheduler.book(lane, 1, deadline, (0.0, 0.0))

    places = [book() for _ in range(5)]
    with pytest.raises(QueueFull):
        book()
    assert admitted(desk, lane, 1.1) == 0
    desk.scheduler.leave(places[0])
    desk.scheduler.leave(places[0])  # the second time changes nothing
    places[0] = book()
    with pytest.raises(QueueFull):
        book()
    jobs = [desk.job(i, deadline=deadline) for i in range(5)]
    for job, place in zip(jobs, places, strict=True):
        desk.scheduler.submit(lane, job, place=place)
        desk.scheduler.leave(place)
    assert desk.scheduler.waiting_rows == 5
    desk.run_all()
    assert [answer(job) for job in jobs] == [[2 * i] for i in range(5)]
    assert desk.scheduler.backlog_s == 0


def test_places_count_for_the_limit_of_rows():
    desk = Desk(max_queue_rows=3)
    places = [desk.scheduler.book(None, 1, FOREVER, (0.0, 0.0)) for _ in range(3)]
    for refused in (lambda: desk.submit(1), lambda: desk.scheduler.book(desk.lane, 1, FOREVER, (0.0, 0.0))):
        with pytest.raises(QueueFull):
            refused()
    for place in places:
        desk.scheduler.leave(place)
    desk.submit(1)


def test_a_job_with_more_rows_than_its_place_is_judged_again():
    desk, [lane] = timed_desk()
    desk.submit(1, lane=lane)
    place = desk.scheduler.book(lane, 1, desk.clock.now + 1.1, (0.0, 0.0))
    with pytest.raises(QueueFull):
        desk.scheduler.submit(lane, desk.job(*range(50), deadline=desk.clock.now + 1.1), place=place)
    assert not place.held
    assert admitted(desk, lane, 1.1) == 4


def test_work_before_the_queue_counts_too_and_beside_it():
    desk, [lane] = timed_desk()
    deadline = desk.clock.now + 2.0
    desk.submit(*range(5), lane=lane)
    desk.scheduler.leave(
        desk.scheduler.book(lane, 1, deadline, (0.9, 0.9))
    )  # the queue's 0.5 s pass meanwhile
    with pytest.raises(QueueFull):
        desk.scheduler.book(lane, 1, deadline, (1.1, 1.1))
    desk.scheduler.leave(desk.scheduler.book(lane, 1, deadline, (1.1, 0.1)))  # most of it is another model's


def test_a_job_that_is_late_already_is_told_so_and_not_to_come_back():
    desk, [lane] = timed_desk()
    desk.submit(*range(40), lane=lane)
    late = desk.submit(1, lane=lane, deadline=desk.clock.now)
    desk.run_all()
    assert late.error.code == "deadline_exceeded"


def test_the_backlog_is_told_in_seconds_and_ends_at_nothing():
    desk, [lane, other] = timed_desk(ROW_S, 3 * ROW_S)
    assert desk.scheduler.backlog_s == 0
    desk.submit(*range(6), lane=lane)
    assert desk.scheduler.backlog_s == pytest.approx(0.6)
    desk.submit(*range(2), lane=other)
    assert desk.scheduler.backlog_s == pytest.approx(1.2)
    desk.run_all()
    assert desk.scheduler.backlog_s == pytest.approx(0)


def test_rows_that_are_free_in_a_batch_cost_nothing_in_the_queue():
    """An engine that takes as long for one row as for four: what waits is counted in batches."""
    desk = Desk(seconds=0.4)
    for count in (1, 4, 2, 3) * 4:
        desk.submit(*range(count))
        desk.run_all()
    desk.submit(*range(40))
    assert desk.scheduler.backlog_s == pytest.approx(10 * 0.4)


def test_a_closed_lane_is_never_refused_for_its_time():
    desk, [lane] = timed_desk()
    desk.submit(*range(4), lane=lane)
    closed = Lane("closed", max_batch_size=4)
    assert admitted(desk, closed, 1.0, most=20) == 20


def test_a_pace_is_unknown_until_enough_was_measured_and_follows_what_is():
    pace = Pace(unknown=0.0)
    for _ in range(7):
        pace.measured(2.0, 1.0)
    assert pace.ratio == 0
    pace.measured(0.0, 5.0)
    assert pace.ratio == 0
    pace.measured(2.0, 1.0)
    assert pace.ratio == pytest.approx(0.5)
    for _ in range(200):
        pace.measured(2.0, 6.0)
    assert pace.ratio == pytest.approx(3.0, rel=0.01)
