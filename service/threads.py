"""Owns the start of the service's own threads, and what becomes of one that is given up.

None ends by an error, `SystemExit` included, without a line in the log. A thread cannot be ended from outside; one
that takes too long can only be given up. It then goes on, but nobody waits for it, nor for a turn that it has.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

_log = logging.getLogger("layertap.service")
_news = threading.Condition()
_given_up: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Starts a daemon thread that does `work`; what it raises, of whatever kind, is logged.

    Python itself says nothing of a thread that ends with `SystemExit`, which any code that a model brings may raise.

    Args:
        work: what the thread does; whoever waits for it must be told by itself.
        name: the thread's.
    """

    def go() -> None:
        try:
            work()
        except BaseException:  # noqa: BLE001 there is nobody above a thread
            _log.critical("the thread %s ended by an error", name, exc_info=True)

    thread = threading.Thread(target=go, name=name, daemon=True)
    thread.start()
    return thread


def give_up(thread: threading.Thread) -> None:
    """Takes note that nobody waits for this thread any more; others may have the turns that it has."""
    with _news:
        _given_up.add(thread)
        _news.notify_all()


def is_given_up() -> bool:
    """Whether nobody waits for the calling thread any more, so that it must not change what others share."""
    with _news:
        return threading.current_thread() in _given_up


class Turn:
    """A lock for work that may run foreign code: whoever was given up does not keep others from it."""

    def __init__(self) -> None:
        self._holder: threading.Thread | None = None

    def __enter__(self) -> None:
        with _news:
            _news.wait_for(lambda: self._holder is None or self._holder in _given_up)
            self._holder = threading.current_thread()

    def __exit__(self, *_: object) -> None:
        with _news:
            if self._holder is threading.current_thread():
                self._holder = None
                _news.notify_all()
