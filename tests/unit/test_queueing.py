"""Whose turn it is: order, lanes, splitting, delay, back-pressure; driven by hand."""

import math

import numpy as np
import pytest
from scheduling import FOREVER, Desk, answer

from service.errors import InferenceFailed, InvalidInput, QueueFull, SettingsError
from service.scheduling.jobs import MIDDLE_PRIORITY
from service.scheduling.scheduler import Job, Lane


def test_nothing_to_do_is_said():
    desk = Desk()
    assert desk.scheduler.step() is False
    assert desk.scheduler.next_due() is None
    assert desk.reports == []


def test_jobs_run_in_order_and_share_batches():
    desk = Desk()
    jobs = [desk.submit(i) for i in range(6)]
    assert desk.scheduler.waiting_rows == 6
    assert desk.scheduler.step() is True
    assert desk.model.batches == [[0, 1, 2, 3]]
    assert desk.finished == jobs[:4]
    assert desk.scheduler.waiting_rows == 2
    assert desk.run_all() == 1
    assert [answer(job) for job in jobs] == [[0], [2], [4], [6], [8], [10]]
    assert desk.finished == jobs


def test_a_lone_job_is_not_kept_waiting():
    desk = Desk(max_batch_size=32)
    job = desk.submit(1)
    assert desk.scheduler.next_due() == -math.inf
    desk.scheduler.step()
    assert answer(job) == [2]


def test_the_lane_whose_first_job_is_oldest_is_next():
    desk = Desk()
    other = desk.new_lane(name="other")
    desk.submit(1, lane=desk.lane)
    desk.submit(2, lane=other)
    desk.submit(3, lane=desk.lane)
    desk.submit(4, lane=other)
    desk.run_all()
    assert desk.model.batches == [[1, 3], [2, 4]]
    desk.submit(5, lane=other)
    desk.submit(6, lane=desk.lane)
    desk.run_all()
    assert desk.model.batches[2:] == [[5], [6]]


def test_each_lane_has_its_own_batch_size():
    desk = Desk(max_batch_size=2)
    wide = desk.new_lane(max_batch_size=8)
    for i in range(6):
        desk.submit(i)
        desk.submit(10 + i, lane=wide)
    desk.run_all()
    assert [len(batch) for batch in desk.model.batches] == [2, 6, 2, 2]


def test_rows_of_other_shapes_wait_for_their_own_batch_in_order():
    desk = Desk()

    def square(value, size):
        job = Job({"x": np.full((1, size, size), float(value))}, 1, FOREVER, desk.finished.append)
        desk.scheduler.submit(desk.lane, job)
        return job

    jobs = [square(1, 2), square(2, 3), square(3, 2), square(4, 3), square(5, 2)]
    desk.run_all()
    assert desk.model.batches == [[1, 3, 5], [2, 4]]
    assert [job.outputs["y"].shape for job in jobs] == [(1, s, s) for s in (2, 3, 2, 3, 2)]
    assert [job.outputs["y"].max() for job in jobs] == [2, 4, 6, 8, 10]


def test_inputs_are_matched_by_name_whatever_their_order():
    seen = []

    def run(batch):
        seen.append({name: array.tolist() for name, array in batch.items()})
        return {"sum": batch["a"] + batch["b"]}

    desk = Desk()
    lane = desk.new_lane(run=run)
    one, two = np.array([1.0]), np.array([20.0])
    jobs = [
        Job({"a": one, "b": two}, 1, FOREVER, desk.finished.append),
        Job({"b": two + 1, "a": one + 1}, 1, FOREVER, desk.finished.append),
    ]
    for job in jobs:
        desk.scheduler.submit(lane, job)
    desk.run_all()
    assert seen == [{"a": [1, 2], "b": [20, 21]}]
    assert [job.outputs["sum"].tolist() for job in jobs] == [[21], [23]]


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [({"x": np.zeros((2, 1))}, 3), ({"x": np.zeros(())}, 1), ({"x": np.zeros((0, 1))}, 0), ({}, 0)],
)
def test_a_job_needs_as_many_rows_as_it_says(inputs, rows):
    with pytest.raises(InvalidInput):
        Job(inputs, rows, FOREVER, lambda _: None)


def test_a_lane_needs_room_for_a_row():
    with pytest.raises(SettingsError):
        Lane("m", max_batch_size=0)


