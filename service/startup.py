"""Owns the measuring of starts: how old this process is, and what a phase takes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path


def process_age_s(status: Path = Path("/proc/self/stat")) -> float | None:
    """Seconds since this process began (a worker: since it was forked); `None` where the system does not tell.

    Source: proc_pid_stat(5), field 22, in clock ticks since boot.
    """
    try:
        ticks = int(status.read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


@contextlib.contextmanager
def timed(phases_s: MutableMapping[str, float], name: str) -> Iterator[None]:
    """Adds the seconds that the block takes to `phases_s[name]`, also where it raises."""
    begun = time.monotonic()
    try:
        yield
    finally:
        phases_s[name] = phases_s.get(name, 0.0) + time.monotonic() - begun
