"""Owns what the scheduling modules speak of: a job, and the lane in which it waits.

Words: a *job* is one request's rows; its *part* is the slice of them that is in the current batch. A job is
split over several batches where it does not fit one, and has at most one part in flight.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from service.errors import InvalidInput, LayertapError, SettingsError
from service.scheduling.costs import Cost
from service.tensors import Array

_log = logging.getLogger("layertap.scheduler")

Run: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]

MIDDLE_PRIORITY = 5  # of a job that asks for none: others can ask to go before it, or after it


class Job:
    """One request's rows, and what became of them.

    Args:
        inputs: input name -> (rows, *row shape); read, never written, until the job is finished.
        rows: how many rows every input has, at least 1.
        deadline: when its answer is worthless, in seconds of the scheduler's clock.
        done: called exactly once, from whichever thread finishes the job, unless the job is abandoned (a
            cancel without an error). It must not block; what it raises is logged.
        priority: 1 goes first, larger numbers later; 0 means MIDDLE_PRIORITY. Source: 0 for "none asked for" and
            1 for the highest, as in Triton's schedule policy extension of the Open Inference Protocol.
        request_id: by which the log names it.

    Attributes:
        outputs: output name -> (rows, *row shape), or `None`. Views of the batch's result where the job ran
            in one part.
        keeper: the scheduler that it was submitted to.
        error: what it ended with instead, or `None`. One of the two is set before `done` is called.
        queue_s: seconds it waited, between its parts and in retried batches included.
        compute_s: seconds of the batches that it was part of.

    Raises:
        InvalidInput: no rows, or an input that has another number of them.
    """

    __slots__ = (
        "answer",
        "compute_s",
        "deadline",
        "done",
        "error",
        "finished",
        "inputs",
        "keeper",
        "lane",
        "outputs",
        "priority",
        "queue_s",
        "request_id",
        "row_shapes",
        "rows",
        "start",
        "stop",
        "submitted",
        "ticket",
        "wanted",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        deadline: float,
        done: Callable[[Job], None],
        priority: int = 0,
        *,
        request_id: str = "",
    ) -> None:
        row_shapes = {}
        for name, array in inputs.items():
            shape = array.shape
            if shape[:1] != (rows,):
                raise InvalidInput(f"Expected '{name}' to have {rows} rows. Received: shape {shape}.")
            row_shapes[name] = shape[1:]
        if rows < 1:
            raise InvalidInput(f"Expected at least 1 row. Received: {rows}.")
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.done = done
        self.priority = priority or MIDDLE_PRIORITY
        self.request_id = request_id
        self.outputs: dict[str, Array] | None = None
        self.error: LayertapError | None = None
        self.keeper: Any = None
        self.queue_s = 0.0
        self.compute_s = 0.0
        # From here on the scheduler's own. Rows before `stop` have been taken, [start, stop) is the part in
        # flight, the rest waits in `lane`.
        self.lane: Lane | None = None
        self.wanted: tuple[str, ...] = ()  # the lane's outputs; empty: all that its function yields
        self.row_shapes = row_shapes
        self.submitted = 0.0
        self.ticket = 0
        self.start = 0
        self.stop = 0
        self.answer: dict[str, Array] | None = None  # the outputs as far as they are there
        self.finished = False  # the claim: whoever sets it, under the scheduler's lock, ends the job

    def take(self, room: int) -> int:
        """Makes up to `room` of the rows that wait the part in flight; returns how many."""
        self.start = self.stop
        self.stop = min(self.rows, self.start + room)
        return self.stop - self.start

    def succeed(self, ended: float) -> None:
        """Publishes the answer of a claimed job whose last part is there."""
        self.outputs = self.answer
        self._close(ended)

    def fail(self, error: LayertapError, ended: float | None = None) -> None:
        """Ends a claimed job with an error."""
        self.error = error
        self._close(ended)

    def _close(self, ended: float | None) -> None:
        if ended is not None:
            self.queue_s = max(0.0, ended - self.submitted - self.compute_s)
        try:
            self.done(self)
        except BaseException:  # noqa: BLE001 SystemExit too: the jobs after this one must be answered
            _log.exception("a job's callback raised; the job is finished all the same")


class Deferred(Exception):
    """A function cannot take these rows; another one of the same outputs can, once it has been made.

    Args:
        make: makes it; slow, so not on the engine's thread.
    """

    def __init__(self, make: Callable[[], Run]) -> None:
        super().__init__("another function is to be made for these rows")
        self.make = make


class Maker(Protocol):
    """Makes the functions of closed lanes; `service.serving.lanes.LaneCache` is one. Nothing here may block."""

    def want(self, lane: Lane) -> None:
        """A job waits in this closed lane of the maker's: its function is to be made."""
        ...

    def reserve(self, lane: Lane, make: Callable[[], Run]) -> Lane:
        """The lane for the rows that a lane's own function cannot take; closed until what `make` gives is there."""
        ...


