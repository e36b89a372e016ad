"""Owns which versions are not loaded again, because a worker died while it loaded them.

Nothing inside a process can hold off code that ends it (`os._exit`, a crash, the system's killer for want of memory). So a
worker notes on the board what it loads; who finds it dead reads that, and tells all workers to come. A version is known
by what its files look like: others in their place are loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

from service.board import ACCUSED, Board, Slot
from service.errors import LoadError

_MOST = 500


@dataclass(frozen=True, slots=True)
class Accusation:
    """One version that is not loaded again.

    Args:
        name: its model.
        version: its number.
        mark: what its files looked like, see `mark_of`.
        how: what became of the worker.
    """

    name: str
    version: int
    mark: str
    how: str


class Accusations:
    """What the master knows of them.

    Args:
        board: where workers read it.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._known: list[Accusation] = []

    def add(self, accused: Iterable[Accusation]) -> None:
        """Tells the workers of more; the oldest go where there are too many."""
        self._known = [*self._known, *accused][-_MOST:]
        self._tell()

    def clear(self) -> None:
        """Forgets all of them."""
        self._known = []
        self._tell()

    def _tell(self) -> None:
        self._board.write(ACCUSED, [astuple(each) for each in self._known])


class Loading:
    """What a worker is loading now, on any of its threads.

    Args:
        slot: its own; `None`: nobody would find it dead, so nothing is noted.
    """

    def __init__(self, slot: Slot | None) -> None:
        self._slot = slot
        self._lock = threading.Lock()
        self._now: list[tuple[str, int, str]] = []

    @contextlib.contextmanager
    def noted(self, name: str, version: int, mark: str) -> Iterator[None]:
        """Notes a version for as long as the block takes.

        Raises:
            LoadError: a worker has died of it.
        """
        if self._slot is None:
            yield
            return
        self._refuse(self._slot, name, version, mark)
        loading = (name, version, mark)
        with self._lock:
            self._now.append(loading)
            self._slot.note(self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now.remove(loading)
                self._slot.note(self._now)

    @staticmethod
    def _refuse(slot: Slot, name: str, version: int, mark: str) -> None:
        for accused in slot.board.read(ACCUSED) or ():
            if accused[:3] == [name, version, mark]:
                raise LoadError(
                    "Expected a model that loads. Received: one that ended the process which loaded it "
                    f"({accused[3]}), so it is not tried again.",
                    mend="See what its custom objects do, and how much memory it takes. It is loaded again once its files "
                    "have changed, after SIGHUP and when the service is started again.",
                )


def mark_of(footprint: Iterable[object]) -> str:
    """What tells whether files have changed, short and the same in all processes."""
    return hashlib.sha256(repr(sorted(map(repr, footprint))).encode()).hexdigest()[:16]
