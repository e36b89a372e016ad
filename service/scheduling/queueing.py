"""Owns the order of things: which jobs wait, whose turn it is, and which of them make the next batch.

A plain data structure: no thread, no lock, no clock of its own. `service.scheduling.scheduler` guards it with its lock.

The rules:

- Among the lanes that are due, the one whose first job has the highest priority is next; among equals, the one
  whose first job has waited longest for its turn.
- Its jobs join in order of priority and then of arrival until the batch holds `max_batch_size` rows. A job whose rows have another shape than
  the first one's stays where it is.
- A job that does not fit is split. A rest of at most one batch keeps its place, so that jobs of ordinary size
  stay in order; a larger rest goes to the back after each part, so that a million rows starve nobody
  of their own priority.
- Nothing is promised to low priorities: jobs of a higher one that never end keep them waiting until their time
  is over. A job that asks for no priority has the middle one (`jobs.MIDDLE_PRIORITY`).
- Late jobs leave when a batch is formed and never reach the model.
- Lanes of one family may share a batch: where it has room left and all rows of another lane fit, that lane's family
  says whether some function had better compute them too (`families`). They then go before their turn.
- A lane is due at once; with a delay, when its oldest job is that old or when it holds a full batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from service.errors import QueueFull
from service.scheduling.batch import Batch
from service.scheduling.jobs import Family, Job, Lane

_MAX_RETRY_AFTER_S = 60
_PACE_KEPT = 0.9  # the part of the measured pace that each batch leaves: about the last ten count


class JobQueue:
    """The jobs that wait, by lane.

    Args:
        max_rows: no job is taken while this many rows wait; a large one may overshoot it.
        delay_s: how long a batch that is not full waits for company.

    Attributes:
        rows: how many rows wait, closed lanes included.
    """

    __slots__ = ("_delay_s", "_lanes", "_max_rows", "_pace_rows", "_pace_s", "_tickets", "rows")

    def __init__(self, max_rows: int, delay_s: float) -> None:
        self._max_rows = max_rows
        self._delay_s = delay_s
        self._lanes: dict[Lane, None] = {}  # those in which jobs wait
        self._tickets = 0
        self._pace_rows = self._pace_s = 0.0
        self.rows = 0

    def add(self, lane: Lane, job: Job, now: float) -> bool:
        """Puts a new job at the back; returns whether that changes when a batch is next due.

        Raises:
            QueueFull: too many rows wait; says when they will have run, at the measured pace.
        """
        if self.rows >= self._max_rows:
            raise self._full()
        job.lane = lane
        job.wanted = lane.outputs
        job.submitted = now
        self._tickets = job.ticket = self._tickets + 1
        first = not lane.busy
        if first:
            self._lanes[lane] = None
        lane.put(job)
        lane.waiting_rows += job.rows
        self.rows += job.rows
        if lane.run is None:
            return False
        return first or not self._delay_s or lane.waiting_rows >= lane.max_batch_size

    def drop(self, job: Job) -> None:
        """Takes out what waits of a job, if anything does."""
        lane = job.lane
        if lane is not None and job.stop < job.rows:
            self._leave(lane, job.rows - job.stop)
            lane.remove(job)
            self._forget_if_empty(lane)

    def jobs(self, *, closed_only: bool = False) -> Iterator[Job]:
        """The jobs that wait; nothing may be added or dropped meanwhile."""
        for lane in self._lanes:
            if lane.run is None or not closed_only:
                yield from lane.waiting()

    def next_due(self, *, hurry: bool = False) -> float | None:
        """When a batch may be formed: -inf for now, `None` while nothing waits that could run.

        Args:
            hurry: no batch waits for company.
        """
        return min((self._due(lane, hurry) for lane in self._open_lanes()), default=None)

    def form(self, now: float, *, hurry: bool = False, within_s: float = math.inf) -> Batch | None:
        """Takes the next batch out of the queue; `None` where none is due, or none that is quick enough.

        Args:
            now: seconds of the clock.
            hurry: as `next_due`.
            within_s: how long the batch may take, judged by those before it; one that nobody knows is too long.
        """
        due = [lane for lane in self._open_lanes() if self._due(lane, hurry) <= now]
        lane = min(due, key=_turn, default=None)
        if lane is None or lane.run is None or not _is_quick(lane, within_s):
            return None
        jobs, late = self._take_from(lane, now)
        batch = Batch(lane, lane.run, jobs, late)
        if lane.family is not None and self._lanes and jobs:
            return self._with_company(batch, lane.family, now)
        return batch

    def _with_company(self, batch: Batch, family: Family, now: float) -> Batch:
        """The batch, joined by the jobs of its family's lanes that are better off with it."""
        function, run = batch.lane, batch.run
        shares = [(run, batch.jobs)]
        rows = sum(job.stop - job.start for job in batch.jobs)
        relatives = [
            other for other in self._open_lanes() if other.family is family and other is not function
        ]
        for other in sorted(relatives, key=_turn):
            more = other.waiting_rows
            if rows + more > function.max_batch_size or not _all_like(batch.jobs[0], other):
                continue
            found = family.unite(function, rows, other, more)
            if found is not None and found.run is not None and other.run is not None:
                jobs, late = self._take_from(other, now)
                batch.late.extend(late)
                shares.append((other.run, jobs))
                function, run, rows = found, found.run, rows + more
        if len(shares) == 1:
            return batch
        return Batch(function, run, [job for _, jobs in shares for job in jobs], batch.late, shares)

    def _take_from(self, lane: Lane, now: float) -> tuple[list[Job], list[Job]]:
        """Takes the parts of the next batch out of a lane; also returns the late jobs met on the way."""
        jobs, late = _choose(lane, now)
        for job in jobs:
            self._take(lane, job)
        self._forget_if_empty(lane)
        return jobs, late

    def measured(self, rows: int, seconds: float) -> None:
        """Learns from a batch how fast rows are run."""
        self._pace_rows = self._pace_rows * _PACE_KEPT + rows
        self._pace_s = self._pace_s * _PACE_KEPT + seconds

    def _full(self) -> QueueFull:
        wait_s = self.rows * self._pace_s / self._pace_rows if self._pace_rows else 0.0
        return QueueFull(
            f"Expected fewer than {self._max_rows} waiting rows (max_queue_rows). Received: {self.rows}.",
            retry_after_s=min(_MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s))),
        )

    def _open_lanes(self) -> Iterator[Lane]:
        return (lane for lane in self._lanes if lane.run is not None)

    def _due(self, lane: Lane, hurry: bool) -> float:
        if hurry or not self._delay_s or lane.waiting_rows >= lane.max_batch_size:
            return -math.inf
        # Whatever went to the back has more rows than a batch; without such a rest the first job of each priority
        # is its oldest.
        return min(job.submitted for job in lane.oldest()) + self._delay_s

    def _take(self, lane: Lane, job: Job) -> None:
        """Accounts for the part that `_choose` took; the rest keeps its place or goes to the back."""
        self._leave(lane, job.stop - job.start)
        rest = job.rows - job.stop
        if not rest:
            lane.remove(job)
        elif rest > lane.max_batch_size:
            lane.put_back(job)
            self._tickets = job.ticket = self._tickets + 1

    def _leave(self, lane: Lane, rows: int) -> None:
        lane.waiting_rows -= rows
        self.rows -= rows

    def _forget_if_empty(self, lane: Lane) -> None:
        if not lane.busy:
            del self._lanes[lane]


def _is_quick(lane: Lane, within_s: float) -> bool:
    """Whether the lane's next batch is known to take no longer."""
    if within_s == math.inf:
        return True
    seconds = lane.cost.seconds(min(lane.waiting_rows, lane.max_batch_size))
    return seconds is not None and seconds <= within_s


def _turn(lane: Lane) -> tuple[int, int]:
    first = next(lane.waiting())
    return first.priority, first.ticket


def _all_like(job: Job, lane: Lane) -> bool:
    return all(other.row_shapes == job.row_shapes for other in lane.waiting())


def _choose(lane: Lane, now: float) -> tuple[list[Job], list[Job]]:
    """Takes the parts of the next batch; also returns the late jobs met on the way."""
    jobs: list[Job] = []
    late: list[Job] = []
    room = lane.max_batch_size
    for job in lane.waiting():
        if job.deadline <= now:
            late.append(job)
        elif not jobs or job.row_shapes == jobs[0].row_shapes:
            jobs.append(job)
            room -= job.take(room)
            if not room:
                break
    return jobs, late
