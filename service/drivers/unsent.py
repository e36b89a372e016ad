"""Owns how much of what was sent a client has not taken yet."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios

_NUMBER = struct.Struct("i")


def untaken_bytes(transport: asyncio.Transport) -> int:
    """Bytes that wait here and in the system for the client to take them.

    The system's own buffer holds megabytes: while a slow client empties that, nothing moves here for a long time.
    Source: SIOCOUTQ in tcp(7), which is TIOCOUTQ.
    """
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError):  # it is closed, or the system cannot tell
        answer = fcntl.ioctl(
            transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_NUMBER.size)
        )
        waiting += _NUMBER.unpack(answer)[0]
    return waiting
