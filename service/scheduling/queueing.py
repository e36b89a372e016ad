"""Owns the order of things: which jobs wait, whose turn it is, and which of them make the next batch.

A plain data structure: no thread, no lock, no clock of its own. `service.scheduling.scheduler` guards it with its lock.

The rules:

- Among the lanes that are due, the one whose first job has the highest priority is next; among equals, one of the
  model that has had the least of the engine's time; of its lanes, the one whose first job has waited longest.
- A model is charged the seconds of its batches. One that had nothing to do is brought up to the model whose turn came
  last, so that nobody saves time up. Source: start-time fair queuing, Goyal, Vin and Cheng, "Start-time fair queueing",
  IEEE/ACM Transactions on Networking 5(5), 1997.
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
- A job comes in while fewer rows of its model wait than `max_rows`, and while it is likely to be
  answered in time (`admission`).
- Those that wait for functions of one model that have still to be made leave a sixteenth of the rows free, so that
  jobs of others come in meanwhile.
- A lane is due at once; with a delay, when its oldest job is that old or when it holds a full batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from service.errors import QueueFull
from service.scheduling.admission import Backlog, Place, retry_after_s
from service.scheduling.batch import Batch
from service.scheduling.jobs import MIDDLE_PRIORITY, Family, Job, Lane

_MOST_MODELS = 1024  # whose charges are kept
_LEFT_FREE = (
    16  # of the rows that may wait, the part that is left by those who wait for one model's functions
)


class JobQueue:
    """The jobs that wait, by lane.

    Args:
        max_rows: no job is taken while this many rows wait; a large one may overshoot it.
        delay_s: how long a batch that is not full waits for company.

    Attributes:
        rows: how many rows wait, closed lanes included.
        backlog: how long that takes.
    """

    __slots__ = (
        *(
            "_charged_s",
            "_coming_rows",
            "_delay_s",
            "_lanes",
            "_max_rows",
            "_models",
            "_nameless",
            "_ran",
            "_ranks",
        ),
        *("_reached_s", "_tickets", "backlog", "rows"),
    )

    def __init__(self, max_rows: int, delay_s: float) -> None:
        self._max_rows = max_rows
        self._delay_s = delay_s
        self._lanes: dict[Lane, None] = {}  # those in which jobs wait
        self._tickets = 0
        self._ranks: dict[int, int] = {}  # priority -> rows that wait, without those of the middle one
        self._coming_rows = 0
        self._models: dict[tuple[str, int], int] = {}  # model -> rows that wait or come, if any
        self._nameless = 0  # rows that come for nobody knows which lane: they count for every model
        self._charged_s: dict[tuple[str, int], float] = {}  # model -> engine seconds
        self._reached_s = 0.0  # what the model had been charged whose turn came last
        self._ran: tuple[tuple[str, int], float] | None = None
        self.rows = 0
        self.backlog = Backlog()

    @property
    def crowded(self) -> bool:
        """Whether so many rows wait and come that some model may take no more."""
        return self.rows + self._coming_rows >= self._max_rows

    def is_full(self, model: tuple[str, int]) -> bool:
        """Whether a model takes no row more: others do, whose turn comes all the same."""
        return self.crowded and self._models.get(model, 0) + self._nameless >= self._max_rows

    def book(
        self, lane: Lane | None, rows: int, deadline: float, now: float, before: tuple[float, float]
    ) -> Place:
        """Keeps a place for a job that is still being made; `leave` gives it back. Arguments as `Backlog.check`.

        Raises:
            QueueFull: it is not likely to be answered in time, or too many rows wait and come.
        """
        if lane is not None and self.is_full(lane.label):
            raise self._full(lane, now)
        self.backlog.check(lane, rows, deadline, now, before=before)
        if lane is None:
            self._nameless += rows
        else:
            lane.coming_rows += rows
            self._count_model(lane, rows)
            self.backlog.change(lane)
        self._coming_rows += rows
        return Place(lane, rows)

    def leave(self, place: Place) -> None:
        """Gives a place back, unless that was done already."""
        if not place.held:
            return
        place.held = False
        if place.lane is None:
            self._nameless -= place.rows
        else:
            place.lane.coming_rows -= place.rows
            self._count_model(place.lane, -place.rows)
            self.backlog.change(place.lane)
        self._coming_rows -= place.rows

    def add(self, lane: Lane, job: Job, now: float, place: Place | None = None) -> bool:
        """Puts a new job at the back; returns whether that changes when a batch is next due.

        Args:
            lane: whose function it needs.
            job: what waits.
            now: the time.
            place: what was kept for it; it is given back, and a job of no more rows is not judged again.

        Raises:
            QueueFull: it is not likely to be answered in time, or too many rows wait; says when they will have run.
        """
        if place is not None:
            self.leave(place)
        if place is None or job.rows > place.rows:
            if self.is_full(lane.label):
                raise self._full(lane, now)
            self.backlog.check(lane, job.rows, job.deadline, now, share=self._share(job.priority))
        if (refusal := self._refuse_closed(lane, now)) is not None:
            raise refusal
        job.submitted = now
        first = self._put(lane, job)
        if lane.run is None:
            return False
        return first or not self._delay_s or lane.waiting_rows >= lane.max_batch_size

    def move(self, job: Job, lane: Lane, now: float) -> QueueFull | None:
        """Has a job that is queued or in a batch wait in another lane, as a whole; or says why it cannot."""
        refusal = self._refuse_closed(lane, now)
        if refusal is None:
            self.drop(job)
            job.start = job.stop = 0
            job.answer = None
            self._put(lane, job)
        return refusal

    def _put(self, lane: Lane, job: Job) -> bool:
        """Puts a job at the back; returns whether it is the only one there."""
        job.lane = lane
        job.wanted = lane.outputs
        self._tickets = job.ticket = self._tickets + 1
        first = not lane.busy
        if first:
            self._lanes[lane] = None
            charged_s = self._charged_s.get(lane.label, 0.0)
            if charged_s < self._reached_s:
                self._charged_s[lane.label] = self._reached_s
        lane.put(job)
        self._count(lane, job, job.rows)
        self.backlog.change(lane)
        return first

    def _refuse_closed(self, lane: Lane, now: float) -> QueueFull | None:
        """What speaks against one more job in a closed lane: too many rows of its model wait in such lanes."""
        if lane.run is not None:
            return None
        closed = (other for other in self._lanes if other.run is None and other.label == lane.label)
        rows = sum(other.waiting_rows for other in closed)
        limit = max(1, self._max_rows - max(1, self._max_rows // _LEFT_FREE))
        if rows < limit:
            return None
        return QueueFull(
            f"Expected fewer than {limit} rows that wait for functions of one model to be made. Received: {rows}.",
            retry_after_s=retry_after_s(self.backlog.seconds(now)),
        )

    def drop(self, job: Job) -> None:
        """Takes out what waits of a job, if anything does."""
        lane = job.lane
        if lane is not None and job.stop < job.rows:
            self._count(lane, job, job.stop - job.rows)
            self.backlog.change(lane)
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
        self.backlog.settle()
        self._charge()
        due = [lane for lane in self._open_lanes() if self._due(lane, hurry) <= now]
        lane = min(due, key=self._turn, default=None)
        if lane is None or lane.run is None or not _is_quick(lane, within_s):
            return None
        before_s = self.backlog.estimated_s
        jobs, late = self._take_from(lane, now)
        batch = Batch(lane, lane.run, jobs, late)
        if lane.family is not None and self._lanes and jobs:
            batch = self._with_company(batch, lane.family, now)
        if jobs:
            self._reached_s = self._charged_s.get(lane.label, 0.0)
            self.backlog.began(batch.lane, before_s, now)
        return batch

    def ran(self, lane: Lane, seconds: float) -> None:
        """On the engine thread, without the lock: a batch of this lane took so long, whatever came of it."""
        self._ran = lane.label, seconds

    def _charge(self) -> None:
        """Charges the model whose batch ran last."""
        if self._ran is None:
            return
        model, seconds = self._ran
        self._ran = None
        if len(self._charged_s) >= _MOST_MODELS and model not in self._charged_s:
            self._charged_s = {
                name: spent for name, spent in self._charged_s.items() if spent > self._reached_s
            }
        self._charged_s[model] = self._charged_s.get(model, self._reached_s) + seconds

    def _turn(self, lane: Lane) -> tuple[int, float, int]:
        first = next(lane.waiting())
        return first.priority, self._charged_s.get(lane.label, 0.0), first.ticket

    def _with_company(self, batch: Batch, family: Family, now: float) -> Batch:
        """The batch, joined by the jobs of its family's lanes that are better off with it."""
        function, run = batch.lane, batch.run
        shares = [(run, batch.jobs)]
        rows = sum(job.stop - job.start for job in batch.jobs)
        relatives = [
            other for other in self._open_lanes() if other.family is family and other is not function
        ]
        for other in sorted(relatives, key=self._turn):
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
        self.backlog.change(lane)
        self._forget_if_empty(lane)
        return jobs, late

    def _full(self, lane: Lane, now: float) -> QueueFull:
        return QueueFull(
            f"Expected fewer than {self._max_rows} waiting rows (max_queue_rows). "
            f"Received: {self._models.get(lane.label, 0)}.",
            retry_after_s=retry_after_s(self.backlog.seconds(now)),
        )

    def _share(self, priority: int) -> float:
        """The part of the rows that wait that goes before a new job of this priority."""
        if (not self._ranks and priority == MIDDLE_PRIORITY) or not self.rows:
            return 1.0
        later = sum(rows for rank, rows in self._ranks.items() if rank > priority)
        if priority < MIDDLE_PRIORITY:
            later += self.rows - sum(self._ranks.values())
        return 1.0 - later / self.rows

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
        self._count(lane, job, job.start - job.stop)
        rest = job.rows - job.stop
        if not rest:
            lane.remove(job)
        elif rest > lane.max_batch_size:
            lane.put_back(job)
            self._tickets = job.ticket = self._tickets + 1

    def _count_model(self, lane: Lane, rows: int) -> None:
        """Counts rows of a model that come or wait, or fewer than none for those that leave."""
        own = self._models.get(lane.label, 0) + rows
        if own:
            self._models[lane.label] = own
        else:
            self._models.pop(lane.label, None)

    def _count(self, lane: Lane, job: Job, rows: int) -> None:
        """Counts rows of a job that come to wait, or fewer than none for those that leave."""
        self._count_model(lane, rows)
        lane.waiting_rows += rows
        self.rows += rows
        priority = job.priority
        if priority != MIDDLE_PRIORITY:
            self._ranks[priority] = self._ranks.get(priority, 0) + rows
            if not self._ranks[priority]:
                del self._ranks[priority]

    def _forget_if_empty(self, lane: Lane) -> None:
        if not lane.busy:
            del self._lanes[lane]


def _is_quick(lane: Lane, within_s: float) -> bool:
    """Whether the lane's next batch is known to take no longer, left alone."""
    if within_s == math.inf:
        return True
    seconds = lane.cost.at_best(min(lane.waiting_rows, lane.max_batch_size))
    return seconds is not None and seconds <= within_s


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
