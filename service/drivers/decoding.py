"""Owns the threads that read pictures and large bodies, and how long it takes until they get to a new one.

Event loops only: whatever waits here is counted on the loop's thread. What a body costs is learnt for each kind of
them, by its bytes; how fast the threads come along, from what they finished while they had something to do, so that it
does not matter how many cores they really have (`admission.Pace`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from service.errors import QueueFull
from service.scheduling.admission import Pace, retry_after_s
from service.serving.results import deadline_error

_MOST_KINDS = 256


@dataclass(frozen=True, slots=True)
class Task:
    """A body to be read.

    Args:
        kind: of which others cost as much for each byte.
        owner: whose work it is: its model.
        size: in bytes.
        deadline: when it is not worth reading any more, in seconds of `time.monotonic`.
    """

    kind: Hashable
    owner: Hashable
    size: int
    deadline: float


class DecodingPool:
    """A few threads, and those who wait for them.

    Args:
        threads: how many.
        most: how many bodies may be here at once, so that memory is bounded.
    """

    def __init__(self, threads: int, most: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="layertap-decode")
        self._most = most
        self._here = 0
        self._ahead_s: defaultdict[Hashable, float] = defaultdict(float)  # by owner, as estimated
        self._costs: dict[Hashable, Pace] = {}  # seconds for each byte
        self._lock = threading.Lock()  # around the paces: the threads measure
        self._pace = Pace()
        self._busy_since = 0.0

    @property
    def busy(self) -> bool:
        """Whether a new body would have to wait, as far as can be told."""
        return self._here >= self._threads

    def ahead(self, task: Task) -> tuple[float, float]:
        """Seconds until a new body would be read, and those of them that are for bodies of the same owner.

        Nothing where no other is here: it is read at once.
        """
        if not self._here:
            return 0.0, 0.0
        own_s = self._estimate(task)
        pace = self._pace.ratio
        return (sum(self._ahead_s.values()) + own_s) * pace, (self._ahead_s[task.owner] + own_s) * pace

    async def run(self, task: Task, work: Callable[..., Any], *arguments: Any) -> Any:
        """Reads a body as soon as a thread is free; gives what `work` gives.

        Raises:
            QueueFull: too many are here; says when they will have been read.
            DeadlineExceeded: the time was over before a thread was free.
            Exception: what `work` raised.
        """
        if self._here >= self._most:
            raise QueueFull(
                f"Expected fewer than {self._most} requests in decoding (max_queue_rows). Received: one more.",
                retry_after_s=retry_after_s(self.ahead(task)[0]),
            )
        estimated_s = self._estimate(task)
        if not self._here:
            self._busy_since = time.monotonic()
        self._here += 1
        self._ahead_s[task.owner] += estimated_s
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._read, task, estimated_s, work, arguments)
        finally:
            self._here -= 1
            self._ahead_s[task.owner] -= estimated_s
            if not self._here:
                self._ahead_s.clear()

    def close(self) -> None:
        """Lets the threads end once they have read what is here."""
        self._pool.shutdown(wait=False)

    def _read(
        self, task: Task, estimated_s: float, work: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        begun = time.monotonic()
        if begun >= task.deadline:
            raise deadline_error()
        try:
            return work(*arguments)
        finally:
            ended = time.monotonic()
            with self._lock:
                self._cost(task.kind).measured(task.size, ended - begun)
                self._pace.measured(estimated_s, ended - self._busy_since)
                self._busy_since = ended

    def _estimate(self, task: Task) -> float:
        with self._lock:
            return task.size * self._cost(task.kind).ratio

    def _cost(self, kind: Hashable) -> Pace:
        cost = self._costs.get(kind)
        if cost is None:
            if len(self._costs) >= _MOST_KINDS:
                self._costs.clear()
            cost = self._costs[kind] = Pace(unknown=0.0)
        return cost
