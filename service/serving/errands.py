"""Owns work on other threads that somebody waits for: one thing after another on one thread, or one within a time.

Whoever waits gets an answer, whatever the work ends with: code that a model brings may raise `SystemExit`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from service.errors import NotReady, ServiceError
from service.threads import give_up, start_thread

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
            Exception: what `work` raised; ServiceError where that is no Exception and would end the caller's thread.
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
                self._thread = start_thread(self._go, self._name)
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
        except BaseException as error:  # noqa: BLE001 as above; the thread goes on with the next errand
            _log.critical("an errand of %s ended with %s", self._name, type(error).__name__, exc_info=True)
            failure = ServiceError(f"The service failed: {type(error).__name__}; its log has the cause.")
        with self._lock:
            if done not in self._open:
                return
            self._open.remove(done)
        if failure is None:
            done.set_result(result)
        else:
            done.set_exception(failure)


def run_within(work: Callable[[], T], limit_s: float, name: str) -> T:
    """Does `work` on a thread of its own and waits for it, but no longer than `limit_s`.

    A thread cannot be ended from outside: one whose time is over goes on, with all that it holds, until its work ends
    by itself, which the log then tells.

    Args:
        work: what is done.
        limit_s: how long it is waited for.
        name: the thread's.

    Raises:
        TimeoutError: the work is still going on.
        BaseException: what `work` raised.
    """
    done: Future[T] = Future()
    begun = time.monotonic()

    def go() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 it is handed to whoever waits
            done.set_exception(error)
        if (took_s := time.monotonic() - begun) > limit_s:
            _log.warning("%s: what was given up ended after %.1f s; what it gave is let go of", name, took_s)

    thread = start_thread(go, name)
    if not wait([done], limit_s).done:
        give_up(thread)
        raise TimeoutError
    return done.result()


def _draining() -> NotReady:
    return NotReady("The service is draining; send the request to another instance.")
