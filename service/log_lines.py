"""Owns the writing of log lines: on a thread of its own, so that nobody waits for whoever reads the log.

A pipe that is full, because its reader is slow or stuck, holds up whoever writes to it. Here that is one thread. What
waits for it is bounded; beyond that lines are dropped, counted, and told of once there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TextIO

_FLUSH_WITHIN_S = 1.0
_PIECE_BYTES = 64 * 1024  # written at once


class LineWriter:
    """Writes to one file descriptor.

    Args:
        descriptor: of an open file.
        most_bytes: of lines that may wait.
    """

    def __init__(self, descriptor: int, most_bytes: int) -> None:
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self.begin()

    def begin(self) -> None:
        """Begins anew, with nothing to write; in a forked process, which has no threads yet."""
        self._news = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # of lines that are not written yet
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, line: bytes) -> bool:
        """Has a line written; returns whether there is room for it."""
        with self._news:
            if self._bytes and self._bytes + len(line) > self._most_bytes:
                return False
            self._lines.append(line)
            self._bytes += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._go, name="layertap-log", daemon=True)
                self._thread.start()
            self._news.notify_all()
            return True

    def flush(self, within_s: float = _FLUSH_WITHIN_S) -> None:
        """Waits until all is written, but not for long."""
        end = time.monotonic() + within_s
        with self._news:
            while self._bytes and (left_s := end - time.monotonic()) > 0:
                self._news.wait(left_s)

    def close(self) -> None:
        """Has the thread end once all is written; another line brings another one."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _go(self) -> None:
        while piece := self._next():
            with contextlib.suppress(OSError):  # nobody can be told that there is no log
                self._write(piece)
            with self._news:
                self._bytes -= len(piece)
                self._news.notify_all()

    def _next(self) -> bytes:
        """What is written next; nothing, once it is closed and all is written."""
        with self._news:
            while not self._lines:
                if self._closed:
                    self._thread, self._closed = None, False
                    return b""
                self._news.wait()
            lines: list[bytes] = []
            size = 0
            while self._lines and (not lines or size + len(self._lines[0]) <= _PIECE_BYTES):
                lines.append(self._lines.popleft())
                size += len(lines[-1])
            return b"".join(lines)

    def _write(self, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[os.write(self._descriptor, piece) :]
            except BlockingIOError:  # somebody who shares the file has set it so
                select.select([], [self._descriptor], [])


_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


class _Open:
    """Who counts what this process drops."""

    dropped: Callable[[], object] = staticmethod(lambda: None)


def _begin_anew() -> None:
    for writer in _writers:
        writer.begin()


os.register_at_fork(after_in_child=_begin_anew)


def count_dropped(count: Callable[[], object]) -> None:
    """Has `count` called for every line that this process drops from now on."""
    _Open.dropped = count


class PatientHandler(logging.Handler):
    """Hands lines to a writer; never waits for the log's reader.

    Args:
        stream: where they go.
        most_bytes: of lines that may wait.
    """

    def __init__(self, stream: TextIO, most_bytes: int) -> None:
        super().__init__()
        self._writer = LineWriter(stream.fileno(), most_bytes)
        self._dropped = 0
        _writers.add(self._writer)

    def emit(self, record: logging.LogRecord) -> None:
        """Formats a record, and has it written."""
        try:
            if self._dropped and self._put(_told(self._dropped)):
                self._dropped = 0
            if not self._put(record):
                self._dropped += 1
                _Open.dropped()
        except Exception:  # noqa: BLE001 what cannot be logged stops nobody
            self.handleError(record)

    def flush(self) -> None:
        """Waits until all is written, a second at most."""
        self._writer.flush()

    def close(self) -> None:
        """No more is logged, probably; the thread ends."""
        self.flush()
        self._writer.close()
        super().close()

    def _put(self, record: logging.LogRecord) -> bool:
        return self._writer.put(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))


def _told(dropped: int) -> logging.LogRecord:
    message = "%d log lines were dropped, since nobody took them (max_log_bytes)"
    return logging.LogRecord("layertap.log", logging.WARNING, __file__, 0, message, (dropped,), None)
