"""The scheduler in a test's hands: a clock that moves when told, a model that remembers its batches."""

import math

import numpy as np

from service.errors import InputRejected
from service.scheduling.scheduler import Job, Lane, Scheduler

FOREVER = math.inf
BAD = -1.0  # a row that the model breaks on
REJECTED = -2.0  # a row that the model refuses
DEADLY = -3.0  # a row that ends the engine


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Model:
    """Doubles what it gets, and remembers every batch; `seconds` pass on the clock with each."""

    def __init__(self, clock=None, seconds=0.0):
        self.batches = []
        self.clock = clock
        self.seconds = seconds
        self.before = lambda: None

    def __call__(self, batch):
        rows = batch["x"]
        self.batches.append(rows.reshape(len(rows), -1)[:, 0].tolist())
        self.before()
        if self.clock is not None:
            self.clock.now += self.seconds
        if (rows == DEADLY).any():
            raise SystemExit
        if (rows == REJECTED).any():
            raise InputRejected("Expected an index below 10. Received: more.")
        if (rows == BAD).any():
            raise ValueError("secret detail")
        return {"y": rows * 2}


class Desk:
    """Submits jobs to one scheduler and counts how often each is finished."""

    def __init__(self, max_batch_size=4, max_queue_rows=1000, seconds=0.0, **options):
        self.clock = Clock()
        self.model = Model(self.clock, seconds)
        self.reports = []
        self.scheduler = Scheduler(
            max_queue_rows=max_queue_rows, clock=self.clock, observe=self.reports.append, **options
        )
        self.lane = self.new_lane(max_batch_size)
        self.finished = []

    def new_lane(self, max_batch_size=4, run=None, name="m"):
        return Lane(name, max_batch_size=max_batch_size, run=run or self.model, label=(name, 1))

    def job(self, *values, deadline=FOREVER, done=None, priority=0):
        rows = np.array(values, np.float64).reshape(-1, 1)
        return Job({"x": rows}, len(rows), deadline, done or self.finished.append, priority)

    def submit(self, *values, lane=None, deadline=FOREVER, done=None, priority=0):
        job = self.job(*values, deadline=deadline, done=done, priority=priority)
        self.scheduler.submit(lane or self.lane, job)
        return job

    def run_all(self):
        steps = 0
        while self.scheduler.step():
            steps += 1
        return steps


def answer(job):
    assert job.error is None
    return job.outputs["y"].ravel().tolist()


def answer_after(desk, job):
    desk.run_all()
    return answer(job)
