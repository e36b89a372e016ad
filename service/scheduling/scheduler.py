"""Owns the engine thread: it takes jobs, runs their batches, and finishes every job exactly once.

It knows no HTTP and no TensorFlow. Whose turn it is, `service.scheduling.queueing` says; what happens to rows inside a
batch, `service.scheduling.batching`.

- No window tax: an idle engine takes a lone job at once, and while a batch runs the next one forms.
- A job is ended by whoever sets `Job.finished` under the one lock: the engine, a cancel, a stop or a death.
  Callbacks run after that, outside the lock, and what they raise is logged.
- A batch that raises is halved and run again until only its culprits get the error. That holds for MemoryError
  too, since half a batch may fit.
- What is no Exception (SystemExit, KeyboardInterrupt) and any defect in here end the engine: every job is
  finished with EngineStopped, then `on_death` is told, and later jobs are refused.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from service.errors import DeadlineExceeded, EngineStopped, InferenceFailed, LayertapError, NotReady
from service.scheduling.admission import Place
from service.scheduling.batch import BatchReport
from service.scheduling.batching import run_batch
from service.scheduling.jobs import Deferred, Job, Lane, Run, mark_finished, twin
from service.scheduling.queueing import JobQueue

__all__ = ["BatchReport", "Job", "Lane", "Scheduler"]

_log = logging.getLogger("layertap.scheduler")


def ignore(_: object) -> None:
    """Listens to nothing."""


class Scheduler:
    """Forms batches from jobs and runs them, on its own thread or by hand with `step`.

    Args:
        max_queue_rows: no job is taken while this many rows of its model wait; a large job may overshoot it.
        max_batch_delay_s: how long a batch that is not full waits for company.
        clock: seconds that only grow; deadlines are in its terms.
        observe: told about every batch that ran, after the callbacks of its jobs.
        on_death: told why the engine ended, after all jobs were answered.
    """

    def __init__(
        self,
        *,
        max_queue_rows: int,
        max_batch_delay_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[BatchReport], None] = ignore,
        on_death: Callable[[BaseException], None] = ignore,
    ) -> None:
        self._clock = clock
        self._observers = [observe]
        self._on_death = on_death
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._seat = threading.Lock()  # whoever forms and runs a batch sits here: never two at once
        self._left = threading.Condition(self._lock)  # jobs have left the queue or their batch
        self._draining = 0  # how many wait for that
        self._queue = JobQueue(max_queue_rows, max_batch_delay_s)
        self._thread: threading.Thread | None = None
        self._running: Sequence[Job] = ()
        self._running_lane: Lane | None = None
        self._sleeping = False  # the thread waits for `_wake`; a busy one is never notified
        self._stopping = False
        self._dead = False

    def start(self) -> None:
        """Starts the engine thread; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="layertap-engine", daemon=True)
            self._thread.start()

    def stop(self, drain: bool) -> None:
        """Takes no new jobs, ends the waiting ones and joins the thread. A running batch is finished.

        Args:
            drain: run what waits; else it gets NotReady, as jobs in closed lanes do either way: nobody here
                knows when their function will be there, if ever.
        """
        with self._lock:
            self._stopping = True
            refused = self._claim_locked(self._queue.jobs(closed_only=drain))
            self._wake.notify()
        for job in refused:
            job.fail(_draining())
        if self._thread is None:
            while self.step():
                pass
        elif self._thread is not threading.current_thread():  # a callback may stop its own engine
            self._thread.join()

    def listen(self, observe: Callable[[BatchReport], None]) -> None:
        """Tells one more listener about every batch that runs from now on, as `observe`."""
        self._observers.append(observe)

    @property
    def alive(self) -> bool:
        """Whether the engine thread runs."""
        return self._thread is not None and self._thread.is_alive() and not self._dead

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for a batch, those in closed lanes included."""
        return self._queue.rows

    @property
    def crowded(self) -> bool:
        """Whether some model may take no more; true only for a moment, as nobody is held up for it."""
        return self._queue.crowded

    def is_full(self, model: tuple[str, int]) -> bool:
        """Whether a model, its name and version, takes no more; for a moment, too."""
        return self._queue.is_full(model)

    @property
    def backlog_s(self) -> float:
        """How long it is likely to take until all is done that waits or runs; 0 while nothing was measured."""
        now = self._clock()
        with self._lock:
            return self._queue.backlog.seconds(now)

    def book(self, lane: Lane | None, rows: int, deadline: float, before: tuple[float, float]) -> Place:
        """Keeps a place for a job that is still being made; it must be given to `submit` or `leave`.

        Args:
            lane: whose function it will need; `None`: nobody knows yet.
            rows: how many it is thought to have.
            deadline: when its answer is worthless.
            before: seconds until it can be submitted, and how many of them are work for the same lane.

        Raises:
            QueueFull: it is not likely to be answered in time; says when to come back.
        """
        now = self._clock()
        with self._lock:
            place = self._queue.book(lane, rows, deadline, now, before)
        place.keeper = self
        return place

    def leave(self, place: Place) -> None:
        """Gives a place back whose job will not come; does nothing where one has come."""
        with self._lock:
            self._queue.leave(place)

    def submit(self, lane: Lane, job: Job, *, rouse: bool = True, place: Place | None = None) -> None:
        """Queues a job, each only once.

        Args:
            lane: whose function it needs.
            job: what waits.
            place: what `book` kept for it.
            rouse: wake an engine that sleeps. Whoever submits many at once calls `run_quick` after the last.

        Raises:
            QueueFull: too many rows wait, or it is not likely to be answered in time; says when to come back.
            NotReady: the scheduler stops.
            EngineStopped: the engine has died.
            LayertapError: what the lane failed with.
        """
        now = self._clock()
        if place is not None and place.keeper is not self:  # which model it would be was not known then
            place.keeper.leave(place)
            place = None
        job.keeper = self
        with self._lock:
            if self._stopping or self._dead or lane.error is not None:
                if place is not None:
                    self._queue.leave(place)
                raise self._refusal(lane)
            if self._queue.add(lane, job, now, place) and self._sleeping and rouse:
                self._rouse()
        if lane.run is None and lane.maker is not None:
            lane.maker.want(lane)

    def cancel(self, job: Job, error: LayertapError | None = None) -> bool:
        """Ends a job early, its client gone or its time over; returns whether it was unfinished until now.

        What waits of it leaves the queue at once; the result of a batch that has begun is dropped.

        Args:
            job: a submitted job.
            error: `done` is called here with it. Without it the job is abandoned: `done` is never called.
        """
        claimed = self._claim([job])
        if claimed and error is not None:
            job.fail(error)
        return bool(claimed)

    def open(self, lane: Lane, run: Run) -> None:
        """Gives a closed lane its function; the jobs that wait in it may run from now on."""
        with self._lock:
            lane.run = run
            lane.error = None
            if self._sleeping:
                self._rouse()

    def fail(self, lane: Lane, error: LayertapError) -> None:
        """Gives up a lane: the jobs that wait in it, and later ones, get copies of `error`."""
        with self._lock:
            lane.error = error
            failed = self._claim_locked(lane.waiting())
        for job in failed:
            job.fail(twin(error))

    def drain(self, lanes: Collection[Lane], timeout_s: float) -> bool:
        """Waits until none of these lanes' jobs waits or runs; the caller sees to it that no more come.

        Args:
            lanes: which.
            timeout_s: how long to wait at most.

        Returns:
            Whether they are empty.
        """
        with self._lock:
            self._draining += 1
            try:
                return self._left.wait_for(lambda: not self._in_use(lanes), timeout_s)
            finally:
                self._draining -= 1

    def next_due(self) -> float | None:
        """When a batch may be formed: -inf for now, `None` while nothing waits that could run."""
        with self._lock:
            return self._queue.next_due(hurry=self._stopping)

    def step(self) -> bool:
        """Forms and runs one batch on the calling thread; returns whether there was anything to do.

        What ends the engine (see the module) is raised again once every job was answered.
        """
        with self._seat:
            return self._step(math.inf)

    def run_quick(self, within_s: float) -> None:
        """Runs what is due on the calling thread, as long as that is quick; the engine thread gets the rest.

        For an event loop: to hand a small batch to another thread and back takes longer than the batch itself. Does
        nothing itself while the engine thread is at work.

        Args:
            within_s: how long the caller can wait in all, judged by what earlier batches took.
        """
        until = self._clock() + within_s
        while self._seat.acquire(blocking=False):
            try:
                ran = self._step(until - self._clock())
            except BaseException:  # noqa: BLE001 the engine is dead: everybody was told, the caller lives on
                return
            finally:
                self._seat.release()
            if not ran:
                break
        with self._lock:
            if self._sleeping and self._queue.next_due(hurry=self._stopping) is not None:
                self._rouse()

    def _step(self, within_s: float) -> bool:
        """As `step`, in the seat, for a batch that takes no longer than `within_s`."""
        try:
            now = self._clock()
            with self._lock:
                batch = self._queue.form(now, hurry=self._stopping, within_s=within_s)
                if batch is None:
                    return False
                self._running, self._running_lane = batch.jobs, batch.lane
                late = self._claim_locked(batch.late)
            for job in late:
                job.fail(DeadlineExceeded("The request's time ran out while it waited; see timeout_ms."))
            if batch.jobs:
                report = run_batch(batch, self._clock, self._claim, self._defer)
                self._queue.ran(batch.lane, report.seconds)
                if not report.failed and report.passes:
                    batch.lane.cost.measured(*report.passes[0])
                    self._queue.backlog.measured(report.seconds)
                self._report(report)
            self._running, self._running_lane = (), None
            if self._draining:
                with self._lock:
                    self._left.notify_all()
        except BaseException as error:
            self._die(error)
            raise
        return True

    def _defer(self, job: Job, deferred: Deferred) -> None:
        """Has a job wait, as a whole, for the function that can take its rows; nobody else waits with it."""
        lane = job.lane
        if lane is None or lane.maker is None:
            for unfinished in self._claim([job]):
                unfinished.fail(
                    InferenceFailed("Expected rows that the model's function takes. Received: others.")
                )
            return
        reserve = lane.maker.reserve(lane, deferred.make)
        refusal: LayertapError | None = None
        with self._lock:
            if job.finished:
                return
            if reserve.error is not None or self._stopping:
                refusal = self._refusal(reserve)
            else:
                refusal = self._queue.move(job, reserve, self._clock())
        if refusal is not None:
            for unfinished in self._claim([job]):
                unfinished.fail(refusal)
        elif reserve.run is None:
            lane.maker.want(reserve)

    def _loop(self) -> None:
        try:
            while self.step() or self._sleep():
                pass
        except BaseException as error:  # noqa: BLE001 nobody above the thread could do more
            self._die(error)

    def _sleep(self) -> bool:
        """Waits until a batch is due; False where none will ever be."""
        with self._lock:
            while True:
                due = self._queue.next_due(hurry=self._stopping)
                left = None if due is None else due - self._clock()
                if left is not None and left <= 0:
                    return True
                if self._stopping:
                    return False
                self._sleeping = True
                self._wake.wait(left)
                self._sleeping = False

    def _rouse(self) -> None:
        self._sleeping = False  # so that one notification is all, however many jobs come before it wakes
        self._wake.notify()

    def _report(self, report: BatchReport) -> None:
        for observe in self._observers:
            try:
                observe(report)
            except Exception:  # noqa: BLE001 a report that nobody could take is no reason to stop
                _log.exception("%s: the batch's observer raised", report.lane)

    def _in_use(self, lanes: Collection[Lane]) -> bool:
        return self._running_lane in lanes or any(lane.busy for lane in lanes)

    def _claim(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of `jobs` that nobody has ended yet, now the caller's to end; none of them waits any more."""
        with self._lock:
            return self._claim_locked(jobs)

    def _claim_locked(self, jobs: Iterable[Job]) -> list[Job]:
        claimed = mark_finished(jobs)
        for job in claimed:
            self._queue.drop(job)
            job.lane = None  # whoever still holds the job does not hold a model's weights
        if self._draining:
            self._left.notify_all()
        return claimed

    def _refusal(self, lane: Lane) -> LayertapError:
        if self._dead:
            return _stopped()
        if self._stopping or lane.error is None:
            return _draining()
        return twin(lane.error)

    def _die(self, cause: BaseException) -> None:
        with self._lock:
            if self._dead:
                return
            self._dead = True
            # Only marked, not dropped one by one: the queue itself may be what is broken.
            orphans = mark_finished((*self._running, *self._queue.jobs()))
            self._running, self._running_lane = (), None
            self._queue = JobQueue(0, 0.0)
            self._left.notify_all()
        _log.critical("the engine died; %d jobs get engine_stopped", len(orphans), exc_info=cause)
        for job in orphans:
            job.fail(_stopped())
        try:
            self._on_death(cause)
        except Exception:  # noqa: BLE001 there is nobody left to tell
            _log.exception("on_death raised")


def _draining() -> NotReady:
    return NotReady("The service is draining; send the request to another instance.")


def _stopped() -> EngineStopped:
    return EngineStopped("The engine ended before it could answer; the worker is being replaced.")