def test_a_lone_job_goes_in_and_comes_out_uncopied():
    taken, given_back = [], {"y": np.ones((3, 1))}

    def run(batch):
        taken.append(batch["x"])
        return given_back

    desk = Desk()
    job = desk.submit(1, 2, 3, lane=desk.new_lane(run=run))
    desk.run_all()
    assert taken[0] is job.inputs["x"]
    assert job.outputs["y"] is given_back["y"]


def test_a_job_of_one_part_comes_out_as_a_view():
    made = []

    def run(batch):
        made.append(batch["x"] + 1)
        return {"y": made[-1]}

    desk = Desk()
    lane = desk.new_lane(run=run)
    jobs = [desk.submit(1, 2, lane=lane), desk.submit(3, lane=lane)]
    desk.run_all()
    assert len(made) == 1
    assert all(np.shares_memory(job.outputs["y"], made[0]) for job in jobs)
    assert [answer(job) for job in jobs] == [[2, 3], [4]]


def test_a_large_job_is_split_and_put_together_in_its_own_array():
    desk = Desk(max_batch_size=4)
    job = desk.submit(*range(11))
    assert desk.scheduler.step()
    assert desk.finished == []
    assert job.outputs is None
    assert desk.scheduler.waiting_rows == 7
    assert desk.run_all() == 2
    assert answer(job) == [2 * i for i in range(11)]
    assert desk.finished == [job]
    assert [len(batch) for batch in desk.model.batches] == [4, 4, 3]
    assert job.outputs["y"].flags.owndata


def test_part_of_a_job_fills_what_is_left_of_a_batch_and_its_rest_keeps_its_place():
    desk = Desk(max_batch_size=4)
    jobs = [desk.submit(0, 1, 2), desk.submit(3, 4, 5), desk.submit(6), desk.submit(7)]
    desk.run_all()
    assert desk.model.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [answer(job) for job in jobs] == [[0, 2, 4], [6, 8, 10], [12], [14]]
    assert desk.finished == jobs


def test_a_large_job_gives_way_after_each_part():
    desk = Desk(max_batch_size=4)
    large = desk.submit(*range(1000))
    for i in range(50):
        desk.scheduler.step()
        small = desk.submit(5000 + i)
        before = len(desk.model.batches)
        while not small.finished:
            assert desk.scheduler.step()
        assert len(desk.model.batches) - before <= 2
        assert answer(small) == [10000 + 2 * i]
    desk.run_all()
    assert answer(large) == [2 * i for i in range(1000)]


def test_large_jobs_take_turns_and_other_lanes_get_theirs():
    desk = Desk(max_batch_size=2)
    other = desk.new_lane(name="other")
    first, second = desk.submit(*[1] * 8), desk.submit(*[2] * 8)
    small = desk.submit(3, lane=other)
    desk.run_all()
    assert desk.model.batches[:4] == [[1, 1], [2, 2], [3], [1, 1]]
    assert answer(small) == [6]
    assert (answer(first), answer(second)) == ([2] * 8, [4] * 8)


def test_a_large_job_makes_progress_in_a_stream_of_small_ones():
    desk = Desk(max_batch_size=4)
    large = desk.submit(*range(40))
    steps = 0
    while not large.finished:
        for _ in range(3):
            desk.submit(1)
        desk.scheduler.step()
        steps += 1
        assert steps < 100
    assert answer(large) == [2 * i for i in range(40)]


@pytest.mark.parametrize(
    "parts",
    [
        [np.ones((4, 2)), np.ones((2, 1))],
        [np.ones((4, 1)), np.ones((2, 2))],
        [np.ones((4, 1), np.float32), np.ones((2, 1), np.float64)],
    ],
)
def test_parts_that_do_not_fit_together_are_an_error_not_a_silent_cast(parts):
    left = iter(parts)

    def run(_):
        return {"y": next(left)}

    desk = Desk(max_batch_size=4)
    job = desk.submit(*range(6), lane=desk.new_lane(run=run))
    desk.run_all()
    assert isinstance(job.error, InferenceFailed)
    assert desk.finished == [job]


def test_a_delay_waits_for_company_until_the_oldest_job_is_that_old():
    desk = Desk(max_batch_size=4, max_batch_delay_s=0.5)
    desk.submit(1)
    assert desk.scheduler.next_due() == 0.5
    desk.clock.now = 0.4
    desk.submit(2)
    assert desk.scheduler.step() is False
    assert desk.scheduler.next_due() == 0.5
    desk.clock.now = 0.5
    assert desk.scheduler.step() is True
    assert desk.model.batches == [[1, 2]]


