"""Owns what is put aside on a hot path and counted later, many at once, in a loop that stays in the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_SETTLE_AT = 256


class Pending(Generic[Item]):
    """Items from any thread.

    Args:
        count: takes those that were put aside; called under `lock`.

    Attributes:
        lock: guards what `count` writes to.
    """

    __slots__ = ("_count", "_items", "lock")

    def __init__(self, count: Callable[[list[Item]], None]) -> None:
        self._count = count
        self._items: list[Item] = []
        self.lock = threading.Lock()

    def add(self, item: Item) -> None:
        """Puts one item aside; every so often all of them are counted."""
        self._items.append(item)
        if len(self._items) >= _SETTLE_AT:
            with self.lock:
                self.settle()

    def settle(self) -> None:
        """Counts all that was put aside until now; the caller holds the lock."""
        # Others append meanwhile: what is taken off is exactly what was looked at.
        items = self._items[:]
        del self._items[: len(items)]
        self._count(items)
