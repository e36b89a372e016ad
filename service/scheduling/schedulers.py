"""Owns the engine threads of a process: one that models share, and one of its own for each model whose code may block.

The shared thread runs one batch at a time with all cores, and its models take turns. A model with Python code of its
own may sleep, wait for a lock or never come back, and nobody can end that: it has a scheduler of its own, so that only
its own requests wait. The event loop runs batches of the shared one alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from service.scheduling.batch import BatchReport
from service.scheduling.scheduler import Scheduler
from service.threads import start_thread

_LAST_S = 5.0  # at the end, for threads that may be stuck


class Schedulers:
    """The shared scheduler and the others.

    Args:
        shared: of all models that have none of their own.
        make: gives one more, not started yet.

    Attributes:
        shared: as given.
    """

    def __init__(self, shared: Scheduler, make: Callable[[], Scheduler] | None = None) -> None:
        self.shared = shared
        self._make = make
        self._own: list[Scheduler] = []
        self._observers: list[Callable[[BatchReport], None]] = []
        self._lock = threading.Lock()

    @classmethod
    def of(cls, scheduler: Scheduler | Schedulers) -> Schedulers:
        """The schedulers themselves, or a lone one that all models share."""
        return scheduler if isinstance(scheduler, Schedulers) else cls(scheduler)

    def own(self) -> Scheduler:
        """A new one for a single model, started; `let_go` ends it. The shared one where there are no others."""
        if self._make is None:
            return self.shared
        scheduler = self._make()
        with self._lock:
            for observe in self._observers:
                scheduler.listen(observe)
            self._own.append(scheduler)
        scheduler.start()
        return scheduler

    def let_go(self, scheduler: Scheduler) -> None:
        """Ends a model's own scheduler once what waits in it is done; does nothing to the shared one."""
        with self._lock:
            if scheduler not in self._own:
                return
            self._own.remove(scheduler)
        start_thread(lambda: scheduler.stop(drain=True), "layertap-engine-end")

    def listen(self, observe: Callable[[BatchReport], None]) -> None:
        """Tells one more listener about every batch, on its engine's thread."""
        with self._lock:
            self._observers.append(observe)
            for scheduler in (self.shared, *self._own):
                scheduler.listen(observe)

    @property
    def alive(self) -> bool:
        """Whether every engine thread runs."""
        return all(scheduler.alive for scheduler in (self.shared, *self._own))

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for a batch."""
        return sum(scheduler.waiting_rows for scheduler in (self.shared, *self._own))

    @property
    def backlog_s(self) -> float:
        """How long it is likely to take until all is done that waits or runs."""
        return max(scheduler.backlog_s for scheduler in (self.shared, *self._own))

    def stop(self, *, drain: bool) -> None:
        """Ends all; a thread that is stuck in a model's code is left behind."""
        with self._lock:
            own, self._own = self._own, []
        ending = [
            start_thread(lambda scheduler=scheduler: scheduler.stop(drain=drain), "layertap-engine-end")  # type: ignore[misc]  # a default binds each
            for scheduler in own
        ]
        self.shared.stop(drain=drain)
        for thread in ending:
            thread.join(_LAST_S)
