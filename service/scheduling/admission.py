"""Owns who is let in: the seconds of work before a request, measured, against the seconds that it has.

A request that cannot be answered in time is refused when it comes, while that is cheap and its client can go
elsewhere, instead of being computed too late. The estimate:

- What waits in a lane takes so much for each batch and so much for each row, as `costs.Cost` learnt them. A sum over
  all lanes is kept while jobs come and go; nothing is walked through for a request.
- What is left of the batch that runs.
- Both are stretched by what batches really took beside their estimate of late (`Pace`): threads share cores, and the
  engine has more to do than its functions.
- A lane that nobody has measured counts nothing; there only the limit of rows holds.

Models take turns by the engine's time (`queueing`), so before a request goes at most as much work of each other model as
of its own.

The rule: a lane's own work may be at most twice the room that all work leaves of `_FULL` of the request's time. A lane
alone thus fills half of the time. Where one is full, a quarter of the time is still free, and another lane gets two
thirds of that: no model's backlog shuts out another's. Source of the rule: Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998.
"""

from __future__ import annotations

import math
from typing import Any

from service.errors import QueueFull
from service.scheduling.jobs import Lane

_FULL = 0.75
"""The part of a request's time that work before it may fill. The rest is for what no estimate knows: the answer's own
way back, batches that take longer than usual. Half of the time, for a lane alone, keeps the 99th percentile below
the deadline though estimates err by a third, and costs no throughput: the queue only has to outlast a batch."""

_GREED = 2.0  # times the room that is left; see the module
_ALONE = (
    _FULL * _GREED / (1 + _GREED)
)  # with less than this before it a request is let in, whosever the work is

MAX_RETRY_AFTER_S = 60
_KEPT = 0.97  # the weight that each measurement leaves to those before it: about the last thirty count
_LONGEST = 10.0  # times what was expected; one that took longer counts as this, so it cannot decide alone
_ENOUGH = 8  # measurements
_NOTHING_S = 1e-9  # sums of seconds that come and go do not end at zero exactly


class Pace:
    """How many seconds pass for each unit of work, learnt from work that was done.

    Args:
        unknown: what `ratio` is until enough was measured.

    Attributes:
        ratio: seconds for a unit of work. Where work is itself told in seconds, how far they are stretched.
    """

    __slots__ = ("_count", "_took_s", "_units", "ratio")

    def __init__(self, unknown: float = 1.0) -> None:
        self._count = 0
        self._units = self._took_s = 0.0
        self.ratio = unknown

    def measured(self, units: float, took_s: float) -> None:
        """Learns from a piece of work; one of nothing teaches nothing."""
        if units <= 0:
            return
        if self._count >= _ENOUGH:
            took_s = min(took_s, _LONGEST * self.ratio * units)
        self._count += 1
        self._units = self._units * _KEPT + units
        self._took_s = self._took_s * _KEPT + took_s
        if self._count >= _ENOUGH:
            self.ratio = self._took_s / self._units


class Place:
    """A place kept in a lane for a request whose body is still being read; `Scheduler.book` gives it.

    Args:
        lane: where it will wait; `None`: nobody knows yet.
        rows: how many it is thought to have.

    Attributes:
        held: whether it is still kept.
        keeper: the scheduler that keeps it.
    """

    __slots__ = ("held", "keeper", "lane", "rows")

    def __init__(self, lane: Lane | None, rows: int) -> None:
        self.lane = lane
        self.rows = rows
        self.held = True
        self.keeper: Any = None


