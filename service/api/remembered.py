"""Owns what a dialect remembers of requests: worked out once, for as long as the same models are served."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

LONGEST = 1024
"""Bytes or characters of a request that may become a key; what is longer is worked out every time."""

_MOST = 1024


class Remembered(Generic[Key, Value]):
    """A bounded store, emptied when it is full and when other models are served.

    A value is kept with the generation that it was worked out for: a slow thread cannot bring back an old one.
    """

    __slots__ = ("_generation", "_known")

    def __init__(self) -> None:
        self._generation = 0
        self._known: dict[tuple[Key, int], Value] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: Key, generation: int) -> Value | None:
        """The value of a key.

        Args:
            key: what tells one request from another.
            generation: of the runtime.
        """
        if generation != self._generation:
            self._known.clear()
            self._generation = generation
        return self._known.get((key, generation))

    def keep(self, key: Key, generation: int, value: Value) -> None:
        """Remembers a value; arguments as `find`."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key, generation] = value