def test_a_full_batch_does_not_wait():
    desk = Desk(max_batch_size=4, max_batch_delay_s=0.5)
    for i in range(5):
        desk.submit(i)
    assert desk.run_all() == 1
    assert desk.model.batches == [[0, 1, 2, 3]]
    assert desk.scheduler.next_due() == 0.5


def test_the_rest_of_a_split_job_does_not_wait_again():
    desk = Desk(max_batch_size=4, max_batch_delay_s=0.5)
    desk.submit(1)
    desk.clock.now = 0.5
    job = desk.submit(*range(8))
    desk.scheduler.step()
    desk.clock.now = 0.9
    desk.submit(9)
    desk.scheduler.step()
    assert desk.scheduler.next_due() == 1.0
    desk.clock.now = 1.0
    desk.run_all()
    assert answer(job) == [2 * i for i in range(8)]


def test_a_cancel_moves_the_time_when_a_batch_is_due():
    desk = Desk(max_batch_size=4, max_batch_delay_s=0.5)
    first = desk.submit(1)
    desk.clock.now = 0.3
    desk.submit(2)
    desk.scheduler.cancel(first)
    assert desk.scheduler.next_due() == 0.8


def test_the_queue_is_full_at_max_queue_rows_and_not_before():
    desk = Desk(max_queue_rows=5)
    desk.submit(1, 2, 3, 4)
    desk.submit(*range(10))  # 4 waited: a large job may overshoot
    refused = desk.job(1)
    with pytest.raises(QueueFull) as caught:
        desk.scheduler.submit(desk.lane, refused)
    assert caught.value.retry_after_s == 1
    assert caught.value.message == ("Expected fewer than 5 waiting rows (max_queue_rows). Received: 14.")
    assert desk.scheduler.waiting_rows == 14
    desk.run_all()
    assert refused not in desk.finished
    desk.submit(1, 2, 3, 4, 5)
    with pytest.raises(QueueFull):
        desk.submit(1)


def test_rows_that_run_and_rows_that_left_make_room():
    desk = Desk(max_queue_rows=4)
    job = desk.submit(1, 2, 3, 4)
    desk.scheduler.cancel(job)
    admitted = []
    desk.submit(1, 2, 3, 4)
    desk.model.before = lambda: admitted.append(desk.submit(5))
    desk.scheduler.step()
    assert len(admitted) == 1


@pytest.mark.parametrize(
    ("batch_s", "waiting", "expected"),
    [(0.4, 3, 1), (0.4, 10, 1), (0.4, 11, 2), (2.0, 21, 11), (900.0, 4, 60)],
)
def test_retry_after_follows_the_measured_pace(batch_s, waiting, expected):
    desk = Desk(max_batch_size=4, max_queue_rows=waiting, seconds=batch_s)
    for _ in range(4):
        desk.submit(1, 2, 3, 4)
        desk.run_all()
    desk.submit(*range(waiting))
    with pytest.raises(QueueFull) as caught:
        desk.submit(1)
    assert caught.value.retry_after_s == expected


# -- priority ---------------------------------------------------------------------------------------------


def test_higher_priorities_join_first_and_equal_ones_in_order():
    desk = Desk(max_batch_size=3)
    for value, priority in [(1, 9), (2, 0), (3, 2), (4, 1), (5, 2), (6, 0), (7, MIDDLE_PRIORITY)]:
        desk.submit(value, priority=priority)
    desk.run_all()
    assert desk.model.batches == [[4, 3, 5], [2, 6, 7], [1]]


def test_a_lane_with_a_higher_priority_goes_first():
    desk = Desk()
    other = desk.new_lane(name="other")
    desk.submit(1)
    desk.submit(2, lane=other)
    desk.submit(3, lane=other, priority=1)
    desk.run_all()
    assert desk.model.batches == [[3, 2], [1]]


def test_a_large_job_goes_to_the_back_of_its_own_priority_only():
    desk = Desk(max_batch_size=2)
    desk.submit(1, 2, 3, 4, 5, 6, priority=1)
    desk.submit(7, priority=1)
    desk.submit(8)
    desk.run_all()
    assert desk.model.batches == [[1, 2], [7, 3], [4, 5], [6, 8]]


