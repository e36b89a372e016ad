"""Any order of events: every job ends exactly once, with what is right."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scheduling import BAD, REJECTED, Clock

from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InputRejected,
    LayertapError,
    LoadError,
    NotReady,
    QueueFull,
)
from service.scheduling.jobs import MIDDLE_PRIORITY
from service.scheduling.scheduler import Job, Lane, Scheduler

MAX_QUEUE_ROWS = 25
MAX_BATCH_SIZE = 5

WISHES = st.fixed_dictionaries(
    {
        "rows": st.one_of(st.integers(1, 4), st.integers(5, 30)),
        "width": st.integers(1, 2),
        "poison": st.sampled_from([0.0, 0.0, 0.0, BAD, REJECTED]),
        "poisoned_row": st.integers(0, 29),
        "patience": st.integers(0, 6),
        "priority": st.sampled_from([0, 0, 0, 1, 2, MIDDLE_PRIORITY, 9]),
        "raises": st.booleans(),
    }
)


@dataclass
class Request:
    """What was asked, and what has happened to it."""

    ids: np.ndarray
    wish: dict
    job: Job | None = None
    lane: Lane | None = None
    cancelled_with: LayertapError | None = None
    abandoned: bool = False
    lane_failed: bool = False
    answered_at: list[float] = field(default_factory=list)

    @property
    def ended(self):
        return self.abandoned or bool(self.answered_at)


class Anything(RuleBasedStateMachine):
    """Jobs, cancels, deadlines, failures, closed lanes: the model is a list of requests and the rows it saw."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.requests = []
        self.seen = set()
        self.ids = itertools.count()
        self.lanes = []
        self.delay = 0.0
        self.row_s = 0.0
        self.ran_last = []
        self.scheduler = Scheduler(max_queue_rows=MAX_QUEUE_ROWS, clock=self.clock)

    @initialize(
        delay=st.sampled_from([0.0, 2.0]),
        sizes=st.tuples(*[st.integers(1, MAX_BATCH_SIZE)] * 3),
        row_s=st.sampled_from([0.0, 0.05, 0.5]),
    )
    def begin(self, delay, sizes, row_s):
        self.delay = delay
        self.row_s = row_s
        self.scheduler = Scheduler(max_queue_rows=MAX_QUEUE_ROWS, max_batch_delay_s=delay, clock=self.clock)
        self.lanes = [Lane(f"m{i}", max_batch_size=size, run=self.run) for i, size in enumerate(sizes)]

    def run(self, batch):
        ids, poison, wide = batch["id"], batch["poison"], batch["wide"]
        assert 1 <= len(ids) <= MAX_BATCH_SIZE
        assert len(poison) == len(wide) == len(ids)
        self.seen.update(ids.tolist())
        self.ran_last = ids.tolist()
        self.clock.now += self.row_s * len(ids)
        if (poison == REJECTED).any():
            raise InputRejected("Expected a good row. Received: a bad one.")
        if (poison == BAD).any():
            raise ValueError
        return {"triple": ids * 3, "wide": wide + ids.reshape(-1, 1)}

    @rule(wish=WISHES, which=st.integers(0, 99))
    def submit(self, wish, which):
        rows = wish["rows"]
        request = Request(np.array([next(self.ids) for _ in range(rows)], np.float64), wish)
        poison = np.zeros(rows)
        poison[wish["poisoned_row"] % rows] = wish["poison"]
        inputs = {"id": request.ids, "poison": poison, "wide": np.ones((rows, wish["width"]))}
        deadline = self.clock.now + wish["patience"]
        request.job = Job(inputs, rows, deadline, lambda _: self.done(request), wish["priority"])
        lane = request.lane = self.lanes[which % len(self.lanes)]
        full = self.scheduler.waiting_rows >= MAX_QUEUE_ROWS or (lane.run is None and self.closed_are_full())
        refused = LoadError if lane.error else QueueFull if full else None
        in_time = self.is_sure_to_be_in_time(rows, wish["patience"])
        try:
            self.scheduler.submit(lane, request.job)
        except LayertapError as error:
            raised = type(error)
        else:
            raised = None
            self.requests.append(request)
        assert raised is refused or (raised is QueueFull and not in_time)

    def closed_are_full(self):
        """Whether as many rows wait for functions that are to be made as may of one model."""
        waiting = sum(lane.waiting_rows for lane in self.lanes if lane.run is None)
        return waiting >= MAX_QUEUE_ROWS - MAX_QUEUE_ROWS // 16

    def is_sure_to_be_in_time(self, rows, patience):
        """Whether a lane is idle, or all that waits takes less than half of the time."""
        waiting = sum(len(self.ready_rows(lane)) for lane in self.lanes if lane.run is not None)
        late = any(not r.ended and r.job.deadline <= self.clock.now for r in self.requests)
        if late:  # they count until they are met
            return False
        return not waiting or (waiting + rows) * self.row_s < 0.49 * patience

    def done(self, request):
        request.answered_at.append(self.clock.now)
        if request.wish["raises"]:
            raise RuntimeError

    @rule(which=st.integers(0, 999), silent=st.booleans())
    def cancel(self, which, silent):
        if not self.requests:
            return
        request = self.requests[which % len(self.requests)]
        ended = request.ended
        error = None if silent else DeadlineExceeded("cancelled")
        if not ended:
            request.abandoned, request.cancelled_with = silent, error
        assert self.scheduler.cancel(request.job, error) is not ended

    @rule(seconds=st.floats(0.0, 4.0))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def step(self):
        due = self.scheduler.next_due()
        self.ran_last = []
        ready = {lane: self.ready_rows(lane) for lane in self.lanes if lane.run is not None}
        late = any(not r.ended and r.job.deadline <= self.clock.now for r in self.requests)
        at_once = due == -math.inf and not self.delay and not late  # a late job has its turn, too, and leaves
        assert self.scheduler.step() is (due is not None and due <= self.clock.now)
        if self.ran_last and at_once:
            urgent = min(rank for rows in ready.values() for rank in rows.values())
            first = min(rank for rows in ready.values() for row, rank in rows.items() if row in self.ran_last)
            assert first == urgent  # whatever is next has the highest priority there is

    def ready_rows(self, lane):
        """The rows that wait in a lane and are not late, with their priorities."""
        waiting = [
            r for r in self.requests if r.lane is lane and not r.ended and r.job.deadline > self.clock.now
        ]
        return {row: r.job.priority for r in waiting for row in r.ids.tolist() if row not in self.seen}

    @rule(size=st.integers(1, MAX_BATCH_SIZE))
    def ask_for_a_lane_that_is_not_compiled(self, size):
        self.lanes.append(Lane("cold", max_batch_size=size))

    @rule(which=st.integers(0, 99))
    def open(self, which):
        cold = [lane for lane in self.lanes if lane.run is None]
        if cold:
            self.scheduler.open(cold[which % len(cold)], self.run)

    @rule(which=st.integers(0, 99))
    def fail(self, which):
        cold = [lane for lane in self.lanes if lane.run is None]
        if cold:
            lane = cold[which % len(cold)]
            for request in self.requests:
                request.lane_failed |= request.lane is lane and not request.ended
            self.scheduler.fail(lane, LoadError("cannot be compiled"))

    @invariant()
    def waiting_rows_are_those_of_unfinished_jobs_that_the_model_has_not_seen(self):
        waiting = {row for r in self.requests if not r.ended for row in r.ids.tolist()}
        assert self.scheduler.waiting_rows == len(waiting - self.seen)

    def teardown(self):
        self.scheduler.stop(drain=True)
        assert self.scheduler.waiting_rows == 0
        for request in self.requests:
            check(request)


def check(request):
    job, poison = request.job, request.wish["poison"]
    if request.abandoned:
        assert (request.answered_at, job.outputs, job.error) == ([], None, None)
        return
    assert len(request.answered_at) == 1
    assert (job.outputs is None) is (job.error is not None)
    if job.error is None:
        assert poison == 0.0
        assert job.outputs["triple"].tolist() == (request.ids * 3).tolist()
        assert job.outputs["wide"].tolist() == [[row + 1] * request.wish["width"] for row in request.ids]
    elif request.cancelled_with is not None:
        assert job.error is request.cancelled_with
    elif request.lane_failed:
        assert type(job.error) is LoadError
    elif type(job.error) is DeadlineExceeded:
        assert job.deadline <= request.answered_at[0]
    elif type(job.error) is NotReady:
        assert request.lane.run is None
    else:
        assert type(job.error) is {BAD: InferenceFailed, REJECTED: InputRejected}[poison]


Anything.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnything = Anything.TestCase