class Family(Protocol):
    """Lanes whose jobs may share a batch though they want different outputs; `families.LaneFamily` is one."""

    def unite(self, lane: Lane, rows: int, other: Lane, more: int) -> Lane | None:
        """The lane whose function is to compute `rows` rows of one lane and `more` of another; `None`: apart.

        Called on the engine thread, under the scheduler's lock.
        """
        ...


class Lane:
    """Jobs that may share a forward pass: one model, version and set of outputs.

    Args:
        name: for logs and reports.
        max_batch_size: rows of its largest batch, at least 1.
        run: the forward pass, a `service.engines.Function.run`. Without it the lane is closed: its jobs wait,
            and nobody else with them, until `Scheduler.open` or `Scheduler.fail`.
        label: model and version, for reports.
        outputs: what the function yields; may be left out where there is no family.
        row_bytes: of its results for one row, as far as that is known.
        family: the lanes whose jobs may share this one's batches.
        maker: is told of jobs that wait while the lane is closed, and gives the lane for those that were deferred.

    Attributes:
        cost: of the function; the engine thread's own.
        coming_rows: those that a place is kept for; with `price` and `waiting_s`, `admission`'s.

    Raises:
        SettingsError: an impossible batch size.
    """

    __slots__ = (
        "_others",
        "_plain",
        "coming_rows",
        "cost",
        "error",
        "family",
        "label",
        "maker",
        "max_batch_size",
        "name",
        "outputs",
        "price",
        "row_bytes",
        "run",
        "waiting_rows",
        "waiting_s",
    )

    def __init__(
        self,
        name: str,
        *,
        max_batch_size: int,
        run: Run | None = None,
        label: tuple[str, int] = ("", 0),
        outputs: tuple[str, ...] = (),
        row_bytes: int = 0,
        family: Family | None = None,
        maker: Maker | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise SettingsError(f"Expected max_batch_size to be at least 1. Received: {max_batch_size}.")
        self.name = name
        self.max_batch_size = max_batch_size
        self.run = run
        self.label = label
        self.outputs = outputs
        self.row_bytes = row_bytes
        self.family = family
        self.maker = maker
        self.cost = Cost()
        self.error: LayertapError | None = None  # the function that could not be had
        # In the order of their turn. Linked, so that a cancelled job leaves from the middle at once. Jobs of the
        # middle priority have a queue of their own, and where there are no others nothing is ever sorted.
        self._plain: OrderedDict[Job, None] = OrderedDict()
        self._others: dict[int, OrderedDict[Job, None]] = {}  # by priority; no queue in it is empty
        self.waiting_rows = 0
        self.coming_rows = 0
        self.price: tuple[float, float] | None = None  # seconds of any batch, and of each row in it
        self.waiting_s = 0.0  # of the rows that wait or come

    @property
    def busy(self) -> bool:
        """Whether any job waits here."""
        return bool(self._plain or self._others)

    def waiting(self) -> Iterator[Job]:
        """The jobs that wait, in the order of their turn; nothing may be put or removed meanwhile."""
        return itertools.chain.from_iterable(self._queues()) if self._others else iter(self._plain)

    def oldest(self) -> Iterator[Job]:
        """The first job of each priority, the highest first."""
        return (next(iter(queue)) for queue in self._queues())

    def put(self, job: Job) -> None:
        """Puts a new job at the back of those of its priority."""
        if job.priority == MIDDLE_PRIORITY:
            self._plain[job] = None
        else:
            self._others.setdefault(job.priority, OrderedDict())[job] = None

    def put_back(self, job: Job) -> None:
        """Moves a job that waits to the back of those of its priority."""
        queue = self._plain if job.priority == MIDDLE_PRIORITY else self._others[job.priority]
        queue.move_to_end(job)

    def remove(self, job: Job) -> None:
        """Takes out a job that waits."""
        if job.priority == MIDDLE_PRIORITY:
            del self._plain[job]
            return
        queue = self._others[job.priority]
        del queue[job]
        if not queue:
            del self._others[job.priority]

    def _queues(self) -> list[OrderedDict[Job, None]]:
        queues = {**self._others, MIDDLE_PRIORITY: self._plain} if self._plain else self._others
        return [queues[priority] for priority in sorted(queues)]


def mark_finished(jobs: Iterable[Job]) -> list[Job]:
    """Those of `jobs` that nobody has ended yet, marked, and so the caller's to end; under the one lock."""
    marked = []
    for job in jobs:
        if not job.finished:
            job.finished = True
            marked.append(job)
    return marked


def twin(error: LayertapError) -> LayertapError:
    """A copy for each of many jobs: one exception that many raise would gather all their tracebacks."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied
