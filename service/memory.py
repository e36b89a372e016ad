"""Owns how many bytes all requests of a process may hold at a time, and who holds them.

Whatever a request makes grow is charged before it is there: bodies as they are read, what they unpack to, decoded
pictures, parsed documents, arrays, what a model computes in between, replies until their clients have taken them. A
charge that does not fit is refused, and what a request held is given back at its end, to the system where it is much.

A `Charge` belongs to one request. Code that reads its body finds it by the thread that it runs on (`paid_by`, `pay`):
how a body is read is told in many layers, and none of them need know who pays.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.cores import own_cgroups
from service.errors import BodyTooLarge, GrowthTooLarge, MemoryFull
from service.threads import start_thread

FREE_BYTES = 40 * 2**20
"""What any request may make of its body: a scanned page is a picture of 9 million pixels in 40 KB."""

GROWTH = 64
"""Bytes that a body may become for each of its own, besides FREE_BYTES: the worst that honest ones need is a half."""

_SHARE = 4  # a quarter of the machine's memory; the rest is for models, and for other processes
_LEAST = 128 * 2**20
_WORTH_RETURNING = 64 * 2**20  # bytes that were given back, before the system gets them
_SETTLING_S = 0.5  # until the last references to them are gone, too


def usable_bytes(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """How much memory this process may use: the machine's, or less where a cgroup of it or above it says so.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, "memory.max"; version 1 has `memory.limit_in_bytes`.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    files = [folder / "memory.max" for folder in own_cgroups(cgroups, membership)]
    for file in (*files, cgroups / "memory" / "memory.limit_in_bytes"):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def memory_for_requests(said: int | None, workers: int) -> int:
    """The bytes that one worker's requests may hold.

    Args:
        said: the setting `max_memory_bytes`; `None`: a quarter of what the process may use.
        workers: that share it.
    """
    whole = max(_LEAST, usable_bytes() // _SHARE) if said is None else said
    return max(1, whole // workers)


class Memory:
    """What the requests of a process hold together; any thread.

    Args:
        limit: bytes.
        refused: told of each charge that was refused.

    Attributes:
        limit: as given.
        held: bytes that are charged now.
        peak: the most that ever were.
        refusals: how many charges were refused for want of room.
    """

    def __init__(self, limit: int = sys.maxsize, refused: Callable[[], object] = lambda: None) -> None:
        self.limit = limit
        self.held = self.peak = self.refusals = 0
        self._refused = refused
        self._lock = threading.Lock()
        self._given_back = 0
        self._returning = False

    def charge(self) -> Charge:
        """What one more request holds: nothing yet."""
        return Charge(self)

    def take(self, size: int, what: str, *, new: bool = False) -> None:
        """Takes bytes that are about to be used.

        Args:
            size: bytes, 0 or more.
            what: needs them, for the message.
            new: for a body that is still to be read. Half of the memory is kept for what becomes of those that were:
                else a crowd would fill it with bodies of which none can be answered.

        Raises:
            MemoryFull: others hold too much for that.
            BodyTooLarge: they were too many if nobody else were here.
        """
        limit = self.limit // 2 if new else self.limit
        with self._lock:
            if self.held + size <= limit:
                self._add(size)
                return
            self.refusals += 1
        self._refused()
        whose = "half of max_memory_bytes" if new else "max_memory_bytes"
        if size > limit:
            raise BodyTooLarge(
                f"Expected requests that need at most {limit} bytes of memory ({whose}). "
                f"Received: one that needs {size} for {what}.",
                limit_bytes=limit,
            )
        raise MemoryFull(
            f"Expected all requests together to need at most {limit} bytes of memory ({whose}). "
            f"Received: one more that needs {size} for {what}."
        )

    def note(self, size: int) -> None:
        """Counts bytes that are used already, whether they fit or not."""
        with self._lock:
            self._add(size)

    def give_back(self, size: int) -> None:
        """Bytes that are used no longer."""
        with self._lock:
            self.held -= size
            self._given_back += size
            due = self._given_back >= _WORTH_RETURNING and not self._returning
            self._returning = self._returning or due
        if due:
            start_thread(self._return, "layertap-memory")

    def _add(self, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)

    def _return(self) -> None:
        """Returns to the system what was given back: the allocator would keep most of it for itself."""
        threading.Event().wait(_SETTLING_S)
        with self._lock:
            self._given_back = 0
            self._returning = False
        trim()


def trim() -> None:
    """Has the C library return free memory to the system, where it is glibc. Source: malloc_trim(3)."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


class Charge:
    """What one request holds of the memory; one thread at a time uses it, any may release it.

    Args:
        memory: that it is a part of.

    Attributes:
        held: bytes that it holds.
        sent: bytes of its body as they came, which what becomes of it is measured by.
    """

    __slots__ = ("_memory", "_released", "held", "sent")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._released = False
        self.held = self.sent = 0

    def receive(self, size: int) -> None:
        """Takes memory for that many more bytes of the body. Raises as `Memory.take`."""
        self.sent += size
        self._take(size, "its body", new=True)

    def hold(self, size: int, what: str) -> None:
        """Takes memory for `what`; nothing where the request is over. Raises as `Memory.take`."""
        self._take(size, what, new=False)

    def _take(self, size: int, what: str, *, new: bool) -> None:
        if not self._released:
            self._memory.take(size, what, new=new)
            self.held += size

    def grow(self, size: int, what: str) -> None:
        """As `hold`, for what becomes of the body: that is bounded by what was sent, too.

        Raises:
            GrowthTooLarge: it is more than honest bodies need.
        """
        allowed = FREE_BYTES + GROWTH * self.sent
        if self.held + size > allowed:
            raise GrowthTooLarge(
                f"Expected a body that needs at most {GROWTH} bytes of memory for each of its own and "
                f"{FREE_BYTES} besides, {allowed} here. Received: one that needs {self.held + size}, "
                f"{size} of them for {what}.",
                limit_bytes=allowed,
            )
        self.hold(size, what)

    def keep(self, size: int) -> None:
        """Gives back all but `size` bytes."""
        surplus = self.held - size
        if surplus > 0 and not self._released:
            self.held = size
            self._memory.give_back(surplus)

    def release(self) -> None:
        """The request is over."""
        if not self._released:
            self._released = True
            if self.held:
                self._memory.give_back(self.held)


_paying = threading.local()  # `charge`: of the request that this thread works for


@contextmanager
def paid_by(charge: Charge | None) -> Iterator[None]:
    """What this thread does meanwhile is charged to that request; `None`: to nobody."""
    before = getattr(_paying, "charge", None)
    _paying.charge = charge
    try:
        yield
    finally:
        _paying.charge = before


def pay(size: int, what: str) -> None:
    """Charges memory to the request that this thread works for, before it is used.

    Args:
        size: bytes.
        what: needs them, for the message.

    Raises:
        MemoryFull, BodyTooLarge, GrowthTooLarge: it may not have them.
    """
    charge: Charge | None = getattr(_paying, "charge", None)
    if charge is not None:
        charge.grow(size, what)


@contextmanager
def paid(size: int, what: str) -> Iterator[None]:
    """As `pay`, for memory that is used no longer than this lasts."""
    charge: Charge | None = getattr(_paying, "charge", None)
    if charge is None:
        yield
        return
    before = charge.held
    charge.grow(size, what)
    try:
        yield
    finally:
        charge.keep(max(before, charge.held - size))
