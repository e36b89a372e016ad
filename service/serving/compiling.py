"""Owns whose function is made next: models take turns, and nothing is made for clients who have gone.

One thread makes one function at a time. A model may have a few of them waiting; who wants one more is refused, so that
one client, who can name any number of sets of layers, takes neither the thread nor the memory of others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from service.errors import QueueFull
from service.scheduling.admission import retry_after_s
from service.serving.errands import run_within
from service.threads import start_thread

_log = logging.getLogger("layertap.lanes")

_KEPT = 0.7  # the weight of what earlier functions took, for the estimate of when to come back


@dataclass(frozen=True, slots=True)
class Making:
    """A function to be made.

    Args:
        work: makes it; sees to its own errors.
        wanted: whether anybody still waits for it; asked just before, must not block.
        unmade: called instead of, or during, `work`: with `None` where nobody waits, with TimeoutError where it took
            too long and was given up.
    """

    work: Callable[[], None]
    wanted: Callable[[], bool]
    unmade: Callable[[TimeoutError | None], None]


class Compiler:
    """The thread that makes functions.

    Args:
        name: the thread's.
        max_waiting: how many functions of one model may wait.
        limit_s: how long one may take until it is given up, so that the next ones get their turn.
        refused: told the model whenever one more is refused.
    """

    def __init__(
        self,
        name: str,
        *,
        max_waiting: int,
        limit_s: float,
        refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._name = name
        self._max_waiting = max_waiting
        self._limit_s = limit_s
        self._refused = refused
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: OrderedDict[tuple[str, int], dict[Hashable, Making]] = (
            OrderedDict()
        )  # by model, in turn
        self._thread: threading.Thread | None = None
        self._made_now: tuple[tuple[str, int], Hashable] | None = None
        self._usual_s = 0.0
        self._stopped = False

    @property
    def waiting(self) -> int:
        """How many functions wait to be made."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def check(self, model: tuple[str, int]) -> None:
        """Refuses one more function of a model that has enough of them waiting.

        Raises:
            QueueFull: see above; says when to come back.
        """
        with self._lock:
            mine = self._waiting.get(model, {})
            if len(mine) < self._max_waiting:
                return
            wanted = sum(making.wanted() for making in mine.values())  # who has gone takes no place
            if wanted < self._max_waiting:
                return
            seconds = self._usual_s * len(mine) * len(self._waiting)
        self._refused(model[0])
        raise QueueFull(
            f"Expected fewer than {self._max_waiting} sets of layers of model '{model[0]}' that wait to be compiled "
            f"(max_waiting_compilations). Received: {wanted}. Name those that are often asked for in warm_layers.",
            retry_after_s=retry_after_s(seconds),
        )

    def post(self, model: tuple[str, int], key: Hashable, making: Making) -> None:
        """Has a function made in its model's turn; does nothing where it waits or is made already, or once stopped.

        Whoever waits for the function must be seen by `making.wanted` before this is called: what nobody wants when
        its turn comes is forgotten, and only asking again brings it back.
        """
        with self._lock:
            if self._stopped or self._made_now == (model, key):
                return
            self._waiting.setdefault(model, {}).setdefault(key, making)
            if self._thread is None:
                self._thread = start_thread(self._go, self._name)
            self._news.notify()

    def stop(self) -> None:
        """Begins nothing more."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            self._news.notify()

    def _go(self) -> None:
        while (turn := self._next()) is not None:
            making, wanted = turn
            try:
                if wanted:
                    self._make(making)
                else:
                    making.unmade(None)
            except BaseException:  # noqa: BLE001 the next function must be made, whatever became of this one
                _log.exception("%s: a function was not made", self._name)
            del turn, making  # what they hold would live until the next one

    def _next(self) -> tuple[Making, bool] | None:
        """The next one in turn, and whether anybody wants it; `None` once it is stopped."""
        with self._lock:
            self._made_now = None
            while not self._waiting:
                if self._stopped:
                    return None
                self._news.wait()
            model, mine = self._waiting.popitem(last=False)
            key = next(iter(mine))
            making = mine.pop(key)
            if mine:
                self._waiting[model] = mine  # behind the other models
            wanted = making.wanted()  # under the lock: see `post`
            self._made_now = (model, key) if wanted else None
            return making, wanted

    def _make(self, making: Making) -> None:
        begun = time.monotonic()
        try:
            run_within(making.work, self._limit_s, f"{self._name}-work")
        except TimeoutError as error:
            making.unmade(error)
        self._usual_s += (1 - _KEPT) * (time.monotonic() - begun - self._usual_s)