def test_a_job_of_any_priority_can_be_cancelled_and_is_gone():
    desk = Desk()
    jobs = [desk.submit(value, priority=value) for value in (1, 2, 9)]
    for job in jobs:
        assert desk.scheduler.cancel(job)
    assert desk.scheduler.waiting_rows == 0
    assert desk.run_all() == 0
    desk.submit(4, priority=2)
    desk.run_all()
    assert desk.model.batches == [[4]]


def test_a_delay_counts_from_the_oldest_job_of_any_priority():
    desk = Desk(max_batch_delay_s=1.0)
    desk.submit(1)
    desk.clock.now = 0.9
    desk.submit(2, priority=1)
    assert desk.scheduler.next_due() == 1.0
    desk.clock.now = 1.0
    desk.run_all()
    assert desk.model.batches == [[2, 1]]


def test_a_lane_that_fails_tells_every_priority():
    desk = Desk()
    closed = Lane("closed", max_batch_size=2)
    jobs = [desk.submit(1, lane=closed, priority=priority) for priority in (0, 1, 9)]
    desk.scheduler.fail(closed, InferenceFailed("no function"))
    assert [job.error.code for job in jobs] == ["inference_failed"] * 3
    assert desk.scheduler.waiting_rows == 0


# -- models ------------------------------------------------------------------------------------------------


def timed_lanes(**seconds):
    """A desk, and a lane of a model of its own for each name; its batches of at most one row take so long."""
    desk = Desk()
    lanes = {}
    for name, each in seconds.items():

        def run(batch, name=name, each=each):
            desk.clock.now += each
            desk.model.batches.append(name)
            return {"y": batch["x"] * 2}

        lanes[name] = desk.new_lane(max_batch_size=1, run=run, name=name)
    return desk, lanes


def test_models_get_equal_parts_of_the_engines_time():
    desk, lanes = timed_lanes(large=4.0, small=1.0)
    for value in range(8):
        desk.submit(value, lane=lanes["large"])
    for value in range(16):
        desk.submit(value, lane=lanes["small"])
    for _ in range(10):
        desk.scheduler.step()
    assert desk.model.batches == ["large", *["small"] * 4, "large", *["small"] * 4]


def test_a_small_model_waits_for_one_batch_of_a_large_one_and_not_for_its_queue():
    desk, lanes = timed_lanes(large=4.0, small=1.0)
    for value in range(8):
        desk.submit(value, lane=lanes["large"])
    desk.scheduler.step()
    desk.submit(1, lane=lanes["small"])
    desk.scheduler.step()
    assert desk.model.batches == ["large", "small"]


def test_time_that_was_not_used_is_not_saved_up():
    desk, lanes = timed_lanes(large=1.0, small=1.0)
    for value in range(20):
        desk.submit(value, lane=lanes["large"])
    for _ in range(10):
        desk.scheduler.step()
    for value in range(10):
        desk.submit(value, lane=lanes["small"])
    for _ in range(6):
        desk.scheduler.step()
    assert sorted(desk.model.batches[10:]) == ["large"] * 3 + ["small"] * 3


def test_priorities_go_before_turns():
    desk, lanes = timed_lanes(large=4.0, small=1.0)
    for value in range(3):
        desk.submit(value, lane=lanes["large"], priority=1)
        desk.submit(value, lane=lanes["small"])
    desk.run_all()
    assert desk.model.batches == ["large"] * 3 + ["small"] * 3


def test_one_models_queue_is_full_for_its_own_requests_only():
    desk = Desk(max_queue_rows=4)
    other = desk.new_lane(name="other")
    desk.submit(*range(1000))
    with pytest.raises(QueueFull, match=r"fewer than 4 waiting rows .* 1000"):
        desk.submit(1)
    job = desk.submit(2, lane=other)
    assert desk.scheduler.crowded
    assert (desk.scheduler.is_full(("m", 1)), desk.scheduler.is_full(("other", 1))) == (True, False)
    desk.scheduler.step()
    desk.scheduler.step()
    assert answer(job) == [4]


def test_a_failed_batch_is_charged_too():
    desk, lanes = timed_lanes(quick=1.0)

    def fail(_):
        desk.clock.now += 5.0
        desk.model.batches.append("bad")
        raise InferenceFailed("no")

    bad = desk.new_lane(max_batch_size=1, run=fail, name="bad")
    for value in range(3):
        desk.submit(value, lane=bad)
        desk.submit(value, lane=lanes["quick"])
    desk.run_all()
    assert desk.model.batches == ["bad", "quick", "quick", "quick", "bad", "bad"]
