"""Owns a thread that does one thing after another for whoever asks, and lets them go when it is stopped."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from service.errors import NotReady

T = TypeVar("T")

_log = logging.getLogger("layertap.service")


class Errands:
    """One daemon thread: an errand that takes minutes holds up neither the next request nor the process's end.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._open: set[Future[Any]] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def run(self, work: Callable[[], T]) -> T:
        """Does `work` on the thread, after what was asked before, and waits for it.

        Raises:
            NotReady: stopped, before or meanwhile.
            Exception: what `work` raised.
        """
        return self.post(work).result()

    def post(self, work: Callable[[], T]) -> Future[T]:
        """Has `work` done on the thread; returns at once.

        Raises:
            NotReady: stopped.
        """
        done: Future[T] = Future()
        with self._lock:
            if self._stopped:
                raise _draining()
            self._open.add(done)
            if self._thread is None:
                self._thread = threading.Thread(target=self._go, name=self._name, daemon=True)
                self._thread.start()
        self._queue.put((work, done))
        return done

    def stop(self) -> None:
        """Lets go of whoever waits. What has begun is done to its end, of what has not nothing is."""
        with self._lock:
            self._stopped = True
            left, self._open = self._open, set()
        for done in left:
            done.set_exception(_draining())

    def _go(self) -> None:
        while True:
            work, done = self._queue.get()
            if not done.done():
                self._do(work, done)
            del work, done  # what they hold would live until the next errand

    def _do(self, work: Callable[[], Any], done: Future[Any]) -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 it is handed to whoever waits
            failure = error
        with self._lock:
            if done not in self._open:
                return
            self._open.remove(done)
        if failure is None:
            done.set_result(result)
        else:
            done.set_exception(failure)


def _draining() -> NotReady:
    return NotReady("The service is draining; send the request to another instance.")
