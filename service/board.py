"""Owns what the processes of one service tell each other: a piece of memory that the master makes and workers inherit.

What a worker has written is still there when it is killed. Every worker has a slot: its state, and a note of the models
that it is loading. The master alone writes what concerns all. One byte is written as a whole, so states need no lock; a
note is read by others once its writer is dead. Beside the memory there is a folder, for sockets of workers and a lock.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

SLOTS = 128
"""Workers there may be at a time, those that leave included."""

_NOTE_BYTES = 4096
_LONG_NOTE_BYTES = 256 * 1024
_LENGTH = struct.Struct("<I")
_STOPPING, _HAS_SERVED, _DEATHS, _STATES = 0, 1, 4, 16
_NOTES = 4096  # where they begin; behind those of the slots come the two below
ACCUSED = SLOTS
"""Whose note holds what must not be loaded again; the master writes it."""
_UNLOADED = SLOTS + 1


class Stage(IntEnum):
    """Where a worker is in its life."""

    FREE = 0  # no worker has the slot
    BOOTING = 1  # no model's code has run
    LOADING = 2
    READY = 3
    USELESS = 4  # everything was tried, and no model answers
    LEAVING = 5
    HOPELESS = 6  # neither it nor another one in its place can start


class Board:
    """The memory of one service.

    Args:
        where: the folder of its own is made in there; `None`: where the system has such folders.

    Attributes:
        folder: open to the service's user only.
    """

    def __init__(self, where: str | None = None) -> None:
        self._memory = mmap.mmap(-1, _NOTES + SLOTS * _NOTE_BYTES + 2 * _LONG_NOTE_BYTES)
        self.folder = Path(tempfile.mkdtemp(prefix="layertap-", dir=where))
        atexit.register(self._remove, os.getpid())

    def _remove(self, maker: int) -> None:
        """At the end; not by processes that were forked from this one."""
        if os.getpid() == maker:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Keeps all other threads of all workers from this block."""
        with (self.folder / "turn").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def unloaded(self) -> Sequence[str]:
        """Models that were unloaded on request."""
        return tuple(self.read(_UNLOADED) or ())

    def set_unloaded(self, name: str, *, unloaded: bool) -> None:
        """Notes that a model was unloaded, or loaded again; in a turn."""
        others = [other for other in self.unloaded() if other != name]
        self.write(_UNLOADED, [*others, name] if unloaded else others)

    def forget_unloaded(self) -> None:
        """By the master: all models are loaded anew."""
        self.write(_UNLOADED, [])

    def take(self) -> Slot:
        """A slot for the next worker; by the master, before it forks.

        Raises:
            RuntimeError: there are too many workers.
        """
        for number in range(SLOTS):
            if self.stage(number) is Stage.FREE:
                slot = Slot(self, number)
                slot.stage = Stage.BOOTING
                slot.note(None)
                return slot
        raise RuntimeError(f"Expected at most {SLOTS} workers at a time. Received: one more.")

    def stage(self, number: int) -> Stage:
        """The state of the worker in a slot."""
        return Stage(self._memory[_STATES + number])

    def set_stage(self, number: int, stage: Stage) -> None:
        """Sets it."""
        self._memory[_STATES + number] = stage
        if stage is Stage.READY:
            self._memory[_HAS_SERVED] = 1

    def anybody_ready(self) -> bool:
        """Whether some worker answers requests."""
        return self._memory.find(bytes([Stage.READY]), _STATES, _STATES + SLOTS) >= 0

    @property
    def has_served(self) -> bool:
        """Whether a worker of this service has been ready, ever."""
        return bool(self._memory[_HAS_SERVED])

    @property
    def stopping(self) -> bool:
        """Whether the whole service stops, and not one worker only."""
        return bool(self._memory[_STOPPING])

    def stop(self) -> None:
        """By the master: the whole service stops."""
        self._memory[_STOPPING] = 1

    @property
    def deaths(self) -> int:
        """How many workers have ended unasked."""
        return int(_LENGTH.unpack_from(self._memory, _DEATHS)[0])

    def count_death(self) -> None:
        """By the master: one more has."""
        _LENGTH.pack_into(self._memory, _DEATHS, self.deaths + 1)

    def write(self, place: int, value: Any) -> None:
        """Leaves a note.

        Args:
            place: a slot's number, or ACCUSED.
            value: what JSON can hold; forgotten where it is longer than a note may be.
        """
        text, start, most = json.dumps(value).encode(), *_place(place)
        _LENGTH.pack_into(self._memory, start, 0)  # nobody reads half of it
        if len(text) <= most:
            self._memory[start + _LENGTH.size : start + _LENGTH.size + len(text)] = text
            _LENGTH.pack_into(self._memory, start, len(text))

    def read(self, place: int) -> Any:
        """A note, or `None`; whoever reads while its writer writes may get `None`, too."""
        start, most = _place(place)
        (length,) = _LENGTH.unpack_from(self._memory, start)
        text = self._memory[start + _LENGTH.size : start + _LENGTH.size + min(length, most)]
        try:
            return json.loads(text)
        except ValueError:
            return None


def _place(number: int) -> tuple[int, int]:
    """Where a note begins, and how many bytes it may have."""
    if number < SLOTS:
        return _NOTES + number * _NOTE_BYTES, _NOTE_BYTES - _LENGTH.size
    start = _NOTES + SLOTS * _NOTE_BYTES + (number - SLOTS) * _LONG_NOTE_BYTES
    return start, _LONG_NOTE_BYTES - _LENGTH.size


class Slot:
    """One worker's place on the board.

    Args:
        board: where it is.
        number: which it is, from 0.
    """

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number

    @property
    def stage(self) -> Stage:
        """Where the worker is in its life."""
        return self.board.stage(self.number)

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self.board.set_stage(self.number, stage)

    def note(self, value: Any) -> None:
        """Leaves a note for whoever finds the worker dead."""
        self.board.write(self.number, value)

    def noted(self) -> Any:
        """The note."""
        return self.board.read(self.number)


class _Here:
    """What this process is to the service."""

    slot: Slot | None = None


def attach(slot: Slot) -> None:
    """Tells this process, which has just been forked, that a slot is its own."""
    _Here.slot = slot


def own_slot() -> Slot | None:
    """This process's slot; `None` where it is no worker of a master that keeps a board."""
    return _Here.slot