class Backlog:
    """The seconds of work before the engine; guarded by the scheduler's lock, as the queue that it belongs to."""

    __slots__ = ("_estimated_s", "_models_s", "_pace", "_running", "_took_s", "_until", "_waiting_s")

    def __init__(self) -> None:
        self._pace = Pace()
        self._waiting_s = 0.0  # as estimated, not stretched
        self._models_s: dict[tuple[str, int], float] = {}  # the same by model, of those that have any
        self._running: Lane | None = None
        self._until = 0.0  # when the batch that runs should be over
        self._estimated_s = 0.0  # of that batch
        self._took_s: float | None = None

    def change(self, lane: Lane) -> None:
        """Takes note that other rows than before wait in a lane, or that they cost something else."""
        price = lane.price
        if price is not None:
            rows = lane.waiting_rows + lane.coming_rows
            seconds = -(-rows // lane.max_batch_size) * price[0] + rows * price[1]
            self._waiting_s += seconds - lane.waiting_s
            own_s = self._models_s.get(lane.label, 0.0) + seconds - lane.waiting_s
            if own_s > _NOTHING_S:
                self._models_s[lane.label] = own_s
            else:
                self._models_s.pop(lane.label, None)
            lane.waiting_s = seconds

    def began(self, lane: Lane, before_s: float, now: float) -> None:
        """Takes note that a batch was taken out of the lanes.

        Args:
            lane: whose function runs it.
            before_s: `estimated_s` before it was taken out.
            now: the time.
        """
        self._running = lane
        self._estimated_s = max(0.0, before_s - self._waiting_s)
        self._until = now + self._estimated_s * self._pace.ratio
        self._took_s = None

    def measured(self, seconds: float) -> None:
        """On the engine thread, without the lock: the batch took so long and did not fail."""
        self._took_s = seconds

    def settle(self) -> None:
        """Takes note that no batch runs any more, and learns from the one that did."""
        lane = self._running
        if lane is None:
            return
        self._running = None
        if self._took_s is not None:
            self._pace.measured(self._estimated_s, self._took_s)
            lane.price = lane.cost.price()
            self.change(lane)

    @property
    def estimated_s(self) -> float:
        """What waits, as estimated."""
        return self._waiting_s

    def seconds(self, now: float) -> float:
        """How long it takes until all is done that waits or runs."""
        return self._running_s(now) + max(0.0, self._waiting_s) * self._pace.ratio

    def _running_s(self, now: float) -> float:
        """What is left of the batch that runs; one that takes longer than it should is taken to be about to end."""
        return max(0.0, self._until - now) if self._running is not None else 0.0

    def check(
        self,
        lane: Lane | None,
        rows: int,
        deadline: float,
        now: float,
        *,
        share: float = 1.0,
        before: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Refuses a request that is not likely to be answered in time.

        Args:
            lane: where it would wait; `None`: nobody knows yet.
            rows: how many it has.
            deadline: when its answer is worthless; whose time is over already is let in, and told so.
            now: the time.
            share: the part of what waits that goes before it.
            before: the seconds that it needs before it gets here, those of all requests before it included, and how
                many of them are of its own lane. What waits here is done meanwhile.

        Raises:
            QueueFull: see the module.
        """
        stretch = self._pace.ratio
        waiting_s = max(0.0, self._waiting_s)
        idle = self._running is None and waiting_s < _NOTHING_S and before[0] <= 0
        if idle or not now < deadline < math.inf:
            return
        left_s = deadline - now
        own_s = new_s = 0.0
        if lane is not None and lane.price is not None:
            new_s = (rows // lane.max_batch_size * lane.price[0] + rows * lane.price[1]) * stretch
            own_s = lane.waiting_s * stretch * share
            waiting_s = self._before_s(lane, new_s / stretch)
        all_s = max(self._running_s(now) + waiting_s * stretch * share + new_s, before[0])
        if all_s <= _ALONE * left_s:
            return
        own_s = max(own_s + new_s, before[1])
        if own_s > _GREED * (_FULL * left_s - all_s):
            raise QueueFull(
                f"Expected a request that can be answered within {left_s:.3g} s. Received: one behind about "
                f"{all_s:.3g} s of work.",
                retry_after_s=retry_after_s(all_s),
            )

    def _before_s(self, lane: Lane, new_s: float) -> float:
        """What waits and goes before a new job of a lane that itself takes `new_s`, as estimated."""
        model_s = self._models_s.get(lane.label, 0.0)
        others = len(self._models_s) - (lane.label in self._models_s)
        others_s = max(0.0, self._waiting_s - model_s)
        return model_s + min(others_s, others * (model_s + new_s))


def retry_after_s(wait_s: float) -> int:
    """When to come back: once what waits is done, in whole seconds."""
    return min(MAX_RETRY_AFTER_S, max(1, math.ceil(round(wait_s, 3))))
